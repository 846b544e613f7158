"""f-strings, t-strings, `match` statements, intrinsics and common constants."""

import dis

from harness import case
from operator_cases import VALUES, functions


def strings():
    for value in VALUES.values():
        setup = functions(a=value)
        case("FORMAT_SIMPLE", "r = f'{a()}'", "[a()]", setup=setup)
        for spec in (">9", "", "d", "nonsense"):
            case("FORMAT_WITH_SPEC", f"r = f'{{a():{spec or '{\"\"}'}}}'", f"[a(), {spec!r}]", setup=setup)
        for conversion in "rsa":
            case("CONVERT_VALUE", f"r = f'{{a()!{conversion}}}'", "[a()]", setup=setup)
        for text in ("a()", "a()!r", "a():>3", "a()!a:x"):
            source = f"r = t'{{{text}}}'.interpolations[0]"
            spec = text.partition(":")[2]
            given = f"[a(), {'a()'!r}" + (f", {spec!r}]" if spec else "]")
            case("BUILD_INTERPOLATION", source, given, setup=setup, events=False)
    case("FORMAT_SIMPLE", "r = f'{a()}'", "[a()]", setup="class S(str): pass\ndef a(): return S('x')")
    for n in (2, 3, 12, 13, 30):
        pieces = ", ".join(f"'p{i}é' * {i}" for i in range(n))
        holes = "".join(f"{{x[{i}]}}" for i in range(n))
        case("BUILD_STRING", f"r = f'{holes}'", "list(x)", setup=f"x = [{pieces}]")
    case("BUILD_TEMPLATE", "r = t'x{1}y'", "[('x', 'y'), (i,)]", setup="i = t'{1}'.interpolations[0]")
    case("BUILD_TEMPLATE", "r = t''", "[('',), ()]")


CLASSES = """
class Point:
    __match_args__ = ('x', 'y')
    def __init__(self, x, y): self.x = x; self.y = y
class Bad(Point):
    __match_args__ = ['x']
class Numbers(Point):
    __match_args__ = (1, 2)
class Raising(Point):
    @property
    def x(self): raise ValueError('x')
    @x.setter
    def x(self, _): pass
import collections
class Missing(dict):
    def __missing__(self, key): return 'missing'
class Getting(collections.UserDict):
    def get(self, key, default=None): raise LookupError(key)
class Plain: pass
class LongLength:
    def __len__(self): return -1
"""


def matching():
    subjects = ["1", "'abc'", "Point(1, 2)", "Bad(1, 2)", "Numbers(1, 2)", "Raising(1, 2)", "Plain()", "[1, 2]", "None"]
    for subject in subjects:
        setup = CLASSES + f"s = {subject}\n"
        for kind in ("Point", "Bad", "Numbers", "Raising", "int", "str", "Plain", "list", "len"):
            for pattern, count, names, values in (
                (f"{kind}(a, b)", 2, (), "(a, b)"),
                (f"{kind}(a, y=b)", 1, ("y",), "(a, b)"),
                (f"{kind}(a, x=b)", 1, ("x",), "(a, b)"),
                (f"{kind}(real=a)", 0, ("real",), "(a,)"),
                (f"{kind}(a)", 1, (), "(a,)"),
                (f"{kind}()", 0, (), "()"),
                (f"{kind}(a, b, c)", 3, (), "(a, b, c)"),
            ):
                source = f"match s:\n case {pattern}: r = {values}\n case _: r = None"
                case("MATCH_CLASS", source, f"[s, {kind}, {names!r}]", setup=setup, oparg=count, events=False)
    for subject in ("{'k': 1, 'l': 2}", "{'k': 1}", "Missing(k=1)", "Getting(k=1, l=2)"):
        setup = CLASSES + f"s = {subject}\n"
        source = "match s:\n case {'k': a, 'l': b}: r = (a, b)\n case _: r = None"
        # The interpreter compares lengths first.
        if subject not in ("{'k': 1}", "Missing(k=1)"):
            case("MATCH_KEYS", source, "[s, ('k', 'l')]", setup=setup, events=False, leaves=2)
        source = "match s:\n case {'k': a}: r = (a,)\n case _: r = None"
        case("MATCH_KEYS", source, "[s, ('k',)]", setup=setup, events=False, leaves=2)
    case("MATCH_KEYS", "r = None", "[{'k': 1}, ('l',)]", oparg=0, leaves=2)
    for subject in [*subjects, "{}", "()", "range(3)", "memoryview(b'a')", "bytearray()", "collections.deque()", "Missing()"]:
        setup = CLASSES + f"s = {subject}\n"
        case("MATCH_SEQUENCE", "match s:\n case [*_]: r = True\n case _: r = False", "[s]", setup=setup)
        case("MATCH_MAPPING", "match s:\n case {}: r = True\n case _: r = False", "[s]", setup=setup)
        case("GET_LEN", "r = len(s)", "[s]", setup=setup, oparg=0, leaves=1)
    case("GET_LEN", "r = len(s)", "[s]", setup=CLASSES + "s = LongLength()", oparg=0, leaves=1)


def tables():
    for i, constant in enumerate((AssertionError, NotImplementedError, tuple, all, any)):
        case("LOAD_COMMON_CONSTANT", "r = c", "[]", env={"c": constant}, oparg=i)
    to_tuple = dis._intrinsic_1_descs.index("INTRINSIC_LIST_TO_TUPLE")
    case("CALL_INTRINSIC_1", "r = tuple(x)", "[x]", setup="x = [1, Noisy('N')]", oparg=to_tuple)
    case(
        "CALL_INTRINSIC_1",
        "def g():\n yield\n raise StopIteration(4)\nlist(g())",
        "[StopIteration(4)]",
        oparg=dis._intrinsic_1_descs.index("INTRINSIC_STOPITERATION_ERROR"),
        events=False,
        result=lambda _, stack: exec("raise stack[0]", {"stack": stack}),
    )
    star = dis._intrinsic_2_descs.index("INTRINSIC_PREP_RERAISE_STAR")
    case("CALL_INTRINSIC_2", "r = None", "[ExceptionGroup('g', [ValueError()]), [None]]", oparg=star)
    raised = "e = ValueError(1); e.__cause__ = KeyError(2)"
    case("CALL_INTRINSIC_2", "r = e", "[ExceptionGroup('g', [TypeError()]), [e]]", setup=raised, oparg=star)
    case("CALL_INTRINSIC_2", "r = g", "[g, [g]]", setup="g = ExceptionGroup('g', [TypeError()])", oparg=star)
    bound = dis._intrinsic_2_descs.index("INTRINSIC_TYPEVAR_WITH_BOUND")
    case("CALL_INTRINSIC_2", "def f[T: int](): pass\nr = f.__type_params__[0]", "['T', lambda _: int]", oparg=bound)


def run():
    strings()
    matching()
    tables()
