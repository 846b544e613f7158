"""Starting measured processes: their environment, the cores they may use, and what one whole process cost."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab import paths
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


def startup(mode: Mode, env: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a program that does nothing.

    The benchmarks' setuptools brings a start-up file, which is no part of the Python that is measured: its own variable switches it off.
    """
    return [str(mode.python), "-c", mode.prelude or "pass"], {**env, "SETUPTOOLS_USE_DISTUTILS": "stdlib"}


def script_environment(mode: Mode, env: dict[str, str]) -> dict[str, str]:
    """The environment for a script that pyperf runs by itself: compilers without a variable are switched on at start-up."""
    return {
        **env,
        "PYTHONPATH": os.pathsep.join([str(paths.PRELUDE), *map(str, mode.python_path)]),
        **({"LAB_PRELUDE": mode.prelude} if mode.prelude else {}),
    }


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
    """Run a command and account for it exactly, with its output in files so that no pipe can stall it."""
    program = command[0] if "/" in command[0] else shutil.which(command[0])
    if program is None or not os.path.exists(program):
        raise LabError(f"cannot start {command[0]}: there is no such program", "run: perf/setup")
    with tempfile.TemporaryDirectory() as folder:
        names = [os.path.join(folder, name) for name in ("out", "err", "report")]
        with open(names[0], "wb") as out, open(names[1], "wb") as err:
            launch = [str(compiled("launcher.c")), names[2], str(int(timeout * 1000)), program, *command[1:]]
            launcher = subprocess.Popen(launch, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd)
            try:
                failed = launcher.wait() != 0
            except BaseException:
                launcher.terminate()
                launcher.wait()
                raise
        with open(names[0], "rb") as file:
            stdout = file.read()
        with open(names[1], "rb") as file:
            stderr = file.read()[-STDERR_TAIL:].decode(errors="replace")
        if failed:
            raise LabError(f"cannot start {program}: {stderr.strip()}", "run: perf/setup")
        with open(names[2]) as file:
            status, timed_out, wall, user, system, memory, start = map(int, file.read().split())
    if timed_out:
        stderr += f"\n(killed: not finished after {timeout:g} s)"
    return ProcessCost(status, wall, user, system, memory, start, stdout, stderr)


@cache
def compiled(name: str, *options: str) -> Path:
    """A C program or library of the lab's, `lab/NAME`, compiled into the lab's folder when its source is new."""
    source = paths.PERF / "lab" / name
    digest = hashlib.sha256(source.read_bytes() + repr(options).encode()).hexdigest()[:12]
    output = paths.LAB / f"{source.stem}-{digest}"
    if not output.exists():
        part = output.with_name(f"{output.name}.{os.getpid()}.part")
        command = [tool("gcc", "gcc libc6-dev"), "-O2", "-Wall", "-Wextra", "-Werror", *options, "-o", str(part), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(f"{name} does not compile:\n{done.stderr}")
        part.rename(output)
    return output
