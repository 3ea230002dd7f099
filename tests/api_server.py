"""A tiny server that speaks the OpenAI API, badly where it is told to."""

import hashlib
import json
import math
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WEIGHTS = (0.5, 0.2, 0.1, 0.05, 0.05)  # of the options, turned round by the prompt; 0.1 lies outside


def options_of(text):
    """The numbers or letters that a prompt offers."""
    return sorted(set(re.findall(r"(?m)^\W*(\d+|[A-E])\s*[=:.)]", text))) or ["1", "2", "3", "4", "5"]


def shares_of(text):
    """What this model gives each option: the same for the same text."""
    options = options_of(text)
    turn = hashlib.sha256(text.encode()).digest()[0] % len(options)
    shares = {option: WEIGHTS[(i + turn) % len(WEIGHTS)] for i, option in enumerate(options)}
    return shares


class Server(ThreadingHTTPServer):
    """``plan`` is what the next requests get instead of an answer; ``bodies`` are all requests so far."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.always, self.bodies, self.headers, self.lock = [], None, [], [], threading.Lock()
        self.logprobs = self.echo = self.usage = True
        self.refuses, self.most_likeliest, self.says, self.name, self.wait = (), 20, None, "tiny-1", 0.0
        self.busy = self.busiest = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """A client that went away is none of its business."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.busy += 1
            server.busiest = max(server.busy, server.busiest)
            trick = server.plan.pop(0) if server.plan else server.always
        try:
            time.sleep(server.wait)
            trick(self) if trick else self.answer(body)
        finally:
            with server.lock:
                server.busy -= 1

    def send(self, status, data, **headers):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self, body):
        server = self.server
        if odd := [name for name in server.refuses if name in body]:
            message = f"Unsupported parameter: '{odd[0]}' is not supported with this model."
            return self.send(400, {"error": {"message": message, "param": odd[0]}})
        chat = self.path.endswith("/chat/completions")
        asked = body["messages"][-1]["content"] if chat else body["prompt"]
        if isinstance(asked, list):
            if not server.echo:
                return self.send(400, {"detail": "prompt must be a string."})
            choices = [self.echoed(text, i) for i, text in enumerate(asked)]
        else:
            choices = [self.choice(asked, body, chat)]
        reply = {"model": server.name, "system_fingerprint": "fp_7", "choices": choices}
        if server.usage:
            reply["usage"] = {"prompt_tokens": 100, "completion_tokens": 2}
        return self.send(200, reply)

    def choice(self, text, body, chat):
        server, shares = self.server, shares_of(text)
        said = max(shares, key=shares.get) + ". That is it." if server.says is None else server.says(text)
        wanted = body.get("top_logprobs") if chat else body.get("logprobs")
        told = [{"token": ("" if chat else " ") + o, "logprob": math.log(p)} for o, p in shares.items()]
        told += [{"token": "The", "logprob": math.log(0.1)}]
        logprobs = None
        if server.logprobs and wanted:
            if chat:
                logprobs = {"content": [{**told[0], "top_logprobs": told}]}
            else:
                logprobs = {"top_logprobs": [{one["token"]: one["logprob"] for one in told}]}
        part = {"message": {"role": "assistant", "content": said}} if chat else {"text": f" {said}"}
        return {"index": 0, "finish_reason": "stop", "logprobs": logprobs} | part

    def echoed(self, text, index):
        context, _, option = text.rpartition(" ")
        words = re.findall(r"\s*\S+", context)
        logs = [None] + [-1.0] * (len(words) - 1) + [math.log(shares_of(context)[option]), -2.0]
        tokens = [*words, f" {option}", " and"]
        return {"index": index, "text": f"{text} and", "logprobs": {"tokens": tokens, "token_logprobs": logs}}


def status(code, body=None, **headers):
    """A trick: an error status."""
    return lambda handler: handler.send(code, body if body is not None else {"error": {"message": "no"}}, **headers)


def raw(data):
    """A trick: these bytes with status 200."""
    return lambda handler: handler.send(200, data)


def hang(handler):
    """A trick: nothing for a while."""
    time.sleep(1.5)
    handler.close_connection = True


def dribble(handler):
    """A trick: a byte now and then."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(15):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)
    handler.close_connection = True


def cut(handler):
    """A trick: the connection ends before the reply does."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def huge(handler):
    """A trick: more than anybody reads."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" " * (1 << 16))
    handler.close_connection = True


@contextmanager
def serving():
    """A server for as long as the block lasts."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
