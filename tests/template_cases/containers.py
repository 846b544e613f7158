"""Building, filling, cutting, unpacking and matching containers."""

from template_cases.case import Table

TABLE = Table(
    "containers",
    """
    class Iterates:
        def __init__(self, *items): self.items = items
        def __repr__(self): return f"Iterates{self.items}"
        def __iter__(self): return iter(self.items)
    class Mapping:
        def __init__(self, **items): self.items = items
        def keys(self): return self.items.keys()
        def __getitem__(self, key): return self.items[key]
    class Unhashable:
        __hash__ = None
        def __repr__(self): return "Unhashable"
    class Stops:
        def __init__(self, at): self.at = at
        def __iter__(self): return self
        def __next__(self):
            if self.at == 0: raise OSError("next")
            self.at -= 1
            return self.at
    class Index:
        def __index__(self): return 1
    class Point:
        __match_args__ = ("x", "y")
        def __init__(self, x, y=0): self.x, self.y = x, y
        def __repr__(self): return f"Point({self.x}, {self.y})"
    class BadMatchArgs:
        __match_args__ = (1,)
    class Stored:
        def __setitem__(self, key, value): log.append(("set", key, value)); self.last = key
        def __delitem__(self, key): log.append(("del", key))
        def __getitem__(self, key): return key
    """
)
function = TABLE.function

function("BUILD_LIST", "(a, b): return [a, b, a]", "1, 2", "[], 'x'", "2**70, 1.5")
function("BUILD_LIST", "(): return []")
function("BUILD_TUPLE", "(a, b): return (a, b, 1, a + b)", "1, 2", "'x', 'y'", "[1], [2]", "1, 'x'")
function("BUILD_TUPLE", "(a): return (a,)", "1", "[]")
function("BUILD_SET", "(a, b): return {a, b, 1}", "1, 2", "'x', 'x'", "[], 1", "1, []", "Unhashable(), 1")
function("BUILD_MAP", "(a, b): return {a: b, 'k': a}", "1, 2", "'k', 'x'", "[], 1", "1, []")
function("BUILD_MAP", "(): return {}")
function("LIST_EXTEND", "(a): return [0, *a, 9]", "[1, 2]", "(1,)", "'ab'", "{1: 2}", "Iterates(1, 2)", "Stops(2)", "5", "None")
function("LIST_EXTEND", "(): return [1, 2, 3, 4]")
function("SET_UPDATE", "(a): return {0, *a}", "[1, 0]", "'ab'", "[[]]", "Stops(1)", "5")
function("SET_UPDATE", "(): return {1, 2, 3, 4}")
function("DICT_UPDATE", "(a): return {'k': 0, **a}", "{'a': 1}", "{'k': 5}", "Mapping(a=1)", "{1: 2}", "5", "None", "[('a', 1)]")
function("DICT_MERGE", "(a, b): return dict(**a, **b)", "{'a': 1}, {'b': 2}", "{'a': 1}, {'a': 2}", "{1: 2}, {}", "Mapping(a=1), {}", "5, {}", "{}, None")
function("LIST_APPEND", "(a): return [x + 1 for x in a if x]", "[1, 2, 0]", "(1, 'x')", "[]", "Stops(2)", "5")
function("LIST_APPEND FOR_ITER", "(a, b): return [(x, y) for x in a for y in b if x != y]", "[1, 2], [2, 3]", "'ab', 'bc'", "range(3), range(3)", "[1], 5")
function("SET_ADD", "(a): return {x * 2 for x in a}", "[1, 2, 1]", "'ab'", "[[]]", "[Unhashable()]", "Stops(3)")
function("MAP_ADD", "(a): return {x: x + 1 for x in a}", "[1, 2, 1]", "'ab'", "[[]]", "Stops(3)")

function("BUILD_SLICE", "(a, b, c): return a[b:c:2]", "[1, 2, 3, 4], 0, 4", "'abcdef', 1, None", "(1, 2, 3), None, -1", "[1], 'x', None", "5, 0, 1")
function("BUILD_SLICE", "(a, b): return a[b:, 1:b]", "Stored(), 3", "{}, 3", "[1], 2")
function("BINARY_SLICE", "(a, b, c): return a[b:c]", "[1, 2, 3], 0, 2", "'abc', 1, None", "(1, 2), None, -1", "b'abc', 1, 2", "[1, 2, 3], Index(), None", "[1], 'x', None", "Stored(), 1, 2", "5, 1, 2", "range(9), 2, 4")
function(
    "STORE_SLICE",
    """
    def f(a, b, c, v):
        a[b:c] = v
        return a
    """,
    "[1, 2, 3], 0, 2, [9]", "[1, 2, 3], None, None, 'xy'", "bytearray(b'abc'), 1, 2, b'zz'", "[1], 0, 1, 5", "(1, 2), 0, 1, [3]", "Stored(), 1, 2, 3", "[1], 'x', 1, []",
)  # fmt: skip
function(
    "STORE_SUBSCR",
    """
    def f(a, b, v):
        a[b] = v
        return a
    """,
    "[1, 2, 3], 0, 'n'", "[1, 2, 3], -1, 'n'", "[1], 1, 'n'", "[1], -2, 'n'", "[1], True, 2", "{}, 'k', 1", "{'k': 0}, 'k', [1]", "{}, [], 1", "bytearray(b'abc'), 1, 65", "bytearray(b'abc'), 1, 300", "(1,), 0, 2",
    "Stored(), 'k', 'v'", "'abc', 0, 'x'", "5, 0, 1", "[1, 2, 3], slice(0, 2), [7]", "None, 0, 1",
)  # fmt: skip
function(
    "STORE_SUBSCR",
    """
    def f(a, n):
        for i in range(n):
            a[i] = a[i] + i
            a[i] += 1
        return a
    """,
    "[1, 2, 3, 4], 4", "[1.5] * 3, 3", "{i: i for i in range(5)}, 5", "['a'], 1", "[1], 3",
)  # fmt: skip
function(
    "DELETE_SUBSCR",
    """
    def f(a, b):
        del a[b]
        return a
    """,
    "[1, 2], 0", "[1, 2], -1", "[], 0", "{'a': 1}, 'a'", "{}, 'a'", "{}, []", "(1,), 0", "Stored(), 1", "[1, 2, 3], slice(0, 2)", "5, 1",
)  # fmt: skip

function(
    "UNPACK_SEQUENCE",
    """
    def f(a):
        x, y, z = a
        return z, y, x
    """,
    "(1, 2, 3)", "[1, 2, 3]", "'abc'", "range(3)", "Iterates(1, 2, 3)", "(1, 2)", "(1, 2, 3, 4)", "[1, 2]", "[1, 2, 3, 4]", "Iterates(1)", "Iterates(1, 2, 3, 4, 5)", "5", "None", "{1: 2, 3: 4, 5: 6}", "Stops(2)", "Stops(3)",
)  # fmt: skip
function(
    "UNPACK_SEQUENCE",
    """
    def f(a):
        x, y = a
        (p, q), r = (y, x), a
        return x, y, p, q, r
    """,
    "(1, 2)", "([1], [2])", "'ab'", "[1000, 2000]", "(1,)",
)  # fmt: skip
# What locals held dies in the middle of the stores, and sees the others.
function(
    "UNPACK_SEQUENCE",
    """
    import sys
    class Dies:
        def __init__(self, name): self.name = name
        def __del__(self):
            frame = sys._getframe(1)
            log.append((self.name, frame.f_lineno - frame.f_code.co_firstlineno, {name: repr(value) for name, value in frame.f_locals.items() if not isinstance(value, Dies)}))
            if self.name == "writes":
                frame.f_locals["v"] = "written"
    def f(a, n, last="z"):
        v, w, x, y, z = Dies("v"), Dies(n), 0, Dies("y"), Dies("z")
        for i in range(3):
            v, w, x, y, z = a
            (w,
             y) = v, Dies(i)
            y, y = z, z
        return v, w, x, y, z
    """,
    "(1, 2, 3, 4, 5), 'w'", "[[], 2, 2**70, 'a', {}], 'writes'", "'abcde', 'w'", "range(5), 'writes'", "(1, 2), 'w'", "Stops(5), 'w'", "(1, [2], 3, [4], 5), 'writes'",
)  # fmt: skip
function("UNPACK_SEQUENCE", "(a): return [(k, v) for k, v in a]", "[(1, 2), [3, 4]]", "{1: 2}.items()", "['ab', (1,)]", "zip('abc', [1, 2, 3])", "[(1, 2), 5]")
function(
    "UNPACK_EX",
    """
    def f(a):
        x, *y, z = a
        return x, y, z
    """,
    "(1, 2, 3, 4)", "[1, 2]", "'abcdef'", "(1,)", "Iterates(1, 2, 3)", "Iterates()", "5", "Stops(1)", "range(10)",
)  # fmt: skip
function(
    "UNPACK_EX",
    """
    def f(a):
        *x, y = a
        return x, y
    """,
    "(1, 2, 3)", "[[1], [2]]", "()",
)  # fmt: skip

SUBJECTS = ["(1, 2)", "[1, 2]", "(1, 2, 3, 4)", "[]", "'ab'", "b'ab'", "bytearray(b'ab')", "range(3)", "{'k': 1}", "{'k': 1, 'j': 2}", "{}", "Mapping(k=1)", "Point(1, 2)", "Point(0)", "5", "5.5", "'text'",
            "None", "True", "{1, 2}", "BadMatchArgs()", "Iterates(1, 2)", "Point((1, 2), [3])"]  # fmt: skip
function(
    "MATCH_SEQUENCE GET_LEN MATCH_MAPPING MATCH_KEYS MATCH_CLASS",
    """
    def f(a):
        match a:
            case [x, y]: return "pair", x, y
            case [x, *rest]: return "longer", x, rest
            case {"k": v, **rest}: return "mapping", v, rest
            case {}: return "any mapping"
            case Point(x=0): return "origin"
            case Point([p, q], y): return "nested", p, q, y
            case Point(x, y=yy): return "point", x, yy
            case bool(b): return "bool", b
            case int(i) | float(i): return "number", i
            case str() as s if len(s) > 2: return "text", s
            case None: return "none"
            case _: return "other", a
    """,
    *SUBJECTS,
)
function(
    "MATCH_CLASS",
    """
    def f(a, cls):
        match a:
            case cls(x, y): return x, y
            case cls(x): return x
        return "no"
    """,
    "Point(1, 2), Point", "5, int", "5, 5", "BadMatchArgs(), BadMatchArgs", "[1], list", "5, str", "object(), object",
)  # fmt: skip
function(
    "MATCH_KEYS",
    """
    def f(a, Keys=Mapping):
        match a:
            case {"x": 1, "y": [z]}: return z
            case {"x": x, 2: y}: return x, y
        return None
    """,
    "{'x': 1, 'y': [5]}", "{'x': 1, 2: 3}", "{'x': 1}", "{}", "[]",
)  # fmt: skip
