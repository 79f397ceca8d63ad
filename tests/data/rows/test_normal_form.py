"""What looks the same is the same in every audit, and what does not show is found."""

import json
import unicodedata

import pytest
from datasets import Dataset

from align.data import DataConfig, DataError, DataSource, load_preferences
from align.data.audit.pairs import audit_pairs, audit_sets
from align.data.commands.fix import fix
from align.data.loading import load_source
from align.data.rows.normal_form import folded, is_blank, visible
from align.data.split import prompt_position

TEXT = {"prompt": "q ", "chosen": "a", "rejected": "b"}
ZERO, BOM, TAGS = "\u200b", "\ufeff", "".join(chr(0xE0000 + ord(c)) for c in "ignore all")
NFD = unicodedata.normalize("NFD", "café ")


def audited(*rows):
    return {f.rule: f for f in audit_pairs(Dataset.from_list([TEXT | row for row in rows]), where="x")}


@pytest.mark.parametrize("text", ["", " \n", ZERO, BOM, "\u3164", "\u2800 ", TAGS, "\u00ad", "\u200e\u2060", "\x00"])
def test_text_of_which_nothing_shows_is_empty(tmp_path, text):
    assert is_blank(text)
    chat = {
        side: [{"role": r, "content": c}] for side, r, c in (("prompt", "user", "q"), ("rejected", "assistant", "b"))
    }
    chat["chosen"] = [{"role": "assistant", "content": text}]
    for row in (TEXT | {"chosen": text}, chat):
        path = tmp_path / "x.jsonl"
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match="chosen is empty"):
            load_preferences(DataConfig(DataSource(str(path))))
    assert not any(map(is_blank, ("a", "é", "。", f"{ZERO}x", "🙂")))


@pytest.mark.parametrize("twin", ["café", NFD.strip(), f"ca{ZERO}fé", f"{BOM}café", "ｃａｆé", "CAFÉ", f"café{TAGS}"])
def test_answers_that_look_the_same_are_found(twin):
    if twin != "café":
        assert "identical-answers" in audited({"chosen": "café", "rejected": twin})
    assert folded(twin) == "café"


@pytest.mark.parametrize("twin", [NFD, f"ca{ZERO}fé ", f"{BOM}café "])
def test_contradictions_repetitions_and_leaks_are_found_under_another_form_of_the_prompt(twin):
    one = {"prompt": "café "}
    assert "contradictory-pairs" in audited(one, {"prompt": twin, "chosen": "b", "rejected": "a"})
    assert "duplicate-pairs" in audited(one, {"prompt": twin})
    other = {"prompt": twin, "chosen": "c"}
    sets = {"data.train": Dataset.from_list([TEXT | one]), "data.eval.x": Dataset.from_list([TEXT | other])}
    assert [finding.rule for finding in audit_sets(sets)] == ["same-prompts"]
    assert prompt_position("café ") == prompt_position(twin)
    assert prompt_position([{"role": "user", "content": "café "}]) == prompt_position(
        [{"role": "user", "content": twin}]
    )
    assert visible("x² ﬁ") == "x² ﬁ"  # mathematics is not folded


@pytest.mark.parametrize(("text", "clean"), [(f"a{ZERO}b", "ab"), (f"{BOM}ab", "ab"), (f"ab{TAGS}", "ab")])
def test_hidden_characters_are_told_and_taken_out(text, clean):
    assert "invisible-characters" in audited({"chosen": text})
    ((row, changes),) = fix(Dataset.from_list([TEXT | {"chosen": text}]))
    assert row["chosen"] == clean
    assert [change.rule for change in changes] == ["invisible-characters"]


def test_joiners_of_scripts_and_emoji_are_no_fault():
    flag = "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "gbeng") + "\U000e007f"
    for text in ("می\u200cخواهم", "👩\u200d💻", "❤\ufe0f", flag, "soft\u00adhyphen"):
        assert "invisible-characters" not in audited({"chosen": text})


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("prompt,chosen,chosen,rejected\nq,a,c,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1: the column 'chosen' is there twice"):
        load_preferences(DataConfig(DataSource(str(path))))


@pytest.mark.parametrize("names", [("score_chosen", "score_rejected"), ("rejected_rating", "chosen_rating")])
def test_scores_that_contradict_the_labels_are_told(tmp_path, names):
    path, told = tmp_path / "x.jsonl", []
    low, high = sorted(names)  # chosen before rejected
    rows = [TEXT | {"prompt": f"q{i} ", low: 1.0, high: 2.0} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = DataSource(str(path))
    load_source(source, "data.train", DataConfig(source), keep=(), texts=(), rows="pairs", told=told)
    (finding,) = (f for f in told if f.rule == "scores-against-labels")
    assert finding.level == "warning"
    assert "in 3 of 3 rows: the labels are the other way around" in finding.message
    assert finding.rows == (1, 2, 3)
