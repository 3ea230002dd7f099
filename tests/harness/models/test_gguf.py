"""GGUF files of users: answers as of the same weights in safetensors, refusals, damage, and the folder in the cache."""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.errors import InputError, UsageError
from culteval.harness.cli.main import cli
from culteval.harness.models import convert, converted
from culteval.harness.models.convert import write_folder
from culteval.harness.models.gguf import is_gguf, read_header
from culteval.harness.models.load import load_model
from culteval.harness.models.pretrained import source_of
from culteval.harness.registry import spec_of
from culteval.harness.util.atomic_io import sha256
from culteval.tasks.prompts import ProtocolOptions, render_protocol

from ...gguf_files import pieces, split, write_gguf

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 24}
# Architecture of the file, class of transformers, its settings, and those that only the file has.
SHAPES = {
    "llama": ("llama", "Llama", {"tie_word_embeddings": True}, {"rope.dimension_count": 16}),
    "llama untied": ("llama", "Llama", {"tie_word_embeddings": False}, {}),
    "llama 3.1": (
        "llama",
        "Llama",
        {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192}},
        {"rope.dimension_count": 16},
    ),
    "llama linear": (
        "llama",
        "Llama",
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "mistral": ("llama", "Mistral", {"sliding_window": 24}, {"attention.sliding_window": 24}),
    "qwen2": ("qwen2", "Qwen2", {"tie_word_embeddings": False}, {}),
    "qwen3": ("qwen3", "Qwen3", {"head_dim": 32}, {"attention.key_length": 32, "attention.value_length": 32}),
    "gemma2": (
        "gemma2",
        "Gemma2",
        GEMMA | {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
        {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
    ),
    "gemma2 before caps": ("gemma2", "Gemma2", GEMMA, {}),  # the first files have none; the architecture's hold
    "gemma3": ("gemma3", "Gemma3Text", GEMMA | {"num_hidden_layers": 7}, {"rope.freq_base": 1e6}),
    "phi3": ("phi3", "Phi3", {"sliding_window": 24}, {"attention.sliding_window": 24}),
}


def vocabulary(tiny, shape: str):
    """Return the byte-level tokenizer of the tiny models, or for Gemma a list of SentencePiece tokens."""
    if "gemma" in shape:
        return pieces([text for prompt in survey().texts for text in prompt.splitlines(keepends=True)], 400)
    return transformers.AutoTokenizer.from_pretrained(tiny("llama"))


def gguf_of(tiny, shape: str, path: Path, *, tokenizer=None, **more):
    """Write a tiny random model as a GGUF file; return it and what ``safetensors_of`` needs to save the same model."""
    architecture, name, own, settings = SHAPES[shape]
    tokenizer = tokenizer or vocabulary(tiny, shape)
    if "gemma" in shape:
        settings = settings | {"attention.key_length": 16, "attention.sliding_window": 24}
    config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer), **(SIZES | own))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for full, weight in model.named_parameters():  # these start at 0 and 1, which would hide a mistake
        if full.endswith(("bias", "norm.weight")):
            torch.nn.init.normal_(weight, mean=float("weight" in full and "gemma" not in shape), std=0.3)
    tensors = {"rope_freqs.weight": llama3_frequencies(16)} if shape == "llama 3.1" else {}
    given = {"settings": settings | more.pop("settings", {}), "tensors": tensors | more.pop("tensors", {})}
    write_gguf(path, architecture, model, tokenizer, **given, **more)
    return model, tokenizer


def llama3_frequencies(size: int) -> np.ndarray:
    """What convert_hf_to_gguf.py writes for Llama 3.1 (``LlamaModel.generate_extra_tensors``)."""
    factors = []
    for i in range(0, size, 2):
        wavelength = 2 * math.pi * 10000.0 ** (i / size)
        if wavelength < 8192 / 4.0:
            factors.append(1.0)
        elif wavelength > 8192 / 1.0:
            factors.append(8.0)
        else:
            smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
            factors.append(1 / ((1 - smooth) / 8.0 + smooth))
    return np.array(factors, np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CULTEVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def here(monkeypatch) -> None:
    """Convert in this process: starting another takes most of the time of a conversion."""
    monkeypatch.setattr(converted, "convert", lambda gguf, out, name, console: write_folder(gguf, out))


def survey():
    return render_protocol(spec_of("vsm13"), ProtocolOptions(limit=1))


def answers(model) -> np.ndarray:
    return model.answer(survey()).probs


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_answers_as_the_same_weights_in_safetensors(tiny, tmp_path, here, shape):
    path = tmp_path / "model.gguf"
    twin, tokenizer = gguf_of(tiny, shape, path)
    model = load_model(str(path), dtype="float32", threads=1)
    assert (model.info.name, model.info.revision) == ("model.gguf", sha256(path))
    twin.save_pretrained(tmp_path / "twin")
    (model.tokenizer if "gemma" in shape else tokenizer).save_pretrained(tmp_path / "twin")
    expected = answers(load_model(str(tmp_path / "twin"), dtype="float32", threads=1))
    assert expected.std() > 0.01  # of flat answers nothing would be learned
    np.testing.assert_allclose(answers(model), expected, atol=1e-4)
    assert model.ends == ((1, 5) if "gemma" in shape else (0,))


def test_pieces_are_joined_as_by_sentencepiece(tiny, tmp_path, here):
    path = tmp_path / "model.gguf"
    _, tokens = gguf_of(tiny, "gemma3", path)
    tokenizer = load_model(str(path), dtype="float32", threads=1).tokenizer
    for text in survey().texts[:5]:
        chat = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
        assert chat.startswith("<bos><start_of_turn>user\n")
        assert tokenizer.tokenize(text) == split(text, tokens)


@pytest.mark.parametrize("shape", ["llama", "mistral", "phi3"])
def test_a_space_is_put_before_a_text_where_the_file_says_so(tiny, tmp_path, here, shape):
    """As in Llama 2, Mistral and Phi-3: after a special token there is none."""
    path = tmp_path / "model.gguf"
    gguf_of(tiny, shape, path, tokenizer=(tokens := vocabulary(tiny, "gemma")), spaced=True)
    tokenizer = load_model(str(path), dtype="float32", threads=1).tokenizer
    for text in survey().texts[:3]:
        assert tokenizer.tokenize(text) == split(f" {text}", tokens)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
def test_other_types_are_read_as_the_package_gguf_reads_them(tiny, tmp_path, here, kind):
    path, number = tmp_path / "model.gguf", gguf.GGMLQuantizationType[kind]
    model, _ = gguf_of(tiny, "qwen2", path, kind=kind)
    weight = model.state_dict()["model.layers.1.mlp.gate_proj.weight"].numpy()
    read = load_model(str(path), dtype="float32", threads=1).fresh().state_dict()
    expected = gguf.dequantize(gguf.quantize(weight, number), number)
    np.testing.assert_array_equal(read["model.layers.1.mlp.gate_proj.weight"].numpy(), expected)


def test_it_is_converted_once_wherever_it_lies(tiny, tmp_path, cache, capsys):
    """By a process of its own, with a line on standard error."""
    gguf_of(tiny, "llama", path := tmp_path / "a.gguf")
    source = source_of(str(path), None)
    folder = cache / "models" / f"gguf-{sha256(path)[:16]}"
    assert source.folder == folder
    manifest = json.loads((folder / "culteval.json").read_text())
    assert (manifest["name"], manifest["gguf_sha256"]) == ("a.gguf", sha256(path))
    assert "Converting a.gguf" in capsys.readouterr().err
    made = (folder / "model.safetensors").stat().st_mtime_ns
    other = shutil.move(path, tmp_path / "b.gguf")
    assert source_of(str(other), None).folder == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match=r"`revision` main: .* has no revisions"):
        source_of(str(other), "main")


def test_its_content_is_neither_its_name_nor_the_version_of_transformers(tiny, tmp_path, here, cache):
    gguf_of(tiny, "llama", path := tmp_path / "a.gguf")
    first = source_of(str(path), None).content
    shutil.rmtree(cache / "models")
    source = source_of(str(path.rename(tmp_path / "b.gguf")), None)
    assert source.content == first

    def changed(file, **fields):
        text = (source.folder / file).read_text()
        (source.folder / file).write_text(json.dumps(json.loads(text) | fields))
        content = source.content
        (source.folder / file).write_text(text)
        return content

    versions = [changed(file, transformers_version="9.9") for file in ("config.json", "generation_config.json")]
    assert versions == [first] * 2
    assert changed("config.json", rms_norm_eps=0.1) != first
    embedded = json.loads((source.folder / "culteval.json").read_text()) | {"distribution": "a==1"}
    (source.folder / "culteval.json").write_text(json.dumps(embedded))
    whole = source.content  # of embedded models, which are published, all files count
    assert whole not in (changed("config.json", transformers_version="9.9"), changed("culteval.json", name="c"))


def test_a_run_names_the_file_without_its_folder_and_with_its_hash(tiny, tmp_path, here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gguf_of(tiny, "qwen2", path := tmp_path / "secret folder" / "tiny.gguf")
    flags = ["run", "--aligner", "naive", "--task", "general", "--limit", "1", "--no-compare", "--json"]

    def run(place: Path):
        done = CliRunner().invoke(cli, [*flags, "--dtype", "float32", "--model", str(place)], catch_exceptions=False)
        return json.loads(done.stdout)

    first = run(path)
    text = (Path(first["submission"]) / "manifest.json").read_text()
    model = json.loads(text)["model"]
    assert (model["name"], model["revision"]) == ("tiny.gguf", sha256(path))
    assert "secret" not in text
    assert not first["reused"] and run(path)["reused"]
    gguf_of(tiny, "llama", path)
    assert not run(path)["reused"]


def test_a_large_model_is_cut_and_a_larger_one_rounded(tiny, tmp_path, here, monkeypatch):
    path = tmp_path / "model.gguf"
    model, _ = gguf_of(tiny, "qwen2", path)
    monkeypatch.setattr(convert, "MOST_SINGLE", 1 << 16)
    monkeypatch.setattr(convert, "SHARD", 1 << 16)
    monkeypatch.setattr(converted, "MOST_FLOAT32", 1 << 16)
    read = load_model(str(path), dtype="float32", threads=1)
    folder = source_of(str(path), None).folder
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    weights = read.fresh().state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weights[name], weight.bfloat16().float()), name
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_large_model_is_read_into_another_dtype_as_transformers_reads_it(tiny, tmp_path, here, monkeypatch):
    monkeypatch.setattr(convert, "MOST_SINGLE", 1 << 16)
    monkeypatch.setattr(convert, "SHARD", 1 << 16)
    gguf_of(tiny, "gemma3", path := tmp_path / "model.gguf")
    folder = source_of(str(path), None).folder
    expected = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model = load_model(str(path), dtype="bfloat16", threads=1).fresh()
    weights = model.state_dict()
    assert weights.keys() == expected.state_dict().keys()
    for name, weight in expected.state_dict().items():
        assert torch.equal(weights[name], weight), name
    for name, buffer in expected.named_buffers():  # frequencies, which no file holds
        assert torch.equal(dict(model.named_buffers())[name], buffer), name
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.generation_config.to_dict() == expected.generation_config.to_dict()
    assert model.config.to_dict() == expected.config.to_dict()
    assert not model.training


REFUSED = {
    "architecture": ({"general.architecture": "bloom"}, "its architecture 'bloom' is not one of llama, qwen2"),
    "split": ({"split.count": 3}, r"one of 3 parts of a split model\.\nJoin them: llama-gguf-split --merge"),
    "experts": ({"expert_count": 8}, r"its setting llama\.expert_count is not known here"),
    "yarn": ({"rope.scaling.type": "yarn"}, "its positions are scaled by 'yarn'"),
    "heads": ({"attention.head_count": [4, 2]}, r"attention\.head_count is \[4, 2\], not one count for all layers"),
    "rotary": ({"rope.dimension_count": 8}, "its rope.dimension_count of 8 is not the size of its heads, 16"),
    "layers": ({"block_count": 3}, "layers.2.* is missing, unknown"),
    "widths": ({"feed_forward_length": 100}, "is missing, unknown or of a shape"),
    "kind": ({"general.type": "adapter"}, "it holds no model but 'adapter'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_answered_with_exactly_is_refused(tiny, tmp_path, cache, here, what):
    settings, says = REFUSED[what]
    path = tmp_path / "model.gguf"
    gguf_of(tiny, "llama", path, settings=settings)
    with pytest.raises(InputError, match=says) as raised:
        source_of(str(path), None)
    assert len(str(raised.value).splitlines()) <= 2
    assert [name for name in (cache / "models").glob("*") if name.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"pre": "default"}, "its tokenizer splits text by 'default'"),
        ({"tensors": {"rope_freqs.weight": np.full(8, 2, np.float32)}}, "its rope_freqs are not those of Llama 3"),
        ({"tensors": {"rope_factors_long.weight": np.ones(8, np.float32)}}, "LongRoPE"),
        ({"tensors": {"blk.0.attn_q.bias": np.ones(64, np.float32)}}, "blk.0.attn_q.bias is missing, unknown"),
    ],
)
def test_tensors_and_splits_that_are_not_known_are_refused(tiny, tmp_path, here, more, says):
    path = tmp_path / "model.gguf"
    gguf_of(tiny, "llama", path, **more)
    with pytest.raises(InputError, match=says):
        source_of(str(path), None)


def header_of(*, version=3, tensors=0, keys=0, rest=b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


DAMAGED = {
    "empty": header_of()[:10],
    "version": header_of(version=1),
    "big endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "many tensors": header_of(tensors=1 << 40),
    "many keys": header_of(keys=1 << 40),
    "a long string": header_of(keys=1, rest=struct.pack("<Q", 1 << 60)),
    "a long array": header_of(keys=1, rest=struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 1 << 60)),
    "an array of arrays": header_of(keys=1, rest=struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 2)),
    "an unknown value": header_of(keys=1, rest=struct.pack("<Q1sI", 1, b"k", 99)),
    "a huge tensor": header_of(tensors=1, rest=struct.pack("<Q1sI2QIQ", 1, b"t", 2, 1 << 30, 1 << 30, 0, 0)),
    "a tensor of no dimension": header_of(tensors=1, rest=struct.pack("<Q1sIIQ", 1, b"t", 0, 0, 0)),
    "a tensor of no type": header_of(tensors=1, rest=struct.pack("<Q1sI1QIQ", 1, b"t", 1, 32, 9999, 0)),
    "no utf-8": header_of(keys=1, rest=struct.pack("<Q1s", 1, b"\xff")),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_header_is_one_line_and_nothing_is_made(tmp_path, cache, what):
    path = tmp_path / "model.gguf"
    path.write_bytes(DAMAGED[what])
    assert is_gguf(str(path))
    with pytest.raises(InputError, match=str(path)) as raised:
        source_of(str(path), None)
    assert raised.value.exit_code == 3 and len(str(raised.value).splitlines()) <= 2
    assert not (cache / "models").exists()


def test_every_cut_of_a_file_is_found(tiny, tmp_path):
    gguf_of(tiny, "qwen3", path := tmp_path / "model.gguf")
    data = path.read_bytes()
    read_header(path)
    for size in (*range(4, len(data), len(data) // 50), len(data) - 40):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match="truncated"):
            read_header(path)
