"""Source text parsed to trees, changed, compiled, and written out again, as linters and build tools do.

The source is generated, so that it does not depend on the library of the Python at hand. Prints a checksum of the
text and the number of nodes, the same under every allocator.
"""
import ast
import random
import zlib

MODULES = 3
FUNCTIONS = 40


def make_expression(numbers, names, depth):
    if depth == 0:
        return numbers.choice(names) if numbers.random() < 0.6 else str(numbers.randrange(1000))
    left = make_expression(numbers, names, depth - 1)
    right = make_expression(numbers, names, numbers.randrange(depth))
    shape = numbers.choice(("({} + {})", "({} * {})", "f({}, {})", "[{}, {}]", "({} if {} else 0)"))
    return shape.format(left, right)


def make_function(numbers, number):
    names = [f"name_{numbers.randrange(200)}" for _ in range(5)]
    lines = [f"def function_{number}({', '.join(dict.fromkeys(names))}):", '    """One of many."""']
    for _ in range(6):
        lines.append(f"    {numbers.choice(names)} = {make_expression(numbers, names, 4)}")
    lines.append(f"    for item in range({numbers.randrange(50)}):")
    lines.append(f"        print({make_expression(numbers, names, 3)}, item)")
    lines.append(f"    return {{'a': {make_expression(numbers, names, 3)}, 'b': {names[0]!r}}}")
    return "\n".join(lines)


class Rename(ast.NodeTransformer):
    def visit_Name(self, node):
        return ast.copy_location(ast.Name(id=node.id + "_", ctx=node.ctx), node)


def main():
    numbers = random.Random(20240503)
    checksum = 0
    nodes = 0
    for _ in range(MODULES):
        source = "\n\n".join(make_function(numbers, number) for number in range(FUNCTIONS))
        tree = Rename().visit(ast.parse(source))
        nodes += sum(1 for _ in ast.walk(tree))
        text = ast.unparse(tree)
        checksum = zlib.crc32(text.encode(), checksum)
        code = compile(tree, "generated", "exec")
        checksum = zlib.crc32(repr(sorted(code.co_names)).encode(), checksum)
    print("ast", checksum, nodes)


main()
