"""Documents of a web service: made, turned into JSON text, read back, changed, and compared.

Prints a checksum of all text, the same under every allocator.
"""
import json
import random
import zlib

DOCUMENTS = 150
ROUNDS = 3


def make_document(numbers, depth):
    if depth == 0:
        kind = numbers.randrange(4)
        if kind == 0:
            return numbers.randrange(1 << 40)
        if kind == 1:
            return numbers.random() * 1000
        if kind == 2:
            return "text " * numbers.randrange(1, 12) + str(numbers.randrange(1000))
        return [numbers.randrange(100) for _ in range(numbers.randrange(8))]
    return {f"key_{index}_{numbers.randrange(50)}": make_document(numbers, depth - 1) for index in range(5)}


def main():
    numbers = random.Random(20240501)
    documents = [make_document(numbers, 3) for _ in range(DOCUMENTS)]
    checksum = 0
    for _ in range(ROUNDS):
        texts = [json.dumps(document, indent=1, sort_keys=True) for document in documents]
        compact = [json.dumps(document, separators=(",", ":")) for document in documents]
        for text in texts + compact:
            checksum = zlib.crc32(text.encode(), checksum)
        back = [json.loads(text) for text in compact]
        assert [json.loads(text) for text in texts] == back
        for document in back:
            document[f"added_{checksum % 1000}"] = sorted(document)
        documents = back
    print("json", checksum, sum(len(text) for text in texts))


main()
