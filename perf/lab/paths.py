"""Where the lab finds things: the repository, the cache folder, and what `perf/setup` put there."""

from __future__ import annotations

import os
from pathlib import Path

from lab.bootstrap import cache_home

#: `perf/` of the running checkout.
PERF = Path(__file__).resolve().parent.parent
#: The checkout itself.
REPOSITORY = PERF.parent
#: Everything the project caches.
CACHE = Path(cache_home())
#: What `perf/setup` makes.
LAB = CACHE / "lab"

#: The worker that measured Pythons run, and the folder with the module that switches peers on.
WORKER = PERF / "lab" / "worker.py"
PRELUDE = PERF / "lab" / "prelude"
#: Scripts with a `bench()` that ship with the lab.
MICRO = PERF / "lab" / "micro"

DRIVERS = LAB / "drivers" / "bin" / "python"
WORKERS = LAB / "workers" / "bin" / "python"
CINDERX = LAB / "cinderx" / "bin" / "python"
PYPY = LAB / "pypy" / "usr" / "bin" / "pypy3"
#: Pure-Python packages for PyPy (pyperf and what the benchmarks import).
PYPY_SITE = LAB / "pypy-site"
#: The dynamic qemu-user that can load plugins, unpacked from its package.
QEMU = LAB / "qemu"


def out_home() -> Path:
    """Where results go when no folder is named: `perf/out`, ignored by git."""
    return Path(os.environ.get("HOTSTAMP_LAB_OUT", PERF / "out"))


def benchmark_scripts() -> Path:
    """The folder of pyperformance's unmodified benchmark scripts (it may not exist yet)."""
    found = sorted((LAB / "workers" / "lib").glob("python3.*/site-packages/pyperformance/data-files/benchmarks"))
    return found[-1] if found else LAB / "workers" / "missing"
