#!/usr/bin/env python3
"""Sizes of compiled code, on both architectures and in every tier, against CinderX.

    perf/codesize.py                          # the canonical call-heavy shape at N=1, 2, 200
    perf/codesize.py richards                 # and the largest functions of a benchmark, bytes per bytecode byte
    perf/codesize.py --arch x86_64 --counts 1,2,50

Sizes are exact: one sample is enough, and a busy machine does not matter. AArch64 runs under emulation on an x86-64 machine.
Writes a folder with result.json.
"""

import sys

from lab import bootstrap

bootstrap.enter()

import argparse  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
from typing import Any  # noqa: E402

from lab import errors, options, provenance, sizes  # noqa: E402
from lab.benchmarks import names  # noqa: E402
from lab.errors import LabError, WorkerFailed  # noqa: E402
from lab.modes import Mode  # noqa: E402
from lab.progress import progress, warn  # noqa: E402

DEFAULT_MODES = ("baseline", "optimizer", "cinderx")
ARCHITECTURES = ("x86_64", "aarch64")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_benchmarks(made)
    options.add_modes(made, DEFAULT_MODES)
    made.add_argument("--arch", default=",".join(ARCHITECTURES), help="comma-separated (default %(default)s)")
    made.add_argument("--counts", default="1,2,200", help="calls in the canonical shape (default %(default)s)")
    made.add_argument("--top", type=int, default=15, metavar="N", help="functions of a benchmark to list (default %(default)s)")
    made.add_argument("--iterations", type=int, default=20, metavar="N", help="iterations of a benchmark before sizes are read (default %(default)s)")
    options.add_process(made)
    options.add_output(made)
    return made


def modes_on(architecture: str, specs: list[str], named: bool) -> tuple[list[Mode], dict[str, str]]:
    """The modes that run on an architecture, and why others do not; named modes must all be there."""
    found, missing = [], {}
    for spec in specs:
        try:
            found.append(sizes.on_architecture(spec, architecture))
        except LabError as error:
            if named:
                raise
            missing[spec] = " ".join(str(error).splitlines())
            warn(f"a dash for {spec} on {architecture}: {missing[spec]}")
    return found, missing


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    if arguments.list:
        print(*names(), sep="\n")
        return 0
    if arguments.resume:
        raise LabError("codesize.py is quick and keeps no journal", "leave --resume out")
    architectures = [name for name in arguments.arch.split(",") if name]
    for name in architectures:
        if name not in ARCHITECTURES or (name != platform.machine() and platform.machine() != "x86_64"):
            raise LabError(f"cannot measure sizes for {name} here", f"architectures: {', '.join(ARCHITECTURES)}; only AArch64 is emulated, and only on x86-64")
    counts = [int(text) for text in arguments.counts.split(",")]
    benchmarks = options.chosen_benchmarks(arguments) if arguments.benchmarks else []
    specs = arguments.modes.split(",") if arguments.modes else list(DEFAULT_MODES)
    process_options = options.worker_options(arguments)
    shapes: dict[str, dict[str, Any]] = {}
    functions: dict[str, dict[str, dict[str, Any]]] = {name.name: {} for name in benchmarks}
    described: list[Mode] = []
    with progress(len(architectures) * len(specs) * (1 + len(benchmarks))) as reporter:
        for architecture in architectures:
            modes, missing = modes_on(architecture, specs, bool(arguments.modes))
            described += modes if architecture == platform.machine() else []
            shapes[architecture] = {spec: {"failed": why} for spec, why in missing.items()}
            reporter.step(architecture, advance=len(missing) * (1 + len(benchmarks)))
            for mode in modes:
                reporter.step(f"{architecture}, {mode.title}: canonical shape")
                shapes[architecture][mode.name] = attempt(sizes.canonical, mode, architecture, counts, process_options)
                reporter.step(architecture, advance=1)
                for benchmark in benchmarks:
                    reporter.step(f"{architecture}, {mode.title}: {benchmark.name}")
                    found = attempt(sizes.of_benchmark, benchmark, mode, architecture, arguments.iterations, process_options)
                    functions[benchmark.name].setdefault(architecture, {})[mode.name] = found
                    reporter.step(architecture, advance=1)
    folder = options.output_folder(arguments, "codesize")
    folder.mkdir(parents=True, exist_ok=True)
    document = {"format": 1, "tool": "codesize", "provenance": provenance.collect(described), "counts": counts, "canonical": shapes, "functions": functions}
    (folder / "result.json").write_text(json.dumps(document, indent=1) + "\n")
    sizes.canonical_table(shapes, counts).print()
    for name, by_architecture in functions.items():
        for table in sizes.function_tables(name, by_architecture, arguments.top):
            table.print()
    print(f"results: {folder}")
    return 0


def attempt(measure, *what: Any) -> dict[str, Any]:
    """A size, or why there is none: a compiler that refuses or dies is a result too."""
    try:
        return measure(*what)
    except WorkerFailed as failure:
        return {"failed": failure.reason, "detail": failure.detail}


if __name__ == "__main__":
    errors.run_main(main)
    sys.exit()
