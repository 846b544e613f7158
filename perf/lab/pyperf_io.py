"""Writing results in pyperf's format: one file per mode, one run per process, readable by `pyperf stats`, `hist`, `compare_to`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyperf

from lab.errors import LabError
from lab.results import ModeResult, Results

NS = 1e-9


def safe_name(mode: str) -> str:
    """A mode's name as a file name."""
    return "".join(c if c.isalnum() or c in "-_.=" else "_" for c in mode)


def write_modes(results: Results, modes: list[str], folder: Path, metadata: dict[str, Any]) -> dict[str, Path]:
    """Write `<mode>.json` for each mode that has samples; returns the files by mode."""
    written: dict[str, Path] = {}
    for mode in modes:
        benchmarks = [_benchmark(by_mode[mode], metadata) for by_mode in results.values() if by_mode[mode].usable]
        if benchmarks:
            path = folder / f"{safe_name(mode)}.json"
            pyperf.BenchmarkSuite(benchmarks).dump(str(path), replace=True)
            written[mode] = path
    return written


def write_values(path: Path, values_by_benchmark: dict[str, list[float]], metadata: dict[str, Any]) -> None:
    """Write plain samples in seconds, one run (process) per sample: what cold measurements are."""
    benchmarks = [
        pyperf.Benchmark([pyperf.Run([value], metadata={"name": name, "unit": "second", **_simple(metadata)}, collect_metadata=False) for value in values])
        for name, values in values_by_benchmark.items()
        if values
    ]
    if benchmarks:
        pyperf.BenchmarkSuite(benchmarks).dump(str(path), replace=True)


def load(path: Path) -> dict[str, list[float]]:
    """All values of a pyperf file, in seconds, by benchmark name."""
    try:
        suite = pyperf.BenchmarkSuite.load(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise LabError(f"{path} is not a pyperf file: {error}") from error
    return {bench.get_name(): list(bench.get_values()) for bench in suite.get_benchmarks()}


def _benchmark(result: ModeResult, metadata: dict[str, Any]) -> pyperf.Benchmark:
    return pyperf.Benchmark([_run(result, number, metadata) for number in sorted(result.samples)])


def _run(result: ModeResult, number: int, metadata: dict[str, Any]) -> pyperf.Run:
    """One process: its first iteration and warm-up as pyperf's warm-ups, its samples as values."""
    raw = result.records[number]
    inner = raw["inner_loops"]
    warmups = [(1, raw["first_ns"] / inner * NS)]
    warmups += [(loops, taken / loops / inner * NS) for loops, taken in raw["warmup"]]
    own = {
        "name": result.benchmark,
        "unit": "second",
        "loops": raw["loops"],
        "inner_loops": inner,
        "lab_mode": result.mode,
        "lab_round": number,
        "load_avg_1min": float(result.loads[number][-1]),
        "mem_max_rss": raw.get("max_rss_kib", 0) * 1024,
    }
    about = {**_simple({**metadata, "date": result.dates[number]}), **own}
    return pyperf.Run([value * NS for value in result.samples[number]], warmups=warmups, metadata=about, collect_metadata=False)


def _simple(metadata: dict[str, Any]) -> dict[str, Any]:
    """The part of a provenance that pyperf's flat metadata can hold."""
    machine = metadata.get("machine", {})
    flat = {
        "date": metadata.get("date"),
        "cpu_model_name": machine.get("processor"),
        "cpu_count": machine.get("cores"),
        "lab_architecture": machine.get("architecture"),
        "lab_kernel": machine.get("kernel"),
        "lab_revision": metadata.get("revision"),
    }
    # pyperf wants its date without a zone letter.
    if flat["date"]:
        flat["date"] = flat["date"].removesuffix("Z").replace("T", " ")
    return {name: value for name, value in flat.items() if value}
