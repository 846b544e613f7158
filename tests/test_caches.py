"""What inline caches must notice: each program fills a cache, breaks what it rests on, and looks again. Interpreted against compiled."""


# Calls a function often enough that its caches are filled.
WARM = """
def warm(function, *arguments):
    for _ in range(20):
        result = function(*arguments)
    return result
def attempt(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return type(error).__name__, str(error)
"""


def test_shared_keys_that_grow(compare):  # noqa: F811
    compare(
        WARM
        + """
class A:
    x = "class"
    def method(self): return "method"
def load(o): return o.x
def call(o): return o.method()
a, b, c = A(), A(), A()
for o in a, b, c:
    o.first = 1
    print(warm(load, o), warm(call, o))
# The name enters the shared keys with one instance; the others still have no value for it.
b.x = "own"
b.method = lambda: "own method"
for o in a, b, c, A():
    print(warm(load, o), warm(call, o))
del b.x, b.method
for o in a, b, c, A():
    print(load(o), call(o))
check(load, call)
"""
    )


def test_inline_values_that_come_and_go(compare):  # noqa: F811
    compare(
        WARM
        + """
class A:
    def __init__(self, x): self.x = x
def load(o): return o.x
def store(o, value): o.x = value
a, b = A(1), A(2)
print(warm(load, a), warm(load, b))
warm(store, a, 10)
del a.x
print(attempt(load, a), load(b))
store(a, 11)
print(load(a), vars(a))
# More attributes than fit inline.
for number in range(100):
    setattr(b, f"y{number}", number)
print(load(b), attempt(store, b, 3), load(b), len(vars(b)))
check(load, store)
"""
    )


def test_replaced_dict(compare):  # noqa: F811
    compare(
        WARM
        + """
class A:
    def __init__(self, x): self.x = x
def load(o): return o.x
def store(o, value): o.x = value
a, b = A(1), A(2)
warm(load, a), warm(store, a, 5)
mine = {"x": "mine"}
a.__dict__ = mine
print(load(a), load(b))
store(a, "stored")
print(mine, vars(b))
a.__dict__ = {}
print(attempt(load, a), mine)
store(a, 6)
print(load(a), vars(a), mine)
# A dictionary made of the inline values, changed behind the cache.
names = vars(b)
names["x"] = "through the dictionary"
print(load(b))
store(b, 7)
print(names)
names.clear()
print(attempt(load, b))
del b.__dict__
print(attempt(load, b))
store(b, 8)
print(load(b), vars(b))
check(load, store)
"""
    )


def test_changed_class(compare):  # noqa: F811
    compare(
        WARM
        + """
class Base:
    inherited = "base"
class A(Base):
    x = "A"
    def method(self): return "A's"
class B(Base):
    x = "B"
    def method(self): return "B's"
def load(o): return o.x
def call(o): return o.method()
def inherited(o): return o.inherited
def look(o): return attempt(load, o), attempt(call, o), attempt(inherited, o)
def store(o, value): o.x = value
a = A()
print(warm(look, a))
a.__class__ = B
print(look(a))
a.__class__ = A
A.x = "changed"
A.method = lambda self: "changed"
Base.inherited = "changed"
print(look(a), warm(look, a))
del A.x, A.method
print(look(a))
A.x = property(lambda self: "property")
A.method = property(lambda self: lambda: "from a property")
print(look(a), warm(look, a))
print(attempt(store, a, 1))
del A.x
warm(store, a, 2)
print(look(a), vars(a))
# A data descriptor takes precedence over the instance from now on.
A.x = property(lambda self: "property again", lambda self, value: vars(self).__setitem__("stored", value))
store(a, 3)
print(look(a), vars(a))
A.__getattribute__ = lambda self, name: name
print(look(a))
del A.__getattribute__
A.__bases__ = (B,)
del A.x, A.method
print(look(A()), look(a))
check(load, call, inherited, store)
"""
    )


def test_class_that_changes_all_the_time(compare):  # noqa: F811
    compare(
        WARM
        + """
class A:
    def method(self): return 0
def call(o): return o.method()
a = A()
total = 0
# CPython gives a class a thousand versions and then no more.
for turn in range(1200):
    A.method = lambda self, turn=turn: turn
    total += call(a) + call(a)
print(total)
check(call)
"""
    )


def test_attributes_of_classes_and_modules(compare):  # noqa: F811
    compare(
        WARM
        + """
import types
class Meta(type):
    pass
class A(metaclass=Meta):
    x = "A"
    def make(number=0): return number
def load(o): return o.x
def call(o): return o.make()
def look(o): return attempt(load, o), attempt(call, o)
print(warm(look, A))
A.x, A.make = "new", lambda: "new"
print(look(A))
Meta.x = property(lambda cls: "of the metaclass")
print(look(A))
del Meta.x, A.x, A.make
print(look(A))
module = types.ModuleType("module")
module.x, module.make = 1, lambda: 2
print(warm(look, module))
module.x, module.make = 3, lambda: 4
print(look(module))
del module.x, module.make
print(look(module))
module.__getattr__ = lambda name: lambda: name
print(attempt(call, module), callable(load(module)))
vars(module).update(x=5, make=lambda: 6)
print(look(module))
vars(module).clear()
print(look(module))
check(load, call)
"""
    )


def test_slots(compare):  # noqa: F811
    compare(
        WARM
        + """
class A:
    __slots__ = "x", "y"
class B(A):
    __slots__ = ()
def load(o): return o.x
def store(o, value): o.x = value
a, b = A(), B()
a.x = b.x = 1
print(warm(load, a), warm(load, b))
warm(store, a, 2), warm(store, b, 3)
del a.x
print(attempt(load, a), load(b))
store(a, 4)
A.x, A.y = A.y, A.x
print(attempt(load, a), a.y)
store(a, 5)
print(load(a), a.y, attempt(load, b))
check(load, store)
"""
    )


def test_emptied_and_shadowed_globals(compare):  # noqa: F811
    compare(
        WARM
        + """
import builtins
value = 1
def load(): return value
def call(x): return len(x)
def look(): return attempt(load), attempt(call, "abc")
print(warm(look))
value = 2
print(look())
del value
print(look(), warm(look))
builtins.value = "builtin"
print(look(), warm(look))
value = 3
print(look())
del value
del builtins.value
print(look())
globals()["value"] = 4
globals()["len"] = lambda x: "shadowed"
print(look(), warm(look))
del globals()["len"]
print(look())
original, builtins.len = len, lambda x: "replaced"
print(look(), warm(look))
builtins.len = original
print(look())
def renew(names, kept, attempt=attempt, load=load, call=call):
    names.clear()
    seen = attempt(load), attempt(call, "abc")
    names.update(kept)
    return seen
print(renew(globals(), dict(globals())), look())
check(load, call)
"""
    )


def test_polymorphic_sites(compare):  # noqa: F811
    compare(
        WARM
        + """
def classes(number, slots):
    made = []
    for index in range(number):
        names = {"method": lambda self, index=index: (index, "method"), "shared": index}
        if slots and index % 2:
            names["__slots__"] = "own",
        made.append(type(f"C{index}", (), names))
    return made
SOURCE = '''
def load(o): return o.own
def shared(o): return o.shared
def call(o): return o.method()
def store(o, value): o.own = value
'''
for slots in False, True:
    for number in 1, 2, 3, 4, 5, 9:
        # New functions, and so new sites.
        made = {}
        exec(SOURCE, made)
        load, shared, call, store = (made[name] for name in ("load", "shared", "call", "store"))
        objects = [made() for made in classes(number, slots)]
        for turn in range(6):
            for o in objects:
                store(o, turn)
            print([(load(o), shared(o), call(o)) for o in objects])
        # One class changes, another one loses the attribute.
        type(objects[0]).shared = "changed"
        type(objects[-1]).method = lambda self: "changed"
        del objects[number // 2].own
        for turn in range(3):
            print([(attempt(load, o), shared(o), call(o)) for o in objects])
        check(load, shared, call, store)
"""
    )


def test_operators_whose_operands_change_type(compare):  # noqa: F811
    compare(
        WARM
        + """
SOURCE = '''
def add(a, b): return a + b
def subtract(a, b): return a - b
def multiply(a, b): return a * b
def divide(a, b): return a / b
def less(a, b): return a < b
def equal(a, b): return a == b
def subscript(a, b): return a[b]
def store(a, b, c): a[b] = c
'''
class Int(int):
    def __add__(self, other): return "Int"
    def __lt__(self, other): return "Int"
values = [1, -1, 2**29, 2**30, -(2**30), 2**62, 2**63 - 1, 2**100, 1.5, -0.0, float("nan"), 1e308, True, "text", Int(3), None, (1,), [2]]
for first in range(len(values)):
    # New sites, filled by one kind, then shown the others.
    made = {}
    exec(SOURCE, made)
    x = values[first]
    for name in "add", "subtract", "multiply", "divide", "less", "equal":
        function = made[name]
        for _ in range(5):
            attempt(function, x, x)
        for y in values:
            # Powers of two would make long texts and lists.
            if name != "multiply" or not isinstance(x, (str, tuple, list)) and not isinstance(y, (str, tuple, list)):
                print(name, repr(x), repr(y), attempt(function, x, y), attempt(function, y, x))
        check(function)
containers = [[1, 2, 3], (4, 5, 6), {0: 7, 1: 8}, "abc", b"xyz", range(5, 9), bytearray(b"123")]
for first in containers:
    made = {}
    exec(SOURCE, made)
    subscript, store = made["subscript"], made["store"]
    warm(attempt, subscript, first, 1)
    for container in containers:
        for index in 0, 2, -1, 3, -4, 2**70, True, 1.0, "0", slice(1, 2):
            print(attempt(subscript, container, index))
            if isinstance(container, (list, dict)):
                print(attempt(store, container.copy(), index, 0) if not isinstance(index, slice) else None)
    check(subscript, store)
"""
    )


def test_loops_over_changing_types(compare):  # noqa: F811
    compare(
        WARM
        + """
SOURCE = '''
def loop(items):
    seen = []
    for item in items:
        seen.append(item)
    return seen
'''
class Sequence:
    def __getitem__(self, index): return [7, 8][index]
def kinds():
    return [[1, 2], (3, 4), range(5), range(9, 2, -3), range(2**70, 2**70 + 2), {5: 6}, {7}, "ab", Sequence(), (i for i in [1]), iter([9]), [], (), range(0)]
for first in range(len(kinds())):
    made = {}
    exec(SOURCE, made)
    loop = made["loop"]
    for _ in range(5):
        loop(kinds()[first])
    for items in kinds():
        print(loop(items))
    print(attempt(loop, None))
    # A list that grows while it is iterated over, and one that shrinks.
    growing = [0, 1]
    def grow():
        for item in growing:
            if len(growing) < 6:
                growing.append(item + 2)
        return growing
    print(grow())
    check(loop)
"""
    )


def test_callees_that_change(compare):  # noqa: F811
    compare(
        WARM
        + """
def one(x): return "one", x
def two(x, y=2): return "two", x, y
class Made:
    def __init__(self, x): self.x = x
    def __repr__(self): return f"Made({vars(self)})"
    def method(self, x): return "method", x
def call(f, x): return f(x)
print(warm(call, one, 1), warm(call, Made, 2), warm(call, Made(1).method, 3))
one.__code__ = two.__code__
print(attempt(call, one, 1))
one.__defaults__ = (9,)
print(call(one, 1))
two.__defaults__ = None
print(attempt(call, two, 1))
two.__kwdefaults__ = {"z": 1}
Made.__init__ = lambda self, x: vars(self).update(y=x)
print(call(Made, 2))
Made.__new__ = lambda cls, x: (cls.__name__, x)
print(call(Made, 2), warm(call, Made, 3))
del Made.__new__
Made.__init__ = lambda self, x: x
print(attempt(call, Made, 4), attempt(call, Made, None))
del Made.__init__
print(attempt(call, Made, 4))
for f in one, len, str, [5].append, type, Made.method, lambda x: x, int, two:
    print(attempt(call, f, "1"))
check(call)
"""
    )


def test_module_in_the_place_of_another(compare):  # noqa: F811
    # A function of the old module keeps its dictionary alive; the new module may get the old one's address.
    compare(
        WARM
        + """
import types
def load(m): return m.value
def call(m): return m.get()
kept, seen, places = [], [], set()
for number in range(50):
    module = types.ModuleType("same")
    places.add(id(module))
    exec("def get(): return value", module.__dict__)
    module.value = number
    kept.append(module.get)
    seen.append((warm(load, module), warm(call, module)))
    del module
print(seen, len(places) < 50)
check(load, call)
"""
    )


def test_class_attributes_that_become_descriptors(compare):  # noqa: F811
    compare(
        WARM
        + """
class Late: pass
class A:
    x = Late()
    y = Late()
    z = Late()
    def __init__(self): self.x = 1
class Slots:
    __slots__ = ()
    y = Late()
def load_x(o): return o.x
def load_y(o): return type(o.y)
def load_slot(o): return type(o.y)
def load_class(c): return type(c.z)
def store(o, value): o.x = value
a, s = A(), Slots()
print(warm(load_x, a), warm(load_y, a), warm(load_slot, s), warm(load_class, A), warm(store, a, 2), a.x)
Late.__get__ = lambda self, instance, owner: (instance is None, owner.__name__)
print(warm(load_x, a), warm(load_y, a), warm(load_slot, s), warm(load_class, A), a.y, A.z)
Late.__set__ = lambda self, instance, value: print("set", value)
print(warm(load_x, a)), store(a, 3)
del Late.__get__
print(warm(load_x, a), warm(load_y, a)), store(a, 4)
del Late.__set__
print(warm(load_x, a)), store(a, 5)
print(a.x)
check(load_x, load_y, load_slot, load_class, store)
"""
    )


def test_attribute_whose_key_is_another_string(compare):  # noqa: F811
    # A key that is not interned is equal to the attribute's name and not the same object.
    compare(
        WARM
        + """
class A:
    attribute = "class"
    def method(self): return "class"
class B: pass
def load(o): return o.attribute
def call(o): return o.method()
def store(o, value): o.attribute = value
a, b, c = A(), A(), B()
vars(b)["".join(["attri", "bute"])] = "own"
vars(b)["".join(["met", "hod"])] = lambda: "own"
vars(c)["".join(["attri", "bute"])] = "own"
for _ in range(20):
    print(load(a), load(b), load(c), call(a), call(b))
warm(store, c, 1), warm(store, B(), 2)
print(vars(c), load(c))
check(load, call, store)
"""
    )


def test_subscripts_whose_containers_change(compare):  # noqa: F811
    compare(
        WARM
        + """
class Missing(dict):
    def __missing__(self, key): return "missing", key
class Key:
    def __init__(self, target): self.target = target
    def __hash__(self): return 1
    def __repr__(self): return "Key"
    def __eq__(self, other):
        self.target.clear()
        return False
class Python:
    def __getitem__(self, key): return "got", key
    def __setitem__(self, key, value): self.stored = key, value
def load(o, key): return o[key]
def store(o, key, value): o[key] = value
def look(o, key): return attempt(load, o, key), attempt(store, o, key, "new"), attempt(load, o, key)
print(warm(load, {1: 2}, 1), look({}, 1), look({}, []), look(Missing(), 2))
emptied = {1: "a"}
print(attempt(load, emptied, Key(emptied)), emptied)
emptied = {1: "a"}
print(attempt(store, emptied, Key(emptied), 5), len(emptied))
values = [1, 2, 3]
warm(load, values, -1), warm(store, values, 0, 1)
for index in (-4, -3, -1, 0, 2, 3, 2**40, -2**40, True, None):
    print(look(list(values), index), look((1, 2), index), look("abc", index))
python = Python()
print(warm(load, python, 3), warm(store, python, 1, 2), python.stored)
Python.__getitem__ = lambda self, key, more="default": (key, more)
print(look(python, 4))
del Python.__getitem__
print(look(python, 4))
check(load, store)
"""
    )


def test_properties_that_change(compare):  # noqa: F811
    compare(
        WARM
        + """
class A:
    def __init__(self, value): self.value = value
    @property
    def it(self): return self.value
def load(o): return o.it
print(warm(load, A(1)))
class B(A):
    it = "plain"
print(load(B(1)), load(A(2)))
A.it = property(lambda self: 1 / 0)
print(attempt(load, A(3)))
del A.it
print(attempt(load, A(3)))
check(load)
"""
    )


def test_truth_unpacking_and_defaults_that_change(compare):  # noqa: F811
    compare(
        WARM
        + """
class A: pass
def truth(o): return "true" if o else "false"
def unpack(o):
    a, b = o
    return a, b
def callee(a, b=2, c=3): return a, b, c
def call(): return callee(1), callee(1, 5)
def append(o, value): return o.append(value), len(o)
for o in (A(), [], [1], (), "", "x", {}, {1: 1}, set(), 0, 7, 2**70, None, 0.0):
    print(warm(truth, o))
A.__len__ = lambda self: 0
print(truth(A()))
for o in ((1, 2), [3, 4], "ab", (1,), [1, 2, 3], 5, iter("cd")):
    print(attempt(unpack, o))
print(warm(call))
callee.__defaults__ = (7, 8)
print(call())
callee.__defaults__ = (7,)
print(attempt(call))
callee.__defaults__ = None
print(attempt(call))
class Own(list):
    def append(self, value): return "own"
print(warm(append, [], 1), attempt(append, Own(), 1), attempt(append, 5, 1))
check(truth, unpack, call, append)
"""
    )


def test_attributes_of_classes_with_a_metaclass(compare):  # noqa: F811
    compare(
        WARM
        + """
import abc, enum
class Meta(type):
    def of_meta(cls): return "meta", cls.__name__
class Value: pass
class A(metaclass=Meta):
    number, value = 1, Value()
    def function(*args): return len(args)
    @classmethod
    def made(cls): return cls.__name__
class B(A):
    number = 2
class Abstract(abc.ABC):
    number, value = 3, [1]
    def function(*args): return args[1:]
class Color(enum.Enum):
    RED, BLUE = 1, 2
def load(c): return c.number
def load_value(c): return type(c.value)
def call(c): return c.function(1, 2), c.made()
def call_function(c): return c.function(1, 2)
def members(): return Color.RED.value, Color.BLUE, Color.RED.name
def every(): return warm(load, A), warm(load_value, A), warm(call, A), warm(call_function, Abstract), warm(load, B), load(A), load(Abstract), members()
print(every(), warm(members), every())
A.number = [1]
B.function = lambda *args: "other"
print(every(), warm(call, B))
del B.number
print(every(), warm(load, B))
Value.__get__ = lambda self, instance, owner: ("got", instance, owner.__name__).__class__
print(every())
del Value.__get__
print(every())
Meta.number = 5
print(every())
Meta.number = property(lambda cls: "property of " + cls.__name__)
print(every())
Meta.function = lambda cls, *args: "of the metaclass"
print(every())
del Meta.number
Meta.__getattribute__ = lambda cls, name: "any"
print(warm(load, A), warm(attempt, call, A))
del Meta.__getattribute__
A.__class__ = type("Other", (Meta,), {"number": property(lambda cls: "another metaclass")})
print(every())
check(load, load_value, call, call_function, members)
"""
    )


def test_instance_values_that_are_called(compare):  # noqa: F811
    compare(
        WARM
        + """
import functools, io, sys
class A:
    def __init__(self, f): self.f = f
class B(A):
    def f(self, x): return "method", x
class C:
    f = staticmethod(lambda x: ("static", x))
def call(a): return a.f(1)
def first(x): return "first", x
a, b = A(first), A(len)
count = sys.getrefcount(first)
print(warm(call, a), attempt(call, b), warm(call, B(first)), warm(call, a), warm(call, C()))
print(sys.getrefcount(first) - count)
a.f = print
warm(call, a)
del a.f
print(attempt(call, a))
A.f = lambda self, x: ("class", x)
print(warm(call, a), attempt(call, b))
A.f = property(lambda self: lambda x: ("property", x))
print(warm(call, a))
del A.f
a.f = first
a.__dict__ = {"f": lambda x: ("dict", x)}
print(warm(call, a), warm(call, A(first)))
a.__dict__.clear()
print(attempt(call, a))
def read(file): return file.read(2)
file = io.BytesIO(b"0123456789" * 20)
print(warm(read, file))
file.read = lambda count: ("instance", count)
print(warm(read, file))
del file.read
print(warm(read, file), attempt(read, 5))
class Buffer(io.BytesIO): pass
print(warm(read, Buffer(b"ab" * 30)))
Buffer.read = lambda self, count: "class"
print(warm(read, Buffer(b"ab" * 30)), warm(read, file))
check(call, read)
"""
    )


def test_callables_and_containers_that_change(compare):  # noqa: F811
    compare(
        WARM
        + """
import functools, weakref
class A:
    def __init__(self, *args): self.args = args
    def method(self, *args): return args
    def __call__(self, *args): return "called", args
    def __contains__(self, x): return x == 3
def function(*args): return len(args)
def call(f): return f(1, "2")
def call_one(f, x): return f(x)
for f in [function, A().method, A(), functools.partial(function, 1), max, isinstance, "{} {}".format, pow, A, dict, str, {1: 5}.get, [].insert, function, A, str.count, list.append, object.__getattribute__, int.__add__, "a".__eq__, int.__lt__, dict.get, object.__init__, type.__call__]:
    result = attempt(warm, call, f)
    print(result.args if isinstance(result, A) else result)
def unbound(f, x, y): return f(x, y)
def bound(x, y): return type.__dict__["__mro__"].__get__(x), x.__eq__(y)
for f in [dict.get, object.__getattribute__, dict.get, list.append, int.__add__, str.join, A.method, type, int.__pow__, object.__init__, object.__new__, isinstance, list.__getitem__, A.__init__]:
    for x, y in [({1: 2}, 1), (1, 2), (5, "real"), (A(), "args"), ([1, 2], 0), (int, object), (A, "method"), (",", ["a", "b"]), (True, 4)]:
        result = attempt(warm, unbound, f, x, y)
        print(result if isinstance(result, (int, str, tuple)) else type(result))
for x in [int, bool, A, type]:
    print(attempt(warm, bound, x, int))
for x in [5, "a"]:
    print(attempt(warm, bound, x, int))
cached = functools.lru_cache(lambda x: ("cached", x))
for f in [cached, weakref.ref, type, len, cached, "".join, A(), type, {1: 2}.get, tuple, [1].index, 5, Exception, type(None).__subclasses__]:
    for x in [1, "a", A, [1]]:
        result = attempt(warm, call_one, f, x)
        print(type(result) if isinstance(result, (A, weakref.ref)) else result)
def contains(x, c): return x in c, x not in c
class Set(set):
    def __contains__(self, x): return "Set"
for c in [{1, 2}, frozenset([3]), {3: 1}, "abc", [1, 3], (3,), A(), range(5), Set(), 5, {1: 2}.keys(), b"abc"]:
    for x in [3, "a", [], {1}, 1.0]:
        print(attempt(warm, contains, x, c))
check(call, call_one, contains, unbound, bound)
"""
    )
