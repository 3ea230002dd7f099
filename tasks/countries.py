"""Countries by name or code, through pycountry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UsageError


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
        found = pycountry.countries.lookup(text.strip())
    except LookupError:
        codes = list(known) or [entry.alpha_2 for entry in pycountry.countries]
        names = {name_of(code).lower(): name_of(code) for code in codes}
        wanted = text.strip().lower()
        near = [name for name in names if len(wanted) > 2 and wanted in name]
        near = near or difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
        hint = f" Did you mean {names[near[0]]!r}?" if near else ""
        raise UsageError(f"--country {text!r}: no such country.{hint} `culteval ls countries` lists them.") from None
    return Country(found.alpha_2, getattr(found, "common_name", found.name))


def name_of(code: str) -> str:
    """The usual name of a two-letter code; the code itself where ISO has none."""
    import pycountry

    found = pycountry.countries.get(alpha_2=code)
    return getattr(found, "common_name", found.name) if found else code
