"""Everything we assume about TRL 1.16 beyond its documented API, in one place; `tests/trainers/test_trl_contract.py` holds it.

- `DPOTrainer` patches the model's forward so that `fused_lm_head=True` yields `FusedCausalLMOutput`: `log_probs`,
  `entropy`, `mean_logits`, `is_top1`, each (2B, T-1), zero outside the labels.
- A batch is [chosen; rejected] on dim 0, with `input_ids`, `attention_mask`, `completion_mask` and, if precomputed,
  `ref_chosen_logps` and `ref_rejected_logps`. Its collator drops every other column, and so does
  `_set_signature_columns_if_needed`, which fills `_signature_columns` once.
- `use_weighting` makes the fused head yield `log_sum_sq_probs` too.
- `compute_ref_log_probs(model, batch)` returns summed log-probabilities of the reference; a fresh adapter's reference
  is the base model, a loaded adapter's is a frozen copy named "ref".
- The patched forward asks `trl.trainer.utils._use_triton(device)` whether to project label positions only; on CPU it
  would project every position, prompts included. It computes the head by `trl.trainer.utils._ChunkedLogProbFunction`.
- Given `shift_labels` it scores them without shifting, so that a packed row of one's own goes through it.
- `GRPOTrainer` and `RLOOTrainer` score in `_get_per_token_logps_and_entropies(model, input_ids, attention_mask,
  logits_to_keep, ...)`, which calls the model as above with the last `logits_to_keep` tokens as labels;
  `_entropy_bonus_enabled` says whether GRPO's loss has a gradient through the entropy.
- They generate for `_step` a multiple of `steps_per_generation * num_iterations`, or where `_buffered_inputs` is None, and
  learn from `_buffered_inputs[_step % steps_per_generation]`; `_step` counts micro-batches, from 0 in a new process.
- `_calculate_rewards(inputs, prompts, completions, completion_ids_list)` returns the rewards of all processes, one column
  for each of `reward_funcs` (names: `reward_func_names`), NaN for None, once for each generation batch;
  `_generate_and_score_completions(inputs)` calls it and returns this process's rows, all tensors of which are shuffled
  and split together into `_buffered_inputs` by `_prepare_inputs(generation_batch)`; `_logs["advantages"]` ends with the
  advantages of all processes.
- `_compute_loss(model, inputs)` is differentiable in `inputs["advantages"]`, (B,) and for GRPO also (B, T), and is divided
  by the accumulation steps where `loss_is_scaled_for_ga`. RLOO has its KL penalty in the advantages, with leave-one-out.
- The configurations refuse `num_generations=1`; the trainers do not.
- `SFTTrainer` patches the head likewise (`log_probs`, `entropy`, `is_top1`), prepares every data set in `_prepare_dataset`,
  keeping further columns unless it packs, drops columns by `_signature_columns`, and merges `_metrics`, which stay empty
  when `compute_loss` is overridden, into the logs.
- `DPOTrainer` precomputes the reference in `_precompute_ref_logps(dataset, name, batch_size)`, called for each data set
  at construction and in `evaluate`, after `hash_module(model)` for its own cache.
- `aux_loss_enabled` and `_is_vision_dataset` say what their names say; `_metrics` is merged into the logs by `log`.
- Their prompts come from a `RepeatSampler` with attributes `data_source`, `mini_repeat_count`, `batch_size`,
  `repeat_count`, `shuffle`, `seed`, `num_samples` and `generator`, which draws one permutation an epoch.
- The Trainer sums losses in `_tr_loss` since step `_globalstep_last_logged`; both start anew before `on_train_begin`.
- The Trainer writes a checkpoint in `_save_checkpoint(model, trial)` to `output_dir/checkpoint-STEP`, and deletes old ones
  at its end if `args.save_total_limit` says so.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from trl import DPOTrainer as TRLDPOTrainer
from trl.trainer import dpo_trainer
from trl.trainer import utils as trl_utils
from trl.trainer.utils import RepeatSampler

from align.scoring.head import FrozenHead

NOT_FOR_THE_MODEL = frozenset({"completion_mask", "ref_chosen_logps", "ref_rejected_logps"})
COLUMN = "column."
"""Prefix of a batch's entries that are data columns; they are for the loss alone."""


class Scored(NamedTuple):
    """Per-token statistics of a [chosen; rejected] batch; values outside `mask` mean nothing."""

    token_logps: Float[Tensor, "rows time"]
    entropy: Float[Tensor, "rows time"]
    mean_logits: Float[Tensor, "rows time"]
    is_top1: Bool[Tensor, "rows time"]
    mask: Bool[Tensor, "rows time"]
    log_sum_sq_probs: Float[Tensor, "rows time"] | None = None
    """log Σ p² over the vocabulary, where `use_weighting` asks for it."""


def without_columns(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch without its data columns."""
    return {name: value for name, value in inputs.items() if not name.startswith(COLUMN)}


def scoring_inputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the model gets of a batch, and the labels to score."""
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    kept = without_columns(inputs).items()
    return {name: value for name, value in kept if name not in NOT_FOR_THE_MODEL} | {"labels": labels}


def score(model: Callable[..., Any], inputs: dict[str, Tensor]) -> tuple[Scored, Any]:
    """Run the policy (the wrapped model, so that DDP sees the gradients) through TRL's fused head."""
    mask = inputs["completion_mask"][:, 1:].bool()
    with fast_head():
        outputs = model(**scoring_inputs(inputs), use_cache=False, fused_lm_head=True)
    last = slice(-mask.size(1), None)  # prompt-learning adapters put virtual tokens in front
    squares = outputs.log_sum_sq_probs
    return Scored(
        outputs.log_probs[:, last],
        outputs.entropy[:, last].detach(),
        outputs.mean_logits[:, last].detach(),
        outputs.is_top1[:, last],
        mask,
        None if squares is None else squares[:, last].detach(),
    ), outputs


class _Head:
    """What TRL's forward calls in place of its own function: ours where it applies, else TRL's."""

    @staticmethod
    @torch.compiler.disable  # its loop over chunks would be compiled anew for every number of positions
    def apply(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk_size: int,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        outputs: tuple[str, ...] = (),
    ) -> tuple[Tensor | None, ...]:
        if weight.requires_grad or bias is not None or softcap is not None or "log_sum_sq_probs" in outputs:
            return CHUNKED_HEAD.apply(
                hidden, weight, bias, targets, temperature, chunk_size, softcap, logit_scale, outputs
            )
        statistics = bool(outputs) and set(outputs) != {"log_probs"}
        logps, entropy, mean_logits, is_top1 = FrozenHead.apply(
            hidden, weight, targets, logit_scale / temperature, statistics
        )
        return (
            logps,
            entropy if "entropy" in outputs else None,
            None,
            mean_logits if "mean_logits" in outputs else None,
            is_top1 if "is_top1" in outputs else None,
        )


CHUNKED_HEAD: Any = trl_utils._ChunkedLogProbFunction


@contextlib.contextmanager
def fast_head(*, entropy_gradient: bool = False) -> Iterator[None]:
    """Let TRL's fused head see only positions that have a label, and, where the head is frozen, recompute nothing.

    TRL does the first on CUDA; elsewhere it keeps shapes fixed for compilers that would recompile, which a CPU does not
    need. The second is `scoring.head.FrozenHead`, whose entropy has no gradient: objectives with an entropy term say so
    and get TRL's.
    """
    original = trl_utils._use_triton
    trl_utils._use_triton = lambda device: device.type == "cpu" or original(device)
    trl_utils._ChunkedLogProbFunction = CHUNKED_HEAD if entropy_gradient else _Head
    try:
        yield
    finally:
        trl_utils._use_triton = original
        trl_utils._ChunkedLogProbFunction = CHUNKED_HEAD


@contextlib.contextmanager
def no_model_hash() -> Iterator[None]:
    """Keep DPOTrainer from hashing all weights, upcast, on every process, for a cache key that we do not use."""
    original = dpo_trainer.hash_module
    dpo_trainer.hash_module = lambda model: ""
    try:
        yield
    finally:
        dpo_trainer.hash_module = original


@contextlib.contextmanager
def dropout_off(*models: nn.Module | None) -> Iterator[None]:
    """Every module in evaluation mode: the reference is deterministic even where the policy has dropout.

    Attention dropout is a function that reads its module's mode, so switching `nn.Dropout` off would not do.
    """
    active = [module for model in models if model is not None for module in model.modules() if module.training]
    for module in active:
        module.training = False
    try:
        yield
    finally:
        for module in active:
            module.training = True


def reference_logps(trainer: TRLDPOTrainer, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities of the reference, from the batch where they are cached, else by a forward pass."""
    if "ref_chosen_logps" in inputs:
        return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
    model = trainer.model if trainer.ref_model is None else trainer.ref_model
    with torch.no_grad():
        chosen, rejected = trainer.compute_ref_log_probs(model, inputs)
    return chosen, rejected


class OrderByEpoch(RepeatSampler):
    """TRL's order of prompts, epoch by epoch the same whether or not the run was resumed in between.

    TRL's generator goes on from epoch to epoch, so that a resumed run begins with the order of the first again.
    """

    @classmethod
    def of(cls, sampler: RepeatSampler) -> "OrderByEpoch":
        """The same sampler, but for that."""
        names = ("data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed")
        return cls(**{name: getattr(sampler, name) for name in names})

    def set_epoch(self, epoch: int) -> None:
        """Called at the beginning of each epoch, more than once."""
        if self.shuffle:
            self.generator.manual_seed(self.seed)
            for _ in range(epoch):
                torch.randperm(self.num_samples, generator=self.generator)


def generation_state(trainer: Any) -> dict[str, Any]:
    """What GRPO and RLOO keep between steps and no checkpoint of TRL's holds: tensors, numbers and lists of them."""
    metrics = {name: list(values) for name, values in trainer._metrics["train"].items()}
    window = {"loss": float(trainer._tr_loss), "since": trainer._globalstep_last_logged}
    return {"step": trainer._step, "buffered": trainer._buffered_inputs, "metrics": metrics, "window": window}


def set_generation_state(trainer: Any, state: dict[str, Any]) -> None:
    """Take up what `generation_state` gave."""
    trainer._step, trainer._buffered_inputs = state["step"], state["buffered"]
    trainer._metrics["train"].clear()
    trainer._metrics["train"].update(state["metrics"])


def set_logging_window(trainer: Any, window: dict[str, Any]) -> None:
    """Take up the sum of losses since the last log, which the Trainer sets to zero as training begins."""
    trainer._tr_loss += window["loss"]
    trainer._globalstep_last_logged = window["since"]


def last_generated(trainer: Any) -> dict[str, Any]:
    """The part of the generation batch that the last training step learnt from."""
    return trainer._buffered_inputs[(trainer._step - 1) % trainer.args.steps_per_generation]
