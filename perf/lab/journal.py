"""Finished pieces of a long run, kept as they come, so that an interruption loses only what was under way.

A run has a folder. `journal.jsonl` in it begins with the plan (what is measured and how) and has one line per finished
piece, each with its key. Resuming reads the lines back, skips those keys, and refuses if the plan has changed:
samples taken differently must not be mixed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from lab.errors import LabError, PlanChanged

JOURNAL = "journal.jsonl"


class Journal:
    """The record of one run. Use as a context manager; `open_for` makes or resumes one."""

    def __init__(self, folder: Path, records: dict[str, dict[str, Any]]) -> None:
        self.folder = folder
        self.records = records
        self._file = open(folder / JOURNAL, "a", encoding="utf-8")

    @classmethod
    def open_for(cls, folder: Path, plan: dict[str, Any], *, resume: bool) -> Self:
        """A new journal in `folder`, or, with `resume`, the one that is there, if its plan is the same."""
        path = folder / JOURNAL
        if not resume:
            if path.exists():
                raise LabError(f"{folder} holds an earlier run", f"resume it: --resume {folder}; or name another folder with --out")
            folder.mkdir(parents=True, exist_ok=True)
            journal = cls(folder, {})
            journal._write({"plan": plan})
            return journal
        if not path.exists():
            raise LabError(f"nothing to resume in {folder}", "without --resume a new run is started")
        lines = _read(path)
        if not lines or "plan" not in lines[0]:
            raise LabError(f"{path} does not begin with a plan", "it was not written by the lab; start anew with --out")
        _require_same(lines[0]["plan"], json.loads(json.dumps(plan)))
        return cls(folder, {line["key"]: line["record"] for line in lines[1:]})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def has(self, key: str) -> bool:
        """Whether the piece `key` is finished."""
        return key in self.records

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Keep a finished piece; on disk when this returns."""
        self._write({"key": key, "record": record})
        self.records[key] = json.loads(json.dumps(record))

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def plan_of(folder: Path) -> dict[str, Any]:
    """The plan that the run in `folder` was started with."""
    path = folder / JOURNAL
    if not path.exists():
        raise LabError(f"nothing to resume in {folder}", "without --resume a new run is started")
    return _read(path)[0]["plan"]


def _read(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a last one that was cut off while it was written is dropped, on disk too."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)
    return [json.loads(line) for line in data[:whole].splitlines()]


def _require_same(old: dict[str, Any], new: dict[str, Any]) -> None:
    changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    if changed:
        details = "\n".join(f"  {name}: was {old.get(name)!r}, is {new.get(name)!r}" for name in changed)
        raise PlanChanged(f"the run to resume was started differently:\n{details}", "use the same settings, or start anew with --out")
