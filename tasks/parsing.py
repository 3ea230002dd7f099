"""Reading an option code out of generated text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .answers import UNPARSED

# A free-standing whole number: not part of a word, a decimal or a negative number.
_NUMBER = re.compile(r"(?<![\w.,-])\d+(?!\w)(?![.,]\d)")
# A stretch of the scale ("1-5", "1 to 5") is the question repeated, not an answer.
_RANGE = re.compile(r"\b\d+\s*(?:-|–|—|to)\s*\d+\b")


def parse_code(text: str, choices: Sequence[str]) -> int:
    """The first free-standing number of ``text`` that is one of ``choices``, else ``UNPARSED``.

    A number outside the scale counts as no answer: in "10" no "1" is seen, and an answer that opens with a number that
    is not an option ("7") is not rescued by a later one. A range such as "1-5" or "1 to 5" is passed over.
    """
    found = _NUMBER.search(_RANGE.sub(" ", text))
    return int(found.group()) if found and found.group() in choices else UNPARSED
