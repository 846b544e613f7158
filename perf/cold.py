#!/usr/bin/env python3
"""Cold times of benchmarks: a fresh process per sample, compared between modes with confidence intervals.

    perf/cold.py richards
    perf/cold.py richards deltablue --modes interpreter,auto,cinderx --protocols first,startup
    perf/cold.py richards --protocols suite --workers 15

Protocols: startup (`-c pass`), first (first iteration, time to first result, whole process), single and fast (pyperf's
--debug-single-value and --fast), suite (`pyperformance run --fast` itself: workers survived of workers started). Each with
all cores and confined to one. Writes a folder: result.json, cold-<mode>.json (pyperf's format), journal.jsonl (for --resume).
"""

import sys

from lab import bootstrap

bootstrap.enter()

import argparse  # noqa: E402
import json  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from lab import coldloop, coldreport, errors, options, provenance  # noqa: E402
from lab.benchmarks import names  # noqa: E402
from lab.coldloop import PROTOCOLS, ColdPlan  # noqa: E402
from lab.errors import LabError  # noqa: E402
from lab.journal import Journal  # noqa: E402
from lab.progress import console, progress  # noqa: E402

DEFAULT_MODES = ("interpreter", "baseline", "optimizer", "auto")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_benchmarks(made)
    options.add_modes(made, DEFAULT_MODES)
    made.add_argument("--protocols", default="startup,first,single,fast", help=f"comma-separated, of {', '.join(PROTOCOLS)} (default %(default)s)")
    made.add_argument("--one-core", default="0", metavar="CORE", help="the core of the confined runs; empty: no confined runs (default %(default)s)")
    plan = ColdPlan()
    amount = made.add_argument_group("amount")
    amount.add_argument("--startups", type=int, default=plan.startup, metavar="N", help="processes per mode for startup (default %(default)s)")
    amount.add_argument("--firsts", type=int, default=plan.first, metavar="N", help="processes per mode for first (default %(default)s)")
    amount.add_argument("--singles", type=int, default=plan.single, metavar="N", help="commands per mode for single (default %(default)s)")
    amount.add_argument("--fasts", type=int, default=plan.fast, metavar="N", help="commands per mode for fast (default %(default)s)")
    amount.add_argument("--workers", type=int, default=plan.suite_workers, metavar="N", help="least worker processes for suite (default %(default)s)")
    options.add_process(made)
    options.add_output(made)
    return made


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    if arguments.list:
        print(*names(), sep="\n")
        return 0
    protocols = [name for name in arguments.protocols.split(",") if name]
    if unknown := [name for name in protocols if name not in PROTOCOLS]:
        raise LabError(f"unknown protocol: {', '.join(unknown)}", f"protocols: {', '.join(PROTOCOLS)}")
    if arguments.cores:
        raise LabError("cold.py measures with all cores and with one", "choose the one with --one-core")
    needs_benchmarks = protocols != ["startup"]
    benchmarks = options.chosen_benchmarks(arguments) if needs_benchmarks else []
    modes = options.chosen_modes(arguments)
    plan = ColdPlan(arguments.startups, arguments.firsts, arguments.singles, arguments.fasts, arguments.workers)
    process_options = options.worker_options(arguments)
    cores = [""] + ([arguments.one_core] if arguments.one_core else [])
    todo = coldloop.pieces(protocols, benchmarks, cores, plan)
    folder = options.output_folder(arguments, "cold")
    circumstances = provenance.collect(modes)
    options.warn_if_busy()
    plan_json = {
        "tool": "cold",
        "benchmarks": [benchmark.name for benchmark in benchmarks],
        "modes": {mode.name: provenance.describe_mode(mode) for mode in modes},
        "protocols": protocols,
        "cores": cores,
        "amount": plan.as_json(),
        "environment": process_options.environment,
        "machine": circumstances["machine"],
    }
    mode_names = [mode.name for mode in modes]
    with Journal.open_for(folder, plan_json, resume=bool(arguments.resume)) as journal:
        try:
            with progress(len(todo)) as reporter:
                coldloop.measure(todo, modes, plan, process_options, journal, reporter)
        except KeyboardInterrupt:
            console.print(
                f"interrupted: {len(journal.records)} of {len(todo)} rounds are kept; go on with the same command and --resume {folder}", markup=False, soft_wrap=True
            )
            write(folder, plan_json, circumstances, journal.records, mode_names, arguments.confidence)
            raise
        write(folder, plan_json, circumstances, journal.records, mode_names, arguments.confidence)
    for table in coldreport.tables(journal.records, mode_names, arguments.confidence):
        table.print()
    print(f"results: {folder}")
    return 0


def write(folder: Path, plan: dict[str, Any], circumstances: dict[str, Any], records: dict[str, Any], modes: list[str], confidence: float) -> None:
    """Write result.json and pyperf's files."""
    document = {
        "format": 1,
        "tool": "cold",
        "plan": plan,
        "provenance": circumstances,
        "base": modes[0],
        "modes": modes,
        "confidence": confidence,
        "summary": coldreport.summary_json(records, modes, confidence),
        "rounds": list(records.values()),
    }
    (folder / "result.json").write_text(json.dumps(document, indent=1) + "\n")
    coldreport.write_pyperf(folder, records, modes, circumstances)


if __name__ == "__main__":
    errors.run_main(main)
    sys.exit()
