"""Hosts that arch.py collects samples on: this machine, this machine's emulated AArch64, and others over ssh.

Collecting gives one plain object per host: `host`, `provenance`, and `benchmarks` -> mode -> the figures, of one kind per host:

- `time`: samples in ns per iteration, by round, steady and first, plus the code size of each mode that has one;
- `instructions`: executed guest instructions per iteration, exact, plus code sizes.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from typing import Any

from lab import emulation, guests, paths, process, provenance
from lab.benchmarks import Benchmark
from lab.errors import LabError, ModeUnavailable, WorkerFailed
from lab.modes import Mode, why_vacuous
from lab.protocol import WorkerOptions

#: Where a checkout is put on an ssh host that has none, under its home.
REMOTE_HOME = ".cache/hotstamp/arch"


@dataclass(frozen=True, slots=True)
class Counting:
    """How emulated instructions are counted: iterations before, and iterations that count."""

    warm: int = 3
    loops: int = 3


def emulated(benchmarks: list[Benchmark], specs: list[str], counting: Counting, options: WorkerOptions, say, done: dict[str, Any] | None = None, keep=None) -> dict[str, Any]:
    """Count instructions on emulated AArch64: the difference of two runs that differ in their iterations alone.

    `done` holds what an earlier, interrupted collection finished, `keep(key, figure)` stores each new figure.
    """
    done = done or {}
    found: dict[str, Any] = {}
    described: dict[str, str] = {}
    for spec in specs:
        try:
            mode = emulation.guest_mode(spec)
        except ModeUnavailable as error:
            for benchmark in benchmarks:
                found.setdefault(benchmark.name, {})[spec] = {"failed": " ".join(str(error).splitlines())}
            continue
        described[spec] = mode.revision or str(mode.base)
        for benchmark in benchmarks:
            key = f"emulated/{benchmark.name}/{spec}"
            if key not in done:
                say(f"emulated AArch64: {benchmark.name}, {mode.title}")
                done[key] = _count(benchmark, mode, counting, options)
                if keep:
                    keep(key, done[key])
            found.setdefault(benchmark.name, {})[spec] = done[key]
    about = {"date": provenance.now(), "machine": {**provenance.machine(), "architecture": "aarch64", "emulated": True}, "revision": provenance.git_revision(), "modes": described}
    return {"host": "emulated", "kind": "instructions", "provenance": about, "benchmarks": found}


def _count(benchmark: Benchmark, mode: Mode, counting: Counting, options: WorkerOptions) -> dict[str, Any]:
    try:
        few = guests.counted(benchmark, mode, counting.warm, options)
        many = guests.counted(benchmark, mode, counting.warm + counting.loops, options)
    except WorkerFailed as failure:
        return {"failed": failure.reason, "detail": failure.detail}
    if why := why_vacuous(mode, many["statistics"]):
        return {"failed": why}
    figure: dict[str, Any] = {
        "instructions": (many["instructions"] - few["instructions"]) / counting.loops / many["inner_loops"],
        "first_and_startup": few["instructions"],
        "iterations": [counting.warm, counting.loops],
    }
    if "code_bytes" in many["statistics"]:
        figure["code_bytes"] = many["statistics"]["code_bytes"]
    return figure


def from_run(run) -> dict[str, Any]:
    """A finished warm comparison (lab.comparison.Run) as a collected object."""
    found: dict[str, Any] = {}
    for benchmark, by_mode in run.results.items():
        for name, result in by_mode.items():
            figure: dict[str, Any] = {"samples": {str(n): values for n, values in result.samples.items()}, "firsts": {str(n): value for n, value in result.firsts.items()}}
            if not result.usable:
                figure = {"failed": result.reason or "not measured"}
            elif "code_bytes" in (last := result.records[max(result.records)].get("statistics", {})):
                figure["code_bytes"] = last["code_bytes"]
            found.setdefault(benchmark, {})[name] = figure
    return {"host": "local", "kind": "time", "provenance": run.provenance, "benchmarks": found}


@dataclass(frozen=True, slots=True)
class Remote:
    """An ssh host: `ssh:[USER@]HOST[:PORT]`."""

    name: str
    target: str
    port: int | None
    #: The checkout there; None: this one's commit is sent.
    folder: str | None
    #: ssh's own -o options.
    ssh_options: tuple[str, ...] = ()

    def command(self, text: str) -> list[str]:
        """ssh with a command for the remote shell."""
        options = [part for option in ("BatchMode=yes", *self.ssh_options) for part in ("-o", option)]
        port = ["-p", str(self.port)] if self.port else []
        return [process.tool("ssh", "openssh-client"), *options, *port, self.target, text]


def remote(spec: str, folder: str | None, ssh_options: list[str]) -> Remote:
    """Parse `ssh:[USER@]HOST[:PORT]`."""
    target = spec.removeprefix("ssh:")
    host, separator, port = target.rpartition(":")
    if separator and not host.endswith("]") and ":" in host:
        host, separator = target, ""  # a bare IPv6 address
    if not separator:
        host, port = target, ""
    if not host or (port and not port.isdecimal()):
        raise LabError(f"{spec}: not ssh:[USER@]HOST[:PORT]")
    return Remote(spec, host, int(port) if port else None, folder, tuple(ssh_options))


def collect_remote(host: Remote, arguments: list[str], prepare: bool, say) -> dict[str, Any]:
    """Run arch.py on the host and read its object. `prepare`: build and set up there first."""
    folder = host.folder or _send(host, say)
    if prepare and host.folder is None:
        say(f"{host.name}: setting up and building there")
        _ssh(host, f"cd {shlex.quote(folder)} && perf/setup && ci/build", "setting up")
    say(f"{host.name}: measuring")
    command = " ".join(shlex.quote(part) for part in ["perf/arch.py", "--hosts", "local", "--emit", *arguments])
    output = _ssh(host, f"cd {shlex.quote(folder)} && {command}", "measuring")
    try:
        found = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        raise LabError(f"{host.name}: perf/arch.py there printed no result", f"try it there: cd {folder} && {command}") from None
    found["host"] = host.name
    return found


def _send(host: Remote, say) -> str:
    """Put this checkout's commit on the host; returns its folder there, relative to the home."""
    revision = provenance.git_revision().removesuffix("+changes")
    folder = f"{REMOTE_HOME}/{revision}"
    say(f"{host.name}: sending {revision}")
    archive = subprocess.run(["git", "-C", str(paths.REPOSITORY), "archive", "--format=tar", "HEAD"], capture_output=True, check=True)
    _ssh(host, f"mkdir -p {folder} && tar -x -C {folder}", "sending the checkout", archive.stdout)
    return folder


def _ssh(host: Remote, text: str, what: str, data: bytes | None = None) -> str:
    done = subprocess.run(host.command(text), input=data, stdin=None if data is not None else subprocess.DEVNULL, capture_output=True)
    if done.returncode == 255:
        raise LabError(f"{host.name}: ssh failed: {done.stderr.decode(errors='replace').strip()}", "it must log in without a password: ssh-copy-id, or --ssh-option")
    if done.returncode != 0:
        tail = "\n".join(done.stderr.decode(errors="replace").strip().splitlines()[-10:])
        raise LabError(f"{host.name}: {what} failed there:\n{tail}")
    return done.stdout.decode()
