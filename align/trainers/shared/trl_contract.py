"""Holds everything we assume about TRL 1.16 beyond its documented API; `tests/trainers/test_trl_contract.py` tests it.

- `DPOTrainer` patches the model's forward so that `fused_lm_head=True` yields `FusedCausalLMOutput`: `log_probs`,
  `entropy`, `mean_logits`, `is_top1`, each (2B, T-1), zero outside the labels; `use_weighting` adds `log_sum_sq_probs`.
- A batch is [chosen; rejected] on dim 0, with `input_ids`, `attention_mask`, `completion_mask` and, if precomputed,
  `ref_chosen_logps` and `ref_rejected_logps`. Its collator drops every other column, and so does
  `_set_signature_columns_if_needed`, which fills `_signature_columns` once.
- `compute_ref_log_probs(model, batch)` returns summed log-probabilities of the reference; a fresh adapter's reference
  is the base model, a loaded adapter's is a frozen copy named "ref".
- The patched forward asks `trl.trainer.utils._use_triton(device)` whether to project label positions only; on CPU it
  would project every position, prompts included. It computes the head by `trl.trainer.utils._ChunkedLogProbFunction`.
- Given `shift_labels` it scores them unshifted, so that a packed row of one's own goes through it.
- `GRPOTrainer` and `RLOOTrainer` score in `_get_per_token_logps_and_entropies(model, input_ids, attention_mask,
  logits_to_keep, ...)`, which calls the model as above with the last `logits_to_keep` tokens as labels;
  `_entropy_bonus_enabled` says whether GRPO's loss has a gradient through the entropy.
- They end completions at `eos_token_ids`, which also decide what counts as cut; `generation_config` and
  `generation_kwargs` (or `vllm_generation.generation_kwargs`) hold what is generated with, `_tokenizer` the tokenizer.
- They generate for `_step` a multiple of `steps_per_generation * num_iterations`, or where `_buffered_inputs` is None, and
  learn from `_buffered_inputs[_step % steps_per_generation]`; `_step` counts micro-batches, from 0 in a new process.
- `_calculate_rewards(inputs, prompts, completions, completion_ids_list)` returns the rewards of all processes, one column
  for each of `reward_funcs` (names: `reward_func_names`), NaN for None, once for each generation batch;
  `_generate_and_score_completions(inputs)` calls it and returns this process's rows, all tensors of which are shuffled
  and split together into `_buffered_inputs` by `_prepare_inputs(generation_batch)`; `_logs["advantages"]` ends with the
  advantages of all processes.
- `_compute_loss(model, inputs)` is differentiable in `inputs["advantages"]`, (B,) and for GRPO also (B, T), and is divided
  by the accumulation steps where `loss_is_scaled_for_ga`. RLOO has its KL penalty in the advantages, with leave-one-out.
- vLLM is sent what `vllm_generation._iter_named_params()` yields, after `merge_adapter()` of a PEFT model.
- `GRPOTrainer` generates in `_generate_single_turn(prompt_ids, ...)`, which returns the tokens of each prompt's answer and
  None in the place of their log-probabilities, by `model_wrapped.generate` where there is no vLLM. It calls tools in
  `_tool_call_loop(...)`, whose first result has 1 for each token that the policy wrote and 0 for tools' (see `align.sampling.trl_loop`).
- `SFTTrainer` patches the head likewise (`log_probs`, `entropy`, `is_top1`), prepares every data set in `_prepare_dataset`,
  keeping further columns unless it packs, drops columns by `_signature_columns`, and merges `_metrics`, which stay empty
  when `compute_loss` is overridden, into the logs.
- `DPOTrainer` precomputes the reference in `_precompute_ref_logps(dataset, name, batch_size)`, called for each data set
  at construction and in `evaluate`, after `hash_module(model)` for its own cache; DeepSpeed's engine of the model, which is
  not prepared yet, is made there and kept in `_precompute_engine`, None at first.
- `DPOTrainer` loads a whole model's reference by `create_model_from_path`, after a named policy, and takes None for none.
- The configurations refuse `num_generations=1`, the trainers do not. `aux_loss_enabled` and `_is_vision_dataset` say what
  their names say; `log` merges `_metrics` into the logs.
- Their prompts come from a `RepeatSampler` with attributes `data_source`, `mini_repeat_count`, `batch_size`,
  `repeat_count`, `shuffle`, `seed`, `num_samples` and `generator`, which draws one permutation an epoch.
- The Trainer sums losses in `_tr_loss` since step `_globalstep_last_logged`; both start anew before `on_train_begin`.
- `_save_checkpoint(model, trial)` writes `output_dir/checkpoint-STEP`, calls `_push_from_checkpoint(it)`, deletes old ones.
- A card names `_name` and `_paper`, and "None" for a base or a hub that it does not know.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from trl.models import prepare_deepspeed
from trl.trainer import dpo_trainer
from trl.trainer import utils as trl_utils

from align.scoring.head import FrozenHead

from .trl_bases import OnlineBase as OnlineBase
from .trl_bases import TrainerBase as TrainerBase

_ONLINE = {
    "_calculate_rewards": "inputs prompts completions completion_ids_list", "_generate_and_score_completions": "inputs",
    "_get_per_token_logps_and_entropies": "model input_ids attention_mask logits_to_keep ...", "_get_train_sampler": "dataset",
    "_prepare_inputs": "generation_batch",
}  # fmt: skip
_PREPARED = "dataset processing_class args dataset_name"
OVERRIDDEN: dict[str, dict[str, str]] = {
    "Trainer": {
        "_get_train_sampler": "train_dataset", "_push_from_checkpoint": "checkpoint_folder", "_save": "output_dir state_dict",
        "_save_checkpoint": "model trial", "_set_signature_columns_if_needed": "",
    },
    "DPOTrainer": {"_prepare_dataset": _PREPARED, "_precompute_ref_logps": "dataset name batch_size"},
    "GRPOTrainer": _ONLINE | {"_generate_single_turn": "prompt_ids images multimodal_fields num_generations ...",
        "_tool_call_loop": "prompts prompt_ids completion_ids completions logprobs images multimodal_fields"},
    "KTOTrainer": {"_prepare_dataset": _PREPARED, "_precompute_ref_logps": "dataset name batch_size"}, "RewardTrainer": {"_prepare_dataset": _PREPARED},
    "RLOOTrainer": _ONLINE | {"_generate_single_turn": "prompt_ids images multimodal_fields"},
    "SFTTrainer": {"_prepare_dataset": "dataset processing_class args packing formatting_func dataset_name"},
}  # fmt: skip
"""Private methods that our trainers override, with the parameters they have; where `...` ends them, there are more."""
LABELS = frozenset({"_name", "_paper", "_tag_names"})
"""Private class attributes that ours override, for the model card."""


class _Head:
    """What TRL's forward calls in place of its own function: ours where it applies, else TRL's."""

    @staticmethod
    @torch.compiler.disable  # its loop over chunks would be compiled anew for every number of positions
    def apply(
        hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float, chunk_size: int,
        softcap: float | None = None, logit_scale: float = 1.0, outputs: tuple[str, ...] = (),
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
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

    TRL does the first on CUDA, and elsewhere keeps shapes fixed for compilers, which a CPU does not need. The second is
    `scoring.head.FrozenHead`, whose entropy has no gradient: objectives with an entropy term say so and get TRL's.
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
def sparing_construction(model: Any, *, reference: bool) -> Iterator[None]:
    """Keep DPOTrainer from hashing all weights for a cache key that we do not use, and from loading a reference without use.

    A `model` that is a name is loaded all the same; `reference` says whether the loss reads one.
    """
    hashes, load = dpo_trainer.hash_module, dpo_trainer.create_model_from_path
    loads = [load] * isinstance(model, str)
    dpo_trainer.hash_module = lambda model: ""
    if not reference:
        dpo_trainer.create_model_from_path = lambda *args, **kw: loads.pop()(*args, **kw) if loads else None
    try:
        yield
    finally:
        dpo_trainer.hash_module, dpo_trainer.create_model_from_path = hashes, load


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


def scores_reference(trainer: Any) -> Any:
    """The model that gives the reference before training begins: under DeepSpeed an engine of it, which gathers weights."""
    if trainer.ref_model is not None or not trainer.is_deepspeed_enabled:
        return trainer.ref_model or trainer.model
    if trainer._precompute_engine is None:
        trainer._precompute_engine = prepare_deepspeed(trainer.model, trainer.accelerator)
    return trainer._precompute_engine


def micro_batch(trainer: Any, *, ago: int) -> dict[str, Any]:
    """The part of the generation batch that the training step learns from: the coming one, or the last, 1 ago."""
    return trainer._buffered_inputs[(trainer._step - ago) % trainer.args.steps_per_generation]


def generated(trainer: Any) -> list[dict[str, Any]] | None:
    """The micro-batches of the generation batch."""
    return trainer._buffered_inputs


def entropy_is_learnt(trainer: Any) -> bool:
    """Whether the loss has a gradient through the entropy."""
    return getattr(trainer, "_entropy_bonus_enabled", False)


def generations(trainer: Any) -> int:
    """How many generation batches have been learnt from."""
    return trainer._step // (trainer.args.steps_per_generation * trainer.args.num_iterations)


def logged(trainer: Any, mode: str) -> dict[str, list[Any]]:
    """Metrics of `train` or `eval` by name, whose means are logged next; a new name begins with an empty list."""
    return trainer._metrics[mode]


def show_advantages(trainer: Any, advantages: list[float]) -> None:
    """Put advantages in the place of the last ones in the table of completions."""
    shown = trainer._logs["advantages"]
    for _ in advantages:
        shown.pop()
    shown.extend(advantages)


def tokenizer_of(trainer: Any) -> Any:
    """The tokenizer of GRPO or RLOO, of a processor too."""
    return trainer._tokenizer


def end_answers_at(trainer: Any, stops: Sequence[int]) -> None:
    """Let GRPO or RLOO end completions at these tokens too, and take those that reach none of them for cut."""
    trainer.eos_token_ids = list(dict.fromkeys([*stops, *trainer.eos_token_ids]))
    if trainer.use_vllm:
        asked = trainer.vllm_generation.generation_kwargs
        named = [*trainer.eos_token_ids, *asked.get("stop_token_ids", ())]
        trainer.vllm_generation.generation_kwargs = asked | {"stop_token_ids": list(dict.fromkeys(named))}
        return
    own = trainer.generation_config.eos_token_id  # of `args.generation_kwargs`, say
    named = [*trainer.eos_token_ids, *(own if isinstance(own, list) else [own])]
    trainer.eos_token_ids = trainer.generation_config.eos_token_id = list(dict.fromkeys(named))
    trainer.generation_kwargs["eos_token_id"] = trainer.eos_token_ids


def send_to_vllm(trainer: Any, each: Callable[..., Iterator[tuple[str, Tensor]]]) -> None:
    """Send vLLM the names and weights that `each` yields of TRL's iterator, which is a function without arguments."""
    trainer.vllm_generation._iter_named_params = partial(each, trainer.vllm_generation._iter_named_params)


def completion_logps(trainer: Any, model: Any, ids: Tensor, mask: Tensor, kept: int) -> Tensor:
    """Log-probabilities of the last `kept` tokens of each row under a model, (B, kept), as the trainer computes them."""
    return trainer._get_per_token_logps_and_entropies(model, ids, mask, kept)[0]


def policy_loss(trainer: Any, batch: dict[str, Any]) -> Tensor:
    """The loss of GRPO or RLOO on a micro-batch, which it adds to the logged metrics."""
    return trainer._compute_loss(trainer.model, batch)


@contextlib.contextmanager
def metrics_aside(trainer: Any) -> Iterator[None]:
    """What the loss logs meanwhile is thrown away: these passes are no training."""
    kept, trainer._metrics = trainer._metrics, {"train": defaultdict(list), "eval": defaultdict(list)}
    try:
        yield
    finally:
        trainer._metrics = kept


def on_device(trainer: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """A collated batch as the trainer hands it to its loss."""
    return trainer._prepare_inputs(batch)


def label(trainer: Any, name: str, paper: dict[str, str]) -> None:
    """What the card calls the method, and where it comes from."""
    trainer._name, trainer._paper = name, paper


def paper_of(trainer: Any) -> dict[str, str]:
    """The paper that the card names."""
    return trainer._paper


def prepared_pairs(trainer: Any, data: Any, name: str) -> Any:
    """Pairs as the trainer prepares a data set of this name at construction."""
    return trainer._prepare_dataset(data, trainer.processing_class, trainer.args, name)


def keep_columns(trainer: Any, names: Sequence[str]) -> None:
    """Leave these columns in the data, too."""
    trainer._signature_columns = list(dict.fromkeys([*trainer._signature_columns, *names]))


def has_images(trainer: Any) -> bool:
    """Whether the training set has images."""
    return trainer._is_vision_dataset


def default_output_dir(trainer: Any, model: Any) -> str:
    """As TRL names it: after the model and the method."""
    name = model if isinstance(model, str) else model.config._name_or_path
    return f"{name.rstrip('/').split('/')[-1]}-{trainer._name}"


def load_weights(trainer: Any, folder: Any) -> None:
    """Give a trainer's model the trained weights that were saved in a folder."""
    trainer._load_from_checkpoint(str(folder))


def load_best(trainer: Any) -> None:
    """Give a trainer's model the weights of its best checkpoint, where its arguments ask for that, as the Trainer's end does."""
    if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
        trainer._load_best_model()
