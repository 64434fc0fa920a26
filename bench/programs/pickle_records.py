"""Records of many kinds, pickled and unpickled, as caches and worker processes do.

Prints a checksum of all bytes, the same under every allocator.
"""
import datetime
import decimal
import pickle
import random
import zlib

RECORDS = 2500
ROUNDS = 3


class Order:
    def __init__(self, numbers, number):
        self.number = number
        self.customer = f"customer {numbers.randrange(500)}"
        self.placed = datetime.datetime(2024, 1, 1) + datetime.timedelta(seconds=numbers.randrange(10**7))
        self.total = decimal.Decimal(numbers.randrange(10**6)) / 100
        self.lines = [(numbers.randrange(10**4), numbers.random(), "x" * numbers.randrange(60)) for _ in range(4)]
        self.tags = {str(numbers.randrange(30)): None for _ in range(3)}
        self.raw = numbers.randbytes(numbers.randrange(200))

    def key(self):
        return (self.number, self.customer, self.placed, self.total, self.lines, sorted(self.tags), self.raw)


def main():
    numbers = random.Random(20240502)
    orders = [Order(numbers, number) for number in range(RECORDS)]
    checksum = 0
    length = 0
    for _ in range(ROUNDS):
        whole = pickle.dumps(orders, protocol=4)
        single = [pickle.dumps(order, protocol=2) for order in orders]
        checksum = zlib.crc32(whole, checksum)
        for data in single:
            checksum = zlib.crc32(data, checksum)
        back = pickle.loads(whole)
        assert all(pickle.loads(data).key() == order.key() for data, order in zip(single[::7], orders[::7]))
        assert [order.key() for order in back] == [order.key() for order in orders]
        length += len(whole) + sum(map(len, single))
        orders = back
    print("pickle", checksum, length)


main()
