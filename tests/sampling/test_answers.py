"""Answers in a file: continued after a kill, verified when read."""

import fcntl
import json
import os
import signal

import pytest

import align.sampling.store as module
from align.sampling.generate import Decoding, generate
from align.sampling.store import AnswersError, prompt_digest, read_answers

PROMPTS = ["what", "is the sky", "a prompt longer than the others are", [{"role": "user", "content": "hi"}], "x y z"]
DECODING = Decoding(8, seed=3)


def test_answers_are_those_of_generate_and_the_second_time_come_from_the_file(ask, path, model, tokenizer, sampled):
    expected = generate(model, tokenizer, PROMPTS, DECODING, samples=2)
    assert ask(samples=2) == expected
    assert sampled == [2] * 5
    before = path.read_bytes()
    assert ask(samples=2) == expected
    assert len(sampled) == 5
    assert path.read_bytes() == before


def test_more_prompts_and_samples_are_added_at_the_end(ask, path, model, tokenizer, sampled):
    ask(PROMPTS[:2])
    before = path.read_bytes()
    assert ask(PROMPTS[::-1], samples=3) == generate(model, tokenizer, PROMPTS[::-1], DECODING, samples=3)
    assert path.read_bytes().startswith(before)
    assert sum(sampled) == 15
    assert ask(PROMPTS[1:3]) == generate(model, tokenizer, PROMPTS[1:3], DECODING)
    assert sum(sampled) == 15


def test_a_prompt_that_occurs_twice_is_answered_once(ask, sampled, model, tokenizer):
    assert ask(["what", "x", "what"]) == generate(model, tokenizer, ["what", "x", "what"], DECODING)
    assert sum(sampled) == 2


def test_a_file_is_read_without_a_model(ask, path, model, tokenizer):
    answers = ask(samples=2)
    found = read_answers(path)
    assert found.settings["decoding"] == {"max_new_tokens": 8, "temperature": 1.0, "seed": 3, "top_p": 1.0}
    assert len(found.settings["model_sha256"]) == 64
    assert len(found.answers) == 10
    for prompt, row in zip(PROMPTS, answers, strict=True):
        for k, answer in enumerate(row):
            assert found.answers[prompt_digest(prompt), k] == (
                answer.completion_ids,
                answer.text,
                answer.finished,
                None,
            )


# --- kills -------------------------------------------------------------------------------------


def test_a_killed_process_keeps_its_answers_and_continues_to_the_same(ask, path, model, tokenizer, sampled):
    append, written = module.append_synced, []

    def dying(path, content):
        if len(written) == 2:
            with path.open("ab") as file:
                file.write(content[:37])
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(1)
        append(path, content)

    prompts = ["what", "is the sky", "x y z"]
    child = os.fork()
    if child == 0:
        module.append_synced = dying
        try:
            ask(prompts, batch_size=1)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    content = path.read_bytes()
    assert (content.count(b"\n"), content.endswith(b"\n")) == (2, False)
    assert len(read_answers(path).answers) == 1
    assert ask(prompts) == generate(model, tokenizer, prompts, DECODING)
    assert sum(sampled) == 2
    assert path.read_bytes().startswith(content[: content.rfind(b"\n") + 1])
    assert len(read_answers(path).answers) == 3


def test_an_interrupt_keeps_the_batches_before_it(ask, path, model, tokenizer, monkeypatch):
    original = module.sampled_batches

    def interrupted(*args, **kw):
        batches = original(*args, **kw)
        yield next(batches)
        assert len(read_answers(path).answers) == 2  # on disk before the next batch is begun
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "sampled_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask()
    assert len(read_answers(path).answers) == 2
    monkeypatch.setattr(module, "sampled_batches", original)
    assert ask() == generate(model, tokenizer, PROMPTS, DECODING)


def test_a_file_cut_anywhere_is_continued_to_the_same_answers(ask, path, tokenizer):
    expected = ask(PROMPTS[:2])
    whole = path.read_bytes()
    for cut in {0, 1, 60, whole.find(b"\n"), whole.find(b"\n") + 1, len(whole) - 200, len(whole) - 1, len(whole)}:
        path.write_bytes(whole[:cut])
        assert ask(PROMPTS[:2]) == expected
        assert sorted(path.read_bytes().split(b"\n")) == sorted(whole.split(b"\n"))


# --- damage and mistakes -----------------------------------------------------------------------


def test_every_flipped_byte_is_noticed_with_its_line(ask, path):
    ask(PROMPTS[:2])
    whole = path.read_bytes()
    lines = whole.split(b"\n")
    for number, start in ((2, len(lines[0]) + 1), (3, len(lines[0]) + len(lines[1]) + 2)):
        for offset in range(0, len(lines[number - 1]), 7):
            damaged = bytearray(whole)
            damaged[start + offset] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(
                AnswersError,
                match=rf"line {number} is (damaged; delete it, and its answer is generated again|of another)",
            ):
                read_answers(path)
    path.write_bytes(bytes(damaged))
    with pytest.raises(AnswersError, match="line 3 is damaged"):
        ask(PROMPTS[:2])
    assert path.read_bytes() == bytes(damaged)


def test_deleting_the_damaged_line_has_its_answer_generated_again(ask, path, sampled):
    expected = ask()
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], *lines[3:]]))
    assert ask() == expected
    assert sampled[-1] == 1


@pytest.mark.parametrize(("offset", "new"), [(30, b"9"), (0, b"[")])
def test_a_damaged_first_line_is_noticed(ask, path, offset, new):
    ask(PROMPTS[:1])
    content = bytearray(path.read_bytes())
    content[offset : offset + 1] = new
    path.write_bytes(content)
    for use in (lambda: read_answers(path), lambda: ask(PROMPTS[:1])):
        with pytest.raises(
            AnswersError, match="line 1 is not that of a file of answers, or is damaged; use another file"
        ):
            use()
    assert path.read_bytes() == bytes(content)


@pytest.mark.parametrize("content", [b"notes", b"notes\n", b'{"a": 1}\n', b"\n", b"null\n"])
def test_a_file_of_something_else_is_left_alone(ask, path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(AnswersError, match="line 1 is not that of a file of answers"):
        ask()
    assert path.read_bytes() == content


def test_lines_of_another_file_or_a_second_answer_are_refused(ask, path):
    ask(PROMPTS[:1])
    first = path.read_bytes().split(b"\n")
    path.unlink()
    ask(PROMPTS[:1], Decoding(8, seed=4))
    other = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first[0], other[1], b""]))
    with pytest.raises(AnswersError, match="line 2 is of another file; delete it"):
        read_answers(path)
    row = json.loads(first[1])
    row.pop("check")
    path.write_bytes(b"\n".join([first[0], first[1], first[1], b""]))
    assert len(read_answers(path).answers) == 1
    path.write_bytes(b"\n".join([first[0], first[1], module._line(row | {"text": "else"})]))
    with pytest.raises(AnswersError, match="line 3 has another answer to a prompt of an earlier line"):
        read_answers(path)


def test_a_missing_file_is_an_error_when_read(path):
    with pytest.raises(AnswersError, match=r"answers\.jsonl: No such file or directory; generate the answers first"):
        read_answers(path)


def test_two_writers_are_refused(ask, path):
    ask(PROMPTS[:1])
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(AnswersError, match="another process is writing it"):
            ask()
