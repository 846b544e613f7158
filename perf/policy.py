#!/usr/bin/env python3
"""Sweeps of hotstamp's policy: the hotness threshold, and each feature switched off, as interleaved comparisons.

    perf/policy.py richards deltablue
    perf/policy.py richards --thresholds 100,1000 --toggles inline
    perf/policy.py richards --mode interpreter --set PYTHON_JIT=1        # any variable, in any mode

The base is the mode as it is by default; every setting is sampled in the same rounds as the base. Writes what warm.py writes.
"""

import sys

from lab import bootstrap

bootstrap.enter()

import argparse  # noqa: E402

from lab import comparison, errors, options, tables  # noqa: E402
from lab.benchmarks import names  # noqa: E402
from lab.errors import LabError, ModeUnavailable  # noqa: E402
from lab.modes import HOTSTAMP_TIERS, Mode, parse, take_apart  # noqa: E402
from lab.progress import warn  # noqa: E402
from lab.results import Results, first_delta, warm_deltas  # noqa: E402
from lab.tables import Table  # noqa: E402
from lab.warmloop import WarmPlan  # noqa: E402

THRESHOLD = "HOTSTAMP_AUTO"
#: Features that can be switched off: name -> setting. hotstamp takes nothing from type annotations, and keeps its code in one section: there is nothing
#: of these to switch off.
TOGGLES = {
    "inline": "HOTSTAMP_INLINE=0",
    "feedback": "HOTSTAMP_FEEDBACK=0",
    "osr": "HOTSTAMP_OSR=0",
}
#: Many modes share a round, so a benchmark gets more time than in warm.py.
PLAN = WarmPlan(budget=180.0)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_benchmarks(made)
    made.add_argument("--mode", default="auto", help="the mode whose policy is swept, or several with commas, each compared with itself (default %(default)s)")
    made.add_argument("--thresholds", default="10,25,50,100,500,8000", metavar="N,...", help=f"values of {THRESHOLD} (default %(default)s); empty: none")
    made.add_argument("--toggles", default=",".join(TOGGLES), metavar="NAME,...", help=f"features to switch off, of {', '.join(TOGGLES)} (default: all); empty: none")
    made.add_argument("--set", action="append", default=[], metavar="VARIABLE=VALUE,...", help="sweep another variable instead; may be repeated")
    comparison.add_plan(made, PLAN)
    options.add_process(made)
    options.add_output(made)
    return made


def settings(arguments: argparse.Namespace) -> list[str]:
    """The settings to compare with the default, each VARIABLE=VALUE."""
    if arguments.set:
        found = []
        for text in arguments.set:
            variable, separator, values = text.partition("=")
            if not separator or not values:
                raise LabError(f"--set {text}: not VARIABLE=VALUE,...")
            found += [f"{variable}={value}" for value in values.split(",")]
        return found
    toggles = [name for name in arguments.toggles.split(",") if name]
    if unknown := [name for name in toggles if name not in TOGGLES]:
        raise LabError(f"unknown feature: {', '.join(unknown)}", f"features: {', '.join(TOGGLES)}")
    return [f"{THRESHOLD}={value}" for value in arguments.thresholds.split(",") if value] + [TOGGLES[name] for name in toggles]


def modes_for(bases: list[str], wanted: list[str]) -> tuple[list[Mode], list[str]]:
    """Each base and a mode per setting that the build knows, and a line on each that it does not."""
    if not wanted:
        raise LabError("nothing to sweep", "give --thresholds, --toggles or --set")
    modes, refused = [], []
    for base in bases:
        modes.append(parse(base))
        for setting in wanted:
            try:
                modes.append(parse(f"{base}:{setting}"))
            except ModeUnavailable as error:
                refused.append(f"{setting}: {str(error).splitlines()[0]}")
    if len(modes) == len(bases):
        raise ModeUnavailable("the build knows none of the settings:\n" + "\n".join(refused), "choose others with --thresholds, --toggles or --set")
    return modes, refused


def policy_table(results: Results, bases: list[str], modes: list[str], refused: list[str], confidence: float) -> Table:
    """One row per benchmark and setting: change of the steady time and of the first iteration against the default, of the same revision."""
    table = Table(f"change of time against {' and '.join(bases)}, {confidence:.4g} confidence", ("benchmark", "setting", "warm", "interval", "verdict", "first", "interval", "verdict"))
    swept = [(base, mode) for base in bases for mode in modes if mode.startswith(base + ":") and mode not in bases]
    for benchmark, by_mode in results.items():
        for base, mode in swept:
            setting = mode if len(bases) > 1 else mode.removeprefix(base + ":")
            if by_mode[mode].failures:
                table.notes.append(f"{benchmark}, {setting}: {by_mode[mode].reason}")
            delta = warm_deltas(by_mode[base], by_mode[mode], confidence).get("paired")
            first = first_delta(by_mode[base], by_mode[mode], confidence)
            if delta is None or first is None:
                table.add(benchmark, setting, *[tables.DASH] * 6)
                continue
            cells = [(f"{d.change:+.1%}", f"{d.interval.low:+.1%} .. {d.interval.high:+.1%}", d.verdict) for d in (delta, first)]
            table.add(benchmark, setting, *cells[0], *cells[1])
    table.notes += refused
    return table


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    if arguments.list:
        print(*names(), sep="\n")
        return 0
    bases = arguments.mode.split(",")
    if not arguments.set and (unswept := [base for base in bases if take_apart(base).base not in HOTSTAMP_TIERS]):
        raise LabError(f"{unswept[0]} has no hotness threshold or features", "sweep a variable of its own: --set VARIABLE=VALUE,...")
    benchmarks = options.chosen_benchmarks(arguments)
    modes, refused = modes_for(bases, settings(arguments))
    for line in refused:
        warn(f"left out: {line}")
    run = comparison.run("policy", arguments, benchmarks, modes, comparison.plan_from(arguments, PLAN))
    policy_table(run.results, bases, run.mode_names, refused, arguments.confidence).print()
    print(f"results: {run.folder}")
    return 0


if __name__ == "__main__":
    errors.run_main(main)
    sys.exit()
