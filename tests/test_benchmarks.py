"""pyperformance's richards, deltablue and nbody: the interpreter's results, on small sizes."""

import json
import pathlib

import pytest
from differential import LEAVING

pyperformance = pytest.importorskip("pyperformance")

BENCHMARKS = pathlib.Path(pyperformance.__file__).parent / "data-files" / "benchmarks"

RUN = """
import sys, json, hotstamp
sys.path.insert(0, {folder!r})
import run_benchmark as program
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


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_are_the_interpreters(run_python, name):
    folder = BENCHMARKS / f"bm_{name}"
    assert folder.is_dir()
    code = RUN.format(folder=str(folder), program=PROGRAMS[name])
    outcomes = {}
    for tier in None, "baseline":
        done = run_python("-c", code, tier=tier)
        assert done.returncode == 0, done.stdout + done.stderr
        *printed, last = done.stdout.splitlines()
        assert not printed, "deltablue prints what failed"
        outcomes[tier] = json.loads(last)
    (expected, *_), (got, compiled, stamped, exits) = outcomes[None], outcomes["baseline"]
    assert got == expected
    assert compiled > 0 and stamped > 0
    leaving = {reason: count for reason, count in exits.items() if count and reason in LEAVING}
    assert not leaving


@pytest.mark.native_only
def test_fifteen_runs_without_a_crash(run_python):
    for name in PROGRAMS:
        code = RUN.format(folder=str(BENCHMARKS / f"bm_{name}"), program=PROGRAMS[name])
        results = set()
        for seed in range(5):
            done = run_python("-c", code, tier="baseline", env={"PYTHONHASHSEED": str(seed)})
            assert done.returncode == 0, done.stdout + done.stderr
            results.add(json.dumps(json.loads(done.stdout)[0]))
        assert len(results) == 1
