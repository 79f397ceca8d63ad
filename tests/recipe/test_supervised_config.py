"""Settings of supervised training that contradict each other or would be ignored are refused, all at once."""

import pytest
import supervised_worker as small
from datasets import Dataset
from peft import LoraConfig, get_peft_model

from align.configs.common import ConfigError
from align.configs.supervised import PRESETS, SupervisedConfig
from align.losses.token_objectives import OBJECTIVES
from align.models.tiny import tiny_model, tiny_tokenizer
from align.trainers.completions.supervised import SupervisedTrainer


def config(**kw):
    return SupervisedConfig(**{"output_dir": "x", "use_cpu": True, "bf16": False} | kw)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss_type": "dft"}, "loss_type: not honoured here, got 'dft'; name the loss in `objective`"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: not honoured here"),
        ({"assistant_only_loss": True}, "assistant_only_loss: not honoured here"),
        ({"truncation_mode": "keep_end"}, "truncation_mode: not honoured here"),
        ({"dataset_kwargs": {"skip_prepare_dataset": True}}, "dataset_kwargs: not honoured here"),
        ({"average_tokens_across_devices": False}, "average_tokens_across_devices: not honoured here"),
        ({"router_aux_loss_coef": 0.1}, "router_aux_loss_coef: not honoured here"),
        ({"objective": {}}, "objective: must name objectives and their weights"),
        ({"objective": {"nl": 1.0}}, "objective.nl: unknown; did you mean 'nll'?"),
        ({"objective": {"nll": -1.0}}, "objective.nll: must be a finite number and not negative, got -1.0"),
        ({"objective": {"nll": float("inf")}}, "objective.nll: must be a finite number"),
        ({"objective": {"nll": True}}, "objective.nll: must be a finite number and not negative, got True"),
        ({"objective": {"nll": 0.0}}, "objective: every weight is 0"),
        ({"rwr_beta": 2.0}, "rwr_beta: only objective 'rwr' has it, got 2.0; leave it out"),
        ({"awr_max_weight": 2.0}, "awr_max_weight: only objective 'awr' has it, got 2.0; leave it out"),
        ({"value_learning_rate": 0.1}, "value_learning_rate: only objective 'awr' has it, got 0.1; leave it out"),
        ({"objective": {"awr": 1.0}, "awr_beta": -1.0}, "awr_beta: must be positive and finite, got -1.0"),
        ({"objective": {"awr": 1.0}, "value_learning_rate": 0.0}, "value_learning_rate: must be positive and finite"),
        ({"objective": {"awr": 1.0}, "packing": True}, "packing: objective 'awr' judges rows one by one"),
        ({"objective": {"awr": 1.0}, "fsdp": "full_shard"}, "fsdp: objective 'awr' trains a value head that is not"),
        ({"fsft_divergence": "total_variation"}, "fsft_divergence: only objective 'fsft' has it"),
        ({"unlikelihood_alpha": 2.0, "objective": {"nll": 1.0, "unlikelihood": 0.0}}, "only objective 'unlikelihood'"),
        ({"objective": {"rwr": 1.0}, "rwr_beta": 0.0}, "rwr_beta: must be positive and finite, got 0.0"),
        ({"objective": {"rwr": 1.0}, "rwr_max_weight": float("inf")}, "rwr_max_weight: must be positive and finite"),
        ({"objective": {"fsft": 1.0}, "fsft_beta": -1.0}, "fsft_beta: must be positive and finite, got -1.0"),
        ({"objective": {"fsft": 1.0}, "fsft_divergence": "kl"}, "fsft_divergence: must be 'total_variation' or"),
        ({"objective": {"unlikelihood": 1.0}, "unlikelihood_alpha": -1.0}, "unlikelihood_alpha: must be finite and not"),
        ({"objective": {"unlikelihood": 1.0}, "unlikelihood_threshold": float("nan")}, "unlikelihood_threshold: must be"),
        ({"objective": {"poft": 1.0}, "packing": True}, "packing: objective 'poft' judges rows one by one"),
        ({"objective": {"rwr": 1.0}, "padding_free": True}, "padding_free: objective 'rwr' judges rows one by one"),
        ({"objective": {"fsft": 1.0}, "eval_packing": True}, "eval_packing: objective 'fsft' judges rows one by one"),
        ({"fsdp": "full_shard"}, "fsdp: accelerate does not shard on CPUs"),
        ({"objective": {"ref_kl": 1.0}, "fsdp": "full_shard"}, "fsdp: objective 'ref_kl' reads the whole output head"),
        ({"train_sampling_strategy": "batch_rebalance"}, "train_sampling_strategy: 'batch_rebalance' needs"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size: must be at least 1, got 0"),
        ({"max_skipped_steps": 0}, "max_skipped_steps: must be at least 1"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, told):
    with pytest.raises(ConfigError, match=told.replace("?", r"\?")):
        config(**settings)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        config(loss_type="dft", objective={"nl": 1.0, "poft": -1.0}, learning_rate=-1.0)
    starts = [line.partition(":")[0] for line in str(error.value).splitlines()]
    assert starts == ["loss_type", "objective.nl", "objective.poft", "learning_rate"]


def test_packing_is_allowed_where_only_tokens_count():
    assert config(packing=True, objective={"dft": 1.0}).packing
    assert config(router_aux_loss_coef=0.0).router_aux_loss_coef == 0.0


def test_what_an_objective_needs_is_known_before_any_data():
    assert config().columns() == ()
    both = config(objective={"poft": 1.0, "rwr": 1.0, "unlikelihood": 1.0, "nll": 0.0})
    assert both.columns() == ("aligned_logp", "reward")
    assert both.active() == {"poft": 1.0, "rwr": 1.0, "unlikelihood": 1.0}
    assert not both.needs_reference()
    assert config(objective={"dft": 1.0, "ref_kl": 0.05}).needs_reference()
    assert not config(objective={"dft": 1.0, "ref_kl": 0.0}).needs_reference()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_configuration(name):
    title, arxiv, preset = PRESETS[name]
    assert title
    assert arxiv is None or len(arxiv) == 10
    made = config(**preset)
    assert set(made.active()) <= set(OBJECTIVES)
    assert made.problems() == []


# --- the trainer's own refusals ----------------------------------------------------------------


def test_a_missing_column_is_named_with_its_data_set(tmp_path):
    data = small.rows().remove_columns(["reward"])
    with pytest.raises(ValueError, match="SupervisedTrainer: train data: no column reward, which the objective reads"):
        small.trainer(tmp_path, objective={"rwr": 1.0}, data=data)
    with pytest.raises(ValueError, match="SupervisedTrainer: second data: no column reward"):
        small.trainer(tmp_path, objective={"rwr": 1.0}, eval_data={"first": small.rows(), "second": data})


def test_a_number_that_is_not_finite_is_named_with_its_row(tmp_path):
    rows = small.rows().to_list()
    rows[3]["aligned_logp"] = float("nan")
    with pytest.raises(ValueError, match="column 'aligned_logp': row 4 holds nan; mend or drop such rows"):
        small.trainer(tmp_path, objective={"poft": 1.0}, data=Dataset.from_list(rows))


def test_truth_values_are_no_rewards(tmp_path):
    data = small.rows().remove_columns("reward").add_column("reward", [True] * len(small.rows()))
    with pytest.raises(ValueError, match="column 'reward': row 1 holds True; mend or drop such rows"):
        small.trainer(tmp_path, objective={"rwr": 1.0}, data=data)


def test_a_reference_needs_an_adapter(tmp_path):
    tokenizer = tiny_tokenizer()
    for objective in ({"ref_kl": 1.0}, {"fsft": 1.0}):
        with pytest.raises(
            ValueError, match="the objective needs the reference, which is the model without its adapter"
        ):
            small.trainer(tmp_path, objective=objective, model=tiny_model(tokenizer))
    assert small.trainer(tmp_path, objective={"poft": 1.0}, model=tiny_model(tokenizer))


def test_a_head_that_the_kl_does_not_know_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a frozen output head; leave lm_head out"):
        small.trainer(tmp_path, objective={"ref_kl": 1.0}, lora={"modules_to_save": ["lm_head"]})
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    model.config.final_logit_softcapping = 30.0
    adapted = get_peft_model(model, LoraConfig(**small.tiny.LORA))
    with pytest.raises(ValueError, match="knows plain output heads, and this one has final_logit_softcapping"):
        small.trainer(tmp_path, objective={"ref_kl": 1.0}, model=adapted)


def test_what_would_be_ignored_is_refused(tmp_path):
    arguments = {
        "model": tiny_model(tiny_tokenizer()), "train_dataset": small.rows(), "processing_class": tiny_tokenizer(),
    }  # fmt: skip
    with pytest.raises(TypeError, match="args must be align.SupervisedConfig, got trl.SFTConfig"):
        SupervisedTrainer(args=small.arguments(small_config(), tmp_path), **arguments)
    with pytest.raises(ValueError, match="compute_metrics would need full logits"):
        SupervisedTrainer(args=config(output_dir=str(tmp_path)), compute_metrics=lambda p: {}, **arguments)
    made = small.trainer(tmp_path)
    with pytest.raises(ValueError, match="logits, which are never built; measure with"):
        made.predict(made.train_dataset)
    with pytest.raises(ValueError, match="SupervisedTrainer: logits are never built; use `evaluate`"):
        made.compute_loss(made.model, {}, return_outputs=True)


def small_config():
    from trl import SFTConfig  # noqa: PLC0415 - only to be refused

    return SFTConfig
