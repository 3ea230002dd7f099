"""Memory mapped from files of weights: give back pages that are not needed for now, on Linux."""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path
from typing import Any

_PAGEOUT = 21  # MADV_PAGEOUT of Linux 5.4 and later; mmap has no name for it


class MappedFiles:
    """The parts of this process's memory that are files, as they were when this was made.

    transformers maps files of weights as a whole, so that their pages stay resident after a single weight is
    freed. Nothing is lost when a page is given back: it is read from the file again if it is needed again.
    """

    def __init__(self) -> None:
        self.ranges = _ranges() if sys.platform == "linux" else []

    def give_back(self, tensor: Any) -> None:
        """Give the whole pages of a tensor back if they belong to a mapped file; other memory is left alone."""
        start, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
        if not any(first <= start and start + size <= last for first, last in self.ranges):
            return
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            # The result does not matter: where the system refuses, the pages stay until it needs them.
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _PAGEOUT)


def _ranges() -> list[tuple[int, int]]:
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    # Range, permissions, offset, device, inode and, for a file, its path.
    fields = [line.split(maxsplit=5) for line in lines]
    spans = [given[0].split("-") for given in fields if len(given) == 6 and given[5].startswith("/")]
    return [(int(first, 16), int(last, 16)) for first, last in spans]
