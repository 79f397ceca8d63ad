"""Merged adapters against ΔW summed by hand and against PEFT; model stock against its closed form; refusals."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny import REFERENCE, adapter, deltas

from align.errors import RunError
from align.merging.adapters import WEIGHTS_FILE, load_adapter_factors, mean_cosine, stock
from align.merging.command import MERGE_FILE, arc, main, merge, stocked, sweep
from align.models.loading import load_adapter
from align.models.tiny import tiny_model, tiny_tokenizer

IDS = torch.arange(5, 45).reshape(2, 20)


@pytest.fixture
def three(tmp_path):
    return [adapter(tmp_path / name, seed) for seed, name in enumerate("abc")]


def logps(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits.log_softmax(-1)


def logps_of_sum(folders, weights):
    """Log-probabilities of the base whose weights were moved by Σ w ΔW by hand."""
    model, parts = tiny_model(tiny_tokenizer()), [deltas(folder) for folder in folders]
    modules = dict(model.named_modules())
    for name in parts[0]:
        modules[name.removeprefix("base_model.model.")].weight.data += sum(w * part[name] for w, part in zip(weights, parts, strict=True)).float()  # fmt: skip
    return logps(model)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"lora_alpha": 3, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 5}}])  # fmt: skip
def test_a_soup_is_the_weighted_sum_of_the_weight_changes(tmp_path, settings):
    folders = [adapter(tmp_path / name, seed, **settings) for seed, name in enumerate("abc")]
    weights = [0.2, 0.5, 0.3]
    merge(folders, tmp_path / "out", weights=[weights])
    merged, parts = deltas(tmp_path / "out/soup-00/adapter"), [deltas(folder) for folder in folders]
    assert merged.keys() == parts[0].keys()
    for name, delta in merged.items():
        exact = sum(w * part[name] for w, part in zip(weights, parts, strict=True))
        assert (delta - exact).norm() <= 1e-6 * exact.norm(), name
    model = load_adapter(tiny_model(tiny_tokenizer()), tmp_path / "out/soup-00/adapter").eval()
    torch.testing.assert_close(logps(model), logps_of_sum(folders, weights), atol=1e-5, rtol=0)


def test_adapters_of_other_ranks_and_of_embeddings_merge_too(tmp_path):
    modules = ["q_proj", "embed_tokens"]
    folders = [
        adapter(tmp_path / "a", 0, target_modules=modules),
        adapter(tmp_path / "b", 1, r=2, target_modules=modules),
    ]
    merge(folders, tmp_path / "out", weights=[[0.5, 0.5]])
    merged, parts = deltas(tmp_path / "out/soup-00/adapter"), [deltas(folder) for folder in folders]
    assert any("embed_tokens" in name for name in merged)
    for name, delta in merged.items():
        torch.testing.assert_close(delta, (parts[0][name] + parts[1][name]) / 2, atol=1e-6, rtol=1e-5)


def test_it_equals_pefts_cat_and_not_its_linear(three, tmp_path):
    merge(three[:2], tmp_path / "out", weights=[[0.3, 0.7]])
    ours = deltas(tmp_path / "out/soup-00/adapter")
    model = PeftModel.from_pretrained(tiny_model(tiny_tokenizer()), str(three[0]), adapter_name="a")
    model.load_adapter(str(three[1]), "b")
    for combination, same in (("cat", True), ("linear", False)):
        model.add_weighted_adapter(["a", "b"], [0.3, 0.7], combination, combination_type=combination)
        for name, module in model.named_modules():
            if name in ours:
                assert torch.allclose(module.get_delta_weight(combination).double(), ours[name], atol=1e-6) is same


def test_bfloat16_adapters_are_merged_in_float32(tmp_path, three):
    for folder in three:
        rounded = {name: tensor.bfloat16() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
        save_file(rounded, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    merge(three, tmp_path / "out", weights=[[0.3, 0.3, 0.4]])
    merged, parts = deltas(tmp_path / "out/soup-00/adapter"), [deltas(folder) for folder in three]
    for name, delta in merged.items():
        exact = 0.3 * parts[0][name] + 0.3 * parts[1][name] + 0.4 * parts[2][name]
        assert (delta - exact).norm() <= 1e-6 * exact.norm()


def test_a_sweep_goes_from_one_end_to_the_other_and_is_written_down(three, tmp_path, capsys):
    assert main([*map(str, three[:2]), "--sweep", "3", "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / MERGE_FILE).read_text())
    assert [row["weights"] for row in record["merged"]] == [[0, 1], [0.5, 0.5], [1, 0]]
    assert record["same_base_by"] == "digest"
    assert [row["path"] for row in record["adapters"]] == list(map(str, three[:2]))
    for end, folder in ((0, three[1]), (2, three[0])):
        written = tmp_path / "out" / record["merged"][end]["adapter"]
        assert load_adapter_factors(written).config.r == 4  # the adapter of weight 0 adds no rank
        for name, delta in deltas(folder).items():
            torch.testing.assert_close(deltas(written)[name], delta, atol=1e-7, rtol=1e-6)
    middle = tmp_path / "out" / record["merged"][1]["adapter"]
    assert load_adapter_factors(middle).digest == record["merged"][1]["sha256"]
    assert json.loads((middle / "reference.json").read_text()) == REFERENCE
    assert (middle / "tokenizer.json").is_file()
    assert "3 merged adapters" in capsys.readouterr().out


def test_a_sweep_over_three_is_the_whole_lattice():
    points = sweep(3, 5)
    assert len(points) == 15
    assert all(sum(vector) == 1 for vector in points)
    assert len(set(map(tuple, points))) == 15
    with pytest.raises(RunError, match="--sweep: must be at least 2"):
        sweep(2, 1)


# --- model stock ----------------------------------------------------------------------------------------


def test_the_mean_cosine_needs_no_weight_change(three):
    factors = [load_adapter_factors(folder).factors for folder in three]
    for module in list(factors[0])[:4]:
        made = [(f[module][1] @ f[module][0]).flatten().double() for f in factors]
        pairs = [torch.nn.functional.cosine_similarity(made[i], made[j], dim=0) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert mean_cosine([f[module] for f in factors]) == pytest.approx(float(sum(pairs)) / 3, abs=1e-9)


def test_stock_is_the_mean_shrunk_by_how_far_the_adapters_agree(tmp_path):
    """The same adapter plus noise: t is n cos / (1 + (n - 1) cos), module by module."""
    first = adapter(tmp_path / "a", 0)
    folders = [first]
    for seed, name in ((1, "b"), (2, "c")):
        folder = adapter(tmp_path / name, 0)
        generator = torch.Generator().manual_seed(seed)
        noisy = {
            k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in load_file(first / WEIGHTS_FILE).items()
        }
        save_file(noisy, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        folders.append(folder)
    record = merge(folders, tmp_path / "out", ways={"stock": stocked})["merged"]
    parts, merged = [deltas(folder) for folder in folders], deltas(tmp_path / "out" / record[0]["adapter"])
    for name, delta in merged.items():
        flat = [part[name].flatten() for part in parts]
        cos = (
            sum(
                float(torch.nn.functional.cosine_similarity(flat[i], flat[j], dim=0))
                for i, j in ((0, 1), (0, 2), (1, 2))
            )
            / 3
        )
        ratio = 3 * cos / (1 + 2 * cos)
        assert 0.5 < ratio < 1
        assert record[0]["stock_ratios"][name] == pytest.approx(ratio, abs=1e-6)
        torch.testing.assert_close(delta, ratio * sum(part[name] for part in parts) / 3, atol=1e-6, rtol=1e-5)


def test_adapters_that_contradict_each_other_leave_the_base(three, tmp_path):
    negated = {k: -v if "lora_B" in k else v for k, v in load_file(three[0] / WEIGHTS_FILE).items()}
    save_file(negated, three[1] / WEIGHTS_FILE, metadata={"format": "pt"})
    _, ratios = stock([load_adapter_factors(folder) for folder in three[:2]])
    assert set(ratios.values()) == {0.0}
    assert main([*map(str, three[:2]), "--stock", "--out", str(tmp_path / "out")]) == 0
    model = load_adapter(tiny_model(tiny_tokenizer()), tmp_path / "out/stock/adapter").eval()
    torch.testing.assert_close(logps(model), logps(tiny_model(tiny_tokenizer())), atol=1e-6, rtol=0)


def test_a_module_that_was_never_trained_agrees_with_nothing():
    zero, some = (torch.ones(2, 3), torch.zeros(4, 2)), (torch.ones(2, 3), torch.ones(4, 2))
    assert mean_cosine([zero, some]) == mean_cosine([zero, zero]) == 0
    assert mean_cosine([some, some]) == pytest.approx(1)


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference": REFERENCE | {"digest": "1" * 64}}, "of another base or reference .*111111111111.*than .*000000000000"),
        ({"reference": REFERENCE | {"kind": "model"}}, "of another base or reference"),
        ({"reference": REFERENCE | {"kind": "adapter", "adapter_digest": "2" * 64}}, "against another reference than .* on the same base"),
        ({"reference": None}, "no reference.json there"), ({"target_modules": ["q_proj"]}, "adapts other modules"),
        ({"modules_to_save": ["lm_head"]}, "holds more than the factors"), ({"use_dora": True}, "holds more than the factors"),
        ({"bias": "lora_only", "lora_bias": True}, "holds more than the factors"),
    ],
)  # fmt: skip
def test_adapters_that_do_not_belong_together_are_refused(tmp_path, changed, message):
    folders = [adapter(tmp_path / "a", 0), adapter(tmp_path / "b", 1, **changed)]
    with pytest.raises(RunError, match=message):
        merge(folders, tmp_path / "out", weights=[[0.5, 0.5]])
    assert not (tmp_path / "out").exists()


def test_without_references_the_names_of_the_bases_count(tmp_path):
    folders = [
        adapter(tmp_path / name, 0, reference=None, base=base) for name, base in (("a", "x"), ("b", "x"), ("c", "y"))
    ]
    assert merge(folders[:2], tmp_path / "out", weights=[[0.5, 0.5]])["same_base_by"] == "name"
    with pytest.raises(RunError, match=r"of another base or reference \(base y"):
        merge(folders, tmp_path / "more", weights=[[0.5, 0.5, 0.0]])


def test_a_reference_that_is_another_model_says_nothing_of_the_base(tmp_path):
    reference = REFERENCE | {"kind": "model"}
    folders = [adapter(tmp_path / name, 0, reference=reference, base=name) for name in "ab"]
    with pytest.raises(RunError, match="of another base"):
        merge(folders, tmp_path / "out", weights=[[0.5, 0.5]])


def test_stock_of_adapters_that_began_as_one_is_refused(tmp_path):
    folders = [
        adapter(tmp_path / name, 0, reference=REFERENCE | {"kind": "adapter", "adapter_digest": "2"}) for name in "ab"
    ]
    with pytest.raises(RunError, match="--stock: the adapters go on from another adapter"):
        merge(folders, tmp_path / "out", ways={"stock": stocked})
    assert len(merge(folders, tmp_path / "out", weights=[[0.5, 0.5]])["merged"]) == 1


@pytest.mark.parametrize("weights", ["0.5", "0.5,0.6", "1.5,-0.5", "nan,1", "a,b", "", "0.3,0.3,0.4"])
def test_weights_that_are_none_are_told(three, tmp_path, capsys, weights):
    assert main([*map(str, three[:2]), "--weights", weights, "--out", str(tmp_path / "out")]) == 2
    assert "--weights: must" in capsys.readouterr().err


def test_what_is_no_adapter_or_alone_or_in_the_way_is_told(three, tmp_path, capsys):
    assert main([str(three[0]), str(tmp_path), "--weights", "0.5,0.5", "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path}: no adapter there" in capsys.readouterr().err
    assert main([str(three[0]), "--weights", "1", "--out", str(tmp_path / "out")]) == 2
    assert "at least 2 adapters, got 1" in capsys.readouterr().err
    assert main([*map(str, three), "--stock", "--out", str(three[0])]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_merge_that_ends_early_leaves_nothing(three, tmp_path, monkeypatch, capsys):
    words = [*map(str, three), "--sweep", "2", "--out", str(tmp_path / "out")]

    def full(*_):
        raise SafetensorError("I/O error: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("align.merging.command.save_merged", full)
        assert main(words) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out'}: could not be written: I/O error: No space left on device; make room" in said
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))]
    assert main(words) == 0


def test_what_appears_while_adapters_are_merged_stays(three, tmp_path, monkeypatch, capsys):
    def meanwhile(*_, **__):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "thesis.tex").write_text("mine")
        return {}

    monkeypatch.setattr("align.merging.command.save_merged", meanwhile)
    assert main([*map(str, three), "--sweep", "2", "--out", str(tmp_path / "out")]) == 2
    assert "appeared while it was being made" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_the_arc_between_two_adapters_has_their_length(three, tmp_path):
    merge(three[:2], tmp_path / "out", ways={"slerp": arc(0.5)})
    merged, parts = deltas(tmp_path / "out/slerp/adapter"), [deltas(folder) for folder in three[:2]]
    for name, delta in merged.items():
        cosine = float((parts[0][name] * parts[1][name]).sum() / parts[0][name].norm() / parts[1][name].norm())
        weight = 1 / (2 * (1 + cosine)) ** 0.5
        torch.testing.assert_close(delta, weight * (parts[0][name] + parts[1][name]), atol=1e-5, rtol=1e-4)
    with pytest.raises(RunError, match="--slerp: a share from 0 to 1"):
        merge(three, tmp_path / "other", ways={"slerp": arc(0.5)})
