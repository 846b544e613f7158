"""Programs that use every instruction with a helper, its failures included, but for those of generators and coroutines."""

import functools
import sys

from records import Noisy, attempt, describe, note, place


class Slotted(Noisy):
    __slots__ = ("slot",)


class Failing:
    def __getattr__(self, name):
        raise LookupError(name)

    def __setattr__(self, name, value):
        raise LookupError(name, value)

    def __delattr__(self, name):
        raise LookupError(name)


def attributes():
    thing = Slotted("thing")
    thing.value, thing.slot = Noisy("value"), Noisy("slot")
    note(thing.value, thing.slot, thing.__repr__(), Noisy("temporary").name, [3].copy(), sys.getrefcount(thing))
    thing.value = Noisy("other value")
    del thing.value, thing.slot

    def delete():
        del thing.nothing

    def store():
        (1).x = Noisy("never stored")

    def store_failing():
        Failing().x = Noisy("refused")

    def delete_failing():
        del Failing().x

    for function in (delete, store, store_failing, delete_failing):
        attempt(function)
    attempt(lambda: thing.nothing)
    attempt(lambda: thing.nothing(Noisy("argument")))
    attempt(lambda: Noisy("owner").nothing.more)
    attempt(lambda: Failing().x(1))


class Base:
    def method(self, *args):
        return args

    @property
    def prop(self):
        return ["prop"]

    @classmethod
    def make(cls):
        return cls.__name__


class Derived(Base):
    def method(self, *args):
        return super().method(*args), super().prop, super(Derived, self).method(1), super().make(), super().method

    def missing(self):
        return super().nothing(Noisy("argument"))

    def wrong(self):
        return super(1, self).method()

    def unrelated(self):
        return super(Derived, 1).method


def supers():
    note(Derived().method(Noisy("argument")))
    for method in (Derived().missing, Derived().wrong, Derived().unrelated):
        attempt(method)


global_list = [1]


def global_names():
    global fleeting
    fleeting = Noisy("global")
    note(fleeting, global_list, len)
    fleeting = None
    del fleeting

    def delete():
        global fleeting
        del fleeting

    attempt(delete)
    attempt(lambda: fleeting)
    attempt(lambda: fleeting(Noisy("argument")))


class Missing(dict):
    def __missing__(self, key):
        if key == "magic":
            return ["magic"]
        raise KeyError(key)


class Refusing(dict):
    def __setitem__(self, key, value):
        raise ValueError(key)

    def __getitem__(self, key):
        raise ValueError(key)


def namespaces():
    text = "x = [1]\ny: int = x\nfor i in y: del i\ndel y\nn = magic if False else x\nz = len\n"
    for namespace in ({}, Missing(), Missing(x=2), Refusing()):
        attempt(exec, text, {}, namespace)
        note(sorted(namespace))
    attempt(exec, "v = magic", {}, Missing())
    attempt(exec, "nothing", {}, {})
    attempt(exec, "nothing", {}, Missing())
    attempt(exec, "del nothing", {})
    attempt(exec, "def f(): return late\nlate = [5]\nr = f()\ndel late\nf()", Missing())
    attempt(exec, "def f():\n class C: r = builtin\n return C\nf()", {"__builtins__": Missing(builtin=1, __build_class__=lambda f, n: f())})
    attempt(exec, "class A: pass", {"__builtins__": {}})
    attempt(exec, "import os", {"__builtins__": {}})
    attempt(exec, "from os import path\nfrom os import nothing", {})
    attempt(exec, "__conditional_annotations__ = 0\nif x: y: int", {"x": 1})

    attempt(exec, "from __future__ import annotations\nx: int\nx: str", namespace := {})
    note(namespace["__annotations__"])
    attempt(exec, "from __future__ import annotations\nx: int", {}, Refusing())

    class Scopes:
        bound = int
        alias = 1
        type Alias = (bound, global_list, alias)
        type Unknown = nothing

        def method[T: bound](self: T, other: alias) -> nothing:
            pass

    note(Scopes.Alias.__value__, Scopes.method.__type_params__[0].__bound__)
    attempt(lambda: Scopes.Unknown.__value__)
    attempt(lambda: Scopes.method.__annotations__)

    class Body:
        mine = [1]
        both = mine, global_list
        del mine
        one: "unused"
        try:
            del nothing
        except NameError as error:
            note(error)
        try:
            nothing
        except NameError as error:
            note(error)

        def cell(self):
            return __class__

    note(Body.both, Body().cell() is Body, Body.__annotate__(1))


def local_names():
    def unbound():
        if not global_list:
            x = 1
        return x

    def undeletable():
        if not global_list:
            x = 1
        del x

    def deleted():
        x = Noisy("deleted local")
        del x
        note("after")
        return x

    def cells(value):
        def get():
            return value

        def put(new):
            nonlocal value
            value = new

        def drop():
            nonlocal value
            del value

        return get, put, drop

    for function in (unbound, undeletable, deleted):
        attempt(function)
    get, put, drop = cells(Noisy("captured"))
    note(get(), sys.getrefcount(get()))
    put(Noisy("next captured"))
    drop()
    attempt(get)
    attempt(drop)
    put([1])
    note(get())

    def classes(value):
        if value:
            other = [2]

        class Body:
            first = value
            second = other
            value = "shadowed"

        return Body.first, Body.second

    attempt(classes, [1])
    attempt(classes, [])

    def owner():
        def late():
            return own

        attempt(late)
        own = [late]
        return [own for _ in own][0] is own, [own := i for i in range(3)]

    note(owner()[0])


def target(a, b=["default"], *rest, c=["keyword default"], **more):
    return a, b, rest, c, more


class Callable:
    def __call__(self, *args, **kwargs):
        return args, kwargs


class Initialised:
    def __init__(self, value):
        self.value = value


class Returning:
    def __init__(self):
        return ["not None"]


class Unwilling:
    def __iter__(self):
        raise ZeroDivisionError


def calls():
    many = range(30)
    for function in (target, Callable(), functools.partial(target, "first"), Callable().__call__, dict, sorted, 3):
        attempt(function)
        attempt(lambda: function(Noisy("only")))
        attempt(lambda: function(Noisy("first"), Noisy("second"), c=Noisy("by keyword")))
        attempt(lambda: function(*many))
        attempt(lambda: function(*[1], **{"c": 2, "z": 3}))
        attempt(lambda: function(*(1, 2), c=1, **{"c": 2}))
        attempt(lambda: function(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, c=12))
        attempt(lambda: function(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))
        attempt(lambda: function(*3))
        attempt(lambda: function(**3))
        attempt(lambda: function(*Unwilling()))
        attempt(lambda: function(*(i for i in [Noisy("generated")]), **{1: 2}))
    bound = Base().method
    note(bound(Noisy("to bound")), bound(*[1]), list(map(bound, [1, 2])))
    note(Initialised([1]).value, Initialised(value=[2]).value)
    attempt(lambda: Initialised())
    attempt(lambda: Returning())
    note(sys.getrefcount(Noisy("counted")), sys.getrefcount(bound))

    def deep(n):
        return deep(n - 1) + 1 if n else 0

    note(deep(500))
    try:
        deep(10**6)
    except RecursionError as error:
        note(type(error))


def functions():
    captured = Noisy("captured")

    def annotated(a: captured = ["default"], *, k: int = captured) -> captured:
        return captured

    def generic[S: int, *Ts, **P, T = str](a: T) -> T:
        return a

    class Parametric[T]:
        attribute: T

    type Alias[T] = list[T]
    note(annotated.__annotations__, annotated.__annotate__.__qualname__, annotated.__defaults__, annotated.__kwdefaults__)
    note(generic.__type_params__, generic.__annotations__, Parametric.__type_params__, Parametric.__annotate__(1), Alias.__value__)
    note(annotated.__closure__[0].cell_contents, annotated.__qualname__, annotated())


class Error(Exception):
    pass


class Meta(type):
    def __call__(cls, *args):
        return "no exception"


class Odd(Exception, metaclass=Meta):
    pass


class Unmakeable(Exception):
    def __init__(self):
        raise ZeroDivisionError("in __init__")


def raising():
    def bare():
        raise

    def one(exception):
        raise exception

    def chained(exception, cause):
        raise exception from cause

    attempt(bare)
    for exception in (Error, Error([1]), 1, int, Odd, Unmakeable):
        attempt(one, exception)
        for cause in (None, KeyError, KeyError("cause"), 2, int, Odd, Unmakeable):
            attempt(chained, exception, cause)

    def again():
        try:
            raise Error("first")
        except Error:
            try:
                raise
            finally:
                note("finally", sys.exception())

    def handlers():
        for error in (Error(1), KeyError(2), ValueError(3)):
            try:
                raise error
            except KeyError:
                note("a KeyError", sys.exception())
                continue
            except (ValueError, Error) as caught:
                note("caught", caught)
                if caught.args == (3,):
                    return "returned"
            finally:
                note("finally", sys.exception())

    def invalid(expected):
        try:
            raise Error(Noisy("payload"))
        except expected:
            pass

    def replaced():
        try:
            try:
                one(Error("inner"))
            finally:
                one(KeyError("outer"))
        except KeyError as error:
            raise ValueError from error

    for function in (again, handlers, replaced):
        attempt(function)
    for expected in (5, (KeyError, 5), (KeyError, int), "text", Error):
        attempt(invalid, expected)


def groups():
    def split(*errors):
        seen = []
        try:
            raise ExceptionGroup("group", list(errors))
        except* Error as group:
            seen.append(describe(group))
        except* (KeyError, ValueError) as group:
            seen.append(describe(group))
            if group.subgroup(ValueError):
                raise
        return seen

    def single():
        try:
            raise Error("alone")
        except* Error as group:
            note(describe(group))

    def invalid(expected):
        try:
            raise Error
        except* expected:
            pass

    attempt(split, Error(1), KeyError(2))
    attempt(split, Error(1), OSError(2), ExceptionGroup("nested", [Error(3), OSError(4)]))
    attempt(split, ValueError(1), Error(2), TypeError(3))
    attempt(single)
    for expected in (5, ExceptionGroup, (KeyError, int), KeyError):
        attempt(invalid, expected)


class Manager:
    def __init__(self, answer=None):
        self.answer = answer

    def __enter__(self):
        return Noisy("entered")

    def __exit__(self, kind, error, traceback):
        note("exit", kind, error, place(traceback))
        if self.answer == "raise":
            raise KeyError("from __exit__")
        return self.answer


class Static:
    def __enter__(self):
        return 1

    __exit__ = staticmethod(lambda *args: note(args[0]) or True)


class Half:
    def __enter__(self):
        return 1


class Raising:
    @property
    def __enter__(self):
        raise LookupError("property")

    def __exit__(self, *args):
        return True


class OnlyAsync:
    async def __aenter__(self):
        return 1

    async def __aexit__(self, *args):
        return True


def managers():
    def use(manager, raises=True):
        with manager as entered:
            note(entered)
            if raises:
                raise Error(Noisy("payload"))
        return "left"

    for manager in (Manager(), Manager(True), Manager("raise"), Static(), Half(), Raising(), OnlyAsync(), 5):
        attempt(use, manager)
        attempt(use, manager, False)

    def leave():
        for i in range(3):
            with Manager() as _, Manager():
                if i == 1:
                    return i
                continue

    attempt(leave)


def data():
    match {"kind": Initialised([1]), "rest": [1, 2, *"ab"]}:
        case {"kind": Initialised(value=[number]), "rest": [first, *middle, "b"], **others}:
            note(number, first, middle, others)
    a, *b, c = f"{global_list!r:>10}", t"{a}{global_list!r:x}" if (a := 1) else 0, *b"xyz", slice(1, 2)
    note(a, len(b), c, [1, 2, 3][0:2], b[1:], -c.start, not c, ~c.stop, c.start in [1], c.start is c.stop)
    start, stop = 1, 3
    numbers = [*range(9)]
    numbers[start:stop] = [Noisy("stored")]
    note(numbers[start:stop], numbers[start:stop:2], b[start:stop])
    text = [*map(str, range(3))]
    text[1:2] = ["x", *text]
    del text[0]
    text[0] = {**{"k": 1}, "l": text[1]}
    assert text, "not empty"
    note(text, lambda: None, not text, text < text, text == text, "%s" % text)


PROGRAMS = (
    attributes,
    supers,
    global_names,
    namespaces,
    local_names,
    calls,
    functions,
    raising,
    groups,
    managers,
    data,
)
