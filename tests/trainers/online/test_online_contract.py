"""What trainers with several objectives assume about TRL beyond its documented API."""

import inspect

import pytest
from objectives import dynamic
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from align.configs.online import DynamicGRPOConfig, DynamicRLOOConfig
from align.trainers.online.multi_objective import DynamicGRPOTrainer, DynamicRLOOTrainer

BOTH = pytest.mark.parametrize("cls", [GRPOTrainer, RLOOTrainer])


@BOTH
def test_the_overridden_methods_are_there_with_these_arguments(cls):
    expected = {
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_generate_and_score_completions": ["self", "inputs"],
        "_prepare_inputs": ["self", "generation_batch"],
        "_compute_loss": ["self", "model", "inputs"],
    }
    for name, arguments in expected.items():
        assert list(inspect.signature(inspect.unwrap(getattr(cls, name))).parameters) == arguments, name


@BOTH
def test_losses_say_whether_they_are_divided_by_the_accumulation_steps(cls):
    assert cls.loss_is_scaled_for_ga is (cls is GRPOTrainer)


@pytest.mark.parametrize(("cls", "refused"), [(GRPOConfig, "GRPO requires"), (RLOOConfig, "RLOO requires")])
def test_trls_configurations_refuse_one_completion(cls, refused):
    with pytest.raises(ValueError, match=f"{refused} at least 2 generations"):
        cls(output_dir="unused", num_generations=1, use_cpu=True, bf16=False)


@pytest.mark.parametrize(
    "kind", [(DynamicGRPOTrainer, DynamicGRPOConfig), (DynamicRLOOTrainer, DynamicRLOOConfig)], ids=["grpo", "rloo"]
)
def test_rewards_are_gathered_and_buffered_rows_are_shuffled_together(tmp_path, kind):
    trainer = dynamic(*kind, tmp_path, max_steps=1, per_device_train_batch_size=4, steps_per_generation=2, beta=0.1)
    tables, before = [], []
    weigh = trainer._weigh
    trainer._weigh = lambda batches: (
        tables.append(trainer._rewards),
        before.extend(map(dict, batches)),
        weigh(batches),
    )
    trainer.train()
    assert tables[0].shape == (8, 3)
    assert len(before) == 2
    rows = [int(row) for batch in before for row in batch["row"]]
    assert sorted(rows) == list(range(8))
    assert rows != list(range(8))
    first = [ids[0].item() / 261 for batch in before for ids in batch["completion_ids"]]
    assert first == pytest.approx(tables[0][rows, 2].tolist())
    assert len(trainer._logs["advantages"]) == 8
