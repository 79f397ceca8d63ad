"""Answers sampled by vLLM."""

from .mutant import noticed_by

ENGINE, WORKER, ANSWERS = "align/sampling/vllm_engine.py", "align/sampling/vllm_worker.py", "align/sampling/store.py"
vllm = noticed_by("tests/sampling/test_vllm_engine.py")
MUTANTS = [
    vllm("a request's seed is that of its place", ENGINE, "seed_of(encoded[job.prompt], job.sample, decoding.seed)", "seed_of([job.prompt], job.sample, decoding.seed)"),
    vllm("samples share a seed", ENGINE, "seed_of(encoded[job.prompt], job.sample, decoding.seed)", "seed_of(encoded[job.prompt], 0, decoding.seed)"),
    vllm("the policy goes without its adapter", ENGINE, '"adapter": None if use.adapter is None else _found(use.adapter),', '"adapter": None,'),
    vllm("no room for the rank", ENGINE, "next(room for room in RANKS if room >= rank)", "rank"),
    vllm("the model's own settings apply", ENGINE, '"generation_config": "vllm",', '"seed": 0,'),
    vllm("no room for the answer", ENGINE, "longest + decoding.max_new_tokens", "longest"),
    vllm("answers do not end", ENGINE, '"stop_token_ids": stops,', '"stop_token_ids": [],'),
    vllm("the default precision", ENGINE, 'str(use.model.dtype).removeprefix("torch.")', '"auto"'),
    vllm("use is reported", ENGINE, 'quiet = {"VLLM_NO_USAGE_STATS": "1"}', "quiet: dict[str, str] = {}"),
    vllm("a process that failed is believed", ENGINE, 'if code != 0 or given < len(asked["batches"]):', "if False:"),
    vllm("the process outlives its reader", "align/sampling/processes.py", "os.killpg(process.pid, signal.SIGKILL)", "pass"),
    vllm("any interpreter has vLLM", ENGINE, "if version is None:", "if False:"),
    vllm("a quantised base is sampled", ENGINE, "if recipe.model.load_in_4bit or recipe.model.load_in_8bit:", "if False:"),
    vllm("no answers are asked for", ENGINE, "if recipe.eval.generate is None:", "if False:"),
    vllm("any adapter is handed over", ENGINE, "not isinstance(config, LoraConfig) or config.use_dora or config.modules_to_save", "False"),
    vllm("any rank is handed over", ENGINE, "if rank > RANKS[-1]:", "if False:"),
    vllm("what is printed is taken for answers", WORKER, "os.dup2(2, 1)", "pass"),
    vllm("engines are mixed", ANSWERS, '**({} if engine is None else {"engine": engine.identity}),', ""),
    vllm("what only the file says is not compared", ANSWERS, "for name in {**now, **found}", "for name in now"),
    vllm("the model samples all the same", "align/sampling/generate.py", "    if engine is not None:\n", "    if False:\n"),
    vllm("the report does not say who sampled", "eval/evaluate.py", '**({} if vllm is None else {"vllm": vllm.version}),', ""),
    noticed_by("tests/sampling/test_eval_answering.py")("engines share a file", "align/sampling/ask.py", "*([engine] if engine else [])", ""),
]  # fmt: skip
