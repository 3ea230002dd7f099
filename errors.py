"""Errors that are messages to a person: one or two lines naming place and remedy, one exit code a class."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CultevalError(Exception):
    """Base of all errors shown without a traceback; ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(CultevalError):
    """A flag, setting or name that cannot be used (exit code 2, as click's own usage errors)."""

    exit_code = 2


class InputError(CultevalError):
    """A file that is damaged, malformed or out of bounds: spec, data, submission, adapter, checkpoint (exit code 3)."""

    exit_code = 3


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
