"""Draws inputs for `scripts/fuzz.py` from a grammar of each target: mostly sound, with scraps of what has done harm before."""

import bz2
import gzip
import io
import json
import lzma
import math
from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuzz_targets import KINDS, SPLIT
from safetensors.torch import save as serialise

GOOD = """method: rpo
model: {model_name_or_path: tiny-random, dtype: float32}
lora: {r: 4, target_modules: all-linear}
data:
  train: {path: ./pairs.jsonl}
train:
  output_dir: runs/x
  beta: 0.3
  use_cpu: true
  bf16: false
"""
SCRAPS = {
    "recipe": [
        "!!bool ", "!!python/name:os.system ", "&a ", "*a", "<<: ", "- ", ": ", "\n  ", "0x", "2020-99-99", "'", "[", "}", "~", "true",
        "/tmp/x", "../x", "~/x", '"\\e[2J"', '"\\uD800"', "1e400", "9" * 99, ".nan", "trust_remote_code: true", "{a: b}", "? ", "|\n",
        "%YAML 1.2", "\ufeff", "no", "wandb", "a/b:c", "package:a.b/../c", "m:f", "extends: quickstart", "!!binary ", "1:1", "=", "\t",
    ],
    "data": [
        '"prompt": ', '"chosen": ', '"rejected": ', '{"role": "user", "content": "q"}', '{"role": "assistant", "content": "a"}', "[", "]",
        "{", "}", ",", "null", '""', '"q "', '"a"', '"b"', "\n", '"\\ud800"', "NaN", "1e999", "-0", '"\\u0000"', "[" * 60, '"\x1b[2J"', "\\",
        '"question": ', '"response_j": ', '"response_k": ', '"harness"', "\ufeff", "\r", '{"prompt": "q ", "chosen": "a", "rejected": "b"}\n',
    ],
    "report": [
        "<script>", "</pre>", "]]>", "<!--", "-->", "<![CDATA[", "<?", "&lt;", "&#x3c;", '"', "'", " onload=", "javascript:", "`" * 3, "|", "\\",
        "\n", "\r", "\x1b[2J", "\x9b", "\u202e", "\0", "[a](b)", "/", "_", "\n---\n", "\u2028", "\x0c", "~~~", "# ", "yaml",
    ],
    "rewards": [
        "good ", "bad ", "not ", "WONDERFUL ", "!", "?!", ":) ", "😀", "a b c d e f ", ". ", "\n\n", "\u0301", "ﬀ", "\0", "'", "positive_sentiment",
        "os:system", "İ", "’s ", "kind of ", "but ", "…", "the best day we had in years ", "at least ", "\udc80",
    ],
    "template": [
        "{% for m in messages %}", "{% endfor %}", "{{ m.content }}", "{{ m['role'] }}", "{% if tools %}", "{% if add_generation_prompt %}",
        "{% endif %}", "{% else %}", "{{ tools | tojson }}", "{% set x = ", " %}", "{{ raise_exception('no \x1b[2J') }}", "{% generation %}",
        "{% endgeneration %}", "{{ strftime_now('%d %b %Y') }}", "{{ strftime_now(\"%Q\0\") }}", "{{ strftime_now(f) }}", "enable_thinking",
        "{% for i in range(99999) %}", "{{ 'x' * 10**9 }}", "{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}", "{% macro f(a) %}",
        "{{ f(f) }}", "{% endmacro %}", "{% include 'x' %}", "{% call f() %}", "{#", "#}", "{%- ", " -%}", "{{ messages | sort }}", "loop.index",
        "<|assistant|>", "{{ eos_token }}", "{{ m.tool_calls }}", "{{ 1 / 0 }}", "{{ messages[99].x.y }}", "{{ namespace(a=1) }}", "{% raw %}",
        "{% filter upper %}", "{{ 9 ** 9 ** 9 }}", "{{ m.content | replace('', 'aa') }}", "{{ '%s' % m }}", "{% break %}", "\u202e", "\ud800",
        "{{ lipsum(n=9999) }}", "{{ joiner() }}", "{{ range(10**9) | list }}", "{{ '%999999999d' | format(1) }}", "{{ m.content.format_map }}",
    ],
    "adapter": [
        '"r": ', '"lora_alpha": ', '"target_modules": ', '"all-linear"', "null", "true", "-1", "0", "1e999", "NaN", "9" * 30, '"(.*)*!"', "[", "]",
        "{", "}", ",", '"peft_type": ', '"LORA"', '"IA3"', '"LOFTQ"', '"VERA"', '"ADALORA"', '"PREFIX_TUNING"', '"rank_pattern": ', '"q_proj"',
        '"alpha_pattern": ', '"modules_to_save": ', '"lm_head"', '"megatron_config": ', '"base_model_name_or_path": ', '"../x"', '"bias": ', '"all"',
        '"auto_mapping": ', '{"base_model_class": "os", "parent_library": "os"}', '"use_dora": ', '"init_lora_weights": ', '"pissa"', '"eva"',
        '"layers_to_transform": ', '"layers_pattern": ', '"task_type": ', '"X"', '"\\ud800"', '"\x1b[2J"', '"fan_in_fan_out": ', '"use_rslora": ',
        '"trainable_token_indices": ', '"target_parameters": ', '"corda_config": ', '"loftq_config": ', '"exclude_modules": ', '"revision": ',
    ],
}  # fmt: skip
TEMPLATE = """{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|end|>
{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
WIDTH = 32  # of the tiny model
ADAPTER = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "bias": "none",
}
KEYS = (
    "method", "train", "train.beta", "lora.r", "data.train", "data.eval.x", "extends", "expect.kl", "eval", "ref", "train.output_dir",
    "train.report_to", "model.attn_implementation", "train.push_to_hub", "data.train.columns", "model", "train.lr_scheduler_kwargs",
)  # fmt: skip


ROWS = b'{"prompt": "q ", "chosen": "a", "rejected": "b"}\n' * 3


def _parquet(_: bytes) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([json.loads(row) for row in ROWS.splitlines()]), buffer)
    return buffer.getvalue()


PACK = {"jsonl.gz": gzip.compress, "jsonl.xz": lzma.compress, "jsonl.bz2": bz2.compress, "parquet": _parquet}


class Draw(Protocol):
    """Where structure comes from: both engines can do this much."""

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        ...

    def text(self) -> str:
        """Any short text."""
        ...


def inputs(target: str, draw: Draw) -> bytes:
    """One input of a target, from its grammar."""

    def pick(options: Sequence[Any]) -> Any:
        return options[draw.number(0, len(options) - 1)]

    def noise(most: int) -> str:
        scraps = SCRAPS[target]
        return "".join(pick(scraps) if draw.number(0, 3) else draw.text() for _ in range(draw.number(0, most)))

    def encoded(text: str) -> bytes:
        if target not in ("report", "rewards"):
            return text.encode("utf-8", "replace")
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            return text.encode("utf-8", "surrogatepass")

    if target == "recipe":
        at = draw.number(0, len(GOOD))
        text = GOOD[:at] + noise(4) + GOOD[at + draw.number(0, 9) :]
        overrides = [f"{pick(KEYS)}={noise(3)}" for _ in range(draw.number(0, 2))]
        return SPLIT.join(map(encoded, (text, *overrides)))
    if target == "data":
        kind = pick(KINDS)
        content = encoded(
            "".join(f"{{{noise(6)}}}\n" if draw.number(0, 1) else noise(6) for _ in range(draw.number(0, 4)))
        )
        if kind in PACK and draw.number(0, 3):
            content = PACK[kind](ROWS + content)
            for _ in range(draw.number(0, 3)):
                at = draw.number(0, len(content) - 1)
                content = content[:at] + bytes([draw.number(0, 255)]) + content[at + draw.number(0, 2) :]
        return encoded(kind) + SPLIT + content
    if target == "template":
        at = draw.number(0, len(TEMPLATE))
        return encoded(TEMPLATE[:at] + noise(5) + TEMPLATE[at + draw.number(0, 30) * draw.number(0, 9) :])
    if target == "adapter":
        text = json.dumps(ADAPTER)
        for _ in range(draw.number(0, 3)):
            at = draw.number(0, len(text))
            text = text[:at] + noise(3) + text[at + draw.number(0, 12) :]
        weights = _weights(pick)
        for _ in range(draw.number(0, 2) * draw.number(0, 2)):
            at = draw.number(0, len(weights) - 1)
            weights = weights[:at] + bytes([draw.number(0, 255)]) + weights[at + draw.number(0, 2) :]
        other = b"" if draw.number(0, 2) else encoded("{" + noise(5) + "}")
        return SPLIT.join(
            part.replace(SPLIT, b"\0 ") if part is not weights else part for part in (encoded(text), other, weights)
        )
    return SPLIT.join(encoded(noise(8)) for _ in range(4))


def _weights(pick: Any) -> bytes:
    """A file of factors, of shapes and kinds that mostly fit the tiny model and ADAPTER."""
    tensors = {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.{pick(['lora_A', 'lora_A', 'lora_A', 'lora_E'])}.weight"
        rank, kind = (
            pick([2, 2, 2, 2, 1, 0]),
            pick([torch.float32, torch.float32, torch.bfloat16, torch.int8, torch.bool]),
        )
        tensors[name] = torch.full(
            (rank, WIDTH), pick([1, 1, 1, math.nan, math.inf]) if kind.is_floating_point else 1, dtype=kind
        )
        tensors[name.replace("_A", "_B")] = torch.ones(pick([WIDTH, WIDTH, WIDTH, 3]), rank, dtype=kind)
    return serialise(tensors)
