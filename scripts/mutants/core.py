"""Losses of DPO, RPO and f-DPO, their trainer, shared prompts, the reference store, memory and cost."""

from .mutant import Mutant, noticed_by

PREFERENCE = "align/losses/preference.py"
DIVERGENCES = "align/losses/divergences.py"
METRICS = "align/trainers/shared/metrics.py"
TRAINER, COMMON = "align/trainers/pairs/preference.py", "align/trainers/shared/base.py"
CONTRACT = "align/trainers/shared/trl_contract.py"
SCORED = "align/trainers/shared/scored.py"
SETTINGS = "align/configs/common.py"
LOSS_TESTS = ("tests/losses/test_losses.py", "tests/losses/test_divergences.py")
PLAN, ATTENTION, HEAD = "align/scoring/plan.py", "align/scoring/attention.py", "align/scoring/head.py"
SHARED, STORE, LENGTHS = (
    "align/scoring/shared_prefix.py",
    "align/scoring/reference_store.py",
    "align/scoring/batching.py",
)
MEMORY, FLOPS, DRY_RUN = "align/scoring/memory.py", "align/scoring/flops.py", "align/commands/dry_run.py"
SHARING, PRECOMPUTE = "align/trainers/shared/prefix_sharing.py", "align/trainers/shared/precompute.py"
IDENTITY = "align/models/identity.py"
CHECKPOINTING, ONLINE = "align/trainers/shared/checkpointing.py", "align/trainers/online/shared_prompts.py"
TRAINER_TESTS = (
    "tests/trainers/test_metrics.py",
    "tests/trainers/pairs/test_parity.py",
    "tests/trainers/test_trl_contract.py",
    "tests/trainers/pairs/test_use.py",
)


def loss(name: str, old: str, new: str, file: str = PREFERENCE) -> Mutant:
    return Mutant(name, file, old, new, LOSS_TESTS)


def train(name: str, old: str, new: str, file: str = TRAINER) -> Mutant:
    return Mutant(name, file, old, new, TRAINER_TESTS)


exact = noticed_by("tests/scoring/test_shared_prefix.py")
family = noticed_by("tests/scoring/test_sharing_families.py")
sharing = noticed_by("tests/trainers/test_prefix_sharing.py")
compiled = noticed_by("tests/scoring/test_compiled.py")
store = noticed_by("tests/scoring/test_reference_store.py")
sweep = noticed_by("tests/scoring/test_sweep.py")
labelled = noticed_by("tests/trainers/completions/test_kto_store.py")
identity = noticed_by("tests/models/test_identity.py")
swept = noticed_by("tests/trainers/pairs/test_reference.py")
lengths = noticed_by("tests/scoring/test_lengths.py", "tests/scoring/test_memory.py")
cost = noticed_by("tests/scoring/test_flops.py", "tests/check/test_dry_run.py")
online = noticed_by("tests/trainers/online/test_online.py")
use, recipe = noticed_by("tests/trainers/pairs/test_use.py"), noticed_by("tests/recipe/test_recipe.py")

MUTANTS = [
    # losses
    loss("swap chosen and rejected", "margin = rewards.chosen - rewards.rejected", "margin = rewards.rejected - rewards.chosen"),
    loss("forget beta", "return Pair(beta * log_ratio.chosen, beta * log_ratio.rejected)", "return log_ratio"),
    loss("forget beta under f", "Pair(beta * f_prime(log_ratio.chosen), beta", "Pair(f_prime(log_ratio.chosen), beta"),
    loss("forget the reference", "policy.chosen - ref.chosen, policy", "policy.chosen, policy"),
    loss("detach the policy", "Pair(policy.chosen - ref.chosen,", "Pair(policy.chosen.detach() - ref.chosen,"),
    loss("log(sigmoid) unstable", "return -F.logsigmoid(margin)\n", "return -F.sigmoid(margin).log()\n"),
    loss("halve the loss", "return -F.logsigmoid(margin)\n", "return -0.5 * F.logsigmoid(margin)\n"),
    loss("smoothing sign", "- label_smoothing * F.logsigmoid(-margin)", "+ label_smoothing * F.logsigmoid(-margin)"),
    loss("smoothing without weight", "-(1 - label_smoothing) * F.logsigmoid", "-F.logsigmoid"),
    loss("reduce in the loss", "margin = rewards.chosen - rewards.rejected\n", "margin = (rewards.chosen - rewards.rejected).mean().expand_as(rewards.chosen)\n"),
    loss("accept beta 0", "if beta <= 0", "if beta < 0"),
    loss("mean instead of sum", "masked_fill(~completion_mask, 0.0).sum(dim=1)", "masked_fill(~completion_mask, 0.0).mean(dim=1)"),
    loss("multiply by the mask", "token_logps.masked_fill(~completion_mask, 0.0)", "(token_logps * completion_mask)"),
    loss("drop the mask", "token_logps.masked_fill(~completion_mask, 0.0)", "token_logps"),
    loss("RPO: forget beta", "weight = eta * beta if scale_by_beta else eta", "weight = eta"),
    loss("RPO: always beta", "weight = eta * beta if scale_by_beta else eta", "weight = eta * beta"),
    loss("RPO: reward the rejection of the chosen", "sft = weight * nll", "sft = -weight * nll"),
    loss("RPO: always the sum", "-chosen_logps / chosen_tokens", "-chosen_logps"),
    loss("RPO: detach the likelihood", "sft = weight * nll", "sft = weight * nll.detach()"),
    loss("RPO: dominance the wrong way", "(pull < eta).float()", "(pull > eta).float()"),
    loss("f-DPO: ignore the divergence", "implicit_rewards(log_ratio, beta=strength, f_prime=f)", "implicit_rewards(log_ratio, beta=strength)"),
    loss("f-DPO: curvature upside down", "beta / f.curvature if", "beta * f.curvature if"),
    loss("f-DPO: tail counted on one side", "(f.in_tail(log_ratio.chosen) + f.in_tail(log_ratio.rejected)) / 2", "f.in_tail(log_ratio.chosen)"),
    # divergences
    loss("hard clamp, dead tails", "return self.f_prime(inside) + self.slope(inside) * (log_ratio - inside)", "return self.f_prime(inside)", DIVERGENCES),
    loss("no continuation", "inside = log_ratio.clamp(-self.exact_range, self.exact_range)", "inside = log_ratio", DIVERGENCES),
    loss("compute in bf16", "log_ratio = log_ratio.float()", "pass", DIVERGENCES),
    loss("forward KL upside down", "lambda r: -torch.expm1(-r), lambda", "lambda r: torch.expm1(r), lambda", DIVERGENCES),
    loss("textbook JSD", "lambda r: LOG_2 + F.logsigmoid(r)", "lambda r: (LOG_2 + F.logsigmoid(r)) / 2", DIVERGENCES),
    loss("JSD without its constant", "lambda r: LOG_2 + F.logsigmoid(r)", "lambda r: F.logsigmoid(r)", DIVERGENCES),
    loss("TRL's alpha", "return _alpha(alpha)", "return _alpha(1 - alpha)", DIVERGENCES),
    loss("chi-squared without its barrier", "torch.expm1(r) + r, lambda", "torch.expm1(r), lambda", DIVERGENCES),
    loss("accept alpha 1", "if not 0.0 < alpha < 1.0", "if not 0.0 < alpha <= 1.0", DIVERGENCES),
    # metrics
    train("tie is wrong", "(margin > 0).float() + 0.5 * (margin == 0).float()", "(margin > 0).float()", METRICS),
    train("mean of batch means", "sums[name] = [numerator + totals[2 * index], denominator + totals[2 * index + 1]]", "sums[name] = [numerator + totals[2 * index] / totals[2 * index + 1], denominator + 1]", METRICS),
    train("rewards from the log-ratio", '"rewards/chosen": rewards.chosen,', '"rewards/chosen": ratio.chosen,', METRICS),
    train("log the reference's log-probs", '"logps/chosen": policy.chosen.detach(),', '"logps/chosen": ref.chosen,', METRICS),
    train("never start anew", "sums.clear()", "pass", METRICS),
    train("entropy per pair", "(entropy[0] + entropy[1], tokens.chosen + tokens.rejected)", "(entropy[0] + entropy[1], torch.ones_like(policy.chosen))", METRICS),
    train("train and eval share sums", 'sums = self.train if mode == "train" else self.eval\n        for', "sums = self.train\n        for", METRICS),
    train("lose the sums on resume", '"attributes": {"train": sums,', '"attributes": {"train": {},', METRICS),
    # trainers
    train("sets overwrite each other", 'f"{evaluated_as(logs)}_{name}"', 'f"eval_{name}"', COMMON),
    train("sum over the batch", "loss = result.losses.sum() / (self._pairs_in_step or len(result.losses))", "loss = result.losses.sum()"),
    train("chosen and rejected swapped in the batch", "policy = Pair(*answer_logps(scored, self.args.ld_alpha).chunk(2))", "policy = Pair(*answer_logps(scored, self.args.ld_alpha).chunk(2)[::-1])"),
    train("label smoothing ignored", "dpo_loss(rewards, label_smoothing=self.args.label_smoothing)", "dpo_loss(rewards)"),
    train("eta ignored", "eta=self.args.eta,", "eta=0.005,"),
    train("reduction ignored", "sft_reduction=self.args.sft_reduction,", 'sft_reduction="sum",'),
    train("silent dropout", "name not in NOT_FOUND and share > 0", "name not in NOT_FOUND and share > 1", "align/trainers/shared/dropout.py"),
    train("reference with dropout", "with dropout_off(self.model, self.ref_model), fast_head():", "with fast_head():"),
    train("reference with the adapter on", "trainer.compute_ref_log_probs(model, inputs)", "(s.detach() for s in score(model, inputs)[0].token_logps.sum(1).chunk(2))", SCORED),
    train("cached reference ignored", 'if "ref_chosen_logps" in inputs:', "if False:", SCORED),
    train("prompt tokens counted", 'labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)', 'labels = inputs["input_ids"]', SCORED),
    train("mask not shifted", 'mask = inputs["completion_mask"][:, 1:].bool()', 'mask = inputs["completion_mask"][:, :-1].bool()', SCORED),
    # what configurations and trainers share
    use("shared: fsdp on CPUs", SETTINGS, "if config.fsdp and config.use_cpu:", "if False:"),
    use("shared: problems are not raised", SETTINGS, "    if problems:\n", "    if False:\n"),
    use("shared: arguments of another trainer", COMMON, "if not isinstance(args, wanted):", "if False:"),
    lengths("shared: batches are made equal", SETTINGS, 'if config.train_sampling_strategy == "batch_rebalance":', "if False:"),
    lengths("shared: casts under autocast", COMMON, 'active=self.accelerator.mixed_precision in ("bf16", "fp16")', "active=False"),
    recipe("shared: the default in another form is refused", SETTINGS, "(default, (also or {}).get(name, default))", "(default,)"),
    # shared prompts
    exact("positions run on", PLAN, "put([prompt[-1], *answer[:-1]], prefix, answer, number, index)", "put([prompt[-1], *answer[:-1]], here - start, answer, number, index)"),
    exact("cells off by one", PLAN, "cells += range(row * (len(columns) - 1) + begin - 1, row * (len(columns) - 1) + begin - 1 + len(answer))", "cells += range(row * (len(columns) - 1) + begin, row * (len(columns) - 1) + begin + len(answer))"),
    exact("answers keep the prompt's answer number", PLAN, "put([prompt[-1], *answer[:-1]], prefix, answer, number, index)", "put([prompt[-1], *answer[:-1]], prefix, answer, number, 0)"),
    exact("one group for all", PLAN, "put([prompt[-1], *answer[:-1]], prefix, answer, number, index)", "put([prompt[-1], *answer[:-1]], prefix, answer, 0, index)"),
    exact("left padding is prompt", PLAN, "prompt = tuple(ids[row][present[0] : begin])", "prompt = tuple(ids[row][:begin])"),
    exact("contiguity unchecked", PLAN, "if wanted != present[-len(wanted) :] or", "if"),
    exact("dense leak", ATTENTION, "(plan.answer[None, :] == 0) | (plan.answer[:, None] == plan.answer[None, :])", "(plan.answer[None, :] >= 0) | (plan.answer[:, None] == plan.answer[None, :])"),
    exact("dense groups leak", ATTENTION, "seen &= plan.group[:, None] == plan.group[None, :]", "pass"),
    exact("flex leak", ATTENTION, "& ((answer[key] == 0) | (answer[query] == answer[key]))", "& (answer[key] <= answer[query])"),
    exact("cascade leak", ATTENTION, "parts = len(list(alike))\n        spans.append(Span(at, at + parts * length, parts))", "parts = len(list(alike))\n        spans.append(Span(at, at + parts * length, 1))"),
    exact("prefix not attended to by itself", ATTENTION, "spans = [prefix] if prefix else []", "spans = []"),
    exact("no merge", ATTENTION, "own + onto_prefix * (partial - whole).exp()[..., None]", "own + onto_prefix"),
    exact("own part not rescaled", ATTENTION, "own = merged * (so_far - whole).exp()[..., None]", "own = merged"),
    exact("logsumexp of the answer alone in backward", ATTENTION, "                so_far[:] = whole\n", ""),
    exact("no gradient from the prefix", ATTENTION, "zip((dq, dk, dv), (answers, prefix, prefix), found, strict=True)", "zip((dk, dv), (prefix, prefix), found[1:], strict=True)"),
    exact("no gradient to the prefix", ATTENTION, "zip((dq, dk, dv), (answers, prefix, prefix), found, strict=True)", "zip((dq,), (answers,), found[:1], strict=True)"),
    exact("backward always in half precision", ATTENTION, "logsumexp.dtype if longest <= SHORT else query.dtype", "query.dtype"),
    exact("backward never in half precision", ATTENTION, "logsumexp.dtype if longest <= SHORT else query.dtype", "logsumexp.dtype"),
    exact("long answers overlooked", ATTENTION, "max(group.prefix, *group.answers)", "max(group.prefix, group.answers[0])"),
    family("scale forgotten in attention", ATTENTION, "scale = query.shape[-1] ** -0.5 if scaling is None else scaling", "scale = query.shape[-1] ** -0.5"),
    exact("shared heads averaged", ATTENTION, "(shared.shape[1], -1)).sum(dim=2)", "(shared.shape[1], -1)).mean(dim=2)"),
    exact("heads in the wrong order", ATTENTION, "return shared.repeat_interleave(query.shape[1] // shared.shape[1], dim=1)", "return shared.repeat(1, query.shape[1] // shared.shape[1], 1, 1)"),
    family("soft-capping ignored", ATTENTION, '("softcap", "s_aux", "position_bias")', '("s_aux", "position_bias")'),
    family("dropout ignored", ATTENTION, "if changed or dropout:", "if changed:"),
    exact("scale forgotten in backward", HEAD, "(ctx.scale * gradients[0])", "(gradients[0])"),
    exact("scale forgotten in logits", HEAD, "z *= scale", "pass"),
    exact("maximum not subtracted", HEAD, "z -= top[:, None]", "top = top * 0"),
    exact("slope of the target forgotten", HEAD, "y] += 1.0", "y] += 0.0"),
    exact("blocks from the first of a chunk", HEAD, "zip(count(start, block_size)", "zip(count(0, block_size)"),
    exact("chunks all at the start", HEAD, "slope[start : start + len(logits)]", "slope[: len(logits)]"),
    exact("mean logit after the shift", HEAD, "mean_logits[part] = z.mean(dim=-1)", "mean_logits[part] = z.mean(dim=-1) - top"),
    family("check takes anything", SHARED, "within = largest <= TOLERANCE if exact else", "within = True if exact else"),
    family("check in half precision", SHARED, "return value.float() if half else value", "return value"),
    family("any window will do", SHARED, "max_length > window)", "False)"),
    family("ALiBi accepted", SHARED, 'config.model_type in ("bloom", "mpt") or ', ""),
    family("Falcon's ALiBi accepted", SHARED, ' or getattr(config, "alibi", False)', ""),
    family("state accepted", SHARED, 'if getattr(base, "_is_stateful", False) or kinds - {"full_attention", "sliding_attention"}:', "if False:"),
    family("layer kinds ignored", SHARED, 'or kinds - {"full_attention", "sliding_attention"}:', ":"),
    family("chosen implementation overridden", SHARED, 'if chosen not in ("sdpa", "eager", NAME):', "if False:"),
    family("virtual tokens accepted", SHARED, "any(c.is_prompt_learning for c in", "any(False for c in"),
    compiled("the compiled model taken for the model", SHARING, "base = accelerator.unwrap_model(model, keep_torch_compile=False)", "base = accelerator.unwrap_model(model)"),
    compiled("the compiled model not found again", SHARING, "get(id(accelerator.unwrap_model(model, keep_torch_compile=False)), False)", "get(id(accelerator.unwrap_model(model)), False)"),
    compiled("attention compiled for every batch", ATTENTION, "@torch.compiler.disable  #", "#"),
    compiled("the head compiled for every batch", CONTRACT, "    @torch.compiler.disable  #", "    #"),
    sharing("off is on", SHARING, 'if self.mode != "off" and id(base)', "if id(base)"),
    sharing("on falls back", SHARING, 'if reason is not None and self.mode == "on":', "if False:"),
    sharing("fall back in silence", SHARING, 'logger.warning("shared_prefix', 'logger.debug("shared_prefix'),
    sharing("extra inputs dropped", SHARING, "if reason is None and set(batch) != PACKABLE:", "if False:"),
    sharing("the check left out", SHARING, "check_equivalent(forward, few(batch), exact=exact)", "pass"),
    sharing("plan of another batch", SHARING, "if self._plan is None or self._plan[0] is not input_ids:", "if self._plan is None:"),
    sharing("part weighting forgotten", TRAINER, "(self._pairs_in_step or len(result.losses))", "len(result.losses)"),
    sharing("a part left out", TRAINER, "for number, part in enumerate(parts, start=1):", "for number, part in enumerate(parts[:1], start=1):"),
    sharing("parts take the wrong rejected", LENGTHS, "rows = torch.cat([here, here + count])", "rows = torch.cat([here, here])"),
    sharing("parts keep the padding", LENGTHS, "columns = slice(int(used[0]), int(used[-1]) + 1)", "columns = slice(None)"),
    sharing("parts lose a column", LENGTHS, "columns = slice(int(used[0]), int(used[-1]) + 1)", "columns = slice(int(used[0]), int(used[-1]))"),
    sharing("padding logged in evaluation", METRICS, '(name in WORK and mode == "eval")', "False"),
    sharing("budget ignores padding", LENGTHS, "tokens[parts[-1][0]] * (len(parts[-1]) + 1) > budget", "sum(tokens[i] for i in parts[-1]) + tokens[index] > budget"),
    sharing("short ones first", LENGTHS, "key=lambda i: (-tokens[i], i)", "key=lambda i: (tokens[i], i)"),
    exact("filler not counted", PLAN, "filler=fill,", "filler=0,"),
    exact("unpacked copies drop their gradient", PLAN, "picked = values[0].index_select(0, self.source)", "picked = values[0].detach().index_select(0, self.source)"),
    exact("entropy without its sum", HEAD, "torch.linalg.vecdot(shifted, z) / total", "torch.linalg.vecdot(shifted, z)"),
    family("coarse check takes anything", SHARED, 'mean <= 0.2 * float(difference("causal").mean())', "True"),
    family("attention dropout accepted", SHARED, "if dropout := max(map(_attention_dropout, base.modules()), default=0.0):", "if dropout := 0.0:"),
    family("a mask of the model's own ignored", ATTENTION, "if attention_mask is None or attention_mask.shape != (1, 1, 1, 1):", "if False:"),
    sharing("nothing undone", SHARING, "if reason is not None and previous is not None:", "if False:"),
    # reference store, lengths, memory, cost
    store("damage unseen", STORE, "if self._name(data) != name:", "if False:"),
    store("key without the split", STORE, 'struct.pack(f"<{1 + total}q", prompt, *', 'struct.pack(f"<{1 + total}q", 0, *'),
    identity("weights not in the identity", IDENTITY, 'found = {"digest": weights_digest(model), ', 'found = {"digest": "", '),
    identity("configuration not in the identity", IDENTITY, '"config_digest": config_digest(base.config)}', '"config_digest": ""}'),
    identity("adapters not in the identity", IDENTITY, '{"adapter_digest": adapter_digest(model), ', '{"adapter_digest": "", '),
    identity("scales not in the identity", IDENTITY, '"scale_digest": digest_of(scales)}', '"scale_digest": ""}'),
    identity("adapters that are off count", IDENTITY, "and not module.disable_adapters", ""),
    identity("a name is identity", IDENTITY, "if name not in NOT_IDENTITY}", "}"),
    identity("an adapter's name is identity", IDENTITY, "_PLAIN if part == adapter else part", "part"),
    identity("a trained copy is the base", IDENTITY, '_ADDED = ("lora_", "modules_to_save.", ', '_ADDED = ("lora_", '),
    identity("what an older record lacks differs", IDENTITY, "if key in recorded and key in found and ", "if recorded.get(key) != found.get(key) or "),
    identity("spread weights are empty", IDENTITY, 'if parameter is not None and hasattr(parameter, "ds_id"):', "if False:"),
    identity("precision not in the identity", IDENTITY, '"mixed_precision": mixed_precision,', '"mixed_precision": "no",'),
    identity("padding is identity", IDENTITY, 'if name not in ("truncation", "padding")}', "}"),
    swept("the reference's adapter not in the key", PRECOMPUTE, "with as_reference(reference) if own else nullcontext():", "with reference.disable_adapter() if own else nullcontext():"),
    identity("attention not in the identity", IDENTITY, '"attention": str(base.config._attn_implementation),', '"attention": "",'),
    labelled("answers in the wrong order", PRECOMPUTE, "batch[name].chunk(2) for name", "batch[name].chunk(2)[::-1] for name"),
    sweep("non-finite values kept", PRECOMPUTE, "        if bad:", "        if False:"),
    lengths("the same order in every epoch", LENGTHS, "manual_seed(self.seed + self.epoch)", "manual_seed(self.seed)"),
    lengths("the global generator", LENGTHS, "self.lengths, self.batch_size, generator=generator", "self.lengths, self.batch_size"),
    lengths("weights count as activations", MEMORY, "for address, size in storages.items() if address not in weights)", "for size in storages.values())"),
    lengths("what the graph let go counts", MEMORY, "alive: WeakSet[Saved] = WeakSet()", "alive: set[Saved] = set()"),
    lengths("never checkpoint", CHECKPOINTING, "if needed:", "if False:"),
    lengths("truncation forgotten", CHECKPOINTING, "table[:, 1:], max_length)", "table[:, 1:], None)"),
    cost("causal counted whole", FLOPS, "return batch * heads * queries * (queries + 1) / 2", "return float(batch * heads * queries * queries)"),
    cost("backward of adapters counted once", FLOPS, "linear + 2 * lora + 2.5 * attention", "linear + lora + 2.5 * attention"),
    cost("reference forgotten", FLOPS, "backward + head_products * head + reference", "backward + head_products * head"),
    cost("accumulation forgotten", DRY_RUN, "teraflops_per_step=micro * mean_flops", "teraflops_per_step=mean_flops"),
    online("entropy loses its gradient", CONTRACT, "CHUNKED_HEAD if entropy_gradient else _Head", "_Head"),
    online("prompt scored in groups", ONLINE, "labels[:, :-logits_to_keep] = -100", "pass"),
]  # fmt: skip
