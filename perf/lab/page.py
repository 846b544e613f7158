"""The report page: sections for each result folder, tables and figures, in one file without references to others."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io

from lab import archtable, coldreport, plots, results, sizes
from lab.errors import LabError
from lab.plots import Bar
from lab.tables import Table, duration

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #1a1a1a; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #e4e4e4; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #999; }
td.faster { color: #00693e; } td.slower { color: #a8321a; } td.inconclusive { color: #777; }
.about { color: #444; font-size: 13px; } .busy { background: #fff3cd; padding: .4rem .8rem; }
"""


@dataclass(frozen=True, slots=True)
class Source:
    """One result folder, read."""

    folder: Path
    tool: str
    data: dict[str, Any]


def load(folder: Path) -> Source:
    """Read a folder's result.json."""
    path = folder / "result.json"
    if not path.exists():
        raise LabError(f"no result.json in {folder}", "give folders that the lab's scripts wrote; an interrupted run has one after --resume")
    data = json.loads(path.read_text())
    if data.get("format") != 1 or data.get("tool") not in _SECTIONS:
        raise LabError(f"{path} is not a result of this lab's version", f"results of: {', '.join(_SECTIONS)}")
    return Source(folder, data["tool"], data)


class Page:
    """HTML under construction. The first figure carries plotly's script, so that the page stands alone."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._figures = 0

    def heading(self, level: int, text: str) -> None:
        self.parts.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def note(self, text: str, style: str = "about") -> None:
        self.parts.append(f'<p class="{style}">{html.escape(text)}</p>')

    def figure(self, figure: go.Figure) -> None:
        self._figures += 1
        script = self._figures == 1
        self.parts.append(plotly.io.to_html(figure, include_plotlyjs=script, full_html=False, config={"displaylogo": False, "responsive": True}))

    def table(self, table: Table) -> None:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
        rows = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in table.rows)
        self.parts.append(f'<h4>{html.escape(table.title)}</h4><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>')
        if table.notes:
            self.parts.append('<ul class="about">' + "".join(f"<li>{html.escape(note)}</li>" for note in table.notes) + "</ul>")

    def render(self) -> str:
        body = "\n".join(self.parts)
        head = f'<meta charset="utf-8"><title>hotstamp performance</title><style>{_STYLE}</style>'
        return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _cell(text: str) -> str:
    style = next((f' class="{word}"' for word in ("faster", "slower", "inconclusive") if text == word), "")
    return f"<td{style}>{html.escape(text)}</td>"


def render(sources: list[Source]) -> str:
    """The whole page."""
    page = Page()
    page.heading(1, "hotstamp performance")
    for source in sources:
        page.heading(2, f"{source.tool}: {source.folder.name}")
        if "provenance" in source.data:
            _about(page, source.data["provenance"])
        _SECTIONS[source.tool](page, source.data)
    return page.render()


def _about(page: Page, about: dict[str, Any]) -> None:
    machine = about["machine"]
    page.note(
        f"{about['date']}, revision {about['revision']}, {machine['architecture']}, {machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, load {about['load']}"
    )
    for name, facts in about["modes"].items():
        settings = " ".join(f"{variable}={value}" for variable, value in facts.get("environment", {}).items())
        page.note(f"{name}: {facts.get('python', '')} {facts.get('cinderx', '')} {facts.get('revision', '')} {settings}".strip())
    if about.get("busy"):
        page.note("The machine was busy when this run began: its times are not fit to publish.", "busy")


def _warm(page: Page, data: dict[str, Any]) -> None:
    modes, base, confidence = data["modes"], data["base"], data["confidence"]
    found = results.from_records({f"{r['benchmark']}/{r['round']}": r for r in data["rounds"]}, modes)
    palette = plots.colours(modes)
    warm: dict[str, dict[str, Bar]] = {}
    first: dict[str, dict[str, Bar]] = {}
    table = Table(f"against {base}", ("benchmark", "mode", "steady", "change", "interval", "verdict", "first", "change of first", "interval of first", "verdict of first"))
    for benchmark, by_mode in found.items():
        for mode in modes:
            result = by_mode[mode]
            if result.failures:
                table.notes.append(f"{benchmark}, {mode}: {result.reason}")
            if not result.usable:
                table.add(benchmark, mode, *["-"] * 8)
                continue
            times = duration(result.summary().median), duration(result.median_first())
            deltas = results.warm_deltas(by_mode[base], result, confidence) if mode != base else {}
            start = results.first_delta(by_mode[base], result, confidence) if deltas else None
            if not deltas or start is None:
                table.add(benchmark, mode, times[0], "", "", "", times[1], "", "", "")
                continue
            paired = deltas["paired"]
            low, high = paired.speedup_interval
            warm.setdefault(mode, {})[benchmark] = Bar(paired.speedup, low, high)
            first.setdefault(mode, {})[benchmark] = Bar(1 + start.change, 1 + start.interval.low, 1 + start.interval.high)
            cells = [(f"{d.change:+.1%}", f"{d.interval.low:+.1%} .. {d.interval.high:+.1%}", d.verdict) for d in (paired, start)]
            table.add(benchmark, mode, times[0], *cells[0], times[1], *cells[1])
    if warm:
        page.figure(plots.ratio_figure(f"warm: time of {base} / time of mode, {confidence:.0%} intervals", "higher is faster", warm, palette))
        page.figure(plots.ratio_figure(f"first iteration: mode / {base}, {confidence:.0%} intervals", "lower is faster", first, palette))
    page.table(table)
    for benchmark, by_mode in found.items():
        curves = {mode: plots.curve(result.records[min(result.records)]) for mode, result in by_mode.items() if result.records}
        if curves:
            page.figure(plots.warmup_figure(benchmark, curves, palette))


def _cold(page: Page, data: dict[str, Any]) -> None:
    modes, base = data["modes"], data["base"]
    records = {str(index): record for index, record in enumerate(data["rounds"])}
    bars: dict[str, dict[str, Bar]] = {}
    for entry in data["summary"]:
        delta = entry.get("deltas", {}).get("first_ns") or (entry.get("deltas", {}).get("wall_ns") if entry["protocol"] == "startup" else None)
        if delta and delta["high"] is not None:
            label = f"{entry['benchmark'] if entry['protocol'] != 'startup' else '-c pass'} ({entry['cores']})"
            bars.setdefault(entry["mode"], {})[label] = Bar(1 + delta["change"], 1 + delta["low"], 1 + delta["high"])
    if bars:
        page.figure(plots.ratio_figure(f"cold: first iteration, and start-up; mode / {base}", "lower is faster", bars, plots.colours(modes)))
    for table in coldreport.tables(records, modes, data["confidence"]):
        page.table(table)


def _codesize(page: Page, data: dict[str, Any]) -> None:
    page.table(sizes.canonical_table(data["canonical"], data["counts"]))
    for benchmark, by_architecture in data["functions"].items():
        for table in sizes.function_tables(benchmark, by_architecture, 15):
            page.table(table)


def _arch(page: Page, data: dict[str, Any]) -> None:
    page.table(archtable.table(data["hosts"], data["summary"], data["base"], data["confidence"]))


_SECTIONS = {"warm": _warm, "peers": _warm, "policy": _warm, "arch": _arch, "cold": _cold, "codesize": _codesize}
