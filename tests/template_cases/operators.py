"""Arithmetic, comparisons, truth."""

from template_cases.case import Table

TABLE = Table(
    "operators",
    """
    class Number:
        def __init__(self, value): self.value = value
        def __repr__(self): return f"Number({self.value!r})"
        def __add__(self, other): log.append(("add", other)); return Number((self.value, other))
        def __radd__(self, other): log.append(("radd", other)); return NotImplemented if other is None else (other, self.value)
        def __iadd__(self, other): self.value = (self.value, other); return self
        def __lt__(self, other): log.append(("lt", other)); return NotImplemented if other is None else "less"
        def __eq__(self, other): log.append(("eq", other)); return []
        __hash__ = None
        def __neg__(self): return ("neg", self.value)
        def __invert__(self): return ("invert", self.value)
        def __bool__(self): log.append("bool"); return self.value
        def __contains__(self, item): log.append(("contains", item)); return item
        def __getitem__(self, key): log.append(("getitem", key)); return key
    class Sized:
        def __init__(self, size): self.size = size
        def __repr__(self): return "Sized"
        def __len__(self): return self.size
    class Int(int): pass
    class Float(float): pass
    class Raising:
        def __repr__(self): return "Raising"
        def __bool__(self): raise OSError("bool")
        def __lt__(self, other): raise OSError("lt")
        def __add__(self, other): raise OSError("add")
        def __contains__(self, item): raise OSError("contains")
    """
)
function = TABLE.function

NUMBERS = [
    "2, 3", "-5, 3", "0, 1", "True, 2", "2**30 - 1, 1", "2**62, 2**62", "10**40, 10**39", "-2**63, -1", "2.5, 0.5", "1e308, 1e308", "7, 2.0", "2.0, 7",
    "1j, 2", "Int(3), 4", "4, Int(3)", "Float(1.5), 2.0", "'ab', 'c'", "'ab', 3", "3, 'ab'", "[1], [2]", "(1,), (2, 3)", "b'x', b'y'", "None, 1", "1, None",
    "{1, 2}, {2, 3}", "{'a': 1}, {'b': 2}", "'%s' , 5", "'%d', 'x'", "5, 0", "5.0, 0.0", "object(), 2",
]  # fmt: skip
SMALL = [call for call in NUMBERS if "10**" not in call and "2**" not in call and "e308" not in call]

for operator in "+ - * / // % & | ^ @".split():
    function("BINARY_OP", f"(a, b): return a {operator} b", *NUMBERS)
for operator in "** << >>".split():
    function("BINARY_OP", f"(a, b): return a {operator} b", *SMALL, "2, 100", "2, -1", "1, 64", "-1, 63", "0.0, -1")
for operator in "+ - * / // % & | ^ @ ** << >>".split():
    function(
        "BINARY_OP",
        f"""
        def f(a, b):
            alias = a
            a {operator}= b
            return a, alias, a is alias
        """,
        *SMALL,
    )
# Both operands owned, borrowed, constant, or the same.
function("BINARY_OP", "(a): return a + a", "3", "2**40", "1.5", "'xyz'", "[1, 2]", "Number(1)")
function("BINARY_OP", "(a): return (a + 1) * (a - 1) - (2 * a) + (a % 7)", "5", "5.5", "2**61", "True", "'x'")
function("BINARY_OP", "(a, b): return (a + b) + (a + b)", "'long string of text', 'and more of it'", "1000, 2000", "1.5, 2.5", "[1], [2]")
function("BINARY_OP", "(a, b): return a + b", "Number(1), 2", "2, Number(1)", "None, Number(1)", "Number(1), Number(2)", "Raising(), 1", "1, Raising()")
function(
    "BINARY_OP",
    """
    def f(a):
        for i in range(20):
            a += "text"
        return a
    """,
    "''", "'start ' * 3",
)  # fmt: skip
function(
    "BINARY_OP",
    """
    def f(a, b):
        alias = a
        a += b
        return a, alias
    """,
    "Number(1), 2", "[1], (2,)", "[1], 5", "'a', 'b'",
)  # fmt: skip
SUBSCRIPTS = [
    "[1, 2, 3], 0", "[1, 2, 3], -1", "[1, 2, 3], 3", "[1, 2, 3], -4", "[1, 2], True", "[1], 'x'", "(1, 2), 1", "(1, 2), 2", "(1, 2), -1", "'abc', 1", "'äbc', 0", "'a€c', 1", "'abc', 9",
    "'abc', -1", "{'a': 1}, 'a'", "{'a': 1}, 'b'", "{1: 2}, 1.0", "{}, []", "b'abc', 1", "range(5), 2", "Number(0), 'k'", "list, int", "5, 1", "None, 0", "[1, 2, 3], slice(1, None)",
    "[1], 2**70", "memoryview(b'abc'), 1",
]  # fmt: skip
function("BINARY_OP", "(a, b): return a[b]", *SUBSCRIPTS)
function("BINARY_OP", "(a): return a[0]", "[10]", "(20,)", "'x'", "{0: 30}", "[]", "()", "{}")

for operator in "< <= == != > >=".split():
    function(
        "COMPARE_OP",
        f"(a, b): return a {operator} b",
        "1, 2", "2, 1", "2, 2", "-1, 1", "2**70, 2**71", "2**70, 1", "True, 1", "1.5, 2.5", "2, 2.0", "float('nan'), 1.0", "float('nan'), float('nan')", "'a', 'b'", "'a', 'a' * 1",
        "'a', 'äö€'", "'ab', 'ab' + ''", "None, None", "None, 1", "[1, 2], [1, 3]", "(1,), (1,)", "{1}, {1, 2}", "1j, 2j", "Number(1), 2", "2, Number(1)", "Number(1), None", "Raising(), 1", "object, object",
    )  # fmt: skip
    function(
        "COMPARE_OP TO_BOOL" if operator == "==" else "COMPARE_OP",
        f"""
        def f(a, b):
            if {"not a" if operator == "==" else f"a {operator} b"}: return "empty"
            if a {operator} b:
                return "yes"
            return "no"
        """,
        "1, 2", "2, 1", "2, 2", "1.5, 2.5", "'a', 'b'", "'b', 'b'", "[1], [1]", "Number(1), 2", "None, 3", "Raising(), 1",
    )  # fmt: skip
function("COMPARE_OP", "(a, b, c): return a < b < c, a == b == c, a < b > c", "1, 2, 3", "3, 2, 1", "1, 1, 1", "1.0, 2, 3.0", "'a', 'b', 'c'", "1, 2, 'x'")

for operator in "in", "not in":
    function(
        "CONTAINS_OP",
        f"(a, b): return a {operator} b",
        "1, [1, 2]", "3, [1, 2]", "'a', 'cat'", "1, 'cat'", "1, {1: 2}", "[], {1: 2}", "1, {1, 2}", "[], {1, 2}", "{1}, {frozenset({1})}", "1, (2, 1)", "5, range(3)", "1, Number(1)", "0, Number(1)", "[], Number(1)", "1, 5",
        "1, iter([1, 2])", "1, Raising()", "1, None", "float('nan'), [float('nan')]",
    )  # fmt: skip
    function("CONTAINS_OP", f"(a): return 'yes' if a {operator} {{'x', 'y', 1}} else 'no'", "'x'", "'z'", "1", "1.0", "[]")

for operator in "is", "is not":
    function("IS_OP", f"(a, b): return a {operator} b", "1, 1", "None, None", "[], []", "1.5, 1.5", "int, int", "'a', 'b'")
    function("IS_OP", f"(a, b): return (a + b) {operator} (a + b)", "1, 2", "1000, 1000", "'a', 'b'", "[1], [2]", "(), ()")
    function("IS_OP", f"(a): return type(a) {operator} int, a {operator} True", "1", "True", "'x'")

TRUTH = ["0", "1", "-1", "2**70", "0.0", "1.5", "float('nan')", "''", "'x'", "[]", "[0]", "()", "(0,)", "{}", "{1: 2}", "set()", "{1}", "None", "True", "False", "Number(True)", "Number(False)",
         "Number(1)", "Sized(0)", "Sized(2)", "Sized(-1)", "Raising()", "object()", "range(0)", "range(1)", "b''", "int"]  # fmt: skip
function("TO_BOOL POP_JUMP_IF_FALSE", "(a): return 'yes' if a else 'no'", *TRUTH)
function("TO_BOOL UNARY_NOT", "(a): return not a", *TRUTH)
function("TO_BOOL", "(a, b): return a and b, a or b", "0, 1", "1, 0", "[], ()", "[1], (1,)", "None, None", "'x', Number(False)")
function("TO_BOOL", "(a, b): return not (a + b), (a and not b)", "0, 0", "1, 1", "'', ''", "[], [1]", "1.5, -1.5")
function("UNARY_NOT", "(a, b): return not a == b, not (a < b)", "1, 2", "1, 1", "'a', 'b'", "1.5, None")
function("UNARY_NEGATIVE", "(a): return -a", "1", "0", "-1", "2**62", "-2**62", "2**70", "1.5", "0.0", "True", "1j", "Number(1)", "Int(3)", "'x'", "None", "[1]")
function("UNARY_NEGATIVE", "(a): return -(a + 1), -a * -a", "1", "1.5", "2**40", "'x'")
function("UNARY_INVERT", "(a): return ~a", "0", "5", "-1", "2**70", "Number(1)", "1.5", "None", "Int(3)", "'x'")
