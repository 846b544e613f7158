"""Warm steady-state measurement: rounds of fresh processes, one per mode, sampled in turn.

A round starts one worker per mode, takes the first iteration of each, lets each warm up for the same time, and longer where it is
not warm then, then takes samples in rotation: one of each mode, again and again, beginning with another mode each time, so that drift of the
machine hits all alike. The journal gets one record per benchmark and round.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from lab import provenance
from lab.benchmarks import Benchmark
from lab.errors import WorkerFailed
from lab.journal import Journal
from lab.modes import Mode, why_vacuous
from lab.progress import Reporter
from lab.protocol import Worker, WorkerOptions

#: After this many failures in a row a mode is not tried again for a benchmark.
GIVE_UP_AFTER = 2
#: Fewest samples of a process, however slow the benchmark; of one whose samples take longer than twice the time for all, fewer.
LEAST_SAMPLES = 3
LEAST_LONG_SAMPLES = 2
#: Fewest rounds, however long they take: below it no interval means anything.
LEAST_ROUNDS = 3


#: A stage of warm-up whose second half takes less than this of the first has not settled; with fewer entries nothing is said.
FASTER = 0.95
LEAST_TO_COMPARE = 8


@dataclass(frozen=True, slots=True)
class WarmPlan:
    """How much is measured. Times in seconds."""

    #: Rounds of fresh processes.
    rounds: int = 6
    #: Warm-up of each process, after its first iteration.
    warmup: float = 1.2
    #: Most such warm-ups of a process: the further ones only while it still gets faster or its compiler is at work.
    warmups: int = 2
    #: Fewest warm-up entries, however slow the benchmark; one, if the first iteration alone took as long as a warm-up.
    warmup_entries: int = 2
    #: Samples of each process.
    samples: int = 10
    #: Least length of a sample; short iterations are looped to reach it.
    sample_time: float = 0.05
    #: Most time for sampling one process: slow benchmarks get fewer samples.
    sampling: float = 1.0
    #: Once a benchmark has taken this long, no further round is started (but three are always taken).
    budget: float = 50.0

    def as_json(self) -> dict[str, Any]:
        """For the plan of a journal."""
        return asdict(self)


#: What a process takes beyond its plan, in seconds: start, first iteration, report.
OVERHEAD = 0.6


def estimate(plan: WarmPlan, benchmarks: int, modes: int) -> float:
    """Seconds that benchmarks of short iterations take; those of seconds take longer, since each has its least rounds, entries and samples."""
    a_round = modes * (OVERHEAD + plan.warmup + min(plan.sampling, plan.samples * plan.sample_time))
    within_budget = max(min(LEAST_ROUNDS, plan.rounds), min(plan.rounds, int(plan.budget / a_round)))
    return benchmarks * within_budget * a_round


def record_key(benchmark: Benchmark, number: int) -> str:
    """The journal's key of one round."""
    return f"{benchmark.name}/{number}"


def measure(benchmarks: list[Benchmark], modes: list[Mode], plan: WarmPlan, options: WorkerOptions, journal: Journal, reporter: Reporter) -> None:
    """Measure everything that the journal does not have yet. `reporter` counts rounds.

    Rounds run in the outer order of benchmarks: what is finished is complete, and can be read while the rest runs.
    """
    for benchmark in benchmarks:
        failures = dict.fromkeys((mode.name for mode in modes), 0)
        begun = time.monotonic()
        spent_before = _time_spent(benchmark, plan, journal)
        for number in range(plan.rounds):
            key = record_key(benchmark, number)
            if journal.has(key):
                _count_failures(failures, journal.records[key])
                reporter.step(benchmark.name, advance=1)
                continue
            spent = spent_before + time.monotonic() - begun
            if number >= LEAST_ROUNDS and spent * (number + 1) / number > plan.budget:
                reporter.step(benchmark.name, advance=plan.rounds - number)
                break
            alive = [mode for mode in modes if failures[mode.name] < GIVE_UP_AFTER]
            record = _round(benchmark, alive, number, plan, options, reporter)
            _count_failures(failures, record)
            journal.add(key, record)
            reporter.step(benchmark.name, advance=1)


def _time_spent(benchmark: Benchmark, plan: WarmPlan, journal: Journal) -> float:
    records = (journal.records.get(record_key(benchmark, number)) for number in range(plan.rounds))
    return sum(record["seconds"] for record in records if record)


def _count_failures(failures: dict[str, int], record: dict[str, Any]) -> None:
    for name, result in record["modes"].items():
        failures[name] = failures[name] + 1 if "failed" in result else 0


def _round(benchmark: Benchmark, modes: list[Mode], number: int, plan: WarmPlan, options: WorkerOptions, reporter: Reporter) -> dict[str, Any]:
    """One round: a record with, for each mode, its samples or why there are none."""
    begun = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    rotation = number % max(1, len(modes))
    order = modes[rotation:] + modes[:rotation]
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        load_before = provenance.load()
        for mode in order:
            reporter.step(f"{benchmark.name}: round {number + 1}, {mode.title} warms up")
            try:
                worker = stack.enter_context(Worker(benchmark, mode, number, options))
                results[mode.name] = _warm_up(worker, plan)
                workers[mode.name] = worker
            except WorkerFailed as failure:
                results[mode.name] = {"failed": failure.reason, "detail": failure.detail}
        _take_samples(workers, results, plan, lambda name: reporter.step(f"{benchmark.name}: round {number + 1}, sampling {name}"))
        for name, worker in workers.items():
            _finish(worker, results[name])
    return {
        "benchmark": benchmark.name,
        "round": number,
        "date": provenance.now(),
        "load": [load_before, provenance.load()],
        "seconds": round(time.monotonic() - begun, 3),
        "modes": results,
    }


def still_warming(stage: dict[str, Any]) -> bool:
    """Whether a process was not warm yet at the end of a stage of its warm-up: compilations are under way, the last were finished just now, or it got faster."""
    entries = stage["entries"]
    if stage["under_way"] or any(index >= len(entries) * 2 / 3 for index, _ in stage["marks"]):
        return True
    if len(entries) < LEAST_TO_COMPARE:
        return False
    times = [taken / loops for loops, taken in entries]
    half = len(times) // 2
    return statistics.median(times[half:]) < FASTER * statistics.median(times[:half])


def _warm_up(worker: Worker, plan: WarmPlan) -> dict[str, Any]:
    first = worker.first()
    least = plan.warmup_entries if first < plan.warmup * 1e9 else 1
    stages = [worker.warm_up(int(plan.warmup * 1e9), least)]
    while len(stages) < plan.warmups and still_warming(stages[-1]):
        stages.append(worker.warm_up(int(plan.warmup * 1e9), 1))
    entries, marks = [], []
    for stage in stages:
        marks += [[len(entries) + index, counters] for index, counters in stage["marks"]]
        entries += stage["entries"]
    last = stages[-1]["entries"]
    tail = [taken / loops for loops, taken in last[-max(1, len(last) // 3) :]]
    estimate = max(1.0, statistics.median(tail))
    return {
        "first_ns": first,
        "inner_loops": worker.inner_loops,
        "warmup": entries,
        "counters": stages[0]["counters"],
        "marks": marks,
        "warmups": len(stages),
        "warming": still_warming(stages[-1]),
        "loops": max(1, round(plan.sample_time * 1e9 / estimate)),
        "estimate_ns": estimate,
        "samples_ns": [],
    }


def _take_samples(workers: dict[str, Worker], results: dict[str, dict[str, Any]], plan: WarmPlan, say) -> None:
    """Samples in rotation. Every mode gets the same number, so that they pair."""
    if not workers:
        return
    slowest = max(results[name]["loops"] * results[name]["estimate_ns"] for name in workers)
    least = LEAST_SAMPLES if slowest < 2e9 * plan.sampling else LEAST_LONG_SAMPLES
    count = max(least, min(plan.samples, int(plan.sampling * 1e9 / slowest)))
    names = list(workers)
    for index in range(count):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            result = results[name]
            if "failed" in result:
                continue
            say(name)
            try:
                taken = workers[name].sample(result["loops"])
            except WorkerFailed as failure:
                result.update(failed=failure.reason, detail=failure.detail)
                continue
            result["samples_ns"].append(taken / result["loops"])


def _finish(worker: Worker, result: dict[str, Any]) -> None:
    """The process's own report, and whether it measured what its mode says."""
    if "failed" in result:
        return
    try:
        result.update(worker.report())
    except WorkerFailed as failure:
        result.update(failed=failure.reason, detail=failure.detail)
        return
    if why := why_vacuous(worker.mode, result["statistics"]):
        result["failed"] = why
