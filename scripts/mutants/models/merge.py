"""Merging adapters."""

from mutants.mutant import noticed_by

MERGE, SOUPS = "align/merging/command.py", "align/merging/adapters.py"
merged = noticed_by("tests/models/test_merge.py")
MUTANTS = [
    merged("merge: the scale is left out", SOUPS, "tensors[other].float() * scale", "tensors[other].float()"),
    merged("merge: rank-stabilised scale is plain", SOUPS, "(math.sqrt(rank) if config.use_rslora else rank)", "rank"),
    merged("merge: rank patterns are ignored", SOUPS, "rank_pattern.get(get_pattern_key(list(rank_pattern), name), config.r)", "config.r"),
    merged("merge: alpha patterns are ignored", SOUPS, "alpha_pattern.get(get_pattern_key(list(alpha_pattern), name), config.lora_alpha)", "config.lora_alpha"),
    merged("merge: both factors are weighted", SOUPS, "torch.cat([a for (a, _), _ in used])", "torch.cat([a * w for (a, _), w in used])"),
    merged("merge: factors are summed one by one", SOUPS, "torch.cat([a for (a, _), _ in used]), torch.cat([b * w for (_, b), w in used], dim=1)", "torch.stack([a[:2] for (a, _), _ in used]).sum(0), torch.stack([b[:, :2] * w for (_, b), w in used]).sum(0)"),
    merged("merge: a weight of 0 adds rank", SOUPS, "if w != 0]", "if w is not None]"),
    merged("merge: the merged adapter is scaled twice", SOUPS, "config.r = config.lora_alpha = most", "config.r = most"),
    merged("merge: ranks of modules are forgotten", SOUPS, "{module: rank for module, rank in ranks.items() if rank != most}", "{}"),
    merged("merge: the merged adapter stays rank-stabilised", SOUPS, "config.use_rslora, config.inference_mode", "_, config.inference_mode"),
    merged("merge: half precision stays half", SOUPS, "tensors[key].float(), tensors[other].float() * scale", "tensors[key], tensors[other] * scale"),
    merged("merge: what cannot be merged is dropped", SOUPS, "if left or not factors or config.use_dora or config.target_parameters:", "if not factors:"),
    merged("merge: the reference does not travel", SOUPS, '"merges.txt", REFERENCE_FILE)', '"merges.txt")'),
    merged("merge: the tokenizer does not travel", SOUPS, 'TRAVELS = ("tokenizer*", ', "TRAVELS = ("),
    merged("merge: stock forgets the number of adapters", SOUPS, "ratios[module] = count * cosine / (1 + (count - 1) * cosine)", "ratios[module] = cosine"),
    merged("merge: stock has two adapters always", SOUPS, "(1 + (count - 1) * cosine)", "(1 + cosine)"),
    merged("merge: stock sums", SOUPS, "[ratio / count] * count", "[ratio] * count"),
    merged("merge: stock goes the other way", SOUPS, "cosine = max(0.0, mean_cosine", "cosine = (lambda *x: x[1])(0.0, mean_cosine"),
    merged("merge: cosines are not of products", SOUPS, "((b.T @ d) * (a @ c.T)).sum()", "(b.T @ d).sum() * (a @ c.T).sum()"),
    merged("merge: a weight change of 0 is nan", SOUPS, " if norms[i] * norms[j] > 0 else 0.0", ""),
    merged("merge: references are not compared", MERGE, "if not _same_base(other, first):", "if False:"),
    merged("merge: digests are not compared", MERGE, "return same_identity(mine, theirs) and", "return"),
    merged("merge: another reference stands for the base", MERGE, ' or names[0] == names[1])', " or True)"),
    merged("merge: one without reference is taken", MERGE, "if any(known) and not all(known):", "if False:"),
    merged("merge: modules are not compared", MERGE, "if other.factors.keys() != first.factors.keys() or _shapes(other) != _shapes(first):", "if False:"),
    merged("merge: one adapter is enough", MERGE, "if len(adapters) < 2:", "if len(adapters) < 1:"),
    merged("merge: stock of a common beginning", MERGE, "if with_stock and any(", "if False and any("),
    merged("merge: weights may sum to anything", MERGE, " or abs(sum(weights) - 1) > 1e-6", ""),
    merged("merge: weights may be negative", MERGE, "math.isfinite(w) and w >= 0", "math.isfinite(w)"),
    merged("merge: a folder is written over", MERGE, "if out.exists() and any(out.iterdir()):", "if False:"),
    merged("merge: a sweep misses its end", MERGE, "steps = points - 1", "steps = points"),
]  # fmt: skip
