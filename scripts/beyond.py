"""What the claims that this machine cannot tell would cost at 1B and 7B: recipe, runs, and GPU hours from counted FLOPs.

Training is counted as `alignkit check --deep` counts it (`align.scoring.flops.step_flops`): LoRA r=16 on all linear maps, shared
prompts, activations computed again in backward, the reference in the step. Sampling is a forward pass of each token. Hours are FLOPs
over what a GPU of 989 TFLOP/s (H100, bf16, dense) does at the shares of it that are assumed below; nothing here was run.

Run: python scripts/beyond.py    (prints the table that `claims_page.py` shows)
"""

from typing import NamedTuple

from align.scoring.flops import Architecture, step_flops

PEAK = 989e12
TRAINING, SAMPLING = 0.4, 0.05
"""Shares of the peak that are assumed: of training steps, and of sampling, which memory bounds."""
RANK = 16


class Decoder(NamedTuple):
    """A Llama-shaped model, as its configuration has it."""

    name: str
    width: int
    layers: int
    mlp: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def architecture(self) -> Architecture:
        """With LoRA on every linear map."""
        kv = self.width * self.kv_heads // self.heads
        maps = [(self.width, self.width)] * 2 + [(self.width, kv)] * 2 + [(self.width, self.mlp)] * 3
        first = [(self.width, self.width), (self.width, kv), (self.width, kv)]
        return Architecture(
            linear=self.layers * sum(a * b for a, b in maps), lora=self.layers * RANK * sum(a + b for a, b in maps),
            first_linear=sum(a * b for a, b in first), first_lora=RANK * sum(a for a, _ in first),
            layers=self.layers, attention_width=self.width, head=self.width * self.vocabulary,
        )  # fmt: skip


MODELS = {
    "1B": Decoder("meta-llama/Llama-3.2-1B-Instruct", 2048, 16, 8192, 32, 8, 128_256),
    "7B": Decoder("mistralai/Mistral-7B-Instruct-v0.2", 4096, 32, 14_336, 32, 8, 32_000),
}


class Trial(NamedTuple):
    """What it takes to try a claim."""

    claim: str
    command: str
    """With MODEL in the place of a model of the size."""
    runs: int
    """Conditions that are compared, times seeds."""
    groups: int
    """Prompts that a run learns from, with repetitions."""
    prompt: int
    answers: tuple[int, ...]
    """Tokens of each answer that is learnt from."""
    reference: bool = True
    sampled: int = 0
    """Answers that a run samples while it is trained, of as many tokens as the first."""


TRIALS = [
    Trial("RPO keeps chosen answers likely, and mitigates over-optimisation", "alignkit sweep rpo/smollm2-ultrafeedback -o OUT train.eta=0,0.005,0.05,0.5 --seeds 3 model.model_name_or_path=MODEL", 12, 61_135, 200, (300, 300)),
    Trial("of the divergences, reverse KL reaches the highest reward, forward KL is the most diverse", "alignkit sweep fdpo/smollm2-ultrafeedback -o OUT train.divergence=reverse_kl,forward_kl,jensen_shannon,chi_squared_kl --seeds 3 model.model_name_or_path=MODEL", 12, 61_135, 200, (300, 300)),
    Trial("rounds beat one shot (DNO)", "alignkit train papers/dno-prct model.model_name_or_path=MODEL, and the same with rounds.count=1 'rounds.prompts={each: 60000}' train.learning_rate=5.0e-5; three seeds", 6, 60_000, 200, (300, 300), sampled=300_000),
    Trial("moving weights beat fixed ones in hypervolume", "alignkit train papers/dynamic-reward-weighting-hypervolume model.model_name_or_path=MODEL, and the same with train.weighting=fixed train.weighting_options={}, and papers/dynamic-reward-weighting-gradient; three seeds", 9, 27_000, 120, (800,) * 8, reference=True, sampled=216_000),
    Trial("DFT and ASFT generalise better than SFT", "alignkit sweep supervised/dft-math -o OUT method=sft,dft,asft --seeds 3 model.model_name_or_path=MODEL", 9, 100_000, 120, (350,), reference=False),
    Trial("CoPG learns from off-policy data", "alignkit sweep pairwise/copg-ultrafeedback -o OUT method=copg,dpo,ipo --seeds 3 model.model_name_or_path=MODEL", 9, 61_135, 200, (300, 300)),
]  # fmt: skip


def hours(model: Architecture, trial: Trial) -> float:
    """GPU hours of all runs of a trial."""
    group = [(trial.prompt, *trial.answers)]
    step = step_flops(model, group, shared=True, checkpointing=True, reference_online=trial.reference)
    token = 2.0 * (model.linear + model.lora + model.head)
    attended = 4.0 * model.layers * model.attention_width * (trial.prompt + trial.answers[0] / 2)
    sampled = trial.sampled * trial.answers[0] * (token + attended)
    return trial.runs * (trial.groups * step / TRAINING + sampled / SAMPLING) / PEAK / 3600


def shown(value: float) -> str:
    """To two digits."""
    return f"{float(f'{value:.2g}'):g}"


def rows() -> list[tuple[str, str, str]]:
    """Claim, command, and hours by size."""
    return [
        (
            one.claim,
            one.command,
            ", ".join(f"{size} {shown(hours(model.architecture, one))} h" for size, model in MODELS.items()),
        )
        for one in TRIALS
    ]


def main() -> None:
    """Print the table."""
    for claim, command, cost in rows():
        print(f"{claim}\n  {command}\n  {cost}")


if __name__ == "__main__":
    main()
