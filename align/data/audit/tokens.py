"""Tokenizes preference pairs as a trainer will before weights are loaded, to find those that cannot be told apart."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from align.data.rows.truncation import room, truncated
from align.findings import Finding, Level, printable

from .encoding import Encoded, encode_all
from .lengths import PARTS, Lengths, roomy

TAIL = 3  # ChatML writes a line break after the token that ends a turn
AROUND = 3  # tokens shown on either side of where two contexts part
ALL = 0.999999  # share of pairs beyond which a prompt that leaves no room for an answer is an error
FEW_CUT = 0.05  # share of pairs up to which truncation is no more than a note


class Limits(NamedTuple):
    """What tokens are held against."""

    max_length: int | None
    """Longest row in tokens; the rest of an answer is cut off."""
    context: int | None
    """Positions the model was made for."""
    stops: frozenset[int]
    """Tokens that end a generated answer."""
    special: frozenset[int]
    """Tokens that say nothing themselves; the one for unknown text is not among them."""
    begin: int | None
    """The beginning-of-sequence token."""


def no_end(tokenizer: PreTrainedTokenizerBase, where: str) -> list[Finding]:
    """Whether the tokenizer names a token that ends an answer."""
    if tokenizer.eos_token_id is not None:
        return []
    message = "the tokenizer names no end-of-sequence token, so answers cannot be ended or padded"
    return [Finding("error", "eos-missing", where, message, "set eos_token in tokenizer_config.json")]


def inspect_tokens(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    where: str,
    max_length: int | None = None,
    context: int | None = None,
    stops: Iterable[int] = (),
    numbers: Sequence[int] | None = None,
) -> tuple[list[Finding], Lengths]:
    """Tokenise a set as training will, and say what is wrong with the result.

    Args:
        dataset: Normalised pairs.
        tokenizer: The model's.
        where: What to call the set.
        max_length: Tokens after which the trainer cuts.
        context: Positions the model was made for.
        stops: Tokens that end an answer beside the tokenizer's end-of-sequence token.
        numbers: Number of each row in its source; by default they count from 1.

    Returns:
        Findings, and tokens of prompt, chosen and rejected of each pair that could be tokenised, before truncation.
    """
    nothing = np.zeros((0, len(PARTS)), dtype=np.int64)
    if not isinstance(dataset[0]["prompt"], str) and tokenizer.chat_template is None:
        message = "the rows are chat messages, and the tokenizer has no chat template"
        remedy = "use an instruction-tuned model, save a template with the tokenizer, or write the rows as plain text"
        return [Finding("error", "no-chat-template", where, message, remedy)], nothing
    if without_end := no_end(tokenizer, where):
        return without_end, nothing
    ids: Any = tokenizer
    limits = Limits(
        max_length,
        context,
        stops=frozenset({ids.eos_token_id, *stops}),
        special=frozenset(ids.all_special_ids) - {ids.unk_token_id},
        begin=ids.bos_token_id,
    )
    seen = _Seen(tokenizer, limits, range(1, len(dataset) + 1) if numbers is None else numbers)
    for position, pair in enumerate(encode_all(dataset, tokenizer)):
        seen.add(position, pair)
    lengths = np.array(seen.lengths, dtype=np.int64).reshape(-1, len(PARTS))
    header = _header_in_answer(dataset[0], tokenizer)
    return seen.findings(where, lengths, header), lengths


def broken(pair: Encoded, limits: Limits) -> Iterator[str]:
    """Names of the rules that one pair does not meet."""
    answers = (pair.chosen, pair.rejected)
    if pair.left_out:
        yield "prompt-changes-in-context"
    if (pair.prompt + pair.chosen)[:2] == [limits.begin] * 2:
        yield "double-bos"
    if not all(limits.stops.intersection(answer[-TAIL:]) for answer in answers):
        yield "eos-missing"
    if not pair.prompt or any(limits.special.issuperset(answer) for answer in answers):
        yield "empty-after-tokenising"
    left = room(len(pair.prompt), limits.max_length)
    longest = len(pair.prompt) + max(map(len, answers))
    if left == 0:
        yield "prompt-fills-max-length"
    elif pair.chosen == pair.rejected:
        yield "identical-tokens"
    elif pair.chosen[:left] == pair.rejected[:left]:
        yield "identical-after-truncation"
    if left and left < max(map(len, answers)):
        yield "truncation"
    if limits.context is not None and min(longest, limits.max_length or longest) > limits.context:
        yield "longer-than-context"


REMEDIES: dict[str, tuple[Level, str]] = {
    "template-refuses": ("error", "mend these rows, or the tokenizer's chat template"),
    "identical-tokens": ("error", "remove these pairs: they give no gradient"),
    "identical-after-truncation": ("error", "raise train.max_length or remove these pairs: they give no gradient"),
    "empty-after-tokenising": ("error", "remove these pairs"),
    "prompt-changes-in-context": (
        "warning",
        "end prompts on a token boundary (no trailing space), or use a chat template that renders them alike",
    ),
    "no-generation-prompt": ("warning", "use a chat template that honours add_generation_prompt"),
    "double-bos": (
        "warning",
        "take the beginning-of-sequence token out of the texts, or out of the tokenizer's settings",
    ),
    "eos-missing": ("warning", "use the tokenizer's end-of-sequence token at the end of the assistant's turn"),
    "prompt-fills-max-length": ("warning", "raise train.max_length or shorten these prompts: training leaves them out"),
    "longer-than-context": ("warning", "lower train.max_length"),
    "unknown-tokens": ("warning", "use a tokenizer that knows these characters"),
    "truncation": ("warning", "raise train.max_length, or leave long pairs out"),
}
"""How bad each rule is, and what to do; the order is that of the report."""


class _Seen:
    """Counts over the pairs of a set."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limits: Limits, numbers: Sequence[int]) -> None:
        self.tokenizer, self.limits, self.numbers = tokenizer, limits, numbers
        ids: Any = tokenizer
        named = (ids.bos_token_id, ids.eos_token_id, ids.pad_token_id)  # GPT-2 has one token for all
        self.unknown = None if ids.unk_token_id in named else ids.unk_token_id
        self.rows: dict[str, list[int]] = defaultdict(list)
        self.example: dict[str, str] = {}
        self.lengths: list[tuple[int, int, int]] = []
        self.unknowns = self.tokens = self.lost = self.answered = 0

    def add(self, position: int, pair: Encoded | Exception) -> None:
        number = int(self.numbers[position])
        if isinstance(pair, Exception):
            self.rows["template-refuses"].append(number)
            self.example.setdefault("template-refuses", f": {printable(str(pair))!r}")
            return
        self.lengths.append((len(pair.prompt), len(pair.chosen), len(pair.rejected)))
        ids = [*pair.prompt, *pair.chosen, *pair.rejected]
        unknowns = ids.count(self.unknown) if self.unknown is not None else 0
        rules = list(broken(pair, self.limits)) + ["unknown-tokens"] * (unknowns > 0)
        self.unknowns, self.tokens = self.unknowns + unknowns, self.tokens + len(ids)
        if self.limits.max_length is not None and "prompt-fills-max-length" not in rules:
            for answer in (pair.chosen, pair.rejected):
                self.lost += len(answer) - len(truncated(pair.prompt, answer, self.limits.max_length)[1])
            self.answered += len(pair.chosen) + len(pair.rejected)
        for rule in rules:
            self.rows[rule].append(number)
            if rule not in self.example:
                self.example[rule] = self._example(rule, pair)

    def _example(self, rule: str, pair: Encoded) -> str:
        if rule == "prompt-changes-in-context":
            parting = next(a for a in (pair.chosen, pair.rejected) if a[:1] != pair.left_out[:1])
            alone, within = (self._shown(pair.prompt[-AROUND:] + ids[:AROUND]) for ids in (pair.left_out, parting))
            return f": alone ... {alone}, before the answer ... {within}"
        if rule == "eos-missing":
            bad = next(a for a in (pair.chosen, pair.rejected) if not self.limits.stops.intersection(a[-TAIL:]))
            return f": answers end with {self._shown(bad[-TAIL:])}, not with {self._shown(sorted(self.limits.stops))}"
        return ""

    def _shown(self, ids: Sequence[int]) -> str:
        return " ".join(repr(printable(str(self.tokenizer.decode([i])), 20)) for i in ids)

    def findings(self, where: str, lengths: Lengths, header: str | None) -> list[Finding]:
        total = len(lengths) + len(self.rows["template-refuses"])
        lost = f"which loses {self.lost / max(self.answered, 1):.1%} of the answers' tokens"
        extra = {
            "unknown-tokens": f", {self.unknowns / max(self.tokens, 1):.2%} of all tokens",
            "truncation": f" are cut to {self.limits.max_length} tokens, {lost}",
            "longer-than-context": f" have more tokens than the {self.limits.context} positions of the model",
        }
        found = []
        for rule, (level, remedy) in REMEDIES.items():
            rows, share = self.rows[rule], len(self.rows[rule]) / total
            if rule == "no-generation-prompt" and header is not None:
                message = f"the chat template ignores add_generation_prompt: answers begin with {printable(header)!r}"
                found.append(Finding(level, rule, where, message, remedy))
            if not rows:
                continue
            if rule == "prompt-fills-max-length" and share > ALL:
                level = "error"
            if rule == "truncation":
                level = "note" if share <= FEW_CUT else level
                kept = 0.99 if share > 0.01 else 1.0
                remedy = f"train.max_length={roomy(lengths, kept)} keeps {kept:.0%} of all pairs whole"
            message = f"{len(rows)} of {total} pairs{extra.get(rule, '')}{self.example.get(rule, '')}"
            found.append(Finding(level, rule, where, message, remedy, tuple(rows)))
        return found


def _header_in_answer(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What a template that ignores `add_generation_prompt` writes between prompt and answer, if not just spaces."""
    if isinstance(row["prompt"], str):
        return None
    template: Any = tokenizer.apply_chat_template
    try:
        bare, asked = (template(row["prompt"], tokenize=False, add_generation_prompt=on) for on in (False, True))
        whole = template(row["prompt"] + row["chosen"], tokenize=False)
    except Exception:  # reported as template-refuses
        return None
    header = whole.removeprefix(bare).partition(row["chosen"][-1]["content"].strip())[0]
    return header if bare == asked and header.strip() else None
