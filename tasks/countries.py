"""Countries by name or code, through pycountry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UsageError

ALIASES = {
    "uk": "GB",
    "great britain": "GB",
    "britain": "GB",
    "russia": "RU",
    "usa": "US",
    "turkey": "TR",
}  # usual, but not in ISO


@dataclass(frozen=True)
class Country:
    """An ISO 3166 country: two-letter code and the name people use."""

    code: str
    name: str


def country(text: str, known: Iterable[str] = ()) -> Country:
    """Look up a country by name or ISO code, in any case.

    Args:
        known: two-letter codes that matter to the caller, from which a suggestion is made.

    Raises:
        UsageError: no such country; names the nearest one.
    """
    import pycountry

    try:
        found = pycountry.countries.lookup(ALIASES.get(text.strip().lower(), text.strip()))
    except LookupError:
        near = _nearest(text.strip(), list(known) or [entry.alpha_2 for entry in pycountry.countries])
        hint = f" Did you mean {near!r}?" if near else ""
        raise UsageError(f"--country {text!r}: no such country.{hint} `culteval ls countries` lists them.") from None
    return Country(found.alpha_2, getattr(found, "common_name", found.name))


def _nearest(text: str, codes: list[str]) -> str | None:
    """The known name most like a text: one that holds it, one spelt nearly so, one that pycountry finds by region."""
    import pycountry

    names = {name_of(code).lower(): name_of(code) for code in codes}
    near = [name for name in names if len(text) > 2 and text.lower() in name]
    near = near or difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.75)
    if near:
        return names[near[0]]
    try:
        return name_of(pycountry.countries.search_fuzzy(text)[0].alpha_2) if len(text) > 3 else None
    except LookupError:
        return None


def name_of(code: str, language: str = "en") -> str:
    """The usual name of a two-letter code, in a language where it is known; the code itself where ISO has none."""
    import pycountry

    found = pycountry.countries.get(alpha_2=code)
    if not found:
        return code
    name = getattr(found, "common_name", found.name)
    if language == "en":
        return name
    import gettext

    locale = {"zh": "zh_CN"}.get(language, language)
    words = gettext.translation("iso3166-1", pycountry.LOCALES_DIR, languages=[locale], fallback=True)
    return words.gettext(name)
