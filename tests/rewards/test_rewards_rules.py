"""Conciseness, length budget, clarity, repetition, constraints, and how rewards are made."""

import multiprocessing
import sys

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from align.errors import RunError
from align.rewards import REWARDS, Constraints, Correctness, columns_of, load_reward, make_reward
from align.rewards import constraints as constraints_module


def ids(*lengths):
    return [[0] * n for n in lengths]


def called(reward, *lengths):
    return reward(["x"] * len(lengths), completion_ids=ids(*lengths))


# --- conciseness ----------------------------------------------------------------------------------------


def test_shorter_than_the_running_mean_of_all_so_far_this_batch_included():
    reward = make_reward("conciseness")
    assert called(reward, 2, 4, 6) == [1, 0, 0]  # mean 4; equal is not shorter
    assert called(reward, 20, 5) == [0, 1]  # mean 37 / 5
    assert called(reward, 7, 8) == [1, 0]  # 52 / 7 = 7.43
    assert reward.state_dict() == {"tokens": 52, "completions": 7}


def test_an_evaluation_moves_nothing_and_has_no_mean_of_its_own():
    reward = make_reward("conciseness")
    reward.training = False
    assert called(reward, 1, 9) == [None, None]
    assert reward.state_dict() == {"tokens": 0, "completions": 0}
    reward.training = True
    called(reward, 4, 6)
    reward.training = False
    assert called(reward, 4, 5, 100) == [1, 0, 0]
    assert reward.state_dict() == {"tokens": 10, "completions": 2}


def test_the_mean_goes_on_after_a_restart():
    before, after = make_reward("conciseness"), make_reward("conciseness")
    called(before, 3, 9, 12)
    after.load_state_dict(before.state_dict())
    assert called(after, 7, 8) == called(before, 7, 8) == [1, 0]


def test_huge_counts_stay_exact():
    reward = make_reward("conciseness")
    reward.load_state_dict({"tokens": 10**18, "completions": 10**15})
    reward.training = False
    assert called(reward, 999, 1000, 1001) == [1, 0, 0]


def test_lengths_are_of_tokens_so_the_ids_are_needed():
    with pytest.raises(ValueError, match="conciseness: needs `completion_ids`"):
        make_reward("conciseness")(["a"])


def _one_of_two(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    reward = make_reward("conciseness")
    results.put((rank, called(reward, *([2, 6], [40, 8])[rank]), reward.state_dict()))
    dist.destroy_process_group()


@pytest.mark.ddp
def test_two_processes_have_one_mean(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    started = [context.Process(target=_one_of_two, args=(rank, tmp_path / "store", results)) for rank in range(2)]
    for process in started:
        process.start()
    found = sorted(results.get(timeout=600) for _ in started)
    for process in started:
        process.join(timeout=600)
    state = {"tokens": 56, "completions": 4}
    assert found == [(0, [1, 1], state), (1, [0, 1], state)]


# --- length budget --------------------------------------------------------------------------------------


def test_the_budget_is_free_and_the_slack_is_a_straight_line():
    reward = make_reward("length_budget", tokens=10, slack=4)
    assert called(reward, 1, 10, 11, 13, 14, 10**6) == [1, 1, 0.75, 0.25, 0, 0]
    assert called(make_reward("length_budget", tokens=10), 10, 11) == [1, 0]


def test_an_answer_without_text_earns_no_budget():
    assert make_reward("length_budget", tokens=10)(["", " \n", "x"], completion_ids=ids(1, 2, 2)) == [0, 0, 1]


@pytest.mark.parametrize("options", [{"tokens": 0}, {"tokens": 5, "slack": -1}, {}])
def test_a_budget_without_sense_is_refused_when_it_is_made(options):
    with pytest.raises(RunError, match="reward 'length_budget': .*tokens|slack"):
        make_reward("length_budget", **options)


# --- clarity --------------------------------------------------------------------------------------------

STEPS = "Step 1: add.\nStep 2: divide.\n"


@pytest.mark.parametrize(
    "layout",
    [STEPS, "1) a\n2) b\n", "(a) x (b) y ", "i. x\niv. y\n", "- x\n- y\n", "* x\n• y\n", "First x, then y. ", "NEXT x next y ", "a: x b- y "],
)  # fmt: skip
def test_two_steps_and_a_box_are_clear(layout):
    assert make_reward("clarity")([layout + r"\boxed{4}", layout, layout + r"\boxed{ }", layout + r"\boxed{"]) == [
        1,
        0,
        0,
        0,
    ]


@pytest.mark.parametrize(
    "text", ["", "Step 1: x", "First x", "1. a, first b", "authentically firsthand nextdoor", "1 2 3", "--", "٣. ٤."]
)
def test_fewer_than_two_of_a_kind_are_not(text):
    reward = make_reward("clarity", boxed=False)([text])[0]
    assert reward == (1 if text == "٣. ٤." else 0)  # digits of any script number steps


CLOSED = {
    r"2) A) \boxed{4": 0, r"2) A) \boxed{\frac{1}{2}": 0, r"2) A) \boxed{\frac{1}{2}}": 1, r"2) A) \boxed{\{1, 2\}}": 1,
    r"2) A) \boxed{4} and \boxed{": 1, r"2) A) } \boxed{4\}": 0,
}  # fmt: skip


@pytest.mark.parametrize(("text", "clear"), CLOSED.items())
def test_a_box_has_to_be_closed(text, clear):
    assert make_reward("clarity")([text, text + r"\boxed{" * 20_000]) == [clear, clear]  # in one pass


def test_options_of_clarity():
    assert make_reward("clarity", steps=3)([STEPS + r"\boxed{4}"]) == [0]
    assert make_reward("clarity", steps=0)([r"\boxed{4}", "4"]) == [1, 0]
    loose, strict = make_reward("clarity", boxed=False), make_reward("clarity", boxed=False, line_start=True)
    text = "It is 5. So it is 6. Done"
    assert (loose([text]), strict([text])) == ([1], [0])
    assert strict([STEPS, " 1. x\n\t2. y", "- x\n- y", "-x\n-y"]) == [1, 1, 1, 0]
    for options in ({"steps": -1}, {"steps": 0, "boxed": False}):
        with pytest.raises(RunError, match="reward 'clarity': steps:"):
            make_reward("clarity", **options)


# --- repetition -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("", 0), ("!? ...", 0), ("74", 1), ("a b", 1), ("a b c", 1), ("a b c d", 1), ("a b c a b c", 3 / 4), ("74 " * 50, 1 / 48),
        ("A b, a B; a b", 2 / 4), ("x" * 1000, None), ("74" * 500, None), ("ab" * 15, 1),
    ],
)  # fmt: skip
def test_repetition_is_the_share_of_distinct_trigrams(text, reward):
    value = make_reward("repetition")([text])[0]
    assert value == pytest.approx(reward) if reward is not None else value < 0.05


def test_n_is_the_length_of_the_ngrams():
    assert make_reward("repetition", n=1)(["a b a b"]) == [0.5]
    with pytest.raises(RunError, match="n: must be at least 1, got 0"):
        make_reward("repetition", n=0)


# --- constraints ----------------------------------------------------------------------------------------

ROW = (["punctuation:no_comma", "length_constraints:number_words"], [{}, {"relation": "at least", "num_words": 3}])


def kept(text, row=ROW, **options):
    return make_reward("constraints", **options)([text], instruction_id_list=[row[0]], kwargs=[row[1]])[0]


def test_the_share_of_constraints_that_hold():
    assert [kept(t) for t in ("one two three", "one, two three", "one", "one, two", "", " \n")] == [
        1,
        0.5,
        0.5,
        0,
        0,
        0,
    ]
    assert [kept(t, all_of=True) for t in ("one two three", "one", "")] == [1, 0, 0]


def test_rows_without_constraints_or_without_a_checker_have_no_reward(caplog):
    constraints_module._say_unknown.cache_clear()
    assert kept("x", ([], [])) is None
    assert Constraints()(["x"], instruction_id_list=[None], kwargs=[None]) == [None]
    for _ in range(2):
        assert kept("x", (["punctuation:no_comma", "language:unheard"], [{}, {}])) is None
    assert caplog.text.count("no checker for 'language:unheard'") == 1


def test_columns_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match="needs `instruction_id_list`"):
        Constraints()(["x"])
    with pytest.raises(ValueError, match=r"`kwargs` must have one entry per constraint \(2\), got 1"):
        kept("x", (ROW[0], [{}]))
    with pytest.raises(ValueError, match="length_constraints:number_words"):
        kept("x", (ROW[0], [{}, {}]))


# --- how they are made ----------------------------------------------------------------------------------

OPTIONS = {"length_budget": {"tokens": 5}, "frozen_answerer": {"model_name_or_path": "tiny-random"}}
RULES = [name for name in REWARDS if name not in ("relevance", "frozen_answerer", "reward_model")]


@pytest.mark.parametrize("name", RULES)
@given(texts=st.lists(st.text(max_size=200) | st.text("ab1. ,\\boxed{}", max_size=200), max_size=4))
def test_every_reward_stays_in_its_range_and_repeats(name, texts):
    columns = {
        "prompts": texts,
        "completion_ids": [list(t.encode("utf-8", "surrogatepass")) for t in texts],
        "answer": ["1"] * len(texts),
    }
    columns |= {"instruction_id_list": [ROW[0]] * len(texts), "kwargs": [ROW[1]] * len(texts), "trainer_state": None}
    rewards, again = (make_reward(name, **OPTIONS.get(name, {}))(completions=texts, **columns) for _ in range(2))
    assert rewards == again
    assert len(rewards) == len(texts)
    assert all(REWARDS[name].low <= r <= REWARDS[name].high for r in rewards)


@pytest.mark.parametrize("name", RULES)
def test_trl_logs_a_reward_by_its_name(name):
    assert make_reward(name, **OPTIONS.get(name, {})).__name__ == name


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("corectness", {}, "did you mean 'correctness'"), ("correctness", {"boxed": 1}, "did you mean 'boxed_only'"),
        ("conciseness", {"tokens": 1}, "tokens: unknown key"),
        ("positive_sentiment", {"x": 1}, "takes no options, got x"), ("length_budget", {}, "missing tokens"), ("os:system", {}, "add --allow os:system"),
        ("os:system", {"x": 1}, "takes no options"), ("repetition", {"n": "three"}, "reward 'repetition': n: expected int"),
        ("correctness", {"boxed_only": "no"}, "boxed_only: expected bool"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_told(name, options, message):
    with pytest.raises(RunError, match=message):
        make_reward(name, **options)


def test_a_reward_of_a_package_may_say_none_in_training_but_not_as_gold(tmp_path, monkeypatch):
    (tmp_path / "rewardpack-1.0.dist-info").mkdir()
    (tmp_path / "rewardpack-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: rewardpack\nVersion: 1.0\n"
    )
    (tmp_path / "rewardpack-1.0.dist-info" / "RECORD").write_text("rewardpack.py,,\n")
    (tmp_path / "rewardpack.py").write_text(
        "def f(completions, answer=None, **_): return [None if answer is None else 2, 1]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reward = make_reward("rewardpack:f", ["rewardpack:f"])
    assert reward.__name__ == "rewardpack:f"
    assert reward(["a", "b"]) == [None, 1.0]
    assert reward(["a", "b"], answer=["x", "y"]) == [2.0, 1.0]
    with pytest.raises(RunError, match="one finite number for each"):
        load_reward("rewardpack:f", ["rewardpack:f"])(["a", "b"])
    with pytest.raises(RunError, match="one finite number or None for each of the answers"):
        reward(["a"])
    sys.modules.pop("rewardpack", None)


@pytest.mark.parametrize("name", ["correctness", "conciseness", "length_budget", "relevance", "constraints"])
def test_a_reward_that_reads_more_than_the_answer_is_no_gold_reward(name):
    with pytest.raises(
        RunError, match=f"eval.gold_reward: '{name}' reads .* which an evaluation does not pass; one of clarity"
    ):
        load_reward(name)


def test_a_reward_that_reads_the_answer_alone_is_one():
    assert load_reward("repetition")(["74 " * 50, "a b"]) == pytest.approx([1 / 48, 1])


def test_the_columns_that_data_need_are_known_beforehand():
    assert columns_of("correctness") == ("answer",)
    assert columns_of("conciseness") == columns_of("relevance") == columns_of("pack:f") == ()
    assert columns_of("relevance", against="reference") == ("reference",)
    assert columns_of("constraints") == ("instruction_id_list", "kwargs")


def test_made_with_options_it_has_them():
    assert make_reward("correctness", boxed_only=True) == Correctness(boxed_only=True)
