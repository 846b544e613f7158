"""Figures of the report, drawn with plotly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

#: One colour per mode, the same in every figure; distinguishable in common colour-blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6FBF", "#666666", "#B5A000", "#000000")
_LAYOUT = {"template": "plotly_white", "font": {"family": "system-ui, sans-serif", "size": 13}, "margin": {"l": 70, "r": 20, "t": 50, "b": 50}}


def colours(modes: list[str]) -> dict[str, str]:
    """A colour per mode."""
    return {mode: PALETTE[index % len(PALETTE)] for index, mode in enumerate(modes)}


@dataclass(slots=True)
class Curve:
    """The life of one measured process: time per iteration, from its first to its last."""

    #: Seconds of benchmark time gone when each entry ended.
    at: list[float] = field(default_factory=list)
    #: Milliseconds per iteration of each entry.
    taken: list[float] = field(default_factory=list)
    #: Entries in which the compiler's counters changed: (index, names of those that did, what all were).
    changes: list[tuple[int, frozenset[str], str]] = field(default_factory=list)


def curve(raw: dict[str, Any]) -> Curve:
    """From a worker's record: the first iteration, the warm-up, the samples."""
    inner = raw["inner_loops"]
    found = Curve()
    clock = 0.0
    entries = [(1, raw["first_ns"]), *((loops, taken) for loops, taken in raw["warmup"])]
    entries += [(raw["loops"], value * raw["loops"]) for value in raw["samples_ns"]]
    for loops, taken in entries:
        clock += taken / 1e9
        found.at.append(clock)
        found.taken.append(taken / loops / inner / 1e6)
    # Marks count warm-up entries; the first iteration stands before them. What was compiled by its end was so in it or before.
    last: dict[str, int] = {}
    for index, counters in [(-1, raw.get("counters", {})), *raw["marks"]]:
        changed = frozenset(name.removeprefix("functions_") for name, count in counters.items() if count != last.get(name, 0))
        if changed:
            found.changes.append((index + 1, changed, ", ".join(f"{name.removeprefix('functions_')}: {count}" for name, count in counters.items())))
        last = counters
    return found


def _marker(changed: frozenset[str]) -> str:
    """Stars where optimized code came in, diamonds where other code did."""
    return "optimized" if "optimized" in changed else "compiled"


_SYMBOLS = {"compiled": "diamond-open", "optimized": "star"}


def warmup_figure(benchmark: str, curves: dict[str, Curve], palette: dict[str, str]) -> go.Figure:
    """Time per iteration over the life of one process per mode; diamonds where functions were compiled, stars where they were optimized."""
    figure = go.Figure()
    for mode, found in curves.items():
        figure.add_trace(go.Scatter(x=found.at, y=found.taken, mode="lines+markers", name=mode, marker={"size": 4}, line={"color": palette[mode], "width": 1.5}))
        for kind, symbol in _SYMBOLS.items():
            marks = [(index, text) for index, changed, text in found.changes if index < len(found.at) and _marker(changed) == kind]
            if marks:
                figure.add_trace(
                    go.Scatter(
                        x=[found.at[index] for index, _ in marks],
                        y=[found.taken[index] for index, _ in marks],
                        text=[text for _, text in marks],
                        mode="markers",
                        name=f"{mode}: functions {kind}",
                        marker={"symbol": symbol, "size": 11, "color": palette[mode], "line": {"width": 2}},
                        hovertemplate="%{text}<extra></extra>",
                    )
                )
    figure.update_layout(title=f"{benchmark}: warm-up", height=420, **_LAYOUT)
    figure.update_xaxes(title="benchmark time in the process, s", type="log" if any(max(c.at, default=0) > 20 for c in curves.values()) else "linear")
    figure.update_yaxes(title="ms per iteration", type="log")
    return figure


@dataclass(frozen=True, slots=True)
class Bar:
    """A ratio with its interval."""

    value: float
    low: float
    high: float


def ratio_figure(title: str, axis: str, bars: dict[str, dict[str, Bar]], palette: dict[str, str]) -> go.Figure:
    """Bars by mode (outer key) and benchmark (inner key), on a logarithmic axis with a line at 1."""
    figure = go.Figure()
    for mode, by_benchmark in bars.items():
        values = list(by_benchmark.values())
        figure.add_trace(
            go.Bar(
                x=list(by_benchmark),
                base=1,
                y=[bar.value - 1 for bar in values],
                customdata=[[bar.value, bar.low, bar.high] for bar in values],
                hovertemplate="%{x}: %{customdata[0]:.2f} [%{customdata[1]:.2f}, %{customdata[2]:.2f}]",
                name=mode,
                marker={"color": palette.get(mode, PALETTE[0])},
                error_y={"type": "data", "symmetric": False, "array": [bar.high - bar.value for bar in values], "arrayminus": [bar.value - bar.low for bar in values]},
            )
        )
    figure.add_hline(y=1, line={"color": "black", "width": 1})
    figure.update_layout(title=title, barmode="group", height=460, **_LAYOUT)
    figure.update_yaxes(title=axis, type="log")
    return figure
