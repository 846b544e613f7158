"""Enables hotstamp at start-up. Imported by hotstamp.pth when HOTSTAMP=1 is set; must not fail, whatever happens."""

import sys


def _start():
    try:
        import _thread

        if not _thread._is_main_interpreter():
            return  # the main interpreter has hotstamp; this one cannot
    except (ImportError, AttributeError):
        pass  # another Python: importing hotstamp says so
    try:
        import hotstamp

        hotstamp.enable()
    except (ImportError, RuntimeError) as error:
        print(f"hotstamp: {error}. The program runs interpreted.", file=sys.stderr)


_start()
