"""Programs of generators, coroutines and asynchronous iteration."""

import asyncio
import sys
import types

from programs import Error, Half, Manager
from records import Noisy, attempt, note


class AsyncManager:
    async def __aenter__(self):
        await step("entering")
        return Noisy("entered asynchronously")

    async def __aexit__(self, *args):
        note(args[1])
        await step("leaving")
        return True


@types.coroutine
def step(value=None):
    received = yield [value]
    return received


class Awaitable:
    def __await__(self):
        return iter([["a"], ["b"]])


class BadAwaitable:
    def __await__(self):
        return ["no iterator"]


class Counter:
    def __init__(self, count, error=StopAsyncIteration):
        self.count = count
        self.error = error

    def __aiter__(self):
        return self

    async def __anext__(self):
        await step()
        if self.count == 0:
            raise self.error
        self.count -= 1
        return Noisy(f"item {self.count}")


class NoNext:
    def __aiter__(self):
        return ["no asynchronous iterator"]


class BadNext(NoNext):
    def __aiter__(self):
        return self

    def __anext__(self):
        return 5


def drive(coroutine):
    """Runs a coroutine to its end, sending what it yields back to it."""
    value = None
    try:
        while True:
            value = coroutine.send(value)
            note("yielded", value)
    except StopIteration as stop:
        return stop.value


def coroutines():
    async def wait(awaitable):
        return await awaitable

    async def managed():
        async with AsyncManager() as entered:
            note(entered, await step("inside"))
            raise Error("inside")
        return "after"

    async def loop(iterable):
        items = []
        async for item in iterable:
            items.append(item)
        else:
            items.append("else")
        return items

    async def comprehension():
        return [item async for item in Counter(2)], {await wait(step(i)) is None async for i in produce()}

    async def produce():
        for i in range(3):
            received = yield [i]
            note(await step(received))

    async def enter(manager):
        async with manager:
            note("entered")

    async def final():
        try:
            await step("waiting")
        finally:
            note("finally", sys.exception())

    async def twice():
        once = wait(step())
        await once
        await once

    for awaitable in (step("awaited"), Awaitable(), BadAwaitable(), wait(step("nested")), 5, [1]):
        attempt(drive, wait(awaitable))
    for iterable in (Counter(2), Counter(1, Error("ended badly")), NoNext(), BadNext(), 5, produce()):
        attempt(drive, loop(iterable))
    for manager in (AsyncManager(), Manager(), Half(), 5):
        attempt(drive, enter(manager))
    for function in (managed, comprehension, twice):
        attempt(drive, function())
    coroutine = final()
    coroutine.send(None)
    attempt(coroutine.throw, Error("thrown"))
    coroutine = final()
    coroutine.send(None)
    coroutine.close()
    attempt(asyncio.run, wait(asyncio.sleep(0, "slept")))


class Receiver:
    """An iterator that is no generator."""

    def __iter__(self):
        return self

    def __next__(self):
        return ["next"]

    def send(self, value):
        if value == "stop":
            raise StopIteration(["stopped"])
        if value == "fail":
            raise ZeroDivisionError
        return value


class Thrower(Receiver):
    def throw(self, *args):
        raise StopIteration(["thrown"])


def generators():
    def delegate(iterable):
        result = yield from iterable
        note("result", result)
        return [result]

    def inner():
        try:
            first = yield ["first"]
            second = yield [first]
        except Error as error:
            yield "caught"
            return "returned after " + str(error)
        return [first, second]

    def stopping():
        yield 1
        raise StopIteration

    def itself():
        yield from current

    async def coroutine():
        pass

    def step_through(iterable, *sent):
        generator = delegate(iterable)
        note(next(generator))
        for value in sent:
            if isinstance(value, Exception):
                attempt(generator.throw, value)
            else:
                attempt(generator.send, value)
        generator.close()

    step_through(inner(), 1, 2, 3)
    step_through(inner(), Error("thrown"), None)
    step_through(inner(), KeyError("not caught"))
    step_through([1, 2], None, None, None)
    step_through(iter([1, 2]), "sent")
    step_through(Receiver(), "value", "stop")
    step_through(Receiver(), "fail")
    step_through(Thrower(), Error("thrown"))
    step_through(iter([1]), Error("thrown"))
    step_through(stopping(), None)
    attempt(lambda: list(delegate(range(3))))
    attempt(lambda: next(delegate(5)))
    current = itself()
    attempt(next, current)
    del current
    waiting = coroutine()
    attempt(lambda: next(delegate(waiting)))
    waiting.close()
    note([x for x in (y for y in [[1]])], {k: [v] for k, v in {1: 2}.items()}, {*"ab"} | {i for i in range(3)})


PROGRAMS = (coroutines, generators)
