"""Running AArch64 programs from this machine: whole processes, with results and exact instruction counts."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from lab import emulation, paths, process
from lab.benchmarks import Benchmark
from lab.emulation import Emulator
from lab.errors import WorkerFailed
from lab.modes import Mode, enabled_late, stamped_at_once
from lab.protocol import WorkerOptions, configuration


def environment(mode: Mode, emulator: Emulator, options: WorkerOptions) -> dict[str, str]:
    """A measured process's environment, always with hash seed 0: counts must repeat."""
    return {**process.environment(mode, 0, options.environment), **emulator.environment}


def run_program(mode: Mode, arguments: list[str], emulator: Emulator, options: WorkerOptions, *, fixed_addresses: bool = False) -> process.ProcessCost:
    """Run the mode's Python with `arguments` under an emulator; a death raises WorkerFailed.

    `fixed_addresses` switches address randomisation off: hashes of objects are addresses, and shape sets and dictionaries.
    """
    fixed = [process.tool("setarch", "util-linux"), "-R"] if fixed_addresses else []
    cost = process.run_to_end([*process.on_cores(options.cores), *fixed, *emulator.command, str(mode.python), *arguments], environment(mode, emulator, options), options.timeout)
    if cost.status != 0:
        # A Python that raised says why in its last line.
        last = cost.stderr.strip().splitlines()[-1:] if cost.status == 1 else []
        raise WorkerFailed(last[0] if last else process.describe_status(cost.status), cost.stderr)
    return cost


def counted(benchmark: Benchmark, mode: Mode, loops: int, options: WorkerOptions) -> dict[str, Any]:
    """Run `loops` iterations under the counting emulator.

    Gives what each iteration executed (`by_iteration`; some hundred instructions of each are the mark that the worker makes between two), what
    went before them (`before`), and the worker's own answer.
    """
    emulator = emulation.plugin_emulator()
    with tempfile.TemporaryDirectory() as folder:
        total = Path(folder) / "count"
        counting = Emulator((emulator.command[0], "-plugin", f"{emulation.plugin()},out={total}", *emulator.command[1:]), emulator.environment)
        # Nothing of Python's start-up is compiled: in tier optimizer that takes an emulator minutes, and cancels out.
        late = mode.jit == "hotstamp"
        if late:
            mode = stamped_at_once(enabled_late(mode))
        config = {**json.loads(configuration(benchmark, mode, once=True, late=late)), "count": loops}
        cost = run_program(mode, [str(paths.WORKER), json.dumps(config)], counting, options, fixed_addresses=True)
        answer = last_answer(cost)
        if not total.exists():
            raise WorkerFailed("the counting plugin wrote nothing", cost.stderr)
        _, *marks = map(int, total.read_text().split())
        if len(marks) != loops + 1:
            raise WorkerFailed(f"{len(marks)} marks were made, not one around each of {loops} iterations", cost.stderr)
        return {**answer, "before": marks[0], "by_iteration": [end - begin for begin, end in pairwise(marks)]}


def last_answer(cost: process.ProcessCost) -> dict[str, Any]:
    """The worker's last line; WorkerFailed if it says so."""
    lines = cost.stdout.splitlines()
    if not lines:
        raise WorkerFailed("gave no result", cost.stderr)
    answer = json.loads(lines[-1])
    if answer.get("event") == "failed":
        raise WorkerFailed(answer["error"], answer["trace"])
    return answer
