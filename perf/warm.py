#!/usr/bin/env python3
"""Warm, steady-state times of benchmarks, compared between modes with confidence intervals.

    perf/warm.py richards
    perf/warm.py richards deltablue --modes interpreter,auto,cinderx
    perf/warm.py my_script.py --modes interpreter,interpreter     # a thing against itself: inconclusive

Writes a folder: result.json (everything), <mode>.json (pyperf's format), journal.jsonl (for --resume).
"""

import sys

from lab import bootstrap

bootstrap.enter()

import argparse  # noqa: E402

from lab import comparison, errors, options, tables  # noqa: E402
from lab.benchmarks import names  # noqa: E402
from lab.results import Results, warm_deltas  # noqa: E402
from lab.tables import Table  # noqa: E402
from lab.warmloop import WarmPlan  # noqa: E402

DEFAULT_MODES = ("interpreter", "baseline", "optimizer", "auto")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_benchmarks(made)
    options.add_modes(made, DEFAULT_MODES)
    comparison.add_plan(made)
    options.add_process(made)
    options.add_output(made)
    return made


def summary_table(results: Results, modes: list[str], confidence: float) -> Table:
    """One row per benchmark and mode: location of the samples, in time per iteration."""
    table = Table("warm, time per iteration", ("benchmark", "mode", "first", "mean", "median", "trimmed", "minimum", "without 1st", "processes", "settled"))
    for benchmark, by_mode in results.items():
        for mode in modes:
            result = by_mode[mode]
            if result.failures:
                table.notes.append(f"{benchmark}, {mode}: {result.reason}")
            if not result.usable:
                table.add(benchmark, mode, *[tables.DASH] * 8)
                continue
            s = result.summary()
            times = (result.median_first(), s.mean, s.median, s.trimmed_mean, s.minimum, s.mean_without_first)
            settled = f"{len(result.samples) - result.unsettled_rounds()}/{len(result.samples)}"
            table.add(benchmark, mode, *map(tables.duration, times), str(len(result.samples)), settled)
    return table


def delta_table(results: Results, modes: list[str], confidence: float) -> Table:
    """One row per benchmark, mode and statistic: the change of time against the first mode."""
    base = modes[0]
    table = Table(f"change of time against {base}, {confidence:.4g} confidence", ("benchmark", "mode", "statistic", "change", "interval", "by", "verdict"))
    for benchmark, by_mode in results.items():
        for mode in modes[1:]:
            for name, delta in warm_deltas(by_mode[base], by_mode[mode], confidence).items():
                low, high = delta.interval.low, delta.interval.high
                table.add(benchmark, mode, name, f"{delta.change:+.1%}", f"{low:+.1%} .. {high:+.1%}", delta.interval.method, delta.verdict)
    return table


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    if arguments.list:
        print(*names(), sep="\n")
        return 0
    benchmarks = options.chosen_benchmarks(arguments)
    modes = options.chosen_modes(arguments)
    run = comparison.run("warm", arguments, benchmarks, modes, comparison.plan_from(arguments, WarmPlan()))
    summary_table(run.results, run.mode_names, arguments.confidence).print()
    if len(modes) > 1:
        delta_table(run.results, run.mode_names, arguments.confidence).print()
    print(f"results: {run.folder}")
    return 0


if __name__ == "__main__":
    errors.run_main(main)
    sys.exit()
