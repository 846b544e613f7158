"""The measured process: runs one benchmark and times it on request.

Runs under every Python that is compared (CPython 3.11 or later, PyPy), so it uses the standard library and
pyperf alone and imports nothing of the lab. It is started as

    python worker.py CONFIG

with CONFIG a JSON object: `script` (path), `arguments` (the script's own), `benchmark` (the name to select), `jit`
(`hotstamp`, `cinderx`, `cpython` or null), `prelude` (Python source run before the script is loaded), `once`
(measure a single iteration and leave), `once_more` (with `once`: iterations to run after it, untimed),
`late` (hotstamp is not on from the start but is enabled once the benchmark is loaded),
`sizes` (with `once`: report every compiled function), `count` (with `once`: run that many iterations, report no times).

pyperformance's scripts are executed unmodified: `pyperf.Runner` is replaced by a subclass whose `bench_*` methods
skip every benchmark but the selected one, and for that one serve requests from inside the call, where pyperf
itself would loop. A script without a pyperf runner must define `bench()`; one call of it is one iteration.

Requests and answers are JSON objects, one a line, over the process's original stdin and stdout; while the benchmark
runs, descriptors 0 and 1 are /dev/null. All times are nanoseconds; `clock` values are CLOCK_MONOTONIC, comparable
with the driver's.
"""

import json
import os
import runpy
import sys
import time

#: Shortest stretch of iterations recorded as one warm-up entry once the first few are taken singly.
WARMUP_ENTRY_NS = 1_000_000
#: The statistics that do not depend on the time, so that the instructions which print them do not either.
COUNTED = ("functions_stamped", "functions_optimized", "code_bytes")
#: Warm-up entries that are a single iteration however short.
SINGLE_ENTRIES = 24


class Finished(BaseException):
    """Unwinds the benchmark script when the driver has what it wants."""


class Channel:
    """Line-wise JSON over the descriptors the process was started with."""

    def __init__(self):
        self.requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
        self.answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)

    def send(self, message):
        self.answers.write(json.dumps(message) + "\n")
        self.answers.flush()

    def receive(self):
        line = self.requests.readline()
        if not line:
            raise Finished
        return json.loads(line)


class JitView:
    """What the compiler under test says of itself, through its public functions only."""

    def __init__(self, kind):
        self.kind = kind
        self.module = None
        self.at_start = {}
        self.compiled_at_start = frozenset()
        if kind == "hotstamp":
            import hotstamp

            self.module = hotstamp
        elif kind == "cinderx":
            import cinderx.jit

            self.module = cinderx.jit

    def enabled(self):
        """Whether the compiler is on in this process: a run with it silently off would measure the interpreter."""
        if self.kind in ("hotstamp", "cinderx"):
            return bool(self.module.is_enabled())
        if self.kind == "cpython":
            return bool(sys._jit.is_enabled())
        return True

    def enable(self):
        """Switch it on now; only hotstamp can do that."""
        self.module.enable()
        if not self.enabled():
            raise RuntimeError("hotstamp could not be enabled")

    def under_way(self):
        """Compilations that are asked for and not finished, where the compiler says."""
        if self.kind == "hotstamp":
            return self.module.stats().get("optimizer", {}).get("under_way", 0)
        return 0

    def leave_alone(self, function):
        """Keep a function interpreted, where one can."""
        if self.kind == "hotstamp":
            self.module.opt_out(function)

    def counters(self):
        """Functions compiled so far, by tier."""
        if self.kind == "hotstamp":
            stats = self.module.stats()
            return {k: v for k, v in stats.items() if k.startswith("functions") and isinstance(v, int)}
        if self.kind == "cinderx":
            return {"functions_compiled": len(self.module.get_compiled_functions())}
        return {}

    def statistics(self):
        """Everything the compiler counts, JSON-ready."""
        if self.kind == "hotstamp":
            return json.loads(json.dumps(self.module.stats(), default=str))
        if self.kind == "cinderx":
            functions = self.module.get_compiled_functions()
            return {
                "functions_compiled": len(functions),
                "code_bytes": sum(self.module.get_compiled_size(f) for f in functions),
                "compile_ns": int(self.module.get_compilation_time()) * 1_000_000,
            }
        return {}

    def size(self, function):
        """Bytes of machine code of `function` (hotstamp's: stamped code), 0 if it has none."""
        if self.kind == "hotstamp":
            return int(self.module.compiled_size(function) or 0)
        if self.kind == "cinderx":
            return int(self.module.get_compiled_size(function) or 0)
        return 0

    def optimized_size(self, function):
        """Bytes of optimized code of `function`; None where there is but one tier, or the build does not say."""
        if self.kind == "hotstamp" and hasattr(self.module, "optimized_size"):
            return int(self.module.optimized_size(function))
        return None

    def begin_sizes(self):
        """What is compiled from here on is the benchmark's; before it were Python's start-up and the worker."""
        self.at_start = self.statistics()
        self.compiled_at_start = frozenset(function.__code__ for function in all_functions() if self.size(function))

    def sizes(self):
        """Every function compiled since `begin_sizes`, largest first: name, bytes of machine code by tier, bytes of bytecode."""
        found = {}
        for function in all_functions():
            code = function.__code__
            if code in found or code in self.compiled_at_start or code.co_filename == __file__:
                continue
            size = self.size(function)
            if size > 0:
                name = "%s:%s" % (function.__module__, function.__qualname__)
                found[code] = {"function": name, "code_bytes": size, "optimized_bytes": self.optimized_size(function), "bytecode_bytes": len(code.co_code)}
        return sorted(found.values(), key=lambda entry: (-(entry["optimized_bytes"] or 0), -entry["code_bytes"]))


def all_functions():
    """Every function that lives."""
    import gc
    import types

    return (thing for thing in gc.get_objects() if type(thing) is types.FunctionType)


class Service:
    """Serves the driver's requests for one benchmark; `sample(loops)` returns the seconds that `loops` iterations took."""

    def __init__(self, channel, config, jit):
        self.channel = channel
        self.config = config
        self.jit = jit
        self.seen = []

    def serve(self, name, sample, inner_loops):
        if self.config.get("late"):
            self.jit.enable()
        ready = {"event": "ready", "name": name, "inner_loops": inner_loops or 1}
        if self.config.get("once"):
            ready.update(self.once(sample))
            self.channel.send(ready)
            raise Finished
        self.channel.send(ready)
        while True:
            request = self.channel.receive()
            answer = getattr(self, "do_" + request["do"])(sample, request)
            self.channel.send(answer)

    def once(self, sample):
        if self.config.get("count"):
            # Nothing here may depend on the time: even the digits of a printed number are instructions.
            self.jit.leave_alone(mark)
            for _ in range(self.config["count"]):
                mark()
                sample(1)
            mark()
            return {"statistics": {name: value for name, value in self.jit.statistics().items() if name in COUNTED}}
        seconds = sample(1)
        clock = time.monotonic_ns()
        if self.config.get("once_more"):
            sample(self.config["once_more"])
        found = {"first_ns": to_ns(seconds), "result_clock": clock, "statistics": self.jit.statistics()}
        if self.config.get("sizes"):
            found["functions"] = self.jit.sizes()
            found["statistics_at_start"] = self.jit.at_start
        return found

    def do_first(self, sample, request):
        """One iteration, the first of this process unless asked for again."""
        return {"ns": to_ns(sample(1)), "counters": self.jit.counters()}

    def do_warmup(self, sample, request):
        """Iterate for `ns` nanoseconds: entries of [loops, total ns], the counters before, [entry index, counters] when these change, and what is still being compiled."""
        entries, marks = [], []
        before = last = self.jit.counters()
        loops = 1
        end = time.perf_counter_ns() + request["ns"]
        while time.perf_counter_ns() < end or len(entries) < request["least"]:
            taken = to_ns(sample(loops))
            now = self.jit.counters()
            if now != last:
                marks.append([len(entries), now])
                last = now
            entries.append([loops, taken])
            if len(entries) >= SINGLE_ENTRIES and taken < WARMUP_ENTRY_NS:
                loops = max(loops + 1, int(loops * min(8.0, WARMUP_ENTRY_NS / max(taken, 1))))
        return {"entries": entries, "counters": before, "marks": marks, "under_way": self.jit.under_way()}

    def do_sample(self, sample, request):
        """One sample of `loops` iterations, total ns."""
        loops = request["loops"]
        return {"ns": to_ns(sample(loops)), "loops": loops}

    def do_report(self, sample, request):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "max_rss_kib": peak_memory_kib() or usage.ru_maxrss,
            "cpu_ns": int((usage.ru_utime + usage.ru_stime) * 1e9),
            "statistics": self.jit.statistics(),
        }

    def do_stop(self, sample, request):
        raise Finished


def mark():
    """Tell the counting emulator that an iteration begins or ends: it looks for this system call."""
    os.getsid(0)


def peak_memory_kib():
    """Peak resident memory since this program began; unlike ru_maxrss without that of the process it was forked from."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def to_ns(seconds):
    """Whole nanoseconds; a benchmark reports seconds as a float."""
    return int(round(seconds * 1e9))


def call_sampler(function):
    """A sampler that times calls of `function`, looped as pyperf loops them."""

    def sample(loops):
        timer = time.perf_counter
        if loops == 1:
            start = timer()
            function()
            return timer() - start
        span = range(loops)
        start = timer()
        for _ in span:
            function()
        return timer() - start

    return sample


def async_sampler(function, loop_factory):
    """A sampler for coroutine functions: a fresh event loop per sample, timed inside it, as pyperf does."""
    import asyncio

    def sample(loops):
        async def run():
            timer = time.perf_counter
            start = timer()
            for _ in range(loops):
                await function()
            return timer() - start

        loop = (loop_factory or asyncio.new_event_loop)()
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(run())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    return sample


def command_sampler(command):
    """A sampler for benchmarks that time a whole command."""
    import subprocess

    return call_sampler(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def install_runner(service, wanted):
    """Replace `pyperf.Runner`; returns the list that collects the names the script offers."""
    import functools

    import pyperf

    offered = []

    class LabRunner(pyperf.Runner):
        def _lab_bench(self, name, make, options):
            offered.append(name)
            if wanted is None or name == wanted:
                service.serve(name, make(), options.get("inner_loops"))

        def bench_time_func(self, name, time_func, *args, **options):
            self._lab_bench(name, lambda: lambda loops: time_func(loops, *args), options)

        def bench_func(self, name, func, *args, **options):
            self._lab_bench(name, lambda: call_sampler(functools.partial(func, *args) if args else func), options)

        def bench_async_func(self, name, func, *args, **options):
            bound = functools.partial(func, *args) if args else func
            self._lab_bench(name, lambda: async_sampler(bound, options.get("loop_factory")), options)

        def bench_command(self, name, command, **options):
            self._lab_bench(name, lambda: command_sampler(command), options)

        def timeit(self, name, *args, **options):
            raise NotImplementedError("benchmarks written with Runner.timeit are not supported")

    pyperf.Runner = LabRunner
    return offered


def run(channel, config):
    """Load the script and serve; returns only by raising `Finished` or an error."""
    if config.get("prelude"):
        exec(config["prelude"], {"__name__": "lab_prelude"})
    jit = JitView(config.get("jit"))
    if not config.get("late") and not jit.enabled():
        raise RuntimeError("%s is installed but not enabled in this process" % config["jit"])
    if config.get("sizes"):
        jit.begin_sizes()
    service = Service(channel, config, jit)
    script, wanted = config["script"], config.get("benchmark")
    sys.argv = [script] + config.get("arguments", [])
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    if config["kind"] == "bench":
        namespace = runpy.run_path(script, run_name="__bench__")
        if not callable(namespace.get("bench")):
            raise RuntimeError("%s defines no bench()" % script)
        service.serve(wanted, call_sampler(namespace["bench"]), namespace.get("INNER_LOOPS"))
    offered = install_runner(service, wanted)
    runpy.run_path(script, run_name="__main__")
    raise RuntimeError("%s offers no benchmark %r, only: %s" % (script, wanted, ", ".join(offered) or "none"))


def main():
    channel = Channel()
    try:
        run(channel, json.loads(sys.argv[1]))
    except Finished:
        return 0
    except BaseException as error:
        import traceback

        channel.send({"event": "failed", "error": "%s: %s" % (type(error).__name__, error), "trace": traceback.format_exc()})
        return 1


if __name__ == "__main__":
    sys.exit(main())
