"""A judge behind an endpoint that fails in every way: retried, reported by item, nothing lost, no silent skip."""

import contextlib
import json
import socket
import threading
import time
import urllib.request
from email.utils import formatdate

import numpy as np
import pytest
from endpoint_server import QUICK, Reply, Server, endpoint, failing, questions, records, says

from align.judges import endpoint_judge
from align.judges.endpoint import LARGEST_REPLY, Client, Endpoint, EndpointError, _retry_after
from align.judges.endpoint_judge import EndpointJudge
from align.judges.exchange import StatusError, exchanged
from align.judges.protocol import Judge, judge_all
from align.judges.replies import Reading
from eval.statistics.win_rate import position_bias, win_rate


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def longer(text, number=0):
    """A judge that reads: the answer with more characters is better."""
    a, b = text.split("# Answer A\n")[1].split("# Answer B\n")
    a, b = a.strip(), b.split("\n\n# Your verdict")[0].strip()
    return says("A" if len(a) > len(b) else "B" if len(b) > len(a) else "tie")


def test_both_orders_are_asked_and_verdicts_kept(tmp_path):
    with Server(longer) as server:
        judge = Judge(EndpointJudge(endpoint(server), tmp_path / "v.jsonl"))
        got = judge_all(judge, ["p", "q"], [["aaa", "b"], ["c", "c"]])
    assert got.preferences[0, 0, 1] == 1
    assert got.preferences[1, 0, 1] == 0.5
    assert got.said == {(0, 0, 1): "A", (0, 1, 0): "B", (1, 0, 1): "tie", (1, 1, 0): "tie"}
    assert position_bias(got.orders).flips.value == 0
    _, path, _, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge-1", 0.0, 16)
    assert len(server.requests) == 3  # c against c is one question
    assert len(records(tmp_path / "v.jsonl")) == 3


TROUBLE = {
    "500": lambda: failing(500),
    "503": lambda: failing(503),
    "429": lambda: failing(429),
    "408": lambda: failing(408),
    "a closed connection": lambda: Reply(close=True),
    "garbage": lambda: Reply(raw=b"\xff\x00<html>"),
    "no choices": lambda: Reply(body={"choices": []}),
    "a list": lambda: Reply(body=[1]),
    "no text": lambda: says(None),
    "another verdict": lambda: says("I cannot say which is better"),
    "both": lambda: says("A or B"),
    "too deep": lambda: Reply(raw=b"[" * 100_000),
    "too long": lambda: Reply(raw=json.dumps(says("A").body).encode() + b" " * LARGEST_REPLY),
    "cut short": lambda: Reply(raw=b'{"choices": [', headers={}),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_that_passes_is_retried(name, tmp_path):
    with Server(lambda text, number: TROUBLE[name]() if number < 2 else says("B")) as server:
        (got,) = EndpointJudge(endpoint(server), tmp_path / "v.jsonl")(questions(1))
    assert (got.first_wins, got.said, got.error) == (0.0, "B", None)
    assert len(server.requests) == 3


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_that_stays_is_reported_for_its_item_alone(name, tmp_path):
    with Server(lambda text, _: TROUBLE[name]() if "prompt 1" in text else says("A")) as server:
        got = EndpointJudge(endpoint(server), tmp_path / "v.jsonl")(questions(3))
    assert [v.error is None for v in got] == [True, False, True]
    assert "(attempts: 3)" in got[1].error
    assert np.isnan(got[1].first_wins)
    assert [v.first_wins for v in (got[0], got[2])] == [1.0, 1.0]
    assert sum("prompt 1" in text for text in server.texts()) == 3
    failed = [row for row in records(tmp_path / "v.jsonl") if "error" in row]
    assert [row["error"] for row in failed] == [got[1].error]


def test_a_reason_says_what_the_endpoint_said(tmp_path):
    with Server(lambda *_: Reply(500, {"error": {"message": "out of\x1b[31m memory" + "!" * 500}})) as server:
        (got,) = EndpointJudge(endpoint(server), tmp_path / "v.jsonl")(questions(1))
    assert got.error.startswith("status 500: out of\\x1b[31m memory!!!")
    assert len(got.error) < 250


@pytest.mark.parametrize("reply", [Reply(hang=1.0), Reply(raw=b" " * 60, drip=True)], ids=["silence", "a drip"])
def test_a_timeout_is_retried_and_then_reported(reply, tmp_path):
    def answer(text, number):
        return reply if "prompt 1" in text or number == 0 else says("A")

    with Server(answer) as server:
        patient = endpoint(server, timeout_seconds=0.25, attempts=2, concurrency=1)
        got = EndpointJudge(patient, tmp_path / "v.jsonl")(questions(2))
    assert got[0].first_wins == 1.0
    assert got[1].error == "no reply: timed out (attempts: 2)"
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 900, b"HTTP/1.1 503 No\r\n\r\n" + b"x" * 900, b"H" * 900],
    ids=["headers", "an error", "a status line"],
)  # fmt: skip
def test_one_deadline_holds_for_all_of_a_reply(said):
    """A byte every 20 ms would keep any timeout of a socket from running out, for 18 s."""
    listening = socket.create_server(("127.0.0.1", 0))

    def drip():
        connection, _ = listening.accept()
        connection.recv(2**16)
        with contextlib.suppress(OSError):
            for byte in said:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)

    threading.Thread(target=drip, daemon=True).start()
    request = urllib.request.Request(f"http://127.0.0.1:{listening.getsockname()[1]}/", b"{}")
    begun = time.monotonic()
    with pytest.raises((OSError, StatusError)):
        exchanged(request, seconds=0.5, largest=2**20)
    assert time.monotonic() - begun < 5
    listening.close()


def test_a_refused_connection_is_retried_and_then_reported(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    (got,) = EndpointJudge(Endpoint(url, "judge-1", **QUICK), tmp_path / "v.jsonl")(questions(1))
    assert got.error == "no reply: Connection refused (attempts: 3)"


def test_a_question_that_is_refused_is_not_asked_again_but_the_others_are(tmp_path):
    with Server(lambda text, _: failing(400) if "prompt 0" in text else says("A")) as server:
        got = EndpointJudge(endpoint(server), tmp_path / "v.jsonl")(questions(3))
    assert [v.error for v in got] == ["status 400: told to fail with 400", None, None]
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_where_nothing_can_succeed_the_rest_is_not_asked_and_says_so(status, tmp_path):
    with Server(lambda *_: failing(status, Location="http://127.0.0.1:9/elsewhere")) as server:
        got = EndpointJudge(endpoint(server, concurrency=1), tmp_path / "v.jsonl")(questions(5))
    assert len(server.requests) == 1
    assert got[0].error == f"status {status}: told to fail with {status}; check url, model and key_variable"
    for verdict in got[1:]:
        assert verdict.error.startswith("not asked (attempts: 0); given up because of: status")


def test_an_endpoint_that_is_down_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint_judge, "GIVE_UP_AFTER", 3)
    with Server(lambda *_: failing(503)) as server:
        judge = EndpointJudge(endpoint(server, concurrency=1), tmp_path / "v.jsonl")
        got = judge(questions(6))
        assert len(server.requests) == 9
        assert all(v.error is not None for v in got)
        assert "given up because of: status 503" in got[5].error
        server.answer = longer
        assert all(v.error is None for v in judge(questions(6)))


def test_scattered_failures_do_not_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint_judge, "GIVE_UP_AFTER", 2)
    with Server(lambda text, _: failing(503) if int(text.split("prompt ")[1][0]) % 2 else says("A")) as server:
        got = EndpointJudge(endpoint(server, concurrency=1), tmp_path / "v.jsonl")(questions(8))
    assert [v.error is None for v in got] == [True, False] * 4


def test_failures_leave_the_win_rate_with_their_count(tmp_path):
    with Server(lambda text, _: failing(500) if "prompt 1" in text else longer(text)) as server:
        judge = Judge(EndpointJudge(endpoint(server), tmp_path / "v.jsonl"))
        got = judge_all(judge, [f"prompt {i}" for i in range(4)], [["aa", "b"], ["a", "b"], ["a", "bb"], ["cc", "d"]])
    rate = win_rate(got.preferences[:, 0, 1])
    assert (rate.wins, rate.losses, rate.failed, rate.win_rate.n) == (2, 1, 1, 3)


def test_retry_after_holds_back_every_thread(tmp_path):
    """The first request is told to wait 0.4 s; none comes sooner, of any thread."""
    with Server(lambda _, number: failing(429, Retry_After="0.4") if number == 0 else says("A")) as server:
        patient = endpoint(server, concurrency=1, max_wait_seconds=2.0)
        client = Client(patient)
        assert client.ask("one", Reading()) == ("A", 1.0)
        assert client.ask("two", Reading()) == ("A", 1.0)
    times = [row[0] for row in server.requests]
    assert times[1] - times[0] >= 0.39


def test_retry_after_is_no_way_to_stop_us_for_hours(monkeypatch):
    waits = []
    with Server(lambda *_: failing(429, Retry_After="86400")) as server:
        client = Client(endpoint(server, max_wait_seconds=5.0))
        monkeypatch.setattr(client.stop, "wait", lambda seconds: waits.append(seconds))
        with pytest.raises(EndpointError, match="status 429"):
            client.ask("x", Reading())
    assert 4 < max(waits) <= 5


def test_retry_after_may_be_seconds_or_a_date():
    assert _retry_after("1.5") == 1.5
    assert 50 < _retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    for nothing in (None, "soon", "-3", "nan", "inf", formatdate(time.time() - 60, usegmt=True), formatdate(0)[:-6]):
        assert _retry_after(nothing) == 0.0


def test_waits_double_and_are_part_random(monkeypatch):
    waits = []
    client = Client(Endpoint("http://127.0.0.1:9/v1", "m", attempts=6, backoff_seconds=1.0, max_wait_seconds=5.0))
    monkeypatch.setattr(client, "_reply", lambda *_, **__: (_ for _ in ()).throw(TimeoutError))
    monkeypatch.setattr(client.stop, "wait", lambda seconds: waits.append(seconds))
    with pytest.raises(EndpointError, match=r"timed out \(attempts: 6\)"):
        client.ask("x", Reading())
    waits = [seconds for seconds in waits if seconds > 0]
    assert len(waits) == 5
    for seconds, most in zip(waits, [1, 2, 4, 5, 5], strict=True):
        assert most / 2 <= seconds <= most
    assert len({seconds / most for seconds, most in zip(waits, [1, 2, 4, 5, 5], strict=True)}) == 5


def test_no_more_questions_at_once_than_asked_for(tmp_path):
    three = threading.Barrier(3)

    def slow(*_):
        three.wait(timeout=30)  # answers come only to three that wait together
        time.sleep(0.03)
        return says("A")

    with Server(slow) as server:
        EndpointJudge(endpoint(server, concurrency=3), tmp_path / "v.jsonl")(questions(12))
    assert server.most_at_once == 3
