"""Language detection: the scripts of a text's letters, and the prediction of the library py3langid, all from disk."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

# A text is in another language only if that is a million times more probable: English full of foreign names and dishes
# comes to 200, one word repeated to 20,000, three short sentences of another language to a hundred million or more.
LEAST_IN_SCRIPT, SURELY = 0.8, 1e6
NO_LANGUAGE = "zxx"  # py3langid's code for numbers, markup and random letters


class Language(NamedTuple):
    """An ISO 639 code, and the script of most letters, as ``scripts`` names it."""

    code: str
    script: str


ENGLISH = Language("en", "LATIN")  # the language of agents, whose prompts are in English


def language_of(texts: Sequence[str]) -> Language:
    """Detect the language of most of the texts, and the script of most letters.

    English and its script if undetected.
    """
    read = [(text, _ranked(text)[0][0]) for text in texts if scripts(text)]
    code = _most(Counter(code for _, code in read if code != NO_LANGUAGE), ENGLISH.code)
    own_texts = [text for text, own in read if own == code] or texts
    return Language(code, _most(scripts(" ".join(own_texts)), ENGLISH.script))


def not_in(expected: Language, text: str) -> str:
    """Describe the evidence for a language other than the expected one; empty if there is none.

    A text that is too short, too garbled or too mixed for a certain result is accepted.
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
    """Count letters by script, the first word of their Unicode names; Japanese counts as one script."""
    names = (unicodedata.name(char, "?").split()[0].partition("-")[0] for char in text if char.isalpha())
    return Counter("CJK" if name in ("HIRAGANA", "KATAKANA") else name for name in names)


def _most(counts: Counter[str], default: str) -> str:
    return next((name for name, _ in counts.most_common(1)), default)


def _ranked(text: str) -> list[tuple[str, float]]:
    """Return every language of the library with its probability for a text, the most probable first."""
    return _identifier().rank(text)


@cache
def _identifier() -> Any:
    """Load the library with its own model, which takes most of a second to unpack."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
