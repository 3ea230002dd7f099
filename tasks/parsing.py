"""Reading an option code out of generated text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .answers import UNPARSED

_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w])(?!\.\d)")


def parse_code(text: str, choices: Sequence[str]) -> int:
    """The first free-standing number of ``text`` that is one of ``choices``, else ``UNPARSED``.

    A number outside the scale counts as no answer: in "10" no "1" is seen, and an answer that opens with a number that
    is not an option ("7") is not rescued by a later one.
    """
    found = _NUMBER.search(text)
    return int(found.group()) if found and found.group() in choices else UNPARSED
