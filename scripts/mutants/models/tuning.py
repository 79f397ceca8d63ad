"""Which weights move: HFT's table, draws, gradients taken away, the rate of LoRA's B."""

from mutants.mutant import noticed_by

PARTS, TRAINER, RATES, CONFIG = (
    "align/tuning/parts.py", "align/tuning/trainer.py", "align/tuning/rates.py", "align/configs/parts.py",
)  # fmt: skip
SIZES, LORA = "align/check/sizes.py", "align/recipe/lora.py"
TESTS = "tests/tuning/test_parts.py"
drawn = noticed_by(TESTS)
faster = noticed_by("tests/tuning/test_rates.py")
kinds = noticed_by("tests/tuning/test_kinds.py")
rates = noticed_by("tests/tuning/test_asked.py")
MUTANTS = [
    rates("asked: rates are the checkpoint's", "align/tuning/asked.py", "            group.update(asked)\n", "            pass\n"),
    rates("asked: the step that is due has the old rate", "align/tuning/asked.py", "                group[\"lr\"] = rate\n", "                pass\n"),
    rates("asked: the schedule starts from the old rate", "align/tuning/asked.py", 'scheduler.base_lrs = [asked["initial_lr"] for asked in self._groups]', "pass"),
    rates("asked: a value head has the old rate", "align/trainers/completions/values.py", '            group["lr"] = rate', "            pass"),
    rates("asked: Python says nothing", "align/trainers/shared/safe_runs.py", "differences(known, now) if self.identity is None else ()", "()"),
    drawn("parts: always the smaller half", PARTS, "size // 2 + (parent in more)", "size // 2"),
    drawn("parts: every seed draws the same", PARTS, 'f"{self.part}:{self.seed}:{period}"', 'f"{self.part}:{period}"'),
    drawn("parts: every period draws the same", PARTS, 'f"{self.part}:{self.seed}:{period}"', 'f"{self.part}:{self.seed}"'),
    drawn("parts: the order of names counts", PARTS, "for name in sorted(units):", "for name in units:"),
    drawn("parts: layers are of different kinds", PARTS, 'for part in parent.split(".") if not part.isdigit())', 'for part in parent.split("."))'),
    drawn("parts: norms are drawn among projections", PARTS, "units |= {unit: True for", "_ = {unit: True for"),
    drawn("parts: what lies outside of layers is drawn", PARTS, 'return unit if LAYER.search(f"{unit}.") else None', "return unit"),
    drawn("parts: a module's two factors are drawn apart", PARTS, "while unit and not isinstance(model.get_submodule(unit), BaseTunerLayer)", "while False"),
    drawn("parts: drawn anew at the wrong step", PARTS, "step // self.redraw_every", "(step + 1) // self.redraw_every"),
    drawn("parts: the layers drawn are left out", PARTS, "if _layer(unit) not in kept]", "if _layer(unit) in kept]"),
    drawn("parts: of an embedding A stays", PARTS, '("lora_A.", "lora_embedding_B.")', '("lora_A.", "lora_embedding_A.")'),
    drawn("parts: gradients of zero move by weight decay", PARTS, "parameter.grad = None", "parameter.grad = parameter.detach() * 0"),
    drawn("parts: nothing is taken away", TRAINER, "        self.hold_back()\n        return loss", "        return loss"),
    drawn("parts: taken away of the step before", TRAINER, "self.part.left_out(self.state.global_step)", "self.part.left_out(max(0, self.state.global_step - 1))"),
    drawn("parts: a half step moves all", "align/trainers/online/extragradient.py", "        trainer.hold_back()\n", ""),
    drawn("parts: layers of nothing", PARTS, "drawn_layers >= len(layers)", "drawn_layers > len(layers)"),
    drawn("parts: b of nothing", PARTS, 'if part == "b" and not self._random:', "if False:"),
    drawn("parts: any part", CONFIG, "if part not in PARTS:", "if False:"),
    drawn("parts: beside rules that read gradients", CONFIG, 'if config.trained_part == "all":', "if True:"),
    drawn("parts: optimizers with weights of their own", CONFIG, '"lomo", "layerwise", "schedule_free"', '"layerwise"'),
    faster("rates: A is the faster", RATES, '("lora_B.", "lora_embedding_B.")', '("lora_A.", "lora_embedding_A.")'),
    faster("rates: one rate", RATES, 'group["lr"] * ratio', 'group["lr"]'),
    faster("rates: B does not decay", RATES, '{**group, "params": chosen,', '{**group, "weight_decay": 0.0, "params": chosen,'),
    faster("rates: B is lost", RATES, "        optimizer.add_param_group(group)", "        pass"),
    faster("rates: an optimizer that is given is passed over", TRAINER, "if ratio is not None and self.optimizer is not None:", "if False:"),
    faster("rates: B of nothing", RATES, "    if not found:\n", "    if False:\n"),
    faster("parts: what is missing is not looked for", SIZES, "return _part_missing(model, train), Size(", "return [], Size("),
    faster("parts: layers of an adapter are not counted", SIZES, "found = _part_missing(adapted, train)", "found = []"),
    faster("parts: layers of another kind are not counted", SIZES, "return [*_part_missing(adapted, train), Finding(", "return [Finding("),
    kinds("kinds: a rank of nothing", LORA, "values[\"r\"] < least:", "values[\"r\"] < 0:"),
    kinds("kinds: a scale of nothing", LORA, "not 0 < values[key] <", "not 0 <= values[key] <"),
    kinds("kinds: AdaLoRA is taken", "align/tuning/trainer.py", "        refuse_kinds(getattr(self.model, \"peft_config\", {}).values(), where)\n", ""),
    kinds("kinds: any of PEFT's", "align/recipe/lora.py", "    if refused is not None:\n", "    if False:\n"),
    kinds("kinds: beside lora", "align/recipe/lora.py", 'if tree.values.get("lora") is not None:', "if False:"),
    kinds("kinds: VeRA's projections are the base's", "align/models/identity.py", ', "vera_")', ")"),
    kinds("kinds: OFT has no rank", "align/models/folders.py", "if value == 0 and config.peft_type == PeftType.OFT:", "if False:"),
    kinds("kinds: a front of them", "align/recipe/fronts.py", 'if tree.values.get("peft") is not None:', "if False:"),
    kinds("kinds: a random start", "align/models/adapters.py", 'if hasattr(config, "init_lora_weights") else "init_weights"', 'if True else "init_weights"'),
]  # fmt: skip
