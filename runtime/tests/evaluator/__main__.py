"""Runs the programs and calls twice, by the interpreter and by the evaluator, and compares; then repeats them and looks for leaks.

The builtins `enable` and `executed` come from main.rs.
"""

import builtins
import gc
import sys
import time

import arguments
import programs
import suspensions
from records import notes

PROGRAMS = (*programs.PROGRAMS, *suspensions.PROGRAMS)

# Only the interpreter's own frame around `__init__` has this one.
NEVER = {"EXIT_INIT_CHECK"}
REPETITIONS = 12
# Seconds of processor time in which no real processor interprets all programs and calls. Emulated ones would spend minutes on repetitions.
SLOW = 3


def run_programs():
    """Runs all programs and returns their notes."""
    gc.disable()
    records = []
    for program in PROGRAMS:
        program()
        records += [(program.__name__, record) for record in notes]
        # What only the collector finds dies now, not in the next program.
        gc.collect()
        notes.clear()
    return records


def forgetful(program):
    """A function that runs a program and forgets its notes."""

    def run():
        program()
        gc.collect()
        notes.clear()

    return run


def differences(expected, seen):
    yield from (f"expected {a}\nseen     {b}" for a, b in zip(expected, seen) if a != b)
    if len(expected) != len(seen):
        yield f"expected {len(expected)} records, seen {len(seen)}"


def leftovers(run):
    """What repeated runs leave behind: how many memory blocks, and how many references to long-lived objects."""
    scopes = [vars(builtins), vars(programs), vars(suspensions)]
    witnesses = [*scopes, *(value for scope in scopes for value in scope.values())]
    for _ in range(5):
        run()
    gc.collect()
    counts = [sys.getrefcount(witness) for witness in witnesses]
    blocks = sys.getallocatedblocks()
    for _ in range(REPETITIONS):
        run()
    gc.collect()
    blocks = sys.getallocatedblocks() - blocks
    left = {f"references to {w!r}": sys.getrefcount(w) - count for w, count in zip(witnesses, counts)}
    return {**left, "memory blocks": blocks}


def leaks(before, run):
    """What is left behind in most repetitions, and was not before. What grows by leaps only must leap three times to be counted."""
    amounts = [leftovers(run)]
    for what, count in amounts[0].items():
        allowed = before.get(what, 0) + REPETITIONS // 2
        while min(counts := [amount[what] for amount in amounts]) > allowed:
            if len(amounts) == 3:
                yield f"{counts} {what}"
                break
            amounts.append(leftovers(run))


def main():
    started = time.process_time()
    expected_programs, expected_calls = run_programs(), arguments.run(arguments.make())
    runs = {program.__name__: forgetful(program) for program in PROGRAMS}
    runs["generated calls"] = lambda: arguments.run(arguments.make(10))
    if time.process_time() - started > SLOW:
        print("emulated, it seems: leaks are not looked for")
        runs.clear()
    # Interpreting leaves something behind too, now and then.
    before = {name: leftovers(run) for name, run in runs.items()}
    enable()
    problems = list(differences(expected_programs, run_programs()))
    problems += differences(expected_calls, arguments.run(arguments.make()))
    for name, run in runs.items():
        problems += (f"{name} leaves behind {leak}" for leak in leaks(before[name], run))
    counts = executed()
    print(f"{len(expected_programs)} notes; {counts['calls']} calls bound, {counts['refused']} refused")
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    idle = {name for name, count in counts.items() if count == 0} - NEVER
    if problems or idle:
        sys.exit(f"{len(problems)} problems; never executed: {sorted(idle)}")


main()
