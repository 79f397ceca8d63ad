"""`alignkit chat`: turns of a file, answers as `generate` gives them, two models side by side, Ctrl-C."""

import io

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from trl import ModelConfig

from align import cli
from align.commands import chat
from align.models.tiny import tiny_model, tiny_tokenizer
from align.sampling.generate import Answer, Decoding, generate
from align.sampling.policy import Policy

PLAIN = ModelConfig(model_name_or_path="tiny-random")
SETTINGS = ["--max-new-tokens", "6"]


@pytest.fixture
def said(monkeypatch, capsys):
    """What a chat with the tiny model prints, line by line, for lines on stdin."""

    def talk(*turns, words=(), code=0):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{turn}\n" for turn in turns)))
        assert cli.main(["chat", "tiny-random", *SETTINGS, *words]) == code
        out, err = capsys.readouterr()
        return out if not code else err

    return talk


@pytest.fixture(scope="module")
def answered():
    """The answer of `generate` to messages."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer).eval()

    def answer(*contents, system=None, **kw):
        roles = ("user", "assistant") * len(contents)
        chat = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
        chat = [*([{"role": "system", "content": system}] if system else []), *chat]
        return generate(model, tokenizer, [chat], Decoding(6, **kw))[0][0].text

    return answer


@pytest.fixture(autouse=True)
def as_it_is(monkeypatch):
    """A model of random letters answers in letters that steer nothing, but for the test of those."""
    monkeypatch.setattr(chat, "printable", lambda text, limit=80: text)


def texts(out):
    return [line for line in out.split("\n") if line and not line.startswith("(cut off")]


def test_turns_are_remembered_until_reset(said, answered):
    first = answered("say hello")
    second = answered("say hello", first, "again")
    out = said("say hello", "again", "", "/reset", "again", "/quit", "never")
    assert out == "".join(
        f"{text}\n(cut off after --max-new-tokens 6)\n" for text in (first, second, answered("again"))
    )


def test_how_it_is_drawn(said, answered):
    assert answered("hi", temperature=0.0, seed=3) in said("hi", words=["--temperature", "0", "--seed", "3"])
    assert answered("hi", seed=3) in said("hi", words=["--seed", "3"])
    assert answered("hi", system="be brief") in said("hi", "/reset", words=["--system", "be brief"])
    again = said("hi", "/reset", "hi", words=["--system", "be brief"])
    assert again.count(answered("hi", system="be brief")) == 2


def test_an_unknown_command_is_no_turn(said):
    assert said("/exit") == "(no command; there are /reset and /quit)\n"


def test_a_conversation_that_does_not_fit_is_said(said):
    out = said("a" * 600)
    assert "tokens and an answer of 6 are more than the model's" in out
    assert "/reset" not in out  # which would not help
    assert "say less, or a smaller --max-new-tokens" in out
    assert "more than the model's 512; /reset)" in said("a" * 300, "b" * 300).splitlines()[-1]


def test_what_is_no_text_is_read_and_a_system_that_is_none_is_refused(said, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hi\xff\n"), "utf-8"))
    assert cli.main(["chat", "tiny-random", *SETTINGS]) == 0
    assert capsys.readouterr().out
    assert said("hi", words=["--system", "a\udcff"], code=2) == "--system: is not UTF-8 text\n"


def test_a_model_that_is_not_there_is_named(capsys):
    assert cli.main(["chat", "not-there"]) == 2
    assert "not-there: no folder here, and not to be had from the hub: " in capsys.readouterr().err


def test_another_name_of_the_same_model_is_who_answers_already(capsys):
    assert cli.main(["chat", "dpo/tiny", "--beside", "rpo/tiny"]) == 2
    assert "--beside: rpo/tiny is who answers already" in capsys.readouterr().err


def test_two_answer_one_after_the_other_and_share_weights(said, monkeypatch, answered):
    tokenizer = tiny_tokenizer()
    model = get_peft_model(tiny_model(tokenizer), LoraConfig(**tiny.LORA)).eval()
    dice = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.normal_(std=2.0, generator=dice)
    loaded = []

    def load(policy):
        loaded.append(policy.adapter)
        return chat.Use(model, policy.settings, policy.adapter)

    def policy_of(name, overrides=(), *, reference=False):
        return Policy(PLAIN, None if reference else "another" if name == "other" else "an adapter")

    monkeypatch.setattr(Policy, "load", load)
    monkeypatch.setattr(chat, "policy_of", policy_of)
    with model.disable_adapter():
        plain = generate(model, tokenizer, [[{"role": "user", "content": "hi"}]], Decoding(6))[0][0].text
    tuned = generate(model, tokenizer, [[{"role": "user", "content": "hi"}]], Decoding(6))[0][0].text
    assert plain != tuned
    assert texts(said("hi", words=["--beside", "ref"])) == ["[tiny-random]", *texts(tuned), "[ref]", *texts(plain)]
    assert loaded == ["an adapter"]
    assert texts(said("hi", words=["--beside", "other"]))[0] == "[tiny-random]"
    assert loaded == ["an adapter", "an adapter", "another"]


def test_control_characters_do_not_steer(monkeypatch, capsys):
    monkeypatch.undo()
    streamer = chat._Streamer(tiny_tokenizer())
    streamer.on_finalized_text("one\x1b[31m\ntwo\t")
    streamer.on_finalized_text("", stream_end=True)
    assert capsys.readouterr().out == "one\\x1b[31m\ntwo\\t\n"
    assert streamer.said == "one\x1b[31m\ntwo\t"


def test_ctrl_c_ends_an_answer_and_keeps_what_was_said(said, monkeypatch):
    asked = []

    def streamed(model, tokenizer, prompt, decoding, streamer):
        asked.append(prompt)
        streamer.on_finalized_text("half an ")
        if len(asked) == 1:
            raise KeyboardInterrupt
        streamer.end()
        return Answer([], [], "half an ", True)

    monkeypatch.setattr(chat, "streamed", streamed)
    out = said("one", "two")
    assert out == "half an \n(stopped)\nhalf an \n"
    assert [one["content"] for one in asked[1]] == ["one", "half an ", "two"]


def test_ctrl_c_at_the_prompt_leaves(said, monkeypatch):
    def turns():
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(chat, "_turns", turns)
    assert said(code=130).splitlines()[-1] == "chat: stopped by SIGINT; nothing was written"


def test_in_a_terminal_it_asks(monkeypatch):
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    lines = iter(["one", "two"])

    def asked(prompt):
        assert prompt == "> "
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", asked)
    assert list(chat._turns()) == ["one", "two"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beside", "ref"], "--ref: tiny-random is neither a run nor a recipe"),
        (["--beside", "tiny-random"], "--beside: tiny-random is who answers already"),
        (["--max-new-tokens", "0"], "--max-new-tokens: must be at least 1"),
        (["--temperature", "-1"], "--temperature: must be finite and not negative"),
    ],
)
def test_what_cannot_be_is_refused(said, words, message):
    assert message in said("hi", words=words, code=2)


def test_without_a_template_there_is_no_system(monkeypatch):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    monkeypatch.setattr(chat, "load_tokenizer", lambda settings: tokenizer)
    use = chat.Use(tiny_model(tokenizer).eval(), PLAIN)
    with pytest.raises(chat.RunError, match="no chat template, so nothing says it"):
        chat.Speaker("base", use, "be brief")
    speaker = chat.Speaker("base", use)
    speaker.answer("the sky is", Decoding(6))
    assert speaker.messages == [{"role": "user", "content": "the sky is"}, speaker.messages[1]]
    expected = generate(use.model, tokenizer, ["the sky is"], Decoding(6))[0][0].text
    assert speaker.messages[1]["content"] == expected
