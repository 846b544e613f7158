"""hotstamp's modes in real workers: each measures what its name says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, lab, passed

from lab import builds
from lab.errors import ModeUnavailable

SCRIPT = """
def step(i):
    return i * 3

def bench():
    total = 0
    for i in range(4000):
        total += step(i)
    return total
"""


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The compiler's statistics of the last process, by mode."""
    try:
        builds.current()
    except ModeUnavailable as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("hotstamp")
    (folder / "steps.py").write_text(SCRIPT)
    (folder / "list").write_text("__bench__:bench\n")
    modes = "interpreter,baseline,optimizer,auto,jitlist"
    passed(lab("warm.py", folder / "steps.py", "--modes", modes, "--jitlist", folder / "list", "--env", "HOTSTAMP_STAMP=1", *QUICK, "--rounds", "1", "--out", folder / "run"))
    (record,) = json.loads((folder / "run" / "result.json").read_text())["rounds"]
    assert not [found["failed"] for found in record["modes"].values() if "failed" in found]
    return {mode: found["statistics"] for mode, found in record["modes"].items()}


def test_tiers_compile(statistics: dict[str, dict[str, Any]]):
    assert statistics["interpreter"] == {}
    assert statistics["baseline"]["functions_stamped"] > 0 == statistics["baseline"]["functions_optimized"]
    assert statistics["optimizer"]["functions_optimized"] >= 2
    assert statistics["auto"]["functions_stamped"] > 0


def test_the_optimizer_compiles_the_benchmark_and_not_the_start_up(statistics: dict[str, dict[str, Any]]):
    """That takes a minute: everything that is called twice is compiled while the program waits."""
    # Start-up and imports alone have 250.
    assert statistics["optimizer"]["functions_stamped"] < 150


def test_jitlist_compiles_what_it_names(statistics: dict[str, dict[str, Any]]):
    found = statistics["jitlist"]
    assert found["functions_stamped"] == 1 <= found["functions_optimized"]
    assert found["exits"]["not_listed"] > 0
