"""What programs can see of frames: tracebacks, `sys._getframe`, `f_locals`, recursion, observers, threads, signals, finalizers. Interpreted against compiled."""

import ast
import textwrap

import pytest

# ------------------------------------------------------------------------------------------------------- tracebacks


def test_traceback_text_with_carets(run_python, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import sys
            def divide(a, b):
                return (a + 1) / (b - b)
            def attribute(x):
                return x.real.imag.missing
            def subscript(d):
                return d["a"]["b"]["c"]
            def call(f):
                return f(1, 2)(
                    3,
                    key=divide(1, 1))
            def unpack(x):
                a, (b, c) = x
            def handler():
                try:
                    divide(3, 4)
                except ZeroDivisionError as error:
                    raise ValueError("outer") from error
            def cleanup():
                try:
                    subscript({"a": {}})
                finally:
                    attribute(5)
            def nested(n):
                return nested(n - 1) if n else {}[n]
            class C:
                def __add__(self, other): raise TypeError("no sum")
                def __iter__(self): return attribute(1)
                def __enter__(self): return self
                def __exit__(self, *args): divide(1, 2)
            def operator(): return 1 + (C() + 1)
            def loop():
                for x in C(): pass
            def managed():
                with C() as c:
                    c.missing
            def comprehension(): return [[1 / y for y in range(x)] for x in range(3)]
            import traceback
            for function, *arguments in (divide, 1, 2), (attribute, 3), (subscript, {"a": {}}), (call, lambda *a: len), (unpack, (1, 2)), (unpack, (1, (2, 3, 4))), (handler,), (cleanup,), (nested, 6), (operator,), (loop,), (managed,), (comprehension,):
                for _ in range(2):
                    try:
                        function(*arguments)
                    except Exception:
                        traceback.print_exc()
            if "hotstamp" in sys.modules:
                import hotstamp
                for function in divide, attribute, subscript, call, unpack, handler, cleanup, nested, operator, loop, managed, comprehension:
                    assert hotstamp.is_compiled(function), function
            divide(0, 0)
            """
        )
    )
    interpreted = run_python(program)
    compiled = run_python(program, tier="baseline")
    assert interpreted.stderr.count("^") > 40
    assert (compiled.returncode, compiled.stdout, compiled.stderr) == (interpreted.returncode, interpreted.stdout, interpreted.stderr)


def test_frames_of_a_traceback_keep_their_locals(compare):
    compare(
        """
        def inner(a, *rest, k):
            b = [a]
            def cell(): return b, k
            raise ValueError(a)
        def outer(x):
            y = x * 2
            try:
                z = inner(x, 1, 2, k=y)
            finally:
                w = "finally"
        for turn in range(3):
            try:
                outer(turn)
            except ValueError as error:
                tb = error.__traceback__
                while tb:
                    frame = tb.tb_frame
                    if frame.f_code.co_name in ("inner", "outer"):
                        names = {name: value if not callable(value) else "function" for name, value in frame.f_locals.items()}
                        print(frame.f_code.co_name, names, tb.tb_lineno, frame.f_lineno, tb.tb_lasti)
                    tb = tb.tb_next
                error.__traceback__.tb_next.tb_frame.clear()
                print(error.__traceback__.tb_next.tb_frame.f_locals)
        check(inner, outer)
        """
    )


# ----------------------------------------------------------------------------------------------- frames and locals


def test_getframe_and_live_locals(compare):
    compare(
        """
        kept = []
        def look(depth):
            frame = sys._getframe(depth)
            kept.append(frame)
            names = {name: value for name, value in frame.f_locals.items() if name not in ("g", "frame")}
            print(frame.f_code.co_name, frame.f_lineno, frame.f_lasti, names, frame.f_back.f_code.co_name)
            return names
        def caller(a, b=2):
            c = a + b
            look(1); d = [c]
            total = sum([look(1)["c"], look(0) and 1])
            del b
            g = lambda: d
            look(1)
            c = "changed"
            return look(1), c, locals()
        def middle(x):
            return caller(x)
        for turn in range(3):
            result = middle(turn)
            print(sorted(result[2]))
        for frame in kept:
            print(frame.f_code.co_name, frame.f_lineno, frame.f_back and (frame.f_back.f_code.co_name, frame.f_back.f_lineno), sorted(frame.f_locals))
        check(look, caller, middle)
        """
    )


def test_locals_written_through_a_frame(compare):
    compare(
        """
        def write(name, value):
            sys._getframe(1).f_locals[name] = value
        def f(a):
            b = 1
            c = [b]
            def cell(): return c
            write("a", "new a")
            write("b", b + 10)
            write("c", {"cell": b})
            write("extra", 5)
            for i in range(3):
                write("b", b + i)
                b += 1
            write("i", "loop")
            return a, b, cell(), i, sorted(locals())
        def swap(x, y):
            frame = sys._getframe()
            result = (x, (write("x", y), write("y", x))[0], x, y, x + y)
            return result, frame.f_locals["x"]
        for turn in range(4):
            print(f([turn]), swap(turn, turn * 2))
        check(f, swap, write)
        """
    )


def test_frame_objects_outlive_their_call(compare):
    compare(
        """
        class Tracked:
            def __init__(self, name): self.name = name
            def __del__(self): print("del", self.name)
        def f(n):
            local = Tracked(f"local {n}")
            other = n
            return sys._getframe()
        def g(n):
            temporary = Tracked(f"temporary {n}")
            return n
        for turn in range(3):
            frame = f(turn)
            print(frame.f_locals["other"], frame.f_locals["local"].name, frame.f_back is None or frame.f_back.f_code.co_name)
            frame.clear()
            print(frame.f_locals)
            g(turn)
        check(f, g)
        """
    )


def test_generators_called_from_compiled_code(compare):
    compare(
        """
        def numbers(n):
            for i in range(n):
                got = yield i, sys._getframe().f_back.f_code.co_name
                if got: print("got", got)
        def drive(n):
            out = [x for x in numbers(n)]
            generator = numbers(3)
            out.append(next(generator))
            out.append(generator.send("sent"))
            try:
                generator.throw(KeyError("thrown"))
            except KeyError as error:
                out.append((error.args, error.__traceback__.tb_lineno))
            out.extend(numbers(2))
            a, b = numbers(2)
            return out, a, b, sum(i for i in range(n))
        for turn in range(3):
            print(drive(turn))
        check(drive)
        """
    )


# ------------------------------------------------------------------------------------------------------- recursion


def test_infinite_recursion(compare):
    compare(
        """
        def f(n): return f(n + 1)
        def g(n): return h(n)
        def h(n): return g(n) + 1
        class C:
            def __getattr__(self, name): return self.other
            def __len__(self): return len(self)
            def __repr__(self): return f"{self}"
            def __eq__(self, other): return self == other
            def __init__(self, n=None):
                if n: C(n)
        depths = []
        def depth(n):
            depths[-1] = n
            depth(n + 1)
        for turn in range(3):
            for call in (lambda: f(0)), (lambda: g(0)), (lambda: C().x), (lambda: C(1)), (lambda: C() == 5):
                try:
                    call()
                except RecursionError as error:
                    print(error)
            depths.append(0)
            try:
                depth(0)
            except RecursionError:
                print(depths[-1])
        check(f, g, h, depth)
        """
    )


def test_recovering_from_recursion_near_the_limit(compare):
    compare(
        """
        def down(n):
            try:
                return down(n + 1)
            except RecursionError:
                return n
        def exact(n): return 0 if n == 0 else 1 + exact(n - 1)
        def cleanup(n, log):
            try:
                cleanup(n + 1, log)
            finally:
                log.append(n)
        print(down(0), down(0))
        limit = sys.getrecursionlimit()
        print(exact(limit - 20))
        for extra in range(8):
            try:
                exact(limit - 5 + extra)
                print("fits", extra)
            except RecursionError as error:
                frames, tb = 0, error.__traceback__
                while tb: frames, tb = frames + 1, tb.tb_next
                print("raises", extra, frames)
        log = []
        try:
            cleanup(0, log)
        except RecursionError:
            print(len(log), log[:2], log[-2:])
        sys.setrecursionlimit(150)
        try:
            exact(200)
        except RecursionError as error:
            print(error)
        sys.setrecursionlimit(4000)
        print(exact(3900), exact(50))
        check(down, exact, cleanup)
        """
    )


def test_recursion_through_c(compare):
    compare(
        """
        def by_map(n): return 0 if n == 0 else 1 + list(map(by_map, [n - 1]))[0]
        def by_sort(n): return 0 if n == 0 else 1 + sorted([n - 1], key=by_sort)[0] * 0 + by_sort(n - 1)
        def by_reduce(n): return functools.reduce(lambda total, x: total + x, [by_reduce(n - 1) if n else 0, 1])
        def by_partial(n): return 0 if n == 0 else functools.partial(by_partial, n - 1)()
        class Key:
            def __init__(self, n): self.n = n
            def __lt__(self, other): return (min(Key(self.n - 1), Key(other.n - 1)).n if self.n else 0) < other.n
        print(by_map(50), by_sort(10), by_reduce(30), by_partial(40), Key(5) < Key(7))
        for function in by_map, by_partial, by_reduce:
            try:
                function(10**6)
            except RecursionError as error:
                print(function.__name__, "RecursionError")
        print(sorted("banana", key=lambda c: (-ord(c), c)), max([3, 1], key=lambda x: -x), list(filter(lambda x: x % 2, range(6))))
        @functools.lru_cache
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
        print(fib(80), fib.cache_info())
        @functools.cmp_to_key
        def compare(a, b): return (a > b) - (a < b)
        print(sorted([3, 1, 2], key=compare))
        check(by_map, by_sort, by_reduce, by_partial)
        """
    )


def test_deep_recursion_with_a_high_limit(compare):
    compare(
        """
        sys.setrecursionlimit(20000)
        def exact(n): return 0 if n == 0 else 1 + exact(n - 1)
        print(exact(7000))
        check(exact)
        """
    )


# ------------------------------------------------------------------------------------------------------- observers

OBSERVED = """
def inner(x):
    y = x + 1
    if y > 3:
        try:
            raise ValueError(y)
        except ValueError:
            y = len(str(y))
    return y

class C:
    def method(self, n):
        return [inner(i) for i in range(n)]

def outer(n, switch):
    total = 0
    c = C()
    for i in range(n):
        total += inner(i)
        if i == switch:
            start()
        c.method(2)
        if i == switch + 2:
            stop()
    return total

def work():
    return outer(8, 100)

names = ("inner", "outer", "work", "method", "<lambda>")
base = work.__code__.co_firstlineno
events = []
results = [work(), work()]
check(inner, outer, work, C.method)
for switch in range(3):
    results.append(outer(8, switch))
    results.append(work())
check(inner, outer, work, C.method)
print(results)
print(len(events))
for event in events:
    print(event)
"""

OBSERVERS = {
    "settrace": """
        def trace(frame, event, arg):
            if frame.f_code.co_name in names:
                events.append((frame.f_code.co_name, event, frame.f_lineno - base, repr(arg)[:40] if event != "exception" else arg[0].__name__))
                return trace
        def start(): sys.settrace(trace)
        def stop(): sys.settrace(None)
        """,
    "settrace of the running frame": """
        def trace(frame, event, arg):
            if frame.f_code.co_name in names:
                events.append((frame.f_code.co_name, event, frame.f_lineno - base))
                return trace
        def start():
            sys.settrace(trace)
            sys._getframe(1).f_trace = trace
        def stop(): sys.settrace(None)
        """,
    "settrace with opcodes": """
        def trace(frame, event, arg):
            if frame.f_code.co_name in names:
                frame.f_trace_opcodes = True
                events.append((frame.f_code.co_name, event, frame.f_lineno and frame.f_lineno - base, frame.f_lasti))
                return trace
        def start(): sys.settrace(trace)
        def stop(): sys.settrace(None)
        """,
    "setprofile": """
        def profile(frame, event, arg):
            if frame.f_code.co_name in names:
                events.append((frame.f_code.co_name, event, frame.f_lineno - base, getattr(arg, "__name__", None) or repr(arg)))
        def start(): sys.setprofile(profile)
        def stop(): sys.setprofile(None)
        """,
    "monitoring": """
        E = sys.monitoring.events
        tool = 4
        kinds = ["PY_START", "PY_RETURN", "LINE", "CALL", "C_RETURN", "RAISE", "EXCEPTION_HANDLED", "PY_UNWIND", "RERAISE", "BRANCH_LEFT", "BRANCH_RIGHT", "JUMP"]
        def start():
            sys.monitoring.use_tool_id(tool, "test")
            for kind in kinds:
                def callback(code, *args, kind=kind):
                    if code.co_name in names:
                        events.append((kind, code.co_name, [a if isinstance(a, int) else getattr(a, "__name__", None) or type(a).__name__ for a in args]))
                sys.monitoring.register_callback(tool, getattr(E, kind), callback)
            sys.monitoring.set_events(tool, functools.reduce(lambda a, b: a | b, (getattr(E, kind) for kind in kinds if kind != "C_RETURN")))
        def stop():
            sys.monitoring.set_events(tool, 0)
            for kind in kinds:
                sys.monitoring.register_callback(tool, getattr(E, kind), None)
            sys.monitoring.free_tool_id(tool)
        """,
}


@pytest.mark.parametrize("observer", OBSERVERS)
def test_observers_switched_on_in_mid_run(compare, observer):
    lines = compare(textwrap.dedent(OBSERVERS[observer]) + OBSERVED)
    assert int(lines[1]) > 30


def test_a_trace_function_moves_a_line(compare):
    compare(
        """
        def f(n):
            out = []
            for i in range(n):
                out.append("a")
                out.append("b")
                out.append("c")
            return out
        base = f.__code__.co_firstlineno
        def trace(frame, event, arg):
            if frame.f_code is f.__code__:
                if event == "line" and frame.f_lineno == base + 4:
                    frame.f_lineno = base + 5
                return trace
        print(f(2))
        check(f)
        sys.settrace(trace)
        print(f(2))
        sys.settrace(None)
        print(f(1))
        """
    )


def test_programs_are_parsed_as_meant():
    # Those above are dedented and joined: a slip would make them print too little, not fail.
    for observer in OBSERVERS.values():
        ast.parse(textwrap.dedent(observer) + OBSERVED)
