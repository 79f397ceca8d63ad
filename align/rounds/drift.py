"""Measures how far the newest policy has gone from the first reference, and ends rounds that have gone too far."""

from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from align.data.loading import DataSource
from align.data.prompts import prompt_of
from align.errors import RunError
from align.models.loading import load_tokenizer
from align.models.use import Use
from align.recipe.loading import Recipe
from align.sampling.answer_file import KEPT, read_prompts
from align.sampling.ask import Asking, ask_by_revision
from align.sampling.policy import reference_of
from align.sampling.vllm_engine import VLLM
from align.scoring.completions import completion_logps

from .plan import Place
from .stages import answerer, decoding_of_round

MOST = 64
"""Answers that are looked at."""


def drift_stage(recipe: Recipe, place: Place, vllm: VLLM | None = None) -> dict[str, Any]:
    """The KL of the newest policy from the recipe's reference in nats an answer, on its own answers.

    A token's term is exp(-r) - 1 + r of its log-ratio r: never negative, and in expectation the KL of the token's distributions.
    Where answers are revised, drafts and revisions are added: by the chain rule no less than the KL of the last answers.

    Raises:
        RunError: If it is above `rounds.max_kl`.
    """
    rounds: Any = recipe.rounds
    state = PartialState()
    if not state.is_main_process:
        return {}
    many = 1 if vllm is not None else state.num_processes
    rows = read_prompts(DataSource(str(place.prompts)))[::many][:MOST]
    folder, name = place.answers("policy").parent / KEPT, "policy" if many == 1 else f"policy-0-of-{many}"
    decoding = decoding_of_round(recipe, place)
    policy = answerer(place)
    tokenizer: Any = load_tokenizer(policy.settings)
    asking = Asking(
        [prompt_of(row) for row in rows], decoding, 1, rounds.sample.batch_size, folder, vllm, rounds.sample.revisions,
        policy.instruction,
    )  # fmt: skip
    use = policy.load()
    drafts_and_revisions = ask_by_revision(tokenizer, use, asking, name, "the policy")
    sequences = [(one.prompt_ids, one.completion_ids) for stage in drafts_and_revisions for (one,) in stage]

    def scored(who: Use, desc: str) -> list[Tensor]:
        with who() as model:
            return completion_logps(
                model, sequences, pad_token_id=tokenizer.pad_token_id, batch_size=rounds.sample.batch_size,
                temperature=decoding.temperature, desc=desc,
            )  # fmt: skip

    own, ref = scored(use, "answers under the policy"), scored(reference_of(recipe).load(), "under the reference")
    ratios = [one.double() - other.double() for one, other in zip(own, ref, strict=True)]
    terms = np.array([float((torch.expm1(-r) + r).sum()) for r in ratios])
    terms = terms.reshape(len(drafts_and_revisions), -1).sum(axis=0)
    kl = float(terms.mean())
    if not kl <= rounds.max_kl:
        raise RunError(
            f"round {place.number}: the policy is {kl:.3g} nats an answer from the first reference ({len(terms)} answers), "
            f"more than rounds.max_kl={rounds.max_kl:g}: it has learnt what no data of the reference support; the rounds "
            f"before are kept in {place.run}: take one of them, lower train.learning_rate or raise train.beta"
        )
    return {"kl": round(kl, 6), "answers": len(terms)}
