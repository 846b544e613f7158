"""Several hosts: exact instruction counts under emulation, and another host over ssh (the loopback address)."""

from __future__ import annotations

import json
import os
import platform
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest
from conftest import PERF, QUICK, lab, passed

from lab import archtable, benchmarks, emulation, guests, hosts, modes, remote
from lab.errors import LabError
from lab.protocol import WorkerOptions

emulated = pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 machines emulate AArch64")


@emulated
def test_executed_instructions_repeat_exactly(tmp_path: Path):
    script = tmp_path / "loop.py"
    script.write_text("def bench():\n    for _ in range(2000):\n        pass\n")
    mode = emulation.guest_mode("interpreter")
    once, again = (guests.counted(benchmarks.find(str(script)), mode, 6, WorkerOptions()) for _ in range(2))
    assert once == again
    # Per turn of the loop three bytecode instructions and an integer made and freed.
    assert len(once["by_iteration"]) == 6 and 2000 * 20 < once["by_iteration"][-1] < 2000 * 500 < once["before"]
    # Once the interpreter has specialized it, one iteration is as the other.
    assert once["by_iteration"][-1] == pytest.approx(once["by_iteration"][-2], rel=0.01)


@emulated
def test_the_plugin_counts_a_known_program_exactly(tmp_path: Path):
    """A hand-made AArch64 program: 1 instruction, then 1000 turns of 2, then 3 to leave."""
    code = (0xD2807D00, 0xF1000400, 0x54FFFFE1, 0xD2800000, 0xD2800BA8, 0xD4000001)  # movz x0, #1000; subs; b.ne; exit(0)
    base, header = 0x400000, 64 + 56
    size = header + 4 * len(code)
    elf = struct.pack("<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 2, 183, 1, base + header, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    program, total = tmp_path / "program", tmp_path / "total"
    program.write_bytes(elf + segment + struct.pack(f"<{len(code)}I", *code))
    program.chmod(0o755)
    emulator = emulation.plugin_emulator()
    subprocess.run([emulator.command[0], "-plugin", f"{emulation.plugin()},out={total}", program], env=emulator.environment, check=True)
    assert int(total.read_text()) == 1 + 2 * 1000 + 3


@emulated
def test_what_is_not_run_under_emulation_says_so():
    with pytest.raises(LabError, match="not run on emulated AArch64"):
        emulation.guest_mode("pypy")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory):
    """An ssh server on the loopback address with a key of its own; yields its port and the client's options."""
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized").write_bytes((folder / "client.pub").read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nPidFile {folder}/pid\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", folder / "config"], stderr=(folder / "log").open("w"))
    try:
        limit = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < limit and server.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
        options = [f"IdentityFile={folder}/client", "IdentitiesOnly=yes", f"UserKnownHostsFile={folder}/known", "StrictHostKeyChecking=no"]
        yield port, [part for option in options for part in ("--ssh-option", option)]
    finally:
        server.terminate()
        server.wait()


def test_this_machine_and_one_over_ssh(sshd, busy_script: Path, tmp_path: Path):
    port, ssh_options = sshd
    name = f"ssh:127.0.0.1:{port}"
    arguments = ["micro_fib", "--modes", "interpreter,cinderx", *QUICK, "--hosts", f"local,{name}", "--remote-dir", PERF.parent, *ssh_options]
    output = passed(lab("arch.py", *arguments, "--out", tmp_path / "run"))
    assert name in output
    data = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [host["host"] for host in data["hosts"]] == ["local", name]
    for host in data["hosts"]:
        assert len(host["benchmarks"]["micro_fib"]["cinderx"]["samples"]) == 3
        assert host["provenance"]["machine"]["architecture"] == platform.machine()
    summary = data["summary"]["micro_fib"]
    assert set(summary["modes"]["cinderx"]) == {"local", name}
    between = summary["hosts"][f"{name} against local"]
    assert between["low"] < between["change"] < between["high"]


def test_a_host_that_has_to_be_set_up(sshd, tmp_path: Path):
    """It gets this commit, is set up there, and measures; nothing is built for modes that are not hotstamp's."""
    port, ssh_options = sshd
    name = f"ssh:127.0.0.1:{port}"
    arguments = ["micro_fib", "--modes", "interpreter", *QUICK, "--hosts", name, "--remote-home", tmp_path / "there", *ssh_options]
    done = lab("arch.py", *arguments, "--out", tmp_path / "run")
    passed(done)
    assert f"{name}: perf/setup" in done.stderr and "ci/build" not in done.stderr
    (folder,) = (tmp_path / "there").iterdir()
    for file in ("perf/arch.py", "perf/setup", "Cargo.toml"):
        committed = subprocess.run(["git", "-C", PERF.parent, "show", f"HEAD:{file}"], capture_output=True, check=True).stdout
        assert (folder / file).read_bytes() == committed
    (host,) = json.loads((tmp_path / "run" / "result.json").read_text())["hosts"]
    assert len(host["benchmarks"]["micro_fib"]["interpreter"]["samples"]) == 3
    assert host["provenance"]["revision"] == folder.name


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_host_where_hotstamp_is_built(sshd, tmp_path: Path):
    """The whole way: this commit is sent, set up, built and measured there."""
    port, ssh_options = sshd
    name = f"ssh:127.0.0.1:{port}"
    arguments = ["micro_fib", "--modes", "interpreter,baseline,auto", *QUICK, "--hosts", name, "--remote-home", tmp_path / "there", *ssh_options]
    done = lab("arch.py", *arguments, "--out", tmp_path / "run", timeout=5300)
    passed(done)
    assert f"{name}: ci/build" in done.stderr
    (host,) = json.loads((tmp_path / "run" / "result.json").read_text())["hosts"]
    commit = host["provenance"]["revision"]
    for mode in ("baseline", "auto"):
        figure = host["benchmarks"]["micro_fib"][mode]
        assert len(figure["samples"]) == 3 and figure["code_bytes"] > 0
    assert (tmp_path / "there" / commit / "target" / "python" / platform.machine() / "built").exists()


def test_a_host_that_cannot_be_set_up(sshd, tmp_path: Path):
    """What failed there, its own words, and what to do."""
    port, ssh_options = sshd
    there = remote.parse(f"ssh:127.0.0.1:{port}", None, ssh_options[1::2])
    (tmp_path / "perf").mkdir()
    (tmp_path / "perf" / "setup").write_text("#!/bin/bash\necho 'perf/setup: making it' >&2\n")
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "build").write_text("#!/bin/bash\necho 'setup: error: the tests need Debian packages: some-compiler' >&2; exit 1\n")
    for script in ("perf/setup", "ci/build"):
        (tmp_path / script).chmod(0o755)
    said: list[str] = []
    with pytest.raises(LabError) as failed:
        remote.set_up(there, str(tmp_path), True, said.append)
    assert f"{there.name}: perf/setup: making it" in said
    text = str(failed.value)
    assert "ci/build failed there" in text and "some-compiler" in text and f"on 127.0.0.1 run: cd {tmp_path} && ci/build" in text
    said.clear()
    remote.set_up(there, str(tmp_path), False, said.append)
    assert not any("ci/build" in line for line in said)


def test_a_host_of_another_kind(sshd, monkeypatch: pytest.MonkeyPatch):
    port, ssh_options = sshd
    there = remote.parse(f"ssh:127.0.0.1:{port}", None, ssh_options[1::2])
    remote.check(there)
    monkeypatch.setattr(remote, "MACHINES", ("Linux riscv64",))
    with pytest.raises(LabError, match=f"is Linux {platform.machine()}(?s:.*)hotstamp runs on Linux riscv64"):
        remote.check(there)


def test_an_ssh_host_that_does_not_answer(here):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        done = here("arch.py", "micro_fib", "--modes", "interpreter", "--hosts", f"ssh:127.0.0.1:{probe.getsockname()[1]}", "--remote-dir", "x")
    assert done.returncode == 2 and "ssh failed" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("spec", "target", "port"), [("ssh:board", "board", None), ("ssh:me@board:2222", "me@board", 2222), ("ssh:::1", "::1", None), ("ssh:me@[::1]:22", "me@[::1]", 22)]
)
def test_host_names(spec: str, target: str, port: int | None):
    host = remote.parse(spec, None, [])
    assert (host.target, host.port) == (target, port)


def test_unknown_host(here):
    done = here("arch.py", "richards", "--hosts", "moon")
    assert done.returncode == 2 and "ssh:[USER@]HOST[:PORT]" in done.stderr


def test_counts_and_times_side_by_side():
    samples = lambda value: {"samples": {str(r): [value + r / 100] * 3 for r in range(3)}}  # noqa: E731
    timed = {"host": "local", "kind": "time", "benchmarks": {"x": {"interpreter": samples(10.0), "auto": samples(5.0)}}}
    counted = {"host": "emulated", "kind": "instructions", "benchmarks": {"x": {"interpreter": {"instructions": 1000.0}, "auto": {"failed": "not built"}}}}
    summary = archtable.summary([timed, counted], "interpreter", 0.95)
    assert summary["x"]["modes"]["auto"]["local"]["verdict"] == "faster"
    assert summary["x"]["modes"]["auto"]["emulated"] is None
    table = archtable.table([timed, counted], summary, "interpreter", 0.95)
    assert "x, auto, emulated: not built" in table.notes


@pytest.mark.parametrize(("counts", "settled"), [([900, 100, 105], True), ([900, 437, 24], False)])
def test_counts_that_had_not_settled_are_noted(counts: list[int], settled: bool, monkeypatch: pytest.MonkeyPatch):
    found = {"by_iteration": counts, "before": 7, "inner_loops": 1, "statistics": {}}
    monkeypatch.setattr(guests, "counted", lambda *_: found)
    figure = hosts._count(None, modes.parse("interpreter"), hosts.Counting(1, 2), WorkerOptions())
    assert (figure["instructions"], figure["settled"]) == (sum(counts[1:]) / 2, settled)
    host = {"host": "emulated", "kind": "instructions", "benchmarks": {"x": {"interpreter": figure}}}
    table = archtable.table([host], archtable.summary([host], "interpreter", 0.95), "interpreter", 0.95)
    assert any("still warming up" in note for note in table.notes) != settled
