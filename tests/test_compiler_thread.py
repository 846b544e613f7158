"""Programs that end or fork while functions are being compiled in the background."""

import pytest

# Functions that become hot one after the other, so that the compiler thread has something to do for as long as they run.
HOT = """
import os, sys, time

for number in range(30):
    exec(f'''
def f{number}(n):
    t = 0.0
    c = {number}
    for k in range(n):
        t += k * 0.5 + c
        if t > 1e9:
            t -= 1e9
        c = (c * 3 + k) & 1023
    return t
''')

def work(calls, n=2000):
    return [globals()[f"f{call % 30}"](n) for call in range(calls)]

def optimizer_is_loaded():
    with open("/proc/self/maps") as maps:
        return "libhotstamp_optimizer" in maps.read()
"""


@pytest.mark.native_only
@pytest.mark.parametrize("end", ["sys.exit(42)", "os._exit(42)", "import threading; threading.Thread(target=work, args=(5,)).start(); sys.exit(42)"])
def test_ending_in_the_middle_of_a_compilation(run_python, end):
    loaded = 0
    for milliseconds in range(0, 120, 10):
        program = f"""{HOT}
deadline = time.perf_counter() + {milliseconds} / 1000
while time.perf_counter() < deadline:
    work(10)
print(optimizer_is_loaded(), flush=True)
{end}
"""
        done = run_python("-c", program, tier="auto")
        assert (done.returncode, done.stderr) == (42, "")
        loaded += done.stdout == "True\n"
    assert loaded, "the thread was never there"


@pytest.mark.native_only
def test_forking_in_the_middle_of_compilations(run_python):
    program = f"""{HOT}
expected = work(30)
pids = []
for round in range(15):
    work(12 + round)
    pid = os.fork()
    if pid == 0:
        # The child computes the same, compiles for itself, and may fork as well.
        if work(30) != expected or work(60)[30:] != expected:
            os._exit(1)
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if work(30) == expected else 2)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) or 3)
    pids.append(pid)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
print(optimizer_is_loaded(), work(30) == expected)
"""
    # Every warning, at every place: Python warns when a process of several threads forks, and the program has one.
    done = run_python("-W", "always", "-c", program, tier="auto")
    assert done.stderr == ""
    assert done.stdout == f"{[3] * 15}\nTrue True\n"


@pytest.mark.native_only
def test_the_programs_own_threads_are_warned_of(run_python):
    program = f"""{HOT}
import threading
work(100)
event = threading.Event()
thread = threading.Thread(target=event.wait)
thread.start()
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
event.set()
thread.join()
"""
    done = run_python("-W", "always", "-c", program, tier="auto")
    assert done.returncode == 0 and done.stderr.count("DeprecationWarning") == 1


def test_without_the_shared_object_functions_stay_in_baseline_code(run_python):
    program = f"""{HOT}
work(200)
print(optimizer_is_loaded())
"""
    env = {"HOTSTAMP_OPTIMIZER": "/nonexistent/optimizer.so", "HOTSTAMP_LOG": "warn"}
    done = run_python("-c", program, tier="auto", env=env)
    assert (done.returncode, done.stdout) == (0, "False\n")
    assert done.stderr.count("functions are not optimized") == 1 and "/nonexistent/optimizer.so" in done.stderr


@pytest.mark.parametrize("tier, nicer", [("auto", 5), ("optimizer", 0)])
def test_program_goes_first(run_python, tier, nicer):
    """The thread leaves a scarce processor to the program, unless that waits for it."""
    program = """
import os, time
def loop(n):
    total = 0
    for i in range(n): total += i
    return total
def niceness():
    for task in os.listdir("/proc/self/task"):
        try:
            if open(f"/proc/self/task/{task}/comm").read() == "hotstamp\\n":
                return os.getpriority(os.PRIO_PROCESS, int(task))
        except OSError:
            pass
end = time.monotonic() + 60
while (found := niceness()) is None and time.monotonic() < end: loop(10000)
print(found - os.getpriority(os.PRIO_PROCESS, 0))
"""
    done = run_python("-c", program, tier=tier)
    assert (done.returncode, done.stdout) == (0, f"{nicer}\n"), done.stderr
