"""warm.py as a user runs it: verdicts, pyperf's format, failures, interruption and resumption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PERF, QUICK, lab, passed


def test_the_interpreter_against_itself_is_inconclusive(warm_run: Path):
    summary = json.loads((warm_run / "result.json").read_text())["summary"]["busy"]
    deltas = summary["interpreter#2"]["deltas"]
    assert set(deltas) == {"paired", "mean", "median", "trimmed mean", "minimum", "without the first"}
    assert {delta["verdict"] for delta in deltas.values()} == {"inconclusive"}
    assert all(delta["low"] < 0 < delta["high"] for delta in deltas.values())


def test_every_result_says_where_it_comes_from(warm_run: Path):
    data = json.loads((warm_run / "result.json").read_text())
    about = data["provenance"]
    assert about["machine"]["cores"] == os.cpu_count()
    assert about["revision"] and about["date"] and about["load"] >= 0
    assert about["modes"]["interpreter"]["python"].startswith("CPython 3.14")
    assert about["modes"]["cinderx"]["cinderx"]
    assert all(len(record["load"]) == 2 and record["date"] for record in data["rounds"])


@pytest.mark.parametrize("command", [["stats", "interpreter.json"], ["hist", "cinderx.json"], ["compare_to", "interpreter.json", "cinderx.json"]], ids=lambda c: c[0])
def test_pyperf_reads_the_files(command: list[str], warm_run: Path):
    done = subprocess.run([sys.executable, "-m", "pyperf", *command], cwd=warm_run, capture_output=True, text=True)
    output = passed(done)
    assert "ms" in output or "us" in output
    if command[0] == "stats":
        assert "Number of run with values: 6" in output and "Number of warmup per run" in output


def test_pyperf_sees_the_same_samples(warm_run: Path):
    import pyperf

    own = [value for record in json.loads((warm_run / "result.json").read_text())["rounds"] for value in record["modes"]["cinderx"]["samples_ns"]]
    theirs = pyperf.BenchmarkSuite.load(str(warm_run / "cinderx.json")).get_benchmark("busy").get_values()
    assert sorted(theirs) == pytest.approx(sorted(value / 1e9 for value in own))


def test_a_crash_is_a_result_and_spares_the_other_modes(tmp_path: Path):
    script = tmp_path / "fragile.py"
    script.write_text("import os, signal, sys\ndef bench():\n    if os.environ.get('FRAGILE'): os.kill(os.getpid(), signal.SIGSEGV)\n    return sum(range(2000))\n")
    done = lab("warm.py", script, "--modes", "interpreter,interpreter:FRAGILE=1", *QUICK, "--out", tmp_path / "run")
    assert "killed by SIGSEGV" in passed(done)
    modes = json.loads((tmp_path / "run" / "result.json").read_text())["summary"]["fragile"]
    assert "summary_ns" in modes["interpreter"]
    # Given up after two, and each says why.
    assert modes["interpreter:FRAGILE=1"]["failures"] == dict.fromkeys(("0", "1"), "killed by SIGSEGV")


def test_a_raise_is_reported_with_its_text(tmp_path: Path):
    script = tmp_path / "raises.py"
    script.write_text("def bench():\n    raise LookupError('the data are missing')\n")
    done = lab("warm.py", script, "--modes", "interpreter", *QUICK, "--out", tmp_path / "run")
    assert "LookupError: the data are missing" in passed(done)


def test_a_script_without_bench(tmp_path: Path):
    script = tmp_path / "nothing.py"
    script.write_text("x = 1\n")
    assert "defines no bench()" in passed(lab("warm.py", script, "--modes", "interpreter", *QUICK, "--out", tmp_path / "run"))


def test_pyperf_scripts_run_unmodified_and_are_narrowed_by_name(tmp_path: Path):
    done = lab("warm.py", "deepcopy_reduce", "logging_silent", "--modes", "interpreter", *QUICK, "--rounds", "1", "--out", tmp_path / "run")
    passed(done)
    summary = json.loads((tmp_path / "run" / "result.json").read_text())["summary"]
    assert set(summary) == {"deepcopy_reduce", "logging_silent"}
    assert all(by_mode["interpreter"]["summary_ns"]["count"] >= 3 for by_mode in summary.values())


def test_interrupted_and_resumed(busy_script: Path, tmp_path: Path):
    """Ctrl-C in mid-run keeps what is finished; resuming takes only the rest; other settings are refused."""
    folder = tmp_path / "run"
    settings = [*QUICK, "--rounds", "8", "--modes", "interpreter,interpreter"]
    command = [PERF / "warm.py", busy_script, *settings, "--out", folder]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background jobs ignore SIGINT, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    journal = folder / "journal.jsonl"
    limit = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"--resume {folder}" in errors and "Traceback" not in errors
    kept = journal.read_bytes()
    finished = kept.count(b"\n") - 1
    assert 2 <= finished < 8
    # A line cut off by a crash of the machine is dropped, not believed.
    journal.write_bytes(kept + b'{"key": "busy/7", "rec')
    refused = lab("warm.py", busy_script, *settings, "--samples", "9", "--resume", folder)
    assert refused.returncode == 2 and "was started differently" in refused.stderr and "amount" in refused.stderr
    passed(lab("warm.py", busy_script, *settings, "--resume", folder))
    assert journal.read_bytes().startswith(kept)
    assert journal.read_bytes().count(b"\n") == 9
    assert len(json.loads((folder / "result.json").read_text())["rounds"]) == 8


def test_a_second_run_does_not_overwrite_a_first(warm_run: Path, busy_script: Path, here):
    done = here("warm.py", busy_script, "--modes", "interpreter", *QUICK, "--out", warm_run)
    assert done.returncode == 2 and "--resume" in done.stderr


def test_nothing_to_resume(tmp_path: Path, busy_script: Path, here):
    done = here("warm.py", busy_script, "--modes", "interpreter", "--resume", tmp_path)
    assert done.returncode == 2 and "nothing to resume" in done.stderr


def test_idle_workers_are_stopped(busy_script: Path):
    """Between requests a worker must not run: its background compiler would take another mode's time."""
    from lab import benchmarks, modes
    from lab.protocol import Worker, WorkerOptions

    with Worker(benchmarks.find(str(busy_script)), modes.parse("interpreter"), 0, WorkerOptions()) as worker:
        state = lambda: Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()[0]  # noqa: E731
        worker.sample(3)
        limit = time.monotonic() + 5
        while state() != "T" and time.monotonic() < limit:
            time.sleep(0.01)
        assert state() == "T"
        assert worker.sample(3) > 0


def test_hash_seeds_are_equal_across_modes_and_differ_between_rounds(tmp_path: Path):
    from lab import modes, process

    mode, other = modes.parse("interpreter"), modes.parse("jit")
    seeds = [process.environment(m, n, {})["PYTHONHASHSEED"] for n in (0, 1) for m in (mode, other)]
    assert seeds == ["0", "0", "1", "1"]


def test_the_callers_python_variables_do_not_leak(monkeypatch: pytest.MonkeyPatch):
    from lab import modes, process

    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    monkeypatch.setenv("HOTSTAMP_TIER", "optimizer")
    env = process.environment(modes.parse("interpreter"), 0, {"WANTED": "1"})
    assert "PYTHONOPTIMIZE" not in env and "HOTSTAMP_TIER" not in env and env["WANTED"] == "1"
