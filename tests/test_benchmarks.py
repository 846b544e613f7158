"""pyperformance's richards, deltablue and nbody: the interpreter's results, on small sizes."""

import functools
import json
import pathlib

import pytest
from conftest import _run_python
from differential import LEAVING

pyperformance = pytest.importorskip("pyperformance")

BENCHMARKS = pathlib.Path(pyperformance.__file__).parent / "data-files" / "benchmarks"

RUN = """
import sys, json, hotstamp
sys.path.insert(0, {folder!r})
import run_benchmark as program
{enable}
{program}
compiled = {{name: hotstamp.is_compiled(f) for name, f in vars(program).items() if type(f).__name__ == "function"}}
stats = hotstamp.stats()
print(json.dumps([result, sum(compiled.values()), stats["functions_stamped"], stats["exits"]]))
"""

# What a program computes, beyond that it says it succeeded: every object's final state, or every float to the last bit.
PROGRAMS = {
    "richards": """
r = program.Richards()
ran = [r.run(1) for _ in range(2)]
def state(value):
    return value if isinstance(value, (int, str, type(None))) else type(value).__name__
tasks = [{name: state(value) for name, value in vars(task).items()} for task in program.taskWorkArea.taskTab if task]
result = [ran, program.taskWorkArea.holdCount, program.taskWorkArea.qpktCount, tasks]
""",
    "deltablue": """
import gc
# The variables of each test are in cycles, so that they are still there after it.
gc.disable()
result = []
for n in 10, 30:
    program.delta_blue(n)
    variables = [v for v in gc.get_objects() if type(v) is program.Variable]
    state = [[v.name, repr(v.value), repr(v.mark), v.stay, type(v.determined_by).__name__, len(v.constraints)] for v in variables]
    assert len(state) > n
    result.append(sorted(state))
    del variables
    gc.collect()
""",
    "nbody": """
program.offset_momentum(program.BODIES["sun"])
before = program.report_energy()
program.advance(0.01, 300)
result = [before.hex(), program.report_energy().hex(), repr(program.SYSTEM)]
""",
}

# Functions and loops that the optimizer surely finishes in these.
OPTIMIZED = {"richards": 20, "deltablue": 20, "nbody": 2}


@pytest.fixture(scope="module")
def interpreted():
    """interpreted(name): what the interpreter computes."""

    @functools.cache
    def run(name):
        return outcome(_run_python, name, None)[0]

    return run


def code_of(name, enable=""):
    folder = BENCHMARKS / f"bm_{name}"
    assert folder.is_dir()
    return RUN.format(folder=str(folder), program=PROGRAMS[name], enable=enable)


def outcome(run_python, name, tier, enable="", **env):
    """What a program computes, its counters, and how many pieces of its code the optimizer finished."""
    done = run_python("-c", code_of(name, enable), tier=tier, env=env, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    *printed, last = done.stdout.splitlines()
    assert not printed, "deltablue prints what failed"
    finished = [line for line in done.stderr.splitlines() if 'tier="optimizer"' in line and "run_benchmark.py:" in line and "Finished" in line]
    return *json.loads(last), len(finished)


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_are_the_interpreters(run_python, interpreted, name):
    got, compiled, stamped, exits, _ = outcome(run_python, name, "baseline")
    assert got == interpreted(name)
    assert compiled > 0 and stamped > 0
    leaving = {reason: count for reason, count in exits.items() if count and reason in LEAVING}
    assert not leaving


@pytest.mark.parametrize("name", PROGRAMS)
def test_optimized_results_are_the_interpreters(run_python, interpreted, name):
    # Enabled once the program is loaded: every function of every import is optimized otherwise, which takes emulation minutes.
    # What runs a few times only would take half of that time.
    env = {"HOTSTAMP": "", "HOTSTAMP_LOG": "debug", "HOTSTAMP_AUTO": "20"}
    got, compiled, stamped, _, optimized = outcome(run_python, name, "optimizer", "assert hotstamp.enable()", **env)
    assert got == interpreted(name)
    assert compiled > 0 and stamped > 0
    assert optimized >= OPTIMIZED[name], "hardly anything was optimized"


@pytest.mark.native_only
def test_fifteen_runs_without_a_crash(run_python):
    for name in PROGRAMS:
        code = code_of(name)
        results = set()
        for seed in range(5):
            done = run_python("-c", code, tier="baseline", env={"PYTHONHASHSEED": str(seed)})
            assert done.returncode == 0, done.stdout + done.stderr
            results.add(json.dumps(json.loads(done.stdout)[0]))
        assert len(results) == 1
