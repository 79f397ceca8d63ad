"""PoFT's scoring pass."""

import gzip
import json

import numpy as np
import pytest
import supervised_worker as small
import torch
from peft import LoraConfig, get_peft_model

from align.losses.tokens import mean_logps as policy_mean_logps
from align.models.tiny import SPECIAL, TINY_MODEL, tiny_model, tiny_tokenizer
from align.scoring.poft_column import aligned_logps, completion_ids, mean_logps, score_file
from align.trainers.completions.scoring import score

ROWS = {chat: small.rows(6, chat=chat).to_list() for chat in (False, True)}


@pytest.fixture(scope="module")
def model():
    return tiny_model(tiny_tokenizer())


@pytest.mark.parametrize("chat", [False, True])
def test_equals_one_row_at_a_time_in_plain_python(model, chat):
    tokenizer = tiny_tokenizer()
    got = mean_logps(model, tokenizer, ROWS[chat], batch_size=4)
    for row, value in zip(ROWS[chat], got, strict=True):
        if chat:
            text = f"<|user|>{row['prompt'][0]['content']}<|end|><|assistant|>"
            answer = row["completion"][0]["content"] + "<|end|>"
        else:
            text, answer = row["prompt"], row["completion"] + "<|end|>"
        start, ids = len(tokenizer(text)["input_ids"]), torch.tensor(tokenizer(text + answer)["input_ids"])
        with torch.no_grad():
            logp = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        picked = [logp[t - 1, ids[t]].item() for t in range(start, len(ids))]
        assert value == pytest.approx(sum(picked) / len(picked), rel=1e-5)


@pytest.mark.parametrize("chat", [False, True])
def test_is_the_mean_that_training_computes(tmp_path, chat):
    """The same model, tokenizer and rows: at the first step of PoFT every weight is one half."""
    made = small.trainer(tmp_path, data=small.rows(6, chat=chat))
    batch = made._prepare_inputs(made.data_collator([made.train_dataset[i] for i in range(6)]))
    made.model.eval()
    with torch.no_grad():
        scored = score(made.model, batch)
    expected = policy_mean_logps(scored.token_logps, scored.mask)
    assert mean_logps(made.model, tiny_tokenizer(), ROWS[chat]) == pytest.approx(expected.numpy(), rel=1e-4)


def test_models_are_averaged_each_with_its_own_tokenizer(model):
    other, theirs = tiny_model(tiny_tokenizer(), seed=5), tiny_tokenizer()
    theirs.chat_template = theirs.chat_template.replace("<|end|>", "<|end|>\n")
    alone = [mean_logps(model, tiny_tokenizer(), ROWS[True]), mean_logps(other, theirs, ROWS[True])]
    both = aligned_logps(iter([(model, tiny_tokenizer()), (other, theirs)]), ROWS[True], batch_size=3)
    assert both == pytest.approx(np.mean(alone, axis=0))
    assert np.abs(alone[0] - alone[1]).min() > 1e-4
    with pytest.raises(ValueError, match="no aligned model to score with"):
        aligned_logps([], ROWS[True])


def test_does_not_depend_on_the_batch_or_on_dropout():
    adapted = get_peft_model(
        tiny_model(tiny_tokenizer()), LoraConfig(**small.tiny.LORA | {"lora_dropout": 0.5, "init_lora_weights": False})
    ).train()
    one = mean_logps(adapted, tiny_tokenizer(), ROWS[False], batch_size=1)
    assert mean_logps(adapted, tiny_tokenizer(), ROWS[False], batch_size=5) == pytest.approx(one, rel=1e-5)


def test_the_completion_begins_where_the_prompt_alone_and_the_whole_part():
    tokenizer = tiny_tokenizer()
    ids, begin = completion_ids(tokenizer, "ab", "cd")
    assert (begin, tokenizer.decode(ids[begin:])) == (2, "cd<|end|>")
    assert completion_ids(tokenizer, "ab", "cd<|end|>") == (ids, begin)
    assert completion_ids(tokenizer, "", "cd")[1] == 1
    assert completion_ids(tokenizer, "ab", "cd", max_length=3) == (ids[:3], 2)
    chat, start = completion_ids(tokenizer, [{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}])
    assert chat[start - 1] == SPECIAL.index("<|assistant|>")
    with pytest.raises(ValueError, match="no token of the completion is left after the prompt: 'cd'"):
        completion_ids(tokenizer, "ab", "cd", max_length=2)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_file_is_written_with_the_column(tmp_path, monkeypatch, name):
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    text = "".join(json.dumps({"prompt": r["prompt"], "completion": r["completion"]}) + "\n" for r in ROWS[True])
    source = tmp_path / name
    source.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    score_file([TINY_MODEL], source, tmp_path / "scored.jsonl", dtype="float32", max_length=64)
    rows = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in ROWS[True]]
    expected = mean_logps(tiny_model(tiny_tokenizer()), tiny_tokenizer(), ROWS[True], max_length=64)
    assert [row["aligned_logp"] for row in rows] == pytest.approx(expected, rel=1e-5)
