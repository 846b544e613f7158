"""What cold records say: tables, summaries with intervals, and pyperf files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lab import pyperf_io, stats
from lab.results import delta_json
from lab.stats import Delta
from lab.tables import DASH, Table, duration, size

#: Metrics of whole processes, by key of the record: (title, formatter).
METRICS = {
    "first_ns": ("first iteration", duration),
    "result_ns": ("to first result", duration),
    "wall_ns": ("wall", duration),
    "cpu_ns": ("CPU", duration),
    "max_rss_kib": ("peak memory", lambda kib: size(kib * 1024)),
    "value_ns": ("reported value", duration),
}


@dataclass(slots=True)
class Cell:
    """One mode's results for one protocol, benchmark and choice of cores."""

    #: metric -> {round: value}
    values: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    failures: list[str] = field(default_factory=list)
    attempts: int = 0
    suite: dict[str, Any] | None = None


type Key = tuple[str, str, str]  # protocol, benchmark, cores


def collect(records: dict[str, dict[str, Any]]) -> dict[Key, dict[str, Cell]]:
    """Cells by (protocol, benchmark, cores) and mode."""
    found: dict[Key, dict[str, Cell]] = {}
    for record in records.values():
        key = (record["protocol"], record["benchmark"] or DASH, record["cores"] or "all")
        for mode, raw in record["modes"].items():
            cell = found.setdefault(key, {}).setdefault(mode, Cell())
            cell.attempts += 1
            if record["protocol"] == "suite":
                cell.suite = raw
            if "failed" in raw:
                cell.failures.append(raw["failed"])
                continue
            for metric in METRICS:
                if metric in raw:
                    cell.values[metric][record["round"]] = raw[metric]
            if raw.get("values"):
                cell.values["value_ns"][record["round"]] = float(np.median(raw["values"])) * 1e9
    return found


def delta(base: Cell, candidate: Cell, metric: str, confidence: float) -> Delta | None:
    """Change of a metric over the rounds that both have; None if there is none."""
    rounds = sorted(base.values[metric].keys() & candidate.values[metric].keys())
    if not rounds:
        return None
    changes = [math.log(candidate.values[metric][n] / base.values[metric][n]) for n in rounds]
    return Delta(metric, math.expm1(float(np.mean(changes))), stats.interval_of_mean(changes, confidence))


def tables(records: dict[str, dict[str, Any]], modes: list[str], confidence: float) -> Iterator[Table]:
    """One table for processes, one for survival."""
    cells = collect(records)
    table = Table(
        f"cold, fresh process per sample; change against {modes[0]}, {confidence:.4g} confidence",
        ("protocol", "benchmark", "cores", "mode", "metric", "median", "change", "interval", "verdict"),
    )
    for (protocol, benchmark, cores), by_mode in cells.items():
        if protocol == "suite":
            continue
        for metric, (title, show) in METRICS.items():
            for mode in modes:
                cell = by_mode.get(mode, Cell())
                values = list(cell.values[metric].values())
                if not values:
                    if not any(c.values[metric] for c in by_mode.values()):
                        continue
                    table.add(protocol, benchmark, cores, mode, title, *[DASH] * 4)
                    continue
                change = delta(by_mode.get(modes[0], Cell()), cell, metric, confidence) if mode != modes[0] else None
                shown = (f"{change.change:+.1%}", _interval(change), _verdict(metric, change)) if change else ("", "", "")
                table.add(protocol, benchmark, cores, mode, title, show(float(np.median(values))), *shown)
        for mode, cell in by_mode.items():
            if cell.failures:
                reasons = ", ".join(dict.fromkeys(cell.failures))
                table.notes.append(f"{protocol}, {benchmark}, cores {cores}, {mode}: {len(cell.failures)} of {cell.attempts} processes failed: {reasons}")
    if table.rows or table.notes:
        yield table
    survival = Table("pyperformance run --fast", ("benchmark", "cores", "mode", "workers survived", "value", "command"))
    for (protocol, benchmark, cores), by_mode in cells.items():
        for mode in modes if protocol == "suite" else ():
            raw = by_mode[mode].suite or {}
            if "started" not in raw:
                survival.add(benchmark, cores, mode, *[DASH] * 3)
                survival.notes.append(f"{benchmark}, cores {cores}, {mode}: {raw.get('failed', 'not run')}")
                continue
            value = duration(float(np.median(raw["values"])) * 1e9) if raw["values"] else DASH
            survival.add(benchmark, cores, mode, f"{raw['survived']} of {raw['started']}", value, duration(float(np.median(raw["command_wall_ns"]))))
            if raw.get("detail"):
                survival.notes.append(f"{benchmark}, cores {cores}, {mode}: {raw['detail'].splitlines()[-1]}")
    if survival.rows:
        yield survival


def _interval(change: Delta) -> str:
    if not math.isfinite(change.interval.high):
        return "one process"
    return f"{change.interval.low:+.1%} .. {change.interval.high:+.1%}"


def _verdict(metric: str, change: Delta) -> str:
    """Memory is not faster or slower, but less or more."""
    return {"faster": "less", "slower": "more"}.get(change.verdict, change.verdict) if metric == "max_rss_kib" else change.verdict


def summary_json(records: dict[str, dict[str, Any]], modes: list[str], confidence: float) -> list[dict[str, Any]]:
    """Medians and deltas, one entry per cell."""
    found = []
    for (protocol, benchmark, cores), by_mode in collect(records).items():
        for mode, cell in by_mode.items():
            entry: dict[str, Any] = {"protocol": protocol, "benchmark": benchmark, "cores": cores, "mode": mode, "attempts": cell.attempts, "failures": cell.failures}
            entry["median"] = {metric: float(np.median(list(values.values()))) for metric, values in cell.values.items() if values}
            if mode != modes[0] and modes[0] in by_mode:
                changes = {metric: delta(by_mode[modes[0]], cell, metric, confidence) for metric in METRICS}
                entry["deltas"] = {metric: delta_json(change) for metric, change in changes.items() if change}
            if cell.suite:
                entry["suite"] = {name: cell.suite[name] for name in ("started", "survived", "commands", "values") if name in cell.suite}
            found.append(entry)
    return found


#: The metric that stands for a protocol in pyperf's files.
_HEADLINE = {"startup": "wall_ns", "first": "first_ns", "single": "value_ns", "fast": "value_ns"}


def write_pyperf(folder: Path, records: dict[str, dict[str, Any]], modes: list[str], circumstances: dict[str, Any]) -> None:
    """`cold-<mode>.json`: each protocol, benchmark and choice of cores is a benchmark of pyperf's, a process a run."""
    cells = collect(records)
    for mode in modes:
        values: dict[str, list[float]] = {}
        for (protocol, benchmark, cores), by_mode in cells.items():
            metric = _HEADLINE.get(protocol)
            if metric and mode in by_mode:
                name = "_".join(part for part in (protocol, benchmark.strip(DASH), "" if cores == "all" else f"core{cores}") if part)
                values[name] = [value / 1e9 for value in by_mode[mode].values[metric].values()]
        pyperf_io.write_values(folder / f"cold-{pyperf_io.safe_name(mode)}.json", values, circumstances)
