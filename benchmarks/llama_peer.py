"""The peer llama.cpp: the same prompts as one prefix tree, on the same threads, in a process of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from culteval.errors import UnavailableError
from culteval.harness.engine.prefix_tree import PrefixTree, build_trees
from culteval.harness.engine.tokenize import Encoded


class LlamaCpp:
    """A process that scores one set of prompts with llama.cpp, again at every call of ``ask``.

    Args:
        python: a Python interpreter with llama-cpp-python.
        gguf: the model's file.
        encoded: the prompts; every option is one token.
    """

    def __init__(self, python: Path, gguf: Path, encoded: Encoded, threads: int) -> None:
        (tree,) = build_trees(encoded, 1 << 20)
        command = [str(python), str(Path(__file__).with_name("llama_child.py")), str(gguf), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._tell(json.dumps(_as_asked(tree, encoded)))
        self.tokens, self.answer = len(tree), self._ask()

    def ask(self) -> None:
        """Score the prompts once; ``answer`` holds seconds, log-probabilities and peak memory."""
        self.answer = self._ask()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _ask(self) -> dict[str, Any]:
        self._tell("")
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise UnavailableError("llama.cpp ended without an answer; its message is above.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise UnavailableError("llama.cpp ended before it was asked; its message is above.") from None


def _as_asked(tree: PrefixTree, encoded: Encoded) -> dict[str, Any]:
    leaves = np.full(tree.prompts, -1)
    leaves[tree.read_prompt] = tree.read_node  # every option is one token, read at the prompt's last node
    on_path: list[list[int]] = [[] for _ in range(len(tree))]
    for prompt, leaf in enumerate(leaves.tolist()):
        node = leaf
        while node >= 0:
            on_path[node].append(prompt)
            node = int(tree.parent[node])
    return {
        "tokens": tree.tokens.tolist(),
        "depth": tree.depth.tolist(),
        "prompts": on_path,
        "leaves": leaves.tolist(),
        "options": [[ids[0] for ids in row] for row in encoded.options],
    }
