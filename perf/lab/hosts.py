"""Hosts that arch.py collects samples on: this machine, and its emulated AArch64; lab/remote.py has those over ssh.

Collecting gives one plain object per host: `host`, `provenance`, and `benchmarks` -> mode -> the figures, of one kind per host:

- `time`: samples in ns per iteration, by round, steady and first, plus the code size of each mode that has one;
- `instructions`: executed guest instructions per iteration, exact, plus code sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab import emulation, guests, provenance
from lab.benchmarks import Benchmark
from lab.errors import ModeUnavailable, WorkerFailed
from lab.modes import Mode, why_vacuous
from lab.protocol import WorkerOptions


#: Counted iterations of which one executes this much of another are still warming up; some benchmarks do a little more in every other iteration.
SETTLED = 1.2


@dataclass(frozen=True, slots=True)
class Counting:
    """How emulated instructions are counted: iterations before, and iterations that count."""

    warm: int = 6
    loops: int = 2


def emulated(benchmarks: list[Benchmark], specs: list[str], counting: Counting, options: WorkerOptions, say, done: dict[str, Any] | None = None, keep=None) -> dict[str, Any]:
    """Count instructions on emulated AArch64, iteration by iteration; the first ones warm up.

    `done` holds what an earlier, interrupted collection finished, `keep(key, figure)` stores each new figure.
    """
    done = done or {}
    found: dict[str, Any] = {}
    described: dict[str, str] = {}
    for spec in specs:
        try:
            mode = emulation.guest_mode(spec)
        except ModeUnavailable as error:
            for benchmark in benchmarks:
                found.setdefault(benchmark.name, {})[spec] = {"failed": " ".join(str(error).splitlines())}
            continue
        described[spec] = mode.revision or str(mode.base)
        for benchmark in benchmarks:
            key = f"emulated/{benchmark.name}/{spec}"
            if key not in done:
                say(f"emulated AArch64: {benchmark.name}, {mode.title}")
                done[key] = _count(benchmark, mode, counting, options)
                if keep:
                    keep(key, done[key])
            found.setdefault(benchmark.name, {})[spec] = done[key]
    about = {"date": provenance.now(), "machine": {**provenance.machine(), "architecture": "aarch64", "emulated": True}, "revision": provenance.git_revision(), "modes": described}
    return {"host": "emulated", "kind": "instructions", "provenance": about, "benchmarks": found}


def _count(benchmark: Benchmark, mode: Mode, counting: Counting, options: WorkerOptions) -> dict[str, Any]:
    try:
        found = guests.counted(benchmark, mode, counting.warm + counting.loops, options)
    except WorkerFailed as failure:
        return {"failed": failure.reason, "detail": failure.detail}
    if why := why_vacuous(mode, found["statistics"]):
        return {"failed": why}
    counted = found["by_iteration"][counting.warm :]
    figure: dict[str, Any] = {
        "instructions": sum(counted) / counting.loops / found["inner_loops"],
        # Where there is one iteration to count, nobody knows.
        "settled": max(counted) < SETTLED * min(counted) if len(counted) > 1 else None,
        "by_iteration": found["by_iteration"],
        "before": found["before"],
        "iterations": [counting.warm, counting.loops],
    }
    if "code_bytes" in found["statistics"]:
        figure["code_bytes"] = found["statistics"]["code_bytes"]
    return figure


def from_run(run) -> dict[str, Any]:
    """A finished warm comparison (lab.comparison.Run) as a collected object."""
    found: dict[str, Any] = {}
    for benchmark, by_mode in run.results.items():
        for name, result in by_mode.items():
            figure: dict[str, Any] = {"samples": {str(n): values for n, values in result.samples.items()}, "firsts": {str(n): value for n, value in result.firsts.items()}}
            if not result.usable:
                figure = {"failed": result.reason or "not measured"}
            elif "code_bytes" in (last := result.records[max(result.records)].get("statistics", {})):
                figure["code_bytes"] = last["code_bytes"]
            found.setdefault(benchmark, {})[name] = figure
    return {"host": "local", "kind": "time", "provenance": run.provenance, "benchmarks": found}
