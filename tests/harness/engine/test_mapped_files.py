"""Pages of mapped files are given back, and nothing is lost."""

import sys
from pathlib import Path

import pytest
import torch
from culteval.harness.engine.onednn import MappedFiles
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
