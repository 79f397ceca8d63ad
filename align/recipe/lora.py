"""Looks at the `lora` section of a recipe, whose fields are PEFT's."""

from peft import LoraConfig

from align.strict.yaml_tree import Tree

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
    for key, section in NOT_IN_LORA.items():
        if tree.get("lora", key) not in (None, False, "LORA"):
            why = f"the `{section}` section says it" if section else "a recipe trains LoRA"
            tree.problem(("lora", key), f"not used here, got {tree.get('lora', key)!r}; {why}")
    targets = tree.get("lora", "target_modules")
    if "lm_head" in (targets if isinstance(targets, list) else [targets]):
        tree.problem(
            ("lora", "target_modules"),
            "lm_head cannot be adapted: log-probabilities are computed from its plain weight; use all-linear",
        )
