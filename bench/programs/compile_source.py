"""Writes the C file of the compiler row on stdout: a generated program that needs no header.

Structures, tables, switch statements, loops over arrays, and calls between functions, in the proportions of
ordinary C, from a fixed seed.
"""
import random

FUNCTIONS = 26
STRUCTURES = 24


def make_structure(numbers, number):
    fields = [f"    {numbers.choice(('int', 'long', 'unsigned char', 'double', 'short'))} field{index}"
              f"{'[%d]' % numbers.randrange(2, 20) if numbers.random() < 0.2 else ''};"
              for index in range(numbers.randrange(4, 12))]
    scalars = [index for index, field in enumerate(fields) if "[" not in field]
    if not scalars:
        fields.append("    int last;")
    return "struct s%d {\n%s\n    int mark;\n};" % (number, "\n".join(fields))


def make_expression(numbers, depth):
    if depth == 0:
        return numbers.choice(("a", "b", "c", "i", "p->mark", "table[i & 63]", str(numbers.randrange(1, 99))))
    operator = numbers.choice(("+", "-", "*", "^", "&", "|", "<<", "/"))
    left = make_expression(numbers, depth - 1)
    right = make_expression(numbers, depth - 1 if numbers.random() < 0.5 else 0)
    if operator == "<<":
        return f"(({left}) << ({right} & 7))"
    if operator == "/":
        return f"(({left}) / (({right} & 15) + 1))"
    return f"({left} {operator} {right})"


def make_function(numbers, number):
    structure = numbers.randrange(STRUCTURES)
    lines = [f"long function{number}(struct s{structure} *p, long a, long b)", "{", "    long c = a ^ b, i;"]
    lines.append(f"    for (i = 0; i < {numbers.randrange(4, 40)}; i++) {{")
    for _ in range(3):
        lines.append(f"        c += {make_expression(numbers, 3)};")
    lines.append(f"        if (({make_expression(numbers, 2)}) > {numbers.randrange(1000)})")
    lines.append(f"            p->mark = (int)({make_expression(numbers, 2)});")
    lines.append("    }")
    lines.append("    i = c & 31;")
    lines.append(f"    switch ({make_expression(numbers, 1)} & 15) {{")
    for case in sorted(numbers.sample(range(16), numbers.randrange(3, 9))):
        lines.append(f"    case {case}:")
        lines.append(f"        a = {make_expression(numbers, 3)};")
        lines.append("        break;")
    lines.append("    default:")
    lines.append(f"        b -= {make_expression(numbers, 2)};")
    lines.append("    }")
    if number > 0:
        callee = numbers.randrange(number)
        lines.append(f"    c += function{callee}((void *)p, a, c & 1023);")
    lines.append("    return a + b + c;")
    lines.append("}")
    return "\n".join(lines)


def main():
    numbers = random.Random(20240505)
    parts = [make_structure(numbers, number) for number in range(STRUCTURES)]
    parts.append("static const int table[64] = {%s};" % ", ".join(str(numbers.randrange(1000)) for _ in range(64)))
    parts += [make_function(numbers, number) for number in range(FUNCTIONS)]
    print("\n\n".join(parts))


main()
