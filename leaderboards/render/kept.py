"""What a site keeps between builds: one file of JSON by a key over all that the JSON follows from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ...harness.util.atomic_io import replacing

DIGITS = 64  # of a key: a sha256


class Kept:
    """The kept JSON of a site by key, read from a file and written with what a build used.

    The file has a key and its JSON in each line, ordered by key, and last the sha256 of these lines. A file that is
    missing, cut short or otherwise not that of its sha256 has nothing, so that all is made anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._old = _read(path)
        self._used: dict[str, bytes] = {}
        self._is_changing = False

    def get(self, key: str) -> bytes | None:
        """Return the JSON of a key, which is then kept for the next build; None if there is none."""
        if key not in self._used and key in self._old:
            self._used[key] = self._old[key]
        line = self._used.get(key)
        return None if line is None else line[DIGITS:]

    def put(self, key: str, text: str) -> None:
        """Keep JSON, on one line, under a key of 64 characters."""
        self._used[key] = f"{key} {text}\n".encode()

    def expect_changes(self) -> None:
        """Remove the file before other files of the site change.

        A build that is killed before ``write`` leaves no file, so that the next one trusts no page of this one.
        """
        self._is_changing = True
        self.path.unlink(missing_ok=True)

    def write(self) -> None:
        """Write what was used, after the changed files of the site have reached the disk."""
        if not self._used or (not self._is_changing and self._used.keys() == self._old.keys()):
            return
        if self._is_changing and hasattr(os, "sync"):  # one call instead of one for each of several files an entry
            os.sync()
        digest = hashlib.sha256()
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            for key in sorted(self._used):
                digest.update(self._used[key])
                file.write(self._used[key])
            file.write(digest.hexdigest().encode())


def _read(path: Path) -> dict[str, bytes]:
    """Return the lines of a file by key; none if it is not that of its sha256."""
    found: dict[str, bytes] = {}
    digest, last = hashlib.sha256(), b""
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    last = line
                    break
                digest.update(line)
                found[line[:DIGITS].decode("latin-1")] = line
    except OSError:
        return {}
    return found if last == digest.hexdigest().encode() else {}
