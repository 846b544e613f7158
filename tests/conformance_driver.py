"""Runs one file of CPython's own test suite in this process and writes an event for each test, as lines of JSON.

    python conformance_driver.py EVENTS MODULE [SKIPPED]

Started by `tests/conformance`, twice with the same arguments: interpreted and compiled. Each event reaches the disk before the next test begins, so that a crash takes nothing with it.
SKIPPED names a file with ids of tests to leave out: those that ran before a crash, and the one that crashed.
"""

import faulthandler
import json
import os
import random
import re
import sys
import traceback
import unittest


class Events(unittest.TestResult):
    """Writes what becomes of each test; subtests count for their test."""

    def __init__(self, descriptor):
        super().__init__()
        self.descriptor = descriptor
        self.worst = None
        self.detail = None
        # Doctests of one module may share an id.
        self.seen = {}

    def write(self, **event):
        os.write(self.descriptor, json.dumps(event).encode() + b"\n")

    def note(self, outcome, detail=None):
        order = ["ok", "skipped", "expected failure", "unexpected success", "failure", "error"]
        if self.worst is None or order.index(outcome) > order.index(self.worst):
            self.worst, self.detail = outcome, detail

    def startTest(self, test):
        super().startTest(test)
        name = test_id(test)
        count = self.seen[name] = self.seen.get(name, 0) + 1
        self.current = name if count == 1 else f"{name}#{count}"
        self.worst = self.detail = None
        self.write(start=self.current)

    def stopTest(self, test):
        super().stopTest(test)
        self.write(test=self.current, outcome=self.worst or "ok", detail=self.detail)
        self.worst = self.detail = None
        # A test that breaks off with an observer left behind would decide what the next ones measure.
        self.failures.clear()
        self.errors.clear()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note("ok")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if hasattr(test, "_testMethodName") or hasattr(test, "test_case"):
            self.note("skipped", reason)
        else:
            self.write(test=test_id(test), outcome="skipped", detail=reason)

    def addExpectedFailure(self, test, error):
        super().addExpectedFailure(test, error)
        self.note("expected failure")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note("unexpected success")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.problem(test, "failure", error)

    def addError(self, test, error):
        super().addError(test, error)
        self.problem(test, "error", error)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            kind = "failure" if issubclass(error[0], test.failureException) else "error"
            self.problem(test, kind, error, f"{subtest._subDescription()}\n")

    def problem(self, test, kind, error, prefix=""):
        detail = prefix + "".join(traceback.format_exception(*error))[-6000:]
        if hasattr(test, "_testMethodName") or hasattr(test, "_dt_test"):
            self.note(kind, detail)
        else:
            # setUpModule, setUpClass or a module that does not load.
            self.write(test=test_id(test), outcome=kind, detail=detail)


def test_id(test):
    """The test's id, without the addresses that some parametrised tests carry in it."""
    return re.sub(r"0x[0-9a-f]+", "0x", test.id() or str(test))


def leave_out(suite, skipped, seen):
    """The suite without the tests named in `skipped`."""
    kept = []
    for test in suite:
        if isinstance(test, unittest.BaseTestSuite):
            kept.append(leave_out(test, skipped, seen))
        else:
            name = test_id(test)
            count = seen[name] = seen.get(name, 0) + 1
            if (name if count == 1 else f"{name}#{count}") not in skipped:
                kept.append(test)
    return type(suite)(kept)


def main():
    events, module, *rest = sys.argv[1:]
    skipped = set()
    if rest:
        with open(rest[0], encoding="utf-8") as file:
            skipped = {line.rstrip("\n") for line in file}
    descriptor = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    sys.argv[1:] = []
    faulthandler.enable()
    random.seed(20141014)
    from test import support
    from test.support import os_helper

    # As regrtest without -u: nothing that is large, slow, or wants a network.
    support.use_resources = {}
    support.verbose = 1
    support.junit_xml_list = None
    result = Events(descriptor)
    with os_helper.temp_cwd(name=f"{os_helper.TESTFN}-{module}", quiet=True):
        suite = unittest.defaultTestLoader.loadTestsFromName(f"test.{module}")
        suite = leave_out(suite, skipped, {})
        suite(result)
    stats = None
    if "hotstamp" in sys.modules:
        import hotstamp

        if hotstamp.is_enabled():
            stats = hotstamp.stats()
    result.write(end=True, stats=stats)


if __name__ == "__main__":
    main()
