"""Errors with messages for users: one or two lines with place and remedy, and one exit code per class."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_SHOWN = 2_000  # characters of a message


def shown(text: str) -> str:
    """Escape unprintable characters of a text except line feeds, so that a terminal can show it safely.

    Messages quote untrusted names and texts; escape sequences in them could rewrite the screen, and bidirectional marks
    could change the apparent order of a line.
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def on_one_line(text: str) -> str:
    """Return a text as ``shown``, with white space and line breaks as single spaces."""
    return shown(" ".join(text.split()))


class CultevalError(Exception):
    """Base of all errors shown without a traceback; ``exit_code`` is the exit code of the command line.

    Its text has at most two lines and no control characters, also if it quotes untrusted input.
    """

    exit_code = 1

    def __str__(self) -> str:
        first, *rest = shown(super().__str__()).splitlines() or [""]
        text = "\n".join([first, " ".join(rest)] if rest else [first])
        return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} ..."


class UsageError(CultevalError):
    """A flag, setting or name that is not valid (exit code 2, as click's own usage errors)."""

    exit_code = 2


class InputError(CultevalError):
    """A file that is damaged, malformed or out of bounds: spec, data, submission, adapter, checkpoint (exit code 3)."""

    exit_code = 3


class CheckpointError(InputError):
    """A checkpoint of a run that cannot be restored: damaged, altered or incomplete."""


class UnavailableError(CultevalError):
    """A resource that is missing and could not be fetched: model, network, optional data (exit code 4)."""

    exit_code = 4


class RunError(CultevalError):
    """A run that cannot continue: NaN losses, no memory, an aligner without effect (exit code 5)."""

    exit_code = 5


class UnreadableError(RunError):
    """Answers of which none could be read as one of the options."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest name in ``known``, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def is_memory(error: Exception) -> bool:
    """Return whether memory ran out, by class for Python, by message for C code and the dynamic loader."""
    message = str(error).lower()
    words = ("out of memory", "allocate memory", "bad_alloc", "failed to map segment", "without exception set")
    return isinstance(error, MemoryError) or any(word in message for word in words)
