"""Score a prefix tree with llama.cpp; a program for a Python that has llama-cpp-python, and nothing of ours.

    python llama_child.py FILE.gguf THREADS

Reads one line of JSON: ``tokens``, ``depth``, ``prompts`` (of each node: the prompts whose path it is on), ``leaves``
and ``options`` (of each prompt: its last node, and the token of each option). Answers every further line by one pass
over the tree: ``seconds``, ``logs`` (of each prompt: the log-probability of each option) and ``peak`` (resident bytes).

The whole tree is one batch: llama.cpp lets a token belong to many sequences, so that it reads shared beginnings once.
"""

import ctypes
import json
import math
import sys
import time

import llama_cpp as api

MOST_AT_ONCE = 2048


class Tree:
    """A context of llama.cpp and a batch with the tree's tokens."""

    def __init__(self, file, threads, asked):
        """Load the model and lay out the batch."""
        api.llama_backend_init()
        self.quiet = api.llama_log_callback(lambda *_: None)
        api.llama_log_set(self.quiet, None)
        self.model = api.llama_model_load_from_file(file.encode(), api.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp cannot read {file}")
        self.asked, size = asked, len(asked["tokens"])
        settings = api.llama_context_default_params()
        settings.n_ctx = size + 256
        settings.n_batch = settings.n_outputs_max = max(size, MOST_AT_ONCE)
        settings.n_seq_max = settings.n_outputs_max_per_seq = len(asked["leaves"])
        settings.n_threads = settings.n_threads_batch = threads
        settings.kv_unified = True
        self.context = api.llama_init_from_model(self.model, settings)
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.batch = api.llama_batch_init(size, 0, settings.n_seq_max)
        self.batch.n_tokens = size
        leaves = set(asked["leaves"])
        for node, (token, depth, prompts) in enumerate(
            zip(asked["tokens"], asked["depth"], asked["prompts"], strict=True)
        ):
            self.batch.token[node], self.batch.pos[node] = token, depth
            self.batch.n_seq_id[node] = len(prompts)
            for place, prompt in enumerate(prompts):
                self.batch.seq_id[node][place] = prompt
            self.batch.logits[node] = node in leaves

    def ask(self):
        """Read the tree once; return seconds and the options' log-probabilities."""
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        start = time.perf_counter()
        if code := api.llama_decode(self.context, self.batch):
            sys.exit(f"llama_decode: {code}")
        api.llama_synchronize(self.context)
        seconds = time.perf_counter() - start
        logs = []
        for leaf, options in zip(self.asked["leaves"], self.asked["options"], strict=True):
            row = api.llama_get_logits_ith(self.context, leaf)
            numbers = ctypes.cast(row, ctypes.POINTER(ctypes.c_float * self.vocabulary)).contents
            most = max(numbers)
            total = most + math.log(sum(math.exp(number - most) for number in numbers))
            logs.append([numbers[token] - total for token in options])
        return {"seconds": seconds, "logs": logs, "peak": peak(), "system": api.llama_print_system_info().decode()}


def peak():
    """Return the peak of this process's resident memory in bytes, 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return 1024 * int(file.read().partition("VmHWM:")[2].split()[0])
    except OSError:
        return 0


if __name__ == "__main__":
    tree = Tree(sys.argv[1], int(sys.argv[2]), json.loads(sys.stdin.readline()))
    for _ in sys.stdin:
        print(json.dumps(tree.ask()), flush=True)
