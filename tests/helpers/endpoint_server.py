"""An OpenAI-compatible endpoint on loopback that fails as it is told."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from align.judges.endpoint import Endpoint
from align.judges.protocol import Question


class Reply:
    """What the server does with one request."""

    def __init__(self, status=200, body=None, headers=None, hang=0.0, close=False, raw=None, drip=False):
        self.status, self.body, self.headers = status, body, headers or {}
        self.hang, self.close, self.raw, self.drip = hang, close, raw, drip


def says(text):
    return Reply(body={"choices": [{"message": {"role": "assistant", "content": text}}]})


def failing(status, **headers):
    return Reply(status, {"error": {"message": f"told to fail with {status}"}}, headers)


class Server:
    """`answer(text, number)` gives the reply to the request of that number (from 0); requests are kept."""

    def __init__(self, answer):
        self.answer, self.requests, self.lock = answer, [], threading.Lock()
        self.at_once = self.most_at_once = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                    number = len(outer.requests)
                    outer.requests.append((time.monotonic(), self.path, dict(self.headers), body))
                try:
                    with contextlib.suppress(OSError):
                        self.send(outer.answer(body["messages"][0]["content"], number))
                finally:
                    with outer.lock:
                        outer.at_once -= 1

            def do_GET(self):  # what a redirect makes of a POST
                outer.requests.append((time.monotonic(), self.path, dict(self.headers), None))
                self.send(says("A"))

            def send(self, reply):
                if reply.hang:
                    time.sleep(reply.hang)
                if reply.close:
                    self.connection.close()
                    return
                content = reply.raw if reply.raw is not None else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                for part in [content[i : i + 1] for i in range(len(content))] if reply.drip else [content]:
                    self.wfile.write(part)
                    self.wfile.flush()
                    if reply.drip:
                        time.sleep(0.05)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def texts(self):
        return [body["messages"][0]["content"] for _, _, _, body in self.requests]

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


QUICK = {"backoff_seconds": 0.01, "max_wait_seconds": 0.05, "timeout_seconds": 5.0, "attempts": 3, "concurrency": 2}


def endpoint(server, **changed):
    return Endpoint(**({"url": server.url, "model": "judge-1"} | QUICK | changed))


def questions(n):
    return [Question(f"prompt {i}", f"first {i}", f"second {i}") for i in range(n)]


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
