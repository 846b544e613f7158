"""Put on PYTHONPATH for runs that the lab does not start itself: pyperf's and pyperformance's own worker processes.

Imported by `site` in every such process. Two environment variables, both set by the lab alone:

- LAB_PRELUDE: Python source that switches a compiler on which has no variable of its own (CinderX).
- LAB_WITNESS: a file that gets one line per pyperf worker process started, so that workers that crash before
  they report anything are counted too.
"""

import os
import sys

_prelude = os.environ.get("LAB_PRELUDE")
if _prelude:
    exec(_prelude, {"__name__": "lab_prelude"})

_witness = os.environ.get("LAB_WITNESS")
if _witness and "--worker" in sys.orig_argv:
    _file = os.open(_witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(_file, b"%d\n" % os.getpid())
    os.close(_file)
