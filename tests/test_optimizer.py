"""Optimized code is exactly Python: each program runs interpreted and with the optimizer forced, and prints the same.

`ran` in a program names the functions that must have been optimized; without one of them a test would compare the interpreter with itself.
"""

import pytest

# Programs that once went wrong.

REGRESSIONS = {
    # A range that was kept apart arrived at the head of the loop that the code was entered at, as a null iterator.
    "range_comes_around_to_the_loop_that_was_entered": """
        def f(n):
            i = -3
            x = 0
            while i < 9:
                i += 1
                for j in range(n):
                    x += j
            return x, i
        print(f(10), f(9), f(0))
        ran = [f]
    """,
    # Its address was compared, but another float had taken the place of the one whose value is in the code.
    "float_global_replaced_at_its_address": """
        H = 0.5
        def bump():
            global H
            H = H + 1
        def f(n):
            x = 0.0
            for i in range(n):
                x = x + H
                bump()
            return x
        for i in range(20):
            print(f(i), H)
        ran = [f, bump]
    """,
    # What one way to a join had found out about a local was believed of the other ways too.
    "known_on_one_way_to_a_join_only": """
        class Flag:
            def __bool__(self): return False
        def f(n, x, y):
            z = 0
            for i in range(n):
                z = z + 1
            if [None] is not y:
                if y is not None:
                    x = x + 1
                    if x > 4:
                        return x
            return x, z
        for n in range(8):
            print(f(n, n, None), f(n, 1, 1), f(n, 5, 1))
        print(f(3, "text", None), f(3, 2.5, None))
        ran = [f]
    """,
    # A function that was inlined, and with it its globals, outlived the interpreter's end.
    "globals_are_destroyed_at_the_end": """
        import os
        class D:
            def __del__(self): os.write(1, b"destroyed\\n")
        d = D()
        def g(n): return n + 1
        def f(n):
            x = 0
            for i in range(n):
                x = g(x)
            return x
        print(f(5), f(6), f(7), f(8), flush=True)
        ran = [f]
    """,
}

# What was suspected, and holds.

SUSPECTS = {
    "int_overflow": """
        def f(x, n):
            for i in range(n):
                x = x + x
            return x
        def g(x, n):
            for i in range(n):
                x = x * 3 - 1
            return x
        def h(x, n):
            for i in range(n):
                x = -x - 1
            return x
        for x in 1, -1, 2**30 - 1, -2**30, 2**31, 2**62, -2**62, -2**63, 2**63 - 1, 2**63:
            for n in 0, 1, 5, 70:
                print(f(x, n), g(x, n), h(x, n))
        ran = [f, g, h]
    """,
    "division_and_modulo": """
        def f(a, b):
            try:
                return a // b, a % b, a / b
            except ZeroDivisionError as e:
                return str(e)
        def g(a):
            return a // 7, a % 7, a // -7, a % -7
        values = [0, 1, -1, 7, -7, 13, -13, 2**30, -2**30, 2**62, -2**62, 2**63 - 1, -2**63, 2**53 + 1]
        for _ in range(4):
            for a in values:
                print(g(a))
                for b in values:
                    print(f(a, b))
        ran = [f, g]
    """,
    "float_division": """
        def f(a, b):
            try:
                return a / b, a * b, a - b
            except ZeroDivisionError as e:
                return str(e)
        def g(a, b):
            try:
                return a // b, a % b
            except ZeroDivisionError as e:
                return str(e)
        nan, inf = float("nan"), float("inf")
        values = [0.0, -0.0, 1.5, -1.5, nan, inf, -inf, 1e308, 3, -7]
        for _ in range(4):
            for a in values:
                for b in values:
                    print(f(a, b), g(a, b))
        ran = [f, g]
    """,
    "shifts": """
        def f(a, n):
            try:
                return a << n, a >> n
            except ValueError as e:
                return str(e)
        for _ in range(4):
            for a in 0, 1, -1, 5, -5, 2**30, 2**61, 2**62, -2**62, -2**63, 2**64:
                for n in 0, 1, 2, 30, 61, 62, 63, 64, 65, 100, -1:
                    print(f(a, n))
        ran = [f]
    """,
    "powers": """
        def f(a, b):
            try:
                return a ** b
            except (OverflowError, ZeroDivisionError) as e:
                return type(e).__name__, str(e)
        def square(a):
            try:
                return a ** 2, a ** 0.5, a ** -1.0
            except (OverflowError, ZeroDivisionError) as e:
                return type(e).__name__, str(e)
        nan, inf = float("nan"), float("inf")
        values = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 1e200, -1e200, 1e-200, nan, inf, -inf]
        for _ in range(4):
            for a in values:
                print(square(a))
                for b in values:
                    print(f(a, b))
        ran = [f, square]
    """,
    "mixed_comparisons": """
        def f(a, b):
            return a < b, a <= b, a == b, a != b, a > b, a >= b
        def sign(a, b):
            if a < b:
                return -1
            if a == b:
                return 0
            if a > b:
                return 1
            return None
        values = [0, 1, -1, 2**53, 2**53 + 1, -2**53 - 1, 2**62, 2**63, 2**64 + 1, 0.0, -0.0, 1.0, 2.0**53, 2.0**63, 2.0**64, float("nan"), float("inf"), -float("inf"), True, False]
        for _ in range(3):
            for a in values:
                for b in values:
                    print(f(a, b), sign(a, b))
        ran = [f, sign]
    """,
    "bool_arithmetic": """
        def f(a, b):
            return a + b, a - b, a * b, a & b, a | b, a ^ b, -a, not a, a < b, a == b
        def count(values):
            n = 0
            for v in values:
                n += v > 2
            return n, type(n)
        for _ in range(4):
            for a in True, False, 1, 0, 5:
                for b in True, False, 2:
                    print(f(a, b))
            print(count([1, 2, 3, 4]), count([]), count([1.5, 3]))
        ran = [f, count]
    """,
    "is_on_ints": """
        def f(a, b):
            return a is b, a is not b
        def g(n):
            found = []
            for i in range(n):
                x = i + 1000
                y = x
                found.append(x is y)
                found.append(x is x)
                found.append(i is None)
            return found
        def h(values):
            first = values[0]
            same = 0
            for v in values:
                if v is first:
                    same += 1
                if v + 1 > 0:
                    same += 10
            return same
        big = 10**6
        for _ in range(4):
            print(f(1, 1), f(big, big), f(big, 10**6 + _ - _), f(1, True), f(1.5, 1.5))
            print(g(5), h([big, big, 1]))
        ran = [f, g, h]
    """,
    "ranges": """
        def f(a, b, c):
            found = []
            for i in range(a, b, c):
                found.append(i)
            return found
        def down(n):
            x = 0
            for i in range(n, 0, -1):
                x = x * 2 + i
            return x, n
        def last(n):
            for i in range(n):
                pass
            try:
                return i
            except UnboundLocalError as e:
                return str(e)
        for _ in range(4):
            for args in (0, 5, 1), (5, 0, -1), (5, 0, -2), (0, 10, 3), (0, 0, 1), (3, -4, -3), (2**62, 2**62 + 3, 1), (2**63 - 2, 2**63 + 2, 1), (-2**63 - 1, -2**63 + 2, 2), (0, 2**70, 2**69):
                print(f(*args))
            print(down(5), down(0), down(-3), last(3), last(0))
        try:
            f(1, 2, 0)
        except ValueError as e:
            print(e)
        ran = [f, down, last]
    """,
    "list_changed_while_iterated": """
        def grow(s):
            n = 0
            for x in s:
                n += 1
                if n < 10:
                    s.append(x + 1)
            return n, s
        def shrink(s):
            n = 0
            for x in s:
                n += x
                s.pop()
            return n, s
        def sized(d):
            try:
                for k in d:
                    d[k + 1] = 1
            except RuntimeError as e:
                return str(e)
        for _ in range(5):
            print(grow([1, 2]), shrink([1, 2, 3, 4]), sized({1: 2}))
        ran = [grow, shrink, sized]
    """,
    "unpacking": """
        def two(v):
            try:
                a, b = v
                return a, b
            except (ValueError, TypeError) as e:
                return str(e)
        def loop(vs):
            found = []
            for a, b in vs:
                found.append((b, a))
            return found
        for _ in range(4):
            for v in (1, 2), [1, 2], (1,), [1, 2, 3], (), "ab", "abc", 5, iter([1, 2]), {1: 2, 3: 4}:
                print(two(v))
            print(loop([(1, 2), (3, 4)]), loop([[1, 2], (3, 4), "ab"]))
        try:
            loop([(1, 2), (3, 4, 5)])
        except ValueError as e:
            print(e)
        ran = [two, loop]
    """,
    "unbound_locals": """
        def f(n):
            for i in range(n):
                x = i
            try:
                return x, i
            except UnboundLocalError as e:
                return str(e)
        def g(n):
            x = 1
            for i in range(n):
                if i == 3:
                    del x
                x += 1
            return x
        def h(n):
            if n:
                x = 1.5
            del x
            return n
        for n in 5, 2, 0, 3, 1, 0, 6, 0:
            print(f(n))
            for call in g, h:
                try:
                    print(call(n))
                except UnboundLocalError as e:
                    print(e, e.__traceback__.tb_next.tb_lineno)
        ran = [f, g, h]
    """,
    "locals_seen_from_a_callee": """
        import sys
        def look():
            frame = sys._getframe(1)
            return sorted(frame.f_locals.items()), frame.f_lineno
        def f(n, y):
            x = 0
            for i in range(n):
                x += i
                y = y * 1.5
                if i % 3 == 2:
                    print(look())
                z = x > 3
            return x, y
        for n in 5, 7, 10:
            print(f(n, 1.0))
        ran = [f]
    """,
    "locals_written_from_a_callee": """
        import sys
        def write(name, value):
            sys._getframe(1).f_locals[name] = value
        def f(n, y):
            x = 0
            for i in range(n):
                x += i
                if i == 4:
                    write("x", "text" if n == 7 else 2.5 if n == 8 else 100)
                if i == 5 and n == 7:
                    x = 3
                y = y + 1.0
                if i == 6:
                    write("y", 10)
                    write("i", 1000)
            return x, y, i
        for n in 3, 5, 9, 9, 8, 10:
            print(f(n, 1.0))
        try:
            f(7, 1.0)
        except TypeError as e:
            print(e)
        ran = [f]
    """,
    "frames_kept_after_return": """
        import sys
        frames = []
        def keep():
            frames.append(sys._getframe(1))
        def f(n):
            x, y = 0, 1.0
            for i in range(n):
                x += i
                y /= 2
            if n > 5:
                keep()
            x += 1
            return x
        for n in 3, 4, 6, 8:
            print(f(n))
        for frame in frames:
            print(frame.f_lineno, frame.f_locals)
        ran = [f]
    """,
    "exceptions_in_inlined_callees": """
        def leaf(a, b):
            return a // b
        def middle(a, b):
            return leaf(a, b) + 1
        def f(n):
            x = 0
            for i in range(n):
                x += middle(10, 7 - i)
            return x
        for n in 3, 5, 6, 8, 4, 8, 9:
            try:
                print(f(n))
            except ZeroDivisionError as e:
                tb = e.__traceback__
                while tb:
                    code = tb.tb_frame.f_code
                    print(code.co_name, tb.tb_lineno, [*code.co_positions()][tb.tb_lasti // 2])
                    tb = tb.tb_next
                tb = e.__traceback__.tb_next
                while tb:
                    print(sorted(tb.tb_frame.f_locals.items()))
                    tb = tb.tb_next
        ran = [f]
    """,
    "recursion_limit": """
        import sys
        def depth(n):
            return 0 if n == 0 else depth(n - 1) + 1
        def endless(n):
            global deepest
            deepest = n
            return endless(n + 1) + 1
        for limit in 200, 500, 1000:
            sys.setrecursionlimit(limit)
            for n in 5, 50, 150:
                print(depth(n))
            for _ in range(3):
                try:
                    endless(0)
                except RecursionError as e:
                    print(limit, deepest, e)
            low, high = 0, limit
            while low < high:
                middle = (low + high + 1) // 2
                try:
                    depth(middle)
                    low = middle
                except RecursionError:
                    high = middle - 1
            print(low)
        ran = [depth, endless]
    """,
    "settrace_in_mid_loop": """
        import sys
        events = []
        def tracer(frame, event, arg):
            if frame.f_code.co_name in ("f", "g"):
                events.append((frame.f_code.co_name, event, frame.f_lineno))
            return tracer
        def g(i):
            return i + 1
        def start(i):
            if i == 5:
                sys.settrace(tracer)
                sys._getframe(1).f_trace = tracer
            if i == 8:
                sys.settrace(None)
        def f(n):
            x = 0
            for i in range(n):
                start(i)
                x += g(i)
            return x
        for n in 4, 5, 10, 4, 12:
            print(f(n))
            sys.settrace(None)
            print(events)
            events.clear()
        ran = [f, g]
    """,
    "monitoring_in_mid_loop": """
        import sys
        mon = sys.monitoring
        events = []
        mon.use_tool_id(1, "test")
        def register():
            mon.register_callback(1, mon.events.PY_START, lambda code, offset: events.append(("start", code.co_name)) if code.co_name == "g" else None)
            mon.register_callback(1, mon.events.JUMP, lambda code, a, b: events.append(("jump", code.co_name)) if code.co_name == "f" else None)
            mon.register_callback(1, mon.events.LINE, lambda code, line: events.append(("line", line)) if code.co_name == "f" else None)
        def g(i):
            return i + 1
        def start(i):
            if i == 5:
                register()
                mon.set_events(1, mon.events.PY_START | mon.events.LINE | mon.events.JUMP)
            if i == 8:
                mon.set_events(1, 0)
        def f(n):
            x = 0
            for i in range(n):
                start(i)
                x += g(i)
            return x
        for n in 4, 5, 10, 4, 12:
            print(f(n))
            mon.set_events(1, 0)
            print(events)
            events.clear()
        ran = [f, g]
    """,
    "signal_in_a_loop": """
        import signal
        hits = []
        def handler(number, frame):
            hits.append((frame.f_code.co_name, sorted(frame.f_locals)))
            if len(hits) == 3:
                raise KeyboardInterrupt("third")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        signal.signal(signal.SIGALRM, handler)
        def f(n):
            x = 0
            while not hits or len(hits) < n:
                x += 1
            return x > 0
        def g():
            x = 0
            while True:
                x = (x + 1) % 1000
        for n in 0, 0:
            hits.append(None)
            print(f(n))
        hits.clear()
        for n in 1, 2:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            print(f(n), hits)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            g()
        except KeyboardInterrupt as e:
            print(e, e.__traceback__.tb_frame.f_code.co_name)
        ran = [f, g]
    """,
    "threads_switch_in_loops": """
        import sys, threading
        sys.setswitchinterval(0.001)
        turn = []
        def spin(number, stop):
            x = 0
            while not stop:
                x += 1
            return x
        stop = []
        threads = [threading.Thread(target=spin, args=(n, stop)) for n in range(3)]
        for thread in threads: thread.start()
        def work(n):
            x = 0
            for i in range(n):
                x += i
            return x
        print([work(n) for n in (10, 100, 100000, 1000000)])
        stop.append(1)
        for thread in threads: thread.join()
        print("joined")
        ran = [spin, work]
    """,
    "destructors_and_weakrefs": """
        import weakref, gc
        log = []
        class D:
            def __init__(self, n): self.n = n
            def __del__(self): log.append(("del", self.n, G))
        G = 0
        def f(n):
            global G
            x = 0
            for i in range(n):
                d = D(i)
                x += d.n
                w = weakref.ref(d, lambda r: log.append("weak"))
                G = x
                if i % 2:
                    d = None
                    x += 1 if w() is None else 100
                log.append(x)
            return x
        def cycles(n):
            for i in range(n):
                a = []
                a.append(a)
                if i % 50 == 0:
                    x = gc.collect()
            return i
        for n in 3, 5, 8:
            print(f(n), log)
            log.clear()
        print(cycles(200))
        ran = [f, cycles]
    """,
    "destructor_that_looks_at_the_frame": """
        import sys
        class D:
            def __del__(self):
                frame = sys._getframe(1)
                print(frame.f_code.co_name, frame.f_lineno, sorted((k, v) for k, v in frame.f_locals.items() if k != "d"))
        def f(n):
            x, y = 0, 0.5
            for i in range(n):
                d = D() if i % 2 == 0 else None
                x += i
                y += 1
            d = 5
            return x, y
        for n in 3, 6:
            print(f(n))
        ran = [f]
    """,
    "callee_redefined_while_hot": """
        def g(a): return a + 1
        def h(a): return a * 1.5
        def other(a, b=7): return a + b
        def f(n):
            global g
            x = 0
            for i in range(n):
                x += g(i)
                if i == 5: g.__code__ = h.__code__
                if i == 8: g.__code__ = other.__code__; g.__defaults__ = (3,)
                if i == 11: g.__defaults__ = (4,)
                if i == 14: g = lambda v: v
            return x
        for n in 3, 4, 20, 20:
            print(f(n))
        ran = [f]
    """,
    "class_changed_while_hot": """
        class A:
            k = 1
            def __init__(self): self.x = 1
            def m(self): return self.x
        class B(A):
            def m(self): return 2.5
        def f(o, n):
            t = 0
            for i in range(n):
                t += o.m() + o.k + o.x
                o.x = i
                if i == 5: A.k = 2
                if i == 7: A.m = lambda self: 10
                if i == 9: o.__class__ = B
                if i == 11: o.m = lambda: 77
                if i == 13: del o.m
                if i == 15: B.x = property(lambda self: 3, lambda self, v: None)
                if i == 17: del B.x
                if i == 19: o.__dict__ = {"x": 4}
            return t
        for n in 4, 5, 25, 25:
            print(f(A(), n))
        ran = [f]
    """,
    "handlers_in_loops": """
        def f(values):
            total, caught = 0, []
            for v in values:
                try:
                    if v == 3:
                        raise ValueError(v)
                    total += 10 // v
                except ZeroDivisionError:
                    caught.append("zero")
                    continue
                except (ValueError, TypeError) as e:
                    caught.append(str(e))
                    total += 0.5
                else:
                    total += 1
                finally:
                    caught.append(total)
            return total, caught
        for values in [1, 2], [1, 0, 2], [3, 1], ["x", 2, 1.5], [0, 3, "y", 1]:
            for _ in range(3):
                print(f(values))
        ran = [f]
    """,
    "fork_with_optimized_code": """
        import os
        def f(n):
            x = 0
            for i in range(n):
                x += i * 2
            return x
        print(f(5), f(6), f(7), flush=True)
        pid = os.fork()
        if pid == 0:
            def g(n):
                x = 1.0
                for i in range(n):
                    x *= 1.5
                return x
            os._exit(0 if (f(100), f(3), g(3), g(4)) == (9900, 6, 3.375, 5.0625) else 1)
        print(os.waitpid(pid, 0)[1], f(100))
        ran = [f]
    """,
    "loops_that_raise_stop_iteration_late": """
        class It:
            def __init__(self, n): self.n = n
            def __iter__(self): return self
            def __next__(self):
                self.n -= 1
                if self.n < 0: raise StopIteration
                if self.n == 2 and bad: raise KeyError(self.n)
                return self.n
        bad = False
        def f(it):
            x = 0
            for i in it:
                x += i
            else:
                x += 1000
            return x
        for _ in range(4):
            print(f(It(5)), f([1, 2]), f((1, 2.5)), f({1: 2}), f(range(4)), f(x * 2 for x in (1, 2)))
        bad = True
        try:
            f(It(5))
        except KeyError as e:
            print(repr(e), e.__traceback__.tb_next.tb_lineno)
        ran = [f]
    """,
    "reference_counts": """
        import sys
        class A: pass
        def f(o, n, s):
            last = None
            for i in range(n):
                s[i % 2] = o
                last = s[0]
                o.x = o
                a, b = o, last
                if a is not b:
                    break
            o.x = None
            return last
        def g(o, n):
            for i in range(n):
                try:
                    raise ValueError(o)
                except ValueError as e:
                    o2 = e.args[0]
            return o2
        def h(o): return o
        def k(o, n):
            for i in range(n):
                o = h(o)
            return o
        o, s = A(), [1, 2]
        for _ in range(6):
            f(o, _, s); g(o, _ + 1); k(o, _)
            print(sys.getrefcount(o), sys.getrefcount(A))
        ran = [f, k, h]
    """,
    # A list iterator without its list but with an index crashed whoever asked it for more.
    "iterator_exhausted": """
        import operator, pickle
        def exhaust(values):
            iterator = iter(values)
            total = 0
            for value in iterator:
                total += value
            return iterator, total
        for values in [1, 2], (1, 2):
            for _ in range(100):
                iterator, total = exhaust(values)
            print(total, next(iterator, None), list(iterator), operator.length_hint(iterator), pickle.dumps(iterator), [value for value in iterator])
        ran = [exhaust]
    """,
    # Another module took the address of a dead one, whose dictionary a function kept alive.
    "module_in_the_place_of_another": """
        import types
        def load(m, n):
            for i in range(n):
                total = m.value + i
            return total
        kept, places = [], set()
        for number in range(50):
            module = types.ModuleType("same")
            places.add(id(module))
            exec("def get(): return value", module.__dict__)
            module.value = number
            kept.append(module.get)
            print(load(module, 30))
            del module
        print(len(places) < 50)
        ran = [load]
    """,
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_regression(compare_optimized, name):
    compare_optimized(REGRESSIONS[name])


@pytest.mark.parametrize("name", SUSPECTS)
def test_suspect(compare_optimized, name):
    # Runners take some of the depth that there is.
    compare_optimized(SUSPECTS[name], from_start=name == "recursion_limit")
