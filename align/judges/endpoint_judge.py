"""Judges by an OpenAI-compatible endpoint: several questions at a time, every verdict on disk as it comes."""

import json
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from .endpoint import Client, Endpoint, EndpointError
from .ledger import Ledger
from .protocol import COMPARE, TEMPLATE, Question, Verdict, question_text
from .replies import Reading

logger = logging.getLogger(__name__)
TIE_ALLOWED = TEMPLATE + ", or tie if neither is better"
REASONS_FIRST = (
    COMPARE
    + """First say in a few sentences what each answer does well and what it does badly. Then end with the verdict alone: \
[[A]] or [[B]] for the better answer, [[C]] if neither is better"""
)
GIVE_UP_AFTER = 20
"""Failed questions in a row after which the endpoint is not asked further."""


class EndpointJudge:
    """Asks an endpoint which of two answers is better: A, B or tie. `Judge(...)` of it is a scorer.

    Every verdict is appended to the ledger as it comes, together with what makes it one (endpoint, settings, question),
    so that the same questions cost nothing a second time and a run that was killed goes on. Failures are recorded too,
    and asked again by the next run. If the endpoint refuses us, or fails on 20 questions in a row, the remaining
    questions are not asked, and say so in their verdicts.

    Args:
        endpoint: Where and how to ask.
        ledger: The jsonl file of verdicts.
        template: With {prompt}, {a} and {b}; it says what to reply.
        reading: How a reply is read.
    """

    def __init__(
        self, endpoint: Endpoint, ledger: Path, *, template: str | None = None, reading: Reading | None = None
    ) -> None:
        self.reading = reading or Reading()
        self.template = template or (REASONS_FIRST if self.reading.reasoning else TIE_ALLOWED)
        question_text(self.template, Question("", "", ""))
        self.endpoint, self.ledger = endpoint, Ledger(ledger)

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        """One verdict per question. Equal questions are asked once."""
        texts = [question_text(self.template, question) for question in questions]
        missing = dict.fromkeys(text for text in texts if self.ledger.get(self._key(text)) is None)
        failures: dict[str, str] = {}
        client = Client(self.endpoint)
        watch = _Watch(client)
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool, tqdm(total=len(missing), desc="judgements") as bar:

            def ask(text: str) -> None:
                try:
                    self._record(text, client)
                    watch.replied()
                except EndpointError as error:
                    failures[text] = watch.failed(error)
                    self.ledger.append({"key": self._key(text), "error": failures[text]})
                bar.update()

            try:
                for done in [pool.submit(ask, text) for text in missing]:
                    done.result()
            except BaseException:  # an interrupt, or a full disk: what waits is not asked
                client.stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        return [self._verdict(text, failures) for text in texts]

    def _record(self, text: str, client: Client) -> None:
        said, first_wins = client.ask(text, self.reading, logprobs=self.reading.logprobs)
        self.ledger.append({"key": self._key(text), "first_wins": first_wins, "said": said})

    def _key(self, text: str) -> str:
        end = self.endpoint
        read = {name: True for name, asked in self.reading._asdict().items() if asked}
        parts = [end.url, end.model, end.temperature, end.max_tokens, text, *([read] if read else [])]
        return sha256(json.dumps(parts).encode()).hexdigest()

    def _verdict(self, text: str, failures: dict[str, str]) -> Verdict:
        record = self.ledger.get(self._key(text))
        if record is None:
            return Verdict(np.nan, "", failures[text])
        return Verdict(*record)


class _Watch:
    """Stops the asking once it is hopeless."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.lock = threading.Lock()
        self.in_a_row = 0
        self.why = ""

    def replied(self) -> None:
        with self.lock:
            self.in_a_row = 0

    def failed(self, error: EndpointError) -> str:
        """The message of a question's failure."""
        with self.lock:
            if self.client.stop.is_set():
                return f"{error}; given up because of: {self.why}"
            self.in_a_row += 1
            if error.hopeless or self.in_a_row >= GIVE_UP_AFTER:
                self.why = str(error)
                self.client.stop.set()
            return str(error)
