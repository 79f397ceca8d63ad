"""Says in words, once each, what the logged figures of a run mean when they go wrong."""

import logging
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

WINDOW = 10  # logged records that have to agree
STUCK = 1e-4  # nats
DISPLACED = 0.5  # nats per token of the chosen answer
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
