"""Detection of sentence ends in a model's text."""

from __future__ import annotations

import re

_TITLES = "".join(rf"(?<!\b{title}\.)" for title in ("Mr", "Mrs", "Ms", "Dr", "Prof"))
# With text after it "J." is an initial and "St." a saint; "I." is neither, and at the end of a text all end a sentence.
_SHORT = r"(?<!\bSt\.)(?<!\b[A-HJ-Z]\.)"
_END = re.compile(rf"[.!?…]{_TITLES}[\"”'’]?(?:\Z|{_SHORT}(?=\s))")


def first_sentence(text: str) -> str:
    """Return the first sentence of the first line that has one."""
    line = next((line.strip() for line in text.split("\n") if line.strip()), "")
    end = _END.search(line)
    return line[: end.end()] if end else line


def whole_sentences(text: str) -> str:
    """Remove a final sentence that was cut short, if there is another sentence."""
    ends = [found.end() for found in _END.finditer(text)]
    return text[: ends[-1]] if ends else text
