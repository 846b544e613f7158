"""Locals, cells, globals, names in bodies, and imports."""

from template_cases.case import Table

TABLE = Table("names")
function, body = TABLE.function, TABLE.body

function("LOAD_FAST_BORROW RETURN_VALUE RESUME", "(a): return a", "1", "[]", "2**70", "None")
function("LOAD_FAST_BORROW_LOAD_FAST_BORROW", "(a, b): return a + b", "1, 2", "'a', 'b'", "[1], [2]", "1, 'x'")
function(
    "LOAD_FAST",
    """
    def f(a):
        b = a
        a = None
        return b
    """,
    "1", "[1]", "2**70",
)  # fmt: skip
function(
    "LOAD_FAST_LOAD_FAST STORE_FAST_STORE_FAST",
    """
    def f(a, b):
        x, y = a, b
        a = b = None
        return x, y
    """,
    "1, 2", "[1], [2]", "2**70, 'x'",
)  # fmt: skip
function(
    "STORE_FAST",
    """
    def f(a, b):
        a, b = b, a
        c = a
        a, b, c = c, a, b
        return a, b, c
    """,
    "1, 2", "[], 'x'", "2**70, 1.5",
)  # fmt: skip
function(
    "STORE_FAST_LOAD_FAST",
    """
    def f(a):
        return [x for x in a], [x + 1 for x in a]
    """,
    "[1, 2, 3]", "(1.5,)", "'ab'",
)  # fmt: skip
function(
    "STORE_FAST",
    """
    def f(a):
        for x in a:
            y = x
            x = y + y
        return x, y
    """,
    "[1, 2, 3]", "'ab'", "[]", "[2**70]",
)  # fmt: skip
function(
    "LOAD_FAST_AND_CLEAR",
    """
    def f(a, x="outer"):
        y = [x for x in a]
        return x, y
    """,
    "[1, 2]", "'ab'", "[], [5]", "5",
)  # fmt: skip
function(
    "LOAD_FAST_AND_CLEAR",
    """
    def f(a):
        z = [x for x in a if x]
        try:
            return x, z
        except UnboundLocalError as error:
            log.append(error.args)
        x = 1
        return [x for x in a], x
    """,
    "[1, 2]", "''",
)  # fmt: skip
function(
    "LOAD_FAST_CHECK",
    """
    def f(a):
        if a:
            x = a
        return x
    """,
    "1", "[5]", "0", "''",
)  # fmt: skip
function(
    "DELETE_FAST",
    """
    def f(a, again):
        del a
        if again:
            del a
        try:
            return a
        except UnboundLocalError as error:
            return error.args
    """,
    "1, 0", "[1], 0", "1, 1",
)  # fmt: skip
function(
    "LOAD_CONST LOAD_SMALL_INT",
    """
    def f(n):
        return 0, 1, n, 255, 256, 300, 2**70, 1.5, "text", b"bytes", (1, "t", (2,)), None, True, ..., 1j, frozenset, -1
    """,
    "1",
)  # fmt: skip
function("LOAD_SMALL_INT", "(n): return n + 1, n - 5, n * 255", "1", "1.5", "'x'")
function("LOAD_CONST", "(n): return n + 1.5, n + 1000, n in (1, 2, 'x'), n == 'text'", "1", "1.5", "'x'")
function("EXTENDED_ARG", "def f(n):\n" + "".join(f"    v{i} = n + {i * 1000}\n" for i in range(300)) + "    return " + " + ".join(f"v{i}" for i in range(0, 300, 7)) + "\n", "1", "1.5", "'x'")
function(
    "EXTENDED_ARG",
    "def f(n):\n    total = 0\n    for i in range(n):\n" + "".join(f"        if i == {i}: total += {i * 1000}\n" for i in range(60)) + "    return total\n",
    "0", "5", "70",
)  # fmt: skip

function(
    "MAKE_CELL STORE_DEREF LOAD_DEREF",
    """
    def f(a, b=0):
        c = a
        def g(): return a, c
        c = [c]
        a = b
        return a, c, g()
    """,
    "1", "[1], 5", "2**70, 'x'",
)  # fmt: skip
function(
    "COPY_FREE_VARS LOAD_DEREF STORE_DEREF",
    """
    def make():
        count = 0
        text = "free"
        def f(n):
            nonlocal count
            count += n
            return count, text
        return f
    f = make()
    """,
    "1", "5", "2.5", "'x'",
)  # fmt: skip
function(
    "DELETE_DEREF LOAD_DEREF",
    """
    def f(a, again):
        def g(): return a
        del a
        if again:
            del a
        try:
            g()
        except NameError as error:
            log.append(error.args)
        return a
    """,
    "1, 0", "[], 1",
)  # fmt: skip
function(
    "LOAD_DEREF",
    """
    def make():
        def f(n): return never, n
        if False: never = 1
        return f
    f = make()
    """,
    "1",
)  # fmt: skip
function(
    "LOAD_GLOBAL",
    """
    value = 1
    def f(n):
        global value
        a = value, len(n)
        value = [n]
        return a, value, ValueError.__name__
    """,
    "'x'", "[1]", "5",
)  # fmt: skip
function("LOAD_GLOBAL", "(n): return missing, n", "1")
function(
    "LOAD_GLOBAL STORE_GLOBAL DELETE_GLOBAL",
    """
    def f(n):
        global made, len
        made = n
        first = made
        len = lambda x: ("shadowed", x)
        second = len(n)
        del made, len
        third = len(n)
        try:
            made
        except NameError as error:
            log.append(error.args)
        return first, second, third
    """,
    "'abc'", "[1]",
)  # fmt: skip
function("DELETE_GLOBAL", "def f():\n    global never\n    del never\n")
function(
    "STORE_GLOBAL",
    """
    counter = 0
    def f(n):
        global counter
        for i in range(n):
            counter = counter + i
        return counter
    """,
    "5", "0", "3",
)  # fmt: skip

function("IMPORT_NAME IMPORT_FROM", "def f():\n    import math\n    from math import pi, floor as down\n    import os.path as p\n    import os.path\n    return math.e, pi, down(2.5), p is os.path\n")
function("IMPORT_NAME", "def f():\n    import no_such_module_at_all\n")
function("IMPORT_FROM", "def f():\n    from math import pi, no_such_name\n")
function("IMPORT_NAME", "def f():\n    from . import sibling\n")

LOOP = """
for turn in range(3):
    seen = turn
"""
body(
    "LOAD_NAME STORE_NAME DELETE_NAME",
    LOOP
    + """
first = [1]
second = first, seen
del first
try:
    first
except NameError as error:
    text = error.args
try:
    del first
except NameError as error:
    text2 = error.args
length = len("abc")
""",
)
body("LOAD_NAME", LOOP + "value = 1\nother = never_defined\n")
body("DELETE_NAME", LOOP + "del never_defined\n")
body("SETUP_ANNOTATIONS", "from __future__ import annotations\n" + LOOP + "x: int = 5\ny: 'text'\nshown = dict(__annotations__)\n")
body("LOAD_BUILD_CLASS", LOOP + "class A:\n    x = 1\nclass B(A):\n    for i in range(2):\n        y = A.x, i\nshown = A.x, B.y, B.x\n")
body(
    "LOAD_LOCALS LOAD_FROM_DICT_OR_DEREF",
    """
def outer(free):
    class Body:
        for i in range(2):
            first = free, i
        if i: free = "own"
        second = free
    return Body.first, Body.second
def missing():
    if False: free = 1
    class Body:
        for i in range(2):
            first = free
for turn in range(2):
    shown = outer([1]), outer("x")
try:
    missing()
except NameError as error:
    text = error.args
""",
)
function(
    "LOAD_FROM_DICT_OR_GLOBALS",
    """
    value = "global"
    class C:
        value = ["class"]
        x: (value, len)
        y: other
        exec("own = 1")
    f = C.__annotate__
    """,
    "1", "5",
)  # fmt: skip
function(
    "LOAD_FROM_DICT_OR_GLOBALS",
    """
    value = "global"
    class C:
        type Alias = (value, int)
        value = ["class"]
    f = C.Alias.evaluate_value
    """,
    "1",
)  # fmt: skip
