"""Operators: BINARY_OP, unary operators, comparison, containment, identity, truth."""

from harness import Noisy, case

VALUES = {
    "zero": "0",
    "int": "int('1000')",
    "negative": "-5",
    "big": "10**30",
    "true": "True",
    "float": "float('2.5')",
    "complex": "1+2j",
    "str": "'a%sb'[:4]",
    "bytes": "b'ab'[:]",
    "list": "[1, 'x']",
    "tuple": "(1, [])",
    "dict": "{1: 2, 'x': 3}",
    "set": "{1, 'x'}",
    "none": "None",
    "slice": "slice(0, 1)",
    "class": "list",
    "noisy": "Noisy('N')",
    "raising": "Noisy('R', 'raises')",
    "declining": "Noisy('D', 'declines')",
}

# A power or a shift by this would not end.
TOO_LARGE = {"**": "big", "<<": "big"}
# In place, these differ from the rest.
IN_PLACE = ("list", "set", "dict", "noisy", "raising", "declining")
BINARY = "+ - * @ / // % ** << >> & | ^".split()
COMPARISONS = "< <= == != > >=".split()


# What is tried with everything; of the rest, each only with itself and with these.
MAIN = ("int", "str", "list", "noisy", "raising")


def pairs():
    for left, left_text in VALUES.items():
        for right, right_text in VALUES.items():
            if left == right or left in MAIN or right in ("int", "noisy"):
                yield left, right, left_text, right_text


def functions(**texts):
    return "\n".join(f"def {name}(): return {text}" for name, text in texts.items())


def binary():
    for left, right, a, b in pairs():
        setup = functions(a=a, b=b)
        for op in BINARY:
            if TOO_LARGE.get(op) == right or op == "**" and left == "big" and right == "int":
                continue
            case("BINARY_OP", f"r = a() {op} b()", "[a(), b()]", setup=setup)
            if left in IN_PLACE:
                case("BINARY_OP", f"x {op}= b(); r = x", "[x, b()]", setup=setup + "\nx = y = a()")
        case("BINARY_OP", "r = a()[b()]", "[a(), b()]", setup=setup)


def comparisons():
    for _, _, a, b in pairs():
        setup = functions(a=a, b=b)
        for op in COMPARISONS:
            case("COMPARE_OP", f"r = a() {op} b()", "[a(), b()]", setup=setup)
            case("COMPARE_OP", f"r = True if a() {op} b() else False", "[a(), b()]", setup=setup)
        for op in ("in", "not in"):
            case("CONTAINS_OP", f"r = a() {op} b()", "[a(), b()]", setup=setup)
        for op in ("is", "is not"):
            case("IS_OP", f"r = a() {op} b()", "[a(), b()]", setup=setup)
    for op in ("is", "is not"):
        case("IS_OP", f"r = x {op} x", "[x, x]", setup="x = Noisy('N')")


TRUTHLESS = """
class Truthless:
    def __bool__(self): raise KeyError('no truth')
class Comparing:
    def __lt__(self, other): return Truthless()
"""


def truth():
    for a in VALUES.values():
        setup = functions(a=a)
        case("TO_BOOL", "r = True if a() else False", "[a()]", setup=setup)
        case("UNARY_NEGATIVE", "r = -a()", "[a()]", setup=setup)
        case("UNARY_INVERT", "r = ~x", "[x]", setup=setup + "\nx = a()")
        case("CALL_INTRINSIC_1", "r = +a()", "[a()]", setup=setup)
    for value in ("True", "False"):
        case("UNARY_NOT", f"x = {value}; r = not x", f"[{value}]")
    case("COMPARE_OP", "r = True if Comparing() < 1 else False", "[Comparing(), 1]", setup=TRUTHLESS)
    case("COMPARE_OP", "r = type(Comparing() < 1)", "[Comparing(), 1]", setup=TRUTHLESS, result=lambda _, stack: type(stack[0]))


def run():
    binary()
    comparisons()
    truth()
