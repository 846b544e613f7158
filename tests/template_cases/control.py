"""Jumps, loops, and moving things on the operand stack."""

from template_cases.case import Table

TABLE = Table(
    "control",
    """
    class Countdown:
        def __init__(self, n): self.n = n
        def __repr__(self): return f"Countdown({self.n})"
        def __iter__(self): return self
        def __next__(self):
            if self.n == 0: raise StopIteration("end")
            if self.n == 13: raise OSError(13)
            self.n -= 1
            return self.n
    class BadIter:
        def __iter__(self): return 5
    class Old:
        def __len__(self): return 2
        def __getitem__(self, index):
            if index > 2: raise IndexError
            return index
    class Finalized:
        def __init__(self, name): self.name = name
        def __repr__(self): return self.name
        def __del__(self): log.append("del " + self.name)
    """
)
function = TABLE.function

ITERABLES = ["[1, 2, 3]", "(1, 2)", "range(4)", "range(2, 20, 5)", "range(10, 0, -3)", "range(2**62, 2**62 + 2)", "'abc'", "{1: 2, 3: 4}", "{5}", "{1: 2}.items()", "Countdown(4)", "Countdown(15)", "iter([1, 2])", "enumerate('ab')", "zip([1], [2])",
             "BadIter()", "Old()", "5", "None", "map(len, ['a', 'bc'])", "[]", "reversed([1, 2])", "b'ab'", "(x for x in 'pq')", "frozenset()"]  # fmt: skip
function("GET_ITER FOR_ITER END_FOR POP_ITER JUMP_BACKWARD", "def f(a):\n    out = []\n    for x in a:\n        out.append(x)\n    return out\n", *ITERABLES)
function("FOR_ITER", "def f(a):\n    for x in a:\n        if x == 2: break\n        if not x: continue\n        log.append(x)\n    else:\n        return 'else', x\n    return 'broke', x\n", *ITERABLES)
function("FOR_ITER", "def f(a):\n    total = 0\n    for x in range(a):\n        for y in range(x):\n            if y == 5: break\n            total += x * y\n    return total, x\n", "1", "10", "0", "'x'", "-3")
function("FOR_ITER POP_ITER", "def f(a):\n    for x in a:\n        for y in (x, 2):\n            if y == 2:\n                return x, y\n    return None\n", "[1]", "range(2)", "Countdown(3)", "[]", "[Finalized('q')]")
function("FOR_ITER", "def f(a):\n    for x in a:\n        a.append(x) if len(a) < 6 else a.clear()\n    return a, x\n", "[1, 2]", "[[1]]")
function("FOR_ITER", "def f(a):\n    for x in a:\n        a[len(a)] = x\n    return a\n", "{1: 2}", "{0: 0, 1: 1}", "{}")
function(
    "JUMP_BACKWARD POP_JUMP_IF_FALSE NOT_TAKEN",
    """
    def f(n):
        i = 0
        total = 0
        while i < n:
            i += 1
            if i % 3:
                continue
            total += i
            if total > 100:
                break
        else:
            return "else", i, total
        return i, total
    """,
    "0", "5", "100", "2.5", "'x'",
)  # fmt: skip
function("JUMP_FORWARD", "def f(a, b):\n    x = 1 if a else 2\n    if b:\n        y = x\n    else:\n        y = -x\n    return x, y\n", "0, 0", "1, 0", "[], [1]", "'x', 'y'")
function("JUMP_BACKWARD", "def f(n):\n    while True:\n        n -= 1\n        if n < 0: return n\n", "3", "1000", "2.5", "'x'")
function("POP_JUMP_IF_TRUE POP_JUMP_IF_FALSE", "def f(a, b):\n    if a or b:\n        log.append('either')\n    if not a:\n        log.append('no')\n    while not b:\n        b = 1\n    return a, b\n", "0, 0", "1, 0", "'', 'x'", "[], [1]", "None, 1.5")
function("POP_JUMP_IF_NONE POP_JUMP_IF_NOT_NONE", "def f(a, b):\n    if a is None:\n        return 'none'\n    if b is not None:\n        return 'b', b\n    return a if a is not None else b\n", "None, 1", "1, None", "1, 2", "[], None", "0, 0")
function("POP_JUMP_IF_NONE", "def f(a):\n    while a is not None:\n        a = a.get('next')\n    return a\n", "{'next': {'next': {}}}", "None", "5")
function("NOP", "def f(a):\n    try:\n        pass\n    except ValueError:\n        a = 1\n    if a:\n        pass\n    return a\n", "0", "[1]")
function("POP_TOP", "def f(a):\n    a\n    a.append\n    a.append(1)\n    a[0]\n    f.__name__\n    [a]\n    a + a\n    return a\n", "[1]", "[]", "bytearray(b'x')", "5")
function("POP_TOP", "def f(a):\n    Finalized('one')\n    log.append('between')\n    Finalized('two'), Finalized('three')\n    x = Finalized('local')\n    x = Finalized('next')\n    del x\n    return a\n", "1")
function("COPY SWAP", "def f(a, b, c):\n    x = y = z = a\n    a[b] += c\n    a[b] = d = c\n    return x is y is z, a, b < c < 5, d\n", "[1, 2], 0, 3", "{'k': 'v'}, 'k', 'w'", "{1: 2}, 1, 2", "(1,), 0, 1", "[1], 5, 1", "[[1]], 0, [2]")
function("COPY", "def f(a):\n    a.x = a.y = b = 5\n    a.x += 1\n    a.z = c = [a.x]\n    return a.x, a.y, b, c, (d := a.x) and d\n", "f", "5")
function("BUILD_TUPLE", "def f(a, b):\n    try:\n        return a, b\n    finally:\n        log.append(a)\n", "1, 2", "[1], 'x'")
function("RESUME RETURN_VALUE", "def f():\n    pass\n")
function("PUSH_NULL", "def f(g, h=len):\n    return g(h(g('ab'))), (lambda: g)()(1)\n", "str", "list", "5")
