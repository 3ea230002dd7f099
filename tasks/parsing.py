"""Reading an option out of generated text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .answers import UNPARSED

# A free-standing whole number: not part of a word, a decimal or a negative number.
_NUMBER = re.compile(r"(?<![\w.,-])\d+(?!\w)(?![.,]\d)")
# A stretch of the scale ("1-5", "1 to 5") is the question repeated, not an answer.
_RANGE = re.compile(r"\b\d+\s*(?:-|–|—|to)\s*\d+\b")
# A free-standing capital: "B", "B.", "(B)", "B is right". "A" and "I" are words too: "A good day" and "I am" are no
# answers, while "A is right" and "A or B" are.
_VERB = r"(?:is|was|because|since|as|or|and|would|seems|fits)\b"
_LETTER = re.compile(rf"(?<![\w'’])(?:[B-HJ-Z](?![\w'’])|[AI](?![\w'’])(?:(?=[^\S\n]+{_VERB})|(?![^\S\n]+[a-z])))")


def parse_code(text: str, choices: Sequence[str], codes: Sequence[int]) -> int:
    """The code of the first option named in ``text``, else ``UNPARSED``.

    Options are whole numbers or single letters. A number or letter that is no option counts as no answer: in "10" no
    "1" is seen, and an answer that opens with "7" is not rescued by a later one. A range such as "1-5" is passed over.

    Args:
        choices: what may be answered, in code order.
        codes: their codes.
    """
    if not choices:
        return UNPARSED
    pattern, text = (_LETTER, text) if choices[0].isalpha() else (_NUMBER, _RANGE.sub(" ", text))
    found = pattern.search(text)
    return codes[choices.index(found.group())] if found and found.group() in choices else UNPARSED
