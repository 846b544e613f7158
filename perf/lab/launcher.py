"""A small process that starts measured processes and accounts for them. Standard library only; run as `python -I -S launcher.py`.

Linux counts the memory of the process that a child was forked from into that child's peak (`ru_maxrss`), so a driver with
numpy in it would give every child its own 100 MB. This one is smaller than any Python that is measured. One JSON object
per line on stdin (`argv`, `env`, `cwd`, `stdout`, `stderr` paths, `timeout` seconds), one per line back.
"""

import json
import os
import select
import signal
import sys
import time


def launch(request):
    """Start, wait, account. Times in ns; `start_clock` is CLOCK_MONOTONIC just before creation."""
    os.chdir(request["cwd"])
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        actions.append((os.POSIX_SPAWN_OPEN, descriptor, request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    start = time.monotonic_ns()
    # A process group of its own: what a command starts in turn is ended with it.
    child = os.posix_spawn(request["argv"][0], request["argv"], request["env"], file_actions=actions, setpgroup=0)
    try:
        descriptor = os.pidfd_open(child)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        timed_out = not poller.poll(request["timeout"] * 1000)
        os.close(descriptor)
        if timed_out:
            os.killpg(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    except BaseException:
        os.killpg(child, signal.SIGKILL)
        raise
    return {
        "status": os.waitstatus_to_exitcode(status),
        "timed_out": timed_out,
        "wall_ns": time.monotonic_ns() - start,
        "user_ns": int(usage.ru_utime * 1e9),
        "system_ns": int(usage.ru_stime * 1e9),
        "max_rss_kib": usage.ru_maxrss,
        "start_clock": start,
    }


def main():
    for line in sys.stdin:
        try:
            answer = launch(json.loads(line))
        except OSError as error:
            answer = {"error": str(error)}
        except KeyboardInterrupt:
            return
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
