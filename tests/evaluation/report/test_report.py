"""The report as data, text, page and pictures."""

import html.parser
import json
import re
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest

from eval.evaluate import Report
from eval.pairs.ranking import PairScores, ranking_estimates
from eval.report.plots import pictures
from eval.report.write import table, to_html, to_json, to_markdown, verdict, write_report
from eval.statistics.intervals import Estimate

HOSTILE = """<script>alert(1)</script>'"&<img src=x onerror=alert(1)>"""
PNG = b"\x89PNG\r\n\x1a\n"
CHROMIUM = "/usr/bin/chromium"


def scores(n, seed):
    rng = np.random.default_rng(seed)
    return PairScores(*(-20 + 4 * rng.normal(size=(4, n))), *rng.integers(5, 60, size=(2, n)).astype(float))


def made(name="mine", *, others=(), sets=("test",), prompt="say hello", answer="hello", **settings):
    """A report as `evaluate` makes it, from invented scores."""
    report = Report(name, settings={"method": "rpo", "recipe": {"train": {"beta": 0.1}}, **settings})
    for index, set_name in enumerate(sets):
        report.pairs[set_name] = {who: scores(20, 10 * index + i) for i, who in enumerate((name, *others))}
        for who, row in report.pairs[set_name].items():
            prefix = set_name if who == name else f"{who}/{set_name}"
            report.estimates |= {f"{prefix}/{k}": v for k, v in ranking_estimates(row).items()}
    report.estimates |= {
        "gold_reward/difference": Estimate(0.3, 0.1, 0.5, 12),
        "kl": Estimate(2.0, 1.5, 2.5, 12),
        "length_tokens/difference": Estimate(-1.0, -3.0, 1.0, 12),
    }
    report.answers = [
        {"prompt": prompt, "policy": answer, "ref": "bye", "policy_reward": r, "ref_reward": -r / 2}
        for r in np.linspace(-1, 1, 12).tolist()
    ]
    return report


def curve(n=8, **replaced):
    records = [
        {"step": i, "rewards/margins": i / n, "rewards/accuracies": 0.5, "log_ratio/chosen": -i / 10, "loss": 0.7}
        for i in range(1, n + 1)
    ]
    return [{k: v for k, v in (record | replaced).items() if v is not None} for record in records]


# --- JSON and Markdown -------------------------------------------------------------------------


def test_json_holds_every_estimate():
    report = made(others=("dpo",))
    read = json.loads(to_json(report))
    assert read["estimates"]["kl"] == {"value": 2.0, "low": 1.5, "high": 2.5, "n": 12}
    assert {k: Estimate(**v) for k, v in read["estimates"].items()} == report.estimates
    assert (read["name"], read["verdict"], read["settings"]["method"]) == ("mine", verdict(report), "rpo")


@pytest.mark.parametrize(
    ("name", "interval", "words"),
    [
        (
            "gold_reward/difference",
            (0.1, 0.5),
            "mine is better than reference by gold reward, +0.300 [+0.100, +0.500] (n=12).",
        ),
        (
            "gold_reward/difference",
            (-0.5, -0.1),
            "mine is worse than reference by gold reward, -0.300 [-0.500, -0.100] (n=12).",
        ),
        (
            "gold_reward/difference",
            (-0.1, 0.5),
            "mine is not told apart from reference by gold reward, +0.200 [-0.100, +0.500] (n=12); a true difference of 0.",
        ),
        ("gold_reward/difference", (0.0, 0.5), "mine is not told apart from reference"),
        ("length_tokens/difference", (1.0, 3.0), "answers +2.0 [+1.0, +3.0] tokens longer"),
        ("length_tokens/difference", (-3.0, -1.0), "answers -2.0 [-3.0, -1.0] tokens shorter"),
        ("length_tokens/difference", (-1.0, 3.0), "answers +1.0 [-1.0, +3.0] tokens longer, within noise"),
    ],
)
def test_the_verdict_says_up_down_or_noise(name, interval, words):
    report = made()
    report.estimates[name] = Estimate(sum(interval) / 2, *interval, 12)
    assert words in verdict(report)


def test_a_verdict_without_answers_is_still_a_sentence():
    report = made()
    assert "a KL of 2.000 [1.500, 2.500] nats per answer" in verdict(report)
    report.estimates = {k: v for k, v in report.estimates.items() if k.startswith("test/")}
    assert re.match(r"Implicit-reward accuracy on test 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\], not told", verdict(report))
    assert "nothing here says whose answers are better" in verdict(report)


def test_every_row_of_the_table_has_five_cells():
    lines = table(made(others=("a|b", "c_d/e"))).splitlines()
    assert len(lines) == 2 + len(made(others=("a|b", "c_d/e")).estimates)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}
    assert len({len(line) for line in lines}) == 1
    assert re.fullmatch(r"\|( :?-+:? +\|){5}", lines[1])
    assert re.search(r"\| kl +\| 2\.000 +\| \[1\.500, 2\.500\] +\| +\| 12 \(few\) +\|", "\n".join(lines))


def test_markdown_holds_verdict_table_and_settings():
    report = made()
    text = to_markdown(report)
    assert text.startswith(f"# mine\n\n{verdict(report)}\n\n{table(report)}\n")
    assert "```yaml\nmethod: rpo\nrecipe:\n  train:\n    beta: 0.1\n```" in text


# --- HTML --------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Tags, attributes and text; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("meta", "link", "img", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_hostile_text_stays_text():
    message = [{"role": HOSTILE, "content": HOSTILE}]
    for prompt in (HOSTILE, message):
        report = made(
            HOSTILE, others=(f"other {HOSTILE}",), sets=(HOSTILE,), prompt=prompt, answer=HOSTILE, note=HOSTILE
        )
        page = Page(to_html(report, {HOSTILE: PNG}))
        assert "script" not in page.tags
        assert page.tags.count("img") == 1
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert page.text.count("<script>alert(1)</script>") > 10
        assert page.open == []


def test_the_page_loads_nothing():
    report = made(answer="see https://example.org and src=http://example.org/x.png")
    page = Page(to_html(report, pictures(report, {"mine": curve()})))
    links = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert len(links) == 5
    assert all(link.startswith("data:") for link in links)
    style = to_html(report, {}).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_shows_the_first_answers_with_their_rewards():
    page = Page(to_html(made(), {})).text
    assert "The first 10 of 12 prompts, not chosen by hand." in page
    assert page.count("say hello") == 10
    assert "policy · gold reward -1.000" in page
    assert "reference · gold reward +0.500" in page
    bare = made()
    bare.answers = []
    assert "Answers side by side" not in to_html(bare, {})


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
        assert width > height > 300
        assert rows > 50


def test_names_are_not_formulas():
    name = r"costs $\x$"
    assert len(pictures(made(name, sets=(name,)), {name: curve()})) == 4


def test_one_constant_margin_is_drawn():
    report = made()
    same = np.zeros(3)
    report.pairs = {"test": {"mine": PairScores(same, same, same, same, same, same)}}
    for row in report.answers:
        row |= {"policy_reward": 0.0, "ref_reward": 0.0}
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
    assert sorted(path.stem for path in (tmp_path / "pictures").iterdir()) == names
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
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason=f"there is no browser at {CHROMIUM}")
@pytest.mark.parametrize("width", [1280, 390], ids=["laptop", "phone"])
def test_the_page_fits_its_window(tmp_path, width):
    report = made(LONG, others=(f"{LONG}-2",), answer="a" * 300, note="b" * 300)
    page = write_report(report, pictures(report, {LONG: curve()}), tmp_path)
    shot = tmp_path / "shot.png"
    browse(page, tmp_path, f"--screenshot={shot}", f"--window-size={width},1200")
    wide, _, rows = size_and_colours(shot.read_bytes())
    assert wide == width
    assert rows > 200
    frame = (  # a headless window is not narrower than 500 pixels, a frame is
        f'<iframe id=f src="report.html" style="width:{width}px;height:900px;border:0" onload="'
        "document.title = JSON.stringify([f.contentDocument.documentElement.scrollWidth, f.contentWindow.innerWidth])"
        '"></iframe>'
    )
    (tmp_path / "frame.html").write_text(f"<!doctype html><title>none</title>{frame}")
    dom = browse(tmp_path / "frame.html", tmp_path, "--dump-dom", "--allow-file-access-from-files")
    content, window = json.loads(re.search(r"<title>(.*?)</title>", dom)[1])
    assert content <= window == width
