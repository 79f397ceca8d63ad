"""Trains on preference pairs: TRL's DPOTrainer with one method, `preference_loss`, in place of its loss."""

import contextlib
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from datasets import Dataset, IterableDataset
from jaxtyping import Int
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer as TRLDPOTrainer

from align.configs import DPOConfig, FDPOConfig, PreferenceConfig, RPOConfig
from align.data.as_read import AsRead, PairsAsRead, is_as_read
from align.data.audit.truncation import refuse_cut_to_same, refuse_none_left, say_left_out
from align.data.row_tokens import PairTokens
from align.data.rows.explicit import explicit
from align.losses import Pair, PreferenceLoss, dpo_loss, f_dpo_loss, implicit_rewards, log_ratios, rpo_loss
from align.models.loading import keep_quantised_weights_plain
from align.scoring.batching import SeededLengthSampler, parts_within, pick_pairs, tokens_of_pairs
from align.trainers.shared.alarms import Alarms
from align.trainers.shared.base import LogsSums, own_args
from align.trainers.shared.checkpointing import lengths_of, positions_of, settle_checkpointing
from align.trainers.shared.columns import WithColumns, check_columns, columns_of, refuse_empty
from align.trainers.shared.dropout import dropout_off
from align.trainers.shared.metrics import CountsPairs, MetricSums, Work, preference_metrics
from align.trainers.shared.precompute import PAIRS, has_reference, refuse_two_references, with_reference
from align.trainers.shared.prefix_sharing import PrefixSharing
from align.trainers.shared.reference import ANOTHER, LOOKED_AT, FirstStep, refuse_without_reference, settle_reference
from align.trainers.shared.safe_runs import SafeRuns
from align.trainers.shared.scored import answer_logps, reference_logps, score, scoring_inputs, without_columns
from align.trainers.shared.trl_contract import fast_head, has_images, keep_columns, on_device, sparing_construction

from .displacement import Displacement


class PreferenceTrainer(CountsPairs, LogsSums, SafeRuns, TRLDPOTrainer):
    """A TRL DPOTrainer whose objective is one method, `preference_loss`.

    Construct and use it as TRL's: data, tokenization, collation, the reference, checkpoints and hub uploads are TRL's.
    Three things differ. Metrics are sums over examples, so they do not depend on the eval batch size, and each named
    eval set has its own keys. A tie counts one half in accuracies. The adapter's dropout is honoured, or
    under `disable_dropout=True` refused, never switched off silently; the reference never has dropout.

    Three things are done in another way, with the same results within rounding. The two answers of a pair share their
    prompt (`shared_prefix`). Precomputed reference log-probabilities come from a store that outlives the run. Activations
    are checkpointed only where memory asks for it.

    If the data have the columns `ref_chosen_logps` and `ref_rejected_logps` (summed, in nats), they are the reference.

    Raises:
        TypeError: If `args` is not the configuration of this trainer.
        ValueError: If something passed would be ignored: `compute_metrics`, LoRA dropout under `disable_dropout=True`,
            images, the auxiliary loss of a mixture of experts; or if `max_length` cuts the answers of a pair to the same.
    """

    config_class: ClassVar[type[PreferenceConfig]] = PreferenceConfig
    as_read: ClassVar[type[AsRead] | None] = PairsAsRead
    """What may make the tokens of rows as they are read (`align.data.as_read`)."""
    ref_model: Any

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        ref_model: PreTrainedModel | PeftModel | None = None,
        args: TRLDPOConfig | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        compute_metrics: Callable[..., Any] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
    ) -> None:
        where = type(self).__name__
        args = own_args(self, self.config_class, args, model, peft_config)
        if compute_metrics is not None:
            raise ValueError(f"{where}: compute_metrics would need full logits, which are never built; use `evaluate`")
        refuse_empty(train_dataset, eval_dataset, where=where)
        check_columns(args, train_dataset, eval_dataset, where=where)
        refuse_two_references(train_dataset, eval_dataset, where=where)
        given = ref_model is not None or PAIRS.columns[0] in (getattr(train_dataset, "column_names", None) or ())
        if not given:
            refuse_without_reference(model, peft_config, where, ANOTHER)
        self.copies_reference = not given
        self.first_step = FirstStep(ANOTHER) if self.copies_reference else None
        self.sums, self.alarms = MetricSums(), Alarms()
        self.sharing = PrefixSharing(args.shared_prefix, args.max_length)
        self._pairs_in_step: float | None = None
        self._tokenizes_rows = False
        with sparing_construction(model, reference=args.reads_reference()):
            super().__init__(
                model=model, ref_model=ref_model, args=args, data_collator=data_collator, train_dataset=train_dataset,
                eval_dataset=eval_dataset, processing_class=processing_class, optimizers=optimizers,
                callbacks=[*(callbacks or []), self.sums, self.alarms], quantization_config=quantization_config,
                peft_config=peft_config,
            )  # fmt: skip
        settle_reference(self)
        if args.columns():
            self.data_collator = WithColumns(self.data_collator, args.columns())
        for each in (self.model, self.ref_model):
            if each is not None:
                keep_quantised_weights_plain(each)
        if has_images(self):
            raise ValueError(f"{where}: images are not supported; use trl.DPOTrainer")
        if self.aux_loss_enabled:
            mixture = "the load-balancing loss of a mixture of experts is not added"
            raise ValueError(f"{where}: {mixture}; set router_aux_loss_coef=0.0 to train without it")
        if isinstance(self.train_dataset, Dataset) and not is_as_read(self.train_dataset):
            refuse_none_left(len(self.train_dataset), args.max_length, where=where)
            refuse_cut_to_same(self.train_dataset, args.max_length, where=where)
        if args.displacement_pairs:
            self.add_callback(Displacement(self, args.displacement_pairs))
        if args.chooses_checkpointing:
            settle_checkpointing(self)
        self.constructed()

    def constructed(self) -> None:
        """What a method adds once its trainer is constructed. Nothing by default."""

    def preference_loss(self, policy: Pair, ref: Pair, tokens: Pair, **columns: Tensor) -> PreferenceLoss:
        """The objective. Overridden by each method.

        Args:
            policy: log π(y|x), summed over the answer, in nats; carries the gradient. Each side has shape (batch,).
            ref: log π_ref(y|x), likewise.
            tokens: Tokens of each answer.
            columns: From `loss_columns`, by name. Shape (batch,).
        """
        raise NotImplementedError

    def loss_columns(self, inputs: dict[str, Tensor], scored: Any) -> dict[str, Tensor]:
        """What else the objective reads of a batch and its `Scored`: the data columns of the configuration."""
        return columns_of(inputs, self.args.columns())

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """TRL's rows, of many at a time, read as a recipe reads them; those that are tokenized as they are read stay as they are."""
        if is_as_read(dataset):
            self._tokenizes_rows = True
            return dataset
        where = f"{type(self).__name__}: {dataset_name} data"
        dataset = explicit(dataset, "pairs", where=where)
        if PairTokens.takes(dataset, processing_class):
            made = PairTokens(processing_class, args.max_length, where).at_once(dataset, args.dataset_num_proc)
            refuse_none_left(len(made), args.max_length, where=where)
            say_left_out(len(made), len(dataset), args.max_length, where=where)
            return made
        return super()._prepare_dataset(dataset, processing_class, args, dataset_name)

    def _set_signature_columns_if_needed(self) -> None:
        """TRL's, the data columns, and the texts that rows are tokenized from: what is not listed is taken out of the data."""
        super()._set_signature_columns_if_needed()
        keep_columns(self, (*self.args.columns(), *(PairsAsRead.texts() if self._tokenizes_rows else ())))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The Trainer's; `group_by_length` goes by the length of pairs, and repeats when a run resumes."""
        data = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not isinstance(data, Dataset):
            return super()._get_train_sampler(train_dataset)
        lengths = positions_of(lengths_of(data, self.args.max_length), packed=False)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return SeededLengthSampler(size, lengths.tolist(), self.args.data_seed or self.args.seed)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """The Trainer's, in as many parts as `max_tokens_per_batch` asks for; gradients add up to those of the whole."""
        inputs = on_device(self, inputs)
        if self.first_step is not None and self.first_step.due(self):
            self._look_at_reference(self.first_step, model, inputs)
        parts = self._parts(inputs)
        loss = torch.zeros((), device=self.accelerator.device)
        self._pairs_in_step = self.mean_pairs or sum(map(len, parts))
        for number, part in enumerate(parts, start=1):
            last = number == len(parts)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model), self.no_casts():
                loss += super().training_step(model, pick_pairs(inputs, part), *args, **kwargs)
        self._pairs_in_step = None
        self.sums.add("train", self.accelerator)
        self.guard.watch(inputs, loss)
        return loss

    def _look_at_reference(self, first_step: FirstStep, model: nn.Module, inputs: dict[str, Any]) -> None:
        """The rule of the first step, on a few pairs."""
        count = len(inputs["input_ids"]) // 2
        batch = pick_pairs(inputs, torch.arange(min(count, LOOKED_AT)))

        def policy() -> Tensor:
            scored, _ = score(self.sharing.scorer(model, scoring_inputs(batch), self.accelerator), batch)
            return answer_logps(scored, self.args.ld_alpha)

        online = self.ref_model is None and PAIRS.columns[0] not in batch
        tokens = batch["completion_mask"][:, 1:].sum(dim=1)
        first_step.look(self, policy, lambda: torch.cat(reference_logps(self, batch)), tokens, inside=online)

    def _parts(self, inputs: dict[str, Tensor]) -> list[Int[Tensor, " part"]]:
        """Which pairs go through the model together: all of them, or by length up to `max_tokens_per_batch`."""
        budget = self.args.max_tokens_per_batch
        tokens = tokens_of_pairs(inputs)
        if budget is None:
            return [torch.arange(len(tokens))]
        return parts_within(tokens.tolist(), budget)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The micro-batch's share of the mean of `preference_loss` over the step's pairs, times the accumulation steps."""
        mode = "train" if self.model.training else "eval"
        scorer = self.sharing.scorer(model, scoring_inputs(inputs), self.accelerator)
        scored, outputs = score(scorer, inputs)
        policy = Pair(*answer_logps(scored, self.args.ld_alpha).chunk(2))
        ref = Pair(*reference_logps(self, inputs))
        tokens = Pair(*scored.mask.sum(dim=1).to(policy.chosen.dtype).chunk(2))
        result = self.preference_loss(policy, ref, tokens, **self.loss_columns(inputs, scored))
        work = Work(*self.sharing.positions(scorer, inputs), tokens_of_pairs(inputs))
        self.sums.hold(preference_metrics(policy, ref, result, scored, work))
        if self._pairs_in_step is None:
            self.sums.add(mode, self.accelerator)
        loss = result.losses.sum() / (self._pairs_in_step or len(result.losses))
        return (loss, outputs) if return_outputs else loss

    def _precompute_ref_logps(self, dataset: Dataset | IterableDataset, name: str, batch_size: int) -> Dataset:
        """TRL's `precompute_ref_log_probs`, from the reference store: TRL's cache keys are faulty."""
        keep_quantised_weights_plain(self.model)
        settle_reference(self)
        if isinstance(dataset, Dataset) and not has_reference(dataset):
            self.sharing.decide(self, dataset, batch_size)
        return with_reference(self, dataset, name, batch_size)

    def compute_ref_log_probs(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """TRL's, with dropout off: it would otherwise run while the policy trains. Prompts are shared as in training."""
        scorer: Any = self.sharing.scorer(model, scoring_inputs(inputs), self.accelerator)
        with dropout_off(self.model, self.ref_model), fast_head():
            return super().compute_ref_log_probs(scorer, without_columns(inputs))


class DPOTrainer(PreferenceTrainer):
    """Direct Preference Optimization, with `label_smoothing` as conservative DPO. See `losses.dpo_loss`."""

    config_class = DPOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "dpo"]
    _name = "DPO"

    def preference_loss(self, policy: Pair, ref: Pair, tokens: Pair, **columns: Tensor) -> PreferenceLoss:
        """-log σ of the margin of implicit rewards."""
        rewards = implicit_rewards(log_ratios(policy, ref), beta=self.args.beta)
        losses = dpo_loss(rewards, label_smoothing=self.args.label_smoothing)
        return PreferenceLoss(losses, rewards, {"preference": losses}, {})


class RPOTrainer(PreferenceTrainer):
    """Regularized Preference Optimization: DPO plus the chosen answer's likelihood. See `losses.rpo_loss`."""

    config_class = RPOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "rpo"]
    _name = "RPO"
    _paper: ClassVar[dict[str, str]] = {
        "title": "Provably Mitigating Overoptimization in RLHF: Your SFT Loss is Implicitly an Adversarial Regularizer",
        "id": "2405.16436",
    }

    def preference_loss(self, policy: Pair, ref: Pair, tokens: Pair, **columns: Tensor) -> PreferenceLoss:
        """The DPO loss plus η β (or η) times the chosen answer's negative log-likelihood."""
        return rpo_loss(
            implicit_rewards(log_ratios(policy, ref), beta=self.args.beta),
            policy.chosen,
            tokens.chosen,
            beta=self.args.beta,
            eta=self.args.eta,
            sft_reduction=self.args.sft_reduction,
            scale_by_beta=self.args.scale_by_beta,
        )


class FDPOTrainer(PreferenceTrainer):
    """f-DPO: DPO under another divergence than the reverse KL. See `losses.f_dpo_loss`."""

    config_class = FDPOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "f-dpo"]
    _name = "f-DPO"
    _paper: ClassVar[dict[str, str]] = {
        "title": "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence Constraints",
        "id": "2309.16240",
    }

    def preference_loss(self, policy: Pair, ref: Pair, tokens: Pair, **columns: Tensor) -> PreferenceLoss:
        """-log σ of the margin of β f'(u)."""
        return f_dpo_loss(
            log_ratios(policy, ref),
            beta=self.args.beta,
            f=self.args.generator(),
            beta_scaling=self.args.beta_scaling,
        )
