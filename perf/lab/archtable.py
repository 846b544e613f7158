"""What arch.py's hosts say, beside each other: the change that a mode makes on each host, and whether two hosts agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lab import stats
from lab.results import delta_json
from lab.stats import Delta, Interval
from lab.tables import DASH, Table, duration, size


def change(host: dict[str, Any], benchmark: str, base: str, mode: str, confidence: float) -> Delta | None:
    """The change that `mode` makes against `base` on one host; counts are exact and have an interval of no width."""
    figures = host["benchmarks"].get(benchmark, {})
    before, after = figures.get(base, {}), figures.get(mode, {})
    if host["kind"] == "instructions":
        if "instructions" not in before or "instructions" not in after:
            return None
        ratio = after["instructions"] / before["instructions"] - 1
        return Delta("instructions", ratio, Interval(ratio, ratio, confidence, "exact count"))
    rounds = sorted(before.get("samples", {}).keys() & after.get("samples", {}).keys(), key=int)
    if not rounds:
        return None
    return stats.deltas([before["samples"][n] for n in rounds], [after["samples"][n] for n in rounds], confidence)["paired"]


def summary(hosts: list[dict[str, Any]], base: str, confidence: float) -> dict[str, Any]:
    """Deltas by benchmark, mode and host; and, between the first host and each other with times, the change of the base itself."""
    found: dict[str, Any] = {}
    for benchmark in dict.fromkeys(name for host in hosts for name in host["benchmarks"]):
        modes = dict.fromkeys(mode for host in hosts for mode in host["benchmarks"].get(benchmark, {}) if mode != base)
        entry: dict[str, Any] = {"modes": {}, "hosts": {}}
        for mode in modes:
            deltas = {host["host"]: change(host, benchmark, base, mode, confidence) for host in hosts}
            entry["modes"][mode] = {name: delta_json(delta) if delta else None for name, delta in deltas.items()}
        timed = [host for host in hosts if host["kind"] == "time"]
        for other in timed[1:]:
            between = _between(timed[0], other, benchmark, base, confidence)
            entry["hosts"][f"{other['host']} against {timed[0]['host']}"] = delta_json(between) if between else None
        found[benchmark] = entry
    return found


def _between(first: dict[str, Any], second: dict[str, Any], benchmark: str, mode: str, confidence: float) -> Delta | None:
    """How much longer the second host takes. Its rounds are not paired with the first's: an interval of the difference of two means."""
    logs = []
    for host in (first, second):
        samples = host["benchmarks"].get(benchmark, {}).get(mode, {}).get("samples", {})
        logs.append(np.array([math.log(float(np.median(values))) for values in samples.values()]))
    if min(map(len, logs)) < 2:
        return None
    from scipy import stats as scipy_stats

    result = scipy_stats.ttest_ind(logs[1], logs[0], equal_var=False).confidence_interval(confidence)
    centre = float(logs[1].mean() - logs[0].mean())
    low, high = (float(bound) if math.isfinite(bound) else centre for bound in (result.low, result.high))
    return Delta("between hosts", math.expm1(centre), Interval(math.expm1(low), math.expm1(high), confidence, "Welch's t"))


def table(hosts: list[dict[str, Any]], found: dict[str, Any], base: str, confidence: float) -> Table:
    """One row per benchmark, mode and host."""
    made = Table(f"change against {base} on each host, {confidence:.4g} confidence", ("benchmark", "mode", "host", "per iteration", "change", "interval", "verdict", "code"))
    for benchmark, entry in found.items():
        for mode in (base, *entry["modes"]):
            for host in hosts:
                figure = host["benchmarks"].get(benchmark, {}).get(mode, {"failed": "not collected"})
                if "failed" in figure:
                    made.add(benchmark, mode, host["host"], *[DASH] * 5)
                    made.notes.append(f"{benchmark}, {mode}, {host['host']}: {figure['failed']}")
                    continue
                if figure.get("settled") is False:
                    made.notes.append(f"{benchmark}, {mode}, {host['host']}: the counted iterations differ, it was still warming up: more --count-warm")
                delta = change(host, benchmark, base, mode, confidence) if mode != base else None
                cells = (f"{delta.change:+.1%}", _interval(delta), delta.verdict) if delta else ("", "", "")
                code = size(figure["code_bytes"]) if "code_bytes" in figure else ""
                made.add(benchmark, mode, host["host"], _amount(host, figure), *cells, code)
        for pair, delta in entry["hosts"].items():
            if delta:
                made.notes.append(f"{benchmark}, {base}: {pair}: {delta['change']:+.1%} ({delta['low']:+.1%} .. {delta['high']:+.1%}), {delta['verdict']}")
    return made


def _amount(host: dict[str, Any], figure: dict[str, Any]) -> str:
    if host["kind"] == "instructions":
        return f"{figure['instructions']:,.0f} instructions"
    return duration(float(np.median([value for values in figure["samples"].values() for value in values])))


def _interval(delta: Delta) -> str:
    return "exact" if delta.interval.method == "exact count" else f"{delta.interval.low:+.1%} .. {delta.interval.high:+.1%}"
