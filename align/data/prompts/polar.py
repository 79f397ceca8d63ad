"""Writes a reference answer before the one that a reward model scores (POLAR).

The text is `prompt + reference <split> prompt + answer <reward>`, in two markers of plain text, so that no vocabulary
grows. Source: Dou et al. 2025, Pre-Trained Policy Discriminators are General Reward Models (arXiv:2507.05197).

Two things differ from the paper. Nothing is pre-trained here on pairs of policies: a reward model is trained on the
templated rows by Bradley-Terry, which is the paper's fine-tuning where the reference is the best of three answers. And
the reward is read where the model of `PreferenceModelTrainer` ends, after the second marker.
"""

from collections.abc import Mapping, Sequence
from typing import Any

SPLIT, REWARD = "\n<split>\n", "\n<reward>"
Text = str | Sequence[Mapping[str, str]]


def polar_row(prompt: Text, reference: Text, chosen: Text, rejected: Text) -> dict[str, str]:
    """A preference pair that carries its reference, in plain text, for a reward model.

    Args:
        prompt: Text, or messages, whose contents are joined by line breaks.
        reference: An answer to the prompt that is known to be good.
        chosen: The answer preferred, given the reference.
        rejected: The other.

    Returns:
        `prompt`, `chosen` and `rejected`: together the text above for either answer.

    Raises:
        ValueError: If something is empty, or holds a marker of the template.
    """
    return {
        "prompt": polar_prompt(prompt, reference),
        "chosen": polar_answer(chosen, "chosen"),
        "rejected": polar_answer(rejected, "rejected"),
    }


def polar_prompt(prompt: Text, reference: Text) -> str:
    """All of the text before the answer.

    Raises:
        ValueError: If something is empty, or holds a marker of the template.
    """
    asked = _plain(prompt, "prompt")
    return f"{asked}\n{_plain(reference, 'reference')}{SPLIT}{asked}\n"


def polar_answer(answer: Text, name: str = "answer") -> str:
    """The text of the answer and what follows it.

    Raises:
        ValueError: If it is empty, or holds a marker of the template.
    """
    return f"{_plain(answer, name)}{REWARD}"


def _plain(value: Any, name: str) -> str:
    text = value if isinstance(value, str) else "\n".join(message["content"] for message in value or ())
    if not text.strip():
        raise ValueError(f"{name}: empty; the template needs prompt, reference and answer")
    for marker in (SPLIT, REWARD):
        if marker.strip() in text:
            raise ValueError(f"{name}: holds {marker.strip()!r}, a marker of the template; take it out")
    return text
