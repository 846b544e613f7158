"""Runs the pytest suite of one package in this process and writes an event for each test, as lines of JSON.

    python packages_driver.py EVENTS PACKAGE SKIPPED PYTEST_ARGUMENTS...

Started by `tests/packages`, twice with the same arguments: interpreted and compiled (tests/twice.py says what the events are). SKIPPED names a file with
ids of tests to leave out: those that ran before a crash, and the one that crashed.
"""

import faulthandler
import json
import os
import random
import re
import sys

# The package's suite sees what it would with `python -m pytest`, and none of this folder's modules.
sys.path[0] = ""

import pytest

# The worst that happened in setup, call, teardown and subtests is what became of a test.
OUTCOMES = ["ok", "skipped", "expected failure", "unexpected success", "failure", "error"]


class Recorder:
    def __init__(self, descriptor, package, skipped):
        self.descriptor = descriptor
        self.package = package
        self.skipped = skipped
        self.names = {}
        self.outcome = self.detail = None

    def write(self, **event):
        os.write(self.descriptor, json.dumps(event).encode() + b"\n")

    def name(self, node):
        """The test's id, without the addresses that some parameters have in their text, and on one line."""
        return f"{self.package}::" + re.sub(r"0x[0-9a-f]+", "0x", node).encode("unicode_escape").decode()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        seen, kept, left = {}, [], []
        for item in items:
            name = self.name(item.nodeid)
            count = seen[name] = seen.get(name, 0) + 1
            self.names[item] = name if count == 1 else f"{name}#{count}"
            (left if self.names[item] in self.skipped else kept).append(item)
        if left:
            config.hook.pytest_deselected(items=left)
        items[:] = kept

    def pytest_collectreport(self, report):
        name = f"{self.name(report.nodeid)}:collection"
        if report.failed and name not in self.skipped:
            self.write(test=name, outcome="error", detail=str(report.longrepr)[-6000:])
        elif report.skipped and name not in self.skipped:
            self.write(test=name, outcome="skipped", detail=str(report.longrepr)[-6000:])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        name = self.names[item]
        self.outcome, self.detail = "ok", None
        self.write(start=name)
        result = yield
        self.write(test=name, outcome=self.outcome, detail=self.detail)
        return result

    def pytest_runtest_logreport(self, report):
        if report.failed:
            outcome = "failure" if report.when == "call" else "error"
        elif report.skipped:
            outcome = "expected failure" if hasattr(report, "wasxfail") else "skipped"
        else:
            outcome = "unexpected success" if hasattr(report, "wasxfail") else "ok"
        if OUTCOMES.index(outcome) > OUTCOMES.index(self.outcome):
            self.outcome, self.detail = outcome, str(report.longrepr)[-6000:]


def main():
    events, package, skipped, *arguments = sys.argv[1:]
    with open(skipped, encoding="utf-8") as file:
        skipped = {line.rstrip("\n") for line in file}
    descriptor = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    faulthandler.enable()
    random.seed(20141014)
    sys.argv[:] = ["pytest", *arguments]
    recorder = Recorder(descriptor, package, skipped)
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--continue-on-collection-errors", "--hypothesis-seed=0", *arguments], plugins=[recorder])
    # Tests that fail are seen in the comparison; with all of them left out there is none.
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED) and not (status == pytest.ExitCode.INTERRUPTED and recorder.names):
        sys.exit(int(status))
    stats = None
    if "hotstamp" in sys.modules:
        import hotstamp

        if hotstamp.is_enabled():
            stats = hotstamp.stats()
    recorder.write(end=True, stats=stats)


if __name__ == "__main__":
    main()
