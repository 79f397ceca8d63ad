"""Has an OpenAI-compatible endpoint answer prompts: several at a time, every answer on disk as it comes."""

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from align.errors import RunError
from align.files import append_synced, whole_lines
from align.judges.endpoint import Client, Endpoint, EndpointError
from align.judges.from_recipe import permission


class Unanswered(NamedTuple):
    """A question without an answer: which prompt, which sample, and why."""

    prompt: int
    sample: int
    error: str


def endpoint_of(
    url: str, model: str, key_variable: str | None, allow: Collection[str], *, what: str, **settings: Any
) -> Endpoint:
    """An endpoint that the command line names.

    Args:
        url: Up to and without `/chat/completions`.
        model: Its name of the model.
        key_variable: Environment variable that holds the key.
        allow: What was given with `--allow`.
        what: What it would be sent, in messages.
        settings: Further fields of `Endpoint`.

    Raises:
        RunError: If it may not be asked, or a setting is wrong.
    """
    given = {"url": url, "model": model, "key_variable": key_variable}
    host = permission(given)
    if host not in allow:
        raise RunError(f"{url}: {what} would be sent to {urlsplit(url).netloc!r}; if you agree, add --allow {host}")
    try:
        return Endpoint(**given, **settings)
    except ValueError as error:
        raise RunError(str(error)) from None


def endpoint_answers(
    endpoint: Endpoint, rows: Sequence[Mapping[str, Any]], samples: int, kept: Path
) -> tuple[list[list[str]], list[Unanswered]]:
    """The answers to each prompt, and the failures, which a next call asks again; nothing else is asked twice.

    An endpoint has no seed that would make its answers the same elsewhere; those that are kept are.

    Args:
        endpoint: Where and how to ask. If it refuses us, no further prompt is sent.
        rows: With `prompt`, text or messages.
        samples: Answers for each prompt.
        kept: The jsonl file of what was answered.
    """
    known, client, lock, failures = _read(kept), Client(endpoint), threading.Lock(), []
    keys = {(i, k): _key(endpoint, row["prompt"], k) for i, row in enumerate(rows) for k in range(samples)}
    missing = {key: place for place, key in keys.items() if key not in known}
    with ThreadPoolExecutor(endpoint.concurrency) as pool, tqdm(total=len(missing), desc="answers") as bar:

        def ask(key: str, place: tuple[int, int]) -> None:
            try:
                said = client.ask(rows[place[0]]["prompt"], _text)
            except EndpointError as error:
                if error.hopeless:
                    client.stop.set()
                failures.append(Unanswered(*place, str(error)))
                return
            with lock:
                known[key] = said
                append_synced(kept, (json.dumps({"key": key, "text": said}) + "\n").encode())
                bar.update()

        try:
            for done in [pool.submit(ask, key, place) for key, place in missing.items()]:
                done.result()
        except BaseException:  # an interrupt, or a full disk: what waits is not asked
            client.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    answers = [[known[keys[i, k]] for k in range(samples) if keys[i, k] in known] for i in range(len(rows))]
    return answers, sorted(failures)


def _text(reply: str) -> str:
    if not reply.strip():
        raise ValueError("an empty answer")
    return reply


def _key(endpoint: Endpoint, prompt: Any, sample: int) -> str:
    parts = [endpoint.url, endpoint.model, endpoint.temperature, endpoint.max_tokens, prompt, sample]
    return sha256(json.dumps(parts).encode()).hexdigest()


def _read(kept: Path) -> dict[str, str]:
    """What was answered; a last line that a kill cut short is cut off and asked again."""
    rows = [json.loads(line) for line in whole_lines(kept).splitlines()]
    return {row["key"]: row["text"] for row in rows}
