"""Progress of long runs, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)
#: Seconds between plain lines.
LINE_INTERVAL = 10.0


class Reporter:
    """Receives what is being done and how much of it is finished."""

    def __init__(self, total: int, bar: Progress | None) -> None:
        self.total = total
        self.done = 0
        self._bar = bar
        self._task = bar.add_task("starting", total=total) if bar else None
        self._began = self._last_line = time.monotonic()

    def left(self) -> str:
        """How much longer it takes if it goes on as it went; empty as long as nothing is finished."""
        if not self.done:
            return ""
        return f", about {rough((time.monotonic() - self._began) / self.done * (self.total - self.done))} left"

    def step(self, what: str, advance: int = 0) -> None:
        """Say what is under way, and count `advance` finished pieces."""
        self.done += advance
        if self._bar is not None:
            self._bar.update(self._task, description=what, advance=advance)
        elif time.monotonic() - self._last_line >= LINE_INTERVAL:
            self._last_line = time.monotonic()
            print(f"[{self.done}/{self.total}{self.left()}] {what}", file=sys.stderr, flush=True)


def rough(seconds: float) -> str:
    """A duration as a person says it."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextmanager
def progress(total: int) -> Iterator[Reporter]:
    """A reporter for `total` pieces."""
    if not console.is_terminal:
        yield Reporter(total, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield Reporter(total, bar)


def warn(message: str) -> None:
    """One line of warning."""
    console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)
