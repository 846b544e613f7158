"""Runs suites of tests twice, interpreted and compiled, and compares what became of each test.

What tests/conformance and tests/packages share. A *subject* is what runs in a process of its own: a file of CPython's suite, or
the suite of a package. Its driver is started as `driver EVENTS SUBJECT SKIPPED ARGUMENTS...` and writes lines of JSON to EVENTS, each before the next test begins:

    {"start": ID}    {"test": ID, "outcome": ..., "detail": ...}    {"end": true, "stats": hotstamp.stats()}

A test that crashes costs only itself: the driver is started again, with the ids of what has an outcome in the file SKIPPED. Results are
kept in the target folder and not made again until the build (for compiled runs), the Python or the driver changes, so that an interrupted run resumes.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()

MAX_CRASHES = 40
# How often a test that differs is run again interpreted, and up to how many of one subject are.
RETRIES = 3
MAX_RETRIED = 40
FAILED = ("failure", "error", "unexpected success", "crash", "timeout")


@dataclasses.dataclass
class Subject:
    """What runs in a process of its own, under a name; its tests' ids begin with one of `prefixes`."""

    name: str
    prefixes: tuple
    arguments: tuple = ()
    # Where it runs: a folder, or None for an empty one.
    folder: pathlib.Path | None = None
    variables: dict = dataclasses.field(default_factory=dict)
    # What its results depend on besides.
    facts: str = ""


def add_options(parser, timeout):
    parser.add_argument("--tier", default="baseline", choices=["baseline", "optimizer", "auto"], help="what is compared with the interpreter (default: %(default)s)")
    parser.add_argument("--auto", type=int, metavar="N", help="HOTSTAMP_AUTO: calls and loop iterations after which a function is hot")
    parser.add_argument("--stamp", default="1", metavar="N", help="HOTSTAMP_STAMP: the call at which a function is stamped; empty: when it is found hot, as in programs (default: %(default)s)")
    parser.add_argument("--arch", default=platform.machine(), choices=["x86_64", "aarch64"], help="the other architecture runs under emulation")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes at a time (default: one per processor)")
    parser.add_argument("--timeout", type=float, default=timeout, metavar="SECONDS", help="for one process (default: %(default)s; four times that under emulation)")
    parser.add_argument("--fresh", action="store_true", help="run again what was run before")


def python(arch, *arguments):
    return [str(ROOT / "ci" / "python"), "--arch", arch, *map(str, arguments)]


class Twice:
    """Runs subjects in both modes under the same conditions, and says how they differ."""

    def __init__(self, options, kind, driver, accepted):
        self.options = options
        self.driver = driver
        self.accepted = read_accepted(accepted)
        self.used = set()
        self.timeout = options.timeout * (1 if options.arch == platform.machine() else 4)
        self.folder = TARGET / kind / options.arch
        compiled = {"HOTSTAMP": "1", "HOTSTAMP_TIER": options.tier, "HOTSTAMP_STAMP": options.stamp}
        if options.auto is not None:
            compiled["HOTSTAMP_AUTO"] = str(options.auto)
        self.modes = {"interpreted": {"HOTSTAMP": "0"}, "compiled": compiled}
        self.prints = self.fingerprints()

    def fingerprints(self):
        """What a result of each mode depends on. Builds what is out of date, unless HOTSTAMP_NO_BUILD=1 is set."""
        code = "import sys, os, hotstamp; print(sys.version); print(os.path.dirname(hotstamp.__file__))"
        done = subprocess.run(python(self.options.arch, "-c", code), env=self.environment("interpreted"), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"hotstamp cannot be imported:\n{done.stdout}{done.stderr}")
        # Not in the middle of a run.
        os.environ["HOTSTAMP_NO_BUILD"] = "1"
        version, package = done.stdout.strip().rsplit("\n", 1)
        base = hashlib.sha256(version.encode() + self.driver.read_bytes()).hexdigest()[:16]
        build = hashlib.sha256(base.encode())
        for file in sorted(pathlib.Path(package).iterdir()):
            if file.is_file():
                build.update(file.read_bytes())
        return {"interpreted": base, "compiled": build.hexdigest()[:16]}

    def environment(self, mode):
        env = {name: value for name, value in os.environ.items() if not name.startswith("HOTSTAMP") or name in ("HOTSTAMP_NO_BUILD", "HOTSTAMP_PYTHON")}
        env.update(self.modes[mode], PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1", LC_ALL="C.UTF-8")
        return env

    def compare_all(self, subjects, skipped):
        """Compares all, prints a line for each and the closing line; returns the exit status. `skipped` were left out."""
        verdicts = {}
        lock = threading.Lock()

        def compare(subject):
            runs = {mode: self.run(subject, mode) for mode in self.modes}
            lines, differences = self.compare(subject, runs)
            with lock:
                verdicts[subject.name] = differences
                tests = len(runs["compiled"]["outcomes"])
                seconds = " ".join(f"{run['seconds']:.0f}" for run in runs.values())
                verdict = "skipped" if differences is None else "DIFFERS" if differences else "same"
                print(f"{verdict:8} {subject.name}: {tests} tests, {stamped(runs['compiled'])} functions stamped, {seconds} s")
                for line in lines:
                    print(f"         {line}")
                sys.stdout.flush()

        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            list(pool.map(compare, subjects))
        skipped += sum(count is None for count in verdicts.values())
        failed = sum(bool(count) for count in verdicts.values())
        passed = sum(count == 0 for count in verdicts.values())
        prefixes = tuple(prefix for subject in subjects for prefix in subject.prefixes)
        for name in sorted(name for name in self.accepted if name not in self.used and name.startswith(prefixes)):
            print(f"note: accepted, but did not differ now: {name}")
        print(f"{passed} passed, {failed} failed, {skipped} skipped")
        return 1 if failed or not passed else 0

    def run(self, subject, mode):
        """The outcomes of one subject in one mode, from what was kept if that is still valid."""
        # The baseline's results have the plain name.
        how = "-".join([self.options.tier, *([str(self.options.auto)] if self.options.auto is not None else [])])
        fingerprint = self.prints[mode] + subject.facts
        kept = self.folder / (mode if mode == "interpreted" or how == "baseline" else f"{mode}-{how}") / f"{subject.name}.json"
        if kept.exists() and not self.options.fresh:
            run = json.loads(kept.read_text())
            if run["fingerprint"] == fingerprint:
                return run
        started = time.monotonic()
        run = {"fingerprint": fingerprint, "outcomes": {}, "details": {}, "stats": None, "complete": False}
        kept.parent.mkdir(parents=True, exist_ok=True)
        log = kept.with_suffix(".log")
        log.unlink(missing_ok=True)
        for _ in range(MAX_CRASHES):
            if self.run_once(subject, mode, run, log):
                break
        run["seconds"] = time.monotonic() - started
        new = kept.with_suffix(".new")
        new.write_text(json.dumps(run, indent=1))
        new.replace(kept)
        return run

    def run_once(self, subject, mode, run, log):
        """Runs what has no outcome yet. Whether the subject is through, or cannot go on."""
        with tempfile.TemporaryDirectory(prefix="hotstamp-twice-") as scratch:
            events = pathlib.Path(scratch, "events")
            skipped = pathlib.Path(scratch, "skipped")
            skipped.write_text("".join(f"{name}\n" for name in run["outcomes"]))
            with log.open("ab") as output:
                process = subprocess.Popen(
                    python(self.options.arch, self.driver, events, subject.name, skipped, *subject.arguments),
                    env=dict(self.environment(mode), TMPDIR=scratch, **subject.variables),
                    cwd=subject.folder or scratch,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                try:
                    status = process.wait(self.timeout)
                except subprocess.TimeoutExpired:
                    status = None
                finally:
                    # The subject's own process group, with what its tests left behind.
                    try:
                        os.killpg(process.pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                    process.wait()
            running = None
            if events.exists():
                # A process that died in the middle of a line did not finish it.
                for line in events.read_text().split("\n")[:-1]:
                    event = json.loads(line)
                    if "start" in event:
                        running = event["start"]
                    elif "test" in event:
                        running = None
                        run["outcomes"][event["test"]] = event["outcome"]
                        if event["detail"]:
                            run["details"][event["test"]] = event["detail"]
                    else:
                        run["complete"] = True
                        run["stats"] = event["stats"]
        if run["complete"] and status == 0:
            return True
        kind = "timeout" if status is None else "crash"
        # A crash between tests, or at exit, is one of the subject.
        name = running or f"{subject.name}:{'exit' if run['complete'] else 'outside of tests'}"
        run["outcomes"][name] = kind
        run["details"][name] = f"exit status {status}\n{log.read_bytes()[-3000:].decode(errors='replace')}"
        return running is None

    def compare(self, subject, runs):
        """Lines about what differs, and how many of the differences are not accepted; None if there was nothing to compare."""
        lines, differences, never_ran = [], 0, 0
        interpreted, compiled = (runs[mode]["outcomes"] for mode in self.modes)
        differing = [name for name in sorted(interpreted.keys() | compiled.keys()) if interpreted.get(name) != compiled.get(name)]
        flaky = self.flaky(subject, runs, [name for name in differing if not self.reason(name, compiled)])
        for name in differing:
            expected, got = interpreted.get(name, "not run"), compiled.get(name, "not run")
            if reason := self.reason(name, compiled):
                lines.append(f"accepted: {name}: {expected} -> {got}  # {reason}")
                continue
            if name in flaky:
                lines.append(f"note: {name}: {expected} -> {got}, but interpreted it is not always the same")
                continue
            differences += 1
            if got == "not run" and not runs["compiled"]["complete"]:
                never_ran += 1
                continue
            lines.append(f"{name}: {expected} -> {got}")
            detail = runs["compiled"]["details"].get(name) or runs["interpreted"]["details"].get(name)
            lines += [f"    {line}" for line in (detail or "").rstrip().splitlines()[-12:]]
        if never_ran:
            lines.append(f"{never_ran} tests did not run compiled, since the process broke off")
        failing = [name for name, outcome in interpreted.items() if outcome in FAILED and compiled.get(name) == outcome]
        if failing:
            lines.append(f"note: {len(failing)} fail interpreted and compiled alike: {' '.join(failing[:3])}{' ...' if len(failing) > 3 else ''}")
        if not any(outcome == "ok" for outcome in interpreted.values()):
            lines.append("nothing passes interpreted: there is nothing to compare")
            return lines, differences or None
        if not stamped(runs["compiled"]) and runs["compiled"]["complete"]:
            differences += 1
            lines.append("no function was stamped: this compares the interpreter with itself")
        return lines, differences

    def reason(self, name, compiled):
        """Why a test may differ, or None. What ends in `*` stands for all ids that begin so; a crash is accepted of no test."""
        if compiled.get(name) in ("crash", "timeout"):
            return None
        for known, reason in self.accepted.items():
            if name == known or known.endswith("*") and name.startswith(known[:-1]):
                self.used.add(known)
                return reason
        return None

    def flaky(self, subject, runs, names):
        """Those of the tests that, run again interpreted, end as they did compiled. A crash is never put down to chance."""
        interpreted, compiled = (runs[mode]["outcomes"] for mode in self.modes)
        names = {name for name in names if name in interpreted and compiled.get(name) not in (None, "crash")}
        found = set()
        if len(names) > MAX_RETRIED:
            return found
        log = self.folder / "interpreted" / f"{subject.name}.again.log"
        for _ in range(RETRIES):
            left = names - found
            if not left:
                break
            run = {"outcomes": {name: "" for name in interpreted if name not in left}, "details": {}, "stats": None, "complete": False}
            self.run_once(subject, "interpreted", run, log)
            found |= {name for name in left if run["outcomes"].get(name) == compiled[name]}
        return found


def stamped(run):
    return (run["stats"] or {}).get("functions_stamped", 0)


def read_accepted(path):
    """The differences that may stay, and why: `test_id  # reason` a line; an id may end in `*`."""
    accepted = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, separator, reason = line.partition("  # ")
        if not separator or not reason.strip():
            sys.exit(f"{path.name}:{number}: wanted `test_id  # reason`")
        accepted[name.strip()] = reason.strip()
    return accepted
