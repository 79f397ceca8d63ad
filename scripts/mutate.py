"""Break the code on purpose, one line at a time; a mutant that survives its tests is a missing test.

Each mutant names a file, a piece of text that must occur in it exactly once, what takes its place, and the tests that
should notice. A mutant that no longer applies is an error, so the list cannot rot. Copies of the project are broken,
two at a time, never the working tree. Run: python scripts/mutate.py [NAME-PART ...]
"""

import os
import queue
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PREFERENCE = "align/losses/preference.py"
DIVERGENCES = "align/losses/divergences.py"
METRICS = "align/trainers/metrics.py"
TRAINER = "align/trainers/preference.py"
CONTRACT = "align/trainers/trl_contract.py"
LOSS_TESTS = ("tests/test_losses.py", "tests/test_divergences.py")
TRAINER_TESTS = ("tests/test_metrics.py", "tests/test_parity.py", "tests/test_trl_contract.py", "tests/test_use.py")


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def loss(name: str, old: str, new: str, file: str = PREFERENCE) -> Mutant:
    return Mutant(name, file, old, new, LOSS_TESTS)


def train(name: str, old: str, new: str, file: str = TRAINER) -> Mutant:
    return Mutant(name, file, old, new, TRAINER_TESTS)


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
    train("sets overwrite each other", 'logs.update({f"{prefix}_{name}": value', 'logs.update({f"eval_{name}": value', TRAINER),
    train("sum over the batch", "loss = result.losses.mean()", "loss = result.losses.sum()"),
    train("chosen and rejected swapped in the batch", "policy = Pair(*sequence_logps(scored.token_logps, scored.mask).chunk(2))", "policy = Pair(*sequence_logps(scored.token_logps, scored.mask).chunk(2)[::-1])"),
    train("label smoothing ignored", "dpo_loss(rewards, label_smoothing=self.args.label_smoothing)", "dpo_loss(rewards)"),
    train("eta ignored", "eta=self.args.eta,", "eta=0.005,"),
    train("reduction ignored", "sft_reduction=self.args.sft_reduction,", 'sft_reduction="sum",'),
    train("silent dropout", "if disable_dropout and isinstance", "if False and isinstance"),
    train("reference with dropout", "with dropout_off(self.model, self.ref_model):", "with dropout_off():"),
    train("reference with the adapter on", "trainer.compute_ref_log_probs(model, inputs)", "(s.detach() for s in score(model, inputs)[0].token_logps.sum(1).chunk(2))", CONTRACT),
    train("cached reference ignored", 'if "ref_chosen_logps" in inputs:', "if False:", CONTRACT),
    train("prompt tokens counted", 'labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)', 'labels = inputs["input_ids"]', CONTRACT),
    train("mask not shifted", 'mask = inputs["completion_mask"][:, 1:].bool()', 'mask = inputs["completion_mask"][:, :-1].bool()', CONTRACT),
]  # fmt: skip


def killed_by(mutant: Mutant, root: Path) -> str | None:
    """The first failing test in the copy at `root`, or None if all pass."""
    path = root / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *mutant.tests]
        env = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode == 0:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not lines:
        raise SystemExit(f"mutant {mutant.name!r}: the tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return lines[0].split(" - ")[0]


def main(parts: list[str]) -> int:
    chosen = [m for m in MUTANTS if not parts or any(part in m.name for part in parts)]
    for mutant in chosen:
        count = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)
        if count != 1:
            raise SystemExit(
                f"mutant {mutant.name!r} no longer applies: its text occurs {count} times in {mutant.file}"
            )
    survivors = []
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(2):
            copy = Path(scratch) / f"{number}"
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".cache", "runs", "__pycache__"))
            copies.put(copy)

        def attempt(mutant: Mutant) -> tuple[Mutant, str | None]:
            copy = copies.get()
            try:
                return mutant, killed_by(mutant, copy)
            finally:
                copies.put(copy)

        for number, (mutant, killer) in enumerate(pool.map(attempt, chosen), start=1):
            print(
                f"{number:2}/{len(chosen)} {'killed  ' if killer else 'SURVIVED'} {mutant.name:42} {killer or ''}",
                flush=True,
            )
            survivors += [] if killer else [mutant.name]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
