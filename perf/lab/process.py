"""Starting measured processes: their environment, the cores they may use, and what one whole process cost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lab.errors import LabError, ToolMissing
from lab.modes import Mode

#: Variables of the caller's that measured processes inherit; all others would make runs differ in silence.
INHERITED = ("PATH", "HOME", "TMPDIR", "USER", "XDG_CACHE_HOME")
#: How many bytes of a dead process's stderr are kept.
STDERR_TAIL = 4000


def environment(mode: Mode, hash_seed: int, extra: dict[str, str]) -> dict[str, str]:
    """The environment of a measured process: small, fixed, the same for all modes but for the mode's own variables.

    `hash_seed` becomes PYTHONHASHSEED: string hashing shapes dictionaries and with them times, so it is held
    equal across the modes of a round and changed between rounds. `extra` is what the user gave with --env.
    """
    env = {name: os.environ[name] for name in INHERITED if name in os.environ}
    env.update({"LANG": "C.UTF-8", "PYTHONHASHSEED": str(hash_seed), "PYTHONNOUSERSITE": "1"})
    env.update(extra)
    env.update(mode.environment)
    if mode.python_path:
        env["PYTHONPATH"] = os.pathsep.join(map(str, mode.python_path))
    return env


def on_cores(cores: str) -> list[str]:
    """A command prefix that confines a process to `cores` (taskset's list syntax); empty for no confinement."""
    return [tool("taskset", "util-linux"), "-c", cores] if cores else []


@cache
def tool(name: str, package: str) -> str:
    """The path of a program, or an error that names the Debian package it comes in."""
    found = shutil.which(name)
    if found is None:
        raise ToolMissing(f"{name} is not installed", f"install it: apt-get install {package}")
    return found


def describe_status(status: int) -> str:
    """An exit status in words: `status` is negative for death by signal, as subprocess gives it."""
    if status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exit status {status}"


@dataclass(frozen=True, slots=True)
class ProcessCost:
    """What one whole process took, from before its creation to its end."""

    status: int
    wall_ns: int
    user_ns: int
    system_ns: int
    max_rss_kib: int
    #: CLOCK_MONOTONIC just before the process was created.
    start_clock: int
    stdout: bytes
    stderr: str

    @property
    def cpu_ns(self) -> int:
        """User and system time, children included."""
        return self.user_ns + self.system_ns


def run_to_end(command: Sequence[str], env: dict[str, str], timeout: float, cwd: str | None = None) -> ProcessCost:
    """Run a command and account for it exactly (wait4), with its output in files so that no pipe can stall it."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic_ns()
        try:
            process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd)
        except OSError as error:
            raise LabError(f"cannot start {command[0]}: {error}", "run: perf/setup") from error
        try:
            status, usage = _wait(process, start + int(timeout * 1e9))
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.monotonic_ns() - start
        out.seek(0)
        size = err.seek(0, os.SEEK_END)
        err.seek(max(0, size - STDERR_TAIL))
        return ProcessCost(
            status=status,
            wall_ns=wall,
            user_ns=int(usage.ru_utime * 1e9),
            system_ns=int(usage.ru_stime * 1e9),
            max_rss_kib=usage.ru_maxrss,
            start_clock=start,
            stdout=out.read(),
            stderr=err.read().decode(errors="replace"),
        )


def _wait(process: subprocess.Popen, deadline_ns: int):
    """wait4 with a deadline: a pidfd is polled, so that the end is seen at once and nothing spins."""
    import select

    descriptor = os.pidfd_open(process.pid)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        remaining = max(0, deadline_ns - time.monotonic_ns()) / 1e6
        timed_out = not poller.poll(remaining)
        if timed_out:
            process.kill()
        _, raw, usage = os.wait4(process.pid, 0)
    finally:
        os.close(descriptor)
    process.returncode = os.waitstatus_to_exitcode(raw)
    return process.returncode, usage
