"""The driver's side of a worker: start it, ask it for samples, keep it stopped in between, and end it.

A worker that is not being asked is stopped (SIGSTOP). Otherwise one mode's background compiler would work in another
mode's time; so each mode's compiler has its own mode's time and no other.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any, Self

from lab import paths, process
from lab.benchmarks import Benchmark
from lab.errors import LabError, WorkerFailed
from lab.modes import Mode, enabled_late

#: Seconds after which a silent worker is given up.
ANSWER_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How workers are started, the same for all modes of a comparison."""

    #: taskset's list of cores, empty for all.
    cores: str = ""
    #: Added to every measured process's environment.
    environment: dict[str, str] = field(default_factory=dict, hash=False)
    #: Seconds to wait for one answer.
    timeout: float = ANSWER_TIMEOUT


def configuration(benchmark: Benchmark, mode: Mode, *, once: bool = False, late: bool = False) -> str:
    """The worker's argument: see worker.py."""
    return json.dumps(
        {
            "script": str(benchmark.script),
            "kind": benchmark.kind,
            "arguments": list(benchmark.arguments),
            "benchmark": benchmark.offered if benchmark.kind == "pyperf" else benchmark.name,
            "jit": mode.jit,
            "prelude": mode.prelude,
            "once": once,
            "late": late,
        }
    )


class Worker:
    """One measured process that serves one benchmark in one mode. Use as a context manager."""

    def __init__(self, benchmark: Benchmark, mode: Mode, hash_seed: int, options: WorkerOptions) -> None:
        self.benchmark = benchmark
        self.mode = mode
        self.options = options
        self._stderr = tempfile.TemporaryFile()
        # The kernel kills a worker whose driver dies: a stopped one would never notice.
        guard = [process.tool("setpriv", "util-linux"), "--pdeathsig", "KILL", "--"]
        late = mode.is_synchronous
        command = [*guard, *process.on_cores(options.cores), str(mode.python), str(paths.WORKER), configuration(benchmark, mode, late=late)]
        try:
            self._process = subprocess.Popen(
                command,
                env=process.environment(enabled_late(mode) if late else mode, hash_seed, options.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
            )
        except OSError as error:
            raise LabError(f"cannot start {mode.python}: {error}", "run: perf/setup") from error
        self._pending = b""
        try:
            ready = self._receive()
            self.inner_loops: int = ready["inner_loops"]
            self.offered_name: str = ready["name"]
            self._pause()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def first(self) -> int:
        """Nanoseconds of one iteration; the first call gives the process's first."""
        return self._ask("first")["ns"]

    def warm_up(self, nanoseconds: int, least: int) -> dict[str, Any]:
        """Iterate for a time and for `least` entries at least: `entries`, `marks` and the rest as worker.py says."""
        return self._ask("warmup", ns=nanoseconds, least=least)

    def sample(self, loops: int) -> int:
        """Total nanoseconds of `loops` iterations."""
        return self._ask("sample", loops=loops)["ns"]

    def report(self) -> dict[str, Any]:
        """Peak memory, CPU time and the compiler's statistics."""
        return self._ask("report")

    def close(self) -> None:
        """End the process, whatever state it is in."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            stream.close()

    def _pause(self) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGSTOP)

    def _ask(self, do: str, **parameters: Any) -> dict[str, Any]:
        if self._process.poll() is not None:
            raise self._failure()
        try:
            os.kill(self._process.pid, signal.SIGCONT)
            self._process.stdin.write(json.dumps({"do": do, **parameters}).encode() + b"\n")
            answer = self._receive()
        except (BrokenPipeError, ProcessLookupError):
            raise self._failure() from None
        self._pause()
        return answer

    def _receive(self) -> dict[str, Any]:
        """The next line, as an object; a dead or silent worker, or one that says it failed, raises WorkerFailed."""
        deadline = time.monotonic() + self.options.timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not selector.select(remaining):
                    raise WorkerFailed(f"no answer in {self.options.timeout:.0f} s")
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise self._failure()
                self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        answer = json.loads(line)
        if answer.get("event") == "failed":
            raise WorkerFailed(answer["error"], answer["trace"])
        return answer

    def _failure(self) -> WorkerFailed:
        status = self._process.wait()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - process.STDERR_TAIL))
        return WorkerFailed(process.describe_status(status), self._stderr.read().decode(errors="replace"))
