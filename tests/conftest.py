"""Tiny random models and a board on disk, made once a session; no network, no real model."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Every command of a test is a process of its own, which would compile torch and transformers again: three seconds each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # a process for every processor, so a thread for every process
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CULTEVAL_NO_CACHE"] = "1"  # what is run again is answered again; tests of the cache say otherwise
# Assertions of helpers say what they saw, as those of tests do.
pytest.register_assert_rewrite(f"{__package__}.fuzzing", f"{__package__}.submission_files")

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPES = ("llama", "qwen2", "qwen3", "gemma3", "gpt2", "neox")
FUSED = ("llama", "qwen2", "qwen3")  # whose layers the engine runs itself


def _tokenizer(chat: bool):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    items = Path(__file__).parent.parent / "tasks" / "vsm13" / "items.yaml"
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    specials = ["<|end|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=specials, initial_alphabet=alphabet)
    text = items.read_text(encoding="utf-8")
    for present, former in (("every paraphrase", "every wording set"), ("\nparaphrases:", "\nwordings:")):
        text = text.replace(present, former)  # the tiny models stay those that the tests' numbers were made with
    core.train_from_iterator([text], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = CHAT if chat else None
    return tokenizer


def _config(shape: str, vocabulary: int):
    from transformers import Gemma3TextConfig, GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config, Qwen3Config

    common = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if shape == "gpt2":
        return GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=2048, initializer_range=0.3, **common)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.3,
    }
    if shape == "gemma3":
        # A window shorter than the prompts, one sliding and one full layer.
        kinds = ["sliding_attention", "full_attention"]
        return Gemma3TextConfig(head_dim=8, sliding_window=24, layer_types=kinds, **sizes, **common)
    if shape == "neox":
        del sizes["num_key_value_heads"]
        return GPTNeoXConfig(rotary_pct=0.5, **sizes, **common)
    if shape == "qwen3":
        sizes["head_dim"] = 16  # not hidden_size / heads, as in the real ones
    kind = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}[shape]
    return kind(tie_word_embeddings=True, **sizes, **common)


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look at torch and all else again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``tiny(shape, chat)``: the folder of a tiny random model of that architecture."""
    from transformers import AutoModelForCausalLM

    gc.collect()
    gc.freeze()  # as above
    made: dict[tuple[str, bool], Path] = {}

    def make(shape: str = "llama", chat: bool = True) -> Path:
        if (shape, chat) not in made:
            import torch

            torch.manual_seed(0)
            folder = tmp_path_factory.mktemp(f"{shape}-{'chat' if chat else 'base'}")
            tokenizer = _tokenizer(chat)
            model = AutoModelForCausalLM.from_config(_config(shape, len(tokenizer)))
            for name, weight in model.named_parameters():  # these start at 0 and 1, which would hide a mistake
                if name.endswith(("bias", "norm.weight", "layernorm.weight")):
                    torch.nn.init.normal_(weight, mean=float(not name.endswith("bias")), std=0.3)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[shape, chat] = folder
        return made[shape, chat]

    return make


@pytest.fixture(scope="session")
def load(tiny: Callable[..., Path]) -> Callable:
    """``load(shape, chat)``: that model as a LanguageModel in float32."""
    from culteval.harness.models.load import load_model

    def loaded(shape: str = "llama", chat: bool = True, notes: list[str] | None = None):
        say = (lambda text: notes.append(text)) if notes is not None else (lambda text: None)
        return load_model(str(tiny(shape, chat)), dtype="float32", threads=1, notify=say)

    return loaded


SUMMARY = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def summary(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are printed after the last test."""
    return request.config.stash.setdefault(SUMMARY, [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In one of several processes: hand the lines to the one that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["summary"] = session.config.stash.get(SUMMARY, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    node.config.stash.setdefault(SUMMARY, []).extend(getattr(node, "workeroutput", {}).get("summary", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(SUMMARY, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tiny_cache(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder (``CULTEVAL_CACHE``) in which every embedded model is a tiny random one, whole by its manifest."""
    import shutil

    from culteval.harness.models.converted import write_manifest
    from culteval.harness.models.embedded import EMBEDDED

    cache = tmp_path_factory.mktemp("cache")
    for name, model in EMBEDDED.items():
        folder = shutil.copytree(tiny(), cache / "models" / f"{name}-{model.parts.version}")
        write_manifest(folder, model.parts.sha256, {"name": "tiny"})
    return cache


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests, which use the real model, run last, and of them those of a set-up from nothing first and together."""

    def place(item: pytest.Item) -> tuple[bool, bool]:
        shared = "first_command" in getattr(item, "fixturenames", ())
        return item.get_closest_marker("slow") is not None, not shared

    items.sort(key=place)


@pytest.fixture(scope="session")
def submit() -> Callable[..., Path]:
    """``submit(folder, {task: answers}, country, aligner, seed, ...)``: a submission, with its scores a finished run.

    ``fitted`` is the country it was fitted to, the same if not given; further fields go into every asked task.
    """
    import json

    from culteval.harness.registry import spec_of
    from culteval.harness.runs.folder import SCORES
    from culteval.harness.scoring.submission import load_submission
    from culteval.harness.submissions.manifest import SUBMISSION
    from culteval.harness.submissions.writer import write_submission

    def write(folder, answers, country="SA", aligner="de", seed=0, allowed=0, settings=None, fitted=None, **asked):
        tasks = [{"name": name, "hash": spec_of(name).hash, "country": country, **asked} for name in answers]
        manifest = {
            "tasks": tasks,
            "model": {"name": "m", "revision": "r", "dtype": "float32", "device": "cpu", "threads": 1,
                      "chat_template": None, "forward": "packed"},
            "aligner": {"name": aligner, "settings": settings or {}, "adapter_sha256": None},
            "fitted": {"tasks": list(answers), "country": fitted or country, "scoring": "expected", "norm": "sse"},
            "country": country, "seed": seed, "versions": {}, "command": "",
            "budget": {"item_forwards_allowed": allowed, "item_forwards": allowed, "survey_evaluations": 0,
                       "tokens": 0, "seconds": 0},
        }  # fmt: skip
        write_submission(folder / SUBMISSION, manifest, answers)
        scores = load_submission(folder / SUBMISSION).score()
        (folder / SCORES).write_text(json.dumps([row.model_dump(mode="json") for row in scores]), encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def board_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Submissions to build a board of, good ones and hostile ones; only read."""
    from .board_files import fill

    return fill(tmp_path_factory.mktemp("submissions"))


@pytest.fixture(scope="session")
def board_pages(board_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board of ``board_folder``, built; only read."""
    from culteval.leaderboards.render import site

    out, warned = tmp_path_factory.mktemp("site") / "board", []
    made = site.build(board_folder, out, warned.append)
    assert warned == [] and (made.submissions, made.boards) == (9, 3)
    return out


@pytest.fixture(scope="session")
def published():
    """The published board, read and scored once for all that look at it; only read."""
    from .published import read

    return read()
