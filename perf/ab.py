#!/usr/bin/env python3
"""Two revisions of hotstamp, built side by side and measured by any of the lab's scripts, interleaved.

    perf/ab.py HEAD~1 HEAD warm richards deltablue
    perf/ab.py v1 . cold richards --protocols first --tiers baseline
    perf/ab.py main my-branch codesize

A revision is a commit, branch or tag; `.` is the checkout as it is built now. Each is built once, in the cache. What follows
the script's name goes to it; --tiers (default auto) says in which of hotstamp's modes.
"""

import sys

from lab import bootstrap

bootstrap.enter()

import argparse  # noqa: E402
import importlib  # noqa: E402

from lab import builds, errors  # noqa: E402
from lab.errors import LabError  # noqa: E402
from lab.modes import HOTSTAMP_TIERS  # noqa: E402

#: The scripts that compare modes.
TOOLS = ("warm", "cold", "codesize", "peers", "arch", "policy")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("base", metavar="REV", help="the base of the comparison")
    made.add_argument("candidate", metavar="REV", help="what is compared with it")
    made.add_argument("tool", choices=TOOLS, help="the script that measures")
    made.add_argument("--tiers", default="auto", help=f"comma-separated, of {', '.join(HOTSTAMP_TIERS)} (default %(default)s)")
    return made


def modes(base: str, candidate: str, tiers: list[str]) -> list[str]:
    """The modes to compare: each tier at both revisions, the base first."""
    if unknown := [tier for tier in tiers if tier not in HOTSTAMP_TIERS]:
        raise LabError(f"not a mode of hotstamp: {', '.join(unknown)}", f"modes: {', '.join(HOTSTAMP_TIERS)}")
    if base == candidate:
        raise LabError(f"both revisions are {base}", "name two; a thing against itself: perf/warm.py ... --modes auto,auto")
    at = lambda tier, revision: tier if revision == "." else f"{tier}@{revision}"  # noqa: E731
    return [at(tier, revision) for tier in tiers for revision in (base, candidate)]


def main(argv: list[str]) -> int:
    arguments, rest = parser().parse_known_args(argv)
    if any(option in ("-m", "--modes", "--mode") or option.startswith(("--modes=", "--mode=")) for option in rest):
        raise LabError("ab.py chooses the modes itself", "say --tiers instead of --modes")
    wanted = modes(arguments.base, arguments.candidate, arguments.tiers.split(","))
    revisions = [revision for revision in (arguments.base, arguments.candidate) if revision != "."]
    if len({builds.commit_of(revision) for revision in revisions}) < len(revisions):
        raise LabError(f"{' and '.join(revisions)} are one commit", "name two; a thing against itself: perf/warm.py ... --modes auto,auto")
    # Loaded before the builds: they take minutes, in which this checkout's own files may change.
    tool = importlib.import_module(arguments.tool)
    # Built first, one after the other: no build may run while something is measured.
    for revision in (arguments.base, arguments.candidate):
        builds.current() if revision == "." else builds.at_revision(revision)
    return tool.main([*rest, "--mode" if arguments.tool == "policy" else "--modes", ",".join(wanted)])


if __name__ == "__main__":
    errors.run_main(main)
    sys.exit()
