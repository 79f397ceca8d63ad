"""Asks an OpenAI-compatible endpoint one question at a time, again until it is answered or given up with a reason.

The key comes from an environment variable at the moment of each request. It is kept in no object, and taken out of
whatever the endpoint sends back, so that it reaches no file, log or message.
"""

import contextlib
import http.client
import ipaddress
import json
import math
import os
import random
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from align.findings import printable

from .exchange import StatusError, exchanged
from .replies import Token

T = TypeVar("T")
LARGEST_REPLY = 2**20
SHOWN = 200
ROUNDING = 1e-3
"""Nats by which a log-probability may be above 0."""
LIKELY = 20
"""Of each token, how many log-probabilities are asked for: the most that the protocol allows."""
RETRIED = {408, 409, 425, 429}
OF_THIS_QUESTION = {400, 413, 422}
POSITIVE = ("max_tokens", "timeout_seconds", "attempts", "concurrency", "backoff_seconds", "max_wait_seconds")


class EndpointError(RuntimeError):
    """A question without an answer. `hopeless` if no other question can fare better."""

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


@dataclass(frozen=True)
class Endpoint:
    """Where a judge is asked, and how patiently."""

    url: str
    """Up to and without `/chat/completions`, such as http://127.0.0.1:8000/v1."""
    model: str
    key_variable: str | None = None
    """Name of the environment variable that holds the key; None if the endpoint needs none."""
    temperature: float = 0.0
    max_tokens: int = 16
    timeout_seconds: float = 60.0
    """Of one attempt, from the connection to the end of the reply."""
    attempts: int = 5
    concurrency: int = 4
    backoff_seconds: float = 1.0
    """Wait after the first failed attempt; doubled after each further one, less up to half of it at random."""
    max_wait_seconds: float = 60.0
    """Longest wait between attempts, also where the endpoint's Retry-After asks for more."""

    def __post_init__(self) -> None:
        if problems := self.problems():
            raise ValueError("\n".join(problems))

    def problems(self) -> list[str]:
        """What is wrong with the settings; neither the key nor a URL that may hold one is repeated."""
        problems = []
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _port_is_valid(self.url):
            problems.append("url: must start with http:// or https:// and name a host, and a port at most 65535 if any")
        if parts.username or parts.password or parts.query or parts.fragment:
            problems.append("url: must hold no user, password, query or fragment; put the key into key_variable")
        if self.key_variable is not None:
            if self.key_variable not in os.environ:
                problems.append(f"key_variable: the environment variable {self.key_variable!r} is not set")
            elif not self.key() or any(not "!" <= character <= "~" for character in self.key()):
                problems.append(f"key_variable: {self.key_variable!r} must hold printable ASCII without spaces")
            if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
                problems.append("url: http would send the key in the clear; use https")
        problems += [
            f"{name}: must be positive, got {getattr(self, name)}"
            for name in POSITIVE
            if not 0 < getattr(self, name) < math.inf
        ]
        if not 0 <= self.temperature < math.inf:
            problems.append(f"temperature: must not be negative, got {self.temperature}")
        return problems

    def key(self) -> str:
        """The key, without surrounding white space; empty if none is needed."""
        return os.environ.get(self.key_variable, "").strip() if self.key_variable else ""

    def without_key(self, text: str) -> str:
        """A text of the endpoint's with the key taken out."""
        key = self.key()
        return text.replace(key, "***") if key else text


def _port_is_valid(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Client:
    """Asks an endpoint; safe from several threads, which share what Retry-After demands.

    Args:
        endpoint: The settings.
        seed: Of the random part of the waits.
    """

    def __init__(self, endpoint: Endpoint, *, seed: int = 0) -> None:
        self.endpoint = endpoint
        self.stop = threading.Event()
        """Once set, waits end and nothing further is asked."""
        self._random = random.Random(seed)
        self._not_before = 0.0

    def ask(self, text: str | list[dict[str, str]], read: Callable[..., T], *, logprobs: bool = False) -> T:
        """The endpoint's reply to one message of a user, or to a conversation, as `read` understands it.

        `read` is given the text, and with `logprobs` its tokens too, with what else was likely in their places.

        Asked again after a timeout, a broken connection, a status of 408, 409, 425, 429 or 5xx, a reply that is not
        what the protocol says, and one that `read` refuses with ValueError.

        Raises:
            EndpointError: If no attempt succeeds, or the endpoint refuses the question. It says why.
        """
        failure, attempts = EndpointError("not asked"), 0
        while attempts < self.endpoint.attempts:
            if self.stop.wait(max(0.0, self._not_before - time.monotonic())):
                break
            attempts += 1
            try:
                return read(*self._reply(text, logprobs=logprobs))
            except StatusError as error:
                failure = self._refusal(error)
                if failure.hopeless or error.status in OF_THIS_QUESTION:
                    raise failure from None
                asked = _retry_after(error.headers.get("Retry-After"))
                if asked:
                    until = time.monotonic() + min(asked, self.endpoint.max_wait_seconds)
                    self._not_before = max(self._not_before, until)
            except (OSError, http.client.HTTPException) as error:
                failure = EndpointError(self._shown(f"no reply: {_reason(error)}"))
            except (ValueError, RecursionError) as error:
                failure = EndpointError(self._shown(f"unreadable reply: {error}"))
            if attempts < self.endpoint.attempts:
                wait = min(self.endpoint.backoff_seconds * 2.0 ** (attempts - 1), self.endpoint.max_wait_seconds)
                self.stop.wait(wait * (1 - 0.5 * self._random.random()))
        raise EndpointError(f"{failure} (attempts: {attempts})") from None

    def _reply(self, text: str | list[dict[str, str]], *, logprobs: bool) -> tuple[Any, ...]:
        end = self.endpoint
        body = {
            "model": end.model,
            "messages": [{"role": "user", "content": text}] if isinstance(text, str) else text,
            "temperature": end.temperature,
            "max_tokens": end.max_tokens,
            **({"logprobs": True, "top_logprobs": LIKELY} if logprobs else {}),
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := end.key():
            headers["Authorization"] = f"Bearer {key}"
        url = end.url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        content = exchanged(request, seconds=end.timeout_seconds, largest=LARGEST_REPLY)
        reply = json.loads(content)
        try:
            said = reply["choices"][0]["message"]["content"]
        except (TypeError, LookupError):
            raise ValueError("no choices[0].message.content") from None
        if not isinstance(said, str):
            raise ValueError(f"choices[0].message.content is {type(said).__name__}, not text")
        return (end.without_key(said), *([_tokens(reply["choices"][0])] if logprobs else []))

    def _refusal(self, error: StatusError) -> EndpointError:
        try:
            said = str(json.loads(error.content)["error"]["message"])
        except (ValueError, TypeError, LookupError, RecursionError):
            said = str(http.client.responses.get(error.status, ""))
        retried = error.status in RETRIED or error.status >= 500
        hopeless = not retried and error.status not in OF_THIS_QUESTION
        advice = "; check url, model and key_variable" if hopeless else ""
        return EndpointError(self._shown(f"status {error.status}: {said}") + advice, hopeless=hopeless)

    def _shown(self, message: str) -> str:
        return printable(self.endpoint.without_key(message), SHOWN)


def _tokens(choice: Any) -> list[Token]:
    """The tokens of a reply; one that has none cannot fare better when it is asked again."""
    try:
        return [Token(str(one["token"]), _likely(one["top_logprobs"])) for one in choice["logprobs"]["content"]]
    except (TypeError, LookupError, ValueError):
        raise EndpointError(
            "the endpoint gives no choices[0].logprobs.content; leave out logprobs", hopeless=True
        ) from None


def _likely(alternatives: Any) -> dict[str, float]:
    """Log-probabilities by token; one that is no number, or above 0, says nothing."""
    found = {}
    for each in alternatives:
        with contextlib.suppress(TypeError, ValueError):
            logp = float(each["logprob"])
            if logp <= ROUNDING:
                found[str(each["token"])] = min(logp, 0.0)
    return found


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(inner, TimeoutError) or isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(inner, OSError):
        return inner.strerror or type(inner).__name__
    return getattr(error, "strerror", None) or type(error).__name__


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks to wait, given as a number or a date; 0 if it is neither."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return seconds if 0 < seconds < math.inf else 0.0
