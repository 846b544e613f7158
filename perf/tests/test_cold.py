"""Cold measurement: whole processes accounted for, crashes counted, survivors counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import lab, passed

from lab import benchmarks, modes, paths, process, suite
from lab.errors import LabError


@pytest.fixture(scope="module")
def cold_run(busy_script: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("cold") / "run"
    amount = ("--startups", "3", "--firsts", "3")
    passed(lab("cold.py", busy_script, "--modes", "interpreter,interpreter", "--protocols", "startup,first", *amount, "--out", folder))
    return {"folder": folder, **json.loads((folder / "result.json").read_text())}


def test_every_metric_with_all_cores_and_with_one(cold_run: dict[str, Any]):
    cells = {(e["protocol"], e["cores"], e["mode"]): e["median"] for e in cold_run["summary"]}
    assert {key[1] for key in cells} == {"all", "0"}
    for (protocol, _, _), median in cells.items():
        wanted = {"wall_ns", "cpu_ns", "max_rss_kib"} | ({"first_ns", "result_ns"} if protocol == "first" else set())
        assert wanted <= set(median)
    for record in cold_run["rounds"]:
        for found in record["modes"].values():
            assert found["wall_ns"] > found.get("result_ns", 0) >= found.get("first_ns", 0) >= 0


def test_peak_memory_is_the_processs_own(cold_run: dict[str, Any]):
    """A child's peak would be the driver's (100 MB with numpy) if the driver started it by itself."""
    for entry in cold_run["summary"]:
        assert 5_000 < entry["median"]["max_rss_kib"] < 50_000


def test_pyperf_reads_cold_files(cold_run: dict[str, Any]):
    import pyperf

    found = pyperf.BenchmarkSuite.load(str(cold_run["folder"] / "cold-interpreter.json"))
    assert {"startup", "startup_core0", "first_busy", "first_busy_core0"} == set(found.get_benchmark_names())


def test_one_core_means_one_core():
    command = [*process.on_cores("0"), str(paths.WORKERS), "-c", "import os; print(len(os.sched_getaffinity(0)))"]
    assert process.run_to_end(command, {"PATH": "/usr/bin:/bin"}, 30).stdout.strip() == b"1"


def test_accounting_of_a_known_process():
    code = "import time; time.sleep(0.2); x = bytearray(60_000_000); t = time.process_time()\nwhile time.process_time() < t + 0.1: pass"
    cost = process.run_to_end([str(paths.WORKERS), "-c", code], {}, 30)
    assert cost.status == 0
    assert cost.wall_ns >= 300_000_000
    assert 100_000_000 <= cost.cpu_ns < cost.wall_ns
    assert 60_000 < cost.max_rss_kib < 110_000


def test_the_launchers_own_memory_hides_nothing():
    """The smallest program there is has less than 4 MB; anything more would be the launcher's or the driver's."""
    assert process.run_to_end(["/bin/true"], {}, 30).max_rss_kib < 4_000


def test_a_program_that_is_not_there():
    with pytest.raises(LabError, match="(?s)no such program.*perf/setup"):
        process.run_to_end(["/nowhere/python", "-c", "pass"], {}, 30)


def test_a_process_that_does_not_end_is_ended():
    cost = process.run_to_end([str(paths.WORKERS), "-c", "import time; time.sleep(60)"], {}, 0.3)
    assert cost.status == -9 and "not finished after 0.3 s" in cost.stderr


def test_a_crash_is_counted(tmp_path: Path):
    script = tmp_path / "crash.py"
    script.write_text("import os, signal\ndef bench():\n    os.kill(os.getpid(), signal.SIGSEGV)\n")
    done = lab("cold.py", script, "--modes", "interpreter", "--protocols", "first", "--firsts", "2", "--one-core", "", "--out", tmp_path / "run")
    assert "2 of 2 processes failed: killed by SIGSEGV" in passed(done)


def test_pyperfs_own_protocol(tmp_path: Path):
    arguments = ("deepcopy_memo", "--modes", "interpreter", "--protocols", "single", "--singles", "1", "--one-core", "")
    passed(lab("cold.py", *arguments, "--out", tmp_path / "run"))
    (entry,) = json.loads((tmp_path / "run" / "result.json").read_text())["summary"]
    assert entry["failures"] == [] and 1_000 < entry["median"]["value_ns"] < 1e9


def test_unknown_protocol(here):
    done = here("cold.py", "richards", "--protocols", "lukewarm")
    assert done.returncode == 2 and "startup, first, single, fast, suite" in done.stderr


def _survival(monkeypatch: pytest.MonkeyPatch, outcomes: list[tuple[int, int, str, list[float]]]) -> dict[str, Any]:
    monkeypatch.setattr(suite, "_prepare", lambda mode, env: paths.LAB)
    monkeypatch.setattr(suite, "_command", lambda *_: outcomes.pop(0))
    return suite.run(benchmarks.find("richards"), modes.parse("interpreter"), {}, "", 15, 60)


def test_survivors_of_healthy_commands(monkeypatch: pytest.MonkeyPatch):
    found = _survival(monkeypatch, [(11, 0, "", [0.1, 0.1]), (11, 0, "", [0.1])])
    assert (found["started"], found["survived"], len(found["values"])) == (22, 22, 3)
    assert "failed" not in found


def test_survivors_when_every_worker_crashes(monkeypatch: pytest.MonkeyPatch):
    found = _survival(monkeypatch, [(1, 1, "exit code -11", [])] * 15)
    assert (found["started"], found["survived"]) == (15, 0)
    assert found["failed"] == "15 of 15 workers died"


def test_survivors_when_one_crashes_on_the_way(monkeypatch: pytest.MonkeyPatch):
    found = _survival(monkeypatch, [(7, 1, "exit code -11", []), (11, 0, "", [0.1])])
    assert (found["started"], found["survived"]) == (18, 17)


def test_a_command_that_starts_nothing_does_not_loop(monkeypatch: pytest.MonkeyPatch):
    found = _survival(monkeypatch, [(0, 1, "no such option", [])] * 3)
    assert found["failed"] == "pyperformance started no worker"


def test_pyperf_workers_are_witnessed(tmp_path: Path):
    """What counts started workers: one line per pyperf worker process, and compilers switched on in each."""
    mode = modes.parse("interpreter")
    env = {**process.script_environment(mode, process.environment(mode, 0, {})), "LAB_WITNESS": str(tmp_path / "witness"), "LAB_PRELUDE": "import sys; sys.lab_was_here = True"}
    script = tmp_path / "script.py"
    script.write_text("import pyperf, sys\nassert sys.lab_was_here\npyperf.Runner().bench_func('x', int)\n")
    arguments = ["--processes", "2", "--values", "1", "--warmups", "0", "--loops", "1", "--inherit-environ", ",".join(env)]
    cost = process.run_to_end([str(mode.python), str(script), *arguments], env, 60)
    assert cost.status == 0, cost.stderr
    assert len((tmp_path / "witness").read_text().splitlines()) == 2
