"""Looks at the `lora` and `peft` sections of a recipe, whose fields are PEFT's."""

from typing import Any

from peft import LoraConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from align.strict.fields import build, describe, nearest
from align.strict.yaml_tree import Tree
from align.tuning.kinds import TRIED, why_not

NOT_IN_LORA = {"base_model_name_or_path": "model", "revision": "model", "peft_type": None, "inference_mode": None}


def check_lora(lora: LoraConfig, tree: Tree) -> None:
    """Note what the recipe says that has no effect, or that no adapter can be; `task_type` is set."""
    if tree.get("lora", "task_type") not in (None, "CAUSAL_LM"):
        tree.problem(("lora", "task_type"), f"must be CAUSAL_LM, got {tree.get('lora', 'task_type')!r}")
    lora.task_type = "CAUSAL_LM"
    if lora.lora_alpha is not None and not 0 < lora.lora_alpha < float("inf"):
        tree.problem(("lora", "lora_alpha"), f"must be positive, or the adapter changes nothing, got {lora.lora_alpha}")
    if lora.r < 1:
        tree.problem(("lora", "r"), f"must be at least 1, got {lora.r}")
    _said_elsewhere("lora", "LORA", tree)
    targets = tree.get("lora", "target_modules")
    if "lm_head" in (targets if isinstance(targets, list) else [targets]):
        tree.problem(
            ("lora", "target_modules"),
            "lm_head cannot be adapted: log-probabilities are computed from its plain weight; use all-linear",
        )


def build_peft(tree: Tree) -> Any:
    """The settings of an adapter of another kind than LoRA, or None with the problems noted."""
    values = tree.values["peft"]
    if tree.values.get("lora") is not None:
        tree.problem(("peft",), "contradicts lora: a policy has one new adapter; remove one of the two sections")
    if not isinstance(values, dict):
        tree.problem(("peft",), f"expected `key: value` settings, got {describe(values)}")
        return None
    kind = values.get("peft_type")
    if kind not in [each.value for each in PeftType]:
        got = "missing" if kind is None else f"unknown, got {kind!r}"
        tree.problem(("peft", "peft_type"), f"{got}; {nearest(str(kind), TRIED)}")
        return None
    refused = why_not(kind)
    if refused is not None:
        tree.problem(("peft", "peft_type"), f"{kind} {refused}")
        return None
    before = len(tree.problems)
    _said_elsewhere("peft", kind, tree)
    if values.get("task_type") not in (None, "CAUSAL_LM"):
        tree.problem(("peft", "task_type"), f"must be CAUSAL_LM, got {values['task_type']!r}")
    known = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
    least = min(getattr(known, "r", 1), 1)  # OFT's 0 leaves the size to its blocks
    if type(values.get("r")) is int and values["r"] < least:
        tree.problem(("peft", "r"), f"must be at least {least}, got {values['r']}")
    for key in ("alpha", "randlora_alpha", "scaling"):
        if isinstance(values.get(key), (int, float)) and not 0 < values[key] < float("inf"):
            tree.problem(("peft", key), f"must be positive, or the adapter changes nothing, got {values[key]}")
    if len(tree.problems) > before:
        return None
    given = {key: value for key, value in values.items() if key != "peft_type"}
    made = build(known, given | {"task_type": "CAUSAL_LM"}, ("peft",), tree)
    if made is not None and tree.get("train", "trained_part") == "b":
        tree.problem(("train", "trained_part"), f"'b' is a factor of LoRA, and {kind} has none; leave it out")
    if made is not None and tree.get("train", "loraplus_lr_ratio") is not None:
        tree.problem(("train", "loraplus_lr_ratio"), f"is of LoRA's two factors, and {kind} has none; leave it out")
    return made


def _said_elsewhere(name: str, kind: str, tree: Tree) -> None:
    """Note the settings of an adapter's file that a recipe says in another place, or cannot say."""
    for key, section in NOT_IN_LORA.items():
        if tree.get(name, key) not in (None, False, kind):
            why = (
                f"the `{section}` section says it"
                if section
                else f"a recipe trains {'LoRA' if kind == 'LORA' else kind}"
            )
            tree.problem((name, key), f"not used here, got {tree.get(name, key)!r}; {why}")
