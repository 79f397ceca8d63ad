"""A policy that calls tools as a script says, and a small corpus, for tests of tools."""

import json
import re

import tiny
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers.utils import get_json_schema

from align.configs.online import DynamicGRPOConfig
from align.data.prompts import Chat
from align.models.tiny import tiny_model, tiny_tokenizer
from align.scoring.completions import prompt_ids
from align.tools import hold_tools, make_tool
from align.trainers.online.multi_objective import DynamicGRPOTrainer

PASSAGES = ["The lamp of Ober is red.", "Frogs live in ponds.", "The lamp of Ruse is green, as is the door."]
ANSWERS = ["red", "ponds"]


def corpus(folder, passages=PASSAGES):
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in passages))
    return str(path)


def call(name="search", **arguments):
    return "<tool_call>" + json.dumps({"name": name, "arguments": arguments}) + "</tool_call>"


def scripted(trainer, turns):
    """Let row i of each generation batch say turns[i][0], then after each result what comes next; it never samples.

    Rows are told apart after their first turn by what they have said so far, which must differ.
    """
    tokenizer = trainer.processing_class
    asked = []

    def generate(prompt_ids, images, fields, num_generations, **_):
        texts = [tokenizer.decode(ids) for ids in prompt_ids]
        asked.append(texts)
        said = []
        for place, text in enumerate(texts):
            before = re.findall(r"<\|assistant\|>(.*?)<\|end\|>", text.replace('<tool_call>{"name": NAME', ""), re.S)
            script = turns[place] if not before else next(t for t in turns if t[: len(before)] == before)
            said.append(script[len(before)] + "<|end|>")
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in said], None

    trainer._generate_single_turn = generate
    return asked


def agent(tmp_path, *, rewards, turns, rows=None, tools=None, environments=None, **settings):
    """A tiny policy with two prompts of four completions each, which says what `turns` has."""
    tokenizer = tiny_tokenizer()
    hold_tools(tokenizer)
    model = tiny_model(tokenizer)
    model.config.max_position_embeddings = 4096
    rows = rows or [
        {"prompt": [{"role": "user", "content": text}], "answer": answer}
        for text, answer in zip(("which lamp", "where do frogs live"), ANSWERS, strict=True)
    ]
    trainer = DynamicGRPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=DynamicGRPOConfig(
            **{
                "output_dir": str(tmp_path / "run"), "max_steps": 1, "per_device_train_batch_size": 8,
                "max_completion_length": 600, "learning_rate": 0.01, "use_cpu": True, "bf16": False, "report_to": "none",
                "logging_steps": 1, "save_strategy": "no", "gradient_checkpointing": False, "disable_tqdm": True,
                "max_grad_norm": 0.0, "shared_prefix": "off", "num_generations": 4, "weighting": "fixed", "beta": 0.0,
                "max_tool_calling_iterations": 4, "shuffle_dataset": False, "seed": 0, **settings,
            }
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(**tiny.LORA),
        tools=tools,
        environment_factory=environments,
    )  # fmt: skip
    return trainer, scripted(trainer, turns)


LEARNT = {
    "lamp": [call(query="Ober"), "red"],
    "frogs": ["in ponds"],
    "bad": [call("nope", q="a"), "sad"],
    "both": [call(query="Ruse"), call(query="frogs"), "two"],
}
"""What `caller` says to each question, turn by turn; "lamp" finds what it says, "bad" calls what is not there."""
ANSWERS_LEARNT = {"lamp": "red", "frogs": "ponds", "bad": None, "both": "green"}
RESULTS = {"nope": "{'error': 'Tool nope not found.'}"}


SURE = 0.6
"""Probability of the least likely token of what the caller has learnt: greedy answers are then the same on every CPU."""


def caller(folder):
    """A tiny model that has learnt by heart to call a search, with its tokenizer, saved in `folder`/caller."""
    tokenizer = tiny_tokenizer()
    hold_tools(tokenizer)
    search = make_tool("search", path=corpus(folder))
    model = tiny_model(tokenizer)
    model.config.max_position_embeddings = 1024
    rows = []
    for question, turns in LEARNT.items():
        prompt = Chat([{"role": "user", "content": question}], {"tools": [get_json_schema(search)]})
        ids = prompt_ids(tokenizer, prompt)
        row = [(token, False) for token in ids]
        for turn in turns:
            row += [(token, True) for token in encoded(tokenizer, f"{turn}<|end|>")]
            if turn.startswith("<tool_call>"):
                asked = json.loads(turn.removeprefix("<tool_call>").removesuffix("</tool_call>"))
                found = RESULTS.get(asked["name"]) or search(**asked["arguments"])
                answer = f"<|user|><tool_response>{found}</tool_response><|end|><|assistant|>"
                row += [(token, False) for token in encoded(tokenizer, answer)]
        rows.append(row)
    width = max(map(len, rows))
    rows = [row + [(0, False)] * (width - len(row)) for row in rows]
    ids = torch.tensor([[token for token, _ in row] for row in rows])
    labels = torch.tensor([[token if own else -100 for token, own in row] for row in rows])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.015)
    own = labels[:, 1:] != -100
    for _ in range(1000):
        out = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels)
        logps = out.logits.detach()[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        if float(logps[own].min().exp()) > SURE:
            break
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    else:
        raise AssertionError("the caller has not learnt its turns")
    model.save_pretrained(str(folder / "caller"))
    tiny_tokenizer().save_pretrained(str(folder / "caller"))
    return folder / "caller"


def encoded(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]
