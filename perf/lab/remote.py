"""Hosts over ssh: they get this checkout's commit, are set up and built there, and run arch.py themselves.

Every step is a command that a person could type there, and an error says which: nothing is left half done, and doing it again goes on.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections import deque
from dataclasses import dataclass
from typing import Any

from lab import paths, process, provenance
from lab.errors import LabError
from lab.progress import warn

#: Where a checkout is put on a host that has none, under its home.
HOME = ".cache/hotstamp/arch"
#: What `uname -sm` may say.
MACHINES = ("Linux x86_64", "Linux aarch64")
#: Lines of a failed command that are shown.
TAIL = 12


@dataclass(frozen=True, slots=True)
class Remote:
    """An ssh host: `ssh:[USER@]HOST[:PORT]`."""

    name: str
    target: str
    port: int | None
    #: The checkout there that is set up and built; None: this one's commit is sent, and set up.
    folder: str | None
    #: Where a commit is sent to.
    home: str = HOME
    #: ssh's own -o options.
    ssh_options: tuple[str, ...] = ()

    def command(self, text: str) -> list[str]:
        """ssh with a command for a login shell: what a profile puts on the PATH (cargo) is there."""
        options = [part for option in ("BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=30", *self.ssh_options) for part in ("-o", option)]
        port = ["-p", str(self.port)] if self.port else []
        return [process.tool("ssh", "openssh-client"), *options, *port, self.target, f"exec bash -lc {shlex.quote(text)}"]


def parse(spec: str, folder: str | None, ssh_options: list[str], home: str = HOME) -> Remote:
    """Parse `ssh:[USER@]HOST[:PORT]`."""
    target = spec.removeprefix("ssh:")
    host, separator, port = target.rpartition(":")
    if separator and not host.endswith("]") and ":" in host:
        host, separator = target, ""  # a bare IPv6 address
    if not separator:
        host, port = target, ""
    if not host or (port and not port.isdecimal()):
        raise LabError(f"{spec}: not ssh:[USER@]HOST[:PORT]")
    return Remote(spec, host, int(port) if port else None, folder, home, tuple(ssh_options))


def collect(host: Remote, arguments: list[str], needs_build: bool, say) -> dict[str, Any]:
    """Run arch.py on the host and read its object. A host without a checkout of its own is set up first."""
    revision = ""
    folder = host.folder
    if folder is None:
        check(host)
        folder, revision = send(host, say)
        set_up(host, folder, needs_build, say)
    say(f"{host.name}: measuring")
    command = " ".join(shlex.quote(part) for part in ["perf/arch.py", "--hosts", "local", "--emit", *arguments])
    output = run(host, f"cd {shlex.quote(folder)} && {command}", "measuring")
    try:
        found = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        raise LabError(f"{host.name}: perf/arch.py there printed no result", f"try it there: cd {folder} && {command}") from None
    found["host"] = host.name
    if revision:
        # What was sent has no repository around it.
        found["provenance"]["revision"] = revision
    return found


def check(host: Remote) -> None:
    """Refuse a machine that hotstamp does not run on, before anything is sent."""
    machine = run(host, "uname -sm", "asking for the machine").strip()
    if machine not in MACHINES:
        raise LabError(f"{host.name} is {machine}", f"hotstamp runs on {' and '.join(MACHINES)}")
    missing = run(host, "for tool in tar gcc; do command -v $tool >/dev/null || echo $tool; done", "looking for tools").split()
    if missing:
        raise LabError(f"{host.name} has no {', '.join(missing)}", f"there, as root: apt-get install {' '.join(missing)}")


def send(host: Remote, say) -> tuple[str, str]:
    """Put this checkout's commit on the host; returns its folder there, relative to the home, and the commit."""
    revision = provenance.git_revision()
    commit = revision.removesuffix("+changes")
    if commit != revision:
        warn(f"{host.name} gets commit {commit}: changes of this checkout that are not committed are not measured there")
    archive = subprocess.run(["git", "-C", str(paths.REPOSITORY), "archive", "--format=tar", "HEAD"], capture_output=True)
    if archive.returncode != 0:
        raise LabError("this is no git checkout that could be sent", "name a checkout on the host that is set up: --remote-dir")
    folder = f"{host.home}/{commit}"
    say(f"{host.name}: sending {commit}")
    run(host, f"mkdir -p {shlex.quote(folder)} && tar -x -C {shlex.quote(folder)}", "sending the checkout", data=archive.stdout)
    return folder, commit


def set_up(host: Remote, folder: str, needs_build: bool, say) -> None:
    """Make on the host what its arch.py runs on. What is there already is left alone; the first time takes minutes."""
    for step in ("perf/setup", *(["ci/build"] if needs_build else [])):
        say(f"{host.name}: {step}")
        hint = f"it wants Debian 12 or later, and root for packages that are missing; on {host.target} run: cd {folder} && {step}"
        run(host, f"cd {shlex.quote(folder)} && {step}", step, say=lambda line: say(f"{host.name}: {line}"), hint=hint)


def run(host: Remote, text: str, what: str, *, data: bytes | None = None, say=None, hint: str = "") -> str:
    """Run a command there and give its output; `say` is told what it writes to stderr as it goes on."""
    given = subprocess.PIPE if data is not None else subprocess.DEVNULL
    if say is None:
        done = subprocess.run(host.command(text), input=data, stdin=None if data is not None else given, capture_output=True)
        status, output, errors = done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace").strip().splitlines()[-TAIL:]
    else:
        last: deque[str] = deque(maxlen=TAIL)
        with subprocess.Popen(host.command(text), stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace") as process_there:
            for line in process_there.stderr:
                last.append(line.rstrip())
                # The scripts' own lines; those of what they call are shown if it fails.
                if line.startswith(("perf/setup: ", "setup: ", "build: ")):
                    say(line.rstrip())
            process_there.wait()
        status, output, errors = process_there.returncode, "", list(last)
    if status == 255:
        raise LabError(f"{host.name}: ssh failed: {' '.join(errors)}", "it must log in without a password: ssh-copy-id, or --ssh-option")
    if status != 0:
        raise LabError("\n".join([f"{host.name}: {what} failed there:", *errors]), hint)
    return output
