"""Sends one request to an endpoint and reads all of its reply within one deadline, whatever the endpoint does.

A timeout of sockets starts anew with every byte: an endpoint that sends one a second, in its headers or in an error, would
hold an evaluation for ever.
"""

import http.client
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any


class StatusError(Exception):
    """A reply with a status that is no success."""

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        super().__init__(f"status {status}")
        self.status, self.headers, self.content = status, headers, content


def exchanged(request: urllib.request.Request, *, seconds: float, largest: int) -> bytes:
    """The body of the reply to a request; no redirect is followed, for it would carry the key to whoever it names.

    Args:
        request: The request.
        seconds: From the name of the host to the last byte of the reply, errors included.
        largest: Bytes that the reply may have; an error is cut there.

    Raises:
        StatusError: If the endpoint refuses.
        ValueError: If the reply is larger.
        OSError: If there is none in time.
    """
    answer: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
    sockets: list[socket.socket] = []
    deadline = time.monotonic() + seconds

    def work() -> None:
        try:
            answer.put(_body(request, sockets, deadline, largest))
        except BaseException as error:
            answer.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        said = answer.get(timeout=seconds)
    except queue.Empty:
        for each in sockets:
            _shut(each)  # which ends the thread
        raise TimeoutError("timed out") from None
    if isinstance(said, BaseException):
        raise said
    return said


def _body(request: urllib.request.Request, sockets: list[socket.socket], deadline: float, largest: int) -> bytes:
    opener = urllib.request.build_opener(_NoRedirect(), _Http(sockets), _Https(sockets))
    try:
        with opener.open(request, timeout=max(deadline - time.monotonic(), 0.001)) as response:
            content = _read(response, deadline, largest)
    except urllib.error.HTTPError as error:
        with error:
            try:
                said = _read(error, deadline, largest)
            except (ValueError, OSError, http.client.HTTPException):
                said = b""
            raise StatusError(error.code, dict(error.headers), said) from None
    return content


def _read(response: Any, deadline: float, largest: int) -> bytes:
    content = b""
    while part := response.read1(2**16):
        content += part
        if len(content) > largest:
            raise ValueError(f"more than {largest} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    return content


def _shut(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _watched(base: Any, sockets: list[socket.socket]) -> Any:
    """A class of connections that tells which sockets it opens."""

    class Watched(base):
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    return Watched


class _Http(urllib.request.HTTPHandler):
    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self.connection = _watched(http.client.HTTPConnection, sockets)

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self.connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self.connection = _watched(http.client.HTTPSConnection, sockets)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self.connection, req)
