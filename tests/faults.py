"""A warm process that carries out ``culteval`` commands in forked children, each with one fault injected.

Run as a script: requests come as JSON lines on standard input, each a list of commands that run at the same time, and
each is answered by a line with what became of them. Python's audit events tell a child what it is about to do to the
files under ``root``; at the event whose number is asked for, the fault happens. With ``real`` a command meets
transformers and torch, else a model of numpy arrays that answers in microseconds; then a run is its files and little
else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NOBODY = 65534


class Numbers:
    """What a run needs of a model: answers that rest on prompt and soft prompt alone."""

    class _Config:
        num_attention_heads, num_hidden_layers = 1, 1

        def get_text_config(self) -> Any:
            return self

    dim, tokens, vocabulary = 6, 0, 50
    has_weights, context_length = True, None

    def __init__(self) -> None:
        from culteval.harness.model_info import ModelInfo

        fields = {"name": "numbers", "revision": "r", "dtype": "float64", "device": "cpu", "forward": "plain"}
        self.info = ModelInfo(**fields, threads=1, chat_template=None)
        self.model = type("Model", (), {"config": self._Config(), "get_decoder": lambda self: self})()
        self._vectors = np.random.default_rng(0).standard_normal((self.vocabulary, self.dim)).astype(np.float32)

    def ordinary_tokens(self) -> np.ndarray:
        return np.arange(self.vocabulary)

    def token_vectors(self, ids: Any) -> np.ndarray:
        return self._vectors[np.asarray(ids)]

    def vocabulary_parts(self) -> Any:
        yield self._vectors

    def watched(self, done: Any) -> Any:
        return contextlib.nullcontext()

    def answer(self, prompts: Any, soft: np.ndarray | None, preamble: str = "") -> Any:
        from culteval.tasks.answers import Answers

        layout, count = prompts.layout, 1 if soft is None else len(soft)
        moved = np.zeros((count, 1, 1)) if soft is None else np.asarray(soft, float).sum((1, 2))[:, None, None]
        logs = np.cos(moved + np.array([len(text) for text in prompts.texts])[None, :, None] + layout.codes[None])
        mass = np.exp(logs) * layout.inside[None]
        return Answers(layout, mass / mass.sum(-1, keepdims=True), np.zeros(mass.shape[:2]))


class Injector:
    """Counts what a command does to the files under ``root``, and lets the fault happen at its event."""

    def __init__(self, root: str, kind: str | None, at: int) -> None:
        self.root, self.kind, self.at, self.count = root, kind, at, 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in CHANGES or not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(args[0])
        if not path.startswith(self.root) or (event == "open" and not (args[2] or 0) & WRITES):
            return
        self.count += 1
        if self.count == self.at and self.kind in ("kill", "term", "interrupt"):
            number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}[self.kind]
            os.kill(os.getpid(), number)
        if self.count == self.at and self.kind == "io":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        if self.count >= self.at and self.kind == "full" and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self.count == self.at and self.kind == "memory":
            raise MemoryError


def carry_out(command: dict[str, Any], said: int) -> None:
    """In a child: the command with its fault, its errors into the pipe ``said``; never returns."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(said, 2)
    os.chdir(command["cwd"])
    os.environ.update(command.get("env", {}))
    time.perf_counter = lambda: 0.0  # so that files of equal runs are equal
    injector = Injector(command["root"], command.get("kind"), command.get("at", 0))
    if (
        most := command.get("bytes")
    ) is not None:  # of any file: a kill in the midst of writing, or a disk that is full
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if command["kind"] == "cut" else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    if (more := command.get("memory")) is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))
    if command.get("nobody") and os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    sys.addaudithook(injector)
    from culteval.harness.cli import main as cli

    sys.argv, code = ["culteval", *command["argv"]], 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    injector.root = "\0"
    sys.stderr.flush()
    os.write(said, f"\0{injector.count}".encode())
    os._exit(code)


def serve() -> None:
    """Answer requests until there are none; one thread, so that forking is safe."""
    import queue  # noqa: F401

    import filelock  # noqa: F401  (what a run imports is imported once, before any fork: torch alone takes seconds)
    import pycountry  # noqa: F401
    import safetensors.numpy  # noqa: F401
    import torch
    from culteval.harness.cli import main, score  # noqa: F401
    from culteval.harness.cli import run as commands
    from culteval.harness.models import aligned  # noqa: F401
    from culteval.harness.report import plots, tables  # noqa: F401
    from culteval.harness.runs import execute  # noqa: F401
    from culteval.optimizers import black_box, de, random_search  # noqa: F401
    from culteval.tasks.countries import country
    from culteval.tasks.metrics import accuracy, survey  # noqa: F401

    torch.set_num_threads(1)
    country("DE")  # a table of all names, made once
    if "real" in sys.argv:
        from culteval.harness.models import load  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
        from transformers.models.llama import modeling_llama  # noqa: F401
    else:
        commands.load = lambda config, display: Numbers()
    for line in sys.stdin:
        children = []
        for command in json.loads(line):
            assert len(os.listdir("/proc/self/task")) == 1, "a thread would not survive the fork"
            reading, said = os.pipe()
            if not (child := os.fork()):
                carry_out(command, said)
            os.close(said)
            children.append((child, reading))
        print(json.dumps([_ended(*child) for child in children]), flush=True)


def _ended(child: int, reading: int) -> tuple[int, str, int]:
    """Exit code, errors, and the number of changes of a child; of one that was killed, nobody counted them."""
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        text, _, count = pipe.read().partition("\0")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text, int(count or 0)


if __name__ == "__main__":
    serve()
