#!/usr/bin/env python3
"""hotstamp beside its peers: the interpreter, CPython's JIT, CinderX and PyPy, on the same benchmarks by the same protocol.

    perf/peers.py                        # the whole table: under an hour on 2 cores
    perf/peers.py richards nbody         # some of it
    perf/peers.py --results              # the whole table, written into perf/RESULTS.md too

Installs the peers if they are missing (perf/setup). Warm is interpreter time over peer time, higher is better; first is
the peer's first iteration over the interpreter's, lower is better. What a peer cannot run is a dash, with the reason
beneath the table.
"""

import sys

from lab import bootstrap

bootstrap.enter()

import argparse  # noqa: E402
import json  # noqa: E402
import subprocess  # noqa: E402

from lab import comparison, errors, options, paths, peertable, process  # noqa: E402
from lab.benchmarks import names  # noqa: E402
from lab.errors import LabError, ModeUnavailable  # noqa: E402
from lab.modes import Mode, parse, parse_all  # noqa: E402
from lab.progress import console, warn  # noqa: E402
from lab.warmloop import WarmPlan  # noqa: E402

DEFAULT_MODES = ("interpreter", "auto", "jit", "cinderx", "pypy")
#: 50 s per benchmark: 45 benchmarks and the micro-loops in under an hour, the slow ones' least rounds included.
PLAN = WarmPlan(warmups=4, samples=8, budget=50.0)
STARTUPS = 20


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_benchmarks(made, default="peers and micro")
    options.add_modes(made, DEFAULT_MODES)
    comparison.add_plan(made, PLAN)
    made.add_argument("--results", action="store_true", help="also write the table into perf/RESULTS.md")
    made.add_argument("--no-setup", action="store_true", help="do not install missing peers")
    options.add_process(made)
    options.add_output(made)
    return made


def peers(arguments: argparse.Namespace) -> tuple[list[Mode], dict[str, str]]:
    """The modes that run here, and why the others of the default do not. Modes that were named must all run."""
    if arguments.modes:
        return parse_all(arguments.modes.split(","), arguments.jitlist), {}
    found: list[Mode] = []
    missing: dict[str, str] = {}
    for name in DEFAULT_MODES:
        try:
            found.append(parse(name))
        except ModeUnavailable as error:
            missing[name] = " ".join(str(error).splitlines())
            warn(f"a column of dashes for {name}: {missing[name]}")
    return found, missing


def install_missing() -> None:
    """Run perf/setup when a peer is not there."""
    if all(python.exists() for python in (paths.WORKERS, paths.CINDERX, paths.PYPY)):
        return
    console.print("installing peers: perf/setup", markup=False)
    if subprocess.run([paths.PERF / "setup"]).returncode != 0:
        raise LabError("perf/setup failed", "its messages above say why; --no-setup goes on with what is there")


def startup_times(modes: list[Mode]) -> dict[str, list[float]]:
    """Wall time in ns and peak memory in KiB of `-c pass`: medians of interleaved fresh processes, by mode."""
    import numpy as np

    taken: dict[str, list[tuple[int, int]]] = {mode.name: [] for mode in modes}
    for number in range(STARTUPS):
        for mode in modes:
            cost = process.run_to_end(*process.startup(mode, process.environment(mode, number, {})), 60)
            if cost.status == 0:
                taken[mode.name].append((cost.wall_ns, cost.max_rss_kib))
    return {name: list(np.median(costs, axis=0)) for name, costs in taken.items() if costs}


def main(argv: list[str]) -> int:
    made = parser()
    arguments = made.parse_args(argv)
    if arguments.list:
        print(*names(), sep="\n")
        return 0
    if not arguments.no_setup:
        install_missing()
    if arguments.results and (arguments.benchmarks or arguments.modes):
        made.error("--results wants the whole table: name no benchmarks and no modes")
    arguments.benchmarks = arguments.benchmarks or ["peers", "micro"]
    benchmarks = options.chosen_benchmarks(arguments)
    modes, missing = peers(arguments)
    if len(modes) < 2:
        raise ModeUnavailable("there is nothing to compare with", "run: perf/setup and ci/build")
    run = comparison.run("peers", arguments, benchmarks, modes, comparison.plan_from(arguments, PLAN))
    startup = startup_times(modes)
    columns = [*DEFAULT_MODES] if not arguments.modes else run.mode_names
    table = peertable.peers_table(run, columns, missing, arguments.confidence)
    extra = peertable.startup_table(columns, startup)
    table.print()
    extra.print()
    (run.folder / "peers.json").write_text(json.dumps(peertable.as_json(run, columns, missing, startup, arguments.confidence), indent=1) + "\n")
    document = peertable.document(run, table, extra)
    (run.folder / "peers.md").write_text(document)
    if arguments.results:
        results = paths.PERF / "RESULTS.md"
        results.write_text(peertable.published(results.read_text() if results.exists() else "", document))
        print("written: perf/RESULTS.md")
    print(f"results: {run.folder}")
    return 0


if __name__ == "__main__":
    errors.run_main(main)
    sys.exit()
