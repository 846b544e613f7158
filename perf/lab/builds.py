"""Builds of hotstamp: the checkout's own, and any revision's, each as a Python that measured processes can run.

A build is what `ci/build` leaves. The lab does not run that Python itself: it makes an environment of the workers' Python
that sees the workers' packages and the build's package folder, so that hotstamp's modes differ from the interpreter's by
hotstamp alone.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab import paths
from lab.errors import LabError, ModeUnavailable
from lab.progress import console, warn

REVISIONS = paths.LAB / "revisions"
OVERLAYS = paths.LAB / "builds"
#: Where a built Python keeps the package: Debian's layout, and a virtual environment's.
PACKAGE_FOLDERS = ("local/lib/python3*/dist-packages/hotstamp", "lib/python3*/site-packages/hotstamp")
#: Folders whose files make the extension, for telling whether a build is older than its sources.
SOURCES = ("Cargo.toml", "Cargo.lock", "runtime", "baseline", "optimizer")


@dataclass(frozen=True, slots=True)
class Build:
    """hotstamp, built and importable."""

    #: The environment's Python.
    python: Path
    #: The folder that holds the `hotstamp` package.
    packages: Path
    #: Commit, `+changes` and the start of the extension's hash: what results name.
    revision: str

    def reads(self, variable: str) -> bool:
        """Whether the build looks at an environment variable: its name must occur in the package's files."""
        return variable.encode() in _content(self.packages)


@cache
def current() -> Build:
    """The build of this checkout for this machine, as `ci/build` left it."""
    return _native(*_current_prefix(platform.machine()))


@cache
def at_revision(revision: str) -> Build:
    """The build of a commit for this machine, made in a folder of its own in the cache when it is not there yet (minutes)."""
    return _native(*_revision_prefix(revision, platform.machine()))


@cache
def guest(architecture: str, revision: str = "") -> Build:
    """The build for another architecture, of the checkout or of a commit. Its `python` wants an emulator, and is the build's own."""
    prefix, name = _revision_prefix(revision, architecture) if revision else _current_prefix(architecture)
    packages, digest = _installed(prefix, architecture)
    return Build(prefix / "bin" / "python3.14", packages, f"{name} ({digest})")


def _current_prefix(architecture: str) -> tuple[Path, str]:
    """Where the checkout's build is, and what it calls itself."""
    prefix = _prefix(paths.REPOSITORY, architecture)
    if not (prefix / "bin" / "python3.14").exists():
        raise ModeUnavailable(f"hotstamp is not built (no Python in {_shown(prefix)})", _hint(architecture))
    revision = _git("describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes")
    if _stale(paths.REPOSITORY, prefix):
        warn(f"hotstamp's sources are newer than its build: this measures the build; {_hint(architecture)}")
        revision += "+stale"
    return prefix, revision


def commit_of(revision: str) -> str:
    """The full hash of a commit, branch or tag of this checkout."""
    found = subprocess.run(["git", "-C", paths.REPOSITORY, "rev-parse", "--verify", "--quiet", revision + "^{commit}"], capture_output=True, text=True)
    if found.returncode != 0:
        raise LabError(f"no such revision: {revision}", "name a commit, branch or tag of this checkout")
    return found.stdout.strip()


def _hint(architecture: str) -> str:
    return "build it: ci/build" + (f" --arch {architecture}" if architecture != platform.machine() else "")


def _revision_prefix(revision: str, machine: str) -> tuple[Path, str]:
    """Where the build of a commit is, made if it is not there, and its short name."""
    commit = commit_of(revision)
    tree = REVISIONS / commit[:12]
    if not tree.exists():
        REVISIONS.mkdir(parents=True, exist_ok=True)
        _unpack(commit, tree)
    prefix = tree / "target" / "python" / machine
    if not (prefix / "built").exists():
        if not (tree / "ci" / "build").exists():
            raise LabError(f"{revision} has no ci/build, so it cannot be built", "compare revisions that have it")
        console.print(f"building {revision} ({commit[:12]})", markup=False)
        _run([str(tree / "ci" / "build"), "--arch", machine], f"the build of {revision}", tree)
    return prefix, commit[:12]


def _unpack(commit: str, tree: Path) -> None:
    """The commit's files, without touching the repository (no registered work tree that someone would have to prune)."""
    part = tree.with_name(tree.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    archive = subprocess.run(["git", "-C", paths.REPOSITORY, "archive", "--format=tar", commit], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(part, filter="tar")
    part.rename(tree)


def _prefix(tree: Path, machine: str) -> Path:
    """Where ci/build puts the Python of an architecture."""
    return Path(os.environ.get("CARGO_TARGET_DIR", tree / "target")).resolve() / "python" / machine


def _installed(prefix: Path, architecture: str) -> tuple[Path, str]:
    """The package folder of a build, and the start of its extension's hash."""
    packages = next((found.parent for pattern in PACKAGE_FOLDERS for found in prefix.glob(pattern) if found.is_dir()), None)
    library = next(iter(sorted(packages.glob("hotstamp/_hotstamp*.so"))), None) if packages else None
    if packages is None or library is None:
        raise ModeUnavailable(f"hotstamp is not in the built Python ({_shown(prefix)})", _hint(architecture))
    return packages, hashlib.sha256(library.read_bytes()).hexdigest()[:8]


def _native(prefix: Path, revision: str) -> Build:
    packages, digest = _installed(prefix, platform.machine())
    build = Build(_overlay(packages), packages, f"{revision} ({digest})")
    _require_import(build)
    return build


def _overlay(packages: Path) -> Path:
    """An environment of the workers' Python with the workers' packages, as links, and hotstamp's.

    It looks to the interpreter as the workers' environment does once hotstamp is installed into it, no path file more: so what start-up
    takes longer is hotstamp's.
    """
    if not paths.WORKERS.exists():
        raise ModeUnavailable("the lab's workers are not installed", "run: perf/setup")
    home = OVERLAYS / hashlib.sha256(str(packages).encode()).hexdigest()[:12]
    python = home / "bin" / "python"
    workers = next((paths.LAB / "workers").glob("lib/python3.*/site-packages"))
    links = {entry.name: entry for entry in (*workers.iterdir(), *packages.glob("hotstamp"), *packages.glob("hotstamp*.pth"))}
    key = "\n".join(f"{name} {target}" for name, target in sorted(links.items()))
    made = home / ".made"
    if not made.exists() or made.read_text() != key or not python.exists():
        _run([str(paths.WORKERS), "-m", "venv", "--clear", "--without-pip", str(home)], "an environment for hotstamp", None)
        site = next(home.glob("lib/python3.*/site-packages"))
        for name, target in links.items():
            (site / name).symlink_to(target)
        made.write_text(key)
    return python


def _require_import(build: Build) -> None:
    done = subprocess.run([build.python, "-c", "import hotstamp"], capture_output=True, text=True, env={"PATH": os.defpath, "HOTSTAMP": "0"})
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModeUnavailable(f"hotstamp does not import: {last}", _hint(platform.machine()))


def _stale(tree: Path, prefix: Path) -> bool:
    built = prefix / "built"
    if not built.exists():
        return True
    limit = built.stat().st_mtime
    files = (file for name in SOURCES for file in ([tree / name] if (tree / name).is_file() else (tree / name).rglob("*")))
    return any(file.suffix in (".rs", ".toml", ".lock", ".py", ".pth") and "tests" not in file.parts and file.stat().st_mtime > limit for file in files)


@cache
def _content(packages: Path) -> bytes:
    files = [*packages.glob("hotstamp/**/*.so"), *packages.glob("hotstamp/**/*.py"), *packages.glob("hotstamp*.pth")]
    return b"".join(file.read_bytes() for file in files)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", paths.REPOSITORY, *arguments], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _run(command: list[str], what: str, cwd: Path | None) -> None:
    """Run a step quietly; its last lines are shown when it fails."""
    env = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd if cwd and cwd.is_dir() else None, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise LabError(f"{what} failed:\n{tail}")


def _shown(path: Path) -> str:
    """A path relative to the checkout, where it lies in it."""
    return str(path.relative_to(paths.REPOSITORY)) if path.is_relative_to(paths.REPOSITORY) else str(path)
