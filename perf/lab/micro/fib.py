"""Micro-loop: recursive fib(22), 57,313 calls."""


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def bench():
    return fib(22)
