"""Random programs, a bounded number of them: `tests/fuzz.py` runs more."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.native_only

# At most: the one with number 113 does not end, which costs the generous time that one is given.
PROGRAMS = "110"

FUZZ = pathlib.Path(__file__).resolve().parent / "fuzz.py"


@pytest.mark.parametrize("tier, seconds", [("baseline", 8), ("optimizer", 20)])
def test_random_programs_do_the_same(tier, seconds):
    done = subprocess.run(
        [sys.executable, str(FUZZ), "--tier", tier, "--seconds", str(seconds), "--seed", "ci", "--programs", PROGRAMS, "--batch", "10", "--minimize"],
        capture_output=True,
        text=True,
        timeout=600,
        env=dict(os.environ, HOTSTAMP="0", HOTSTAMP_FUZZ_PYTHON=sys.executable),
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    # Something was compiled, or this compares the interpreter with itself.
    assert f'"{tier}": {{"functions_stamped": ' in done.stdout, done.stdout
    if tier == "optimizer":
        assert '"functions_optimized": 0' not in done.stdout, done.stdout


@pytest.mark.parametrize("seed, number, threshold", [("1", 103, 20), ("1", 187, 5), ("5", 88, 20)])
def test_programs_that_once_differed(seed, number, threshold):
    # The last one made HIR that its verifier refused, which counts as a difference.
    done = subprocess.run(
        [sys.executable, str(FUZZ), "--tier", "optimizer", "--seed", seed, "--first", str(number), "--programs", "1", "--auto", str(threshold), "--without-newest"],
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ, HOTSTAMP="0", HOTSTAMP_FUZZ_PYTHON=sys.executable),
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert '"functions_optimized": 0' not in done.stdout, done.stdout
