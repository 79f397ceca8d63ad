"""The pictures of a report, and its page in a browser, at a desk and on a telephone, by day and by night."""

import io
import json
import re
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest
from judged import PNG, curve, made, scores
from matplotlib import image
from tiny import sparing

from eval.evaluate import Report
from eval.pairs.ranking import PairScores, ranking_estimates
from eval.report.plots import look, pictures
from eval.report.write import to_html, to_markdown, write_report
from eval.statistics.comparisons import Comparison
from eval.statistics.intervals import Estimate
from eval.statistics.names import REF
from eval.statistics.win_rate import win_rate
from eval.verdicts import Judged

PICTURES = True  # what is drawn is looked at

CHROMIUM = "/usr/bin/chromium"

# --- pictures ----------------------------------------------------------------------------------


def size_and_colours(png):
    """Width, height, and how many different rows of pixels there are: a blank picture has one, up to filtering."""
    assert png.startswith(PNG)
    at, data, size = 8, b"", (0, 0)
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0]
        size = struct.unpack(">II", body[:8]) if kind == b"IHDR" else size
        data += body if kind == b"IDAT" else b""
        at += 12 + length
    raw = zlib.decompress(data)
    stride = len(raw) // size[1]
    return (*size, len({raw[i : i + stride] for i in range(0, len(raw), stride)}))


def brightness(shot):
    """Mean over the picture, in [0, 1]."""
    return float(image.imread(io.BytesIO(shot))[..., :3].mean())


LONG = "runs/2026-01-01/rpo-eta-0.005-beta-0.1-a-very-long-name-indeed"


@pytest.mark.parametrize("others", [(), ("dpo",), (LONG, f"{LONG}-2", f"{LONG}-3", "e")])
def test_every_picture_is_a_png_that_shows_something(others):
    report = made(others=others, sets=("test", "hard"))
    drawn = pictures(report, {name: curve() for name in ("mine", *others)})
    assert list(drawn) == [
        "Gold reward before and after", "Margins on held-out pairs", "What became of both answers", "Training",
    ]  # fmt: skip
    for png in drawn.values():
        width, height, rows = size_and_colours(png)
        assert width == 624
        assert height > 180
        assert rows > 50


def test_curves_differ_by_more_than_colour():
    looks = [look(i) for i in range(4)]
    for part in ("color", "linestyle", "marker"):
        assert len({each[part] for each in looks}) == 4


def test_few_pairs_make_no_trend(monkeypatch):
    drawn = []
    monkeypatch.setattr("eval.report.plots.png", lambda figure: drawn.append(figure) or b"")
    for n in (9, 40):
        report = Report("r", pairs={"t": {"r": scores(n, 0)}}, margins={"t": {"r": np.linspace(-1, 2, n)}})
        report.estimates = {f"t/{k}": v for k, v in ranking_estimates(scores(n, 0)).items()}
        pictures(report, {})
    few, many = (next(f for f in drawn[i : i + 3] if f.axes[-1].get_xlabel().startswith("conf")) for i in (0, 3))
    assert few.axes[0].containers[0].lines[0].get_linewidth() == 0
    assert many.axes[0].containers[0].lines[0].get_linewidth() == 1


def test_gold_rewards_are_drawn_of_all_answers_to_a_prompt(monkeypatch):
    drawn = []
    monkeypatch.setattr("eval.report.plots.png", lambda figure: drawn.append(figure) or PNG)
    report = made()
    report.measured = {
        "mine": {"gold_reward": [[1.0, 0.0, 0.2]] * 11 + [[1.0, 1.0, 1.0]]},
        REF: {"gold_reward": [[0.5, 0.5, 0.5]] * 12},
    }
    pictures(report, {})
    above, below = drawn[0].axes
    assert sum(bar.get_height() for bar in above.containers[0]) == 3 * 12
    assert sum(bar.get_height() for bar in below.containers[0]) == 12
    (mean,) = [line for line in below.lines if line.get_label() == "mean of the differences"]
    assert mean.get_xdata()[0] == pytest.approx((11 * -0.1 + 0.5) / 12)


def test_names_are_not_formulas():
    name = r"costs $\x$"
    assert len(pictures(made(name, sets=(name,)), {name: curve()})) == 4


def test_one_constant_margin_is_drawn():
    report = made()
    same = np.zeros(3)
    report.pairs = {"test": {"mine": PairScores(same, same, same, same, same, same)}}
    report.measured = {who: {"gold_reward": [[0.0]] * 12} for who in ("mine", REF)}
    assert len(pictures(report, {})) == 3


@pytest.mark.parametrize(
    ("curves", "drawn"),
    [
        ({"a": curve(), "b": []}, True),
        ({"a": curve(), "b": curve(3, **{"rewards/accuracies": None})}, True),
        ({"a": curve(**{"rewards/margins": None})}, True),
        ({"a": curve(**{"log_ratio/chosen": "nan"})}, True),
        ({"a": curve(**dict.fromkeys(("rewards/margins", "rewards/accuracies", "log_ratio/chosen")))}, False),
        ({"a": []}, False),
        ({}, False),
    ],
)
def test_curves_show_what_was_logged(curves, drawn):
    assert ("Training" in pictures(made(), curves)) == drawn


def test_a_run_without_a_curve_is_not_in_the_legend(monkeypatch):
    drawn = []
    monkeypatch.setattr("eval.report.plots.png", lambda figure: drawn.append(figure) or b"")
    nothing = dict.fromkeys(("rewards/margins", "rewards/accuracies", "log_ratio/chosen"))
    pictures(Report("r"), {"a": curve(), "b": curve(**nothing)})
    (names,) = ([text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn)
    assert len(names) == 1
    assert names[0].startswith("a, mean of")


def test_a_report_without_anything_has_no_pictures():
    assert pictures(Report("empty"), {}) == {}


def test_a_report_is_written_whole(tmp_path):
    report = made()
    drawn = pictures(report, {"mine": curve()})
    assert write_report(report, drawn, tmp_path) == tmp_path / "report.html"
    assert json.loads((tmp_path / "report.json").read_text())["name"] == "mine"
    assert (tmp_path / "report.md").read_text() == to_markdown(report)
    assert (tmp_path / "report.html").read_text() == to_html(report, drawn)
    names = ["gold-reward-before-and-after", "margins-on-held-out-pairs", "training", "what-became-of-both-answers"]
    assert sorted(path.stem for path in (tmp_path / "pictures").glob("*.png")) == names
    assert (tmp_path / "pictures" / "training.png").read_bytes() == drawn["Training"]


# --- in a browser ------------------------------------------------------------------------------


def browse(page, tmp_path, *options):
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars --disable-sync"
    more = "--disable-background-networking --disable-component-update"
    command = [
        CHROMIUM,
        *quiet.split(),
        *more.split(),
        f"--user-data-dir={tmp_path / 'profile'}",
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout


@pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason=f"there is no browser at {CHROMIUM}")
@pytest.mark.parametrize("window", sparing(["laptop", "laptop, dark", "phone", "phone, dark"], "laptop", "phone, dark"))
def test_the_page_fits_its_window(tmp_path, window):
    width, dark = (1280 if window.startswith("laptop") else 390), window.endswith("dark")
    report = made(LONG, others=(f"{LONG}-2",), answer="a" * 300, note="b" * 300)
    rate = Estimate(0.6, 0.52, 0.68, 80)
    report.judged["j" * 30] = Judged("table", [LONG, REF], longer_wins={LONG: rate})
    report.judged["j" * 30].win_rates[LONG] = win_rate(np.repeat([0.0, 1.0], 40))
    joint = Comparison(LONG, "reference", Estimate(0.2, -0.02, 0.42, 80), 0.07, 0.3)
    report.comparisons["win_rate/" + "j" * 30] = [joint]  # the longest words that a cell of the first table has
    page = write_report(report, pictures(report, {LONG: curve()}), tmp_path)
    shot = tmp_path / "shot.png"
    mode = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(page, tmp_path, f"--screenshot={shot}", f"--window-size={width},1200", *mode)
    wide, _, rows = size_and_colours(shot.read_bytes())
    assert wide == width
    assert rows > 200
    assert dark == (brightness(shot.read_bytes()) < 0.3)
    frame = (  # a headless window is not narrower than 500 pixels, a frame is
        f'<iframe id=f src="report.html" style="width:{width}px;height:900px;border:0" onload="'
        "const d = f.contentDocument; const inner = [...d.querySelectorAll('.scroll, img, table')];"
        "document.title = JSON.stringify([d.documentElement.scrollWidth, f.contentWindow.innerWidth, "
        "inner.filter(e => e.scrollWidth > e.clientWidth + 2 || e.getBoundingClientRect().right > f.contentWindow.innerWidth)"
        ".length])"
        '"></iframe>'
    )
    (tmp_path / "frame.html").write_text(f"<!doctype html><title>none</title>{frame}")
    dom = browse(tmp_path / "frame.html", tmp_path, "--dump-dom", "--allow-file-access-from-files")
    content, window, cropped = json.loads(re.search(r"<title>(.*?)</title>", dom)[1])
    assert content <= window == width
    assert cropped == 0


def test_pictures_of_an_earlier_report_go_and_those_of_others_stay(tmp_path):
    folder = tmp_path / "pictures"
    write_report(made(), {"Best of k": PNG, "Training": PNG}, tmp_path)
    (folder / "mine.png").write_bytes(PNG)
    write_report(made(), {"Training": PNG}, tmp_path)
    assert {path.name for path in folder.glob("*.png")} == {"training.png", "mine.png"}
