"""Attributes: loading, storing, deleting, through `super()`, and the methods that `with` looks up."""

from template_cases.case import Table

TABLE = Table(
    "objects",
    """
    import math
    class Plain:
        kind = "plain"
        def __init__(self, x): self.x = x
        def __repr__(self): return f"{type(self).__name__}({self.__dict__})"
        def method(self, *args): return self.x, args
        @classmethod
        def make(cls, *args): return cls.__name__, args
        @staticmethod
        def static(*args): return args
        @property
        def double(self): return self.x * 2
        @double.setter
        def double(self, value): self.x = value / 2
    class Child(Plain):
        kind = "child"
        def method(self, *args): return "child", super().method(*args)
    class Slots:
        __slots__ = ("x", "y")
        def __init__(self, x): self.x = x
        def __repr__(self): return f"Slots({getattr(self, 'x', None)})"
        def method(self, *args): return self.x, args
    class Dynamic:
        def __getattr__(self, name): log.append(name); return "dynamic " + name
    class Every:
        def __getattribute__(self, name): log.append(name); return name if name != "gone" else object.__getattribute__(self, name)
        def __setattr__(self, name, value): log.append(("set", name, value))
        def __delattr__(self, name): log.append(("del", name))
    class Descriptor:
        def __get__(self, instance, owner): log.append(("get", instance is None)); return 7
        def __set__(self, instance, value): raise AttributeError(f"no {value}")
    class Described:
        x = Descriptor()
        method = Descriptor()
    class Managed:
        def __init__(self, swallow=False): self.swallow = swallow
        def __enter__(self): log.append("enter"); return self
        def __exit__(self, *exc): log.append(("exit", exc[0] and exc[0].__name__, exc[2] and exc[2].tb_lineno)); return self.swallow
    class NoEnter:
        def __exit__(self, *exc): pass
    class NoExit:
        def __enter__(self): pass
    class Meta(type):
        def meta(cls): return "meta", cls.__name__
        @property
        def prop(cls): return "prop"
    class Made(metaclass=Meta): x = 1
    class Falls:
        def __enter__(self): raise OSError("enter")
        def __exit__(self, *exc): raise OSError("exit")
    class FallsLate(Falls):
        def __enter__(self): return self
    def with_dict(**items):
        made = Plain(1)
        made.__dict__.update(items)
        return made
    def shadowing():
        made = Plain(1)
        made.method = lambda *args: ("shadow", args)
        return made
    """
)
function = TABLE.function

OBJECTS = ["Plain(3)", "Plain([])", "Child(4)", "Slots(5)", "Dynamic()", "Every()", "Described()", "with_dict(y=1, z=2)", "shadowing()", "Made", "Plain", "5", "None", "math", "'text'", "Described"]
function("LOAD_ATTR", "(a): return a.x", *OBJECTS)
function("LOAD_ATTR", "(a): return a.x, a.x, (a.x, a.x)", "Plain(3)", "Plain([])", "Slots([])", "Every()")
function("LOAD_ATTR", "(a): return a.kind, a.double", "Plain(3)", "Child(4)", "Plain('ab')", "Slots(1)", "Plain", "Plain([])")
function("LOAD_ATTR", "(a): return a.missing", *OBJECTS)
function("LOAD_ATTR", "(a): return a.__class__.__name__, a.__dict__", "Plain(3)", "Slots(5)", "Made")
function("LOAD_ATTR", "(a): return a.pi, a.floor(2.5)", "math", "5")
function("LOAD_ATTR CALL", "(a, b): return a.method(b, 2)", *[f"{each}, 1" for each in OBJECTS])
function("LOAD_ATTR", "(a): return a.make(1), a.static(2)", "Plain(1)", "Child(1)", "Plain", "5")
function("LOAD_ATTR", "(a): return a.meta(), a.prop", "Made", "Plain", "Made()")
function("LOAD_ATTR CALL", "(a): return a.upper(), a.join(['x', 'y']), a.split('t'), a.startswith('te')", "'text'", "''", "b'text'")
function("LOAD_ATTR", "(a): return (a + 'x').upper", "'text'", "5")
function(
    "LOAD_ATTR STORE_ATTR",
    """
    def f(a, n):
        for i in range(n):
            a.x = a.x + i
            a.x += 1
        return a.x
    """,
    "Plain(3), 10", "Slots(5), 10", "Child(1.5), 10", "Plain('x'), 3", "Dynamic(), 2", "Every(), 2", "Described(), 2", "5, 1", "with_dict(q=1), 20",
)  # fmt: skip
function(
    "STORE_ATTR",
    """
    def f(a, v):
        a.y = v
        a.x = v
        return a
    """,
    *[f"{each}, [1]" for each in OBJECTS if each != "math"],
    "Child(1), 2**70", "Made(), 1", "int, 1",
)  # fmt: skip
function(
    "STORE_ATTR",
    """
    def f(a):
        a.double = 5
        a.new1 = 1; a.new2 = 2; a.new3 = 3
        return a
    """,
    "Plain(1)", "Child(2)", "Slots(3)", "with_dict(**{f'n{i}': i for i in range(40)})",
)  # fmt: skip
function(
    "DELETE_ATTR",
    """
    def f(a):
        del a.x
        return a
    """,
    *[each for each in OBJECTS if each not in ("math", "Plain", "Made", "Described")],
)  # fmt: skip
function(
    "DELETE_ATTR STORE_ATTR",
    """
    def f(a):
        a.temporary = [1]
        del a.temporary
        return a
    """,
    "Plain(1)", "Slots(1)", "Every()",
)  # fmt: skip
function(
    "LOAD_SUPER_ATTR",
    """
    class A:
        value = "A"
        def g(self, x=0): return "A.g", x, type(self).__name__
        @classmethod
        def c(cls): return "A.c", cls.__name__
        @property
        def p(self): return "A.p"
    class B(A):
        value = "B"
        def g(self, x=0): return "B.g", super().g(x), super().value, super().p, super().g is not None
        @classmethod
        def c(cls): return "B.c", super().c()
        def missing(self): return super().missing
    class C(B):
        def g(self, x=0): return "C.g", super(C, self).g(x)
    def f(name, self, *args):
        return getattr(self, name)(*args)
    F = f
    f = B.__dict__["g"]
    """,
    "B(), 5", "C(), 'x'", "B()", "A()", "5", "B(), 1, 2",
)  # fmt: skip
function(
    "LOAD_SUPER_ATTR",
    """
    class A:
        pass
    class B(A):
        def f(self, other):
            try:
                super().missing
            except AttributeError as error:
                log.append(str(error))
            self = other
            return super().missing()
    f = B.f
    """,
    "B(), B()", "B(), 1",
)  # fmt: skip

function(
    "LOAD_SPECIAL WITH_EXCEPT_START",
    """
    def f(a, fails=None):
        with a as entered:
            log.append(entered is a)
            if fails:
                raise fails
            return "inside"
        return "after"
    """,
    "Managed()", "Managed(), KeyError('k')", "Managed(True), KeyError('k')", "Managed(True)", "NoEnter()", "NoExit()", "5", "Falls()", "FallsLate()", "FallsLate(), KeyError('k')", "None, None",
)  # fmt: skip
function(
    "LOAD_SPECIAL",
    """
    def f(a, b, n):
        for i in range(n):
            with a, b as c:
                if i == 1: continue
                if i == 3: break
                log.append(i)
        return i, c is b
    """,
    "Managed(), Managed(), 5", "Managed(), Falls(), 2", "Managed(True), FallsLate(), 3", "Managed(), 5, 1",
)  # fmt: skip
