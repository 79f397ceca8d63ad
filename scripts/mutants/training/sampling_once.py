"""The prompt of a group is run once when its answers are sampled."""

from mutants.mutant import Mutant, noticed_by

CACHE, ONLINE = "align/sampling/prompt_cache.py", "align/trainers/online/shared_prompts.py"
MERGED = "align/sampling/merged.py"
DRAW, TESTS = "align/sampling/drawing.py", "tests/sampling/test_prompt_cache.py"
law = noticed_by("tests/sampling/test_drawing.py")
family = noticed_by(f"{TESTS}::test_every_family_draws_the_same_tokens")
reason = noticed_by(f"{TESTS}::test_what_cannot_be_shared_is_said")
state = noticed_by(f"{TESTS}::test_a_model_with_more_than_keys_and_values_falls_back_by_name")
alone = noticed_by(f"{TESTS}::test_prompts_that_do_not_repeat_are_left_alone")
back = noticed_by(f"{TESTS}::test_generate_is_put_back")
told = noticed_by("tests/check/test_environment.py::test_vllm_is_refused_where_no_policy_can_be_handed_to_it")
merged = noticed_by("tests/sampling/test_merged.py")
trainer = noticed_by(f"{TESTS}::test_trainers_run_the_prompt_of_a_group_once")
sharded = noticed_by(f"{TESTS}::test_a_sharded_model_is_left_alone")
sampled = noticed_by(f"{TESTS}::test_answers_of_one_seed_are_those_of_a_batch_of_one")

MUTANTS: list[Mutant] = [
    family("sampling once: a cache of other rows", CACHE, "torch.tensor(row_of, device", "torch.tensor(sorted(row_of), device"),
    family("sampling once: padding of no row", CACHE, "attention_mask=mask[first, :-1]", "attention_mask=mask[first, 1:]"),
    family("sampling once: the last token too", CACHE, "input_ids=ids[first, :-1]", "input_ids=ids[first, 1:]"),
    family("sampling once: every row is run", CACHE, "if len(places) == len(row_of):", "if True:"),
    alone("sampling once: padding taken for a token", CACHE, "torch.cat([ids, mask], dim=1).tolist()", "ids.tolist()"),
    alone("sampling once: nothing to share", CACHE, "if len(places) == len(row_of):", "if False:"),
    reason("sampling once: beams", CACHE, "(config.num_beams or 1) > 1", "False"),
    reason("sampling once: a prompt of one token", CACHE, ".min()) < 2", ".min()) < 1"),
    reason("sampling once: pictures", CACHE, "and name not in PROMPT", "and name in PROMPT and name == ''"),
    state("sampling once: a recurrent state", CACHE, "- {DynamicLayer, DynamicSlidingWindowLayer}", "- {DynamicLayer, DynamicSlidingWindowLayer, *{type(x) for x in cache.layers}}"),
    back("sampling once: another's generate is lost", CACHE, "        if own:\n", "        if False:\n"),
    trainer("sampling once: off is on", ONLINE, 'self.args.shared_prefix != "off" and not', "not"),
    told("vllm: on a CPU", "align/check/environment.py", 'getattr(r.train, "use_vllm", False) and _on_cpu(r, m)', "False"),
    told("vllm: on a GPU", "align/check/environment.py", 'getattr(r.train, "use_vllm", False) and _on_cpu(r, m)', 'getattr(r.train, "use_vllm", False)'),
    trainer("sampling once: not in training", ONLINE, ", prompts_once(model):", ":"),
    merged("merged: not in training", ONLINE, "with adapters_merged(model), ", "with "),
    merged("merged: not in evaluation", "align/sampling/generate.py", "adapters_merged(model), ", ""),
    merged("merged: not restored", MERGED, "            own.data.copy_(before)\n", "            pass\n"),
    merged("merged: not after an error", MERGED, "    try:\n        yield\n    finally:\n        if layer.merged:", "    yield\n    if True:\n        if layer.merged:"),
    merged("merged: never", MERGED, "return layers if suited else []", "return []"),
    merged("merged: in 16 bits", MERGED, "own.dtype == torch.float32", "own.dtype.is_floating_point"),
    merged("merged: tied weights", MERGED, " and holders[id(own)] == 1", ""),
    merged("merged: adapters that are off", MERGED, "        and not layer.disable_adapters\n", ""),
    merged("merged: under another's generate", MERGED, 'if "generate" in vars(model):', "if False:"),
    merged("merged: vLLM is sent the base", MERGED, "            if layer is None:\n", "            if True:\n"),
    merged("merged: vLLM is sent what changes again", MERGED, "merged = weight.clone()", "merged = weight"),
    merged("merged: TRL merges too", MERGED, "setattr(model, name, lambda *args, **kwargs: None)", "setattr(model, name, getattr(model, name))"),
    sharded("sampling once: shards", ONLINE, "if shared and sharded(self.accelerator):", "if False:"),
    sampled("sampling once: not in evaluation", "align/sampling/generate.py", ", prompts_once(model):", ":"),
    law("drawing: tokens that cannot be", DRAW, "right=True", "right=False"),
    law("drawing: beyond the last", DRAW, "torch.minimum(uniform * total, most)", "uniform * total"),
    law("drawing: the first block's tokens", DRAW, "blocks[torch.arange(len(p), device=p.device), block]", "blocks[:, 0]"),
    law("drawing: all rows by one number", DRAW, "torch.rand(len(weights), 1, device", "torch.rand(1, 1, device"),
    law("drawing: blocks are likely alike", DRAW, "sums = blocks.sum(-1)", "sums = blocks.sum(-1).clamp(max=0.1)"),
    law("drawing: logits that are not finite", DRAW, "if not bool(sums.isfinite().all()):", "if False:"),
    law("drawing: temperature is lost", DRAW, "LogitsProcessorList([*logits_processor, _Draw()])", "LogitsProcessorList([_Draw()])"),
    law("drawing: greedy is drawn", DRAW, "config.get_generation_mode() == GenerationMode.SAMPLE", "True"),
    law("drawing: scores are lost", DRAW, "not config.output_scores and", "True and"),
    law("drawing: not in training", ONLINE, "two_uniforms(model), ", ""),
]  # fmt: skip
