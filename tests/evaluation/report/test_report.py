"""The report as data, text and page."""

import html.parser
import json
import re

import pytest
from judged import PNG, curve, made

from eval.report.by_measure import ALL, by_measure
from eval.report.plots import pictures
from eval.report.verdict import headline
from eval.report.write import table, to_html, to_json, to_markdown, verdict
from eval.statistics.intervals import Estimate

HOSTILE = """<script>alert(1)</script>'"&<img src=x onerror=alert(1)>"""


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


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.5, "mine is better than reference."),
        (-0.5, -0.1, "mine is worse than reference."),
        (-0.1, 0.5, "mine is not told apart from reference: the difference is within noise."),
    ],
)
def test_the_page_begins_with_one_sentence_that_says_the_verdict(low, high, said):
    report = made()
    report.estimates["gold_reward/difference"] = Estimate((low + high) / 2, low, high, 12)
    whole = to_html(report, {"Training": PNG})
    assert f"Evaluation of mine{said}measureverdict" in Page(whole).text
    body = whole.split("<body>")[1]
    assert body.index("headline") < body.index("gold reward") < body.index("<img") < body.index("<h2>Estimates</h2>")
    del report.estimates["gold_reward/difference"]
    assert headline(report) == "Nothing here says whether the answers of mine are better."


def test_estimates_stand_under_the_question_that_they_answer():
    columns, rows = by_measure(made(others=("dpo",)))
    assert columns == ["mine", "dpo", "reference"]
    found = {row.title: (row.group, set(row.cells)) for row in rows}
    assert found["gold reward, less reference's"] == ("Whose answers are better", {"mine"})
    assert found["test: log-ratio, chosen answers"] == ("Held-out pairs", {"mine", "dpo"})
    assert found["test: ranked rightly by log-probability"] == ("Held-out pairs", {"mine", "dpo", "reference"})
    assert found["test: ranked rightly by length"] == ("Held-out pairs", {ALL})
    assert found["KL from the reference"] == ("What it cost", {"mine"})


def test_the_reference_and_the_difference_to_it_have_their_places():
    report = made()
    for side, n in (("policy", 7), ("ref", 8), ("difference", 9)):
        report.estimates[f"gold_reward/{side}"] = Estimate(0.5, 0.1, 0.9, n)
    rows = [row for row in by_measure(report)[1] if row.title.startswith("gold reward")]
    found = {row.title: {column: e.n for column, e in row.cells.items()} for row in rows}
    assert found == {"gold reward": {"mine": 7, "reference": 8}, "gold reward, less reference's": {"mine": 9}}
    assert [row.shown("mine")[0] for row in rows] == ["+", "0"]


def test_runs_are_columns_and_measures_rows():
    """Each with what it tells; a name of the JSON is not on the page."""
    report = made(others=("dpo",))
    whole = to_html(report, {})
    text = Page(whole).text.partition("Estimates")[2]
    assert re.search("measuremine(dpo)?reference", text)
    row = next(row for row in by_measure(report)[1] if row.difference)
    assert row.shown("mine") == "+0.300 [+0.100, +0.500]"
    assert row.small().endswith("n=12 (few); to be seen: 0.280")
    assert not [name for name in report.estimates if "/" in name and name in whole.partition("<summary>Settings")[0]]
    length = next(row for row in by_measure(report)[1] if row.title.endswith("by length"))
    assert re.fullmatch(r"0\.\d+ \[0\.\d+, 0\.\d+\]; share of .*; n=20", length.small())


@pytest.mark.parametrize("called", ["test", "gold_reward", "entropy"])
def test_a_policy_that_is_called_as_a_set_or_a_measure_gets_its_own_estimates_alone(called):
    sets = ("test", "entropy", "length_of_prompts")
    report = made(others=(called,), sets=sets)
    wanted = {f"{one}: log-ratio, chosen answers": f"{one}/log_ratio/chosen" for one in sets}
    wanted |= {
        "gold reward, less reference's": "gold_reward/difference",
        "KL from the reference": "kl",
        "entropy": "entropy/policy",
    }
    for at, name in enumerate(wanted.values()):
        report.estimates[name] = Estimate(0.0, -1.0, 1.0, 10 + at)
        report.estimates[f"{called}/{name}"] = Estimate(0.0, -1.0, 1.0, 30 + at)
    rows = {row.title: row for row in by_measure(report)[1]}
    for at, title in enumerate(wanted):
        assert {who: e.n for who, e in rows[title].cells.items()} == {"mine": 10 + at, called: 30 + at}


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
