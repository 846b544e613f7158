"""Micro-loop: 200,000 values taken from a generator."""


def count(n):
    i = 0
    while i < n:
        yield i
        i += 1


def bench():
    total = 0
    for value in count(200_000):
        total += value
    return total
