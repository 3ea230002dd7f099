"""Pages of mapped files are given back, and nothing is lost."""

import sys
from pathlib import Path

import pytest
import torch
from culteval.harness.engine.onednn import HEAD_BLOCK, MappedFiles, MappedHead, in_pieces
from safetensors import safe_open
from safetensors.torch import save_file

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is given back")


def resident():
    """Bytes of files in this process's memory."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssFile:")[2].split()[0])


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.arange(16 << 20, dtype=torch.float32), "small": torch.ones(8)}, path)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in ("weight", "small")}


@linux
def test_the_pages_of_a_weight_are_given_back_and_read_again(mapped):
    weight, total = mapped["weight"], float(mapped["weight"].double().sum())
    before = resident()
    MappedFiles().give_back(weight)
    MappedFiles().give_back(mapped["small"])  # less than a page: nothing to give
    assert before - resident() > 0.9 * 64 * 2**20
    assert float(weight.double().sum()) == total and mapped["small"].sum() == 8


@linux
def test_what_was_written_over_a_mapped_file_is_kept(mapped):
    mapped["weight"][:] = 3
    MappedFiles().give_back(mapped["weight"])
    assert (mapped["weight"] == 3).all()


@linux
def test_a_file_is_mapped_again_for_its_caller_alone(mapped, tmp_path):
    weight = mapped["weight"]
    own = MappedFiles().again(weight)
    assert own.data_ptr() != weight.data_ptr() and torch.equal(own, weight)
    small = MappedFiles().again(mapped["small"])
    assert torch.equal(small, torch.ones(8))
    weight[:5] = 3
    assert own[:5].tolist() == [0, 1, 2, 3, 4]
    assert MappedFiles().again(weight) is None  # its file no longer holds these numbers
    assert MappedFiles().again(torch.ones(1 << 20)) is None


@linux
def test_a_file_that_was_replaced_is_not_mapped_again(mapped, tmp_path):
    path = tmp_path / "model.safetensors"
    path.rename(tmp_path / "moved")
    assert torch.equal(MappedFiles().again(mapped["weight"]), mapped["weight"])  # under its new name
    (tmp_path / "moved").unlink()
    path.write_bytes(bytes(1 << 10))
    assert MappedFiles().again(mapped["weight"]) is None


@linux
def test_one_block_of_a_large_head_is_in_memory(mapped):
    weight = mapped["weight"].view(1 << 15, 512)
    head, x = MappedHead(MappedFiles().again(weight)), torch.randn(2, 3, 512)
    expected = x.double() @ weight.double().t()
    MappedFiles().give_back(weight)
    before = resident()
    for _ in range(2):
        with torch.no_grad():
            assert torch.allclose(head(x).double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert resident() - before < 2 * HEAD_BLOCK < weight.nbytes // 1.5
    x.requires_grad_()
    (2 * head(x)[..., :99]).sum().backward()
    assert resident() - before < 2 * HEAD_BLOCK
    x.grad, expected = None, x.grad
    assert torch.allclose(expected.double(), 2 * weight[:99].double().sum(0).expand(2, 3, -1), rtol=1e-4, atol=1e-6)
    head(x).sum().backward()
    assert torch.allclose(x.grad.double(), weight.double().sum(0).expand(2, 3, -1), rtol=1e-4)


@linux
def test_a_pass_in_pieces_keeps_no_layer_in_memory(mapped):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, vocab_size=1 << 19, tie_word_embeddings=False))
    model.lm_head.weight = torch.nn.Parameter(mapped["weight"].view(1 << 19, 32), requires_grad=False)
    before, ids = resident(), torch.tensor([[1]])
    with torch.no_grad(), in_pieces(model):
        pieces = model(ids).logits
    assert resident() - before < 1 << 25
    with torch.no_grad():
        assert torch.equal(model(ids).logits, pieces)
    assert resident() - before > 3 << 24  # the hook is gone


def test_other_memory_is_left_alone(monkeypatch):
    import ctypes

    files = MappedFiles()
    monkeypatch.setattr(ctypes, "CDLL", None)  # an error, if it were called
    files.give_back(torch.ones(1 << 20))


def test_a_system_that_tells_nothing_is_left_alone(monkeypatch):
    def refused(self, **_):
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refused)
    assert MappedFiles().ranges == []
