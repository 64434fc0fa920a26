"""The parts of bench/compare."""


class Trouble(Exception):
    """Something the caller has to know in one line; the comparison cannot go on."""
