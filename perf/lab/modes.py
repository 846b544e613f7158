"""Modes: what is compared. A mode is a Python, the variables that choose a compiler, and a check that it is there.

Written `NAME[@REVISION][:VARIABLE=VALUE]...`, for example `interpreter`, `auto`, `baseline@HEAD~1`,
`auto:HOTSTAMP_AUTO=25`. Only hotstamp's modes take a revision.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import LabError, ModeUnavailable, UnknownMode

#: hotstamp's tiers, by mode name -> HOTSTAMP_TIER.
HOTSTAMP_TIERS = {"baseline": "baseline", "optimizer": "optimizer", "auto": "auto", "jitlist": "optimizer"}
#: The other modes.
PEER_MODES = ("interpreter", "jit", "cinderx", "pypy")
ALL_MODES = ("interpreter", *HOTSTAMP_TIERS, "jit", "cinderx", "pypy")

#: Switches CinderX on as its documentation says for unattended use: hot functions, compiled in the background.
CINDERX_PRELUDE = "import cinderx.jit\ncinderx.jit.auto()"

TITLES = {
    "interpreter": "interpreter",
    "baseline": "hotstamp baseline",
    "optimizer": "hotstamp optimizer",
    "auto": "hotstamp",
    "jitlist": "hotstamp jitlist",
    "jit": "CPython JIT",
    "cinderx": "CinderX",
    "pypy": "PyPy",
}


@dataclass(frozen=True, slots=True)
class Mode:
    """One column of a comparison."""

    #: As the user wrote it; the key of its results.
    name: str
    #: The part before `@` and `:`.
    base: str
    python: Path
    #: Which compiler the worker asks for statistics: hotstamp, cinderx, cpython, or None.
    jit: str | None = None
    environment: dict[str, str] = field(default_factory=dict, hash=False)
    #: Python source that switches the compiler on where no variable does.
    prelude: str = ""
    python_path: tuple[Path, ...] = ()
    #: What the hotstamp build calls itself: commit and hash; empty for other modes.
    revision: str = ""
    #: The revision that was asked for after `@`, empty for the checkout's own build.
    revision_asked: str = ""

    @property
    def is_synchronous(self) -> bool:
        """Whether the program waits for the optimizer, at the second call of everything: Python's start-up and a few imports take it a minute."""
        return self.jit == "hotstamp" and self.environment["HOTSTAMP_TIER"] == "optimizer"

    @property
    def title(self) -> str:
        """The name for tables."""
        return self.name.replace(self.base, TITLES[self.base], 1)


def stamped_at_once(mode: Mode) -> Mode:
    """The mode with everything stamped at its first call, where sizes or exact counts are wanted: what is found by sampling differs from run to run."""
    return dataclasses.replace(mode, environment={"HOTSTAMP_STAMP": "1", **mode.environment}) if mode.jit == "hotstamp" else mode


def enabled_late(mode: Mode) -> Mode:
    """The mode without hotstamp at start-up: the worker enables it (`late`) once the benchmark is loaded."""
    return dataclasses.replace(mode, environment={name: value for name, value in mode.environment.items() if name != "HOTSTAMP"})


@dataclass(frozen=True, slots=True)
class Spec:
    """A mode as written, taken apart and found to be well formed; nothing is looked for on the machine."""

    text: str
    base: str
    revision: str
    variables: dict[str, str] = field(hash=False)

    def hotstamp_environment(self, jitlist: Path | None = None) -> dict[str, str]:
        """The variables of a hotstamp mode."""
        environment = {"PYTHON_JIT": "0", "HOTSTAMP": "1", "HOTSTAMP_TIER": HOTSTAMP_TIERS[self.base], **self.variables}
        if self.base == "jitlist":
            if jitlist is None:
                raise LabError("mode jitlist needs the functions to compile", "give --jitlist FILE, one module:qualname a line")
            environment["HOTSTAMP_JITLIST"] = str(jitlist.resolve())
        return environment


def take_apart(spec: str) -> Spec:
    """Parse a mode's text. Raises UnknownMode."""
    head, *settings = spec.split(":")
    base, _, revision = head.partition("@")
    if base not in ALL_MODES:
        raise UnknownMode(f"unknown mode: {base}", f"modes: {', '.join(ALL_MODES)}")
    if revision and base not in HOTSTAMP_TIERS:
        raise UnknownMode(f"{spec}: only hotstamp's modes have revisions", f"with one: {', '.join(HOTSTAMP_TIERS)}")
    return Spec(spec, base, revision, dict(_setting(spec, text) for text in settings))


def parse(text: str, jitlist: Path | None = None) -> Mode:
    """The mode that `text` names, checked to be runnable on this machine.

    Raises UnknownMode for a name the lab does not have, ModeUnavailable for a Python, a package or a build that is
    missing, with what to run.
    """
    spec = take_apart(text)
    if spec.base in HOTSTAMP_TIERS:
        return _hotstamp(spec, jitlist)
    return _peer(text, spec.base, spec.variables)


def why_vacuous(mode: Mode, statistics: dict[str, Any], *, brief: bool = False) -> str:
    """Why a finished process did not measure what its mode says, from hotstamp's statistics; empty if it did.

    A process with a compiler that compiled nothing has measured the interpreter, and one whose optimizer optimized nothing the baseline. In
    `auto` nothing may be worth compiling, and in a `brief` process (one iteration) nothing may have been found yet: there it is enough that hotstamp is on, which the worker asks.
    """
    if mode.jit != "hotstamp" or mode.environment["HOTSTAMP_TIER"] == "interpreter":
        return ""
    if "functions_stamped" in statistics and (brief or mode.environment["HOTSTAMP_TIER"] == "auto"):
        return ""
    if not statistics.get("functions_stamped"):
        return "hotstamp is enabled but stamped no function: the figures would be the interpreter's"
    if mode.is_synchronous and not statistics.get("functions_optimized"):
        return "hotstamp optimized no function (its statistics have no functions_optimized): the figures would be the baseline's"
    return ""


def parse_all(specs: Iterable[str], jitlist: Path | None = None) -> list[Mode]:
    """Resolve modes before anything is measured; names must differ, so that results have keys."""
    modes = [parse(spec, jitlist) for spec in specs]
    names = [mode.name for mode in modes]
    for name in names:
        if names.count(name) > 1 and not name.startswith("interpreter"):
            raise UnknownMode(f"mode given twice: {name}")
    return modes


def available(specs: Iterable[str]) -> tuple[list[Mode], list[str]]:
    """The modes of `specs` that run here, and a line on each that does not."""
    found: list[Mode] = []
    missing: list[str] = []
    for spec in specs:
        try:
            found.append(parse(spec))
        except ModeUnavailable as error:
            missing.append(f"{spec}: {error}")
    return found, missing


def _setting(spec: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UnknownMode(f"{spec}: {text!r} is not VARIABLE=VALUE")
    return name, value


def _peer(spec: str, base: str, variables: dict[str, str]) -> Mode:
    match base:
        case "interpreter":
            return Mode(spec, base, _need(paths.WORKERS, base), environment={"PYTHON_JIT": "0", **variables})
        case "jit":
            python = _need(paths.WORKERS, base)
            _probe(python, "import sys; sys.exit(not sys._jit.is_available())", "CPython's JIT is not compiled into this Python")
            return Mode(spec, base, python, jit="cpython", environment={"PYTHON_JIT": "1", **variables})
        case "cinderx":
            python = _need(paths.CINDERX, base)
            _probe(python, "import cinderx.jit", "CinderX does not import")
            return Mode(spec, base, python, jit="cinderx", environment={"PYTHON_JIT": "0", **variables}, prelude=CINDERX_PRELUDE)
        case _:
            return Mode(spec, base, _need(paths.PYPY, base), environment=variables, python_path=(paths.PYPY_SITE,))


def _hotstamp(spec: Spec, jitlist: Path | None) -> Mode:
    from lab import builds

    build = builds.at_revision(spec.revision) if spec.revision else builds.current()
    environment = spec.hotstamp_environment(jitlist)
    require_known(spec.text, environment, build)
    return Mode(spec.text, spec.base, build.python, "hotstamp", environment, revision=build.revision, revision_asked=spec.revision)


def require_known(text: str, environment: dict[str, str], build) -> None:
    """Refuse variables that the build does not read: they would be measured as "no effect"."""
    for name in environment:
        if name.startswith("HOTSTAMP_") and not build.reads(name):
            raise ModeUnavailable(f"{text}: this build of hotstamp knows no variable {name}", "see its list of options; or measure another revision")


def _need(python: Path, mode: str) -> Path:
    if not python.exists():
        raise ModeUnavailable(f"{TITLES[mode]} is not installed for the lab ({python.relative_to(paths.CACHE)})", "run: perf/setup")
    return python


@cache
def _probe(python: Path, code: str, problem: str) -> None:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        raise ModeUnavailable(f"{problem}: {last[0]}".rstrip(": "), "run: perf/setup")
