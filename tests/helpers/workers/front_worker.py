"""`alignkit front` with answers in training that follow from the prompt alone, so that any number of processes samples the same.

Not a test by itself. Arguments: those of the command, whose recipe's rewards are two of letters.
"""

import os
import sys

import torch
from accelerate import PartialState

from align.cli import main
from align.rewards.load import REWARDS, Known
from align.rewards.texts import text_of
from align.trainers.online.shared_prompts import SharedPrompts

LENGTH, LETTERS = 6, range(69, 95)  # of the tiny tokenizer: a to z


def early(completions, **_):
    return [sum(c in "abcdefghijklm " for c in text_of(one)) / (len(text_of(one)) + 1) for one in completions]


def late(completions, **_):
    return [sum(c in "nopqrstuvwxyz" for c in text_of(one)) / (len(text_of(one)) + 1) for one in completions]


def answers(self, prompt_ids, *_, **__):
    """For the k-th row of a prompt the same tokens everywhere; no two rows of a group are equal."""
    seen, found = {}, []
    for ids in prompt_ids:
        k = seen[tuple(ids)] = seen.get(tuple(ids), -1) + 1
        found.append([LETTERS[(sum(ids) + 7 * k + place * (k + 1)) % len(LETTERS)] for place in range(LENGTH)])
    return found, None


if __name__ == "__main__":
    torch.set_num_threads(1)
    SharedPrompts._generate_single_turn = answers
    REWARDS.update(early=Known(early, 0, 1), late=Known(late, 0, 1))
    code = main(["front", *sys.argv[1:], "rewards=[early, late]"])
    if PartialState().num_processes > 1:
        PartialState().wait_for_everyone()  # the main process writes the figures alone
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(code)
