"""Enables hotstamp at start-up. Imported by hotstamp.pth in the main interpreter when HOTSTAMP=1 is set; that file reports where the package refuses."""

import sys

import hotstamp


def _start():
    try:
        hotstamp.enable()
    except RuntimeError as error:
        print(f"hotstamp: {error}. The program runs interpreted.", file=sys.stderr)


_start()
