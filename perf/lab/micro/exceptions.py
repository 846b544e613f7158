"""Micro-loop: a KeyError raised and caught 200,000 times."""


def bench():
    table = {}
    caught = 0
    for _ in range(200_000):
        try:
            table[1]
        except KeyError:
            caught += 1
    return caught
