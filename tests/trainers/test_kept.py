"""What trainers write beside weights: cards, no pickle, checkpoints that TRL wrote, and what is sent to a hub."""

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from huggingface_hub.utils import filter_repo_objects
from peft import LoraConfig
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer as TRLDPOTrainer

import align
from align.errors import RunError
from align.models.tiny import tiny_model, tiny_tokenizer
from align.runs.checkpoints import MANIFEST, check
from align.trainers.shared.cards import name_method


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two checkpoints from a model in a folder, and the hub that it was uploaded to."""
    root = tmp_path_factory.mktemp("kept")
    tiny_model(tiny_tokenizer()).save_pretrained(root / "base")
    model = type(tiny_model(tiny_tokenizer())).from_pretrained(root / "base")
    hub = Hub()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.trainer.hf_api", lambda: hub)
        patch.setattr("huggingface_hub.HfApi._validate_yaml", lambda self, *a, **kw: None)
        made = align.PairwiseTrainer(
            model=model,
            args=tiny.arguments(
                align.PairwiseConfig, root / "out", objective={"ipo": 1.0}, max_steps=2, save_strategy="steps", save_steps=1,
                save_total_limit=2, push_to_hub=True, hub_model_id="me/mine", hub_strategy="all_checkpoints",
                hub_always_push=True,
            ),
            train_dataset=tiny.pairs(),
            processing_class=tiny_tokenizer(),
            peft_config=LoraConfig(**tiny.LORA),
        )  # fmt: skip
        (root / "out" / "skipped" / "step-1").mkdir(parents=True)
        (root / "out" / "skipped" / "step-1" / "batch.pt").touch()
        (root / "out" / "tensorboard").mkdir()
        (root / "out" / "tensorboard" / "events.out.tfevents.1.host").touch()
        (root / "out" / ".lock").touch()
        made.train()
        hub.whole = made.push_to_hub()
    made.args.push_to_hub = False
    made.save_model(str(root / "adapter"))
    return root, made, hub


class Hub:
    """Keeps the names of what would be uploaded to each place of a repository, and the steps of whole checkpoints."""

    def __init__(self):
        self.files, self.steps, self.whole = {}, [], None

    def create_repo(self, name, **_):
        return SimpleNamespace(repo_id=name)

    def upload_folder(self, *, folder_path, path_in_repo="", ignore_patterns=(), run_as_future=False, **_):
        folder = Path(folder_path)
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        self.files.setdefault(path_in_repo, set()).update(filter_repo_objects(names, ignore_patterns=ignore_patterns))
        if folder.name.startswith("checkpoint-"):
            self.steps.append(check(folder)["step"])
        done = Future()
        done.set_result("uploaded")
        return done if run_as_future else "uploaded"


def test_what_is_uploaded_can_be_resumed(run):
    _, _, hub = run
    assert hub.steps == [1, 2]
    assert {"optimizer.pt", "rng_state.pth", MANIFEST} <= hub.files["checkpoint-2"]


def test_no_upload_holds_arguments_data_or_locks(run):
    _, _, hub = run
    assert hub.whole == "uploaded"
    assert sorted(hub.files) == ["", "checkpoint-1", "checkpoint-2"]
    for files in hub.files.values():
        assert "adapter_model.safetensors" in files
        assert not [
            name for name in files if "training_args" in name or name.startswith((".", "skipped", "tensorboard"))
        ]


def test_no_pickle_of_arguments_is_left(run):
    root, _, _ = run
    assert list(root.rglob("training_args.bin")) == []
    assert (root / "adapter" / "adapter_model.safetensors").is_file()


def test_cards_name_method_and_paper_and_no_place_of_this_machine(run):
    root, made, _ = run
    made.create_model_card(model_name="mine", dataset_name=str(root / "base"))
    card = (root / "out" / "README.md").read_text()
    assert "Identity Preference Optimization, summed (Azar et al. 2023)" in card
    assert "https://huggingface.co/papers/2310.12036" in card
    assert "a fine-tuned version of base." in card
    for text in (card, (root / "adapter" / "README.md").read_text()):
        assert str(root) not in text
        assert "None" not in text


@pytest.mark.parametrize(
    ("config", "fields", "named", "paper"),
    [
        ("DPOConfig", {}, "Direct Preference Optimization", "2305.18290"),
        ("PairwiseConfig", {"objective": {"sigmoid": 1.0, "nll": 1.0}}, "Iterative Reasoning", "2404.19733"),
        ("PairwiseConfig", {"objective": {"ipo": 0.5, "nll": 1.0}}, "A weighted sum of pairwise objectives", None),
        ("SupervisedConfig", {"objective": {"dft": 1.0}}, "Dynamic Fine-Tuning", "2508.05629"),
        ("PreferenceModelConfig", {"dimension": 4, "tau": 0.1}, "General Preference Model", "2410.02197"),
        ("PreferenceModelConfig", {}, "Bradley-Terry reward model", None),
        ("ReinforceConfig", {}, "REINFORCE", "2501.03262"),
        ("DynamicGRPOConfig", {}, "GRPO on several rewards", "2509.11452"),
    ],
)
def test_every_method_is_named(config, fields, named, paper):
    trainer = object.__new__(getattr(align, config.replace("Config", "Trainer")))
    trainer.args = getattr(align, config)("unused", use_cpu=True, bf16=False, **fields)
    name_method(trainer)
    assert trainer._name.startswith(named)
    assert trainer._paper.get("id") == paper


def test_a_checkpoint_of_trl_is_told_and_gone_on_with_if_asked(tmp_path):
    kw = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    tiny.trainer(TRLDPOTrainer, TRLDPOConfig, tmp_path, **kw).train()
    assert not (tmp_path / "checkpoint-1" / MANIFEST).exists()
    ours = tiny.trainer(align.DPOTrainer, align.DPOConfig, tmp_path, **kw)
    with pytest.raises(RunError, match=r"by TRL's own trainers .* unsealed=True"):
        ours.train(str(tmp_path / "checkpoint-1"))
    ours.train(str(tmp_path / "checkpoint-1"), unsealed=True)
    assert ours.state.global_step == 2
    assert (tmp_path / "checkpoint-2" / MANIFEST).exists()
