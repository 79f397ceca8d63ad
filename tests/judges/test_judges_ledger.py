"""What an endpoint has said is kept, a killed run goes on, and the key is in no file, log or message."""

import json
import logging
import os
import signal
import time
from pathlib import Path

import pytest
from endpoint_server import Reply, Server, endpoint, failing, questions, records, says

from align.judges.endpoint import Endpoint
from align.judges.endpoint_judge import EndpointJudge
from align.judges.protocol import Judge

SECRET = "sk-not-a-real-key-0123456789abcdef"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_second_run_asks_only_for_what_is_missing(tmp_path):
    path = tmp_path / "deep" / "v.jsonl"
    with Server(lambda text, _: failing(500) if "prompt 2" in text else says("A")) as server:
        EndpointJudge(endpoint(server), path)(questions(3))
        before = path.read_bytes()
        server.requests.clear()
        server.answer = lambda *_: says("B")
        got = EndpointJudge(endpoint(server), path)(questions(4))
        assert sorted(text.split("prompt ")[1][0] for text in server.texts()) == ["2", "3"]
        assert [v.first_wins for v in got] == [1, 1, 0, 0]
        assert path.read_bytes().startswith(before)
        server.requests.clear()
        EndpointJudge(endpoint(server), path)(questions(4))
        assert server.requests == []


@pytest.mark.parametrize("change", [{"model": "judge-2"}, {"temperature": 0.5}, {"max_tokens": 7}])
def test_another_judge_is_asked_anew(change, tmp_path):
    with Server(lambda *_: says("A")) as server:
        EndpointJudge(endpoint(server), tmp_path / "v.jsonl")(questions(1))
        EndpointJudge(endpoint(server, **change), tmp_path / "v.jsonl")(questions(1))
        other = "{prompt} {a} {b} A, B or tie"
        EndpointJudge(endpoint(server), tmp_path / "v.jsonl", template=other)(questions(1))
        assert len(server.requests) == 3


DAMAGE = {
    "cut short": b'{"key": "abc", "first_w',
    "not json": b"\xff\xfe\x00\n",
    "no verdict": b'{"key": "abc"}\n',
    "a list": b"[1, 2]\n",
    "out of range": b'{"key": "KEY", "first_wins": 7, "said": "A"}\n',
    "not a number": b'{"key": "KEY", "first_wins": NaN, "said": "A"}\n',
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_line_costs_its_own_question_only(name, tmp_path, caplog):
    path = tmp_path / "v.jsonl"
    with Server(lambda *_: says("A")) as server:
        EndpointJudge(endpoint(server), path)(questions(2))
        first, second = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(first + DAMAGE[name].replace(b"KEY", json.loads(second)["key"].encode()))
        server.requests.clear()
        got = EndpointJudge(endpoint(server), path)(questions(2))
        assert len(server.requests) == 1
        assert [v.first_wins for v in got] == [1, 1]
        assert "1 unreadable lines (first: 2) count as missing" in caplog.text
        server.requests.clear()
        EndpointJudge(endpoint(server), path)(questions(2))
        assert server.requests == []


def test_a_killed_run_keeps_what_it_has_and_asks_for_the_rest(tmp_path):
    """The child is killed by the server on its sixth question; the verdicts of the first five are on disk."""
    path, child = tmp_path / "v.jsonl", {}

    def answer(text, number):
        if number == 5:
            os.kill(child["pid"], signal.SIGKILL)
            return Reply(hang=0.2)
        return says("A")

    with Server(answer) as server:
        settings = endpoint(server, concurrency=1)
        child["pid"] = os.fork()
        if child["pid"] == 0:
            time.sleep(0.1)  # the parent learns whom to kill
            EndpointJudge(settings, path)(questions(10))
            os._exit(0)
        _, status = os.waitpid(child["pid"], 0)
        assert os.WIFSIGNALED(status)
        assert len(records(path)) == 5
        path.write_bytes(path.read_bytes() + b'{"key": "half a li')
        server.requests.clear()
        server.answer = lambda *_: says("B")
        got = EndpointJudge(settings, path)(questions(10))
        assert len(server.requests) == 5
    assert [v.first_wins for v in got] == [1] * 5 + [0] * 5


def test_an_error_of_ours_stops_the_run_at_once(tmp_path):
    with Server(lambda *_: says("A")) as server:
        judge = EndpointJudge(endpoint(server, concurrency=1), tmp_path / "v.jsonl")
        judge.ledger.path = tmp_path  # a folder: nothing can be appended
        with pytest.raises(OSError, match="could not be written: Is a directory"):
            judge(questions(50))
        assert len(server.requests) < 50


def nowhere_under(folder, *texts):
    for path in Path(folder).rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_text(errors="replace")
    for text in texts:
        assert SECRET not in text


@pytest.mark.parametrize("reply", ["verdict", "401", "500", "header", "garbage"])
def test_the_key_is_sent_and_appears_nowhere_else(reply, tmp_path, monkeypatch, caplog, capfd):
    """The endpoint repeats the key in whatever it sends: a verdict, an error, a status line's header, garbage."""
    monkeypatch.setenv("JUDGE_KEY", f" {SECRET}\n")
    caplog.set_level(logging.DEBUG)
    told = {"error": {"message": f"Incorrect API key provided: {SECRET}"}}
    replies = {
        "verdict": says(f"A {SECRET}"),
        "401": Reply(401, told),
        "500": Reply(500, told),
        "header": Reply(503, {}, {"Retry_After": SECRET}),
        "garbage": Reply(raw=SECRET.encode()),
    }
    with Server(lambda *_: replies[reply]) as server:
        settings = endpoint(server, key_variable="JUDGE_KEY")
        judge = EndpointJudge(settings, tmp_path / "v.jsonl")
        got = judge(questions(2))
        raised = ""
        try:
            Judge(judge).prefer("p", ["a", "b"])
        except RuntimeError as error:
            raised = f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"
        assert all(headers["Authorization"] == f"Bearer {SECRET}" for _, _, headers, _ in server.requests)
    captured = capfd.readouterr()
    nowhere_under(tmp_path, raised, caplog.text, captured.out, captured.err, *map(repr, [settings, got, vars(judge)]))
    assert all(v.said == "A ***" if reply == "verdict" else v.error is not None for v in got)
    assert bool(raised) == (reply != "verdict")


def test_a_verdict_that_quotes_the_key_is_kept_without_it(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "tie")
    with Server(lambda *_: says("Answer tie")) as server:
        (got,) = EndpointJudge(endpoint(server, key_variable="JUDGE_KEY"), tmp_path / "v.jsonl")(questions(1))
    assert "tie" not in got.said
    assert "***" in got.error


def test_a_key_stays_at_home_when_redirected(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    with (
        Server(lambda *_: says("A")) as thief,
        Server(lambda *_: failing(302, Location=f"{thief.url}/chat/completions")) as server,
    ):
        EndpointJudge(endpoint(server, key_variable="JUDGE_KEY"), tmp_path / "v.jsonl")(questions(1))
        assert thief.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"url": f"https://user:{SECRET}@host/v1"}, "url: must hold no user, password, query or fragment"),
     ({"url": f"https://host/v1?key={SECRET}"}, "url: must hold no user, password, query or fragment"),
     ({"url": f"https://host/v1#{SECRET}"}, "url: must hold no user, password, query or fragment"),
     ({"url": f"ftp://{SECRET}/v1"}, "url: must start with http:// or https://"),
     ({"url": "file:///etc/passwd"}, "url: must start with http:// or https://"),
     ({"url": "https://host:99999/v1"}, "a port at most 65535"),
     ({"url": "http://far.example/v1", "key_variable": "JUDGE_KEY"}, "http would send the key in the clear"),
     ({"key_variable": "NOT_SET"}, "the environment variable 'NOT_SET' is not set"),
     ({"key_variable": "EMPTY"}, "must hold printable ASCII"),
     ({"key_variable": "TWO_LINES"}, "must hold printable ASCII"),
     ({"attempts": 0}, "attempts: must be positive, got 0"), ({"concurrency": 0}, "concurrency: must be positive"),
     ({"timeout_seconds": -1.0}, "timeout_seconds"), ({"max_wait_seconds": float("inf")}, "max_wait_seconds"),
     ({"temperature": -0.1}, "temperature: must not be negative, got -0.1")],
)  # fmt: skip
def test_settings_are_refused_without_showing_a_key(settings, message, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    monkeypatch.setenv("EMPTY", " ")
    monkeypatch.setenv("TWO_LINES", f"{SECRET}\n{SECRET}")
    with pytest.raises(ValueError, match=message) as caught:
        Endpoint(**({"url": "https://host/v1", "model": "m"} | settings))
    assert SECRET not in str(caught.value)


def test_all_problems_are_told_at_once_and_loopback_may_be_plain(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    for host in ("127.0.0.1:8000", "localhost", "[::1]:80"):
        Endpoint(f"http://{host}/v1", "m", key_variable="JUDGE_KEY")
    with pytest.raises(ValueError, match="url") as caught:
        Endpoint("x", "m", attempts=0, temperature=-1.0)
    assert len(str(caught.value).splitlines()) == 3
