"""The stress modes of the baseline tier: what the optimizer will rely on, tried at every place where it could happen.

`HOTSTAMP_STRESS` is read when the extension is imported, so each mode runs in a process of its own.
"""

import json
import pathlib
import platform

import pytest

TESTS = pathlib.Path(__file__).parent

# The template cases, interpreted against compiled, and what it took.
CASES = f"""
import json, sys
sys.path.insert(0, {str(TESTS)!r})
import differential, hotstamp
from template_cases import CASES
differential.enable()
checked = 0
for case in CASES[PART::STEP]:
    if case.is_body:
        # What the library compiles at its first use does not count.
        code = compile(case.source, "<warm>", "exec")
        differential.opt_out(code)
        try:
            exec(code, {{"__name__": "differential", "log": []}})
        except BaseException:
            pass
        differential.check_body(case.source, case.opcode)
    else:
        differential.Twins(case.source).check(case.calls, rounds=ROUNDS)
    checked += 1
print(json.dumps([checked, hotstamp.stats()]))
"""


# In parts, which can run at a time. AArch64 is mostly emulated: a sample of the cases there.
PARTS = 4
STEP = PARTS if platform.machine() == "x86_64" else 6 * PARTS


def run_cases(run_python, mode, rounds, part):
    code = CASES.replace("ROUNDS", str(rounds)).replace("STEP", str(STEP)).replace("PART", str(part))
    done = run_python("-c", code, tier="baseline", env={"HOTSTAMP_STRESS": mode}, timeout=900)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    checked, stats = json.loads(done.stdout)
    assert checked > 250 // STEP
    return stats


@pytest.mark.parametrize("part", range(PARTS))
def test_every_case_resumed_at_every_instruction(run_python, part):
    stats = run_cases(run_python, "resume", 2, part)
    assert stats["resumed"] > 20 * stats["instructions"], stats


@pytest.mark.parametrize("part", range(PARTS))
def test_every_case_through_the_entries_of_optimized_code(run_python, part):
    stats = run_cases(run_python, "optimized", 4, part)
    calls, loops = stats["stand_ins"]
    # The parts are not of equal weight.
    assert calls > 1200 // STEP, stats
    assert loops > 300 // STEP, stats
    assert stats["resumed"] == loops, stats


def test_a_loop_that_is_replaced_again_and_again(run_snippet):
    # Each back edge may be the third one since the last time; a native frame each would be too many.
    code = """
    import hotstamp
    def f(n):
        total = 0
        for i in range(n):
            total += i
        return total
    print(f(10), f(300_000), hotstamp.stats()["stand_ins"][1] > 50_000)
    """
    assert run_snippet(code, env={"HOTSTAMP_STRESS": "optimized"}) == "45 44999850000 True\n"


# How many instructions run, and how often a frame was resumed for them.
COUNT = """
import dis, hotstamp
def f(a, b):
    return [a, (b, a.real), {a: b}]
f(1, 2)
assert hotstamp.is_compiled(f)
before = hotstamp.stats()["resumed"]
f(1, 2)
after = hotstamp.stats()["resumed"]
print(after - before, len(list(dis.get_instructions(f))))
"""


def test_a_frame_is_resumed_once_for_each_instruction(run_snippet):
    resumed, instructions = map(int, run_snippet(COUNT, env={"HOTSTAMP_STRESS": "resume"}).split())
    # The statistics are asked for by an instruction of the module, which is not compiled.
    assert resumed == instructions
    assert run_snippet(COUNT).split()[0] == "0"


@pytest.mark.parametrize("mode", ["resume", "optimized"])
def test_tracing_that_begins_in_a_stressed_function(run_snippet, mode):
    code = """
    import sys, hotstamp
    events = []
    def tracer(frame, event, argument):
        events.append((event, frame.f_lineno - frame.f_code.co_firstlineno))
        return tracer
    def start(tracing):
        if tracing:
            sys._getframe(1).f_trace = tracer
            sys.settrace(tracer)
    def f(n, tracing):
        total = 0
        for i in range(n):
            start(tracing and i == 2)
            total += i
        return total
    for i in range(50):
        f(9, False)
    result = f(4, True)
    sys.settrace(None)
    print(result, events, hotstamp.stats()["exits"]["tracing_enabled"] > 0)
    """
    stressed = run_snippet(code, env={"HOTSTAMP_STRESS": mode})
    assert stressed == run_snippet(code)
    assert stressed.endswith("True\n")


@pytest.mark.parametrize(
    ("act", "reason", "frames"),
    [("sys.settrace(lambda *event: None)", "tracing_enabled", 2), ("hotstamp.opt_out(f)", "invalidated", 1)],
)
def test_a_resumed_frame_that_may_not_run_compiled(run_snippet, act, reason, frames):
    # A destructor acts where baseline code does not poll: the next resumption finds out, in the middle of a line, or lets the line begin.
    code = f"""
    import sys, hotstamp
    class Acts:
        def __del__(self):
            {act}
    def f(acts, n):
        held = Acts() if acts else None
        held = None; total = n + 1; total += n
        for i in range(n):
            total += i
        return total
    def lines(acts, n):
        held = Acts() if acts else None
        held = None
        total = n + 1
        return total
    for i in range(3):
        f(False, 3), lines(False, 3)
    before = hotstamp.stats()
    result = f(True, 3)
    between = hotstamp.stats()
    sys.settrace(None)
    print(result, between["exits"]["{reason}"] - before["exits"]["{reason}"], between["resumed"] - before["resumed"])
    print(lines(True, 3))
    """
    result, left, resumed = run_snippet(code, env={"HOTSTAMP_STRESS": "resume"}).splitlines()[0].split()
    # The destructor's own frame leaves as well when it is traced.
    assert (result, left) == ("10", str(frames))
    assert 5 < int(resumed) < 40
    assert run_snippet(code).splitlines()[1] == run_snippet(code, env={"HOTSTAMP_STRESS": "resume"}).splitlines()[1] == "4"
