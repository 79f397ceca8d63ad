"""What cannot be trained as it is said is refused by check and by training alike, before a weight is loaded."""

import json
import shutil
from pathlib import Path

import pytest
from recipes_under_test import GOOD, load
from transformers import AutoConfig, AutoTokenizer

from align import building, cli
from align import train as training
from align.check import refusals
from align.check.machine import Machine, asked_processes
from align.check.refusals import look, refuse
from align.data import load_data
from align.errors import RunError
from align.models.loading import resolve_model_path
from align.recipe.loading import load_recipe

CPU = Machine(installed=lambda name: True)
TEXT = GOOD + "  max_steps: 2\n  save_steps: 2\n  report_to: none\n"
ROWS = [
    {"prompt": [{"role": "user", "content": f"what is {n}"}],
     "chosen": [{"role": "assistant", "content": f"it is {n}"}],
     "rejected": [{"role": "assistant", "content": "nobody knows"}]}
    for n in range(10, 20)
]  # fmt: skip
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system \x1b[2J') }}{% endif %}"
    "{{ m.content }}{% endfor %}"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with rows, and models without weights that would take long to make."""
    home = tmp_path_factory.mktemp("refusals")
    asked = {"role": "system", "content": "be brief"}
    with_system = [{**row, "prompt": [asked, *row["prompt"]]} for row in ROWS]
    for name, rows in (("pairs", ROWS), ("system", with_system)):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = [{"prompt": row["prompt"], "answer": None} for row in ROWS]
    (home / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    base = Path(resolve_model_path("tiny-random"))
    for name, settings in {
        "small": {"vocab_size": 200},
        "tied": {"tie_word_embeddings": True},
        "gemma": {},
        "endless": {},
    }.items():
        shutil.copytree(base, home / name, copy_function=shutil.copyfile)
        config = json.loads((home / name / "config.json").read_text())
        (home / name / "config.json").write_text(json.dumps(config | settings))
    (home / "gemma" / "chat_template.jinja").write_text(NO_SYSTEM)
    settings = json.loads((home / "endless" / "tokenizer_config.json").read_text())
    (home / "endless" / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    return home


def refused(home, *overrides, text=TEXT, machine=CPU, **kw):
    recipe = load(home, text, *overrides)
    data = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts)
    with pytest.raises(RunError) as caught:
        refuse(recipe, {"data.train": data.train, **{f"data.eval.{k}": v for k, v in data.eval.items()}}, machine, **kw)
    return str(caught.value)


def model(home, name):
    return f"model.model_name_or_path={home / name}"


EVALUATES = ("train.eval_strategy=steps", "train.eval_steps=2")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((*EVALUATES, "data.holdout=0.3", "train.load_best_model_at_end=true"), "'loss' is never logged"),
        (EVALUATES, "there is no evaluation set"),
        (("train.max_length=3",), "each of the 10 prompts alone has max_length=3 tokens or more"),
        (("lora.target_modules=[nope]",), "the linear layers are called down_proj"),
        (("lora.target_parameters=[nope]",), "the model has no nope"),
        (("lora.modules_to_save=[nope]",), "the model has no nope"),
        (("lora.target_modules='(['",), "is no regular expression"),
        (("lora.lora_dropout=2.0", "train.disable_dropout=false"), "dropout probability"),
        (("lora.trainable_token_indices=[9999]",), "token 9999, and the model's embedding has"),
        (("train.learning_rate=5.0",), "no optimizer of these trains anything at such a rate"),
        (("train.max_steps=0",), "0 is one step for the Trainer"),
        (("train.save_steps=0",), "0 is no number of steps"),
        (("train.logging_steps=-1",), "-1 is no number of steps"),
        ((*EVALUATES, "data.holdout=0.3", "train.eval_delay=9"), "9, and the run ends at 2: it is never evaluated"),
        (
            ("train.dataloader_drop_last=true", "train.per_device_train_batch_size=64"),
            "10 rows are fewer than one batch",
        ),
        (("train.adam_beta1=1.5",), "Invalid beta parameter"),
        (("train.optim=galore_adamw",), "galore_torch"),
        (("train.lr_scheduler_kwargs={foo: 1}",), "unexpected keyword argument 'foo'"),
        (("train.lr_scheduler_type=polynomial", "train.lr_scheduler_kwargs={power: foo}"), "unsupported operand"),
        (("train.dataloader_num_workers=-1",), "num_workers option should be non-negative"),
        (("train.dataset_num_proc=-1",), "must not be negative"),
        (("train.pad_to_multiple_of=0",), "must be at least 1"),
        (("train.log_level=loud",), "'loud'"),
        (("train.gradient_checkpointing=true", "train.gradient_checkpointing_kwargs={foo: 1}"), "'foo'"),
        (("train.parallelism_config={cp_size: 2}",), "cp_size=2: context, sequence and tensor parallelism"),
        (("model.attn_implementation=foo",), "no model can be made of its configuration"),
        (("eval.gold_reward=relevance", "eval.generate={prompts: 4}"), "reads prompts, which an evaluation does not"),
        (("eval.instructions={path: nope.jsonl}", "eval.generate={prompts: 4}"), "nope.jsonl: no such file"),
        (("eval.judges={j: {kind: reward_model, path: nope}}", "eval.generate={prompts: 4}"), "nope: no "),
    ],
)
def test_settings_that_end_a_run_later_are_refused_before(home, overrides, told):
    message = refused(home, *overrides)
    assert told in message
    assert all(line.startswith(("error: ", "warning: ")) for line in message.splitlines())


def test_what_is_right_is_not_refused(home):
    recipe = load(home, TEXT, "data.holdout=0.3", *EVALUATES, "train.load_best_model_at_end=true",
                  "train.metric_for_best_model=holdout_loss")  # fmt: skip
    data = load_data(recipe.data)
    assert not refuse(recipe, {"data.train": data.train, "data.eval.holdout": data.eval["holdout"]}, CPU)


def test_tokens_without_an_embedding_are_refused_with_their_rows(home):
    message = refused(home, model(home, "small"))
    assert "tokens-without-embedding: token id" in message
    assert "embedding has 200 rows (rows 1, 2, 3" in message


def test_a_tokenizer_without_an_end_is_refused(home):
    assert "names no end-of-sequence token" in refused(home, model(home, "endless"))


def test_trained_rows_of_a_tied_embedding_are_refused(home):
    assert "the output layer would get trained rows" in refused(
        home, model(home, "tied"), "lora.trainable_token_indices=[1, 2]"
    )


def test_a_template_that_refuses_a_role_is_told_without_what_steers_a_terminal(home):
    message = refused(home, model(home, "gemma"), "data.train.path=./system.jsonl".replace("./", f"{home}/"))
    assert "the chat template refuses system user: 'TemplateError: no system" in message
    assert "\x1b" not in message


def test_what_the_template_passes_over_is_refused_by_training_and_check_alike(home, capsys):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    (home / "tools.jsonl").write_text("".join(json.dumps({**row, "tools": tools}) + "\n" for row in ROWS))
    message = refused(home, f"data.train.path={home / 'tools.jsonl'}")
    assert message.startswith("error: data.train: not-rendered: tools: the model's chat template takes no notice")
    load(home, TEXT)
    assert cli.main(["check", str(home / "r.yaml"), f"data.train.path={home / 'tools.jsonl'}"]) == 1
    assert "not-rendered: tools" in capsys.readouterr().out


def test_a_template_that_never_ends_with_what_rows_give_it_is_refused(home):
    slow = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    shutil.copytree(home / "gemma", home / "slow", dirs_exist_ok=True)
    (home / "slow" / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if fast is defined %}" + slow + "{% endif %}"
    )
    rows = [{**row, **({"chat_template_kwargs": {"fast": True}} if n == 9 else {})} for n, row in enumerate(ROWS)]
    (home / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = load(home, TEXT, model(home, "slow"), f"data.train.path={home / 'given.jsonl'}")
    with pytest.raises(RunError, match="the chat template cannot be used: it takes more than"):
        refuse(recipe, {"data.train": load_data(recipe.data).train}, CPU)


def test_plain_text_on_a_chat_model_is_said_and_trained_on(home, caplog):
    rows = [{"prompt": f"what is {n} ", "chosen": f"it is {n}", "rejected": "nobody knows"} for n in range(10)]
    (home / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = load(home, TEXT, f"data.train.path={home / 'plain.jsonl'}")
    refuse(recipe, {"data.train": load_data(recipe.data).train}, CPU)
    assert "data.train: plain-text-on-chat-model: the rows are plain text" in caplog.text


def online(home, *words):
    return ["data.train.path=" + str(home / "prompts.jsonl"), f"train.output_dir={home / 'online'}", *words]


def test_fewer_prompts_than_a_generation_batch_are_refused(home):
    recipe = load_recipe("online/tiny-grpo", online(home, "train.per_device_train_batch_size=128", "rewards=[clarity]"))
    data = load_data(recipe.data, rows="prompts")
    with pytest.raises(RunError, match="and there are 10: no step would be taken"):
        refuse(recipe, {"data.train": data.train}, CPU)


def test_rewards_that_read_nothing_or_are_not_allowed_are_refused(home):
    recipe = load_recipe("online/tiny-grpo", online(home, "rewards=[correctness, 'os:getcwd']"))
    data = load_data(recipe.data, rows="prompts")
    with pytest.raises(RunError) as caught:
        refuse(recipe, {"data.train": data.train}, CPU)
    assert "'answer', which the reward 'correctness' reads, is empty in 10 of 10 rows" in str(caught.value)
    assert "add --allow os:getcwd" in str(caught.value)


def test_check_takes_what_is_allowed(home, capsys):
    words = online(home, "rewards=['scipy.stats:trim_mean']")
    assert cli.main(["check", "online/tiny-grpo", *words]) == 1
    assert "add --allow scipy.stats:trim_mean" in capsys.readouterr().out
    cli.main(["check", "online/tiny-grpo", *words, "--allow", "scipy.stats:trim_mean"])
    assert "--allow" not in capsys.readouterr().out


def test_an_adapter_of_another_shape_is_not_resumed(home):
    run = training.run(load(home, TEXT, f"train.output_dir={home / 'run'}", "train.use_cpu=true"))
    checkpoint = next(run.path.glob("checkpoint-*"))
    recipe = load(home, TEXT)
    sets = {"data.train": load_data(recipe.data).train}
    assert not refuse(recipe, sets, CPU, checkpoint=checkpoint)
    assert "its adapter is not the recipe's" in refused(home, "lora.r=8", checkpoint=checkpoint)


def test_training_refuses_what_check_does_before_weights_are_loaded(home, monkeypatch, capsys):
    """And both ask the one function."""
    monkeypatch.setattr(building.models, "load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    words = [str(home / "r.yaml"), "train.save_steps=0", f"train.output_dir={home / 'not-begun'}"]
    load(home, TEXT)
    assert training.main(words) == 2
    said = capsys.readouterr().err
    assert cli.main(["check", *words]) == 1
    assert said.strip() in capsys.readouterr().out


def test_a_precision_of_a_gpu_is_read_anywhere_and_said(home, capsys):
    text = TEXT.replace("  bf16: false\n", "").replace("  use_cpu: true\n", "")
    recipe = load_recipe(_written(home, text), anywhere=True)
    assert recipe.set_aside == ("bf16",)
    assert "bf16" not in recipe.raw["train"]
    found = {f.rule: f for f in look(recipe, {"data.train": load_data(recipe.data).train}, CPU).findings}
    assert found["gpu-missing"].level == "warning"
    assert cli.main(["check", str(home / "gpu.yaml")]) == 0
    assert "ready, but not on this machine" in capsys.readouterr().out
    assert cli.main(["train", str(home / "gpu.yaml")]) == 2
    assert "bf16" in capsys.readouterr().err


def _written(home, text):
    (home / "gpu.yaml").write_text(text)
    return home / "gpu.yaml"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_of_the_launcher_is_the_recipe_s(home, precision):
    message = refused(home, machine=Machine(precision=precision, installed=lambda name: True))
    assert f"the launcher says mixed_precision: {precision}, and the recipe trains in no" in message


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("parallelism_config: {parallelism_config_cp_size: 2}", "cp_size=2"),
        ("tp_config: {tp_size: 4}", "tp_size=4"),
        ("parallelism_config: {parallelism_config_cp_size: 1}", None),
    ],
)
def test_parallelism_within_rows_is_read_from_the_launcher(tmp_path, monkeypatch, lines, told):
    (tmp_path / "a.yaml").write_text(lines)
    assert Machine.here(tmp_path / "a.yaml").parallel == told
    if told:
        name, size = told.split("=")
        monkeypatch.setenv(f"PARALLELISM_CONFIG_{name.upper()}", size)
        assert Machine.here().parallel == told


def test_a_configuration_larger_than_its_weights_is_refused(home):
    shutil.copytree(home / "gemma", home / "deep", dirs_exist_ok=True)
    config = AutoConfig.from_pretrained(home / "deep")
    config.num_hidden_layers = 40
    config.save_pretrained(home / "deep")
    assert "and its files hold" in refused(home, model(home, "deep"))
    settings = json.loads((home / "deep" / "config.json").read_text())
    (home / "deep" / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 10**9}))
    assert "'num_hidden_layers' is 1e+09" in refused(home, model(home, "deep"))


def test_the_tokenizer_of_the_home_is_what_the_tests_think(home):
    assert len(AutoTokenizer.from_pretrained(home / "small")) > 200
    assert refusals.TRAIN == "data.train"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("python /bin/accelerate launch --cpu --num_processes 2 -m align.train", 2),
        ("python -m accelerate.commands.launch --num-processes=4 -m align.train", 4),
        ("accelerate launch -m align.train", None),
        ("bash --num_processes 2", None),
    ],
)
def test_processes_that_a_launcher_does_not_start_are_missed(home, words, asked):
    assert asked_processes(words.split()) == asked
    if asked:
        assert f"asked for {asked} processes and has started one" in refused(
            home, machine=Machine(asked=asked, installed=lambda name: True)
        )
