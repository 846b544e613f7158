"""Building and filling containers, subscripts, slices, unpacking, iteration."""

from harness import Noisy, case
from operator_cases import VALUES, functions, pairs

NOISY = "Noisy({!r}, {!r})"
MODES = ("ok", "raises", "declines")

ITERATORS = """
class Failing:
    def __iter__(self): return self
    def __next__(self): raise LookupError('next')
class Stopping:
    def __iter__(self): return self
    def __next__(self): raise StopIteration('value')
class Endless:
    def __init__(self): self.n = 0
    def __iter__(self): return self
    def __next__(self): self.n += 1; return Noisy(f'v{self.n}')
class NoIterator:
    def __iter__(self): return 3
class OldStyle:
    def __getitem__(self, i):
        if i == 3: raise IndexError
        return i * 10
class NoMapping:
    keys = None
class FailingKeys:
    def keys(self): raise AttributeError('inner')
def generator():
    yield 1
    raise ZeroDivisionError('in generator')
"""

ITERABLES = list(VALUES.values()) + [
    "()",
    "[]",
    "[1, 2]",
    "(1, 2)",
    "[1, 2, 3]",
    "(Noisy('p'), Noisy('q'))",
    "[Noisy('p'), Noisy('q'), Noisy('s')]",
    "''",
    "'xy'",
    "range(2)",
    "range(5)",
    "iter([1, 2])",
    "{1: 2, 3: 4}",
    "type('T', (tuple,), {})((1, 2))",
    "type('L', (list,), {'__iter__': lambda self: iter('ab')})((1, 2, 3))",
    "Failing()",
    "Stopping()",
    "Endless()",
    "NoIterator()",
    "OldStyle()",
    "NoMapping()",
    "FailingKeys()",
    "generator()",
    "(x for x in 'ab')",
]


def size(_, stack):
    """Instead of a set, whose order says nothing."""
    return len(stack[0])


def building():
    for n in (0, 1, 2, 5, 13, 30):
        items = ", ".join(f"Noisy('i{i}')" for i in range(n))
        setup = f"x = [{items}]"
        names = ", ".join(f"x[{i}]" for i in range(n))
        if n:
            case("BUILD_TUPLE", f"r = ({names},)", f"[{names}]", setup=setup)
            case("BUILD_LIST", f"r = [{names}]", f"[{names}]", setup=setup)
            case("BUILD_SET", f"r = len({{{names}}})", f"[{names}]", setup=setup, result=size)
            pairs = ", ".join(f"'k{i}': x[{i}]" for i in range(n))
            flat = ", ".join(f"'k{i}', x[{i}]" for i in range(n))
            # Larger displays are built in steps.
            if n <= 13:
                case("BUILD_MAP", f"r = {{{pairs}}}", f"[{flat}]", setup=setup)
        else:
            case("BUILD_LIST", "r = []", "[]")
            case("BUILD_MAP", "r = {}", "[]")
    for first in MODES:
        for second in MODES:
            setup = functions(a=NOISY.format("A", first), b=NOISY.format("B", second), c="Noisy('C')")
            noisy = "raises" in (first, second)
            case("BUILD_SET", "r = len({a(), b(), c()})", "[a(), b(), c()]", setup=setup, result=size, events=noisy)
            case("BUILD_MAP", "r = {a(): c(), b(): c()}", "[a(), c(), b(), c()]", setup=setup)
            case("SET_ADD", "r = {*e, a()}", "[{1}, a()]", setup=setup + "\ne = [1]", oparg=1, leaves=1)
            case("MAP_ADD", "r = {a(): b() for _ in (0,)}", "[{}, a(), b()]", setup=setup, oparg=1, leaves=1)
            case("LIST_APPEND", "r = [*e, a()]", "[[1], a()]", setup=setup + "\ne = [1]", leaves=1)
    case("BUILD_SET", "r = {[], 1}", "[[], 1]")
    case("BUILD_MAP", "r = {[]: 1}", "[[], 1]")
    case("SET_ADD", "r = {*e, []}", "[{1}, []]", setup="e = [1]", oparg=1, leaves=1)
    for length in range(20):
        # Lists with and without spare room.
        case("LIST_APPEND", "r = [*e, 'x']", "[list(e), 'x']", setup=f"e = range({length})", leaves=1)
        case("LIST_APPEND", "r = [*e, 'x']", "[[_ for _ in e], 'x']", setup=f"e = range({length})", leaves=1)


def merged(_, stack):
    """The call that follows DICT_MERGE."""
    return stack[0](**stack[-1])


def extending():
    for iterable in ITERABLES:
        if iterable == "Endless()":
            continue
        setup = ITERATORS + functions(a=iterable)
        case("LIST_EXTEND", "r = [*a()]", "[[], a()]", setup=setup, leaves=1)
        case("SET_UPDATE", "r = {*a()}", "[set(), a()]", setup=setup, leaves=1, events="p" not in iterable)
        case("DICT_UPDATE", "r = {**a()}", "[{}, a()]", setup=setup, leaves=1)
        setup += "\ndef f(**k): return k"
        case("DICT_MERGE", "r = f(**{'x': 1}, **a())", "[f, ..., (), {'x': 1}, a()]", setup=setup, leaves=4, oparg=1, result=merged)
    for other in ("{'x': 2}", "{1: 2}", "{'y': 2}"):
        setup = "def f(**k): return k\n" + functions(a=other)
        case("DICT_MERGE", "r = f(**{'x': 1}, **a())", "[f, ..., (), {'x': 1}, a()]", setup=setup, leaves=4, oparg=1, result=merged)
        setup = "class C:\n def m(self, **k): return k\nc = C()\n" + functions(a=other)
        case("DICT_MERGE", "r = c.m(**{'x': 1}, **a())", "[c.m, ..., (), {'x': 1}, a()]", setup=setup, leaves=4, oparg=1, result=merged)


def stepped(status, stack):
    """What `for r in i: break` / `else: r = 'exhausted'` leaves in `r`."""
    return "exhausted" if (status, len(stack)) == (1, 1) else stack[1]


def iterating():
    for iterable in ITERABLES:
        setup = ITERATORS + functions(a=iterable)
        case("GET_ITER", "r = iter(a())", "[a()]", setup=setup, oparg=0, events=False)
        setup += "\ntry: i = k = iter(a())\nexcept Exception: i = k = iter(())"
        loop = "for r in i: break\nelse: r = 'exhausted'"
        case("FOR_ITER", loop, "[i]", setup=setup, result=stepped, leaves=1)
        if iterable != "Failing()":
            case("FOR_ITER", loop, "[i]", setup=setup + "\nfor _ in k: break", result=stepped, leaves=1)


def unpacking():
    reverse = lambda _, stack: stack[::-1]
    for iterable in ITERABLES:
        setup = ITERATORS + functions(a=iterable)
        case("UNPACK_SEQUENCE", "(p, q) = a(); r = [p, q]", "[a()]", setup=setup, result=reverse)
        case("UNPACK_SEQUENCE", "(p,) = a(); r = [p]", "[a()]", setup=setup, result=reverse)
        case("UNPACK_SEQUENCE", "(p, q, s) = a(); r = [p, q, s]", "[a()]", setup=setup, result=reverse)
        if iterable == "Endless()":
            continue
        case("UNPACK_EX", "(p, *q) = a(); r = [p, q]", "[a()]", setup=setup, result=reverse)
        case("UNPACK_EX", "(*q, p) = a(); r = [q, p]", "[a()]", setup=setup, result=reverse)
        case("UNPACK_EX", "(p, *q, s, t) = a(); r = [p, q, s, t]", "[a()]", setup=setup, result=reverse)


def subscripts():
    for _, _, container, key in pairs():
        setup = functions(a=container, b=key, v="Noisy('V')")
        case("STORE_SUBSCR", "a()[b()] = v()", "[v(), a(), b()]", setup=setup, result=lambda *_: None)
        case("DELETE_SUBSCR", "del a()[b()]", "[a(), b()]", setup=setup, result=lambda *_: None)
        case("BINARY_SLICE", "r = a()[b():v()]", "[a(), b(), v()]", setup=setup)
        case("STORE_SLICE", "a()[b():] = v()", "[v(), a(), b(), None]", setup=setup, result=lambda *_: None)
    case("STORE_SUBSCR", "x['k'] = 2; r = x", "[2, x, 'k']", setup="x = {'k': 1}; y = x", result=lambda *_: {"k": 2})
    case("BINARY_SLICE", "r = x[i:j]", "[x, i, j]", setup="x = list(range(5)); i = 1; j = 3")
    identity = "class S:\n def __getitem__(self, key): return key\ns = S()\n" + functions(a="Noisy('A')", b="Noisy('B')", c="Noisy('C')")
    case("BUILD_SLICE", "r = s[a():b():c()]", "[a(), b(), c()]", setup=identity)
    case("BUILD_SLICE", "r = s[a():b(), 0][0]", "[a(), b()]", setup=identity)


def stores_happen():
    """The cases above compare outcomes; here the effects."""
    import dis

    for entry in (call, call_register):
        for container, key, expected in (([1, 2], 1, [1, "v"]), ({1: 2}, 1, {1: "v"}), (bytearray(2), 0, None)):
            given = ["v", container, key]
            if expected is None:
                given[0], expected = 7, bytearray(b"\x07\x00")
            entry(dis.opmap["STORE_SUBSCR"], 0, given, 0)
            assert container == expected, container
    x = [1, 2, 3]
    call(dis.opmap["STORE_SLICE"], 0, ["ab", x, 1, None], 0)
    assert x == [1, "a", "b"], x
    call(dis.opmap["DELETE_SUBSCR"], 0, [x, 0], 0)
    assert x == ["a", "b"], x


def run():
    building()
    extending()
    iterating()
    unpacking()
    subscripts()
    stores_happen()
