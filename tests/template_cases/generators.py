"""Generators, coroutines and async generators. What the calls make is run to its end, values being sent (`differential.run_to_end`)."""

from template_cases.case import Table

TABLE = Table(
    "generators",
    """
    import sys
    class Finalized:
        def __init__(self, name): self.name = name
        def __del__(self): log.append(("del", self.name))
    class Iterator:
        def __init__(self, *values, returns=None): self.values, self.returns = list(values), returns
        def __iter__(self): return self
        def __next__(self):
            if not self.values: raise StopIteration(self.returns)
            return self.values.pop(0)
    class Sender(Iterator):
        def send(self, value): log.append(("sent", value)); return next(self)
    class Awaitable:
        def __init__(self, *values, returns=None): self.values, self.returns = values, returns
        def __await__(self):
            for value in self.values: yield value
            return self.returns
    class NoAwaitable: pass
    class BadAwait:
        def __await__(self): return 5
    class Aiter:
        def __init__(self, *values): self.values = list(values)
        def __aiter__(self): return self
        async def __anext__(self):
            if not self.values: raise StopAsyncIteration
            value = self.values.pop(0)
            if isinstance(value, Exception): raise value
            return await Awaitable("step", returns=value)
    class BadAiter:
        def __aiter__(self): return 5
    class BadAnext:
        def __aiter__(self): return self
        def __anext__(self): return 5
    class Manager:
        def __init__(self, swallow=False): self.swallow = swallow
        async def __aenter__(self): log.append("enter"); return await Awaitable("entering", returns=self)
        async def __aexit__(self, *exc): log.append(("exit", exc[0])); await Awaitable("leaving"); return self.swallow
    def inner(n, returns=None):
        for i in range(n):
            log.append(("got", (yield i)))
        return returns
    def failing(error):
        yield "before"
        raise error
    async def plain(value): return value
    async def raising(error): raise error
    async def numbers(n):
        for i in range(n):
            await Awaitable(("tick", i))
            yield i
    """,
)
function = TABLE.function

function("RETURN_GENERATOR YIELD_VALUE", "def f(*values):\n    for value in values:\n        got = yield value\n        log.append(got)\n    return len(values)\n", "", "1", "1, 'two', None", "[], {}")
function("RETURN_GENERATOR YIELD_VALUE", "def f(a, b=2, *, c=3):\n    yield a\n    yield a, b\n    yield [a, b, c]\n", "1", "1, 5", "'a'", "[1], None")
function("YIELD_VALUE", "def f(a):\n    x = [a, (yield a), (yield [a]), a]\n    return x\n", "1", "'s'", "[]")
function("YIELD_VALUE", "def f(a, b):\n    return a + (yield b) + (yield a)\n", "1, 2", "'a', 'b'", "1.5, 2")
function("YIELD_VALUE", "def f(n):\n    for i in range(n):\n        if i % 3 == 0:\n            yield i\n        elif i % 3 == 1:\n            yield -i\n        else:\n            continue\n", "0", "1", "10")
function("RETURN_GENERATOR", "def f(a):\n    def g():\n        nonlocal a\n        a += 1\n        yield a\n    for x in g():\n        yield x\n    yield a\n", "1", "'a'")
function("RETURN_GENERATOR", "def f(a):\n    yield (x for x in a)\n    yield list(x + x for x in a)\n    yield sum(len(y) for y in [a, a])\n    yield [*(x for x in a)], {*(x for x in a)}, max(x for x in a)\n", "'abc'", "[3, 4]", "()", "5")
function("YIELD_VALUE", "def f(error):\n    try:\n        yield 1\n        raise error\n    except ValueError as caught:\n        yield caught, sys.exception() is caught\n    finally:\n        yield 'finally', sys.exception()\n", "ValueError(2)", "KeyError('k')", "StopIteration(3)", "GeneratorExit()")
function("YIELD_VALUE", "def f(a):\n    x = Finalized('local')\n    yield Finalized('yielded').name\n    x = yield [Finalized('stack').name, (yield a)]\n    del x\n", "1", "[]")
function("YIELD_VALUE", "def f():\n    yield missing\n", "")
function("YIELD_VALUE", "def f(a):\n    while True:\n        b = yield a\n        if b and b > 3:\n            raise StopIteration(b)\n", "1")
function("YIELD_VALUE", "def f(n):\n    def walk(n):\n        if n:\n            yield from walk(n - 1)\n            yield n\n            yield from walk(n - 1)\n    total = 0\n    for x in walk(n):\n        total += x\n    yield total\n", "0", "1", "6")
DELEGATES = ["inner(0)", "inner(3, 'end')", "[1, 2]", "'ab'", "Iterator(1, 2, returns='r')", "Sender(1, 2, returns=(1, 2))", "failing(ValueError(1))", "failing(RuntimeError('x'))", "range(3)", "{}", "5", "None", "plain(1)", "numbers(1)"]
function("SEND END_SEND GET_YIELD_FROM_ITER CLEANUP_THROW JUMP_BACKWARD_NO_INTERRUPT", "def f(it):\n    result = yield from it\n    log.append(('result', result))\n    return result\n", *DELEGATES[:-2], "(x for x in [1, 2])")
function("SEND", "def f(it):\n    try:\n        return [1, (yield from it), 2]\n    except (ValueError, TypeError) as error:\n        yield type(error).__name__\n", *DELEGATES[:-2])
function("GET_AWAITABLE SEND END_SEND CLEANUP_THROW", "async def f(a):\n    result = await a\n    log.append(('awaited', result))\n    return result\n", "plain(3)", "Awaitable()", "Awaitable(1, 2, returns=3)", "raising(ValueError(1))", "raising(StopIteration(1))", "NoAwaitable()", "BadAwait()", "5", "inner(2)")
function("GET_AWAITABLE", "async def f(n):\n    total = 0\n    for i in range(n):\n        total += await plain(i)\n        total += await Awaitable(i, returns=total)\n    return total\n", "0", "5", "30")
function("GET_AWAITABLE", "async def f():\n    c = plain(1)\n    await c\n    await c\n", "")
function("GET_AITER GET_ANEXT END_ASYNC_FOR", "async def f(it):\n    seen = []\n    async for x in it:\n        if x == 'skip':\n            continue\n        if x == 'stop':\n            break\n        seen.append(x)\n    else:\n        seen.append('else')\n    return seen\n", "Aiter()", "Aiter(1, 2, 3)", "Aiter(1, 'skip', 2, 'stop', 3)", "Aiter(1, ValueError(2))", "numbers(0)", "numbers(4)", "BadAiter()", "BadAnext()", "NoAwaitable()", "[1]", "Aiter(StopAsyncIteration())")
function("GET_AITER", "async def f(it):\n    async for x in it:\n        async for y in numbers(x):\n            log.append((x, y))\n", "numbers(3)", "Aiter(2, 1)")
function("GET_AITER", "async def f(it):\n    return [x async for x in it], {y: 1 async for y in numbers(3) if y}, [await plain(z) for z in range(2)]\n", "numbers(3)", "Aiter(1, 2)", "Aiter(ValueError(1))")
function("RETURN_GENERATOR YIELD_VALUE", "async def f(it):\n    async for x in it:\n        got = yield x\n        log.append(got)\n        await Awaitable('between')\n    yield 'end'\n", "numbers(3)", "Aiter(1)", "Aiter(1, ValueError(2))", "5")
function("YIELD_VALUE", "async def f(error):\n    try:\n        yield 1\n        raise error\n    except ValueError:\n        yield 'caught'\n    finally:\n        await Awaitable('finally')\n", "ValueError(2)", "KeyError('k')", "StopAsyncIteration()", "StopIteration(1)")
function("GET_AWAITABLE", "async def f(manager, error):\n    async with manager as m:\n        log.append(m is manager)\n        if error:\n            raise error\n        await Awaitable('inside')\n    return 'behind'\n", "Manager(), None", "Manager(), ValueError(1)", "Manager(True), ValueError(1)", "5, None")
function("END_SEND", "async def f():\n    return await plain(await plain(1) + await plain(2)), (await plain([]))\n", "")
