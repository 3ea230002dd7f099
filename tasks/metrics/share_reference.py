"""The reference of a ``shares`` task: an edition's file, a country's shares in it, and shortened scales."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ...errors import InputError, UsageError, did_you_mean
from ..countries import name_of
from ..imported import imported
from ..reading import read_yaml
from ..schema import Strict
from ..spec import EXTENDED, TaskSpec, parse
from .share_table import ShareTable, load_shares


class Variants(Strict):
    """``variants.yaml``: codes that count as another one (``merge``) for some items of some ``countries``.

    ``left_out`` are the items that an import leaves out for a country.
    """

    merge: dict[int, int]
    countries: dict[str, tuple[str, ...]]
    left_out: dict[str, tuple[str, ...]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """Answer shares of one country: ``shares[item]`` maps codes to shares that add up to 1; ``counts`` where known."""

    edition: str
    shares: dict[str, dict[int, float]]
    counts: dict[str, int]


def table_of(spec: TaskSpec, edition: str | None) -> tuple[ShareTable, str]:
    """Return the shares of an edition and the edition's name.

    Raises:
        UsageError: no such edition. InputError: a malformed file.
    """
    reference = spec.metadata.reference
    if reference is None:
        raise InputError(f"{spec.path}: metadata.reference: missing. This measure compares with answer shares.")
    name = reference.default_edition if edition is None else edition
    files = spec.edition_files(name)
    if not files and name in reference.editions:
        raise InputError(f"{spec.path}: metadata.reference.file: missing. Name the file of the shares.")
    if not files:
        known = tuple(dict.fromkeys((*spec.editions, *imported(spec.folder.name))))
        hint = did_you_mean(name, known)
        raise UsageError(
            f"--edition {name!r}: {spec.name} has {', '.join(known)}.{hint} `culteval data import` adds some."
        )
    return load_shares(*files), name


def reference_of(spec: TaskSpec, country: str, edition: str | None) -> Reference:
    """Return a country's shares.

    Raises:
        UsageError: the edition or the country is missing. InputError: a malformed file.
    """
    table, name = table_of(spec, edition)
    if country not in table.countries:
        wave = " Saudi Arabia is not in wave 7 of the survey." if country == "SA" else ""
        known = ", ".join(sorted(table.countries))
        more = name != EXTENDED and spec.extension is not None and country in load_shares(spec.extension).countries
        remedy = f"`edition` {EXTENDED} has it." if more else f"It has {known}."
        raise UsageError(
            f"country {country}: edition {name!r} of {spec.name} has no shares of {name_of(country)}.{wave} {remedy}"
        )
    rows = table.of(country)
    shares = {item: {code: share for code, (share, _) in row.items()} for item, row in rows.items()}
    counts = {item: sum(n for _, n in row.values()) for item, row in rows.items()}
    return Reference(name, shares, counts)


def merges_of(spec: TaskSpec, country: str) -> dict[str, dict[int, int]]:
    """Return the codes that count as another one, by item.

    Scales that were shortened in a country (``variants.yaml``).
    """
    path = spec.folder / "variants.yaml"
    if not path.is_file():
        return {}
    variants = read_variants(path)
    return {item: variants.merge for item in variants.countries.get(country, ())}


def read_variants(path: Path) -> Variants:
    """Read a ``variants.yaml``.

    Raises:
        InputError: malformed; names line and field.
    """
    return parse(Variants, read_yaml(path), path)
