"""Command-line options that several scripts share."""

from __future__ import annotations

import argparse
from pathlib import Path

from lab import paths, provenance
from lab.benchmarks import Benchmark, find_all
from lab.errors import LabError, ModeUnavailable
from lab.modes import ALL_MODES, Mode, available, parse_all
from lab.progress import warn
from lab.protocol import ANSWER_TIMEOUT, WorkerOptions


def add_benchmarks(parser: argparse.ArgumentParser, *, default: str = "") -> None:
    """Positional benchmark names."""
    text = "benchmarks: names (--list shows them), groups (peers, micro), or paths of scripts with a bench()"
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=text + (f"; default: {default}" if default else ""))
    parser.add_argument("--list", action="store_true", help="print the names of all benchmarks and leave")
    parser.set_defaults(benchmarks_default=default)


def add_modes(parser: argparse.ArgumentParser, default: tuple[str, ...]) -> None:
    """--modes and what belongs to it."""
    parser.add_argument(
        "-m",
        "--modes",
        help=f"comma-separated, the first is the base of comparisons; each NAME[@REVISION][:VARIABLE=VALUE]..., NAME one of {', '.join(ALL_MODES)};"
        f" default: those of {','.join(default)} that are installed",
    )
    parser.add_argument("--jitlist", type=Path, metavar="FILE", help="for mode jitlist: the functions to compile, one module:qualname a line")
    parser.set_defaults(modes_default=default)


def add_process(parser: argparse.ArgumentParser) -> None:
    """How measured processes are started."""
    parser.add_argument("--cores", default="", metavar="LIST", help="cores that measured processes may use, in taskset's syntax; default: all")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="add to the environment of every measured process")
    parser.add_argument("--timeout", type=float, default=ANSWER_TIMEOUT, metavar="SECONDS", help="give a silent process up after this (default %(default)g)")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where results go."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, metavar="DIR", help="folder for the results; default: a new one in perf/out")
    where.add_argument("--resume", type=Path, metavar="DIR", help="go on with the interrupted run in DIR; same settings as before")
    parser.add_argument("--confidence", type=_confidence, default=0.95, help="of the intervals (default %(default)s)")


def _confidence(text: str) -> float:
    value = float(text)
    if not 0.5 < value < 1:
        raise argparse.ArgumentTypeError("must lie between 0.5 and 1")
    return value


def chosen_benchmarks(arguments: argparse.Namespace) -> list[Benchmark]:
    """The benchmarks named, or the default."""
    names = arguments.benchmarks or ([arguments.benchmarks_default] if arguments.benchmarks_default else [])
    if not names:
        raise LabError("no benchmark named", "for example: richards; --list names them all")
    return find_all(names)


def chosen_modes(arguments: argparse.Namespace, least: int = 1) -> list[Mode]:
    """The modes named, all of which must be there; or those of the default that are, with a warning on the others."""
    if arguments.modes:
        modes = parse_all([spec.strip() for spec in arguments.modes.split(",") if spec.strip()], arguments.jitlist)
    else:
        modes, missing = available(arguments.modes_default)
        for line in missing:
            warn(f"left out: {line}")
    if len(modes) < least:
        raise ModeUnavailable(f"{least} modes are needed, {len(modes)} can run here", "run: perf/setup, ci/setup and ci/build; or name others with --modes")
    return _distinct(modes)


def _distinct(modes: list[Mode]) -> list[Mode]:
    """A mode given twice (to compare a thing with itself) gets numbered names."""
    import dataclasses

    seen: dict[str, int] = {}
    out = []
    for mode in modes:
        seen[mode.name] = count = seen.get(mode.name, 0) + 1
        out.append(mode if count == 1 else dataclasses.replace(mode, name=f"{mode.name}#{count}"))
    return out


def worker_options(arguments: argparse.Namespace) -> WorkerOptions:
    """From --cores, --env and --timeout."""
    extra = {}
    for setting in arguments.env:
        name, separator, value = setting.partition("=")
        if not separator or not name:
            raise LabError(f"--env {setting}: not NAME=VALUE")
        extra[name] = value
    return WorkerOptions(cores=arguments.cores, environment=extra, timeout=arguments.timeout)


def output_folder(arguments: argparse.Namespace, tool: str) -> Path:
    """The run's folder (not made yet)."""
    if arguments.resume:
        return arguments.resume
    if arguments.out:
        return arguments.out
    stamp = provenance.now().replace(":", "").replace("-", "")
    return paths.out_home() / f"{tool}-{stamp}"


def warn_if_busy() -> None:
    """Say so when other work is running: times will be noisy."""
    if provenance.is_busy():
        warn(f"the machine is busy (load {provenance.load()}): intervals will be wide, and figures are not fit to publish")
