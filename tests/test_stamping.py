"""When code is stamped: found by sampling or by its callers, counted, and entered in the middle of its loops from the interpreter.

Most tests count from the first call (HOTSTAMP_STAMP=N), since that is the same in every run; those of the sampler wait until it has found what they run.
"""

import pytest

COUNTED = {"HOTSTAMP_STAMP": "4"}
FOUND = {"HOTSTAMP_STAMP": ""}


@pytest.fixture
def same(run_python):
    """same(program, **variables): it prints the same interpreted and with its loops entered in the middle; the lines. `entered` in it says how many frames went on in baseline code so far."""

    def run(program, tier="baseline", **variables):
        head = "import sys, hotstamp\ncompiled_run = hotstamp.is_enabled()\ndef entered(): return hotstamp.stats()['resumed'] if compiled_run else 10**9\n"
        outcomes = []
        for tier_now in None, tier:
            done = run_python("-c", head + program, tier=tier_now, env={**COUNTED, **variables})
            assert done.returncode == 0, (tier_now, done.stdout[-2000:], done.stderr[-3000:])
            outcomes.append((done.stdout, done.stderr))
        assert outcomes[0] == outcomes[1]
        assert outcomes[0][0]
        return outcomes[0][0].splitlines()

    return run


def test_one_call_goes_on_compiled(same):
    assert same("""
def loop(n):
    total = 0
    for number in range(n):
        total += number
    return total
before = entered()
print(loop(1000))
if compiled_run:
    assert entered() == before + 1 and hotstamp.is_compiled(loop)
print(loop(10))
""") == ["499500", "45"]


def test_short_loops_stay_interpreted(run_snippet):
    assert run_snippet(
        """
        import hotstamp
        def loop(n):
            for number in range(n): pass
        loop(5)
        print(hotstamp.is_compiled(loop))
        loop(50)
        print(hotstamp.is_compiled(loop))
        """,
        env=COUNTED,
    ).split() == ["False", "True"]


def test_calls_count(run_snippet):
    assert run_snippet(
        """
        import hotstamp
        def straight(): return 1
        seen = []
        for _ in range(6):
            straight(); seen.append(hotstamp.is_compiled(straight))
        print(*seen)
        """,
        env=COUNTED,
    ).split() == ["False", "False", "False", "True", "True", "True"]


def test_ways_out_of_an_entered_loop(same):
    """The caller is the interpreter's frame beneath, an interpreted caller, or compiled code; the loop returns or raises; a handler takes it in the frame, in the caller, or nobody."""
    same("""
import traceback
def loop(n, at=None):
    for i in range(n):
        if i == at: raise ValueError(i)
    return i
def caught(n, at):
    total = 0
    for i in range(n):
        try:
            if i == at: raise ValueError(i)
            total += i
        except ValueError as error:
            total += 1000
        finally:
            total += 1
    return total
def through(function, *arguments):
    try:
        return function(*arguments)
    except ValueError:
        return traceback.format_exc()
before = entered()
print(loop(100))
print(through(loop, 100, 70))
exec("def loop2(n, at=None):\\n  i = 0\\n  while True:\\n    i += 1\\n    if i == at: raise ValueError(i)\\n    if i == n: return i")
print(list(map(loop2, [100])), through(loop2, 100, 99))
print(caught(100, 50))
if compiled_run: assert entered() > before + 2
""")


def test_uncaught_from_an_entered_loop(run_python):
    program = "def loop():\n    for i in range(100):\n        if i == 90: raise KeyError(i)\nloop()"
    plain, ours = (run_python("-c", program, tier=tier, env=COUNTED) for tier in (None, "baseline"))
    assert (plain.returncode, plain.stderr) == (ours.returncode, ours.stderr) == (1, plain.stderr)


def test_frames_and_locals_of_an_entered_loop(same):
    same("""
import gc, sys
def loop(n):
    frame = sys._getframe()
    box = [n]
    for i in range(n):
        if i == n - 1:
            here = sys._getframe()
            print(here is frame, sorted(frame.f_locals), frame.f_locals["i"], frame.f_lineno, sys.getrefcount(box))
            frame.f_locals["box"] = "set"
            print(frame.f_back.f_lineno, box)
    del here, frame
loop(200)
print(gc.collect())
""")


def test_outer_frames_and_threads_go_on_too(same):
    """Frames of the same code that the interpreter runs already enter it at their own next back edge."""
    same("""
import threading
def recurse(depth):
    total = 0
    for i in range(60):
        if i == 2 and depth:
            total += recurse(depth - 1)
        total += i
    return total
before = entered()
print(recurse(3))
if compiled_run: assert entered() >= before + 2, entered() - before
gate = threading.Barrier(3)
def work(out):
    gate.wait()
    for i in range(300_000): pass
    out.append(i)
out = []
before = entered()
threads = [threading.Thread(target=work, args=(out,)) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(out)
if compiled_run: assert entered() >= before + 3, entered() - before
""")


def test_nested_loops_comprehensions_and_long_jumps(same):
    body = "\n".join(f"        x{n} = i + {n}" for n in range(200))
    same(f"""
def wide(n):
    for i in range(n):
{body}
    return x199
def nested(n):
    out = []
    for i in range(n):
        out.append([j * i for j in range(3) if j])
        while len(out) > 50: out.pop(0)
    return out[-1], len(out)
before = entered()
print(wide(100), nested(100))
if compiled_run: assert entered() >= before + 2
print({{k: v for k in range(3) for v in range(70)}})
""")


def test_code_object_shows_its_jumps(same):
    same("""
import dis, marshal
def loop(n):
    for i in range(n):
        if i % 2: continue
def bytecode(function):
    return [(i.opname, i.arg) for i in dis.get_instructions(function)]
code, was, hashed, same = loop.__code__.co_code, bytecode(loop), hash(loop.__code__), loop.__code__.replace()
loop(3)
print(loop.__code__.co_code == code, bytecode(loop) == was, hash(loop.__code__) == hashed, loop.__code__ == same, marshal.dumps(loop.__code__.co_code) == marshal.dumps(code))
print("ENTER_EXECUTOR" in [i.opname for i in dis.get_instructions(loop, adaptive=True)])
loop(100)
print(loop.__code__.co_code == code, bytecode(loop) == was)
""")


def test_observers_in_the_middle(same):
    """Tracing takes the executors out in the middle of a loop that counts, and of one that was entered."""
    same("""
import sys
def loop(n, start, stop):
    for i in range(n):
        if i == start: sys.settrace(trace); sys._getframe().f_trace = trace
        if i == stop: sys.settrace(None)
events = []
def trace(frame, event, argument):
    events.append((event, frame.f_lineno - frame.f_code.co_firstlineno))
    return trace
loop(20, 2, 4)
print(len(events), events[:6])
loop(200, 150, 153)
print(len(events), events[-6:])
loop(200, -1, -1)
print(len(events))
""")


def test_code_dies_in_its_loop(same):
    """The frame holds the last reference to the code, whose executor was just used."""
    same("""
import weakref
for n in range(50):
    scope = {}
    exec("def loop():\\n  del globals()['loop']\\n  for i in range(100): pass\\n  return i", scope)
    code = weakref.ref(scope["loop"].__code__)
    print(scope["loop"](), code() is None)
""")


def test_opted_out_code_is_left_alone(run_snippet):
    assert run_snippet(
        """
        import hotstamp
        def loop(n):
            for i in range(n): pass
        loop(3)
        hotstamp.opt_out(loop)
        loop(1000)
        print(hotstamp.is_compiled(loop))
        """,
        env=COUNTED,
    ).split() == ["False"]


def test_the_jit_keeps_its_loops(run_python):
    """Where CPython's own JIT is on, code that loops is stamped at once and nothing is replaced."""
    program = "import dis, hotstamp\ndef loop(n):\n  for i in range(n): pass\nloop(3)\nprint(hotstamp.is_compiled(loop), [i.opname for i in dis.get_instructions(loop, adaptive=True)].count('ENTER_EXECUTOR'))"
    done = run_python("-c", program, tier="baseline", env={**COUNTED, "PYTHON_JIT": "1"})
    assert done.stdout.split() == ["True", "0"], done.stderr


def test_sampler_finds_what_is_hot(run_snippet):
    """A loop that is called once, its callee, and functions that only recursion runs."""
    assert run_snippet(
        """
        import hotstamp, time
        def leaf(x): return x + 1
        def loop():
            end = time.monotonic() + 60
            while not (hotstamp.is_compiled(loop) and hotstamp.is_compiled(leaf)):
                for i in range(1000): leaf(i)
                assert time.monotonic() < end
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
        def never(): pass
        loop()
        for _ in range(1000):
            fib(15)
            if hotstamp.is_compiled(fib): break
        print(hotstamp.is_compiled(loop), hotstamp.is_compiled(leaf), hotstamp.is_compiled(fib), hotstamp.is_compiled(never))
        """,
        env=FOUND,
    ).split() == ["True", "True", "True", "False"]


def test_sampler_finds_new_closures_and_generators(run_snippet):
    assert run_snippet(
        """
        import hotstamp, time
        def make():
            def closure(x): return x * 2
            return closure
        def numbers(n):
            for i in range(n): yield i
        end = time.monotonic() + 60
        def work():
            while time.monotonic() < end:
                closure = make()
                for i in numbers(500): closure(i)
                if hotstamp.is_compiled(closure) and hotstamp.is_compiled(numbers) and hotstamp.is_compiled(make): return True
        print(work())
        """,
        env=FOUND,
    ).split() == ["True"]


def test_sampler_finds_coroutines_that_await_each_other(run_snippet):
    """The interpreter runs them without asking, once it has the outermost: they are stamped when C code resumes that one the next time."""
    run_snippet(
        """
        import hotstamp, time
        async def fibonacci(n):
            if n <= 1:
                return n
            return await fibonacci(n - 1) + await fibonacci(n - 2)
        def run(n):
            try:
                fibonacci(n).send(None)
            except StopIteration as stop:
                return stop.value
        end = time.monotonic() + 60
        while not hotstamp.is_compiled(fibonacci):
            assert time.monotonic() < end and run(16) == 987
        before = hotstamp.resumptions(fibonacci)
        assert run(16) == 987
        assert hotstamp.resumptions(fibonacci) > before
        """,
        env=FOUND,
    )


def test_sampler_and_forks(run_python):
    """A fork is not warned of, and both processes go on finding."""
    program = """
import os, time, warnings, hotstamp
warnings.simplefilter("error")
def busy(function):
    end = time.monotonic() + 60
    while not hotstamp.is_compiled(function):
        for i in range(1000): function(i)
        assert time.monotonic() < end
def before(x): return x
def behind(x): return x
busy(before)
pid = os.fork()
busy(behind)
if pid:
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), hotstamp.is_compiled(behind))
"""
    done = run_python("-c", program, tier="baseline", env=FOUND)
    assert (done.stdout.split(), done.stderr, done.returncode) == (["0", "True"], "", 0)


def test_child_of_a_fork_by_a_thread_ends_with_it(run_python):
    """Its thread is its last one then, if there is none of ours: the child that had one never ended."""
    program = """
import os, threading, time, warnings
warnings.simplefilter("ignore")
def work():
    pid = os.fork()
    if pid:
        end = time.monotonic() + 60
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            assert time.monotonic() < end, os.kill(pid, 9)
            time.sleep(0.01)
        print("ended")
    else:
        end = time.monotonic() + 0.05
        while time.monotonic() < end: pass
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    done = run_python("-c", program, tier="auto", env=FOUND)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("tier", ["baseline", "auto"])
def test_sampler_ends_with_the_interpreter(run_python, tier, emptied):
    """Pending calls need a main interpreter: a question behind its end crashed one of 300 programs. Threads are counted when it is gone."""
    program = """
import atexit, ctypes, os
assert len(os.listdir('/proc/self/task')) == 2
libc = ctypes.CDLL(None)
libc.strdup.restype = ctypes.c_void_p
command = b"ls /proc/%d/task | wc -l" % os.getpid()
libc.__cxa_atexit(libc.system, ctypes.c_void_p(libc.strdup(command)), None)
"""
    done = run_python("-c", program + "atexit._clear()" * emptied, tier=tier, env=FOUND)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_sampler_leaves_a_waiting_program_alone(run_snippet):
    """Asleep, it costs no time."""
    used = float(
        run_snippet(
            """
            import time
            time.sleep(0.2)
            before = time.process_time()
            time.sleep(2)
            print(time.process_time() - before)
            """,
            env=FOUND,
        )
    )
    assert used < 0.02


# A minute and a half under emulation, for code that is the same on both architectures.
@pytest.mark.native_only
def test_optimized_loops_are_not_left_for_questions(run_snippet):
    """The sampler goes on asking while a long loop runs in optimized code, which puts the questions off."""
    events, finished = map(
        int,
        run_snippet(
            """
            import hotstamp, time
            def loop(n):
                total = 0
                for i in range(n):
                    total += i & 7
                return total
            end = time.monotonic() + 60
            while not hotstamp.optimizations(loop) and time.monotonic() < end:
                loop(100_000)
            before = hotstamp.stats()["optimizer"]["exits"]["events"]
            end = time.monotonic() + 2
            while time.monotonic() < end:
                loop(1_000_000)
            print(hotstamp.stats()["optimizer"]["exits"]["events"] - before, int(bool(hotstamp.optimizations(loop))))
            """,
            tier="auto",
            env=FOUND,
        ).split(),
    )
    assert finished and events <= 3
