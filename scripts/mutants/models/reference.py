"""Where answers end, what the reference is, and runs in which nothing happens."""

from mutants.mutant import noticed_by

STOPPING, ADAPTERS = "align/models/stopping.py", "align/models/adapters.py"
REFERENCE, ALARMS, SHARING = (
    "align/trainers/shared/reference.py",
    "align/trainers/shared/alarms.py",
    "align/trainers/shared/prefix_sharing.py",
)
ends = noticed_by("tests/models/test_stopping.py")
reference = noticed_by("tests/trainers/test_reference.py")
alarm = noticed_by("tests/trainers/test_alarms.py")
shared = noticed_by("tests/trainers/test_prefix_sharing.py")
scored = noticed_by("tests/sampling/test_eval.py")
day = noticed_by("tests/models/test_dated.py")
head = noticed_by("tests/models/test_head.py")
USE = "align/models/use.py"
MUTANTS = [
    ends("the default of a class ends answers", STOPPING, "if token in special]", "]"),
    ends("generation settings end nothing", STOPPING, '*_ids(_of(generation), "generation_config")]', "]"),
    ends("the template ends nothing", STOPPING, "return named if turn is None or turn in named else [*named, turn]", "return named"),
    ends("anything is a token id", STOPPING, "if not isinstance(each, int) or isinstance(each, bool):", "if False:"),
    ends("an answer goes on after its end", "align/sampling/generate.py", "return [ids[: end + 1] for ids, end in zip(rows, ends, strict=True)]", "return rows"),
    ends("online completions end as TRL's", "align/trainers/online/shared_prompts.py", "        end_answers_at(self, stop_ids(tokenizer_of(self), self.model))\n", ""),
    ends("answers of other stops are taken", "align/sampling/store.py", '**({} if stops == [tokenizer.eos_token_id] else {"stops": stops}),', ""),
    reference("residual weights for a reference", ADAPTERS, "name.startswith(REBASED)", "name == REBASED"),
    reference("trained biases under a reference", ADAPTERS, 'getattr(config, "bias", "none") != "none"', "False"),
    reference("the first log-ratio may be anything", REFERENCE, "self._made == self._begun and not apart <= allowed", "False"),
    reference("the reference may move", REFERENCE, "trainer.anywhere(not drift <= MOVED)", "False"),
    reference("the reference is seen with the policy at rest", REFERENCE, "                with moved(model):\n", "                with contextlib.nullcontext():\n"),
    reference("noise stays in the adapter", REFERENCE, "            part.copy_(before)", "            pass"),
    reference("a resumed run is at its first step", REFERENCE, "not self.looked and trainer.state.global_step == 0", "not self.looked"),
    reference("the copy of an adapter has holes", REFERENCE, '"ref" if part == trained else part for part in name.split(".")', '"ref" if part == trained and not name.endswith(trained) else part for part in name.split(".")'),
    reference("a frozen adapter is trained", REFERENCE, "if any(parameter.requires_grad for parameter in model.parameters()):", "if True:"),
    alarm("weights that stay are not told", ALARMS, "if bool(moved):", "if True:"),
    alarm("a short run is not judged", ALARMS, "        if state.global_step > self._since:\n", "        if False:\n"),
    shared("an adapter of zeros hides what it does", SHARING, "fast_head(), moved(base):", "fast_head():"),
    scored("a tie is scored twice", "align/scoring/completions.py", "first_of.setdefault(key, i)", "keys[i] = (*key, i); first_of.setdefault(keys[i], i)"),
    day("a resumed run is dated anew", "align/train.py", "recorded_day(path / ENV_FILE) if start.known is not None else None", "None"),
    day("an evaluation is dated anew", "eval/subjects.py", "recorded_day(run / ENV_FILE) if is_run else None", "None"),
    day("a computed format is left", "align/models/dated.py", "if any(_ANY.search(template) for template in found.values()):", "if False:"),
    head("one product: the hook stays", USE, "        handle.remove()\n", "        pass\n"),
    head("one product: slices as they come", USE, "one.contiguous() if", "one if"),
    head("one product: not where answers are sampled", "align/sampling/generate.py", "adapters_merged(model), head_in_one_product(model), ", "adapters_merged(model), "),
    head("one product: not where trainers sample", "align/trainers/online/shared_prompts.py", "head_in_one_product(model), two_uniforms", "two_uniforms"),
    head("one product: not where answers are scored", "align/scoring/completions.py", "with head_in_one_product(model):", "if True:"),
    reference("reference: one that follows stays where a run was resumed", REFERENCE, "        trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(state)\n", "        pass\n"),
    noticed_by("tests/trainers/pairs/test_without_reference.py")("reference: columns in one set alone", "align/trainers/shared/precompute.py", "if has_reference(data) != has_reference(train):", "if False:"),
]  # fmt: skip
