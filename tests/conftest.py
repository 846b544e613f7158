"""How the Python tests run programs: each in a process of its own, with a tier chosen by environment.

`run_python` runs a command line, `run_snippet` a piece of code with hotstamp enabled from the start. Every test that claims something about compiled code asks
`hotstamp.is_compiled` or the statistics inside the snippet, so that it cannot pass in the interpreter.
"""

import ast
import errno
import functools
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

# Compiled code is what the tests are about: all of it is stamped at its first call, but where a test says otherwise (an empty value is the default).
os.environ.setdefault("HOTSTAMP_STAMP", "1")

# Variables that would decide for the programs under test.
OURS = ("HOTSTAMP", "HOTSTAMP_TIER", "HOTSTAMP_STATS", "HOTSTAMP_LOG", "HOTSTAMP_CODE_MIB", "HOTSTAMP_JITLIST")

# Files that `--sample` leaves whole: what generates every kind of code, and what runs in one process.
WHOLE = ("test_templates.py", "test_code_memory.py", "test_benchmarks.py")


def pytest_addoption(parser):
    parser.addoption("--sample", type=int, default=1, metavar="N", help=f"only every Nth test of the files other than {', '.join(WHOLE)}: for emulation, where a start takes a second")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Behind the markers' choice, so that what they left out is not counted."""
    step = config.getoption("sample")
    others = [item for item in items if item.path.name not in WHOLE]
    left_out = {item for number, item in enumerate(others) if number % step}
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))


@functools.cache
def python_command():
    """What starts this Python again. Emulated without the kernel's help, it needs the emulator in front."""
    try:
        subprocess.run([sys.executable, "-I", "-c", "pass"], check=True, capture_output=True)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        return (shutil.which(f"qemu-{os.uname().machine}-static"), sys.executable)
    return (sys.executable,)


def environment(tier=None, **variables):
    """The tests' environment with hotstamp enabled in one tier; `tier=None` leaves it off."""
    env = {name: value for name, value in os.environ.items() if name not in OURS}
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    env["PYTHONHASHSEED"] = "0"
    if tier is not None:
        env["HOTSTAMP"] = "1"
        env["HOTSTAMP_TIER"] = tier
    env.update(variables)
    return env


def _run_python(*arguments, tier=None, env=None, timeout=120, **options):
    options.setdefault("stdin", subprocess.DEVNULL if "input" not in options else None)
    if options["stdin"] is None:
        del options["stdin"]
    return subprocess.run(
        [*python_command(), *map(str, arguments)],
        env=environment(tier, **(env or {})),
        capture_output=True,
        text=True,
        timeout=timeout,
        **options,
    )


def _run_snippet(code, tier="baseline", **options):
    done = _run_python("-c", textwrap.dedent(code), tier=tier, **options)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def run_python():
    """run_python(*arguments, tier=None, env=None, **options_of_subprocess_run): a finished process with text output."""
    return _run_python


@pytest.fixture
def run_snippet():
    """run_snippet(code, tier="baseline", ...): what the code prints; fails unless it ends well."""
    return _run_snippet


# Each program prints what it saw. In the compiled run, `check` sees to it that the named functions ran compiled, `resumed` that their generators did.
HEAD = """
import sys, gc, weakref, threading, warnings, functools, traceback
compiled_run = {compiled}
def check(*functions):
    if compiled_run:
        import hotstamp
        for function in functions:
            assert hotstamp.is_compiled(function), function
def resumed(function, times=1):
    if compiled_run:
        import hotstamp
        assert hotstamp.resumptions(function) >= times, (function, hotstamp.resumptions(function))
"""


@pytest.fixture
def compare(run_python):
    """compare(program): asserts that it prints the same interpreted and compiled, and returns the lines."""

    def run(program, **options):
        outcomes = []
        for tier in None, "baseline":
            text = HEAD.format(compiled=tier is not None) + textwrap.dedent(program)
            done = run_python("-c", text, tier=tier, **options)
            assert done.returncode == 0, f"{tier}: exit status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            outcomes.append((done.stdout, done.stderr))
        assert outcomes[1] == outcomes[0]
        lines = outcomes[0][0].splitlines()
        assert lines, "a program that prints nothing compares nothing"
        return lines

    return run


# Prints a dictionary of Python's: a module imported here would be optimized first, which takes longer than the programs.
OPTIMIZED_EPILOGUE = """
if "hotstamp" in __import__("os").environ.get("QA_CHECK", ""):
    import hotstamp, sys
    stats = hotstamp.stats()
    print(repr({"missing": [f.__name__ for f in ran if not hotstamp.optimizations(f)], "exits": stats["optimizer"]["exits"], "failed": stats["optimizer"]["failed"]}), file=sys.stderr)
"""


@pytest.fixture
def compare_optimized(run_python, tmp_path):
    """Runs a program interpreted and with the optimizer forced; gives what it printed. `ran` in the program names functions that must have been optimized.

    `from_start`: as HOTSTAMP=1 does it, without frames of a runner beneath the program. `hir`: a pattern that a line of some optimized function's HIR must have. `exits`: reasons for which it must have been left.
    """

    def run(source, from_start=False, threshold=2, timeout=600, hir=None, exits=()):
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(source) + OPTIMIZED_EPILOGUE)
        expected = run_python(program)
        assert expected.returncode == 0, expected.stderr
        # `-m hotstamp` enables it for the program: with HOTSTAMP=1 all that Python does at start-up would be optimized before, for a second.
        env = {"HOTSTAMP": "1" if from_start else "", "QA_CHECK": "hotstamp", "HOTSTAMP_AUTO": str(threshold), "HOTSTAMP_VERIFY": "1"}
        if hir:
            env |= {"HOTSTAMP_DUMP": "hir", "HOTSTAMP_DUMP_FOLDER": str(tmp_path / "dump")}
        runner = [] if from_start else ["-m", "hotstamp"]
        got = run_python(*runner, program, tier="optimizer", env=env, timeout=timeout)
        assert got.returncode == 0, (got.returncode, got.stdout[-2000:], got.stderr[-4000:])
        assert got.stdout == expected.stdout
        seen = ast.literal_eval(got.stderr.splitlines()[-1])
        assert not seen["missing"] and not seen["failed"], seen
        for reason in exits:
            assert seen["exits"][reason] > 0, seen["exits"]
        if hir:
            assert any(re.search(hir, file.read_text(), re.MULTILINE) for file in (tmp_path / "dump").glob("*.hir")), hir
        return got.stdout

    return run
