"""Several rewards, a rule that keeps what it is told, and small runs on them, for tests."""

import tiny
import torch
from datasets import Dataset
from groups import known
from peft import LoraConfig
from transformers import TrainerCallback

from align.configs.own_losses import TPPOConfig
from align.models.tiny import tiny_model, tiny_tokenizer
from align.trainers.windows.truncated import TPPOTrainer
from align.weighting import Weighting, WeightingRule

WORDS = ("say hi", "count to three please", "up", "name a colour", "what is two", "sing", "why not", "go on then")
PROMPTS = [[{"role": "user", "content": text}] for text in WORDS]


def text_of(completion):
    return completion[0]["content"]


def vowels(completions, **_):
    return [float(sum(letter in "aeiou" for letter in text_of(c))) for c in completions]


def low(completion_ids, **_):
    return [sum(i < 130 for i in ids) / len(ids) for ids in completion_ids]


def first(completion_ids, **_):
    return [ids[0] / 261 for ids in completion_ids]


def sometimes(completion_ids, **_):
    """Applies to every other completion, beginning with the first; the last does not matter."""
    return [ids[0] / 261 if row % 2 == 0 else None for row, ids in enumerate(completion_ids)]


REWARDS = [vowels, low, first]


class Told(WeightingRule):
    """Weights that are given, and the statistics that it was told."""

    needs = "gradients"
    remembered = ("count",)

    def __init__(self, base, weights=None):
        super().__init__(base)
        self.given = self.base.float() if weights is None else torch.tensor(weights)
        self.told, self.count = [], 0

    def update(self, stats):
        self.told.append(stats)
        self.count += 1
        return Weighting(self.given * (1 + 0.1 * self.count), metrics={"count": float(self.count)})


class ToldMeans(Told):
    needs = "rewards"


def dynamic(
    cls,
    config,
    tmp_path,
    *,
    rewards=None,
    rule=None,
    eval_data=None,
    lora=None,
    prompts=PROMPTS,
    columns=None,
    classes=None,
    **kw,
):
    settings = {
        "output_dir": str(tmp_path), "max_steps": 3, "per_device_train_batch_size": 8, "max_completion_length": 8,
        "learning_rate": 0.01, "use_cpu": True, "bf16": False, "report_to": "none", "logging_steps": 1,
        "save_strategy": "no", "gradient_checkpointing": False, "beta": 0.0, "disable_tqdm": True, "max_grad_norm": 0.0,
        "shared_prefix": "off", "num_generations": 4,
    }  # fmt: skip
    tokenizer = tiny_tokenizer()
    more = {} if rule is None else {"rule": rule}
    return cls(
        model=tiny_model(tokenizer),
        reward_funcs=list(REWARDS if rewards is None else rewards),
        args=config(**settings | kw),
        train_dataset=Dataset.from_dict({"prompt": list(prompts), **(columns or {})}),
        eval_dataset=eval_data,
        processing_class=tokenizer,
        reward_processing_classes=classes,
        peft_config=LoraConfig(**tiny.LORA | (lora or {})),
        **more,
    )


def run(*args, **kw):
    trainer = dynamic(*args, **kw)
    trainer.train()
    return trainer


TEXTS = [f"it is {'so ' * place}done" for place in range(len(PROMPTS))]
"""A demonstration for each of PROMPTS."""


def solved(prompts, completion_ids, **_):
    """Nothing solves the prompts with an `a` in them; of the others, what has an even first token."""
    pairs = zip(prompts, completion_ids, strict=True)
    return [0.0 if "a" in p[0]["content"] else float(ids[0] % 2 == 0) for p, ids in pairs]


def answered(kind, tmp_path, *, rewards=(solved,), columns=None, **kw):
    """A trainer on answers that are known, by prompt and place in the group, whichever process they are on."""
    settings = {"per_device_train_batch_size": 16, "optim": "sgd", "learning_rate": 0.5}
    trainer = dynamic(*kind, tmp_path, rewards=rewards, columns=columns, **settings | kw)

    def answers(ids, *_, **__):
        first = trainer.accelerator.process_index * len(ids)
        return [known(one, (first + place) % trainer.num_generations) for place, one in enumerate(ids)], None

    trainer._generate_single_turn = answers
    return trainer


def continued(trainer, answer=None):
    """Let a T-PPO trainer write answers that are known, a window at a time; by default those of `known`, and an end."""
    end = trainer.eos_token_ids[0]

    def window(asked, *_, **__):
        begun = [len(tokens) for tokens in trainer.slots.tokens]
        prompts = [row[: len(row) - length] for row, length in zip(asked, begun, strict=True)]
        whole = [[*known(ids, 0), end] if answer is None else answer(ids) for ids in prompts]
        return [own[n : n + trainer.args.window_length] for own, n in zip(whole, begun, strict=True)]

    trainer.sampled_window = window
    return trainer


WINDOWS = {
    "num_generations": 1, "per_device_train_batch_size": 4, "window_length": 3, "max_completion_length": 12, "optim": "sgd",
    "learning_rate": 0.5, "value_learning_rate": 0.05, "max_steps": 4,
}  # fmt: skip


def by_tokens(completion_ids, **_):
    """Nothing for some answers, by their tokens."""
    return [None if sum(ids) % 5 == 0 else sum(ids) % 7 / 7 for ids in completion_ids]


def windowed(tmp_path, *, answer=None, rewards=(by_tokens, low), **kw):
    """T-PPO on answers that are known: three tokens of four answers a step."""
    return continued(dynamic(TPPOTrainer, TPPOConfig, tmp_path, rewards=rewards, **WINDOWS | kw), answer)


def taught(trainer, seed=5):
    """The trainer, whose value head says something."""
    head = trainer.values
    head.weight.data.copy_(0.3 * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed)))
    head.bias.data.fill_(0.1)
    return trainer


def head_of(trainer):
    """Its value head, a vector."""
    return torch.cat([trainer.values.weight.detach(), trainer.values.bias.detach()[None]])


class Gradients(TrainerCallback):
    """What backward left before each optimizer step."""

    def __init__(self, trainer):
        self.trainer, self.seen = trainer, []
        trainer.add_callback(self)

    def on_pre_optimizer_step(self, args, state, control, **_):
        parameters = [p for p in self.trainer.model.parameters() if p.requires_grad]
        self.seen.append(flat([p.grad for p in parameters], parameters))


def gradient(trainer):
    """The trainer after training, begun with random B, and its gradient: the mean over steps."""
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:  # else A has no gradient
            weight.data = 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
    watched = Gradients(trainer)
    trainer.train()
    return trainer, torch.stack(watched.seen).mean(dim=0)


class Oracle(TrainerCallback):
    """Before each optimizer step: what backward left, and K+1 losses of their own, the last without advantages."""

    def __init__(self, trainer):
        self.trainer, self.advantages, self.steps = trainer, None, []
        estimate = trainer._advantages
        trainer._advantages = lambda *args: setattr(self, "advantages", estimate(*args)) or self.advantages

    def on_pre_optimizer_step(self, args, state, control, **_):
        trainer = self.trainer
        parameters = [p for p in trainer.model.parameters() if p.requires_grad]
        columns = torch.cat([self.advantages, torch.zeros(len(self.advantages), 1)], dim=1).float()
        gradients = []
        for column in columns.T:
            losses = [
                trainer._compute_loss(trainer.model, batch | {"advantages": column[batch["row"]]})
                for batch in trainer._buffered_inputs
            ]
            loss = sum(losses) / (1 if trainer.loss_is_scaled_for_ga else len(losses))
            gradients.append(flat(torch.autograd.grad(loss, parameters, allow_unused=True), parameters))
        seen = flat([p.grad for p in parameters], parameters)
        self.steps.append((seen, torch.stack(gradients), trainer.weighting.weights))


def flat(gradients, parameters):
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g.detach().clone()).flatten() for g, p in pairs])
