"""A whole warm comparison as the scripts run it: plan, journal, measurement with progress, result files."""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import options, provenance, pyperf_io, results
from lab.benchmarks import Benchmark
from lab.journal import Journal
from lab.modes import Mode
from lab.progress import console, progress, rough
from lab.results import Results
from lab.warmloop import WarmPlan, estimate, measure

RESULT = "result.json"
#: Raised when the shape of result.json changes.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Run:
    """A finished comparison."""

    folder: Path
    mode_names: list[str]
    results: Results
    provenance: dict[str, Any]


#: Options that set fields of WarmPlan: (field, option, type, help).
_PLAN_OPTIONS = (
    ("rounds", "--rounds", int, "rounds of fresh processes"),
    ("warmup", "--warmup", float, "seconds of warm-up of each process"),
    ("warmups", "--warmups", int, "most such warm-ups: the further ones only while a process gets faster or its compiler is at work"),
    ("samples", "--samples", int, "samples of each process"),
    ("sample_time", "--sample-time", float, "least seconds of one sample"),
    ("sampling", "--sampling", float, "most seconds of sampling one process; at least two samples are taken"),
    ("budget", "--budget", float, "seconds per benchmark after which no further round is started; at least three are run"),
)


def add_plan(parser: argparse.ArgumentParser, default: WarmPlan | None = None) -> None:
    """How much is measured."""
    default = default or WarmPlan()
    group = parser.add_argument_group("amount")
    for field, option, kind, text in _PLAN_OPTIONS:
        group.add_argument(option, dest=field, type=_above_zero(kind), metavar="N", help=f"{text} (default {getattr(default, field)})")


def plan_option_names() -> dict[str, str]:
    """Field of the plan -> its option, for scripts that pass the plan on."""
    return {field: option for field, option, *_ in _PLAN_OPTIONS}


def _above_zero(kind):
    def convert(text: str):
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("must be above zero")
        return value

    convert.__name__ = kind.__name__
    return convert


def plan_from(arguments: argparse.Namespace, default: WarmPlan) -> WarmPlan:
    """The plan: the script's default with what the user set."""
    given = {field: getattr(arguments, field) for field, *_ in _PLAN_OPTIONS if getattr(arguments, field) is not None}
    return dataclasses.replace(default, **given)


def run(tool: str, arguments: argparse.Namespace, benchmarks: list[Benchmark], modes: list[Mode], plan: WarmPlan) -> Run:
    """Measure, keep, and write `result.json` and pyperf's files. After Ctrl-C what is finished is written too, then KeyboardInterrupt goes on."""
    folder = options.output_folder(arguments, tool)
    process_options = options.worker_options(arguments)
    circumstances = provenance.collect(modes)
    options.warn_if_busy()
    plan_json = {
        "tool": tool,
        "benchmarks": [benchmark.name for benchmark in benchmarks],
        "modes": {mode.name: provenance.describe_mode(mode) for mode in modes},
        "amount": plan.as_json(),
        "cores": process_options.cores,
        "environment": process_options.environment,
        "machine": circumstances["machine"],
    }
    names = [mode.name for mode in modes]
    expected = rough(estimate(plan, len(benchmarks), len(modes)))
    console.print(f"{len(benchmarks)} benchmarks in {len(modes)} modes: about {expected}, more where iterations are long", markup=False, soft_wrap=True)
    with Journal.open_for(folder, plan_json, resume=bool(arguments.resume)) as journal:
        try:
            with progress(len(benchmarks) * plan.rounds) as reporter:
                measure(benchmarks, modes, plan, process_options, journal, reporter)
        except KeyboardInterrupt:
            total = len(benchmarks) * plan.rounds
            console.print(f"interrupted: {len(journal.records)} of {total} rounds are kept; go on with the same command and --resume {folder}", markup=False, soft_wrap=True)
            write(folder, tool, plan_json, circumstances, journal.records, names, arguments.confidence)
            raise
        return write(folder, tool, plan_json, circumstances, journal.records, names, arguments.confidence)


def write(
    folder: Path,
    tool: str,
    plan: dict[str, Any],
    circumstances: dict[str, Any],
    records: dict[str, dict[str, Any]],
    names: list[str],
    confidence: float,
) -> Run:
    """Write a run's files from its records."""
    found = results.from_records(records, names)
    document = {
        "format": FORMAT,
        "tool": tool,
        "plan": plan,
        "provenance": circumstances,
        "base": names[0],
        "modes": names,
        "confidence": confidence,
        "summary": results.summary_json(found, names[0], confidence),
        "rounds": sorted(records.values(), key=lambda record: (record["benchmark"], record["round"])),
    }
    (folder / RESULT).write_text(json.dumps(document, indent=1) + "\n")
    if found:
        pyperf_io.write_modes(found, names, folder, circumstances)
    return Run(folder, names, found, circumstances)
