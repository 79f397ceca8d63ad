"""A reward and a judge of one's own that do not behave: a reward to await, and a judge that raises, exits or says nothing."""

import asyncio

import pytest
from trl import ModelConfig

from align.errors import RunError
from align.judges.from_recipe import prepare_judge
from align.judges.protocol import judge_all
from align.own_code import allow_file
from align.recipe.sections import JudgeConfig
from align.rewards import make_reward

pytestmark = pytest.mark.usefixtures("own_tables")


def test_a_reward_that_is_awaited(tmp_path):
    (tmp_path / "later.py").write_text(
        "import asyncio\nfrom align.rewards.load import REWARDS, Known\n\n\nasync def later(completions, **columns):\n"
        "    await asyncio.sleep(0)\n    return [len(one) for one in completions]\n\n\nREWARDS['later'] = Known(later, 0, None)\n"
    )
    allow_file(tmp_path / "later.py")
    assert make_reward("later")(completions=["a", "bc"]) == [1.0, 2.0]

    async def in_a_notebook():
        return make_reward("later")(completions=["abc"])

    assert asyncio.run(in_a_notebook()) == [3.0]


WRONG = """from align.judges.scorers import JUDGES


class Wrong:
    def __init__(self, way="raises"):
        self.way = way

    def prefer(self, prompt, answers, **columns):
        if self.way == "raises":
            raise KeyError("boom")
        if self.way == "exits":
            raise SystemExit(0)
        return [["a", "b"], ["c", "d"]] if self.way == "texts" else None


JUDGES["wrong"] = Wrong
"""


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("raises", "judge 'wrong' failed: KeyError: 'boom'"),
        ("exits", "judge 'wrong' failed: SystemExit: 0"),
        ("texts", "judge 'wrong' failed: ValueError: could not convert string to float: 'a'"),
        ("mute", "matrix: must be an array of 2 x 2, got NoneType"),
    ],
)
def test_a_judge_that_fails_in_any_way_fails_on_its_prompt(tmp_path, way, told):
    (tmp_path / "wrong.py").write_text(WRONG)
    allow_file(tmp_path / "wrong.py")
    judge = prepare_judge("judge", JudgeConfig("own", name="wrong", options={"way": way}), ModelConfig(), [], None)()
    judgements = judge_all(judge, ["p", "q"], [["a", "b"]] * 2)
    assert [failure.error for failure in judgements.failures] == [told] * 4
    assert judge.way == way


def test_a_class_whose_options_are_not_known_is_refused(tmp_path):
    (tmp_path / "plain.py").write_text(
        "from align.rewards.load import REWARDS, Known\n\n\nclass Plain:\n    def __call__(self, completions, **columns):\n"
        "        return [1.0 for _ in completions]\n\n\nREWARDS['plain'] = Known(Plain, 0, 1)\n"
    )
    allow_file(tmp_path / "plain.py")
    with pytest.raises(RunError, match="Plain is a class and no dataclass, whose fields would be its options"):
        make_reward("plain")
