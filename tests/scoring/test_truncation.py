"""The rule of truncation agrees with TRL's collator."""

import numpy as np
import pytest
from trl.trainer.dpo_trainer import DataCollatorForPreference

from align.data.rows.truncation import fits, room, truncated, truncated_lengths

PROMPT, CHOSEN, REJECTED = [1, 2, 3, 4], [5, 6, 7], [8]


@pytest.mark.parametrize("max_length", [None, 1, 3, 4, 5, 6, 7, 20])
def test_what_stays_is_what_trls_collator_keeps(max_length):
    collator = DataCollatorForPreference(pad_token_id=0, max_length=max_length)
    batch = collator([{"prompt_ids": PROMPT, "chosen_ids": CHOSEN, "rejected_ids": REJECTED}])
    for row, answer in enumerate((CHOSEN, REJECTED)):
        prompt, completion = truncated(PROMPT, answer, max_length)
        there = batch["attention_mask"][row].bool()
        assert batch["input_ids"][row][there].tolist() == prompt + completion
        assert int(batch["completion_mask"][row].sum()) == len(completion)
        lengths = truncated_lengths(np.array([len(PROMPT)]), np.array([len(answer)]), max_length)
        assert [int(part[0]) for part in lengths] == [len(prompt), len(completion)]
        assert fits(PROMPT, answer, max_length) == (len(completion) == len(answer))


def test_a_prompt_longer_than_the_limit_leaves_no_room():
    assert room(5, 3) == 0
    assert room(3, 3) == 0
    assert room(3, 5) == 2
    assert room(3, None) is None
