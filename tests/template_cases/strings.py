"""Formatted and template strings."""

from template_cases.case import Table

TABLE = Table(
    "strings",
    """
    class Formats:
        def __repr__(self): return "repr"
        def __str__(self): return "str é"
        def __format__(self, spec): log.append(spec); return "<" + spec + ">"
    class Bad:
        def __repr__(self): return 5
        def __str__(self): raise OSError("str")
        def __format__(self, spec): return None
    class Text(str):
        def __format__(self, spec): return "Text" + spec
    """
)
function = TABLE.function

VALUES = ["1", "'text'", "1.5", "None", "[1, 'x']", "Formats()", "Text('t')", "2**70", "'€'", "b'x'"]
function("FORMAT_SIMPLE BUILD_STRING", "(a): return f'{a}', f'a{a}b', f'{a}{a}-{a + a}'", *VALUES, "Bad()")
function("FORMAT_SIMPLE", "(a): return f'{a}'", *VALUES, "Bad()")
function("FORMAT_WITH_SPEC", "(a, w): return f'{a:>5}', f'{a:{w}}', f'{a:x}'", *[f"{v}, '8'" for v in VALUES], "1, 'zz'", "Bad(), ''", "255, 6")
function("CONVERT_VALUE", "(a): return f'{a!r}', f'{a!s:>9}', f'{a!a}', f'{a=}'", *VALUES, "Bad()")
function("CONVERT_VALUE", "(a): return f'{a!s}'", "Bad()", "1")
function("BUILD_STRING", "def f(n):\n    out = ''\n    for i in range(n):\n        out += f'{i}:{n}, '\n    return out\n", "0", "3", "'x'")
function("BUILD_TEMPLATE BUILD_INTERPOLATION", "(a): return t'x{a}y{a!r:>{a}}z', t'{a + a=}', t''", *VALUES)
