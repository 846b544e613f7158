"""Sizes of compiled code: the canonical shape, and the functions of a benchmark."""

from __future__ import annotations

import json
import platform
from typing import Any

from lab import emulation, guests, paths
from lab.benchmarks import Benchmark
from lab.emulation import Emulator
from lab.errors import LabError, WorkerFailed
from lab.modes import Mode, enabled_late, parse, stamped_at_once, why_vacuous
from lab.protocol import WorkerOptions, configuration
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
    late = mode.is_synchronous
    config = json.dumps({"jit": mode.jit, "prelude": "", "counts": counts, "late": late})
    cost = guests.run_program(stamped_at_once(enabled_late(mode) if late else mode), [str(SHAPES), config], _emulator(architecture), options)
    return json.loads(cost.stdout)


def of_benchmark(benchmark: Benchmark, mode: Mode, architecture: str, iterations: int, options: WorkerOptions) -> dict[str, Any]:
    """Every compiled function of a benchmark after some iterations, largest first, and the compiler's statistics."""
    late = mode.is_synchronous
    config = {**json.loads(configuration(benchmark, mode, once=True, late=late)), "once_more": iterations, "sizes": True}
    cost = guests.run_program(stamped_at_once(enabled_late(mode) if late else mode), [str(paths.WORKER), json.dumps(config)], _emulator(architecture), options)
    answer = guests.last_answer(cost)
    found = {name: answer[name] for name in ("functions", "statistics", "statistics_at_start")}
    if why := why_vacuous(mode, found["statistics"]):
        raise WorkerFailed(why)
    return found


def canonical_table(shapes: dict[str, dict[str, Any]], counts: list[int]) -> Table:
    """One row per architecture and mode; the second size less the first is the cost of one further call.

    The optimizer's code stands beside the stamped one, which exits go on in: `and stamped` has its size for the last N, as do code/bytecode and metadata.
    """
    per_call = [f"N={counts[1]} less N={counts[0]}"] if len(counts) > 1 else []
    table = Table("canonical shape (N times s += math.sqrt(x)), bytes of code", ("architecture", "mode", *(f"N={n}" for n in counts), *per_call, "code/bytecode", "metadata", "and stamped"))
    for architecture, by_mode in shapes.items():
        for mode, found in by_mode.items():
            if "failed" in found:
                table.add(architecture, mode, *[DASH] * (len(counts) + len(per_call) + 3))
                table.notes.append(f"{architecture}, {mode}: {found['failed']}")
                continue
            rows = [found[str(n)] for n in counts]
            step = [str(rows[1]["code_bytes"] - rows[0]["code_bytes"])] if per_call else []
            last = rows[-1]
            ratio = _ratio(last["code_bytes"], last["bytecode_bytes"])
            table.add(architecture, mode, *(str(row["code_bytes"]) for row in rows), *step, ratio, _text(last["metadata_bytes"]), _text(last.get("baseline_bytes")))
    return table


def function_tables(benchmark: str, by_architecture: dict[str, dict[str, Any]], top: int) -> list[Table]:
    """Totals per bytecode byte, and the largest functions, per architecture and mode. Functions that the benchmark had compiled, not Python's start-up.

    Where there are two tiers, `code` is the stamped code, and `optimized` what the optimizer made beside it.
    """
    columns = ("architecture", "mode", "functions", "code", "optimized", "metadata", "bytecode", "code/bytecode", "metadata/bytecode", "optimized/its bytecode")
    totals = Table(f"{benchmark}: bytes of code and metadata", columns)
    tables = [totals]
    for architecture, by_mode in by_architecture.items():
        for mode, found in by_mode.items():
            if "failed" in found:
                totals.add(architecture, mode, *[DASH] * (len(columns) - 2))
                totals.notes.append(f"{architecture}, {mode}: {found['failed']}")
                continue
            functions = found["functions"]
            code, bytecode = _sum(functions, "code_bytes"), _sum(functions, "bytecode_bytes")
            optimized_functions = [f for f in functions if f["optimized_bytes"]]
            optimized = _sum(optimized_functions, "optimized_bytes") or None
            metadata = _since_start(found, "metadata_bytes")
            ratios = _ratio(code, bytecode), _ratio(metadata, bytecode), _ratio(optimized, _sum(optimized_functions, "bytecode_bytes"))
            totals.add(architecture, mode, str(len(functions)), str(code), _text(optimized), _text(metadata), str(bytecode), *ratios)
            table = Table(f"{benchmark}, {architecture}, {mode}: largest functions", ("function", "code", "optimized", "bytecode", "code/bytecode", "optimized/bytecode"))
            for f in functions[:top]:
                optimized, bytecode = f["optimized_bytes"] or None, f["bytecode_bytes"]
                table.add(f["function"], str(f["code_bytes"]), _text(optimized), str(bytecode), _ratio(f["code_bytes"], bytecode), _ratio(optimized, bytecode))
            tables.append(table)
    return tables


def _sum(functions: list[dict[str, Any]], name: str) -> int:
    return sum(f[name] for f in functions)


def _since_start(found: dict[str, Any], name: str) -> int | None:
    """How much a counter of the compiler's grew since the benchmark began, if it counts that."""
    after = found["statistics"].get(name)
    return None if after is None else after - found["statistics_at_start"].get(name, 0)


def _ratio(count: int | None, of: int) -> str:
    return f"{count / of:.1f}" if count is not None and of else DASH


def _text(count: int | None) -> str:
    return DASH if count is None else str(count)
