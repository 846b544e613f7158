"""Cold measurement: a fresh process per sample, one per mode in each round, so that drift hits all alike.

Five protocols, each of which a user may meet:

- `startup`: `python -c pass`.
- `first`: the worker loads a benchmark and runs one iteration: that iteration, the time from the process's creation to
  its result, and what the whole process cost.
- `single`: the benchmark script by itself with pyperf's `--debug-single-value`.
- `fast`: the same with `--fast`.
- `suite`: `pyperformance run --fast`, with the environment inherited, until enough worker processes were started to
  say how many survive.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab import paths, process, provenance, pyperf_io, suite
from lab.benchmarks import Benchmark
from lab.errors import LabError
from lab.journal import Journal
from lab.modes import Mode, why_vacuous
from lab.progress import Reporter
from lab.protocol import WorkerOptions, configuration

PROTOCOLS = ("startup", "first", "single", "fast", "suite")


@dataclass(frozen=True, slots=True)
class ColdPlan:
    """How much is measured: rounds of one process per mode, by protocol."""

    startup: int = 30
    first: int = 15
    single: int = 7
    fast: int = 1
    #: Least number of pyperf worker processes started by `pyperformance run --fast`.
    suite_workers: int = 15

    def rounds(self, protocol: str) -> int:
        """Rounds of a protocol; `suite` counts its own workers."""
        return 1 if protocol == "suite" else getattr(self, protocol)

    def as_json(self) -> dict[str, Any]:
        """For the plan of a journal."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Piece:
    """One round of one protocol: the unit of the journal."""

    protocol: str
    #: None for `startup`.
    benchmark: Benchmark | None
    #: taskset's list of cores, empty for all.
    cores: str
    number: int

    @property
    def key(self) -> str:
        """The journal's key."""
        return f"{self.protocol}/{self.benchmark.name if self.benchmark else '-'}/{self.cores or 'all'}/{self.number}"


def pieces(protocols: list[str], benchmarks: list[Benchmark], cores: list[str], plan: ColdPlan) -> list[Piece]:
    """Everything to do, in order."""
    found: list[Piece] = []
    for protocol in protocols:
        subjects: list[Benchmark | None] = [None] if protocol == "startup" else list(benchmarks)
        for benchmark in subjects:
            if protocol in ("single", "fast", "suite") and benchmark.kind != "pyperf":
                continue
            found += [Piece(protocol, benchmark, core, number) for number in range(plan.rounds(protocol)) for core in cores]
    return found


def measure(todo: list[Piece], modes: list[Mode], plan: ColdPlan, options: WorkerOptions, journal: Journal, reporter: Reporter) -> None:
    """Measure every piece that the journal does not have yet."""
    for piece in todo:
        if not journal.has(piece.key):
            shift = piece.number % len(modes)
            results: dict[str, Any] = {}
            load = provenance.load()
            for mode in modes[shift:] + modes[:shift]:
                where = f"{piece.benchmark.name + ', ' if piece.benchmark else ''}{'cores ' + piece.cores if piece.cores else 'all cores'}"
                reporter.step(f"{piece.protocol}: {where}, {mode.title}")
                results[mode.name] = _measure_one(piece, mode, plan, options)
            journal.add(
                piece.key,
                {
                    "protocol": piece.protocol,
                    "benchmark": piece.benchmark.name if piece.benchmark else None,
                    "cores": piece.cores,
                    "round": piece.number,
                    "date": provenance.now(),
                    "load": [load, provenance.load()],
                    "modes": results,
                },
            )
        reporter.step(piece.protocol, advance=1)


def _measure_one(piece: Piece, mode: Mode, plan: ColdPlan, options: WorkerOptions) -> dict[str, Any]:
    env = process.environment(mode, piece.number, options.environment)
    match piece.protocol:
        case "startup":
            return _startup(piece, mode, env, options)
        case "first":
            return _first(piece, mode, env, options)
        case "single":
            return _pyperf(piece, mode, "--debug-single-value", env, options)
        case "fast":
            return _pyperf(piece, mode, "--fast", env, options)
        case "suite":
            return suite.run(piece.benchmark, mode, env, piece.cores, plan.suite_workers, options.timeout)
    raise ValueError(piece.protocol)


def _cost(cost: process.ProcessCost) -> dict[str, Any]:
    found: dict[str, Any] = {"wall_ns": cost.wall_ns, "cpu_ns": cost.cpu_ns, "max_rss_kib": cost.max_rss_kib}
    if cost.status != 0:
        found.update(failed=process.describe_status(cost.status), detail=cost.stderr)
    return found


def _startup(piece: Piece, mode: Mode, env: dict[str, str], options: WorkerOptions) -> dict[str, Any]:
    command, env = process.startup(mode, env)
    return _cost(process.run_to_end([*process.on_cores(piece.cores), *command], env, options.timeout))


def _first(piece: Piece, mode: Mode, env: dict[str, str], options: WorkerOptions) -> dict[str, Any]:
    command = [*process.on_cores(piece.cores), str(mode.python), str(paths.WORKER), configuration(piece.benchmark, mode, once=True)]
    cost = process.run_to_end(command, env, options.timeout)
    found = _cost(cost)
    answers = [json.loads(line) for line in cost.stdout.splitlines()]
    if answers and answers[-1].get("event") == "failed":
        found.update(failed=answers[-1]["error"], detail=answers[-1]["trace"])
    elif answers and "failed" not in found:
        answer = answers[-1]
        found.update(first_ns=answer["first_ns"] / answer["inner_loops"], result_ns=answer["result_clock"] - cost.start_clock, statistics=answer["statistics"])
        if why := why_vacuous(mode, answer["statistics"], brief=not mode.is_synchronous):
            found["failed"] = why
    elif "failed" not in found:
        found.update(failed="gave no result", detail=cost.stderr)
    return found


def _pyperf(piece: Piece, mode: Mode, option: str, env: dict[str, str], options: WorkerOptions) -> dict[str, Any]:
    env = process.script_environment(mode, env)
    benchmark = piece.benchmark
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.json"
        inherited = ",".join(sorted(env))
        arguments = [*benchmark.arguments, option, "--quiet", "--output", str(output), "--inherit-environ", inherited]
        cost = process.run_to_end([*process.on_cores(piece.cores), str(mode.python), str(benchmark.script), *arguments], env, options.timeout)
        found = _cost(cost)
        if "failed" in found:
            return found
        try:
            values = pyperf_io.load(output)
        except LabError as error:
            return {**found, "failed": "wrote no result", "detail": str(error)}
    own = values.get(benchmark.offered or "") or next(iter(values.values()))
    return {**found, "values": own}
