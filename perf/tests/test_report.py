"""The report, looked at in a real browser."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import lab, passed

BROWSER = [
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1300,2600", "--virtual-time-budget=20000"),
]


@pytest.fixture(scope="module")
def page(warm_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    passed(lab("report.py", warm_run, "-o", path))
    return path


@pytest.fixture(scope="module")
def looked_at(page: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The page's document after its scripts ran, and a picture of it."""
    folder = tmp_path_factory.mktemp("browser")
    picture = folder / "page.png"
    dumped = subprocess.run([*BROWSER, f"--user-data-dir={folder}/a", "--dump-dom", f"file://{page}"], capture_output=True, text=True, timeout=90)
    subprocess.run([*BROWSER, f"--user-data-dir={folder}/b", f"--screenshot={picture}", f"file://{page}"], capture_output=True, check=True, timeout=90)
    return dumped.stdout, picture


def test_the_page_stands_alone(page: Path):
    text = page.read_text()
    assert not re.search(r"""<(script|link|img|iframe)[^>]+(src|href)\s*=\s*["']?(https?:|//)""", text)


def test_the_warm_up_curves_are_drawn(looked_at: tuple[str, Path]):
    document, _ = looked_at
    # The legend's samples are lines of that class too, but straight.
    curves = [path for path in re.findall(r'<path class="js-line"[^>]* d="(M[^"]+)"', document) if "L" in path]
    assert len(curves) == 3, "one curve per mode"
    assert all(len(re.findall(r"[\d.]+,[\d.]+", curve)) > 5 for curve in curves)
    assert "busy: warm-up" in document and "ms per iteration" in document


def test_bars_have_intervals(looked_at: tuple[str, Path]):
    document, _ = looked_at
    # Two figures (warm, first) of two modes each; the base has no bar.
    assert len(re.findall(r'<g class="trace bars"', document)) == 4
    assert len(re.findall(r'<path class="yerror"', document)) == 4


def test_the_table_says_inconclusive(looked_at: tuple[str, Path]):
    assert '<td class="inconclusive">inconclusive</td>' in looked_at[0]


def test_the_picture_shows_them(looked_at: tuple[str, Path]):
    from PIL import Image

    from lab.plots import PALETTE

    picture = Image.open(looked_at[1]).convert("RGB")
    found = dict((colour, count) for count, colour in picture.getcolors(maxcolors=1 << 24))
    for colour in PALETTE[:3]:
        wanted = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert found.get(wanted, 0) > 50, f"nothing of colour {colour} is on the page"


def test_marks_stand_where_code_changed():
    from lab import plots

    tiers = lambda stamped, optimized: {"functions_stamped": stamped, "functions_optimized": optimized}  # noqa: E731
    raw = {"inner_loops": 1, "first_ns": 9e6, "warmup": [[1, 8e6], [1, 4e6], [2, 4e6]], "loops": 4, "samples_ns": [2e6]}
    raw |= {"counters": tiers(2, 0), "marks": [[1, tiers(3, 0)], [2, tiers(3, 1)]]}
    curve = plots.curve(raw)
    assert curve.taken == [9.0, 8.0, 4.0, 2.0, 2.0]
    assert curve.at == pytest.approx([0.009, 0.017, 0.021, 0.025, 0.033])
    assert curve.changes == [(0, {"stamped"}, "stamped: 2, optimized: 0"), (2, {"stamped"}, "stamped: 3, optimized: 0"), (3, {"optimized"}, "stamped: 3, optimized: 1")]
    figure = plots.warmup_figure("x", {"auto": curve}, {"auto": "#000000"})
    assert [trace.name for trace in figure.data] == ["auto", "auto: functions compiled", "auto: functions optimized"]
    assert list(figure.data[1].y) == [9.0, 4.0] and list(figure.data[2].y) == [2.0]


def test_a_folder_without_results(tmp_path: Path, here):
    done = here("report.py", tmp_path)
    assert done.returncode == 2 and "no result.json" in done.stderr
