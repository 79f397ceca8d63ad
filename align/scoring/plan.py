"""Plans which tokens go where: a padded batch as one packed row in which answers to a prompt share it.

Rows with the same prompt form a group, `prefix | answer 1 | answer 2 | …`, and all groups stand in one row. The prefix
is the prompt without its last token; every answer begins with a copy of that token (it predicts the answer's first) and
ends before its own last token (which predicts nothing). So each position predicts at most one target, as in an ordinary
row, and a pair costs P - 1 + C + R positions in place of 2P + C + R.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

IGNORED = -100
FILLER = 2**30  # a group's number for positions that only fill the row up


@dataclass(frozen=True)
class Group:
    """Where one prompt and its answers stand in the packed row: `prefix` positions from `start`, then each answer."""

    start: int
    prefix: int
    answers: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A packed row, and where its log-probabilities belong in the padded batch it was made from.

    Attributes:
        input_ids: Token of each packed position, shape (1, packed).
        position_ids: Its position in its own row; answers go on where the prefix ends. Shape (1, packed).
        targets: The token it predicts, or -100. Shape (1, packed).
        group: Number of its group. Shape (packed,).
        answer: 0 in a prefix, else the number of the answer within its group. Shape (packed,).
        source: Positions that have a target, shape (scored,).
        cells: Cells of the flattened (rows, time - 1) output that they fill, shape (scored,).
        rows: Rows of the padded batch.
        time: Columns of the padded batch.
        groups: The same layout as numbers.
        filler: Positions at the end that belong to no group.
    """

    input_ids: Int[Tensor, "1 packed"]
    position_ids: Int[Tensor, "1 packed"]
    targets: Int[Tensor, "1 packed"]
    group: Int[Tensor, " packed"]
    answer: Int[Tensor, " packed"]
    source: Int[Tensor, " scored"]
    cells: Int[Tensor, " scored"]
    rows: int
    time: int
    groups: tuple[Group, ...]
    filler: int

    def to(self, device: torch.device) -> "Plan":
        """The plan with its tensors on `device`."""
        moved = {f.name: value.to(device) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **moved)

    def unpack(self, values: Tensor) -> Tensor:
        """Values per packed position, shape (1, packed), as the (rows, time - 1) tensor of the padded batch.

        Zero outside the answers; differentiable.
        """
        picked = values[0].index_select(0, self.source)
        return picked.new_zeros(self.rows * (self.time - 1)).index_copy(0, self.cells, picked).view(self.rows, -1)


def make_plan(
    input_ids: Int[Tensor, "rows time"],
    attention_mask: Int[Tensor, "rows time"],
    answer_mask: Bool[Tensor, "rows time"],
    *,
    multiple_of: int = 1,
) -> Plan:
    """Plan the packed row of a padded batch, on the CPU.

    Args:
        input_ids: Prompt and answer of each row, padded on either side.
        attention_mask: 1 on real tokens, which are contiguous.
        answer_mask: True on the tokens to score, which run from somewhere to the end of the row's real tokens.
        multiple_of: Fill the row up to a multiple of this many positions, for kernels that work in blocks.

    Raises:
        ValueError: If the scored tokens of a row are not the end of its real tokens.
    """
    # Answers by their prompt: which tokens of each row are scored, and what stands before them.
    columns = range(input_ids.shape[1])
    ids, real, scored = input_ids.tolist(), attention_mask.tolist(), answer_mask.tolist()
    answers: dict[tuple[int, ...], list[tuple[int, int, list[int]]]] = {}
    for row in range(len(ids)):
        present = [t for t in columns if real[row][t]]
        wanted = [t for t in present if scored[row][t]]
        if not wanted:
            continue  # cut away entirely: it contributes zeros
        if wanted != present[-len(wanted) :] or present != list(range(present[0], present[-1] + 1)):
            raise ValueError(f"row {row}: the tokens to score must be the last of a contiguous row")
        begin = max(wanted[0], present[0] + 1)  # nothing predicts a row's first token
        prompt = tuple(ids[row][present[0] : begin])
        if begin <= present[-1]:
            answers.setdefault(prompt, []).append((row, begin, ids[row][begin : present[-1] + 1]))
    # One row: each prompt once without its last token, which opens every answer to it.
    packed: dict[str, list[int]] = {name: [] for name in ("ids", "positions", "targets", "group", "answer")}
    source: list[int] = []
    cells: list[int] = []
    groups = []

    def put(tokens: list[int], first: int, targets: list[int], group: int, answer: int) -> None:
        packed["ids"] += tokens
        packed["positions"] += range(first, first + len(tokens))
        packed["targets"] += targets
        packed["group"] += [group] * len(tokens)
        packed["answer"] += [answer] * len(tokens)

    for number, (prompt, found) in enumerate(answers.items()):
        start, prefix = len(packed["ids"]), len(prompt) - 1
        put(list(prompt[:-1]), 0, [IGNORED] * prefix, number, 0)
        for index, (row, begin, answer) in enumerate(found, start=1):
            here = len(packed["ids"])
            put([prompt[-1], *answer[:-1]], prefix, answer, number, index)
            source += range(here, here + len(answer))
            cells += range(row * (len(columns) - 1) + begin - 1, row * (len(columns) - 1) + begin - 1 + len(answer))
        groups.append(Group(start, prefix, tuple(len(answer) for _, _, answer in found)))
    # Filler up to a length that kernels like, belonging to nobody.
    fill = -len(packed["ids"]) % multiple_of if groups else 1
    put([0] * fill, 0, [IGNORED] * fill, FILLER, 0)
    tensors = {name: torch.tensor(values, dtype=torch.long) for name, values in packed.items()}
    return Plan(
        input_ids=tensors["ids"][None],
        position_ids=tensors["positions"][None],
        targets=tensors["targets"][None],
        group=tensors["group"],
        answer=tensors["answer"],
        source=torch.tensor(source, dtype=torch.long),
        cells=torch.tensor(cells, dtype=torch.long),
        rows=len(ids),
        time=len(columns),
        groups=tuple(groups),
        filler=fill,
    )
