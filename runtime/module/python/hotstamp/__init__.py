"""A just-in-time compiler for the CPython 3.14 that is already installed.

    HOTSTAMP=1 python program.py            every program, subprocesses too
    python -m hotstamp program.py           one program
    hotstamp.enable()                       from inside a program

Importing the package enables nothing. It raises ImportError where it cannot work, and says why.

HOTSTAMP=0 wins over everything, also over enable(). HOTSTAMP=1 is read by hotstamp.pth, as the site module starts up: with -S there is no site module, so the
program is interpreted. -E and -I make Python ignore variables that begin with PYTHON; HOTSTAMP is none of them and counts.
"""

import sys

__all__ = [
    "compiled_size",
    "disable",
    "disabled_reason",
    "enable",
    "is_compiled",
    "is_enabled",
    "opt_out",
    "optimizations",
    "optimized_size",
    "resumptions",
    "stats",
    "tier",
]


def _refusal():
    """Why this interpreter cannot run hotstamp, as far as that can be told without loading the native part."""
    name = sys.implementation.name
    version = "%d.%d.%d" % sys.version_info[:3]
    if name != "cpython":
        return f"hotstamp works in CPython 3.14 only; this is {name}, which runs Python {version}"
    if sys.version_info[:2] != (3, 14):
        return f"hotstamp works in CPython 3.14 only; this is CPython {version}"
    if "t" in sys.abiflags:
        return f"hotstamp needs the default build of CPython, with the GIL; this is a free-threaded build of CPython {version}"
    if sys.platform != "linux":
        return f"hotstamp works on Linux only; this is {sys.platform}"
    import _thread

    if not _thread._is_main_interpreter():
        return "hotstamp works in the main interpreter only; this is a subinterpreter"
    return None


if _reason := _refusal():
    raise ImportError(_reason, name=__name__)

from ._hotstamp import (  # noqa: E402
    compiled_size,
    disable,
    disabled_reason,
    enable,
    is_compiled,
    is_enabled,
    opt_out,
    optimizations,
    optimized_size,
    resumptions,
    stats,
    tier,
)
