"""Where numbers come from: the machine, the Pythons, the revision, the environment and the load at the time."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from lab import paths
from lab.modes import Mode

#: One-minute load average, per core, above which a machine counts as busy and its times as doubtful.
BUSY_LOAD_PER_CORE = 0.6


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def load() -> float:
    """The one-minute load average."""
    return round(os.getloadavg()[0], 2)


def is_busy() -> bool:
    """Whether something else is using the machine."""
    return load() > BUSY_LOAD_PER_CORE * (os.cpu_count() or 1)


def _processor() -> str:
    """The processor's model, as /proc/cpuinfo names it; on AArch64, which has no name there, implementer and part."""
    text = Path("/proc/cpuinfo").read_text(errors="replace")
    if found := re.search(r"^model name\s*:\s*(.+)$", text, re.M):
        return found[1].strip()
    parts = re.findall(r"^CPU (implementer|part)\s*:\s*(\S+)$", text, re.M)
    return " ".join(f"{name} {value}" for name, value in dict(parts).items()) or platform.processor() or "unknown"


def _memory_mib() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def _governor() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "unknown"


def machine() -> dict[str, Any]:
    """The machine, without its name: results are published."""
    return {
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_mib": _memory_mib(),
        "kernel": platform.release(),
        "governor": _governor(),
    }


def git_revision(folder: Path = paths.REPOSITORY) -> str:
    """The checkout's commit, with `+changes` if its files differ from it; `unknown` outside git."""
    run = lambda *arguments: subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)  # noqa: E731
    head = run("rev-parse", "--short=12", "HEAD")
    if head.returncode != 0:
        return "unknown"
    changed = run("status", "--porcelain", "--untracked-files=no").stdout.strip()
    return head.stdout.strip() + ("+changes" if changed else "")


@cache
def python_version(python: Path) -> str:
    """One line on a Python: implementation, version, compiler."""
    code = (
        "import platform, sys; v = getattr(sys, 'pypy_version_info', None);"
        "print(platform.python_implementation(), *(['.'.join(map(str, v[:3])), '(Python ' + platform.python_version() + ')'] if v"
        " else [platform.python_version()]), platform.python_compiler())"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


@cache
def _package_version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip() or "unknown"


def describe_mode(mode: Mode) -> dict[str, Any]:
    """What exactly a mode ran: part of a run's plan, so that a resumed run cannot mix two builds."""
    described: dict[str, Any] = {"python": python_version(mode.python), "environment": dict(mode.environment)}
    if mode.jit == "cinderx":
        described["cinderx"] = _package_version(mode.python, "cinderx")
    if mode.jit == "hotstamp":
        described["revision"] = mode.revision
    return described


def collect(modes: Iterable[Mode]) -> dict[str, Any]:
    """Everything about the circumstances of a run that is about to begin."""
    return {
        "date": now(),
        "machine": machine(),
        "revision": git_revision(),
        "load": load(),
        "busy": is_busy(),
        "modes": {mode.name: describe_mode(mode) for mode in modes},
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(("HOTSTAMP", "PYTHON"))},
    }
