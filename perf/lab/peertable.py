"""The peers table: ratios by benchmark, geometric means, worst cases, and the document it is published in."""

from __future__ import annotations

import re
from typing import Any

from lab import stats
from lab.benchmarks import MICRO_SET
from lab.comparison import Run
from lab.modes import TITLES
from lab.results import ModeResult, first_changes, first_delta, warm_changes, warm_deltas
from lab.stats import Delta
from lab.tables import DASH, Table, duration, size

#: Follows a figure whose interval holds 1.
UNSURE = "~"
#: Follows a figure of a mode that was not warm yet in some process.
WARMING = "^"


def title(mode: str) -> str:
    """The heading of a mode's column."""
    base = mode.partition(":")[0].partition("@")[0]
    return mode.replace(base, TITLES.get(base, base), 1)


def peers_table(run: Run, columns: list[str], missing: dict[str, str], confidence: float) -> Table:
    """One row per benchmark, warm and first of every mode but the first; means and worst cases at the end."""
    base, others = columns[0], columns[1:]
    table = Table(
        f"against {title(base)}: warm = its time / mode's (higher is better), first = mode's / its (lower is better)",
        ("benchmark", *(f"warm: {title(mode)}" for mode in others), *(f"first: {title(mode)}" for mode in others)),
    )
    micro = [name for name in run.results if name in MICRO_SET]
    for name, by_mode in run.results.items():
        warm, first = [], []
        for mode in others:
            result = by_mode.get(mode)
            delta = _headline(by_mode[base], result, confidence)
            start = first_delta(by_mode[base], result, confidence) if delta else None
            warm.append(_figure(delta.speedup, delta) + (WARMING if result.warming_rounds() else "") if delta else DASH)
            first.append(_figure(1 + start.change, start) if start else DASH)
            if result is not None and result.failures:
                table.notes.append(f"{name}, {title(mode)}: {result.reason}")
        table.add(name, *warm, *first)
    cells = [means(run, mode, base, micro, confidence) for mode in others]
    table.add("geometric mean", *(c["warm"] for c in cells), *(c["first"] for c in cells))
    table.add("its interval", *(c["warm_interval"] for c in cells), *(c["first_interval"] for c in cells))
    table.add("worst", *(c["warm_worst"] for c in cells), *(c["first_worst"] for c in cells))
    table.notes += [f"{title(mode)}: not measured: {why}" for mode, why in missing.items()]
    table.notes += [f"{title(mode)}: its means are over {c['count']} of {len(run.results) - len(micro)} benchmarks" for mode, c in zip(others, cells, strict=True)]
    if micro:
        table.notes.append(f"not in the means: {', '.join(micro)}")
    if any(WARMING in cell for row in table.rows for cell in row):
        table.notes.append(f"{WARMING}: in some process the compiler was still at work, or the code still got faster, at the end of the longest warm-up: warm may be better")
    table.notes.append(f"{UNSURE}: the {confidence:.0%} interval holds 1, so there may be no difference")
    return table


def _headline(base: ModeResult, result: ModeResult | None, confidence: float) -> Delta | None:
    return warm_deltas(base, result, confidence).get("paired") if result else None


def _figure(ratio: float, delta: Delta) -> str:
    return f"{ratio:.2f}" + (UNSURE if delta.verdict == "inconclusive" else "")


def means(run: Run, mode: str, base: str, excluded: list[str], confidence: float) -> dict[str, Any]:
    """Geometric means with intervals and worst cases of a mode, as text, with how many benchmarks they are over."""
    pairs = {
        name: (by_mode[base], by_mode[mode])
        for name, by_mode in run.results.items()
        if name not in excluded and mode in by_mode and warm_changes(by_mode[base], by_mode[mode])
    }
    if not pairs:
        return {"count": 0, **dict.fromkeys(("warm", "first", "warm_interval", "first_interval", "warm_worst", "first_worst"), DASH)}
    warm = stats.geometric_mean({name: warm_changes(b, c) for name, (b, c) in pairs.items()}, confidence)
    first = stats.geometric_mean({name: first_changes(b, c) for name, (b, c) in pairs.items()}, confidence)
    speedups = {name: warm_deltas(b, c, confidence)["paired"].speedup for name, (b, c) in pairs.items()}
    firsts = {name: 1 + first_delta(b, c, confidence).change for name, (b, c) in pairs.items()}
    slowest, coldest = min(speedups, key=speedups.__getitem__), max(firsts, key=firsts.__getitem__)
    low, high = warm.speedup_interval
    return {
        "count": len(pairs),
        "warm": f"{warm.speedup:.2f}",
        "warm_interval": f"{low:.2f} .. {high:.2f}",
        "warm_worst": f"{speedups[slowest]:.2f} {slowest}",
        "first": f"{1 + first.change:.2f}",
        "first_interval": f"{1 + first.interval.low:.2f} .. {1 + first.interval.high:.2f}",
        "first_worst": f"{firsts[coldest]:.2f} {coldest}",
    }


def startup_table(columns: list[str], startup: dict[str, list[float]]) -> Table:
    """`-c pass` by mode."""
    table = Table("start-up: -c pass, medians of fresh processes", ("mode", "wall", "peak memory"))
    for mode in columns:
        if mode in startup:
            wall, memory = startup[mode]
            table.add(title(mode), duration(wall), size(memory * 1024))
        else:
            table.add(title(mode), DASH, DASH)
    return table


def as_json(run: Run, columns: list[str], missing: dict[str, str], startup: dict[str, list[float]], confidence: float) -> dict[str, Any]:
    """The table's figures, with intervals, for other programs."""
    base = columns[0]
    found: dict[str, Any] = {"provenance": run.provenance, "base": base, "missing": missing, "startup": startup, "benchmarks": {}, "means": {}}
    for name, by_mode in run.results.items():
        row = found["benchmarks"][name] = {}
        for mode in columns[1:]:
            delta = _headline(by_mode[base], by_mode.get(mode), confidence)
            if delta is None:
                row[mode] = None
                continue
            first = first_delta(by_mode[base], by_mode[mode], confidence)
            row[mode] = {
                "warm": delta.speedup,
                "warm_interval": delta.speedup_interval,
                "warm_verdict": delta.verdict,
                "warming_processes": by_mode[mode].warming_rounds(),
                "first": 1 + first.change,
                "first_interval": [1 + first.interval.low, 1 + first.interval.high],
                "first_verdict": first.verdict,
            }
    micro = [name for name in run.results if name in MICRO_SET]
    found["means"] = {mode: means(run, mode, base, micro, confidence) for mode in columns[1:]}
    return found


def document(run: Run, table: Table, startup: Table) -> str:
    """The Markdown document: circumstances first, then the tables."""
    about = run.provenance
    machine = about["machine"]
    loads = [value for by_mode in run.results.values() for result in by_mode.values() for pair in result.loads.values() for value in pair]
    lines = [
        "# Peers, measured side by side",
        "",
        f"Taken {about['date']} at revision {about['revision']} by `perf/peers.py`, on {machine['architecture']}, {machine['processor']},"
        f" {machine['cores']} cores, {machine['memory_mib']} MiB, Linux {machine['kernel']}.",
        f"Load average during the run: {min(loads):.2f} to {max(loads):.2f} (the measured process itself counts for about 1).",
        "",
        "*Warm* = interpreter time / mode's time, steady (higher is better). *First* = mode's first iteration / interpreter's (lower is better).",
        "Each figure is over fresh processes, one per mode in each round, sampled in turn.",
        "",
        *(f"- {title(mode)}: {_described(facts)}" for mode, facts in about["modes"].items()),
        "",
        table.markdown(),
        "",
        "## Start-up (`-c pass`)",
        "",
        startup.markdown(),
        "",
    ]
    return "\n".join(lines)


def published(old: str, section: str) -> str:
    """A document of several sections, each under a heading of the first level, with one of them put in, in place of the one with its heading."""
    heading = section.splitlines()[0]
    others = [part for part in re.split(r"(?m)^(?=# )", old) if part.strip() and part.splitlines()[0] != heading]
    return "\n".join(part.strip() + "\n" for part in [section, *others])


def _described(facts: dict[str, Any]) -> str:
    extra = [f"CinderX {facts['cinderx']}"] if "cinderx" in facts else []
    extra += [f"revision {facts['revision']}"] if "revision" in facts else []
    settings = " ".join(f"{name}={value}" for name, value in facts["environment"].items())
    return ", ".join([facts["python"], *extra, *([f"`{settings}`"] if settings else [])])
