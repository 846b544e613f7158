"""The AArch64 side of an x86-64 machine: emulated Pythons, and qemu with the instruction-counting plugin."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab import paths, process
from lab.errors import ModeUnavailable, ToolMissing
from lab.modes import CINDERX_PRELUDE, HOTSTAMP_TIERS, Mode, require_known, take_apart

GUEST = "aarch64"
CINDERX_SITE = paths.LAB / "cinderx-aarch64"
SETUP_HINT = "run: perf/setup --arch, and ci/setup"


@dataclass(frozen=True, slots=True)
class Emulator:
    """A command prefix that runs AArch64 programs."""

    command: tuple[str, ...]
    environment: dict[str, str]


def native() -> bool:
    """Whether this machine is AArch64 itself: then nothing is emulated."""
    return platform.machine() == GUEST


@cache
def static_emulator() -> Emulator:
    """qemu-user as it is installed; it needs no libraries, and loads no plugins."""
    if native():
        return Emulator((), {})
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if found is None:
        raise ToolMissing("qemu-aarch64 is not installed", SETUP_HINT)
    return Emulator((found, *_prefix_arguments()), {})


@cache
def plugin_emulator() -> Emulator:
    """The dynamic qemu-user that loads plugins, from the lab's folder."""
    program = paths.QEMU / "usr" / "bin" / "qemu-aarch64"
    if not program.exists():
        raise ToolMissing("qemu-user with plugins is not installed for the lab", "run: perf/setup --arch")
    libraries = paths.QEMU / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
    return Emulator((str(program), *_prefix_arguments()), {"LD_LIBRARY_PATH": str(libraries)})


def _prefix_arguments() -> tuple[str, ...]:
    """`-L TREE`: where the guest's loader and libraries are. Debian's Python tree carries its own."""
    tree = guest_python().parent.parent.parent
    return ("-L", str(tree))


@cache
def guest_python() -> Path:
    """The AArch64 Python that ci/setup provisioned."""
    if override := os.environ.get("HOTSTAMP_PYTHON_AARCH64"):
        return Path(override)
    script = f'source "{paths.REPOSITORY}/ci/lib.sh" && load_facts "$PRIMARY_SUITE" {GUEST} && echo "$PY_EXE"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    python = Path(done.stdout.strip())
    if done.returncode != 0 or not python.is_file():
        raise ModeUnavailable("there is no AArch64 Python", SETUP_HINT)
    return python


def guest_mode(text: str) -> Mode:
    """The mode that `text` names, on the AArch64 Python. Its `python` is run through an emulator by the caller."""
    spec = take_apart(text)
    packages = _guest_packages()
    if spec.base in HOTSTAMP_TIERS:
        from lab import builds

        build = builds.guest(GUEST, spec.revision)
        environment = spec.hotstamp_environment()
        require_known(text, environment, build)
        return Mode(text, spec.base, build.python, "hotstamp", environment, python_path=packages, revision=build.revision, revision_asked=spec.revision)
    environment = {"PYTHON_JIT": "0", **spec.variables}
    if spec.base == "cinderx":
        if not CINDERX_SITE.exists():
            raise ModeUnavailable("CinderX for AArch64 is not installed for the lab", "run: perf/setup --arch")
        return Mode(text, spec.base, guest_python(), "cinderx", environment, CINDERX_PRELUDE, (CINDERX_SITE, *packages))
    if spec.base == "interpreter":
        return Mode(text, spec.base, guest_python(), environment=environment, python_path=packages)
    raise ModeUnavailable(f"{text}: not run on emulated AArch64", f"modes there: interpreter, cinderx, {', '.join(HOTSTAMP_TIERS)}")


def _guest_packages() -> tuple[Path, ...]:
    """The workers' packages: those that benchmarks import are pure Python and serve both architectures."""
    return tuple((paths.LAB / "workers").glob("lib/python3.*/site-packages"))


def plugin() -> Path:
    """The counting plugin, compiled when its source is new."""
    return process.compiled("tcg_count.c", "-shared", "-fPIC")
