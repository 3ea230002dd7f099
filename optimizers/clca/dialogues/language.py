"""What language a text is in: the scripts of its letters, and what the library py3langid reads it as, all from disk."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

# A text is in another language only where that is a million times likelier: English full of foreign names and dishes
# comes to 200, one word over and over to 20,000, three short sentences of another to a hundred million and more.
LEAST_IN_SCRIPT, SURELY = 0.8, 1e6
NO_LANGUAGE = "zxx"  # what py3langid calls numbers, markup and random letters


class Language(NamedTuple):
    """An ISO 639 code, and the script that most letters are of, as ``scripts`` names it."""

    code: str
    script: str


ENGLISH = Language("en", "LATIN")  # what agents write, who are told everything in English


def language_of(texts: Sequence[str]) -> Language:
    """What most of some texts are in, and most letters of these; English and its script where nothing can be told."""
    read = [(text, _ranked(text)[0][0]) for text in texts if scripts(text)]
    code = _most(Counter(code for _, code in read if code != NO_LANGUAGE), ENGLISH.code)
    mine = [text for text, own in read if own == code] or texts
    return Language(code, _most(scripts(" ".join(mine)), ENGLISH.script))


def not_in(expected: Language, text: str) -> str:
    """What speaks for another language than the expected one, in words; empty where nothing does.

    A text that is too short, too garbled or too mixed to be sure of is given the benefit of the doubt.
    """
    found = scripts(text)
    if not found:
        return ""
    if (share := found[expected.script] / found.total()) < LEAST_IN_SCRIPT:
        return f"{share:.0%} of letters are {expected.script.capitalize()}"
    ranked = _ranked(text)
    likeliest, chance = ranked[0]
    surely = chance > SURELY * dict(ranked)[expected.code]
    return f"reads as {likeliest!r}, not {expected.code!r}" if surely and likeliest != NO_LANGUAGE else ""


def scripts(text: str) -> Counter[str]:
    """How many letters are of each script, by the first word of their Unicode names; Japanese counts as one."""
    names = (unicodedata.name(char, "?").split()[0].partition("-")[0] for char in text if char.isalpha())
    return Counter("CJK" if name in ("HIRAGANA", "KATAKANA") else name for name in names)


def _most(counts: Counter[str], default: str) -> str:
    return next((name for name, _ in counts.most_common(1)), default)


def _ranked(text: str) -> list[tuple[str, float]]:
    """Every language that the library knows and the chance that a text is in it, the likeliest first."""
    return _identifier().rank(text)


@cache
def _identifier() -> Any:
    """The library with its own model, which takes most of a second to unpack."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
