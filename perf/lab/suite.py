"""`pyperformance run --fast` itself, as a user types it, and how many of the worker processes it starts survive.

pyperformance makes itself an environment for the benchmarks, named after the Python, in the current folder. The lab puts
one there beforehand that sees what the mode's own Python sees, so that hotstamp or CinderX are in it and nothing is
fetched. pyperf ends a benchmark when one of its workers dies: so of the workers that a failed command started, one did
not survive, and the command is repeated until enough were started.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from lab import paths, process, pyperf_io
from lab.benchmarks import Benchmark
from lab.errors import LabError
from lab.modes import Mode

HOME = paths.LAB / "pyperformance"
#: Commands that start no worker at all before one gives up.
MOST_EMPTY_RUNS = 3


def run(benchmark: Benchmark, mode: Mode, env: dict[str, str], cores: str, least_workers: int, timeout: float) -> dict[str, Any]:
    """Repeat the command until `least_workers` pyperf workers were started: started, survived, values (s), wall time of each command."""
    env = process.script_environment(mode, env)
    folder = _prepare(mode, env)
    if folder is None:
        return {"failed": "pyperformance is not installed for this Python"}
    started = died = empty = 0
    values: list[float] = []
    walls: list[int] = []
    details: list[str] = []
    while started < least_workers and empty < MOST_EMPTY_RUNS:
        begun = time.monotonic_ns()
        count, status, detail, new = _command(benchmark, mode, env, cores, folder, timeout)
        walls.append(time.monotonic_ns() - begun)
        started += count
        empty += count == 0
        values += new
        if status != 0 or not new:
            died += 1 if count else 0
            details.append(detail)
    found: dict[str, Any] = {"started": started, "survived": started - died, "commands": len(walls), "command_wall_ns": walls, "values": values}
    if details:
        found["detail"] = details[-1]
    if not started:
        found["failed"] = "pyperformance started no worker"
    elif not values:
        found["failed"] = f"{died} of {started} workers died"
    return found


def _command(benchmark: Benchmark, mode: Mode, env: dict[str, str], cores: str, folder: Path, timeout: float) -> tuple[int, int, str, list[float]]:
    with tempfile.TemporaryDirectory() as temporary:
        witness, output = Path(temporary) / "witness", Path(temporary) / "out.json"
        own = {**env, "LAB_WITNESS": str(witness)}
        # PATH and HOME are always inherited; naming them would pass them twice.
        inherited = ",".join(sorted(own.keys() - {"PATH", "HOME"}))
        command = [str(mode.python), "-m", "pyperformance", "run", "--fast", "-b", benchmark.suite_name, "--inherit-environ", inherited, "-o", str(output)]
        cost = process.run_to_end([*process.on_cores(cores), *command], own, timeout, cwd=str(folder))
        count = len(witness.read_text().splitlines()) if witness.exists() else 0
        values: list[float] = []
        if output.exists():
            try:
                loaded = pyperf_io.load(output)
                values = loaded.get(benchmark.name) or next(iter(loaded.values()))
            except LabError:
                pass
        detail = (cost.stderr + cost.stdout[-process.STDERR_TAIL :].decode(errors="replace")).strip()[-process.STDERR_TAIL :]
        return count, cost.status, detail, values


def _prepare(mode: Mode, env: dict[str, str]) -> Path | None:
    """A folder in which pyperformance finds its environment for the mode's Python; None if that has no pyperformance."""
    folder = HOME / hashlib.sha256(str(mode.python).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    code = (
        "import sys, sysconfig; from pyperformance import _pythoninfo; from pyperformance.run import get_run_id;"
        "print(get_run_id(_pythoninfo.get_info(sys.executable)).name); print(sysconfig.get_path('purelib'))"
    )
    asked = subprocess.run([mode.python, "-c", code], capture_output=True, text=True, env={**env, "HOTSTAMP": "0"})
    if asked.returncode != 0:
        return None
    name, packages = asked.stdout.split()
    environment = folder / "venv" / name
    if not (environment / ".made").exists():
        subprocess.run([mode.python, "-m", "venv", "--clear", "--without-pip", environment], check=True, capture_output=True, env={**env, "HOTSTAMP": "0"})
        site = next(environment.glob("lib/python3.*/site-packages"))
        (site / "lab.pth").write_text(f"import site; site.addsitedir({packages!r})\n")
        (environment / ".made").touch()
    return folder
