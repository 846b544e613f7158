#!/usr/bin/env python3
"""The same samples on several hosts, compared: this machine, emulated AArch64, and real AArch64 over ssh.

    perf/arch.py richards --hosts local,emulated
    perf/arch.py richards nbody --hosts local,ssh:me@board --modes interpreter,auto

Hosts: `local` (times), `emulated` (AArch64 on an x86-64 machine: executed guest instructions, exact and repeatable, and code
sizes; no times), `ssh:[USER@]HOST[:PORT]` (times there). An ssh host gets this checkout's commit, perf/setup and, for hotstamp's modes, ci/build
(minutes the first time; what it lacks is said), unless --remote-dir names a checkout there that is ready. Writes a folder: result.json, and one object per host.
"""

import sys

from lab import bootstrap

bootstrap.enter()

import argparse  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402

from lab import archtable, comparison, errors, hosts, options, remote  # noqa: E402
from lab.benchmarks import names  # noqa: E402
from lab.errors import LabError  # noqa: E402
from lab.hosts import Counting  # noqa: E402
from lab.journal import Journal  # noqa: E402
from lab.modes import HOTSTAMP_TIERS, take_apart  # noqa: E402
from lab.progress import console, progress  # noqa: E402
from lab.warmloop import WarmPlan  # noqa: E402

DEFAULT_MODES = ("interpreter", "baseline", "optimizer")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_benchmarks(made)
    options.add_modes(made, DEFAULT_MODES)
    made.add_argument("--hosts", default="local,emulated", help="comma-separated (default %(default)s)")
    made.add_argument("--remote-dir", metavar="DIR", help="a checkout on the ssh hosts that is set up and built; nothing is sent then")
    made.add_argument("--remote-home", metavar="DIR", default=remote.HOME, help="where on the ssh hosts a commit is sent to (default %(default)s, under their home)")
    made.add_argument("--ssh-option", action="append", default=[], metavar="OPTION", help="passed to ssh as -o; may be repeated")
    made.add_argument("--count-warm", type=int, default=Counting().warm, metavar="N", help="emulated iterations before those that count (default %(default)s)")
    made.add_argument("--count-loops", type=int, default=Counting().loops, metavar="N", help="emulated iterations that count (default %(default)s)")
    made.add_argument("--emit", action="store_true", help="print the local host's object on stdout and nothing else (what an ssh host is asked for)")
    comparison.add_plan(made)
    options.add_process(made)
    options.add_output(made)
    return made


def check_hosts(chosen: list[str]) -> None:
    """Refuse unknown hosts before anything is measured."""
    for host in chosen:
        if host not in ("local", "emulated") and not host.startswith("ssh:"):
            raise LabError(f"unknown host: {host}", "hosts: local, emulated, ssh:[USER@]HOST[:PORT]")
    if "emulated" in chosen and platform.machine() != "x86_64":
        raise LabError("only x86-64 machines emulate AArch64", "leave `emulated` out of --hosts")


def for_remote(arguments: argparse.Namespace, benchmarks: list[str], specs: list[str]) -> list[str]:
    """The options that an ssh host's arch.py is given, so that it takes the same samples."""
    passed = [*benchmarks, "--modes", ",".join(specs), "--confidence", str(arguments.confidence), "--timeout", str(arguments.timeout)]
    if arguments.cores:
        passed += ["--cores", arguments.cores]
    for setting in arguments.env:
        passed += ["--env", setting]
    for field, option in comparison.plan_option_names().items():
        if (value := getattr(arguments, field)) is not None:
            passed += [option, str(value)]
    return passed


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    if arguments.list:
        print(*names(), sep="\n")
        return 0
    chosen = [host for host in arguments.hosts.split(",") if host]
    check_hosts(chosen)
    benchmarks = options.chosen_benchmarks(arguments)
    folder = options.output_folder(arguments, "arch")
    specs = arguments.modes.split(",") if arguments.modes else list(DEFAULT_MODES)
    collected = []
    for host in chosen:
        say = lambda text: console.print(text, markup=False, soft_wrap=True)  # noqa: E731
        if host == "local":
            modes = options.chosen_modes(arguments)
            own = argparse.Namespace(**{**vars(arguments), "out": folder / "local", "resume": folder / "local" if arguments.resume else None})
            collected.append(hosts.from_run(comparison.run("arch", own, benchmarks, modes, comparison.plan_from(arguments, WarmPlan()))))
        elif host == "emulated":
            collected.append(count_emulated(arguments, benchmarks, specs, folder))
        else:
            there = remote.parse(host, arguments.remote_dir, arguments.ssh_option, arguments.remote_home)
            needs_build = any(take_apart(spec).base in HOTSTAMP_TIERS for spec in specs)
            collected.append(remote.collect(there, for_remote(arguments, [b.name for b in benchmarks], specs), needs_build, say))
    if arguments.emit:
        print(json.dumps(collected[0]))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    base = specs[0]
    summary = archtable.summary(collected, base, arguments.confidence)
    document = {"format": 1, "tool": "arch", "base": base, "confidence": arguments.confidence, "summary": summary, "hosts": collected}
    (folder / "result.json").write_text(json.dumps(document, indent=1) + "\n")
    archtable.table(collected, summary, base, arguments.confidence).print()
    print(f"results: {folder}")
    return 0


def count_emulated(arguments: argparse.Namespace, benchmarks, specs: list[str], folder):
    """Count under emulation, resumable."""
    counting = Counting(arguments.count_warm, arguments.count_loops)
    if counting.warm < 1 or counting.loops < 1:
        raise LabError("--count-warm and --count-loops must be at least 1")
    plan = {"tool": "arch emulated", "benchmarks": [b.name for b in benchmarks], "modes": specs, "counting": [counting.warm, counting.loops]}
    home = folder / "emulated"
    with Journal.open_for(home, plan, resume=bool(arguments.resume) and home.exists()) as journal, progress(len(benchmarks) * len(specs)) as reporter:

        def keep(key: str, figure: dict) -> None:
            journal.add(key, figure)
            reporter.step(key, advance=1)

        return hosts.emulated(benchmarks, specs, counting, options.worker_options(arguments), reporter.step, dict(journal.records), keep)


if __name__ == "__main__":
    errors.run_main(main)
    sys.exit()
