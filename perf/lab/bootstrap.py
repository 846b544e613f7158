"""Move a lab script into the lab's own Python. Standard library only, runs on any Python from 3.8.

The scripts are started with whatever `python3` is first on the path; numpy, scipy, pyperf, rich and
plotly live in the lab's driver environment, which `perf/setup` makes. `enter()` must be called before
anything else of the lab is imported.
"""

import os
import sys

#: Set in the environment while re-executing, so that a broken environment cannot loop.
_GUARD = "HOTSTAMP_LAB_ENTERED"


def cache_home():
    """The folder that holds everything the project installs for itself."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "hotstamp")


def driver_python():
    """The Python of the driver environment (it may not exist yet)."""
    return os.path.join(cache_home(), "lab", "drivers", "bin", "python")


def enter():
    """Re-execute the running script under the driver environment, unless it is already there."""
    python = driver_python()
    prefix = os.path.dirname(os.path.dirname(python))
    if os.path.realpath(sys.prefix) == os.path.realpath(prefix):
        os.environ.pop(_GUARD, None)
        return
    if not os.path.exists(python):
        sys.exit(
            "error: the lab's Python environment is missing (%s)\n"
            "run: perf/setup" % prefix
        )
    if os.environ.get(_GUARD):
        sys.exit("error: %s does not start as a Python environment; delete %s and run: perf/setup" % (python, prefix))
    os.environ[_GUARD] = "1"
    os.execv(python, [python] + sys.argv)
