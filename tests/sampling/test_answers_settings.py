"""What determines answers: a file made with other settings is refused, and what changes no answer changes no digest."""

import copy

import pytest

from align.sampling.generate import Decoding
from align.sampling.store import AnswersError, prompt_digest

PROMPTS = ["what"]
DECODING = Decoding(8, seed=3)


@pytest.mark.parametrize(
    "decoding", [Decoding(9, seed=3), Decoding(8, 0.5, 3), Decoding(8, seed=4), Decoding(8, seed=3, top_p=0.5)]
)
def test_another_decoding_is_refused_with_both_settings(ask, path, decoding):
    ask(PROMPTS)
    before = path.read_bytes()
    with pytest.raises(
        AnswersError,
        match=r"made otherwise \(decoding: {.*'seed': 3.*} in the file, .* now\); use another file, or delete this one",
    ):
        ask(PROMPTS, decoding)
    assert path.read_bytes() == before


def test_another_model_template_or_tokenizer_is_refused(ask, model, tokenizer):
    ask(PROMPTS)
    weight = copy.deepcopy(model)
    weight.model.norm.weight.data[0] += 1
    template = copy.deepcopy(tokenizer)
    template.chat_template += " "
    cutting = copy.deepcopy(tokenizer)
    cutting.add_tokens(["sky"])
    for change, what in (
        ({"model": weight}, "model"),
        ({"tokenizer": template}, "template"),
        ({"tokenizer": cutting}, "tokenizer"),
    ):
        with pytest.raises(AnswersError, match=rf"made otherwise \({what}_sha256: [^;]*\); use another file"):
            ask(PROMPTS, **change)


def test_the_order_of_a_messages_keys_does_not_matter():
    assert prompt_digest([{"role": "user", "content": "a"}]) == prompt_digest([{"content": "a", "role": "user"}])
    assert (
        len(
            {
                prompt_digest(p)
                for p in ("a", "b", [{"role": "user", "content": "a"}], [{"role": "system", "content": "a"}])
            }
        )
        == 4
    )
