#!/usr/bin/env python3
"""One self-contained HTML page from the lab's result folders: curves, bars with intervals, tables.

    perf/report.py perf/out/warm-20260101T120000Z
    perf/report.py RESULT_FOLDER... -o report.html

Takes folders of warm.py, peers.py, policy.py, cold.py, codesize.py and arch.py. The page needs no network.
"""

import sys

from lab import bootstrap

bootstrap.enter()

import argparse  # noqa: E402
from pathlib import Path  # noqa: E402

from lab import errors, page  # noqa: E402


def main(argv: list[str]) -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="result folders, shown in this order")
    made.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="the page (default %(default)s)")
    arguments = made.parse_args(argv)
    text = page.render([page.load(folder) for folder in arguments.folders])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text)
    print(f"written: {arguments.output} ({len(text) / (1 << 20):.1f} MiB)")
    return 0


if __name__ == "__main__":
    errors.run_main(main)
    sys.exit()
