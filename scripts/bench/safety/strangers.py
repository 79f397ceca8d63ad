"""Files of strangers that are pickled, bring code, are links, too large or never end: what `check` and `train` make of them.

Each input is put beside a sound recipe, model, adapter and data, and both commands are run on it. Counted are commands that
refuse it in words, that go on without it, that show a traceback, that run the stranger's code, and that take too long.

Run (about 6 minutes on one core): python scripts/bench/safety/strangers.py scripts/bench/results/strangers.json
"""

import argparse
import gzip
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from peft import LoraConfig, get_peft_model

from align.models.tiny import tiny_model, tiny_tokenizer

sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "helpers" / "workers"))
from forks import Commands

LONGEST = 120.0
LOOP = "{% for i in range(9999) %}" * 4 + "x" + "{% endfor %}" * 4
BAD_REGEX = "(.*)*!"
ROW = {"prompt": "what is two plus two", "chosen": "four", "rejected": "five"}


class Touch:
    """Says, when it is unpickled, that it was."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


class World:
    """A sound recipe with all that it names, to be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model, self.adapter = folder, folder / "model", folder / "adapter"
        self.data, self.recipe, self.ran = folder / "pairs.jsonl", folder / "recipe.yaml", folder / "ran"
        model, tokenizer = tiny_model(tiny_tokenizer()), tiny_tokenizer()
        model.save_pretrained(self.model)
        tokenizer.save_pretrained(self.model)
        get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(self.adapter))
        self.data.write_text("".join(json.dumps(ROW | {"prompt": f"{ROW['prompt']} {i}"}) + "\n" for i in range(8)))
        self.say()

    def say(self, **sections: Any) -> None:
        """Write the recipe, some of its sections anew."""
        recipe = {
            "method": "dpo",
            "model": {"model_name_or_path": str(self.model), "dtype": "float32"},
            "start": {"adapter": str(self.adapter)},
            "data": {"train": {"path": str(self.data)}},
            "train": {"output_dir": "run", "max_steps": 1, "use_cpu": True, "bf16": False, "report_to": "none"},
        }  # fmt: skip
        merged = {name: value for name, value in (recipe | sections).items() if value is not None}
        self.recipe.write_text(yaml.safe_dump(merged))

    def change(self, file: Path, **values: Any) -> None:
        """Some entries of a JSON file."""
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    def pickled(self, file: Path) -> None:
        """A pickle that runs code when it is opened."""
        file.write_bytes(pickle.dumps(Touch(self.ran)))

    def instead(self, file: Path, *, link: str | None = None) -> None:
        """A pipe, or a link, in the place of a file."""
        file.unlink()
        os.mkfifo(file) if link is None else file.symlink_to(link)

    def lora(self, **values: Any) -> None:
        """A new adapter in the place of the one to begin with."""
        self.say(start=None, lora={"r": 2, "target_modules": ["q_proj"]} | values)


def without_safetensors(world: World, name: str) -> None:
    """Pickled weights alone."""
    (world.model / "model.safetensors").unlink()
    world.pickled(world.model / name)


def shards(world: World, name: str) -> None:
    """An index whose weights are elsewhere or pickled."""
    (world.model / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": {"lm_head.weight": name}}
    (world.model / "model.safetensors.index.json").write_text(json.dumps(index))
    if name.endswith(".bin"):
        world.pickled(world.model / name)


def pickled_adapter(world: World) -> None:
    """The adapter's weights."""
    (world.adapter / "adapter_model.safetensors").unlink()
    world.pickled(world.adapter / "adapter_model.bin")


def no_tokenizer(world: World) -> None:
    """A pickle where a tokenizer should be."""
    for file in world.model.glob("tokenizer*"):
        file.unlink()
    world.pickled(world.model / "tokenizer.pkl")


def data_as(world: World, name: str, content: bytes) -> None:
    """Another file of data."""
    (world.folder / name).write_bytes(content)
    world.say(data={"train": {"path": str(world.folder / name)}})


def template(world: World, text: str) -> None:
    """The model's chat template, and data that need it."""
    for file in world.model.glob("chat_template*"):
        file.unlink()
    world.change(world.model / "tokenizer_config.json", chat_template=text)
    messages = {
        key: [{"role": "user" if key == "prompt" else "assistant", "content": value}] for key, value in ROW.items()
    }
    world.data.write_text("".join(json.dumps(messages) + "\n" for _ in range(8)))


def chain(world: World, count: int) -> None:
    """Recipes that extend one another."""
    for number in range(count):
        (world.folder / f"r{number}.yaml").write_text(f"extends: r{number + 1}.yaml\n")
    shutil.copy(world.recipe, world.folder / f"r{count}.yaml")
    world.recipe.write_text("extends: r0.yaml\n")


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MODEL, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
INPUTS: dict[str, dict[str, Callable[[World], object]]] = {
    "pickled": {
        "model as pytorch_model.bin": lambda w: without_safetensors(w, "pytorch_model.bin"),
        "model as .pt": lambda w: without_safetensors(w, "model.pt"),
        "beside the model's safetensors": lambda w: w.pickled(w.model / "pytorch_model.bin"),
        "shards": lambda w: shards(w, "part.bin"),
        "config names a .bin": lambda w: w.change(w.model / CONFIG, transformers_weights="adapter_model.bin"),
        "adapter": pickled_adapter,
        "beside the adapter's safetensors": lambda w: w.pickled(w.adapter / "adapter_model.bin"),
        "training_args.bin in the adapter": lambda w: w.pickled(w.adapter / "training_args.bin"),
        "tokenizer": no_tokenizer,
        "vocabulary beside the tokenizer": lambda w: w.pickled(w.model / "vocab.bin"),
        "data as .pkl": lambda w: data_as(w, "pairs.pkl", pickle.dumps(Touch(w.ran))),
        "data named .jsonl": lambda w: data_as(w, "other.jsonl", pickle.dumps(Touch(w.ran))),
    },
    "brings code": {
        "auto_map of a model": lambda w: w.change(w.model / CONFIG, auto_map={"AutoModelForCausalLM": "evil.Model"}),
        "auto_map of a tokenizer": lambda w: w.change(w.model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}),
        "kernel to download": lambda w: w.change(w.model / CONFIG, attn_implementation="evil/kernel"),
        "kernel in a part": lambda w: w.change(w.model / CONFIG, text_config={"_experts_implementation": "evil/k:f"}),
        "adapter that imports": lambda w: w.change(w.adapter / "adapter_config.json", megatron_config={"a": 1}, megatron_core="evil"),
        "adapter with auto_mapping": lambda w: w.change(w.adapter / "adapter_config.json", auto_mapping={"base_model_class": "os", "parent_library": "os"}),
        "tag in the recipe": lambda w: w.recipe.write_text(w.recipe.read_text() + f"x: !!python/object/apply:open ['{w.ran}', w]\n"),
        "trust_remote_code": lambda w: w.say(model={"model_name_or_path": str(w.model), "trust_remote_code": True}),
        "reward of a module": lambda w: w.say(eval={"generate": {"prompts": 2}, "gold_reward": "os:system"}, data={"train": {"path": str(w.data)}, "eval": {"e": {"path": str(w.data)}}}),
    },
    "links": {
        "weights to /dev/zero": lambda w: w.instead(w.model / MODEL, link="/dev/zero"),
        "weights to a text": lambda w: w.instead(w.model / MODEL, link="/etc/passwd"),
        "weights to themselves": lambda w: w.instead(w.model / MODEL, link=MODEL),
        "configuration to nothing": lambda w: w.instead(w.model / CONFIG, link="/nowhere"),
        "configuration to a text": lambda w: w.instead(w.model / CONFIG, link="/etc/passwd"),
        "tokenizer to a text": lambda w: w.instead(w.model / TOKENIZER, link="/etc/passwd"),
        "adapter to a text": lambda w: w.instead(w.adapter / "adapter_model.safetensors", link="/etc/passwd"),
        "adapter's settings to themselves": lambda w: w.instead(w.adapter / "adapter_config.json", link="adapter_config.json"),
        "data to themselves": lambda w: w.instead(w.data, link=w.data.name),
        "data to /dev/zero": lambda w: w.instead(w.data, link="/dev/zero"),
        "recipe to itself": lambda w: w.instead(w.recipe, link=w.recipe.name),
        "shards outside": lambda w: shards(w, "../outside.safetensors"),
    },
    "oversized": {
        "10**9 layers": lambda w: w.change(w.model / CONFIG, num_hidden_layers=10**9),
        "hidden size of 10**9": lambda w: w.change(w.model / CONFIG, hidden_size=10**9),
        "vocabulary of 10**12": lambda w: w.change(w.model / CONFIG, vocab_size=10**12),
        "configuration of 50 MB": lambda w: w.change(w.model / CONFIG, more="x" * 50_000_000),
        "configuration 100,000 deep": lambda w: (w.model / CONFIG).write_text("[" * 100_000),
        "adapter of rank 10**9": lambda w: w.change(w.adapter / "adapter_config.json", r=10**9),
        "row of 50 MB": lambda w: data_as(w, "big.jsonl", json.dumps(ROW | {"chosen": "x" * 50_000_000}).encode()),
        "row 100,000 deep": lambda w: data_as(w, "deep.jsonl", b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "packed data of 2 GB": lambda w: data_as(w, "bomb.jsonl.gz", gzip.compress(b" " * (2 << 30), 9)),
        "recipe of 10 MB": lambda w: w.recipe.write_text(w.recipe.read_text() + "x: " + "y" * 10_000_000 + "\n"),
        "aliases of aliases": lambda w: w.recipe.write_text(w.recipe.read_text() + LAUGHS),
        "1,500 recipes": lambda w: chain(w, 1500),
        "rank of a new adapter 10**9": lambda w: w.lora(r=10**9),
    },
    "never ends": {
        "template of loops": lambda w: template(w, LOOP),
        "template of 10**10 letters": lambda w: template(w, "{{ 'x' * 10**10 }}"),
        "template of a long range": lambda w: template(w, "{{ range(10**9) | list }}"),
        "template of a power": lambda w: template(w, "{{ 9 ** 9 ** 9 }}"),
        **{f"pattern in {name}": lambda w, name=name: w.lora(**{name: BAD_REGEX}) for name in ("target_modules", "exclude_modules")},
        **{f"pattern in {name}": lambda w, name=name: w.lora(**{name: {BAD_REGEX: 4}}) for name in ("rank_pattern", "alpha_pattern")},
        "weights as a pipe": lambda w: w.instead(w.model / MODEL),
        "configuration as a pipe": lambda w: w.instead(w.model / CONFIG),
        "tokenizer as a pipe": lambda w: w.instead(w.model / TOKENIZER),
        "adapter as a pipe": lambda w: w.instead(w.adapter / "adapter_model.safetensors"),
        "data as a pipe": lambda w: w.instead(w.data),
        "recipe as a pipe": lambda w: w.instead(w.recipe),
        "recipe that extends itself": lambda w: w.recipe.write_text(f"extends: {w.recipe.name}\n"),
    },
}  # fmt: skip


def outcome(code: int, said: str, seconds: float, world: World) -> str:
    """What became of one command."""
    if world.ran.exists():
        return "ran the stranger's code"
    if seconds > LONGEST or code < 0:
        return "took too long"
    if "Traceback (most recent call last)" in said:
        return "traceback"
    return "went on" if code == 0 else "refused in words"


def main() -> None:
    """All inputs, a line each, and their counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="inputs whose kind and name hold this")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as home:
        commands = Commands(home, cwd=home, ALIGNKIT_CACHE=str(Path(home) / "cache"), HF_HUB_OFFLINE="1")
        for kind, inputs in ({"sound": {"nothing": lambda _: None}} | INPUTS).items():
            for name, spoil in inputs.items():
                if options.only not in f"{kind}: {name}":
                    continue
                for command in ("check", "train"):
                    world = World(Path(home) / "world")
                    spoil(world)
                    code, said, _, seconds = commands.run(command, str(world.recipe), number=9, after=LONGEST)
                    rows.append({"kind": kind, "input": name, "command": command, "code": code, "seconds": round(seconds, 1),
                                 "outcome": outcome(code, said, seconds, world), "said": said.replace(home, "HOME").strip()[-300:] if code else ""})  # fmt: skip
                    print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
                    shutil.rmtree(world.folder)
                    shutil.rmtree(Path(home) / "run", ignore_errors=True)
        commands.close()
    counts = {
        kind: Counter(f"{row['command']}: {row['outcome']}" for row in rows if row["kind"] == kind) for kind in INPUTS
    }
    options.out.write_text(json.dumps({"counts": counts, "inputs": rows}, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
