"""Shared by the lab's tests: small benchmark scripts, and running the lab's commands as a user does.

Nothing here asserts a speed: tests say whether the lab measures and judges rightly, on however busy a machine.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import errors

PERF = Path(__file__).resolve().parent.parent

#: Options that make a comparison take about a second.
QUICK = ("--rounds", "3", "--samples", "4", "--warmup", "0.02", "--sample-time", "0.003", "--sampling", "0.05")


def lab(*arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 110) -> subprocess.CompletedProcess[str]:
    """Run one of perf/'s scripts; its first argument is the script's name."""
    script, *rest = map(str, arguments)
    return subprocess.run([PERF / script, *rest], capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}, cwd=PERF)


def passed(done: subprocess.CompletedProcess[str] | Said) -> str:
    """The output of a command that must have succeeded."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Said:
    """What a command said, as subprocess would tell it."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run one of perf/'s scripts in this process: quick, for what is refused before anything is measured."""

    def run(script: str, *arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            errors.run_main(importlib.import_module(script.removesuffix(".py")).main)
        captured = capsys.readouterr()
        return Said(left.value.code or 0, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def busy_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of about 0.3 ms."""
    path = tmp_path_factory.mktemp("scripts") / "busy.py"
    path.write_text("def bench():\n    total = 0\n    for i in range(4000):\n        total += i * i\n    return total\n")
    return path


@pytest.fixture(scope="session")
def warm_run(busy_script: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished comparison of the interpreter with itself, asked for nearly certain intervals."""
    folder = tmp_path_factory.mktemp("warm") / "run"
    modes = "interpreter,interpreter,cinderx"
    done = lab("warm.py", busy_script, "--modes", modes, *QUICK, "--rounds", "6", "--confidence", "0.9999", "--out", folder)
    passed(done)
    return folder
