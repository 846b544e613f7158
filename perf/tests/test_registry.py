"""Names of benchmarks and modes: all there, and clear errors for those that are not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import lab

from lab import benchmarks, builds, modes, paths
from lab.errors import LabError, ModeUnavailable, UnknownBenchmark, UnknownMode


def test_the_default_set_is_whole_and_installed():
    assert len(benchmarks.PEERS_SET) == 45
    for benchmark in benchmarks.find_all(["peers"]):
        text = benchmark.script.read_text()
        assert "pyperf" in text
        # The name to select must be one the script gives to pyperf, whole or put together from a prefix.
        prefix = benchmark.name.partition("_")[0]
        assert benchmark.name in text or f"{prefix}_%s" in text, benchmark.name


@pytest.mark.parametrize("variable", ["WORKERS", "CINDERX", "PYPY"])
def test_what_the_default_set_imports_is_installed(variable: str):
    """Missing packages would be dashes in the table, and look like a peer's fault."""
    env = {"PATH": "/usr/bin:/bin", **({"PYTHONPATH": str(paths.PYPY_SITE)} if variable == "PYPY" else {})}
    code = "import pyperf, pyaes, tomli, sympy.core.cache"
    done = subprocess.run([getattr(paths, variable), "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def test_micro_loops_are_there():
    assert [b.kind for b in benchmarks.find_all(["micro"])] == ["bench"] * 4


def test_names_beyond_the_default_set():
    assert benchmarks.find("xml_etree:xml_etree_parse").offered == "xml_etree_parse"
    assert benchmarks.find("networkx_k_core").arguments == ("k_core",)


def test_unknown_benchmark_names_the_nearest():
    with pytest.raises(UnknownBenchmark, match="(?s)richerds.*richards.*--list"):
        benchmarks.find("richerds")
    done = lab("warm.py", "richerds")
    assert done.returncode == 2
    assert "unknown benchmark: richerds" in done.stderr and "Traceback" not in done.stderr


def test_missing_script():
    with pytest.raises(UnknownBenchmark, match="no such script: nowhere/x.py"):
        benchmarks.find("nowhere/x.py")


def test_unknown_mode_lists_the_modes():
    with pytest.raises(UnknownMode, match="(?s)turbo.*interpreter.*cinderx"):
        modes.parse("turbo")


@pytest.mark.parametrize(("mode", "variable"), [("pypy", "PYPY"), ("cinderx", "CINDERX"), ("interpreter", "WORKERS")])
def test_missing_peer_says_what_to_run(mode: str, variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, variable, paths.LAB / "nowhere" / "bin" / "python")
    with pytest.raises(ModeUnavailable, match="(?s)not installed.*perf/setup"):
        modes.parse(mode)


def test_hotstamp_that_is_not_built_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CARGO_TARGET_DIR", str(tmp_path))
    builds.current.cache_clear()
    try:
        with pytest.raises(ModeUnavailable, match="(?s)hotstamp is not built.*ci/build"):
            modes.parse("baseline")
        found, missing = modes.available(["interpreter", "auto"])
    finally:
        builds.current.cache_clear()
    assert [mode.name for mode in found] == ["interpreter"]
    assert "ci/build" in missing[0]


def test_a_build_without_the_package(tmp_path: Path):
    with pytest.raises(ModeUnavailable, match="(?s)hotstamp is not in the built Python.*ci/build"):
        builds._installed(tmp_path, "x86_64")


def test_a_variable_that_the_build_does_not_read_is_refused(tmp_path: Path):
    package = tmp_path / "hotstamp"
    package.mkdir()
    (package / "_hotstamp.so").write_bytes(b"\0HOTSTAMP_TIER\0HOTSTAMP\0")
    build = builds.Build(paths.WORKERS, tmp_path, "test")
    modes.require_known("auto", {"HOTSTAMP_TIER": "auto"}, build)
    with pytest.raises(ModeUnavailable, match="knows no variable HOTSTAMP_WARP"):
        modes.require_known("auto", {"HOTSTAMP_WARP": "1"}, build)


@pytest.mark.parametrize("text", ["interpreter@HEAD", "auto:HOTSTAMP_AUTO", "auto:=3"])
def test_malformed_modes(text: str):
    with pytest.raises(UnknownMode):
        modes.take_apart(text)


def test_modes_carry_revision_and_variables():
    spec = modes.take_apart("auto@HEAD~1:HOTSTAMP_AUTO=25")
    assert (spec.base, spec.revision, spec.variables) == ("auto", "HEAD~1", {"HOTSTAMP_AUTO": "25"})
    assert spec.hotstamp_environment()["HOTSTAMP_AUTO"] == "25"


def test_jitlist_wants_a_file():
    with pytest.raises(LabError, match="--jitlist FILE"):
        modes.take_apart("jitlist").hotstamp_environment()


def test_unknown_revision():
    with pytest.raises(LabError, match="no such revision: no-such-branch"):
        builds.commit_of("no-such-branch")


def test_without_its_environment_the_lab_says_what_to_run(tmp_path: Path):
    done = lab("warm.py", "richards", env={"XDG_CACHE_HOME": str(tmp_path)})
    assert done.returncode != 0
    assert "run: perf/setup" in done.stderr


@pytest.mark.parametrize(
    ("tier", "statistics", "words"),
    [
        ("baseline", {"functions_stamped": 3}, ""),
        ("baseline", {"functions_stamped": 0}, "the interpreter's"),
        ("baseline", {}, "the interpreter's"),
        ("optimizer", {"functions_stamped": 3, "functions_optimized": 1}, ""),
        ("optimizer", {"functions_stamped": 3}, "the baseline's"),
        ("auto", {"functions_stamped": 3}, ""),
        ("auto", {"functions_stamped": 0}, ""),
        ("auto", {}, "the interpreter's"),
    ],
)
def test_a_run_that_did_not_measure_its_mode_is_no_figure(tier: str, statistics: dict[str, int], words: str):
    mode = modes.Mode(tier, tier, paths.WORKERS, "hotstamp", {"HOTSTAMP_TIER": tier})
    why = modes.why_vacuous(mode, statistics)
    assert words in why and bool(words) == bool(why)
    assert not modes.why_vacuous(mode, {"functions_stamped": 0}, brief=True)
    assert modes.why_vacuous(modes.parse("interpreter"), {}) == ""
