"""peers, policy, ab, codesize: what they compare, and what they show where something is missing."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from pathlib import Path

import pytest
from conftest import PERF, QUICK, lab, passed

import ab
import policy
from lab import comparison, errors, peertable, progress, results, sizes, warmloop
from lab.warmloop import WarmPlan


def _round(number: int, **modes: list[float] | str) -> dict:
    """A journal's record with given samples in ns, or a reason for none."""

    def one(given: list[float] | str) -> dict:
        if isinstance(given, str):
            return {"failed": given}
        return {"inner_loops": 1, "samples_ns": given, "first_ns": given[0] * 2, "warmup": [], "marks": [], "loops": 1}

    return {"benchmark": "richards", "round": number, "load": [0.0, 0.0], "date": "", "modes": {name: one(given) for name, given in modes.items()}}


def test_ratios_means_dashes_and_reasons():
    records = {str(n): _round(n, interpreter=[100.0 + n] * 4, jit=[50.0 + n / 2] * 4, pypy="ModuleNotFoundError: x") for n in range(6)}
    names = ["interpreter", "jit", "pypy"]
    run = comparison.Run(Path(), names, results.from_records(records, names), {"modes": {}})
    table = peertable.peers_table(run, ["interpreter", "auto", "jit", "pypy"], {"auto": "hotstamp is not built"}, 0.95)
    rows = {row[0]: row[1:] for row in table.rows}
    # warm: hotstamp, JIT, PyPy; first: the same
    assert rows["richards"] == ("-", "2.00", "-", "-", "0.50", "-")
    assert rows["geometric mean"] == ("-", "2.00", "-", "-", "0.50", "-")
    assert rows["worst"][1] == "2.00 richards"
    notes = "\n".join(table.notes)
    assert "richards, PyPy: 6 of 6 processes failed: ModuleNotFoundError: x" in notes
    assert "hotstamp: not measured: hotstamp is not built" in notes
    assert "PyPy: its means are over 0 of 1 benchmarks" in notes


def test_a_figure_that_may_be_one_is_marked():
    noisy = {str(n): _round(n, interpreter=[100.0] * 4, jit=[95.0 if n % 2 else 106.0] * 4) for n in range(6)}
    run = comparison.Run(Path(), ["interpreter", "jit"], results.from_records(noisy, ["interpreter", "jit"]), {"modes": {}})
    table = peertable.peers_table(run, ["interpreter", "jit"], {}, 0.95)
    assert table.rows[0][1].endswith("~")


def test_a_mode_that_was_not_warm_is_marked():
    records = {str(n): _round(n, interpreter=[100.0] * 4, jit=[50.0 + n] * 4) for n in range(6)}
    records["3"]["modes"]["jit"]["warming"] = True
    run = comparison.Run(Path(), ["interpreter", "jit"], results.from_records(records, ["interpreter", "jit"]), {"modes": {}})
    table = peertable.peers_table(run, ["interpreter", "jit"], {}, 0.95)
    assert table.rows[0][1].endswith("^") and any(note.startswith("^") for note in table.notes)
    assert run.results["richards"]["jit"].unsettled_rounds() == 1


@pytest.mark.parametrize(
    ("times", "marks", "under_way", "warming"),
    [
        ([10.0] * 30, [], 0, False),
        ([10.0] * 30, [], 2, True),  # in the queue of the compiler
        ([10.0] * 30, [[4, {}]], 0, False),
        ([10.0] * 30, [[25, {}]], 0, True),  # compiled just now
        ([10.0] * 15 + [8.0] * 15, [], 0, True),  # whatever made it faster
        ([10.0, 11.0] * 15, [], 0, False),
        ([10.0, 5.0], [], 0, False),  # too few to say
    ],
)
def test_what_is_not_warm_yet(times: list[float], marks: list, under_way: int, warming: bool):
    stage = {"entries": [[2, 2 * time] for time in times], "marks": marks, "under_way": under_way}
    assert warmloop.still_warming(stage) == warming


class _Stages:
    """A worker whose stages of warm-up are given."""

    inner_loops = 1

    def __init__(self, *busy: int, first: float = 1.0) -> None:
        self.busy, self.first_ns, self.asked = list(busy), first, []

    def first(self) -> float:
        return self.first_ns

    def warm_up(self, nanoseconds: int, least: int) -> dict:
        self.asked.append((nanoseconds, least))
        return {"entries": [[1, 7.0]] * 10, "counters": {"n": len(self.asked)}, "marks": [[2, {}]], "under_way": self.busy.pop(0)}


def test_a_warm_up_goes_on_until_it_is_warm():
    worker = _Stages(1, 1, 0)
    found = warmloop._warm_up(worker, WarmPlan(warmup=0.5, warmups=4))
    assert worker.asked == [(500_000_000, 2), (500_000_000, 1), (500_000_000, 1)]
    assert (found["warmups"], found["warming"], len(found["warmup"])) == (3, False, 30)
    assert (found["counters"], [index for index, _ in found["marks"]]) == ({"n": 1}, [2, 12, 22])


def test_a_warm_up_ends_and_says_that_it_was_not_enough():
    found = warmloop._warm_up(_Stages(1, 1, 1), WarmPlan(warmup=0.5, warmups=2))
    assert (found["warmups"], found["warming"]) == (2, True)


def test_a_first_iteration_as_long_as_a_warm_up_is_half_of_one():
    worker = _Stages(0, first=2e9)
    warmloop._warm_up(worker, WarmPlan(warmup=1.0))
    assert worker.asked == [(1_000_000_000, 1)]


def test_peers_script(busy_script: Path, tmp_path: Path):
    done = lab("peers.py", busy_script, "--modes", "interpreter,cinderx,pypy", "--no-setup", *QUICK, "--out", tmp_path / "run")
    output = passed(done)
    assert "geometric mean" in output and "start-up" in output
    data = json.loads((tmp_path / "run" / "peers.json").read_text())
    assert data["benchmarks"]["busy"]["pypy"]["warm"] > 0
    assert data["startup"].keys() == {"interpreter", "cinderx", "pypy"}
    document = (tmp_path / "run" / "peers.md").read_text()
    assert "at revision" in document and "| busy |" in document


def test_only_the_whole_table_is_published(here):
    done = here("peers.py", "richards", "--results", "--no-setup")
    assert done.returncode == 2 and "whole table" in done.stderr


def test_policy_compares_settings_with_the_default(busy_script: Path, tmp_path: Path):
    arguments = ("--mode", "interpreter", "--set", "PYTHON_JIT=1", "--set", "PYTHONMALLOC=malloc,pymalloc")
    output = passed(lab("policy.py", busy_script, *arguments, *QUICK, "--out", tmp_path / "run"))
    for setting in ("PYTHON_JIT=1", "PYTHONMALLOC=malloc", "PYTHONMALLOC=pymalloc"):
        assert setting in output
    rounds = json.loads((tmp_path / "run" / "result.json").read_text())["rounds"]
    assert all(len(record["modes"]) == 4 for record in rounds)


def test_policy_sweeps_by_default_what_the_build_reads():
    settings = policy.settings(policy.parser().parse_args(["richards"]))
    assert {setting.partition("=")[0] for setting in settings} == {"HOTSTAMP_AUTO", "HOTSTAMP_INLINE", "HOTSTAMP_FEEDBACK", "HOTSTAMP_OSR"}
    modes, refused = policy.modes_for(["auto"], settings)
    assert not refused and len(modes) == 1 + len(settings)


def test_policy_refuses_what_a_mode_does_not_have(here):
    done = here("policy.py", "richards", "--mode", "interpreter")
    assert done.returncode == 2 and "--set" in done.stderr
    done = here("policy.py", "richards", "--toggles", "warp")
    assert done.returncode == 2 and "feedback" in done.stderr


def test_ab_interleaves_two_revisions():
    assert ab.modes("v1", ".", ["auto", "baseline"]) == ["auto@v1", "auto", "baseline@v1", "baseline"]


def test_ab_errors(here):
    with pytest.raises(errors.LabError, match="not a mode of hotstamp: jit"):
        ab.modes("v1", "v2", ["jit"])
    done = here("ab.py", "HEAD", "no-such-branch", "warm", "richards")
    assert done.returncode == 2 and "no such revision: no-such-branch" in done.stderr
    done = here("ab.py", "HEAD", "HEAD", "warm", "richards")
    assert done.returncode == 2 and "both revisions are HEAD" in done.stderr
    done = here("ab.py", "HEAD", ".", "warm", "richards", "--modes", "auto")
    assert done.returncode == 2 and "--tiers" in done.stderr


def test_ab_hands_the_rest_to_the_tool(monkeypatch: pytest.MonkeyPatch):
    import warm

    given: list[list[str]] = []
    monkeypatch.setattr(ab.builds, "commit_of", lambda revision: revision)
    monkeypatch.setattr(ab.builds, "at_revision", lambda revision: None)
    monkeypatch.setattr(warm, "main", lambda argv: given.append(argv) or 0)
    assert ab.main(["v1", "v2", "warm", "richards", "--rounds", "3", "--tiers", "baseline"]) == 0
    assert given == [["richards", "--rounds", "3", "--modes", "baseline@v1,baseline@v2"]]
    monkeypatch.setattr(policy, "main", lambda argv: given.append(argv) or 0)
    assert ab.main(["v1", "v2", "policy", "richards", "--thresholds", "10"]) == 0
    assert given[1] == ["richards", "--thresholds", "10", "--mode", "auto@v1,auto@v2"]


def test_policy_compares_each_revision_with_itself():
    modes = ["auto@a", "auto@a:HOTSTAMP_AUTO=10", "auto@b", "auto@b:HOTSTAMP_AUTO=10"]
    times = dict(zip(modes, (100.0, 50.0, 200.0, 150.0), strict=True))
    records = {str(n): _round(n, **{mode: [time + n] * 4 for mode, time in times.items()}) for n in range(6)}
    table = policy.policy_table(results.from_records(records, modes), ["auto@a", "auto@b"], modes, [], 0.95)
    assert [row[1:3] for row in table.rows] == [("auto@a:HOTSTAMP_AUTO=10", "-48.8%"), ("auto@b:HOTSTAMP_AUTO=10", "-24.7%")]


def test_codesize_of_a_known_compiler(busy_script: Path, tmp_path: Path):
    arguments = ("--arch", "x86_64", "--modes", "cinderx", "--counts", "1,2,40", "--iterations", "2")
    passed(lab("codesize.py", "micro_fib", *arguments, "--out", tmp_path / "run"))
    data = json.loads((tmp_path / "run" / "result.json").read_text())
    found = data["canonical"][platform.machine()]["cinderx"]
    code = [found[n]["code_bytes"] for n in ("1", "2", "40")]
    assert 0 < code[0] < code[1] < code[2]
    assert (code[2] - code[1]) / 38 == pytest.approx(code[1] - code[0], rel=0.5)


def test_codesize_table_shows_the_cost_of_a_call():
    cell = lambda code, **more: {"code_bytes": code, "metadata_bytes": 8, "bytecode_bytes": 10, **more}  # noqa: E731
    by_mode = {
        "baseline": {"1": cell(600), "2": cell(800), "200": cell(40_000)},
        "optimizer": {"1": cell(500), "2": cell(600), "200": cell(20_000, baseline_bytes=40_000)},
        "cinderx": {"failed": "refused"},
    }
    table = sizes.canonical_table({"aarch64": by_mode}, [1, 2, 200])
    assert table.rows[0] == ("aarch64", "baseline", "600", "800", "40000", "200", "4000.0", "8", "-")
    assert table.rows[1] == ("aarch64", "optimizer", "500", "600", "20000", "100", "2000.0", "8", "40000")
    assert set(table.rows[2][2:]) == {"-"} and table.notes == ["aarch64, cinderx: refused"]


def test_sizes_of_a_benchmarks_functions_by_tier():
    function = lambda name, optimized: {"function": name, "code_bytes": 300, "optimized_bytes": optimized, "bytecode_bytes": 100}  # noqa: E731
    found = {"functions": [function("m:hot", 500), function("m:cold", 0)], "statistics": {"metadata_bytes": 900}, "statistics_at_start": {"metadata_bytes": 500}}
    totals, functions = sizes.function_tables("x", {"x86_64": {"auto": found}}, 15)
    assert totals.rows == [("x86_64", "auto", "2", "600", "500", "400", "200", "3.0", "2.0", "5.0")]
    assert functions.rows == [("m:hot", "300", "500", "100", "3.0", "5.0"), ("m:cold", "300", "-", "100", "3.0", "-")]


def test_both_tiers_have_a_size(tmp_path: Path):
    script = tmp_path / "loop.py"
    script.write_text("def work(n):\n    total = 0\n    for i in range(n):\n        total += i\n    return total\ndef bench():\n    work(500)\n")
    passed(lab("codesize.py", script, "--arch", platform.machine(), "--counts", "1,2", "--modes", "baseline,optimizer", "--out", tmp_path / "run"))
    data = json.loads((tmp_path / "run" / "result.json").read_text())
    shapes = data["canonical"][platform.machine()]
    assert shapes["optimizer"]["2"]["baseline_bytes"] == shapes["baseline"]["2"]["code_bytes"] > 0
    assert 0 < shapes["optimizer"]["2"]["code_bytes"] != shapes["baseline"]["2"]["code_bytes"]
    functions = {mode: {f["function"]: f for f in found["functions"]} for mode, found in data["functions"]["loop"][platform.machine()].items()}
    assert functions["baseline"]["__bench__:work"]["optimized_bytes"] == 0
    assert functions["optimizer"]["__bench__:work"]["optimized_bytes"] > 0
    assert not any(name.startswith("importlib") for name in functions["baseline"])


def test_sizes_are_not_asked_of_the_interpreter(here):
    done = here("codesize.py", "--modes", "interpreter", "--arch", "x86_64")
    assert done.returncode == 2 and "no sizes" in done.stderr


def test_a_new_table_takes_the_old_ones_place_and_leaves_the_rest():
    assert peertable.published("", "# Peers\n\nnew\n") == "# Peers\n\nnew\n"
    old = "# AArch64\n\ncounts\n## More\nfigures\n\n# Peers\n\nold\n## Start-up\nold\n"
    assert peertable.published(old, "# Peers\n\nnew\n") == "# Peers\n\nnew\n\n# AArch64\n\ncounts\n## More\nfigures\n"


def test_the_time_that_a_run_takes_is_estimated():
    plan = WarmPlan(rounds=6, warmup=1.0, samples=10, sample_time=0.05, sampling=1.0, budget=1e9)
    assert warmloop.estimate(plan, 2, 3) == pytest.approx(2 * 6 * 3 * (warmloop.OVERHEAD + 1.5))
    # A budget ends the rounds, but for the least.
    assert warmloop.estimate(dataclasses.replace(plan, budget=1.0), 2, 3) == pytest.approx(2 * 3 * 3 * (warmloop.OVERHEAD + 1.5))
    reporter = progress.Reporter(4, None)
    assert reporter.left() == ""
    reporter._began -= 300
    reporter.step("x", advance=1)
    assert reporter.left() == ", about 15 min left"


def test_the_amounts_that_arch_counts_by_default():
    import arch

    arguments = arch.parser().parse_args([])
    assert arguments.count_warm > 0 and arguments.count_loops > 0


@pytest.mark.parametrize("script", ["warm.py", "cold.py", "peers.py", "codesize.py", "policy.py", "arch.py", "ab.py", "report.py"])
def test_help(script: str, here):
    done = here(script, "--help")
    assert f"perf/{script}" in passed(done)


def test_the_scripts_import_nothing_of_hotstamp():
    """The lab reaches hotstamp through its environment variables and its Python functions, in measured processes only."""
    allowed = {"worker.py", "shapes.py"}
    for file in PERF.rglob("*.py"):
        if file.name not in allowed and "tests" not in file.parts and file.name != "demo.py" and "out" not in file.parts:
            assert "import hotstamp\n" not in file.read_text(), file


def test_the_worker_needs_the_standard_library_and_pyperf_only():
    import ast

    tree = ast.parse((PERF / "lab" / "worker.py").read_text())
    names = {alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names - sys.stdlib_module_names == {"pyperf", "hotstamp", "cinderx"}
