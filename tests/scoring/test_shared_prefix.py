"""A packed row gives the log-probabilities and gradients of padded ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import LEFT, built, compare, gradients, padded, random
from torch.nn.attention.flex_attention import flex_attention
from torch.testing import assert_close

from align.scoring import attention, head
from align.scoring.attention import CascadeAttention
from align.scoring.head import FrozenHead
from align.scoring.plan import FILLER, Group, make_plan
from align.scoring.shared_prefix import SharedPrefixModel, prepare
from align.trainers.shared.trl_contract import fast_head


@pytest.fixture(scope="module")
def llama():
    model = built(lora=True)
    prepare(model)
    return model


tokens = st.integers(3, 47)


@st.composite
def batches(draw):
    """Pairs as in DPO: chosen rows, then rejected rows; prompts repeat, answers may be equal or cut to nothing."""
    prompts = draw(st.lists(st.lists(tokens, min_size=1, max_size=10), min_size=1, max_size=3))
    sides = [], []
    for _ in range(draw(st.integers(1, 4))):
        prompt = draw(st.sampled_from(prompts))
        answers = [draw(st.lists(tokens, min_size=1, max_size=draw(st.sampled_from([1, 4, 14])))) for _ in range(2)]
        answers = answers[:1] * 2 if draw(st.integers(0, 4)) == 0 else answers
        for side, answer in zip(sides, answers, strict=True):
            side.append((prompt, answer))
    cut = draw(st.one_of(st.none(), st.integers(2, 20)))
    return padded([*sides[0], *sides[1]], left=draw(st.booleans()), max_length=cut)


@settings(max_examples=200)
@given(batches())
def test_any_batch_scores_alike_in_cascades(llama, batch):
    compare(llama, batch, "cascade")


@settings(max_examples=50)
@given(batches())
def test_any_batch_scores_alike_under_a_dense_mask(llama, batch):
    compare(llama, batch, "dense")


def test_batches_score_alike_in_flex_attention(llama, monkeypatch):
    """On a CPU it has no gradient, and compiling it takes longer than all other tests."""
    plain = lambda q, k, v, training, **kw: flex_attention(q, k, v, **kw)  # noqa: E731
    monkeypatch.setattr("transformers.integrations.flex_attention.compile_friendly_flex_attention", plain)
    many = padded([([n % 9 + 3] * 20, [n % 7 + 3] * (n + 1)) for n in range(12)])
    assert make_plan(many["input_ids"], many["attention_mask"], many["labels"] != -100).input_ids.numel() > 128
    for batch in (LEFT, many):
        compare(llama, batch, "flex", gradient=False)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["flex", "dense"])
def test_batches_score_alike_on_a_gpu(kernel):
    model = built(lora=True, hidden_size=64, head_dim=16).cuda()
    prepare(model)
    batch = {name: value.cuda() for name, value in LEFT.items()}
    with fast_head():
        packed = SharedPrefixModel(model, kernel)(**batch, fused_lm_head=True)
    plain = model(**batch, use_cache=False, fused_lm_head=True)
    assert_close(packed.log_probs, plain.log_probs, rtol=0, atol=1e-3)
    one, other = (torch.autograd.grad(o.log_probs.sum(), [p for p in model.parameters() if p.requires_grad]) for o in (packed, plain))  # fmt: skip
    for mine, theirs in zip(one, other, strict=True):
        assert (mine - theirs).norm() <= 1e-2 * theirs.norm() + 1e-5


def test_eight_completions_share_one_left_padded_prompt(llama):
    prompts = [[5, 6, 7, 8, 9, 10], [11]]
    rows = [(prompt, [12 + n] * (1 + n % 5)) for prompt in prompts for n in range(8)]
    batch = padded(rows, left=True)
    plan = make_plan(batch["input_ids"], batch["attention_mask"], batch["labels"] != -100)
    assert [len(group.answers) for group in plan.groups] == [8, 8]
    compare(llama, batch)


def test_in_double_precision_cascades_are_the_dense_mask():
    model = built(lora=True).double()
    prepare(model)
    outputs = [SharedPrefixModel(model, kernel)(**LEFT, fused_lm_head=True) for kernel in ("cascade", "dense")]
    assert_close(outputs[0].log_probs, outputs[1].log_probs, rtol=0, atol=1e-12)
    assert_close(gradients(model, outputs[0]), gradients(model, outputs[1]), rtol=1e-9, atol=1e-12)


# attention alone

LAYOUTS = {
    "single answer": (Group(0, 3, (4,)),),
    "no prefix": (Group(0, 0, (2, 3)),),
    "three answers": (Group(0, 2, (3, 1, 2)),),
    "neighbours of one length": (Group(0, 3, (2, 2, 1, 2, 2, 2)),),
    "several groups and filler": (Group(0, 2, (1, 2)), Group(5, 0, (2,)), Group(7, 1, (2, 1, 1))),
}


def seen(groups, length):
    """Who sees whom, written out cell by cell."""
    mask = torch.eye(length, dtype=torch.bool)
    for group in groups:
        begin = group.start + group.prefix
        spans = [(group.start, begin)]
        for size in group.answers:
            spans.append((begin, begin + size))
            begin += size
        for start, stop in spans:
            for query in range(start, stop):
                mask[query, group.start : group.start + min(group.prefix, query + 1 - group.start)] = True
                mask[query, start : query + 1] = True
    return mask


@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cascades_are_attention_under_the_mask(layout, heads):
    groups = LAYOUTS[layout]
    used = groups[-1].start + groups[-1].prefix + sum(groups[-1].answers)
    q, k, v = (random(1, n, used + 2, 4, seed=s).requires_grad_() for s, n in enumerate((heads[0], heads[1], heads[1])))
    out = CascadeAttention.apply(q, k, v, groups, 0.7)
    mask = seen(groups, used + 2)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=0.7, enable_gqa=True)
    assert_close(out[:, :, :used], expected[:, :, :used], rtol=0, atol=1e-5)
    assert not out[:, :, used:].any()
    weight = random(*out.shape, seed=9)
    weight[:, :, used:] = 0
    for one, other in zip(*(torch.autograd.grad((o * weight).sum(), (q, k, v)) for o in (out, expected)), strict=True):
        assert_close(one, other, rtol=0, atol=1e-5)


def test_the_gradient_of_cascades_is_their_derivative():
    q, k, v = (random(1, n, 9, 3, seed=n, dtype=torch.float64).requires_grad_() for n in (4, 2, 2))
    groups = (Group(0, 2, (2, 1)), Group(5, 1, (1, 1)))
    assert torch.autograd.gradcheck(lambda *qkv: CascadeAttention.apply(*qkv, groups, 0.5), (q, k, v))


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        (Group(0, 4, (4, 2)), torch.float32),
        (Group(0, 5, (4, 2)), torch.bfloat16),
        (Group(0, 4, (4, 5)), torch.bfloat16),
    ],
)
def test_only_where_a_part_is_long_is_backward_in_half_precision(monkeypatch, group, kind):
    monkeypatch.setattr(attention, "SHORT", 4)
    kernel, kinds = attention._BACKWARD, []

    def watched(*tensors, **rest):
        kinds.extend(x.dtype for x in tensors[:5])
        return kernel(*tensors, **rest)

    monkeypatch.setattr(attention, "_BACKWARD", watched)
    length = group.prefix + sum(group.answers)
    exact = [random(1, n, length, 8, seed=s).double().requires_grad_() for s, n in enumerate((4, 2, 2))]
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    grads = [torch.autograd.grad(CascadeAttention.apply(*x, (group,), 0.4).sum(), x) for x in (half, exact)]
    assert kinds == [kind] * 20 + [torch.float64] * 20  # four calls each, of five tensors
    for one, other in zip(*grads, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - other).norm() < 0.02 * other.norm()


# the head


def expected_of(hidden, weight, targets, scale):
    logits = scale * hidden @ weight.t()
    logps = logits.log_softmax(-1)
    picked = logps.gather(1, targets[:, None])[:, 0]
    return picked, -(logps.exp() * logps).sum(-1), logits.mean(-1), logits.argmax(-1) == targets


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_the_frozen_head_is_log_softmax(scale, gradient):
    rows = head.CHUNK + 3
    hidden = random(rows, 8, dtype=torch.float64).requires_grad_(gradient)
    weight, targets = random(20, 8, seed=1, dtype=torch.float64).requires_grad_(gradient), torch.arange(rows) % 20
    found = FrozenHead.apply(hidden, weight, targets, scale, True)
    expected = expected_of(hidden.detach(), weight.detach(), targets, scale)
    assert_close(tuple(value.detach() for value in found), expected, rtol=0, atol=1e-12)
    assert expected[3].any()
    assert [value.requires_grad for value in found] == [gradient, False, False, False]
    if gradient:
        assert torch.autograd.grad(found[0].sum(), weight, allow_unused=True) == (None,)
    bare = FrozenHead.apply(hidden, weight, targets, scale, False)
    assert torch.equal(bare[0], found[0])
    assert not bare[1].any()
    assert not bare[2].any()


def test_the_gradient_of_the_frozen_head_is_its_derivative(monkeypatch):
    monkeypatch.setattr(head, "CHUNK", 2)
    hidden, weight = random(5, 3, dtype=torch.float64).requires_grad_(), random(7, 3, seed=1, dtype=torch.float64)
    targets = torch.tensor([0, 3, 6, 1, 1])
    assert torch.autograd.gradcheck(lambda h: FrozenHead.apply(h, weight, targets, 0.3, True)[0], (hidden,))


def test_the_frozen_head_survives_large_logits_and_half_precision():
    hidden, targets = (1e4 * torch.eye(4)[:3]).requires_grad_(), torch.tensor([0, 2, 3])
    found = FrozenHead.apply(hidden, torch.eye(4) * torch.tensor([1.0, 1.0, -1.0, 1.0]), targets, 1.0, True)
    assert_close(found[0], torch.tensor([0.0, -1e4, -torch.tensor(3.0).log().item() - 0.0]), rtol=1e-6, atol=1e-5)
    assert all(value.isfinite().all() for value in (*found, *torch.autograd.grad(found[0].sum(), hidden)))
    hidden, weight, targets = random(40, 16), random(30, 16, seed=1), torch.arange(40) % 30
    exact = expected_of(hidden, weight, targets, 1.0)
    half = hidden.bfloat16().requires_grad_()
    rough = FrozenHead.apply(half, weight.bfloat16(), targets, 1.0, True)
    assert rough[0].dtype == torch.float32
    for one, other in zip(rough[:3], exact[:3], strict=True):
        assert_close(one, other, rtol=0.02, atol=0.15)
    (slope,) = torch.autograd.grad(rough[0].sum(), half)
    exact_slope = torch.eye(30)[targets] @ weight - (hidden @ weight.t()).softmax(-1) @ weight
    assert slope.dtype == torch.bfloat16
    assert (slope - exact_slope).norm() < 0.02 * exact_slope.norm()


# the plan


def test_a_plan_written_out_by_hand():
    batch = padded([([5, 6, 7], [8, 9]), ([5, 6, 7], [10]), ([4], [11, 12])])
    plan = make_plan(batch["input_ids"], batch["attention_mask"], batch["labels"] != -100, multiple_of=4)
    assert plan.input_ids.tolist() == [[5, 6, 7, 8, 7, 4, 11, 0]]
    assert plan.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1, 0]]
    assert plan.targets.tolist() == [[-100, -100, 8, 9, 10, 11, 12, -100]]
    assert plan.group.tolist() == [0, 0, 0, 0, 0, 1, 1, FILLER]
    assert plan.answer.tolist() == [0, 0, 1, 1, 2, 1, 1, 0]
    assert plan.source.tolist() == [2, 3, 4, 5, 6]
    assert plan.cells.tolist() == [2, 3, 6, 8, 9]
    assert (plan.rows, plan.time, plan.filler) == (3, 5, 1)
    assert plan.groups == (Group(0, 2, (2, 1)), Group(5, 0, (2,)))
    assert plan.unpack(plan.targets).tolist() == [[0, 0, 8, 9], [0, 0, 10, 0], [11, 12, 0, 0]]


@given(batches())
def test_a_plan_costs_each_prompt_once_and_unpacks_to_the_labels(batch):
    plan = make_plan(batch["input_ids"], batch["attention_mask"], batch["labels"] != -100)
    labels = batch["labels"][:, 1:]
    assert torch.equal(plan.unpack(plan.targets), labels.masked_fill(labels == -100, 0))
    answers = {}
    for ids, real, wanted in zip(*(batch[n].tolist() for n in ("input_ids", "attention_mask", "labels")), strict=True):
        prompt = tuple(t for t, r, w in zip(ids, real, wanted, strict=True) if r and w == -100)
        answers.setdefault(prompt, []).append(sum(w != -100 for w in wanted))
    cost = sum(len(prompt) - 1 + sum(lengths) for prompt, lengths in answers.items() if sum(lengths))
    assert plan.input_ids.numel() == (cost or 1)
    assert [sum(g.answers) + g.prefix for g in plan.groups] == [
        len(p) - 1 + sum(n) for p, n in answers.items() if sum(n)
    ]


def test_tokens_to_score_must_end_a_contiguous_row():
    ids = torch.tensor([[3, 4, 5, 6]])
    real = torch.ones_like(ids)
    for present, wanted in ((real, [0, 1, 1, 0]), (real, [1, 0, 1, 1]), (torch.tensor([[1, 0, 1, 1]]), [0, 0, 1, 1])):
        with pytest.raises(ValueError, match="row 0: the tokens to score must be the last of a contiguous row"):
            make_plan(ids, present, torch.tensor([wanted]).bool())
