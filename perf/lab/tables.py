"""Tables: the same rows for the terminal (rich) and for documents (Markdown)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table as RichTable

#: What stands where there is no figure.
DASH = "-"
#: Columns where the output is not a terminal.
WIDTH = 160
_STYLES = {"faster": "green", "slower": "red", "inconclusive": "dim"}


@dataclass(slots=True)
class Table:
    """A table under construction. Cells are text; `notes` go beneath."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Append a row; as many cells as columns."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(cells)

    def print(self, console: Console | None = None) -> None:
        """Show it on stdout."""
        console = console or _stdout()
        table = RichTable(title=self.title, title_justify="left", header_style="bold")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*(_styled(cell) for cell in row))
        console.print(table)
        for note in self.notes:
            console.print(note, markup=False)

    def markdown(self) -> str:
        """As a Markdown table, the notes as a list beneath."""
        lines = ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines)


def _stdout() -> Console:
    """stdout, not folded to 80 columns where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def _styled(cell: str) -> str:
    from rich.markup import escape

    text = escape(cell)
    for word, style in _STYLES.items():
        if cell.endswith(word):
            return f"[{style}]{text}[/]"
    return text


def duration(nanoseconds: float) -> str:
    """A time with a unit that suits it, three digits."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= scale:
            return f"{nanoseconds / scale:.3g} {unit}" if nanoseconds < 1000 * scale else f"{nanoseconds / scale:.0f} {unit}"
    return f"{nanoseconds:.3g} ns"


def size(count: float) -> str:
    """Bytes, plain up to 10,000, else in KiB or MiB."""
    if count < 10_000:
        return f"{count:.0f} B"
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"
