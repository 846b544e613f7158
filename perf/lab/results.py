"""Warm results read back from a journal: samples by benchmark, mode and round, and the comparisons over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lab import stats
from lab.stats import Delta, Summary


@dataclass(slots=True)
class ModeResult:
    """What one mode gave for one benchmark. Times in nanoseconds per iteration (inner loops divided out)."""

    benchmark: str
    mode: str
    #: Steady samples, by round.
    samples: dict[int, list[float]] = field(default_factory=dict)
    #: First iteration of the process, by round.
    firsts: dict[int, float] = field(default_factory=dict)
    #: Why a round gave nothing, by round.
    failures: dict[int, str] = field(default_factory=dict)
    #: The worker's whole record, by round: warm-up curves, marks, memory, the compiler's statistics.
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    loads: dict[int, list[float]] = field(default_factory=dict)
    #: When each round ended, UTC.
    dates: dict[int, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether any round gave samples."""
        return bool(self.samples)

    @property
    def reason(self) -> str:
        """Why rounds gave nothing, with how many they were; empty if all did."""
        if not self.failures:
            return ""
        reasons = ", ".join(dict.fromkeys(self.failures.values()))
        return f"{len(self.failures)} of {len(self.failures) + len(self.samples)} processes failed: {reasons}"

    def all_samples(self) -> list[float]:
        """Every steady sample, in the order taken."""
        return [value for number in sorted(self.samples) for value in self.samples[number]]

    def summary(self) -> Summary:
        """Of all steady samples."""
        return stats.summarize(self.all_samples())

    def median_first(self) -> float:
        """Median, over processes, of the first iteration."""
        return float(np.median(list(self.firsts.values())))

    def drifting_rounds(self) -> int:
        """In how many processes the samples had not settled."""
        return sum(stats.drifting(values) for values in self.samples.values())

    def warming_rounds(self) -> int:
        """How many processes were not warm at the end of the longest warm-up: their compiler was still at work, or they still got faster."""
        return sum(bool(raw.get("warming")) for raw in self.records.values())

    def unsettled_rounds(self) -> int:
        """Processes that were not warm yet, or whose samples drift."""
        return sum(bool(self.records[number].get("warming")) or stats.drifting(values) for number, values in self.samples.items())


type Results = dict[str, dict[str, ModeResult]]


def from_records(records: dict[str, dict[str, Any]], modes: Sequence[str]) -> Results:
    """Results by benchmark and mode, every mode present for every benchmark even if it gave nothing."""
    results: Results = {}
    for record in sorted(records.values(), key=lambda record: record["round"]):
        name, number = record["benchmark"], record["round"]
        by_mode = results.setdefault(name, {mode: ModeResult(name, mode) for mode in modes})
        for mode, raw in record["modes"].items():
            result = by_mode[mode]
            result.loads[number] = record["load"]
            result.dates[number] = record["date"]
            if "failed" in raw:
                result.failures[number] = raw["failed"]
                continue
            inner = raw["inner_loops"]
            result.samples[number] = [value / inner for value in raw["samples_ns"]]
            result.firsts[number] = raw["first_ns"] / inner
            result.records[number] = raw
    return results


def common_rounds(base: ModeResult, candidate: ModeResult) -> list[int]:
    """The rounds in which both gave samples: only these may be compared."""
    return sorted(base.samples.keys() & candidate.samples.keys())


def warm_deltas(base: ModeResult, candidate: ModeResult, confidence: float = stats.CONFIDENCE) -> dict[str, Delta]:
    """Deltas of steady time, by statistic; empty if no round has both."""
    rounds = common_rounds(base, candidate)
    if not rounds:
        return {}
    return stats.deltas([base.samples[n] for n in rounds], [candidate.samples[n] for n in rounds], confidence)


def first_delta(base: ModeResult, candidate: ModeResult, confidence: float = stats.CONFIDENCE) -> Delta | None:
    """Delta of the first iteration, over processes; None if no round has both."""
    rounds = common_rounds(base, candidate)
    if not rounds:
        return None
    changes = first_changes(base, candidate)
    return Delta("first", float(np.expm1(np.mean(changes))), stats.interval_of_mean(changes, confidence))


def warm_changes(base: ModeResult, candidate: ModeResult) -> list[float]:
    """Log-change of the steady median, per common round."""
    rounds = common_rounds(base, candidate)
    return stats.round_changes([base.samples[n] for n in rounds], [candidate.samples[n] for n in rounds])


def first_changes(base: ModeResult, candidate: ModeResult) -> list[float]:
    """Log-change of the first iteration, per common round."""
    return [float(np.log(candidate.firsts[n] / base.firsts[n])) for n in common_rounds(base, candidate)]


def summary_json(results: Results, base: str, confidence: float = stats.CONFIDENCE) -> dict[str, Any]:
    """Summaries and deltas of everything, for the result file."""
    out: dict[str, Any] = {}
    for benchmark, by_mode in results.items():
        out[benchmark] = {}
        for mode, result in by_mode.items():
            entry: dict[str, Any] = {"failures": {str(n): why for n, why in result.failures.items()}}
            if result.usable:
                entry["summary_ns"] = asdict(result.summary())
                entry["first_ns"] = result.median_first()
                entry["drifting_processes"] = result.drifting_rounds()
                entry["warming_processes"] = result.warming_rounds()
                entry["processes"] = len(result.samples)
            if mode != base and result.usable:
                entry["deltas"] = {name: delta_json(delta) for name, delta in warm_deltas(by_mode[base], result, confidence).items()}
                first = first_delta(by_mode[base], result, confidence)
                entry["first_delta"] = delta_json(first) if first else None
            out[benchmark][mode] = entry
    return out


def delta_json(delta: Delta) -> dict[str, Any]:
    """A delta with its verdict; infinite bounds (no interval) become null."""
    interval = delta.interval
    bound = lambda value: value if np.isfinite(value) else None  # noqa: E731
    return {
        "change": delta.change,
        "low": bound(interval.low),
        "high": bound(interval.high),
        "confidence": interval.confidence,
        "method": interval.method,
        "verdict": delta.verdict,
        "speedup": delta.speedup,
    }
