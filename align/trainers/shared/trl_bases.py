"""Tells a type checker what TRL's trainers have that ours call; part of `trl_contract`, which hands it on."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:

    class TrainerBase:
        """What every Trainer has."""

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def add_callback(self, callback: Any) -> None: ...  # noqa: D102
        def log(self, logs: dict[str, float], start_time: float | None = None) -> None: ...  # noqa: D102
        def train(self, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102

        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            """Metrics of an evaluation set."""
            raise NotImplementedError

        def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
            """Forward and backward pass of a micro-batch."""
            raise NotImplementedError

        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any: ...
        def _prepare_inputs(self, *args: Any, **kwargs: Any) -> dict[str, Any]: ...
        def _save_checkpoint(self, model: Any, trial: Any) -> None: ...
        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None: ...
        def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
            """Upload model and card."""
            raise NotImplementedError

        def _push_from_checkpoint(self, checkpoint_folder: str) -> None: ...
        def create_model_card(self, model_name: Any = None, dataset_name: Any = None, tags: Any = None) -> None:
            """Write README.md."""

    class OnlineBase(TrainerBase):
        """What GRPO and RLOO trainers have besides."""

        num_generations: int
        reward_funcs: list[Any]
        reward_func_names: list[str]
        reward_weights: Tensor
        ref_model: Any
        model: Any
        model_wrapped: Any

        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor: ...
        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any: ...
        def _tool_call_loop(self, *args: Any, **kwargs: Any) -> Any: ...
        def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> dict[str, Any]: ...
        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any: ...
else:
    TrainerBase = OnlineBase = object
"""Base of mixins for a checker, so that it knows what `super()` has; at run time they are mixed in before a Trainer."""
