"""Operations of optimized code beyond plain arithmetic: arrays, operators of instances, tuples and slices that are not made. As tests/test_optimizer.py: each program runs
interpreted and with the optimizer forced and prints the same; `ran` names the functions that must have been optimized. First comes what their HIR must have, then the reasons for which they must have been left.
"""

import pytest

pytestmark = pytest.mark.native_only

PROGRAMS = {
    "array_items": (
        r"ArrayStore",
        ["rare_case", "type_guard"],
        """
        from array import array
        def dot(a, b, c, n):
            s = 0.0
            for i in range(n):
                s += a[i] * b[c[i]]
                a[i] = s
                c[i] = c[i] + 0
            return s
        a, b, c = array("d", [1.5] * 10), array("d", range(10)), array("i", range(10))
        for n in 10, 10, 3, 0, 10: print(dot(a, b, c, n), a[:3])
        def attempt(f, *args):
            try:
                return f(*args)
            except Exception as e:
                return type(e).__name__, str(e), e.__traceback__.tb_next.tb_lineno
        def put(a, i, v):
            a[i] = v
            return a[i]
        for code in "bBhHiIlLqQfd":
            for v in 0, 1, -1, 127, 128, 255, 256, -129, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, True, 0.5, 1e300, None:
                print(code, v, attempt(put, array(code, [7] * 3), 1, v))
        for i in 0, 1, 2, 3, -1, -3, -4, 2**70, "x", True, slice(0, 1):
            print(i, attempt(put, array("d", [7] * 3), i, 2.0))
        def keep(a):
            for i in range(len(a)):
                a[i] = a[i] * 2
            return a
        class Sub(array): pass
        for _ in range(4): print(keep(array("d", [1, 2])))
        print(keep(Sub("d", [1, 2])), keep(array("i", [1, 2])), keep([1, 2]), keep(bytearray(b"ab")))
        def shrink(a, i):
            a[i]
            a.pop()
            return a[i]
        for _ in range(5): print(attempt(shrink, array("d", [1, 2]), 0))
        print(attempt(shrink, array("d", [1, 2]), 1))
        ran = [dot, put, keep, shrink]
        """,
    ),
    "operators_of_instances": (
        r"GuardFunction",
        [],
        """
        class V:
            def __init__(self, x, y): self.x = x; self.y = y
            def __add__(self, o): return V(self.x + o.x, self.y + o.y)
            def __mul__(self, k): return V(self.x * k, self.y * k)
            def __getitem__(self, i):
                if i > 1: raise IndexError(i)
                return self.x if i == 0 else self.y
            def __setitem__(self, i, v):
                if i == 0: self.x = v
                else: self.y = v
        def f(n):
            v, w = V(0.0, 0.0), V(1.0, 2.0)
            for i in range(n):
                v = v + w * 2.0
                v[0] = v[1]
                v[1] = v[0] + 1.0
            return v.x, v.y
        for _ in range(5): print(f(50))
        def g(v, i):
            try:
                return v[i]
            except IndexError as e:
                return repr(e), e.__traceback__.tb_next.tb_lineno, e.__traceback__.tb_next.tb_frame.f_code.co_name
        v = V(1, 2)
        for i in 0, 1, 0, 1, 0, 1, 2, 5, 2: print(g(v, i))
        # A subclass on the right comes first; another class on the left; NotImplemented asks the right one.
        class W(V):
            def __radd__(self, o): return "radd"
        class N:
            def __add__(self, o): return NotImplemented if o is None else "add"
            def __iadd__(self, o): return "iadd"
        class R:
            def __radd__(self, o): return "R.radd"
        def plus(a, b): return a + b
        def inplace(a, b):
            a += b
            return a
        for a, b in [(v, v)] * 4 + [(v, W(1, 2)), (W(1, 2), v), (N(), 1), (N(), R())] * 4:
            r = plus(a, b)
            print(r if isinstance(r, str) else (type(r).__name__, r.x, r.y))
            r = inplace(a, b)
            print(r if isinstance(r, str) else (type(r).__name__, r.x, r.y))
        try: plus(N(), None)
        except TypeError as e: print(e)
        # The class changes while it is hot.
        def total(v, n):
            t = 0
            for i in range(n):
                t += v[0]
            return t
        for _ in range(5): print(total(v, 3))
        V.__getitem__ = lambda self, i: 100
        for _ in range(5): print(total(v, 3))
        del V.__getitem__
        try: total(v, 3)
        except TypeError as e: print(e)
        ran = [f, g, plus, total]
        """,
    ),
    "stores_leave_behind_their_method": (
        r"GuardFunction",
        ["never_executed"],
        """
        import sys
        class C:
            def __init__(self): self.log = []; self.flag = False
            def __setitem__(self, k, v):
                self.last = k
                if self.flag:
                    self.log.append((k, v, sys._getframe(1).f_lineno))
                return "dropped"
        def f(c, n):
            x = 0
            for i in range(n):
                c[i] = x
                x = x + i
            return x
        c = C()
        for n in 1, 5, 9: print(f(c, n), c.last)
        c.flag = True
        for n in 1, 5, 9: print(f(c, n), c.last, c.log[-2:])
        ran = [f]
        """,
    ),
    "tuples_that_are_not_made": (
        r"^tuple0: of",
        [],
        """
        import sys
        class Grid:
            def __init__(self, w, h):
                self.w = w; self.h = h; self.d = [0.0]*(w*h)
            def _idx(self, x, y):
                if 0 <= x < self.w and 0 <= y < self.h:
                    return y*self.w + x
                raise IndexError
            def __getitem__(self, xy):
                (x, y) = xy
                return self.d[self._idx(x, y)]
            def __setitem__(self, xy, v):
                (x, y) = xy
                self.d[self._idx(x, y)] = v
        def fill(g, n):
            for y in range(n):
                for x in range(n):
                    g[x, y] = g[x, y] + x * 1.5 + y
            return sum(g.d)
        g = Grid(5,5)
        for i in range(6): print(fill(g, 5))
        try: fill(g, 6)
        except IndexError as e:
            print([(t.name, t.lineno) for t in __import__('traceback').extract_tb(e.__traceback__)])
        print(sum(g.d))
        class K:
            def __init__(self): self.seen = []
            def __getitem__(self, k):
                if isinstance(k, tuple):
                    return k[0] * 10 + k[1]
                return k
            def __setitem__(self, k, v):
                self.seen.append((k, v))
        def sub(k, n):
            s = 0
            for i in range(n):
                s += k[i, i+1]
                s += k[i]
                k[i, 2] = i
            return s
        k = K()
        for i in range(8): print(sub(k, 5))
        print(k.seen[-3:], len(k.seen), {sys.getrefcount(t) for t, v in k.seen})
        def pair(a, b):
            return a + 1, b
        def use(n, o):
            t = 0
            for i in range(n):
                x, y = pair(i, o)
                t += x + (y is o)
                p = pair(i, o)
                t += p[0] + len(p)
            return t, p
        o = object()
        for i in range(6): r = use(7, o)
        print(r[0], r[1][1] is o, sys.getrefcount(o))
        def swap(l, i, j):
            for _ in range(3):
                l[i], l[j] = l[j], l[i]
                l[i], l[j], l[0] = l[0], l[i], l[j]
            return l
        for i in range(6): print(swap([object, 1, 2.0, 'x'], 1, 2))
        def ident(n):
            c = 0
            for i in range(n):
                t = (i, o)
                u = t
                c += (t is u) + (t == u)
            return c
        for i in range(5): print(ident(6))
        class D:
            def __del__(self):
                f = sys._getframe(1)
                log.append((f.f_code.co_name, sorted(f.f_locals)))
        log = []
        def mk(x): return (x, D())
        def dels(n):
            for i in range(n):
                a, b = mk(i)
                b = None
                mk(i)
                mk(i)[0]
        for i in range(5): dels(3)
        print(log[:6], len(log), log[-3:])
        ran = [fill, sub, use, swap, ident, dels]
        """,
    ),
    "beginning_of_a_list_reversed": (
        r"ReverseItems",
        ["rare_case"],
        """
        def flips(p):
            k = p[0]; n = 0
            while k:
                p[:k+1] = p[k::-1]
                n += 1
                k = p[0]
            return n
        def f2(p, q, k, j):
            p[0]
            p[:j] = p[k::-1]
            return p
        def f3(p, k):
            p[0]
            try:
                p[:k + 1] = p[k::-1]
            except Exception as e:
                return repr(e)
            return p
        for i in range(10): print(flips([4,2,1,3,0,5]), flips([3,2,1,0]))
        for i in range(10): print(f2([1,2,3,4], 0, 2, 3))
        print(f2([1,2,3,4], 0, 2, 2), f2([1,2,3,4], 0, 2, 1))
        for k in (0,1,2,3,1,2,3,4,5,-1,-2,7,-9,100): print(f3([1,2,3,4], k))
        for k in (2**62, 2**63, 2**65, -2**63, 2**63-1): print(f3([1,2,3,4], k))
        for k in range(12): print(f3([1,2,3,4], -1), f2([1,2,3,4],0,3,k))
        class L(list): pass
        print(f3(L([1,2,3]), 1), f3([1,2,3], True), f3((1,2,3), 1), f3([1,2,3], 1.5))
        ran = [flips, f2, f3]
        """,
    ),
    "tuple_of_a_caller_that_is_looked_at": (
        r"Helper",
        [],
        """
        import sys
        class T:
            def look(self, x, y): return sys._getframe(1).f_locals["k"], x + y
            def __getitem__(self, k):
                (x, y) = k
                return self.look(x, y)
        def f(t, n):
            r = []
            for i in range(n):
                r.append(t[i, i + 0.5])
            return r
        for n in 1, 3, 5: print(f(T(), n))
        ran = [f]
        """,
    ),
    "isinstance": (
        r"GuardClass",
        [],
        """
        class A: pass
        class B(A): pass
        class Meta(type):
            def __instancecheck__(cls, o): return "yes" if o == 3 else ""
        class M(metaclass=Meta): pass
        class Liar:
            @property
            def __class__(self): return A
        def f(x): return isinstance(x, A), isinstance(x, int), isinstance(x, M)
        def g(n):
            c = 0
            for i in range(n):
                c += isinstance(i, int) + isinstance(i * 0.5, int) + isinstance((i, n), tuple) + isinstance(i == 1, int)
            return c
        for x in [A(), A(), A(), A(), B(), Liar(), 3, True, 3, 3, 2**70, A, None] * 3: print(f(x))
        for n in range(6): print(g(n))
        ran = [f, g]
        """,
    ),
    "enumerations": (
        r"TupleExchange",
        ["type_guard"],
        """
        import gc, sys
        def sums(u, start=0):
            s = 0.0
            for j, x in enumerate(u, start):
                s += x * j
            return s
        def pairs(u, start):
            r = []
            for p in enumerate(u, start):
                r.append(p)
            return r
        def changing(u):
            n = 0
            for i, x in enumerate(u):
                if i == 3: u.append(99)
                if i == 5: u.pop()
                n += i * x
            else:
                n += 1000
            return n
        def late(u):
            # The pair that the object keeps holds the last item until the next one comes.
            e = enumerate(u)
            for i, x in e:
                if i == 4: u[1] = None
                x = None
            return i
        class Dying:
            def __init__(self, n): self.n = n
            def __del__(self): print("died", self.n, sys._getframe(1).f_lineno, sorted(sys._getframe(1).f_locals))
        def dying(u):
            for i, x in enumerate(u):
                u[i] = x = None
            return i
        def counting(u):
            r = []
            for i, x in enumerate(u):
                r.append(sys.getrefcount(x))
            return r
        for k in range(8):
            print(sums([1.0, 2.0, 3.5] * 5), sums([], 3), pairs([1, 2], 5), changing(list(range(10))), late([[0], [1], [2], [3], [4]]))
            print(dying([Dying(i) for i in range(3)]), counting([object() for _ in range(3)]), gc.collect() and 0)
        for start in 2**61 - 1, 2**61, 2**63 - 2, 2**63 - 1, -1, -2**63, 2**70:
            print(pairs([1, 2, 3], start))
        class Sub(enumerate): pass
        for u in [(1, 2), "ab", range(3), iter([5, 6]), Sub([1, 2])] * 3: print(pairs(u, 0))
        def ends(u):
            try:
                for i, x in enumerate(u): u[i + 1]
            except IndexError as e:
                return i, str(e), e.__traceback__.tb_lineno
        for _ in range(4): print(ends([1, 2, 3]))
        ran = [sums, pairs, changing, late, dying, counting]
        """,
    ),
    "ints_and_floats": (
        r"UnboxNumber",
        ["type_guard"],
        """
        def mixed(a, b):
            return a + b, a - b, a * b, a < b, a == b, a >= b
        def divided(a, b):
            return a / b
        def total(u):
            s = 0
            for x in u: s += x * 0.5
            return s
        def half(x): return (x * 0.5) / x
        values = [1, 1.5, 0, -0.0, 2**30 - 1, 2**30, -2**31, 2**53 + 1, 2**62, 2**70, float("nan"), float("inf"), True]
        def attempt(f, *args):
            try:
                return f(*args)
            except Exception as e:
                return type(e).__name__, str(e), e.__traceback__.tb_next.tb_lineno
        for a, b in [(1, 2.5), (2.5, 1), (0.5, 0.25)] * 4: print(mixed(a, b), divided(a, b), total([a, b, a]), half(a))
        for a in values:
            print(attempt(half, a), attempt(total, [a, 1, a]))
            for b in values: print(a, b, attempt(mixed, a, b), attempt(divided, a, b))
        print(total([]), total([1j, 2]), attempt(mixed, "a", 1.0), attempt(divided, None, 1))
        ran = [mixed, divided, total, half]
        """,
    ),
    "several_callees": (
        # The receiver's method is compared and inlined.
        r"Same v\d+, v\d+[\s\S]*> 1@",
        ["type_guard"],
        """
        import sys
        class A:
            def m(self, x): return x + 1
            def look(self): return sorted(sys._getframe(1).f_locals), sys._getframe().f_lineno
        class B(A):
            def m(self, x): return x * 2.0
            def look(self): return sys._getframe(1).f_lineno
        class C(A):
            def m(self, x):
                if x > 3: raise ValueError(x)
                return None
        class D(A): pass
        class Taker:
            def m(self, x, y=1): return x
            def look(self): return None
        def f(objects, n):
            r = []
            for i in range(n):
                for o in objects:
                    r.append(o.m(i))
            return r
        def g(objects):
            return [o.look() for o in objects], objects[0].look()
        def attempt(n, *objects):
            try:
                return f(objects, n)
            except Exception as e:
                tb = e.__traceback__.tb_next
                return type(e).__name__, str(e), tb.tb_lineno, tb.tb_next and (tb.tb_next.tb_lineno, tb.tb_next.tb_frame.f_locals["x"])
        count = sys.getrefcount(A.m), sys.getrefcount(B.m)
        for k in range(6): print(attempt(3, A(), B(), D(), A()), g([A(), B(), D()]))
        for k in range(12): print(attempt(6, A(), B(), C()))
        for k in range(4): print(attempt(2, A(), Taker(), B()), g([Taker(), A()]))
        A.m = lambda self, x: "changed"
        for k in range(3): print(attempt(2, A(), B(), D()))
        B.m.__code__ = (lambda self, x: "other code").__code__
        for k in range(3): print(attempt(2, A(), B(), D()))
        print(sys.getrefcount(B.m) - count[1] < 20)
        ran = [f]
        """,
    ),
    "lists": (
        r"ListPop",
        ["rare_case", "type_guard"],
        """
        import sys
        class Stack:
            def __init__(self): self.items = []
            def push(self, x): self.items.append(x)
            def pop(self): return self.items.pop()
        def numbers(n):
            l = []
            for i in range(n): l.append(i * 2.5)
            s = 0
            while l: s += l.pop()
            return s, l.append(1), l
        def stack(n):
            s = Stack()
            for i in range(n): s.push((i, i + 1))
            t = [s.pop() for _ in range(n // 2)]
            return t[-1:], s.items[-1:], len(s.items), len("abc" * n), len({1: 2, 3: n}), [a * b for a, b in t][:3]
        def drain(l):
            try:
                while True: l.pop()
            except IndexError as e:
                return str(e), e.__traceback__.tb_lineno
        def sizes(*objects):
            r = []
            for o in objects: r.append(len(o))
            return r
        def changes(l):
            # What was borrowed from the list outlives it.
            return [l[-1], l.pop(), l[-1] + l.pop() * l.pop(), l]
        def add(l):
            for i in range(5): l.append(i)
            return list(l), len(l)
        def hold(o, n):
            l = []
            for i in range(n): l.append(o)
            for i in range(n): x = l.pop()
            l = [o, o, o]
            for x in l: pass
            for x in (o, o): pass
            for y in [[o]]: y.append(o)
            return len(l)
        class Sub(list):
            def append(self, x): super().append(x + 1)
            def pop(self): return "popped"
            def __len__(self): return 99
        for _ in range(12):
            print(numbers(40), stack(30), drain([1, 2, 3]), changes([[1], [2], 3, 4, 5.5]))
            print(sizes([1], "ab", (1, 2, 3), {}, {1, 2}, b"xyz", range(7)), add([]))
        for o in Sub(), [], Sub(): print(add(o), drain([]))
        marker = object()
        before = sys.getrefcount(marker)
        for _ in range(12): hold(marker, 40)
        print(sys.getrefcount(marker) - before)
        class Missing: pass
        for o in [1, 2], None, Missing(), [1.5, 2]:
            try:
                print(sizes([1]), changes(o))
            except Exception as e:
                print(type(e).__name__, e, e.__traceback__.tb_next.tb_lineno)
        ran = [numbers, stack, changes, sizes, add, hold]
        """,
    ),
    "deaths_that_change_what_is_known": (
        r"Guard\(Destroyed\)",
        ["destroyed"],
        """
        class Box:
            def __init__(self): self.v = 1
            def get(self): return self.v
        class Other:
            v = "other's"
            def __init__(self): self.w = 0
            def get(self): return "another"
        class Dies:
            def __init__(self, what): self.what = what
            def __del__(self): self.what()
        def local(box, d):
            a = box.v, box.get()
            d = None
            return a, box.v, box.get()
        def attribute(box, holder):
            a = box.v
            holder.d = None
            b = box.v
            holder.d = a
            return a, b, box.v
        def item(box, l):
            a = box.get()
            l[0] = None
            return a, box.get(), box.v
        def helper(d): return 7
        def call(box, make):
            a = box.get()
            r = helper(make())
            return a, r, box.get(), box.v
        def both(box, d, e):
            n = box.v
            d = e
            e = 0
            return n, box.v, d is None
        class Holder: pass
        box = Box()
        def more(): box.v += 1
        def text(): box.v = "text"
        def again(): box.v = 1
        def change(): Box.get = lambda self: ("changed", self.v)
        def back(): Box.get = lambda self: self.v
        def nothing(): pass
        def turn():
            global box
            box = Box()
        def run(what):
            holder = Holder()
            holder.d = Dies(what) if what else None
            make = (lambda: Dies(what)) if what else (lambda: None)
            print(local(box, make()), attribute(box, holder), item(box, [make()]), call(box, make), both(box, make(), make()))
        for _ in range(6): run(None)
        for what in more, text, again, change, back, nothing, turn: run(what)
        for _ in range(20): run(more)
        for what in text, again, change, back, None, nothing, turn, more: run(what)
        box.__class__ = Other if False else Box
        for _ in range(6): run(None)
        ran = [local, attribute, item, call, both]
        """,
    ),
    "loops_entered_in_the_middle_from_an_inner_one": (
        r"Phi",
        [],
        """
        def f(n, m, limit):
            log, x, kept = [], 0, None
            for i in range(3):
                for j in range(m):
                    for k in range(n):
                        x += k
                        if x % 5 == 3: kept = [i, k]
                    if x > limit: break
                    log.append(x)
                log.append((i, j, kept))
            return log
        for n, m, limit in (20, 3, 100), (30, 2, 10**6), (3, 3, 5), (50, 4, 2000), (0, 2, 1): print(f(n, m, limit))
        ran = [f]
        """,
    ),
    "comparisons_of_objects": (
        r"GuardIdentity",
        [],
        """
        class A: pass
        class B(A):
            def __eq__(self, other): return True
        class C(A):
            def __ne__(self, other): return "ne"
        def others(l, x):
            r = []
            for o in l:
                if o != x: r.append(l.index(o))
            return r, x == l[0], l[0] != x
        a = [A() for _ in range(4)]
        for _ in range(12): print(others(a, a[2]), others([None, a, print, A], None) if _ > 8 else None)
        for x in B(), C(), 1, "a", 2.5, a[0]:
            print(others(a, x), others([x, *a], a[1]))
        A.__eq__ = lambda self, other: self is not other
        print(others(a, a[2]))
        ran = [others]
        """,
    ),
    "callables_known_behind_calls": (
        # Both are inlined: what was evaluated before the inner call is known after it.
        r"> 1@\d+ .*\n(.*\n)*.*> 2@",
        [],
        """
        import math
        class P:
            def __init__(self, x): self.x = x
            def half(self): return self.x / 2
            def scale(self, k): return P(self.x * k)
        def twice(x): return x + x
        def f(p): return p.scale(p.half()).x, math.sqrt(p.half()), twice(twice(p.x))
        for x in 1.5, 2.5, 3.5, 4.5, 5, 6, 2**70, 1e300: print(f(P(x)))
        class Q(P):
            def half(self): return math
        for _ in range(3):
            for p in P(2.0), Q(3.0):
                try:
                    print(f(p))
                except TypeError as e:
                    print(e, e.__traceback__.tb_next.tb_lineno)
        twice = abs
        print(f(P(-1.0)) if False else f(P(1.0)))
        ran = [f]
        """,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(compare_optimized, name):
    hir, exits, program = PROGRAMS[name]
    compare_optimized(program, hir=hir, exits=exits)
