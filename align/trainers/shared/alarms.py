"""Says in words, once each, what goes wrong in a run without an error, and ends one that no longer gets better."""

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .metrics import saved_state
from .reference import own_part

logger = logging.getLogger(__name__)

WINDOW = 10  # logged records that have to agree
STUCK = 1e-4  # nats
DISPLACED = 0.5  # nats per token of the chosen answer
SAMPLED = 1024  # weights of each tensor that are watched
STAYS = 1e-8  # of the weights' root mean square
SATURATED = 10.0  # nats of margin: σ differs from 1 by 5e-5


class Alarms(TrainerCallback):
    """Warns about a run that does not learn, has learnt all there is, or pushes the good answers down.

    A figure has to hold for ten logged records in a row.
    """

    def __init__(self) -> None:
        self.told: dict[str, str] = {}
        self._seen: dict[str, int] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Look at one record of training."""
        if not logs or "rewards/margins" not in logs or "loss" not in logs:
            return
        for name, holds, text in self._rules(logs):
            self._seen[name] = self._seen.get(name, 0) + 1 if holds else 0
            if self._seen[name] == WINDOW and name not in self.told:
                self.told[name] = f"step {state.global_step}: {text}"
                if state.is_world_process_zero:
                    logger.warning("%s", self.told[name])

    @staticmethod
    def _rules(logs: dict[str, Any]) -> list[tuple[str, bool, str]]:
        margin, beta_free = abs(logs["rewards/margins"]), logs.get("log_ratio/chosen", 0.0)
        per_token = beta_free / max(logs.get("length/chosen", 1.0), 1.0)
        return [
            (
                "stuck",
                margin < STUCK,
                f"the policy has not moved: rewards differ by less than {STUCK:g} in {WINDOW} records. Does LoRA adapt the "
                "layers you mean (`alignkit check`), and is the learning rate large enough (LoRA wants about 1e-5 to 1e-4)?",
            ),
            (
                "displaced",
                per_token < -DISPLACED,
                f"chosen answers have become less likely by {-per_token:.2f} nats per token: the margin grows by pushing "
                "both answers down. RPO's eta, a larger beta or fewer epochs hold them up",
            ),
            (
                "saturated",
                margin > SATURATED,
                f"the mean margin is {margin:.1f} nats: the loss has almost no gradient left, and more steps only memorise",
            ),
        ]


class Unmoved(TrainerCallback):
    """Warns about a run, of whatever method, whose weights are after ten steps what they were when it began.

    Some weights of every tensor that is trained are watched. A shorter run is judged at its end.
    """

    still = 0
    """So many first steps are not meant to move them."""

    def __init__(self) -> None:
        self.told: str | None = None
        self._before: list[Tensor] | None = None
        self._since = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Note what the weights are."""
        self._before, self._since = _some(model), max(state.global_step, self.still)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Compare, once."""
        if state.global_step - self._since >= WINDOW:
            self._compare(args, state, model)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Compare, if it was not done."""
        if state.global_step > self._since:
            self._compare(args, state, model)

    def _compare(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        before, self._before = self._before, None
        if before is None:
            return
        pairs = list(zip(_some(model), before, strict=True))
        change = max((float((now - then).abs().max()) for now, then in pairs if now.numel()), default=0.0)
        squares = sum(float(then.square().sum()) for then in before)
        size = (squares / max(sum(then.numel() for then in before), 1)) ** 0.5
        moved = torch.tensor([not change <= STAYS * size], dtype=torch.float32, device=args.device)  # NaN has moved
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(moved, op=dist.ReduceOp.MAX)
        if bool(moved):
            return
        self.told = (
            f"step {state.global_step}: the policy does not move: in {state.global_step - self._since} steps no weight that "
            "is trained has changed. Is the learning rate 0, or too small for the precision of the weights? Has the loss a "
            "gradient (rewards that are equal for all completions of a prompt give none)?"
        )
        if state.is_world_process_zero:
            logger.warning("%s", self.told)


def _some(model: nn.Module) -> list[Tensor]:
    """Copies of some weights of each tensor that is trained; of this process's shard, where there are shards."""
    parts = [own_part(p) for p in model.parameters() if p.requires_grad]
    flat = [part.detach().flatten() for part in parts]
    return [each[:: max(each.numel() // SAMPLED, 1)].float().clone() for each in flat]


class EarlyStop(EarlyStoppingCallback):
    """Transformers' end of training by a metric, which a resumed run reaches at the same step.

    Of several evaluation sets it reads the one that the metric is of.
    """

    @property
    def is_over(self) -> bool:
        """Whether the metric has failed to improve often enough."""
        return self.early_stopping_patience_counter >= self.early_stopping_patience

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count on from where the checkpoint was."""
        kept = saved_state(state, self) or {}
        self.early_stopping_patience_counter = kept.get("attributes", {}).get("early_stopping_patience_counter", 0)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        """Look at one evaluation."""
        name = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
        if name not in (metrics or {}):
            return
        super().on_evaluate(args, state, control, metrics)
        if self.is_over and state.is_world_process_zero:
            logger.warning(
                "step %d: %s has not improved in %d evaluations (best %.4g at step %s): training ends",
                state.global_step, name, self.early_stopping_patience, state.best_metric, state.best_global_step,
            )  # fmt: skip
