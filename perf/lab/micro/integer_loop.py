"""Micro-loop: small-integer arithmetic, 500,000 iterations."""


def bench():
    total = 0
    for i in range(500_000):
        total += i & 7
    return total
