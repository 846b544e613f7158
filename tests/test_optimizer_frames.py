"""Inlined functions that run Python: their frames are real for as long as somebody may look. Each program runs interpreted and with the optimizer forced."""

import pytest

# An operation that may run Python in an inlined function: the state of its frames has a caller.
LOOKS_INLINED = r"(Helper|CallPython|Release) .* > "

PROGRAMS = {
    "tracebacks_through_inlined_frames": """
        import traceback
        def fails(n):
            if n > 5:
                raise ValueError(n)
            return n
        def middle(n):
            x = fails(n)
            return x + 1
        def outer(n):
            y = 2
            return (
                middle(n) +
                y
            )
        for n in 1, 2, 3, 4, 5, 6, 7:
            try:
                print(outer(n))
            except ValueError as e:
                traceback.print_exception(e)
                print("".join(traceback.format_exception(e)))
                tb = e.__traceback__
                while tb:
                    print(tb.tb_frame.f_code.co_name, tb.tb_lineno, tb.tb_frame.f_lineno, tb.tb_lasti, sorted(tb.tb_frame.f_locals) if tb.tb_frame.f_code.co_name != "<module>" else "")
                    tb = tb.tb_next
        ran = [outer]
    """,
    "frames_looked_at_and_kept": """
        import sys
        kept = []
        def look(deep, keep):
            frame = sys._getframe(deep)
            if keep:
                kept.append(frame)
            names = []
            at = sys._getframe(1)
            while at.f_code.co_name != "<module>":
                names.append((at.f_code.co_name, at.f_lineno, sorted(at.f_locals.items())))
                at = at.f_back
            return names
        def inner(a, deep, keep):
            b = a + 1
            r = look(deep, keep) if deep else None
            b += 1
            return r, a, b
        def middle(a, deep, keep):
            c = a * 1.5
            r = inner(a, deep, keep)
            c += 1.0
            return r, c
        def outer(n, deep, keep):
            total = 0
            for i in range(n):
                total += i
                r = middle(i, deep if i == n - 1 else 0, keep)
            return r, total
        for n, deep, keep in (9, 0, 0), (9, 0, 0), (9, 1, 0), (9, 2, 1), (9, 3, 1), (9, 1, 1), (5, 0, 0), (4, 1, 1):
            print(outer(n, deep, keep))
        for frame in kept:
            print(frame.f_code.co_name, frame.f_lineno, sorted(frame.f_locals.items()), frame.f_back and frame.f_back.f_code.co_name)
        ran = [outer]
    """,
    "locals_written_in_an_inlined_frame": """
        import sys
        def write(deep, name, value):
            if deep:
                sys._getframe(deep).f_locals[name] = value
        def inner(a, deep, name):
            b = sorted([a])
            write(deep, name, "new")
            return a, b
        def outer(n, deep, name):
            c = 5
            r = inner(n, deep, name)
            return r, c, n
        for n in range(6):
            print(outer(n, 0, ""))
        print(outer(6, 1, "a"))
        print(outer(6, 1, "b"))
        print(outer(6, 2, "c"))
        print(outer(6, 2, "n"))
        print(outer(7, 0, ""))
        ran = [outer]
    """,
    "exceptions_caught_around_and_in_inlined_calls": """
        def fails(n):
            return divmod(10, n)[0]
        def guarded(n):
            try:
                return fails(n)
            except ZeroDivisionError as e:
                return str(e), e.__traceback__.tb_next.tb_lineno
        def passes(n):
            return fails(n), n
        def outer(n):
            a = guarded(n)
            b = passes(n)
            return a, b
        for n in 3, 2, 1, 5, 0, 4, 0, 6:
            try:
                print(outer(n))
            except ZeroDivisionError as e:
                print("outer", e, e.__traceback__.tb_next.tb_next.tb_lineno)
        ran = [outer]
    """,
    "constructors_that_call": """
        import sys
        class A:
            def __init__(self, x):
                self.x = make(x)
                self.y = [x]
        def make(x):
            if x == 7:
                raise KeyError(x)
            if x == 8:
                print(sorted(sys._getframe(1).f_locals), type(sys._getframe(1).f_locals["self"]).__name__, sys._getframe(2).f_code.co_name)
            return (x, sys.getrefcount(x) > 0)
        def outer(n):
            a = A(n)
            return a.x, a.y, sys.getrefcount(a)
        for n in 1, 2, 3, 4, 7, 5, 8, 8, 9:
            try:
                print(outer(n))
            except KeyError as e:
                print("KeyError", e, e.__traceback__.tb_next.tb_lineno)
        ran = [outer]
    """,
    "recursion_to_the_limit": """
        import sys
        def down(n):
            return 0 if n == 0 else 1 + down(n - 1)
        for n in 3, 10, 100, 500:
            print(down(n))
        def depth(n):
            try:
                return depth(n + 1)
            except RecursionError:
                return n
        def forever(n):
            return forever(n + 1)
        sys.setrecursionlimit(700)
        print(down(400))
        for _ in range(4):
            try:
                forever(0)
            except RecursionError as e:
                count, tb = 0, e.__traceback__
                while tb:
                    count, tb = count + 1, tb.tb_next
                print(e, count)
        ran = [down, forever]
    """,
    "the_data_stack_grows_in_an_inlined_call": """
        def leaf(a, b):
            return [a, b]
        def wide(a):
            b = c = d = e = f = g = h = i = j = k = a
            x = leaf(b, c)
            return x[0] + d + e + f + g + h + i + j + k
        def down(n):
            if n == 0:
                return 0
            return wide(n) + down(n - 1)
        for n in 5, 50, 300, 301, 302, 303, 304, 600:
            print(down(n))
        ran = [down]
    """,
    "destructors_look_at_inlined_frames": """
        import sys
        class D:
            def __init__(self, quiet):
                self.quiet = quiet
            def __del__(self):
                if not self.quiet:
                    at = sys._getframe(1)
                    while at.f_code.co_name != "<module>":
                        print(at.f_code.co_name, at.f_lineno, sorted(k for k in at.f_locals))
                        at = at.f_back
        def drop(quiet):
            d = D(quiet)
            d = None
            e = 1
            return e
        def middle(quiet):
            k = 3
            return drop(quiet) + k
        def outer(quiet):
            return middle(quiet) + 1
        for quiet in True, True, True, True, False, False, True, False:
            print(outer(quiet))
        ran = [outer]
    """,
    # What an instance holds decides whether its end can be seen, and how often it holds it.
    "destructors_hidden_in_instances": """
        import sys
        class V:
            def __init__(self, x, y):
                self.x = x
                self.y = y
        class Loud:
            def __del__(self):
                frame = sys._getframe(1)
                print("del", frame.f_code.co_name, frame.f_lineno, sorted(frame.f_locals))
        def run(n, mode):
            t = 0.0
            for i in range(n):
                v = V(i * 1.0, 2.0)
                if i == n - 1:
                    d = Loud() if mode else None
                    if mode == 1:
                        v.x = d
                        v.y = d
                    elif mode == 2:
                        v.x = (d, d)
                        v.y = [d]
                    elif mode == 3:
                        v.y = d
                    d = None
                w = V(1.0, 2.0)
                v, w = w, None
                t += v.y
            return t
        def outer(n, mode):
            return run(n, mode) + len([n])
        for mode in 0, 0, 0, 1, 2, 3, 0:
            print(outer(50, mode))
        ran = [run]
    """,
    "generators_and_loops_in_inlined_functions": """
        def numbers(n):
            for i in range(n):
                yield i
        def total(n):
            t = 0
            for x in numbers(n):
                t += x
            return t
        def outer(n):
            return total(n) + total(n + 1)
        for n in range(9):
            print(outer(n))
        ran = [outer]
    """,
    "tracing_begins_in_an_inlined_call": """
        import sys
        events = []
        def tracer(frame, event, arg):
            events.append((frame.f_code.co_name, event, frame.f_lineno))
            return tracer
        def begin(*arguments):
            if arguments[0]:
                sys.settrace(tracer)
                frame = sys._getframe(1)
                while frame.f_code.co_name != "<module>":
                    frame.f_trace = tracer
                    frame = frame.f_back
        def inner(go):
            begin(go)
            x = 1
            return x
        def outer(go):
            y = inner(go)
            y += 1
            return y
        for go in 0, 0, 0, 0, 1:
            print(outer(go))
        sys.settrace(None)
        for event in events:
            print(*event)
        ran = [outer]
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_inlined_frames(compare_optimized, name):
    hir = None if name == "destructors_hidden_in_instances" else LOOKS_INLINED
    compare_optimized(PROGRAMS[name], from_start=name == "recursion_to_the_limit", hir=hir)
