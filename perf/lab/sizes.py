"""Sizes of compiled code: the canonical shape, and the functions of a benchmark."""

from __future__ import annotations

import json
import platform
from typing import Any

from lab import emulation, guests, paths
from lab.benchmarks import Benchmark
from lab.emulation import Emulator
from lab.errors import LabError, WorkerFailed
from lab.modes import Mode, parse, why_vacuous
from lab.protocol import Worker, WorkerOptions, configuration
from lab.tables import DASH, Table

SHAPES = paths.PERF / "lab" / "shapes.py"
#: Compilers whose functions have a size to ask for.
SIZED = ("hotstamp", "cinderx")


def on_architecture(spec: str, architecture: str) -> Mode:
    """The mode on an architecture: this machine's, or the emulated one."""
    mode = parse(spec) if architecture == platform.machine() else emulation.guest_mode(spec)
    if mode.jit not in SIZED:
        raise LabError(f"{spec}: there are no sizes to ask it for", "modes with sizes: hotstamp's and cinderx")
    return mode


def _emulator(architecture: str) -> Emulator:
    return Emulator((), {}) if architecture == platform.machine() else emulation.static_emulator()


def canonical(mode: Mode, architecture: str, counts: list[int], options: WorkerOptions) -> dict[str, Any]:
    """Bytes of code, metadata and bytecode of the canonical shape, by N (as text)."""
    # The prelude of a mode compiles by itself in the background; here the shape is compiled on request.
    config = json.dumps({"jit": mode.jit, "prelude": "", "counts": counts})
    cost = guests.run_program(mode, [str(SHAPES), config], _emulator(architecture), options)
    return json.loads(cost.stdout)


def of_benchmark(benchmark: Benchmark, mode: Mode, architecture: str, iterations: int, options: WorkerOptions) -> dict[str, Any]:
    """Every compiled function of a benchmark after some iterations, largest first, and the compiler's statistics."""
    if architecture != platform.machine():
        emulator = emulation.static_emulator()
        config = {**json.loads(configuration(benchmark, mode, once=True)), "once_more": iterations, "sizes": True}
        cost = guests.run_program(mode, [str(paths.WORKER), json.dumps(config)], emulator, options)
        answer = guests.last_answer(cost)
        found = {"functions": answer["functions"], "statistics": answer["statistics"]}
    else:
        with Worker(benchmark, mode, 0, options) as worker:
            for _ in range(iterations):
                worker.first()
            found = worker.sizes()
    if why := why_vacuous(mode, found["statistics"]):
        raise WorkerFailed(why)
    return found


def canonical_table(shapes: dict[str, dict[str, Any]], counts: list[int]) -> Table:
    """One row per architecture and mode; the second size less the first is the cost of one further call."""
    per_call = [f"N={counts[1]} less N={counts[0]}"] if len(counts) > 1 else []
    table = Table("canonical shape (N times s += math.sqrt(x)), bytes of code", ("architecture", "mode", *(f"N={n}" for n in counts), *per_call, "code/bytecode", "metadata"))
    for architecture, by_mode in shapes.items():
        for mode, found in by_mode.items():
            if "failed" in found:
                table.add(architecture, mode, *[DASH] * (len(counts) + len(per_call) + 2))
                table.notes.append(f"{architecture}, {mode}: {found['failed']}")
                continue
            rows = [found[str(n)] for n in counts]
            step = [str(rows[1]["code_bytes"] - rows[0]["code_bytes"])] if per_call else []
            last = rows[-1]
            metadata = DASH if last["metadata_bytes"] is None else str(last["metadata_bytes"])
            table.add(architecture, mode, *(str(row["code_bytes"]) for row in rows), *step, f"{last['code_bytes'] / last['bytecode_bytes']:.1f}", metadata)
    return table


def function_tables(benchmark: str, by_architecture: dict[str, dict[str, Any]], top: int) -> list[Table]:
    """The largest functions per architecture and mode, and totals per bytecode byte."""
    totals = Table(f"{benchmark}: bytes of code and metadata", ("architecture", "mode", "functions", "code", "metadata", "bytecode", "code/bytecode", "metadata/bytecode"))
    tables = [totals]
    for architecture, by_mode in by_architecture.items():
        for mode, found in by_mode.items():
            if "failed" in found:
                totals.add(architecture, mode, *[DASH] * 6)
                totals.notes.append(f"{architecture}, {mode}: {found['failed']}")
                continue
            functions = found["functions"]
            code = sum(f["code_bytes"] for f in functions)
            bytecode = sum(f["bytecode_bytes"] for f in functions)
            metadata = found["statistics"].get("metadata_bytes")
            ratio = lambda count: f"{count / bytecode:.1f}" if bytecode and count is not None else DASH  # noqa: E731
            totals.add(architecture, mode, str(len(functions)), str(code), DASH if metadata is None else str(metadata), str(bytecode), ratio(code), ratio(metadata))
            table = Table(f"{benchmark}, {architecture}, {mode}: largest functions", ("function", "code", "bytecode", "code/bytecode"))
            for f in functions[:top]:
                table.add(f["function"], str(f["code_bytes"]), str(f["bytecode_bytes"]), f"{f['code_bytes'] / f['bytecode_bytes']:.1f}")
            tables.append(table)
    return tables
