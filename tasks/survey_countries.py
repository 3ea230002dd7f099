"""Countries as surveys name them: names beside ISO's, and survey regions without an ISO code."""

from __future__ import annotations

import re
from functools import lru_cache

from ..errors import UsageError
from .countries import country

_NAMES = {
    "bosnia herzegovina": "BA", "dominican rep": "DO", "gb-gbn": "GB", "gb-nir": "XI", "korea, rep": "KR",
    "kosovo": "XK", "nir": "XI", "northern ireland": "XI", "palest ter": "PS", "s africa": "ZA", "xkx": "XK",
}  # fmt: skip
_NUMBERS = {"900": "DE", "901": "DE", "909": "XI", "915": "XK"}  # the surveys' own, beside ISO's numeric codes
_NUMBER = re.compile(r"(\d{1,3})(?:\.0*)?")
_SAMPLE = re.compile(r"(.*?)\s*\(([^)]*)\)")


@lru_cache(maxsize=4096)
def country_code(name: str) -> str | None:
    """Return the two-letter code for a country name, code or number in a survey's file; None if there is none."""
    bare = name.strip().replace(".", "").lower()
    if number := _NUMBER.fullmatch(name.strip()):
        if number[1] in _NUMBERS:
            return _NUMBERS[number[1]]
        name = number[1].zfill(3)
    try:
        return _NAMES.get(bare) or country(name.strip()).code
    except UsageError:
        return None


def sample_of(name: str) -> tuple[str, int | None]:
    """Split a country's name from a remark such as ``(Current national sample)``, and rank the sample's coverage.

    Rank 0 is best; None is a sample of a part of the country, which does not represent the country.
    """
    found = _SAMPLE.fullmatch(name.strip())
    if not found or "sample" not in found[2].lower():
        return name.strip(), 1
    remark = found[2].lower()
    if "non-national" in remark:
        return found[1], None
    return found[1], 0 if "current" in remark else 2 if "old" in remark else 1
