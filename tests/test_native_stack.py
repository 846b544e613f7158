"""Recursion deeper than the native stack: calls of compiled code go to further segments of stack, and programs see what the interpreter shows. C recursion still ends where its stack does."""

import textwrap

import pytest

HEAD = """
import sys, threading, time
compiled_run = {compiled}
sys.setrecursionlimit(10**6)
if compiled_run:
    # Not from the start: the optimizer tier, forced, would compile all that Python does there.
    import collections, copy, functools, json, re, signal
    import hotstamp
    hotstamp.enable()
def check(*functions):
    for function in functions:
        assert not compiled_run or hotstamp.is_compiled(function), function
def counts():
    stats = hotstamp.stats()
    return stats["stack_switches"], stats["stack_segments_made"], stats["stack_segments_freed"], stats["exits"]["native_stack_low"]
def switched(call, *arguments):
    "Calls; compiled, it must have left the thread's own stack, and never have run in the interpreter for want of stack."
    before = counts() if compiled_run else None
    try:
        return call(*arguments)
    finally:
        after = counts() if compiled_run else None
        assert before is None or after[0] > before[0] and after[3] == before[3], (before, after)
def in_thread(kib, call):
    threading.stack_size(kib << 10)
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    threading.stack_size(0)
def levels(error):
    count, tb = 0, error.__traceback__
    while tb: count, tb = count + 1, tb.tb_next
    return count
"""


@pytest.fixture(params=["baseline", "optimizer"])
def same(request, run_python):
    """same(program): prints the same interpreted and compiled; gives the lines."""

    def run(program, **options):
        outcomes = []
        for tier in None, request.param:
            text = HEAD.format(compiled=tier is not None) + textwrap.dedent(program)
            done = run_python("-c", text, tier=tier, env={"HOTSTAMP": ""}, **options)
            assert done.returncode == 0, f"{tier}: exit status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            outcomes.append(done.stdout)
        assert outcomes[1] == outcomes[0]
        assert outcomes[0]
        return outcomes[0].splitlines()

    return run


# Ways for one function to call itself, warmed up on a few levels.
CALLS = """
def plain(n):
    return 0 if n == 0 else 1 + plain(n - 1)
def default(n, step=1):
    return 0 if n == 0 else step + default(n - 1)
def keyword(n, *, step=1):
    return 0 if n == 0 else step + keyword(n - 1, step=step)
def unpacked(n):
    return 0 if n == 0 else 1 + unpacked(*[n - 1])
def unpacked_keywords(n=0):
    return 0 if n == 0 else 1 + unpacked_keywords(**{"n": n - 1})
def even(n):
    return 0 if n == 0 else 1 + odd(n - 1)
def odd(n):
    return 0 if n == 0 else 1 + even(n - 1)
class Walker:
    def method(self, n):
        return 0 if n == 0 else 1 + self.method(n - 1)
    def bound(self, n):
        again = self.bound
        return 0 if n == 0 else 1 + again(n - 1)
    @classmethod
    def of_class(cls, n):
        return 0 if n == 0 else 1 + cls.of_class(n - 1)
def closure():
    def inner(n):
        return 0 if n == 0 else 1 + inner(n - 1)
    return inner
def made(n):
    depth = 0
    def local():
        return 0 if n == 0 else 1 + made(n - 1)
    return local()
def caught(n):
    try:
        return 0 if n == 0 else 1 + caught(n - 1)
    finally:
        n = 0
inner = closure()
walker = Walker()
every = [plain, default, keyword, unpacked, unpacked_keywords, even, odd, walker.method, walker.bound, Walker.of_class, inner, made, caught]
for function in every:
    for _ in range(3): function(10)
check(plain, default, keyword, unpacked, unpacked_keywords, even, odd, Walker.method, Walker.bound, Walker.of_class.__func__, inner, made, caught)
"""


def test_half_a_million_levels(same):
    assert (
        same(
            CALLS
            + """
def run(depth):
    print(switched(plain, 500_000))
    for function in every:
        print(function.__name__, switched(function, depth))
run(400_000)
in_thread(256, lambda: run(10_000))
"""
        )[0]
        == "500000"
    )


def test_constructors(same):
    # Not half a million: the interpreter's own deallocator of such a chain is the slow part.
    same(
        """
        class Node:
            def __init__(self, n):
                self.next = Node(n - 1) if n else None
                self.n = n
        def length(node):
            count = 0
            while node: node, count = node.next, count + 1
            return count
        Node(5), Node(5)
        print(length(switched(Node, 200_000)))
        check(Node.__init__)
        """
    )


def test_the_limit_and_the_traceback(same):
    same(
        """
        import collections
        def ends(error):
            first, last, tb = [], collections.deque(maxlen=9), error.__traceback__
            while tb:
                line = tb.tb_frame.f_code.co_name, tb.tb_lineno, tb.tb_lasti
                if len(first) < 9: first.append(line)
                last.append(line)
                tb = tb.tb_next
            return first, list(last)
        def down(n):
            if n % 2:
                return down(n + 1)
            return (
                1 + down(n + 1)
            )
        def leaf():
            raise KeyError("leaf")
        def raising(n):
            return leaf() if n == 0 else raising(n - 1)
        for _ in range(3):
            try: raising(3)
            except KeyError: pass
        def run(depth):
            for limit in depth, depth + 1:
                sys.setrecursionlimit(limit)
                try:
                    switched(down, 0)
                except RecursionError as error:
                    print(error, levels(error))
                    print(*ends(error))
            sys.setrecursionlimit(10**6)
            try:
                switched(raising, depth)
            except KeyError as error:
                print(error, levels(error), *ends(error))
        try: down(0)
        except RecursionError: pass
        run(200_000)
        in_thread(256, lambda: run(20_000))
        check(down, raising, leaf)
        """
    )


def test_exceptions_caught_on_all_levels(same):
    same(
        """
        def tidy(n, log):
            try:
                if n == 0: raise ValueError(n)
                tidy(n - 1, log)
            except ValueError as error:
                log[0] += 1
                if n % 1000 == 0: raise ValueError(n) from None
                raise
            finally:
                log[1] += 1
        def counted(n):
            try:
                return counted(n + 1)
            except RecursionError:
                return n
        for _ in range(3):
            try: tidy(5, [0, 0])
            except ValueError: pass
        def run():
            log = [0, 0]
            try:
                switched(tidy, 200_000, log)
            except ValueError as error:
                print(error, log, error.__context__, levels(error))
            sys.setrecursionlimit(200_000)
            print(switched(counted, 0))
            print(switched(counted, 0))
            sys.setrecursionlimit(10**6)
        run()
        in_thread(256, run)
        check(tidy, counted)
        """
    )


def test_generators_and_coroutines(same):
    same(
        """
        def delegating(n):
            if n: yield from delegating(n - 1)
            else: raise KeyError("bottom")
            yield n
        def looping(n):
            if n:
                for x in looping(n - 1): yield x
            yield n
        async def awaiting(n):
            return 0 if n == 0 else 1 + await awaiting(n - 1)
        def to_the_end(coroutine):
            try: coroutine.send(None)
            except StopIteration as stop: return stop.value
        def first(generator):
            for x in generator: return x
        def raised(n):
            try: first(delegating(n))
            except KeyError as error: return str(error), levels(error)
        def run():
            print(switched(raised, 300_000))
            print(switched(first, looping(300_000)))
            print(switched(to_the_end, awaiting(300_000)))
        for _ in range(3): raised(5), list(looping(5)), to_the_end(awaiting(5))
        run()
        in_thread(256, run)
        # Small steps of a deep chain, each over the boundary.
        def sums(): print(switched(lambda: sum(looping(4000))))
        in_thread(256, sums)
        check(delegating, looping, awaiting, first)
        """
    )


def test_c_recursion_still_raises(same):
    same(
        """
        import copy, functools, json
        class Repr:
            def __repr__(self): return repr(self)
        class Getattr:
            def __getattr__(self, name): return getattr(self, name + "x")
        class Missing:
            def __getattr__(self, name): return self.missing
        class Equal:
            def __init__(self): self.other = self
            def __eq__(self, other): return self.other == other.other
        class Next:
            def __iter__(self): return self
            def __next__(self): return next(self)
        class Called:
            def __call__(self): return self()
        class Length:
            def __len__(self): return length(self)
        def length(it): return len(it)
        class Copied:
            def __deepcopy__(self, memo): return copy.deepcopy(self, memo)
        def by_map(n): return list(map(by_map, [n]))
        def by_sort(n): return sorted([n], key=by_key)
        def by_key(n): return by_sort(n + 1)
        def nested(n):
            value = []
            for _ in range(n): value = [value]
            return value
        deep = nested(100_000)
        calls = [
            lambda: repr(Repr()), lambda: Getattr().x, lambda: Missing().x, lambda: Equal() == Equal(), lambda: next(Next()), lambda: Called()(),
            lambda: by_map(1), lambda: by_sort(1), lambda: json.dumps(deep), lambda: repr(deep),
            # Through both C and compiled calls: ends at the limit at the latest.
            lambda: len(Length()), lambda: copy.deepcopy(Copied()),
        ]
        def run():
            for number, call in enumerate(calls):
                if number == 10: sys.setrecursionlimit(20_000)
                try:
                    call()
                    print("returned")
                except RecursionError:
                    print("RecursionError")
            sys.setrecursionlimit(10**6)
        run()
        in_thread(256, run)
        check(by_map, by_key, length, Repr.__repr__)
        """
    )


def test_c_recursion_does_not_switch(run_snippet):
    out = run_snippet(
        """
        import sys, threading, hotstamp
        sys.setrecursionlimit(10**6)
        class Repr:
            def __repr__(self): return repr(self)
        def by_map(n): return list(map(by_map, [n]))
        def run():
            for call in (lambda: repr(Repr())), (lambda: by_map(1)):
                before = hotstamp.stats()["stack_switches"]
                try:
                    call()
                except RecursionError as error:
                    print(str(error)[:14], hotstamp.stats()["stack_switches"] - before)
        run()
        assert hotstamp.is_compiled(by_map)
        """
    )
    assert out == "Stack overflow 0\n" * 2


def test_c_frames_get_no_more_than_one_stack(run_snippet):
    # Each level takes several KiB of C's: segments do not go on for ever.
    out = run_snippet(
        """
        import sys, hotstamp
        sys.setrecursionlimit(10**6)
        def a(n): return sorted([n], key=b)
        def b(n): return c(n + 1)
        def c(n): return max([n], key=d)
        def d(n): return min(a(n))
        for _ in range(2):
            try:
                a(1)
            except RecursionError as error:
                print(str(error)[:14])
        assert hotstamp.is_compiled(d)
        assert hotstamp.stats()["stack_switches"] < 20, hotstamp.stats()
        """
    )
    assert out == "Stack overflow\n" * 2


def test_c_calls_at_the_boundary_have_room(same):
    # On each level something that wants native stack of its own, wherever the boundary is.
    same(
        """
        import re, json
        value = []
        for _ in range(30): value = [value]
        def down(n):
            if n == 0: return 0
            if len(repr(value)) != 62 or json.loads(json.dumps(value)) != value or sorted([2, 1], key=lambda x: -x)[0] != 2: return -1
            return 1 + down(n - 1)
        down(10), down(10)
        def run(): print(switched(down, 4000))
        in_thread(256, run)
        check(down)
        """
    )


def test_a_loop_at_the_boundary_maps_once(run_snippet):
    out = run_snippet(
        """
        import hotstamp, sys, threading
        sys.setrecursionlimit(10**6)
        def counts():
            stats = hotstamp.stats()
            return stats["stack_switches"], stats["stack_segments_made"]
        def leaf(n): return n
        def loop(n):
            total = 0
            for i in range(n): total += leaf(i)
            return total
        def down(n):
            return loop(50) if n == 0 else down(n - 1)
        loop(10), down(3)
        def run():
            # One of all depths ends in front of the boundary: each call of its loop switches.
            made, most = counts()[1], 0
            for n in range(4000):
                before = counts()[0]
                down(n)
                most = max(most, counts()[0] - before)
            print(most, counts()[1] - made)
        threading.stack_size(256 << 10)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert hotstamp.is_compiled(leaf) and hotstamp.is_compiled(loop)
        """
    )
    assert out == "50 1\n"


def test_segments_go_with_their_thread(run_snippet):
    out = run_snippet(
        """
        import hotstamp, sys, threading, time
        sys.setrecursionlimit(10**6)
        def down(n): return 0 if n == 0 else 1 + down(n - 1)
        down(10)
        def live():
            stats = hotstamp.stats()
            return stats["stack_segments_made"] - stats["stack_segments_freed"]
        def mapped():
            with open("/proc/self/maps") as file: return sum(1 for _ in file)
        threading.stack_size(256 << 10)
        def run(results):
            results.append(down(300_000))
            barrier.wait()
            barrier.wait()
        results = []
        for turn in range(3):
            barrier = threading.Barrier(5)
            threads = [threading.Thread(target=run, args=(results,)) for _ in range(4)]
            for thread in threads: thread.start()
            barrier.wait()
            kept = live()
            barrier.wait()
            for thread in threads: thread.join()
            # A thread is joined a moment before the system ends it.
            for _ in range(500):
                if live() == 0: break
                time.sleep(0.01)
            print(kept, live())
        print(results == [300_000] * 12, hotstamp.stats()["stack_segments_made"] > 12)
        """
    )
    # Each thread keeps one for the next time.
    assert out == "4 0\n" * 3 + "True True\n"


def test_fork_on_a_segment(same):
    same(
        """
        import os, warnings
        warnings.simplefilter("ignore")
        def forks(n):
            if n: return forks(n - 1)
            pid = os.fork()
            return pid
        def down(n): return 0 if n == 0 else 1 + down(n - 1)
        def waits(n):
            pid = forks(n)
            if pid == 0:
                # Back on the first stack, and down again.
                code = 7 if switched(down, 300_000) == 300_000 else 8
                os._exit(code)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        down(5), waits(5)
        print(switched(waits, 300_000), switched(down, 300_000))
        check(forks, down)
        """
    )


def test_who_looks_sees_all_frames(same):
    same(
        """
        import gc, signal, traceback
        class Gone:
            def __del__(self): gone.append(sys._getframe(1).f_code.co_name)
        gone = []
        def bottom():
            frame, count = sys._getframe(), 0
            while frame: frame, count = frame.f_back, count + 1
            gc.collect()
            signal.raise_signal(signal.SIGUSR1)
            cycle = [Gone()]
            return count, len(sys._current_frames())
        def handler(number, frame): gone.append((number, frame.f_code.co_name))
        signal.signal(signal.SIGUSR1, handler)
        def down(n, *, by=1): return bottom() if n == 0 else down(n - by, by=by)
        down(3)
        gone.clear()
        print(switched(down, 30_000), gone)
        check(down, bottom)
        """
    )


def test_tracing_begins_and_ends_on_a_segment(same):
    same(
        """
        events = []
        def tracer(frame, event, argument):
            events.append((event, frame.f_lineno - down.__code__.co_firstlineno, frame.f_locals.get("n")))
            return tracer
        def down(n):
            if n == 0:
                sys.settrace(tracer)
                return leaf(1)
            result = down(n - 1)
            if n == 5:
                sys.settrace(None)
            return result + 1
        def leaf(x):
            y = x
            return y
        down(1), sys.settrace(None), events.clear()
        print(switched(down, 250_000), events)
        """
    )


def test_other_threads_run_meanwhile(same):
    same(
        """
        def down(n): return 0 if n == 0 else 1 + down(n - 1)
        down(5)
        sys.setswitchinterval(1e-5)
        results = []
        def run():
            for _ in range(5): results.append(switched(down, 60_000))
        threading.stack_size(256 << 10)
        threads = [threading.Thread(target=run) for _ in range(6)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(results), set(results))
        check(down)
        """
    )


def test_programs_with_greenlets_stay_on_their_stack(run_snippet):
    # A module of that name: greenlets copy the stack between two addresses.
    out = run_snippet(
        """
        import sys, types, hotstamp
        sys.modules["greenlet"] = types.ModuleType("greenlet")
        sys.setrecursionlimit(10**6)
        def down(n): return 0 if n == 0 else 1 + down(n - 1)
        try:
            down(10), down(500_000)
        except RecursionError as error:
            print(str(error)[:14], hotstamp.stats()["stack_switches"])
        assert hotstamp.is_compiled(down)
        """
    )
    assert out == "Stack overflow 0\n"
