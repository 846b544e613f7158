"""The lab's errors. Each names what is wrong and what to do about it; none reaches the user as a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

#: Exit status after Ctrl-C, as shells report it.
INTERRUPTED = 130


class LabError(Exception):
    """Something the user can put right. `hint` says how, as a command or a choice."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n{self.hint}" if self.hint else message


class UnknownBenchmark(LabError):
    """A benchmark name that neither pyperformance nor the lab knows."""


class UnknownMode(LabError):
    """A mode name that the lab does not know."""


class ModeUnavailable(LabError):
    """A mode whose Python, package or build is not on this machine."""


class ToolMissing(LabError):
    """A program that a measurement needs is not installed."""


class PlanChanged(LabError):
    """An interrupted run is resumed with other settings than it was started with."""


class WorkerFailed(LabError):
    """A measured process died, raised or fell silent. A result in itself: kept and shown, never dropped."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def run_main(main: Callable[[list[str]], int]) -> None:
    """Run a script's `main`: a LabError becomes its message on stderr and exit status 2."""
    try:
        status = main(sys.argv[1:])
    except LabError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)
