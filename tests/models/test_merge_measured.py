"""TIES and DARE against PEFT's own adapters; greedy soup, Frank-Wolfe and Fisher merging of real adapters on a tiny model."""

import json
import shutil

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny import adapter, deltas

from align.merging.adapters import WEIGHTS_FILE, load_adapter_factors
from align.merging.command import MERGE_FILE, main, merge
from align.merging.measured import How, Measured
from align.merging.pruned import KINDS, low_rank, pruned
from align.models.loading import load_adapter
from align.models.tiny import tiny_model, tiny_tokenizer
from align.sampling.generate import Decoding, generate

PEFT = {"ties": "ties_svd", "dare": "dare_linear_svd", "dare-ties": "dare_ties_svd"}
TEXTS = [
    ("what is two plus two", " four", " five"),
    ("the sky is", " blue", " green"),
    ("name a colour", " red", " seven"),
]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Adapters that name the tiny model, one of them strong, and files of rows."""
    folder = tmp_path_factory.mktemp("three")
    made = [adapter(folder / name, seed, reference=None, base="tiny-random") for seed, name in enumerate("abc")]
    for path, strength in zip(made, (0.3, 0.5, 2.0), strict=True):
        weights = {k: v * strength if "lora_B" in k else v for k, v in load_file(path / WEIGHTS_FILE).items()}
        save_file(weights, path / WEIGHTS_FILE, metadata={"format": "pt"})
    pairs = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in TEXTS]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    sft = [{"prompt": p, "completion": c} for p, c, _ in TEXTS]
    (folder / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sft))
    return made


def rows(three, name):
    return three[0].parent / f"{name}.jsonl"


# --- TIES, DARE -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_pruned_is_what_peft_makes_of_the_weight_changes(three, monkeypatch, kind):
    def same_for_both(tensor, density, rescale):  # PEFT draws for the new adapter's weights in between
        return (
            tensor * (torch.arange(tensor.numel()) % 5 < 5 * density).view(tensor.shape) / (density if rescale else 1)
        )

    monkeypatch.setattr("peft.utils.merge_utils.random_pruning", same_for_both)
    model = PeftModel.from_pretrained(tiny_model(tiny_tokenizer()), str(three[0]), adapter_name="a")
    model.load_adapter(str(three[1]), "b")
    model.add_weighted_adapter(["a", "b"], [1, 0.7], "it", combination_type=PEFT[kind], density=0.4, svd_clamp=None)
    theirs = {n: m.get_delta_weight("it") for n, m in model.named_modules() if "it" in getattr(m, "lora_A", {})}
    adapters = [load_adapter_factors(path) for path in three[:2]]
    factors, told = pruned(adapters, kind, [1.0, 0.7], density=0.4)
    for name, delta in theirs.items():
        a, b = factors[name]
        assert (b @ a - delta).norm() <= 1e-4 * delta.norm(), name
    assert 0.1 < told["largest_lost"] == max(told["lost"].values()) < 1


def test_a_pruned_merge_is_written_and_the_same_again(three, tmp_path, capsys):
    for number, seed in enumerate("334"):
        words = [*map(str, three[:2]), "--dare-ties", "1,0.7", "--density", "0.4", "--seed", seed]
        assert main([*words, "--out", str(tmp_path / str(number))]) == 0
    made = [json.loads((tmp_path / str(k) / MERGE_FILE).read_text())["merged"][0] for k in range(3)]
    assert made[0]["dare-ties"] == [1, 0.7]
    assert made[0]["sha256"] == made[1]["sha256"] != made[2]["sha256"]
    assert "is cut by the rank" in capsys.readouterr().out
    adapters = [load_adapter_factors(path) for path in three[:2]]
    factors, _ = pruned(adapters, "dare-ties", [1.0, 0.7], density=0.4, seed=3)
    for name, delta in deltas(tmp_path / "0/dare-ties/adapter").items():
        torch.testing.assert_close(delta.float(), factors[name][1] @ factors[name][0], atol=1e-6, rtol=1e-5)


def test_nothing_is_lost_at_full_rank_and_ties_of_one_adapter_twice_is_it(three):
    one = load_adapter_factors(three[0])
    factors, told = pruned([one, one], "ties", [1.0, 1.0], density=1.0, rank=64)
    assert told["largest_lost"] < 1e-6
    for module, (a, b) in factors.items():
        torch.testing.assert_close(b @ a, one.factors[module][1] @ one.factors[module][0], atol=1e-5, rtol=1e-4)


def test_the_rank_keeps_the_largest_singular_values(three):
    one = load_adapter_factors(three[0])
    change = torch.diag(torch.tensor([3.0, 4.0, 12.0]))
    factors, told = low_rank({"m": change}, [one], 2)
    torch.testing.assert_close(factors["m"][1] @ factors["m"][0], torch.diag(torch.tensor([0.0, 4.0, 12.0])))
    assert told["lost"]["m"] == pytest.approx(3 / 13)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ties", "1"], "--ties: one finite weight for each of 2"), (["--dare", "1,x"], "--dare: must be numbers"),
        (["--ties", "1,1", "--density", "0"], "--density: must be above 0"), (["--dare", "1,1", "--rank", "0"], "--rank: must be at least 1"),
        (["--greedy", "nowhere.jsonl"], "cannot read 'nowhere.jsonl'"),
        (["--frank-wolfe", "ROWS", "--steps", "0"], "--steps: must be at least 1"), (["--fisher", "ROWS", "--rank", "0"], "--rank: must be at least 1"),
        (["--greedy", "ROWS", "--rows", "0"], "--rows: must be at least 1"), (["--greedy", "ROWS", "--beta", "0"], "--beta: must be positive"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_before_weights_are_loaded(three, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.setattr("align.merging.measured.load_model", lambda *_: pytest.fail("loaded"))
    words = [str(rows(three, "pairs")) if word == "ROWS" else word for word in words]
    assert main([*map(str, three[:2]), *words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- measured -------------------------------------------------------------------------------------------


def by_hand(path, name):
    """The loss of an adapter that lies on disk, from logits."""
    base, tokenizer = tiny_model(tiny_tokenizer()).eval(), tiny_tokenizer()
    model = load_adapter(tiny_model(tokenizer), path).eval()
    total, tokens = 0.0, 0

    def logp(m, prompt, completion):
        start, ids = tokenizer(prompt)["input_ids"], tokenizer(prompt + completion + tokenizer.eos_token)["input_ids"]
        with torch.no_grad():
            logits = m(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(logits[t - 1, ids[t]]) for t in range(len(start), len(ids))), len(ids) - len(start)

    for prompt, chosen, rejected in TEXTS:
        (c, n), (r, _) = logp(model, prompt, chosen), logp(model, prompt, rejected)
        if name == "sft":
            total, tokens = total - c, tokens + n
        else:
            gap = 0.1 * (c - logp(base, prompt, chosen)[0] - r + logp(base, prompt, rejected)[0])
            total, tokens = total - float(torch.nn.functional.logsigmoid(torch.tensor(gap))), tokens + 1
    return total / tokens


@pytest.mark.parametrize("name", ["pairs", "sft"])
def test_the_loss_of_coefficients_is_that_of_the_soup_on_disk(three, tmp_path, name):
    measured = Measured([load_adapter_factors(path) for path in three], How(rows(three, name), batch=2))
    merge(three, tmp_path / "out", weights=[[0.2, 0.5, 0.3]])
    assert measured.loss([0.2, 0.5, 0.3]) == pytest.approx(by_hand(tmp_path / "out/soup-00/adapter", name), abs=2e-5)
    slopes = measured.gradient([0.2, 0.5, 0.3])
    for k, slope in enumerate(slopes):
        moved = [[w + (2e-3 if i == k else 0.0) * sign for i, w in enumerate([0.2, 0.5, 0.3])] for sign in (1, -1)]
        assert slope == pytest.approx((measured.loss(moved[0]) - measured.loss(moved[1])) / 4e-3, abs=5e-3, rel=2e-2)


def test_a_greedy_soup_of_adapters_is_the_mix_that_it_says(three, tmp_path, capsys):
    assert main([*map(str, three), "--greedy", str(rows(three, "sft")), "--out", str(tmp_path / "out")]) == 0
    row = json.loads((tmp_path / "out" / MERGE_FILE).read_text())["merged"][0]
    assert row["loss"] == pytest.approx(by_hand(tmp_path / "out/greedy/adapter", "sft"), abs=2e-5)
    assert row["loss"] <= min(by_hand(path, "sft") for path in three) + 1e-5
    assert sum(row["greedy"]) == pytest.approx(1)
    assert "on the rows it was chosen by" in capsys.readouterr().out


def learnt(like, folder, strength):
    """An adapter that a few steps on the rows made, times a strength."""
    model, tokenizer = load_adapter(tiny_model(tiny_tokenizer()), like, trainable=True), tiny_tokenizer()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.zero_()
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=3e-3)
    for _ in range(15):
        for prompt, chosen, _ in TEXTS:
            ids = torch.tensor([tokenizer(prompt + chosen + tokenizer.eos_token)["input_ids"]])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    shutil.copytree(like, folder)
    weights = get_peft_model_state_dict(model)
    weights = {k: v.detach() * strength if "lora_B" in k else v.detach() for k, v in weights.items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    return folder


def test_frank_wolfe_on_adapters_finds_the_least_loss_of_all_mixes(three, tmp_path, capsys):
    members = [learnt(three[0], tmp_path / name, strength) for name, strength in (("against", -0.5), ("beyond", 1.7))]
    words = ["--frank-wolfe", str(rows(three, "sft")), "--steps", "100"]
    assert main([*map(str, members), *words, "--out", str(tmp_path / "out")]) == 0
    row = json.loads((tmp_path / "out" / MERGE_FILE).read_text())["merged"][0]
    measured = Measured([load_adapter_factors(path) for path in members], How(rows(three, "sft")))
    line = [measured.loss([i / 40, 1 - i / 40]) for i in range(41)]
    assert row["loss"] <= min(line) + 2e-3
    assert row["loss"] < min(row["alone"]) - 1e-3
    assert row["loss"] == pytest.approx(by_hand(tmp_path / "out/frank-wolfe/adapter", "sft"), abs=2e-5)
    assert 0 <= row["gap"] < 0.1
    assert "above the least if it is convex" in capsys.readouterr().out


def test_fisher_information_is_of_whole_answers_and_weighs_the_merge(three, tmp_path):
    """By autograd on a model into which the member is folded: F of W, and Σ F ΔW / Σ F cut to the rank."""
    how = How(rows(three, "sft"), max_new_tokens=4, rank=64)
    adapters = [load_adapter_factors(path) for path in three[:2]]
    measured = Measured(adapters, how)
    found = [measured.fisher(member) for member in range(2)]
    assert not any(weight.requires_grad for weight in measured.model.parameters())
    name = next(name for name in found[0] if "q_proj" in name)
    for member, path in enumerate(three[:2]):
        folded = load_adapter(tiny_model(tiny_tokenizer()), path).merge_and_unload().eval()
        weight = dict(folded.named_modules())[name.removeprefix("base_model.model.")].weight
        weight.requires_grad_(True)
        answers = answers_of(folded, measured)
        exact = torch.zeros_like(weight)
        for answer in answers:
            ids = torch.tensor([answer.prompt_ids + answer.completion_ids])
            logps = folded(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])
            exact += torch.autograd.grad(logps[len(answer.prompt_ids) - 1 :].sum(), weight)[0] ** 2 / len(answers)
        torch.testing.assert_close(found[member][name], exact, atol=1e-6, rtol=1e-2)
    words = ["--fisher", str(rows(three, "sft")), "--max-new-tokens", "4", "--rank", "64"]
    assert main([*map(str, three[:2]), *words, "--out", str(tmp_path / "out")]) == 0
    merged = deltas(tmp_path / "out/fisher/adapter")[name]
    top, below = 0, 0
    for one, fisher in zip(adapters, found, strict=True):
        weight = fisher[name].double().clamp_min(1e-6)
        top, below = top + weight * (one.factors[name][1] @ one.factors[name][0]), below + weight
    torch.testing.assert_close(merged, top / below, atol=1e-5, rtol=1e-3)


def answers_of(model, measured):
    made = generate(model, measured.tokenizer, measured.rows.prompts, Decoding(max_new_tokens=4))
    return [answer for (answer,) in made]


def test_fisher_merging_refuses_what_is_no_linear_layer(tmp_path, three):
    folders = [
        adapter(tmp_path / n, s, target_modules=["embed_tokens"], reference=None, base="tiny-random")
        for s, n in enumerate("ab")
    ]
    assert main([*map(str, folders), "--fisher", str(rows(three, "sft")), "--out", str(tmp_path / "out")]) == 2
