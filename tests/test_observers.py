"""Tracing, profiling, monitoring, debuggers and coverage: switched on in the middle of compiled code they see the interpreter's events."""

import ast
import textwrap

import pytest

# Switched on in the middle of compiled functions, seen by everything, and switched off again.
OBSERVERS = {
    "settrace": """
        def start():
            sys.settrace(lambda frame, event, arg: trace(frame, event, arg))
        def trace(frame, event, arg):
            if frame.f_code.co_filename == "<string>":
                events.append((event, frame.f_code.co_name, frame.f_lineno - base))
            return trace
        def stop():
            sys.settrace(None)
    """,
    "setprofile": """
        def start():
            sys.setprofile(profile)
        def profile(frame, event, arg):
            name = arg.__name__ if event.startswith("c_") else None
            events.append((event, frame.f_code.co_name, name))
        def stop():
            sys.setprofile(None)
    """,
    "monitoring": """
        E = sys.monitoring.events
        tool = 2
        ALL = (E.PY_START, E.PY_RETURN, E.LINE, E.CALL, E.C_RETURN, E.C_RAISE, E.RAISE, E.PY_UNWIND, E.JUMP)
        def start():
            sys.monitoring.use_tool_id(tool, "test")
            for event in ALL:
                def note(code, *rest, event=event):
                    if code.co_name in ("inner", "outer", "work"):
                        events.append((event, code.co_name, [r if isinstance(r, int) else getattr(r, "__name__", type(r).__name__) for r in rest]))
                sys.monitoring.register_callback(tool, event, note)
            sys.monitoring.set_events(tool, E.PY_START | E.PY_RETURN | E.LINE | E.CALL | E.RAISE | E.PY_UNWIND | E.JUMP)
        def stop():
            sys.monitoring.set_events(tool, 0)
            sys.monitoring.free_tool_id(tool)
    """,
    "local monitoring": """
        E = sys.monitoring.events
        tool = 1
        def start():
            sys.monitoring.use_tool_id(tool, "test")
            sys.monitoring.register_callback(tool, E.LINE, lambda code, line: events.append(("line", code.co_name, line - base)))
            for function in inner, outer:
                sys.monitoring.set_local_events(tool, function.__code__, E.LINE)
        def stop():
            for function in inner, outer:
                sys.monitoring.set_local_events(tool, function.__code__, 0)
            sys.monitoring.register_callback(tool, E.LINE, None)
            sys.monitoring.free_tool_id(tool)
    """,
    "events before callbacks": """
        E = sys.monitoring.events
        tool = 3
        def start():
            sys.monitoring.use_tool_id(tool, "test")
            sys.monitoring.set_events(tool, E.LINE)
            sys.monitoring.register_callback(tool, E.LINE, lambda code, line: code.co_name in ("inner", "outer", "work") and events.append((code.co_name, line - base)))
        def stop():
            sys.monitoring.register_callback(tool, E.LINE, None)
            sys.monitoring.set_events(tool, 0)
            sys.monitoring.free_tool_id(tool)
    """,
}

OBSERVERS["settrace from C"] = """
    import ctypes
    FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.py_object, ctypes.c_int, ctypes.c_void_p)
    NAMES = ["call", "exception", "line", "return", "c_call", "c_exception", "c_return", "opcode"]
    @FUNCTION
    def note(_, frame, event, arg):
        if frame.f_code.co_name in ("inner", "outer", "work"):
            events.append((NAMES[event], frame.f_code.co_name, frame.f_lineno - base))
        return 0
    set_trace = ctypes.pythonapi.PyEval_SetTrace
    set_trace.restype = None
    def start():
        set_trace(note, None)
    def stop():
        set_trace(None, None)
"""

OBSERVED = """
import sys, threading
base = sys._getframe().f_lineno
events = []
{observer}
def inner(x):
    y = x + 1
    if y > 3:
        try:
            raise ValueError(y)
        except ValueError:
            y = len(str(y))
    return y

def outer(n, switch):
    total = 0
    for i in range(n):
        total += inner(i)
        if i == switch:
            start()
        if i == switch + 2:
            stop()
    return total

def work():
    return outer(10, 100)

results = [work(), outer(10, 4), work(), outer(8, 1), work()]
{check}
print(results)
print(len(events), events)
"""

CHECK = """
import hotstamp
assert hotstamp.is_compiled(inner) and hotstamp.is_compiled(outer)
for i in range(200):
    (lambda: i)()
def later():
    return 1
assert later() == 1
assert hotstamp.is_compiled(later), "stamping goes on when nobody observes any more"
assert hotstamp.stats()["exits"]["tracing_enabled"] > 0
"""


@pytest.mark.parametrize("observer", OBSERVERS)
def test_observers_see_what_the_interpreter_shows(run_python, observer):
    text = textwrap.dedent(OBSERVERS[observer])
    expected = run_python("-c", OBSERVED.format(observer=text, check="\n" * CHECK.count("\n")))
    compiled = run_python("-c", OBSERVED.format(observer=text, check=CHECK), tier="baseline")
    assert expected.returncode == 0, expected.stderr
    assert compiled.returncode == 0, compiled.stderr
    wanted, got = ([ast.literal_eval(line.split(" ", 1)[-1] if i else line) for i, line in enumerate(done.stdout.splitlines())] for done in (expected, compiled))
    assert got[0] == wanted[0]
    assert got[1] == wanted[1]
    assert len(wanted[1]) >= 20


DEBUGGED = """
def inner(x):
    y = x + 1
    z = y * 2
    return z

def outer(n):
    total = 0
    for i in range(n):
        total += inner(i)
        if i == 2:
            breakpoint()
    return total

if HOTSTAMP:
    import hotstamp
    hotstamp.enable()
print(outer(2))
if HOTSTAMP:
    assert hotstamp.is_compiled(outer) and hotstamp.is_compiled(inner)
print(outer(6))
print(outer(2))
"""


def test_a_breakpoint_in_a_running_compiled_function(run_python, tmp_path):
    commands = ["n", "n", "n", "p i, total", "s", "s", "n", "p x, y", "w", "u", "p i", "r", "n", "b 3", "c", "p y", "c", "cl 1", "!total = 100", "n", "c"]
    outputs = []
    for ours in False, True:
        program = tmp_path / "program.py"
        program.write_text(DEBUGGED.replace("HOTSTAMP", str(ours)))
        done = run_python(program, input="\n".join(commands) + "\n", env={"HOTSTAMP_TIER": "baseline"})
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[1] == outputs[0]
    assert "(Pdb)" in outputs[0] and "-> z = y * 2" in outputs[0]


def test_other_threads_are_handed_over_too(run_snippet):
    run_snippet(
        """
        import sys, threading, hotstamp
        seen = set()
        running = threading.Event()
        stop = False

        def step(i):
            return i + 1

        def loop():
            i = 0
            while not stop:
                i = step(i)
                running.set()

        thread = threading.Thread(target=loop)
        thread.start()
        running.wait()
        assert hotstamp.is_compiled(step)
        def trace(frame, event, arg):
            seen.add(frame.f_code.co_name)
        threading.settrace_all_threads(trace)
        import time
        limit = time.monotonic() + 60
        while "step" not in seen and time.monotonic() < limit:
            time.sleep(0.01)
        threading.settrace_all_threads(None)
        stop = True
        thread.join()
        assert "step" in seen
        """
    )


def test_profiler_counts_the_interpreters_calls(run_snippet):
    code = """
        import cProfile, pstats, io
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        fib(5)
        profile = cProfile.Profile()
        profile.enable()
        fib(12)
        profile.disable()
        stats = pstats.Stats(profile).stats
        print(sorted((name, calls, primitive) for (_, _, name), (primitive, calls, *_) in stats.items()))
        fib(5)
        """
    expected = run_snippet(code, tier=None)
    assert "('fib', 465, 1)" in expected
    assert run_snippet(code) == expected


def test_foreign_evaluator_sees_every_call(run_snippet):
    pytest.importorskip("_testinternalcapi")
    code = """
        import _testinternalcapi
        def inner(x):
            return x
        def outer(n):
            return [inner(i) for i in range(n)]
        outer(3)
        names = []
        _testinternalcapi.set_eval_frame_record(names)
        outer(3)
        _testinternalcapi.set_eval_frame_default()
        outer(3)
        print(names)
        """
    expected = run_snippet(code, tier=None)
    assert expected.count("inner") == 3
    assert run_snippet(code) == expected


def test_foreign_evaluator_that_comes_while_compiled_code_runs(run_snippet):
    pytest.importorskip("_testinternalcapi")
    code = """
        import _testinternalcapi
        names = []
        class Made:
            def __init__(self, x):
                self.x = x
            def method(self):
                return self.x
        def inner(x):
            return x
        def switch(turn, on, off):
            if turn == on:
                _testinternalcapi.set_eval_frame_record(names)
            elif turn == off:
                _testinternalcapi.set_eval_frame_default()
        def outer(turns, on, off):
            made, total = Made(1), 0
            for turn in range(turns):
                total += inner(turn) + made.method() + Made(turn).x
                switch(turn, on, off)
            return total
        # Caches are filled first.
        outer(20, -1, -1)
        print(outer(20, 5, 8), names)
        names.clear()
        # From outside to inside, and while a frame of compiled code is below.
        def below():
            switch(0, 0, 1)
            result = inner(1), Made(2).method()
            switch(1, 0, 1)
            return result, inner(3)
        for turn in range(3):
            print(below(), names)
        import hotstamp
        assert not hotstamp.is_enabled() or all(map(hotstamp.is_compiled, (outer, below, inner, Made.__init__, Made.method)))
        """
    expected = run_snippet(code, tier=None)
    assert expected.splitlines()[0].count("inner") == 3
    assert run_snippet(code) == expected


def test_tracing_on_and_off_all_the_time_stays_correct(run_snippet):
    run_snippet(
        """
        import sys, hotstamp
        def f(x):
            return x + 1
        count = 0
        def trace(frame, event, arg):
            global count
            count += frame.f_code is f.__code__
        for i in range(200):
            assert f(i) == i + 1
            sys.settrace(trace)
            assert f(i) == i + 1
            sys.settrace(None)
        assert count == 200
        """
    )
