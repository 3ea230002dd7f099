"""Errors that are messages to a person: one or two lines naming place and remedy, one exit code a class."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_SHOWN = 2_000  # characters of a message


def shown(text: str) -> str:
    """A text as a terminal may see it: what is no printable character is escaped, but for line feeds.

    Strangers' names and texts are quoted in messages; escape sequences in them could rewrite the screen, and marks that
    turn the reading direction could make a line say something else.
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


class CultevalError(Exception):
    """Base of all errors shown without a traceback; ``exit_code`` is what the command line returns.

    As text it is at most two lines without control characters, whatever a stranger's file put into it.
    """

    exit_code = 1

    def __str__(self) -> str:
        first, *rest = shown(super().__str__()).splitlines() or [""]
        text = "\n".join([first, " ".join(rest)] if rest else [first])
        return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} ..."


class UsageError(CultevalError):
    """A flag, setting or name that cannot be used (exit code 2, as click's own usage errors)."""

    exit_code = 2


class InputError(CultevalError):
    """A file that is damaged, malformed or out of bounds: spec, data, submission, adapter, checkpoint (exit code 3)."""

    exit_code = 3


class CheckpointError(InputError):
    """The saved state of a run that cannot be restored: damaged, altered, or without something that belongs to it."""


class UnavailableError(CultevalError):
    """Something that is not here and could not be fetched: model, network, optional data (exit code 4)."""

    exit_code = 4


class RunError(CultevalError):
    """A run that could not go on: NaN losses, no memory, an aligner without effect (exit code 5)."""

    exit_code = 5


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest of ``known``, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def is_memory(error: Exception) -> bool:
    """Whether memory ran out, as Python says it, or as C code and the loader of libraries do, without a class."""
    said = str(error).lower()
    words = ("out of memory", "allocate memory", "bad_alloc", "failed to map segment", "without exception set")
    return isinstance(error, MemoryError) or any(word in said for word in words)
