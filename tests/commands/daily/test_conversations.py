"""Rows of several turns with tools and reasoning reach training, evaluation and chat as the template renders them."""

import io
import json

import tiny

import align
from align import cli
from align.models.tiny import tiny_model, tiny_tokenizer

TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"properties": {"place": {"type": "string"}}}}}
]
CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"place": "Oslo"}}}]
RECIPE = """
model: {{model_name_or_path: ./model, dtype: float32}}
{begun}
data:
  train: {{path: ./{rows}.jsonl{how}}}
  eval: {{held: {{path: ./{rows}-held.jsonl{how}}}}}
train: {{output_dir: runs/{name}, max_steps: 2, per_device_train_batch_size: 2, learning_rate: 1.0e-2, use_cpu: true, bf16: false,
        gradient_checkpointing: false, logging_steps: 1, save_strategy: 'no', report_to: none, disable_tqdm: true, max_length: 400}}
eval: {{generate: {{prompts: 3, max_new_tokens: 6}}}}
"""


def asked(i):
    return [
        {"role": "user", "content": f"how is day {i}"},
        {"role": "assistant", "content": "", "tool_calls": CALL},
        {"role": "tool", "content": f"{i} degrees"},
    ]


def said(content, thought):
    return {"role": "assistant", "content": content, "reasoning_content": thought}


def write(folder, name, method, rows, begun, how=""):
    for part, some in (("", rows[:4]), ("-held", rows[4:])):
        (folder / f"{method}{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    text = RECIPE.format(begun=begun, rows=method, name=name, how=how)
    (folder / f"{name}.yaml").write_text(f"method: {method}\n{text}")


def test_turns_tools_and_reasoning_go_all_the_way(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tiny.QWEN
    tokenizer.save_pretrained("model")
    tiny_model(tokenizer).save_pretrained("model")
    turns = [{"messages": [*asked(i), said(f"it is {i}", f"I read {i}")], "tools": TOOLS} for i in range(7)]
    pairs = [
        {
            "prompt": asked(i),
            "chosen": [said("good", f"I read {i}")],
            "rejected": [said("bad", "no idea")],
            "tools": TOOLS,
        }
        for i in range(7)
    ]
    lora = "lora: {r: 4, lora_alpha: 8, target_modules: all-linear}"
    write(tmp_path, "sft", "sft", turns, lora, ", layout: turns")
    write(tmp_path, "dpo", "dpo", pairs, "start: {adapter: runs/sft}")

    # both of the assistant's turns are learnt, each after what was said before, the call and the thought with them
    rows = align.run("sft.yaml").trainer.train_dataset
    learnt = [tokenizer.decode([label for label in row["labels"] if label >= 0]) for row in rows]
    assert len(learnt) == 8
    assert '"name": "weather", "arguments": {"place": "Oslo"}' in learnt[0]
    assert learnt[1].startswith("(I read 0)it is 0")
    assert "0 degrees" in tokenizer.decode(rows[1]["input_ids"])

    row = align.run("dpo.yaml").trainer.train_dataset[0]
    prompt = tokenizer.decode(row["prompt_ids"])
    assert prompt.count('"name": "weather"') == 2  # the tool and its call
    assert prompt.endswith("<|tool|>0 degrees<|end|><|assistant|>")
    assert tokenizer.decode(row["chosen_ids"]).startswith("(I read 0)good")
    assert tokenizer.decode(row["rejected_ids"]).startswith("(no idea)bad")

    # the same prompt is sampled from and scored
    seen = []
    original = type(tokenizer).apply_chat_template

    def rendered(self, conversation, **kw):
        seen.append((conversation, kw.get("tools"), kw.get("add_generation_prompt", False)))
        return original(self, conversation, **kw)

    monkeypatch.setattr(type(tokenizer), "apply_chat_template", rendered)
    assert cli.main(["eval", "runs/dpo"]) == 0
    ours = [(turns, tools, asks) for turns, tools, asks in seen if any(turn["role"] == "tool" for turn in turns)]
    assert all(tools == TOOLS for _, tools, _ in ours)
    assert {len(turns) for turns, _, asks in ours if asks} == {3}
    report = json.loads((tmp_path / "runs" / "dpo" / "report.json").read_text())
    assert "held/ranking_accuracy/implicit_reward" in json.dumps(report)
    answers = [json.loads(line) for line in (tmp_path / "runs" / "dpo" / "responses.jsonl").read_text().splitlines()]
    assert {answer["prompt"][-1]["content"] if isinstance(answer["prompt"], list) else "" for answer in answers} == {
        "4 degrees", "5 degrees", "6 degrees",
    }  # fmt: skip

    monkeypatch.setattr("sys.stdin", io.StringIO("how is it\nand then\n"))
    capsys.readouterr()
    seen.clear()
    assert cli.main(["chat", "runs/dpo", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.count("(cut off after --max-new-tokens 4)") == 2
    assert {len(turns) for turns, _, asks in seen if asks} == {1, 3}  # the second turn has the first and its answer
