"""Where sentences of what a model wrote end."""

from __future__ import annotations

import re

_TITLES = "".join(rf"(?<!\b{title}\.)" for title in ("Mr", "Mrs", "Ms", "Dr", "Prof"))
# With more after it "J." is an initial and "St." a saint; "I." is none, and at the end of a text they end a sentence.
_SHORT = r"(?<!\bSt\.)(?<!\b[A-HJ-Z]\.)"
_END = re.compile(rf"[.!?…]{_TITLES}[\"”'’]?(?:\Z|{_SHORT}(?=\s))")


def first_sentence(text: str) -> str:
    """The first sentence of the first line that has one."""
    line = next((line.strip() for line in text.split("\n") if line.strip()), "")
    end = _END.search(line)
    return line[: end.end()] if end else line


def whole_sentences(text: str) -> str:
    """A text without a last sentence that was cut short, if there is another."""
    ends = [found.end() for found in _END.finditer(text)]
    return text[: ends[-1]] if ends else text
