"""Calls, functions being made, and the intrinsics."""

from template_cases.case import Table

TABLE = Table(
    "calls",
    """
    def plain(a, b=2): return a, b
    def keywords(a, *rest, k=0, **others): return a, rest, k, others
    def raises(*args): raise KeyError(*args)
    class Point:
        def __init__(self, x, y=0): self.x, self.y = x, y
        def __repr__(self): return f"Point({self.x}, {self.y})"
        def method(self, *args, **names): return self.x, args, names
        def __call__(self, *args, **names): return "called", args, names
    class BadInit:
        def __init__(self, *args): return args
    class FailingInit:
        def __init__(self, *args): raise OSError(args)
    class New:
        def __new__(cls, *args): return ("new", args)
    class NoInit: pass
    class Items:
        def __init__(self, *items): self.items = items
        def __iter__(self): return iter(self.items)
    class Names:
        def __init__(self, **names): self.names = names
        def keys(self): return self.names.keys()
        def __getitem__(self, key): return self.names[key]
    closure = (lambda x: lambda *args: (x, args))("closed")
    def recursive(n): return 1 if n == 0 else n * recursive(n - 1)
    """
)
function, body = TABLE.function, TABLE.body

CALLABLES = ["plain", "keywords", "raises", "len", "Point", "BadInit", "FailingInit", "New", "NoInit", "int", "str", "type", "Point(1).method", "Point(1)", "closure", "5", "None", "'text'.upper", "isinstance", "tuple", "recursive", "print", "[].append", "dict", "Exception", "max"]
function("CALL PUSH_NULL", "(g, a): return g(a)", *[f"{g}, {a}" for g in CALLABLES for a in ("3", "'text'") if g != "print"])
function("CALL", "(g): return g()", *[g for g in CALLABLES if g != "print"])
function("CALL", "(g, a, b): return g(a, b)", *[f"{g}, 2, 3" for g in CALLABLES if g != "print"], "isinstance, 1, int", "getattr, 1, 'real'", "pow, 2, 5", "max, 'a', 'b'", "[].append, 1, 2")
function("CALL", "(a): return len(a), isinstance(a, list), type(a), str(a), tuple(a), [len(b) for b in a]", "[[1], [2, 3]]", "('a',)", "{}", "5", "'text'")
function("CALL", "(a): return plain(plain(a), plain(a, a)), keywords(a, 1, 2), recursive(5)", "1", "[2]", "2**70")
function("CALL", "(a): return plain()", "1")
function("CALL", "(a): return Point(a), Point(a, a), NoInit().__class__, Point(a).method(a), Point(a)(a)", "1", "[2]")
function("CALL", "(n): return recursive(n)", "1", "20", "100", "'x'")
function("CALL", "(a): return a.append(1), a.extend([2]), a.pop(), a", "[]", "bytearray()", "()", "5")
function("CALL", """
    def f(a, n):
        out = []
        for i in range(n):
            out.append(plain(i, a))
            out.append(Point(i).x)
            out.append(len(a))
        return out
    """, "'x', 5", "[1, 2], 20", "5, 1", "(), 0")  # fmt: skip
function("CALL_KW", "(g, a): return g(a, b=a)", *[f"{g}, 3" for g in CALLABLES if g != "print"])
function("CALL_KW", "(g, a): return g(a, k=a, z=1), g(k=1, a=a)", "keywords, 1", "keywords, []", "dict, 1", "plain, 1", "closure, 1", "Point(1), 2", "Point(1).method, [3]")
function("CALL_KW", "(a): return plain(b=a, a=1), Point(y=a, x=2), int('11', base=a), sorted([1, 2], reverse=a)", "1", "2", "3", "'x'")
function("CALL_KW", "(a): return plain(a, a=a)", "1")
# Arguments that move into the frame, are collected, or are left to defaults, of functions and methods with every kind of parameter.
function(
    "CALL CALL_KW",
    """
    class Holds:
        def __init__(self, *args, **names): self.args, self.names = args, names
        def collect(self, a, /, b=[2], *rest, c, d=(4,), **names): return a, b, rest, c, d, sorted(names.items())
        def dies(self, *rest, **names): return len(rest), sorted(names)
    class Dies:
        def __init__(self, name): self.name = name
        def __del__(self): log.append(self.name)
    def every(a, /, b=[2], *rest, c=[3], **names):
        del a
        log.append("deleted")
        return b, rest, c, sorted(names.items())
    def needs(a, *, k): return a, k
    def f(a):
        holds = Holds(a, 1, k=a)
        method = holds.collect
        yes = [every(a), every(a, a), every(a, 1, a, a), every(a, c=a), every(a, b=a, z=a, y=1), every(a, 1, a, c=2, d=a), needs(a, k=a), needs(k=1, a=a)]
        yes += [method(a, c=1), method(a, a, a, c=a, e=a), holds.collect(a, b=1, c=a, f=a), holds.args, holds.names, holds.dies(), holds.dies(a, 2, x=a)]
        yes += [every(Dies("first")), every(Dies("a"), Dies("b"), Dies("c"), d=Dies("d"), c=Dies("e"))[2]]
        for wrong in [lambda: every(), lambda: every(b=1), lambda: needs(a), lambda: needs(a, a, k=1), lambda: needs(a, z=1), lambda: method(a), lambda: method(a, a=1, b=2), lambda: needs(a, a=a, k=a)]:
            try:
                wrong()
            except TypeError as error:
                yes.append(str(error))
        return yes
    """,
    "1", "[5]", "'text'",
)  # fmt: skip
function("CALL", "(c, *a): return c(*a[:0]), c(a), c(a[0])", "type, 1", "str, [1]", "list, (1, 2)", "tuple, 'ab'", "set, 'ab'", "dict, ()", "int, '5'", "float, '1.5'", "range, 4", "bool, 0", "object, 1", "enumerate, 'a'", "reversed, [1]", "bytes, b'x'", "Exception, 1", "super, int", "map, str")
function("CALL_KW", "(a): return plain(a, a=a)", "1")
function("CALL_KW", "(a): return plain(a, c=a)", "1")
function("CALL_FUNCTION_EX", "(g, a): return g(*a)", *[f"{g}, {a}" for g in ("plain", "keywords", "raises", "Point", "Point(1)", "len", "closure", "5", "max", "tuple", "BadInit") for a in ("(1, 2)", "[1]", "Items(1, 2)", "()", "5", "(1, 2, 3)")])
function("CALL_FUNCTION_EX DICT_MERGE", "(g, a, k): return g(*a, **k)", *[f"{g}, {a}, {k}" for g in ("plain", "keywords", "Point", "Point(1).method", "dict", "5") for a, k in (("(1,)", "{'b': 2}"), ("()", "{}"), ("(1,)", "{'a': 2}"), ("(1,)", "Names(b=5)"), ("[1]", "{'zz': 5}"), ("(1,)", "{1: 2}"), ("(1,)", "5"), ("5", "{}"))])
function("CALL_FUNCTION_EX LIST_EXTEND CALL_INTRINSIC_1", "(a, k): return keywords(0, *a, 9, k=1, **k)", "(1, 2), {'x': 1}", "[], {}", "'ab', {'k': 2}", "5, {}", "Items(1), Names(q=2)")
function("CALL_FUNCTION_EX", "(*a, **k): return keywords(*a, **k)", "1", "1, 2, 3", "", "[]")
function("CALL_INTRINSIC_1", "(a): return +a", "1", "True", "1.5", "'x'", "Point(1)", "2**70")
function("CALL_INTRINSIC_1", "(a): return (0, *a)", "[1, 2]", "()", "5", "'ab'")
function("CALL_INTRINSIC_1", "def f(a):\n    type X = int\n    return X.__name__, X.__value__\n", "1")
function(
    "CALL_INTRINSIC_2",
    """
    import types
    def outer():
        def generic[T: int](x: T) -> T: return x
    code = outer.__code__
    code = next(c for c in code.co_consts if isinstance(c, types.CodeType))
    f = types.FunctionType(code, globals())
    """,
    "",
)  # fmt: skip
function(
    "CALL_INTRINSIC_2",
    """
    def f(a):
        try:
            raise ExceptionGroup("g", [ValueError(1), TypeError(2), OSError(3)])
        except* ValueError as group:
            log.append(group.exceptions)
            raise KeyError(a) from None
        except* TypeError:
            log.append("types")
            raise
    """,
    "1", "'x'",
)  # fmt: skip
body("CALL_INTRINSIC_1", "for i in range(2): pass\nfrom math import *\nshown = pi, i\n")
function("LOAD_COMMON_CONSTANT", "def f(a):\n    assert a, 'text'\n    assert a == 1\n    return a\n", "1", "0", "2", "[]")
function(
    "MAKE_FUNCTION SET_FUNCTION_ATTRIBUTE",
    """
    def f(a):
        def simple(x): return x
        def full(x, y=a, *, z=[a], w: int = 5) -> a: return a, x, y, z, w
        late = lambda *args, k=a: (a, args, k)
        return simple(1), full(1), full(1, 2, z=3), late(1), simple, full, late, full.__annotations__
    """,
    "1", "[2]", "2**70",
)  # fmt: skip
function("MAKE_FUNCTION", "(a): return (lambda: 5)(), (lambda x: x)(a), list(map(lambda x: x * 2, a)), sorted(a, key=lambda x: -x)", "[1, 2]", "()", "'x'")
function("LOAD_BUILD_CLASS", """
    def f(a):
        class Local:
            kind = a
            def method(self): return __class__.__name__, a
        class Child(Local): pass
        return Child().method(), Child.kind, Local.__qualname__
    """, "1", "[2]")  # fmt: skip
function("LOAD_BUILD_CLASS", "def f(a):\n    class Local(a): pass\n    return Local.__mro__\n", "int", "object", "5", "bool")
