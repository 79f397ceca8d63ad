"""What rows hand to the chat template reaches training, evaluation and sampling, or is refused by name."""

import json

import pytest
import tiny
from datasets import Dataset
from peft import LoraConfig
from tiny import QWEN

from align import DPOConfig, DPOTrainer, SRPOConfig, SRPOTrainer, SupervisedConfig, SupervisedTrainer
from align.check import templates
from align.check.templates import inspect_templates
from align.data import DataConfig, DataSource, load_data
from align.data.audit.duplicates import digests
from align.data.audit.encoding import encode_all
from align.data.audit.templates import inspect_template
from align.data.prompts import prompt_of
from align.data.rows import tables
from align.models.tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer
from align.sampling.store import prompt_digest
from align.scoring.completions import completion_ids, prompt_ids


def tokenizer(template=QWEN):
    made = tiny_tokenizer()
    made.chat_template = template
    return made


def tool(name, **properties):
    return {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}


def row(i, **change):
    return {
        "prompt": [{"role": "user", "content": f"q{i}"}],
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": [{"role": "assistant", "content": "bad"}],
    } | change


CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
}
ROWS = [
    row(0, tools=[tool("f", x={"type": "string"})], chat_template_kwargs={"enable_thinking": False}),
    row(1, tools=json.dumps([tool("g", y={"type": "number"})])),
    row(2, chosen=[CALL]),
    row(3, rejected=[{"role": "assistant", "content": "bad", "reasoning_content": "hm"}]),
]  # fmt: skip


def loaded(tmp_path, rows, kind="pairs", **settings):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return load_data(DataConfig(DataSource(str(path), **settings)), rows=kind).train


def rendered(prompt, answer, tools=None, **kwargs):
    made = tokenizer()
    alone = made.apply_chat_template(prompt, tools=tools, add_generation_prompt=True, tokenize=False, **kwargs)
    whole = made.apply_chat_template([*prompt, *answer], tools=tools, tokenize=False, **kwargs)
    assert whole.startswith(alone)
    return alone, whole.removeprefix(alone)


def expected(index, side="chosen"):
    """What a template makes of a row of the file, keys that other rows have aside."""
    each = ROWS[index]
    tools = each.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) else tools
    return rendered(each["prompt"], each[side], tools, **each.get("chat_template_kwargs", {}))


def test_trainers_audits_evaluation_and_sampling_see_the_same_tokens(tmp_path):
    data, made = loaded(tmp_path, ROWS), tokenizer()
    args = tiny.arguments(DPOConfig, tmp_path)
    settings = {"model": tiny_model(made), "processing_class": made, "peft_config": LoraConfig(**tiny.LORA)}
    trained = DPOTrainer(args=args, train_dataset=data, **settings).train_dataset
    audited = list(encode_all(data, made))
    for index, each in enumerate(data.to_list()):
        prompt, chosen = expected(index)
        assert made.decode(trained[index]["prompt_ids"]) == made.decode(audited[index].prompt) == prompt
        assert made.decode(trained[index]["chosen_ids"]) == made.decode(audited[index].chosen) == chosen
        assert made.decode(trained[index]["rejected_ids"]) == expected(index, "rejected")[1]
        assert made.decode(prompt_ids(made, prompt_of(each))) == prompt
        ids, begin = completion_ids(made, prompt_of(each), each["chosen"])
        assert (made.decode(ids[:begin]), made.decode(ids[begin:])) == (prompt, chosen)


def test_revisions_and_completions_have_the_tools_too(tmp_path):
    made = tokenizer()
    settings = {"model": tiny_model(made), "processing_class": made, "peft_config": LoraConfig(**tiny.LORA)}
    args = tiny.arguments(SRPOConfig, tmp_path)
    revised = SRPOTrainer(args=args, train_dataset=loaded(tmp_path, ROWS[:2]), **settings).train_dataset
    assert '"name": "f"' in made.decode(revised[0]["prompt_ids"])
    rows = [{"prompt": each["prompt"], "completion": each["chosen"], "tools": each["tools"]} for each in ROWS[:2]]
    args = SupervisedConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False
    )
    settings["model"] = tiny_model(made)
    learnt = SupervisedTrainer(args=args, train_dataset=loaded(tmp_path, rows, "completions"), **settings).train_dataset
    assert '"name": "g"' in made.decode(learnt[1]["input_ids"])


def test_prompts_with_other_tools_are_other_prompts(tmp_path):
    one, other = (row(0, tools=[tool(name)]) for name in "fg")
    data = loaded(tmp_path, [one, other | {"chosen": one["rejected"], "rejected": one["chosen"]}])  # no contradiction
    assert len(set(digests(data).prompt.tolist())) == 2
    prompts = [prompt_of(each) for each in data.to_list()]
    assert prompt_digest(prompts[0]) != prompt_digest(prompts[1])
    assert prompt_digest(prompt_of({"prompt": one["prompt"]})) == prompt_digest(one["prompt"])


@pytest.mark.parametrize(
    ("change", "told", "ignore"),
    [
        ({"tools": [tool("f")]}, "tools: the model's chat template takes no notice", "tools"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "'enable_thinking'", "chat_template_kwargs"),
        ({"chosen": [{"role": "assistant", "content": "a", "tool_calls": CALL["tool_calls"]}]}, "'tool_calls'", "tool_calls"),
        ({"rejected": ROWS[3]["rejected"]}, "messages with 'reasoning_content'", "reasoning_content"),
    ],
)  # fmt: skip
def test_what_the_template_does_not_render_is_refused_by_name(tmp_path, change, told, ignore):
    rows, plain = [row(0), row(1, **change)], tokenizer(CHAT_TEMPLATE)
    data = loaded(tmp_path, rows)
    (finding,) = inspect_templates({"data.train": data}, plain)
    assert (finding.level, finding.rule, finding.where) == ("error", "not-rendered", "data.train")
    assert told in finding.message
    assert f"`ignore: [{ignore}]`" in finding.remedy
    assert inspect_templates({"data.train": loaded(tmp_path, rows, ignore=[ignore])}, plain) == []
    assert inspect_templates({"data.train": data}, tokenizer()) == []


@pytest.mark.parametrize("beside", [{}, {"tools": [tool("f")]}], ids=["roles alone", "tools"])
def test_the_first_row_of_each_shape_is_rendered(tmp_path, monkeypatch, beside):
    """By roles, in all slices; a shape that the template refuses is told with its row's number."""
    monkeypatch.setattr(templates, "SLICE", 2)
    monkeypatch.setattr(tables, "SLICE", 2)
    system = {"prompt": [{"role": "system", "content": "s"}, *row(0)["prompt"]]}
    rows = [row(n, **(system if n in (3, 5) else {}), **beside) for n in range(6)]
    shapes = dict(templates._shapes(loaded(tmp_path, rows)))
    assert [(shape[0], number) for shape, (number, _, asks) in shapes.items() if asks] == [
        (("user",), 1),
        (("system", "user"), 4),
    ]
    assert {len(shape[0]) for shape in shapes} == {1, 2, 3}
    other = row(0, rejected=[{"role": "tool", "content": "r"}], **beside)
    shapes = dict(templates._shapes(Dataset.from_list([row(0, **beside), row(1, **beside), other])))
    assert [number for shape, (number, *_) in shapes.items() if shape[0] == ("user", "tool")] == [3]


def test_plain_text_on_a_chat_model_is_said_plainly():
    text = Dataset.from_list([{"prompt": "q ", "chosen": "a", "rejected": "b"}])
    (finding,) = inspect_templates({"data.train": text}, tokenizer())
    assert (finding.level, finding.rule) == ("warning", "plain-text-on-chat-model")
    assert "data.as_messages=true" in finding.remedy
    assert inspect_template(text, tokenizer(None), where="x") == []
    written = Dataset.from_list([{"prompt": "<|user|>q<|end|><|assistant|>", "chosen": "a", "rejected": "b"}])
    assert inspect_template(written, tokenizer(), where="x") == []
