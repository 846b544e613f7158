"""The project's main job as a table: three unmodified programs, interpreted against stamped.

Run by ``ci/demo``. Each benchmark of pyperformance's wheel runs in fresh processes, interpreter and hotstamp in turn, so
that a drifting machine is as unfair to one as to the other. A worker loads the benchmark's script as it is, runs its
function once (the *first* iteration), some more times to compare what it computed, and then for a while (*warm*: the
median of the second half). It is a demonstration; ``perf/warm.py`` and ``perf/cold.py`` measure with intervals.

The exit status is 1 if a worker died, a result differed, or hotstamp stamped nothing.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

BENCHMARKS = ("richards", "deltablue", "nbody")

# What each side of the comparison adds to the environment.
MODES = {
    "interpreter": {"HOTSTAMP": "0"},
    "hotstamp": {"HOTSTAMP": "1", "HOTSTAMP_TIER": "baseline"},
}

# Iterations whose results are compared; their count is fixed, since a benchmark may go on from where it was.
COMPARED_ITERATIONS = 3

# A worker that takes longer than this beyond its time of measuring hangs.
WORKER_GRACE_SECONDS = 600


# ---------------------------------------------------------------------------------------------- in a worker


def load_benchmark(name):
    """Run pyperformance's script of that name as a program; return its module and the function it would measure."""
    import pyperf
    import pyperformance

    script = Path(pyperformance.__file__).parent / "data-files" / "benchmarks" / f"bm_{name}" / "run_benchmark.py"
    found = []
    # The script hands its function to pyperf's runner, which would start processes of its own.
    pyperf.Runner.bench_func = lambda self, _name, function, *args: found.append((function, args))
    pyperf.Runner.bench_time_func = lambda self, _name, function, *args: found.append((function, (1, *args)))
    sys.argv = [str(script)]
    spec = importlib.util.spec_from_file_location("__main__", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules["__main__"] = module
    spec.loader.exec_module(module)
    (function, args), = found
    return module, lambda: function(*args)


def digest(module, returned, printed):
    """Return a hash of all that the benchmark computed: what it returned and printed, and every object that its
    globals lead to, by value and by shape."""
    out = hashlib.sha256()
    numbers = {}
    work = [vars(module), printed]
    # A float that a benchmark returns is the time it took.
    if not isinstance(returned, float):
        work.append(returned)
    while work:
        value = work.pop()
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            out.update(repr(value).encode())
            continue
        if isinstance(value, (type, types.FunctionType, types.ModuleType, types.BuiltinFunctionType)):
            out.update(getattr(value, "__name__", "").encode())
            continue
        seen = id(value) in numbers
        # The object is kept, so that no other one can take its address.
        number, _ = numbers.setdefault(id(value), (len(numbers), value))
        out.update(f"{type(value).__name__} {number}".encode())
        if seen:
            continue
        if isinstance(value, dict):
            names = [key for key in value if not (isinstance(key, str) and key.startswith("__"))]
            work.extend(part for key in names for part in (key, value[key]))
        elif isinstance(value, (list, tuple)):
            work.extend(value)
        else:
            work.append(getattr(value, "__dict__", None))
            slots = [name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())]
            work.extend(getattr(value, name, None) for name in slots)
    return out.hexdigest()


def run_worker(name, seconds):
    """Measure one benchmark in this process and print what was found as one line of JSON."""
    module, iterate = load_benchmark(name)
    clock = time.perf_counter

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        start = clock()
        returned = iterate()
        first = clock() - start
        digests = [digest(module, returned, printed.getvalue())]
        for _ in range(COMPARED_ITERATIONS - 1):
            digests.append(digest(module, iterate(), printed.getvalue()))

        times = []
        end = clock() + seconds
        while (start := clock()) < end:
            iterate()
            times.append(clock() - start)

    report = {"first": first, "warm": None, "digests": digests, "stats": None}
    if times:
        report["warm"] = statistics.median(times[len(times) // 2 :])
    # A stamped process imported hotstamp at start-up; an interpreted one must not have it.
    if hotstamp := sys.modules.get("hotstamp"):
        report["stats"] = hotstamp.stats() if hotstamp.is_enabled() else None
    print(json.dumps(report))


# ---------------------------------------------------------------------------------------------- the comparison


class Samples:
    """What the workers of one benchmark and mode reported."""

    def __init__(self):
        self.started = 0
        self.reports = []
        self.failures = []

    def median_ms(self, key):
        values = [report[key] for report in self.reports if report[key] is not None]
        return statistics.median(values) * 1000 if values else None

    def digests(self):
        return {tuple(report["digests"]) for report in self.reports}


def start_worker(samples, name, mode, seconds):
    """Run one worker to its end and file its report or its failure under ``samples``."""
    samples.started += 1
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HOTSTAMP", "PYTHON"))}
    # The same hashes in each process, so that sets and dicts of both sides have the same order.
    environment |= MODES[mode] | {"PYTHONHASHSEED": "0"}
    command = [sys.executable, __file__, "--worker", name, "--seconds", str(seconds)]
    try:
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds + WORKER_GRACE_SECONDS
        )
    except subprocess.TimeoutExpired:
        samples.failures.append(f"hung for {seconds + WORKER_GRACE_SECONDS:.0f} s")
        return
    if run.returncode != 0:
        end = run.stderr.strip().splitlines()[-8:]
        samples.failures.append("\n    ".join([f"exit status {run.returncode}", *end]))
        return
    samples.reports.append(json.loads(run.stdout.splitlines()[-1]))


def collect(benchmarks, workers, seconds):
    """Run all workers, the two modes in turn, and return ``{benchmark: {mode: Samples}}``."""
    samples = {name: {mode: Samples() for mode in MODES} for name in benchmarks}
    total, done = workers * len(benchmarks) * len(MODES), 0
    show = sys.stderr.isatty()
    for turn in range(workers):
        for name in benchmarks:
            # Who goes first changes too: the second of a pair finds warmer caches.
            for mode in MODES if turn % 2 == 0 else reversed(MODES):
                if show:
                    print(f"\r\033[K{done}/{total} {name} {mode}", end="", file=sys.stderr, flush=True)
                start_worker(samples[name][mode], name, mode, seconds)
                done += 1
        if not show:
            print(f"demo: {done} of {total} workers done", file=sys.stderr, flush=True)
    if show:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return samples


def verdict(pair):
    """Whether both modes computed the same in every worker."""
    theirs, ours = (pair[mode].digests() for mode in MODES)
    if not theirs or not ours:
        return "none"
    return "equal" if theirs == ours and len(ours) == 1 else "DIFFER"


def ratio(pair, key):
    """Return hotstamp's time over the interpreter's: below 1 is faster."""
    ours, theirs = pair["hotstamp"].median_ms(key), pair["interpreter"].median_ms(key)
    return f"{ours / theirs:.2f}" if ours and theirs else "-"


def milliseconds(value):
    """Return a table cell."""
    return f"{value:.2f}" if value is not None else "-"


def row(name, pair, results_only):
    """Return the table's cells for one benchmark."""
    stamped = pair["hotstamp"]
    stats = [report["stats"] for report in stamped.reports if report["stats"]]
    cells = [name]
    if not results_only:
        for key in ("first", "warm"):
            cells += [milliseconds(pair[mode].median_ms(key)) for mode in MODES] + [ratio(pair, key)]
    if stats:
        middle = lambda value: str(round(statistics.median(map(value, stats))))  # noqa: E731
        cells += [
            middle(lambda s: s["functions_stamped"]),
            middle(lambda s: s["code_bytes"]),
            middle(lambda s: sum(s["exits"].values())),
        ]
    else:
        cells += ["-", "-", "-"]
    cells += [f"{len(pair[mode].reports)}/{pair[mode].started}" for mode in MODES]
    return [*cells, verdict(pair)]


def print_table(rows, headings):
    """Print aligned columns, the first to the left."""
    widths = [max(len(line[i]) for line in [*rows, *headings]) for i in range(len(rows[0]))]
    for line in [*headings, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))))


def print_report(samples, results_only):
    """Print the table, and under it every exit by its reason and every worker that died."""
    upper, lower = [""], ["benchmark"]
    if not results_only:
        for title in ("first, ms", "warm, ms"):
            upper += [title, "", ""]
            lower += ["python", "hotstamp", "ratio"]
    upper += ["functions", "code", "", "workers survived", "", ""]
    lower += ["stamped", "bytes", "exits", "python", "hotstamp", "results"]
    print_table([row(name, pair, results_only) for name, pair in samples.items()], [upper, lower])
    if not results_only:
        print("\nratio: hotstamp's median over the interpreter's; below 1 is faster")
    for name, pair in samples.items():
        reports = [report for report in pair["hotstamp"].reports if report["stats"]]
        if reports:
            exits = sorted(reports[-1]["stats"]["exits"].items(), key=lambda item: -item[1])
            print(f"{name}, exits: " + (", ".join(f"{reason} {count}" for reason, count in exits if count) or "none"))
    for name, pair in samples.items():
        for mode, of_mode in pair.items():
            for failure in of_mode.failures:
                print(f"{name}, {mode}, a worker died: {failure}")


def is_sound(samples):
    """Whether all workers survived, all results are equal, and hotstamp really ran stamped code."""
    for pair in samples.values():
        if verdict(pair) != "equal" or any(of_mode.failures for of_mode in pair.values()):
            return False
        if any(report["stats"] for report in pair["interpreter"].reports):
            return False
        if not all(report["stats"] and report["stats"]["functions_stamped"] for report in pair["hotstamp"].reports):
            return False
    return True


def main():
    parser = argparse.ArgumentParser(description="Interpreter against hotstamp, on three programs.")
    parser.add_argument("--workers", type=int, default=15, help="processes for each benchmark and mode (default: 15)")
    parser.add_argument("--seconds", type=float, default=2.5, help="length of a worker's warm loop (default: 2.5)")
    parser.add_argument("--results-only", action="store_true", help="compare results, measure nothing")
    parser.add_argument("--worker", choices=BENCHMARKS, help=argparse.SUPPRESS)
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    options = parser.parse_args()
    if options.worker:
        run_worker(options.worker, options.seconds)
        return 0
    if unknown := set(options.benchmarks) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if options.workers < 1:
        parser.error("--workers: at least 1")
    seconds = 0.0 if options.results_only else options.seconds
    samples = collect(options.benchmarks or BENCHMARKS, options.workers, seconds)
    print(f"\nCPython {platform.python_version()} on {platform.machine()}, {options.workers} workers each")
    print_report(samples, options.results_only)
    if not is_sound(samples):
        print("\nNOT SOUND: a worker died, results differ, or nothing was stamped")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
