"""Countries by name or code, through pycountry."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from ..errors import UsageError

# Common names that are not in ISO, as ``_plain`` writes them. Parts of the United Kingdom are mapped to it.
ALIASES = {
    "america": "US", "antigua": "AG", "bosnia": "BA", "britain": "GB", "brunei": "BN", "burma": "MM",
    "cape verde": "CV", "congo brazzaville": "CG", "congo kinshasa": "CD", "czech rep": "CZ", "dprk": "KP",
    "dr congo": "CD", "drc": "CD", "east timor": "TL", "england": "GB", "great britain": "GB", "holland": "NL",
    "hong kong china": "HK", "hong kong sar china": "HK", "hong kong sar": "HK", "hongkong": "HK", "ivory coast": "CI",
    "korea north": "KP", "korea south": "KR", "korea": "KR", "ksa": "SA", "macao china": "MO", "macao sar china": "MO",
    "macao sar": "MO", "macau china": "MO", "macau sar china": "MO", "macau sar": "MO", "macau": "MO",
    "macedonia": "MK", "mainland china": "CN", "northern ireland": "GB", "palestinian territories": "PS",
    "palestinian territory": "PS", "persia": "IR", "prc": "CN", "republic of china": "TW", "republic of ireland": "IE",
    "republic of turkey": "TR", "rok": "KR", "russia": "RU", "s korea": "KR", "scotland": "GB", "slovak rep": "SK",
    "swaziland": "SZ", "taiwan china": "TW", "taiwan roc": "TW", "trinidad": "TT", "turkey": "TR", "uae": "AE",
    "uk": "GB", "us": "US", "usa": "US", "vatican city": "VA", "vatican": "VA", "wales": "GB", "zaire": "CD",
}  # fmt: skip


@dataclass(frozen=True)
class Country:
    """An ISO 3166 country: two-letter code and common name."""

    code: str
    name: str


def country(text: str, known: Iterable[str] = ()) -> Country:
    """Look up a country by a common name or its ISO code, in any case, with or without accents.

    Args:
        known: two-letter codes that matter to the caller, from which a suggestion is made.

    Raises:
        UsageError: no such country; names the nearest one.
    """
    import pycountry

    try:
        found = pycountry.countries.lookup(_names().get(_plain(text), text.strip()))
    except LookupError:
        near = nearest(text, known)
        hint = f" Did you mean {near!r}?" if near else ""
        raise UsageError(f"`country` {text!r}: no such country.{hint} `culteval ls countries` lists them.") from None
    return Country(found.alpha_2, getattr(found, "common_name", found.name))


def others(names: Iterable[str], own: Country) -> list[Country]:
    """Return the countries of these names or codes, each once, without ``own``; UsageError for an unknown one."""
    named = {each.code: each for each in map(country, names)}
    return [each for code, each in named.items() if code != own.code]


@cache
def _names() -> dict[str, str]:
    """Return codes by names as ``_plain`` writes them: ISO's names, inverted names, and unambiguous short names."""
    import pycountry

    found, short = dict[str, str](), Counter[str]()
    for entry in pycountry.countries:
        for name in (entry.name, getattr(entry, "common_name", ""), getattr(entry, "official_name", "")):
            first, _, rest = name.partition(", ")
            bare = _plain(name.partition(" (")[0].partition(", ")[0])
            short[bare] += found.get(bare) != entry.alpha_2
            found |= {_plain(one): entry.alpha_2 for one in (bare, name, f"{rest} {first}") if one}
    return {name: code for name, code in found.items() if short[name] < 2} | ALIASES


def _plain(text: str) -> str:
    """Return a name without accents, case, punctuation and articles."""
    bare = "".join(char for char in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(char))
    words = re.sub(r"[.'’ʼ`]", "", bare.replace("&", " and ")).replace("-", " ")
    spelt = {"st": "saint", "the": ""}
    return " ".join(filter(None, (spelt.get(word, word) for word in re.findall(r"\w+", words))))


def nearest(text: str, known: Iterable[str] = ()) -> str | None:
    """Find the common name most similar to a text, among the known codes.

    One that contains it, or is spelt similarly.
    """
    codes, plain = set(known), _plain(text)
    names = {name: code for name, code in _names().items() if not codes or code in codes}
    within = [name for name in names if len(plain) > 2 and plain in name]
    near = difflib.get_close_matches(plain, within or names, n=1, cutoff=0 if within else 0.75)
    return name_of(names[near[0]]) if near else None


def name_of(code: str, language: str = "en") -> str:
    """Return the common name of a two-letter code, in a language where it is known; the code itself if ISO has none."""
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
