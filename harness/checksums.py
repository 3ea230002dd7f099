"""What a run has finished, with the sha256 of every file: no sum and it is done again, another and it is damaged."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..errors import InputError
from ..tasks.reading import read_unmarked
from ..tasks.spec import first_problem
from .files import sha256, write_json

SUMS = "checksums.json"
_SUMS = TypeAdapter(dict[str, str])


class Checksums:
    """The sums of a run's folder, kept in ``checksums.json``. They tell damage from what was written, not who wrote it.

    Raises:
        InputError: the file of the sums is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / SUMS
        self.kept = self.path.is_file()
        try:
            self.sums = _SUMS.validate_json(read_unmarked(self.path)) if self.kept else {}
        except ValidationError as error:
            raise InputError(f"{self.path}: {first_problem(error)}. Start over with --fresh.") from None

    def add(self, *names: str) -> None:
        """Take up files and folders that are finished; what is not there has no sum."""
        self.sums = {file: value for file, value in self.sums.items() if (self.folder / file).is_file()}
        for name in names:
            self.sums = {file: value for file, value in self.sums.items() if not _is_in(file, name)}
            self.sums |= self._found(name)
        write_json(self.path, self.sums)
        self.kept = True

    def finished(self, name: str) -> bool:
        """Whether a file or folder was taken up.

        Raises:
            InputError: it is not as it was then.
        """
        there = {file: value for file, value in self.sums.items() if _is_in(file, name)}
        if not there:
            return False
        found = self._found(name)
        if odd := sorted(file for file, value in there.items() if found.get(file) != value):
            raise InputError(
                f"{self.folder / odd[0]}: damaged: not as it was when it was finished ({SUMS}). "
                "Start over with --fresh."
            )
        return True

    def intact(self, *names: str) -> bool:
        """Whether none of these is known to be damaged or unfinished; folders without sums know nothing."""
        try:
            return not self.kept or all(self.finished(name) for name in names)
        except InputError:
            return False

    def _found(self, name: str) -> dict[str, str]:
        path = self.folder / name
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        return {file.relative_to(self.folder).as_posix(): sha256(file) for file in files if file.is_file()}


def _is_in(file: str, name: str) -> bool:
    return file == name or file.startswith(f"{name}/")
