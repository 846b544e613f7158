"""pyperformance's richards, deltablue and nbody: the interpreter's results, on small sizes."""

import json
import pathlib
import platform

import pytest
from conftest import _run_python
from differential import LEAVING

pyperformance = pytest.importorskip("pyperformance")

BENCHMARKS = pathlib.Path(pyperformance.__file__).parent / "data-files" / "benchmarks"

# All in one process: starting one, and translating LLVM, takes emulation much longer than the programs do.
RUN = """
import importlib.util, json, hotstamp
results, functions = {{}}, []
def load(name):
    spec = importlib.util.spec_from_file_location(name, "{folder}/bm_" + name + "/run_benchmark.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    functions.extend((name, f) for f in vars(program).values() if type(f).__name__ == "function")
    return program
richards, deltablue, nbody = map(load, ("richards", "deltablue", "nbody"))
{enable}
{programs}
compiled = {{}}
for name, f in functions:
    compiled[name] = compiled.get(name, 0) + hotstamp.is_compiled(f)
stats = hotstamp.stats()
print(json.dumps([results, compiled, stats["functions_stamped"], stats["exits"]]))
"""

# What a program computes, beyond that it says it succeeded: every object's final state, or every float to the last bit.
PROGRAMS = {
    "richards": """
program = richards
r = program.Richards()
ran = [r.run(1) for _ in range(2)]
def state(value):
    return value if isinstance(value, (int, str, type(None))) else type(value).__name__
tasks = [{name: state(value) for name, value in vars(task).items()} for task in program.taskWorkArea.taskTab if task]
results["richards"] = [ran, program.taskWorkArea.holdCount, program.taskWorkArea.qpktCount, tasks]
""",
    "deltablue": """
import gc
program = deltablue
# The variables of each test are in cycles, so that they are still there after it.
gc.disable()
result = results["deltablue"] = []
for n in 10, 30:
    program.delta_blue(n)
    variables = [v for v in gc.get_objects() if type(v) is program.Variable]
    state = [[v.name, repr(v.value), repr(v.mark), v.stay, type(v.determined_by).__name__, len(v.constraints)] for v in variables]
    assert len(state) > n
    result.append(sorted(state))
    del variables
    gc.collect()
gc.enable()
""",
    "nbody": """
program = nbody
program.offset_momentum(program.BODIES["sun"])
before = program.report_energy()
program.advance(0.01, 300)
results["nbody"] = [before.hex(), program.report_energy().hex(), repr(program.SYSTEM)]
""",
}

# After how many calls and loop iterations something is hot, and how many functions and loops the optimizer surely finishes then. AArch64 is mostly
# emulated, where each takes a second or two: only the hottest there.
THRESHOLD, OPTIMIZED = (20, {"richards": 20, "deltablue": 20, "nbody": 2}) if platform.machine() == "x86_64" else (600, {"richards": 6, "deltablue": 8, "nbody": 1})


def outcome(run_python, tier, enable="", **env):
    """What the programs compute, their counters, and how many pieces of the code of each the optimizer finished."""
    code = RUN.format(folder=BENCHMARKS, programs="".join(PROGRAMS.values()), enable=enable)
    done = run_python("-c", code, tier=tier, env=env, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    *printed, last = done.stdout.splitlines()
    assert not printed, "deltablue prints what failed"
    finished = [line for line in done.stderr.splitlines() if 'tier="optimizer"' in line and "Finished" in line]
    return *json.loads(last), {name: sum(f"bm_{name}/run_benchmark.py:" in line for line in finished) for name in PROGRAMS}


@pytest.fixture(scope="module")
def interpreted():
    """What the interpreter computes, by program."""
    results, compiled, *_ = outcome(_run_python, None)
    assert not any(compiled.values()) and all(results[name] for name in PROGRAMS)
    return results


def test_results_are_the_interpreters(run_python, interpreted):
    got, compiled, stamped, exits, _ = outcome(run_python, "baseline")
    assert got == interpreted
    assert all(compiled[name] for name in PROGRAMS) and stamped > 0
    leaving = {reason: count for reason, count in exits.items() if count and reason in LEAVING}
    assert not leaving


def test_optimized_results_are_the_interpreters(run_python, interpreted):
    # Enabled once the programs are loaded: every function of every import is optimized otherwise, which takes emulation minutes.
    env = {"HOTSTAMP": "", "HOTSTAMP_LOG": "debug", "HOTSTAMP_AUTO": str(THRESHOLD)}
    got, compiled, stamped, _, optimized = outcome(run_python, "optimizer", "assert hotstamp.enable()", **env)
    assert got == interpreted
    assert all(compiled[name] for name in PROGRAMS) and stamped > 0
    assert all(optimized[name] >= least for name, least in OPTIMIZED.items()), f"hardly anything was optimized: {optimized}"


@pytest.mark.native_only
def test_fifteen_runs_without_a_crash(run_python):
    results = []
    for seed in range(15):
        got, *_ = outcome(run_python, "baseline", PYTHONHASHSEED=str(seed))
        results.append(got)
    assert all(got == results[0] for got in results)
