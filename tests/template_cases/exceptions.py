"""Raising, handling, and passing on."""

from template_cases.case import Table

TABLE = Table(
    "exceptions",
    """
    class Custom(Exception):
        def __init__(self, *args): super().__init__(*args); self.extra = args
    class NotAnException: pass
    class MakesOther(Exception):
        def __new__(cls, *args): return ("other", args)
    class FailsToMake(Exception):
        def __init__(self): raise OSError("made badly")
    class Finalized:
        def __init__(self, name): self.name = name
        def __del__(self): log.append(("del", self.name))
    import sys
    def deep(n, error):
        if n: return deep(n - 1, error)
        raise error
    """
)
function = TABLE.function

RAISED = ["ValueError", "ValueError(1)", "Custom('x', 2)", "Custom", "KeyError('k')", "NotAnException()", "NotAnException", "5", "None", "MakesOther", "FailsToMake", "KeyboardInterrupt", "SystemExit(3)", "StopIteration(4)", "ExceptionGroup('g', [ValueError(1)])"]
function("RAISE_VARARGS", "def f(e):\n    raise e\n", *RAISED)
function("RAISE_VARARGS", "def f(e, c):\n    raise e from c\n", *[f"{e}, {c}" for e in ("ValueError(1)", "Custom", "5") for c in ("None", "OSError", "OSError(2)", "5", "FailsToMake", "MakesOther")])
function("RAISE_VARARGS", "def f():\n    raise\n", "")
function(
    "PUSH_EXC_INFO CHECK_EXC_MATCH POP_EXCEPT RERAISE",
    """
    def f(e):
        try:
            raise e
        except ValueError:
            return "value", sys.exception().args
        except (KeyError, Custom) as error:
            log.append(error)
            return "key", error.args, error.__traceback__.tb_lineno
        finally:
            log.append(("finally", sys.exception()))
    """,
    *RAISED,
)  # fmt: skip
function(
    "CHECK_EXC_MATCH",
    """
    def f(e, wanted):
        try:
            raise e
        except wanted as error:
            return repr(error)
    """,
    *[f"KeyError('k'), {w}" for w in ("KeyError", "LookupError", "ValueError", "(ValueError, KeyError)", "()", "5", "(KeyError, 5)", "int", "'x'", "BaseException", "NotAnException", "(ValueError, (KeyError,))")],
)  # fmt: skip
function(
    "RERAISE",
    """
    def f(e, again):
        x = Finalized("x")
        try:
            try:
                deep(3, e)
            except ValueError as error:
                if again == 1: raise
                if again == 2: raise KeyError("second")
                if again == 3: raise KeyError("third") from error
                if again == 4: return error.args
            finally:
                log.append(again)
                if again == 5: raise OSError("from finally")
        except KeyError as error:
            log.append((error.args, repr(error.__context__), repr(error.__cause__)))
            raise
        return x.name, sys.exception()
    """,
    *[f"{e}, {n}" for e in ("ValueError(1)", "TypeError(2)") for n in range(6)],
)  # fmt: skip
function(
    "PUSH_EXC_INFO",
    """
    def f(n):
        out = []
        for i in range(n):
            try:
                if i % 3 == 0: raise ValueError(i)
                if i % 3 == 1: [][i]
                out.append(i)
            except ValueError as e:
                out.append(e.args[0])
                continue
            except IndexError:
                out.append("index")
                if i > 10: break
            else:
                out.append("else")
            finally:
                out.append(sys.exception() is None)
        return out
    """,
    "0", "4", "30",
)  # fmt: skip
function(
    "POP_EXCEPT",
    """
    def f(a):
        try:
            try:
                a.missing
            except AttributeError:
                log.append(type(sys.exception()).__name__)
                try:
                    1 / 0
                except ZeroDivisionError as inner:
                    log.append((type(inner.__context__).__name__, type(sys.exception()).__name__))
                log.append(type(sys.exception()).__name__)
                raise TypeError
        except TypeError as outer:
            log.append(type(outer.__context__).__name__)
        log.append(sys.exception())
        try:
            return outer
        except UnboundLocalError as error:
            return error.args
    """,
    "1", "[2]",
)  # fmt: skip
function("RERAISE", "def f(a):\n    try:\n        return a[0]\n    finally:\n        a = None\n        log.append(sys.exc_info()[0])\n", "[1]", "[]", "{}", "5", "[[2]]")
function("PUSH_EXC_INFO", "def f(a):\n    while True:\n        try:\n            return a.pop()\n        finally:\n            log.append(len(a))\n    return 'after'\n", "[1, 2, 3]", "[1]", "[]")
GROUPS = ["ExceptionGroup('g', [ValueError(1), TypeError(2)])", "ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [KeyError(2), OSError(3)])])", "ValueError(4)", "TypeError(5)", "OSError(6)", "ExceptionGroup('g', [OSError(7)])", "None"]
function(
    "CHECK_EG_MATCH",
    """
    def f(e):
        try:
            if e: raise e
        except* ValueError as group:
            log.append(("values", group.exceptions, sys.exception() is group))
        except* (TypeError, KeyError) as group:
            log.append(("others", len(group.exceptions)))
            if len(group.exceptions) == 1: raise
        else:
            return "else"
        finally:
            log.append(sys.exception() is None)
        return "end"
    """,
    *GROUPS,
)  # fmt: skip
function(
    "CHECK_EG_MATCH",
    """
    def f(e, wanted):
        try:
            raise e
        except* wanted:
            return_value = "caught"
        return return_value
    """,
    *[f"{GROUPS[0]}, {w}" for w in ("ValueError", "Exception", "5", "ExceptionGroup", "OSError", "int", "(ValueError, TypeError)")],
)  # fmt: skip
# Operands that are on the stack when something raises are released, the last first.
function(
    "CALL BUILD_TUPLE",
    """
    def g(*args): return len(args)
    def f(a):
        try:
            return Finalized("p"), g(Finalized("q"), Finalized("r"), a.missing, Finalized("s"))
        except AttributeError as error:
            log.append(error.name)
        return (Finalized("t"), [a, a.missing])
    """,
    "1", "[2]",
)  # fmt: skip
function("CHECK_EXC_MATCH", "def f(n):\n    try:\n        return deep(n, KeyError(n))\n    except KeyError as e:\n        tb, lines = e.__traceback__, []\n        while tb:\n            lines.append((tb.tb_lineno, tb.tb_frame.f_lineno, tb.tb_frame.f_code.co_name))\n            tb = tb.tb_next\n        return lines\n", "0", "3", "20")
