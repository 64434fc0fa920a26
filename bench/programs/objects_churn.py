"""Objects that come and go: instances with slots, linked nodes, dicts that grow and shrink, lists, strings.

A store of bounded size in which random entries are replaced, so that lifetimes vary and freed memory is used again
by objects of other kinds. Prints a checksum, the same under every allocator.
"""
import random

ENTRIES = 12000
STEPS = 80000


class Node:
    __slots__ = ("key", "value", "next", "children")

    def __init__(self, key, value, following):
        self.key = key
        self.value = value
        self.next = following
        self.children = None


def make_entry(key):
    kind = key % 6
    if kind == 0:
        return Node(key, (key, str(key)), None)
    if kind == 1:
        return {f"field{index}": key + index for index in range(key % 13)}
    if kind == 2:
        return [float(key)] * (key % 40) + [key]
    if kind == 3:
        return f"{key:012d}" * (key % 9 + 1)
    if kind == 4:
        head = None
        for index in range(key % 6 + 1):
            head = Node(index, bytes(key % 50), head)
        return head
    return {key + index for index in range(key % 10)}


def weigh(entry):
    if isinstance(entry, Node):
        total = 0
        while entry is not None:
            total += entry.key + len(entry.value)
            entry = entry.next
        return total
    if isinstance(entry, (dict, set)):
        return sum(entry.values()) if isinstance(entry, dict) else sum(entry)
    return len(entry)


def main():
    numbers = random.Random(20240504)
    store = [None] * ENTRIES
    index = {}
    checksum = 0
    for step in range(STEPS):
        key = numbers.getrandbits(24)
        place = key % ENTRIES
        old = store[place]
        if old is not None:
            checksum = (checksum * 31 + weigh(old)) % (1 << 61)
        store[place] = make_entry(key)
        index[f"k{place}"] = step
        if step % 5000 == 0:
            index = {name: at for name, at in index.items() if at > step - 20000}
    text = "".join(name for name in index)
    parts = [part.upper() for part in text.split("k")]
    print("objects", checksum, len(index), hash(tuple(map(len, parts))))


main()
