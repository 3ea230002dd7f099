"""The reference of a ``shares`` task: an edition's file, a country's shares in it, and shortened scales."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError, UsageError, did_you_mean
from ..countries import name_of
from ..imported import imported
from ..reading import read_yaml
from ..schema import Strict
from ..spec import TaskSpec, parse
from .share_table import load_shares


class Variants(Strict):
    """``variants.yaml``: codes that count as another one (``merge``) for some items of some ``countries``."""

    merge: dict[int, int]
    countries: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Reference:
    """Answer shares of one country: ``shares[item]`` maps codes to shares that add up to 1; ``counts`` where known."""

    edition: str
    shares: dict[str, dict[int, float]]
    counts: dict[str, int]


def file_of(spec: TaskSpec, edition: str | None) -> tuple[Path, str]:
    """Return the file of an edition and the edition's name.

    Raises:
        UsageError: no such edition.
    """
    reference = spec.metadata.reference
    if reference is None:
        raise InputError(f"{spec.path}: metadata.reference: missing. This measure compares with answer shares.")
    name = reference.default_edition if edition is None else edition
    file = spec.edition_file(name)
    if file is None and name in reference.editions:
        raise InputError(f"{spec.path}: metadata.reference.file: missing. Name the file of the shares.")
    if file is None:
        known = tuple(dict.fromkeys((*reference.editions, *imported(spec.folder.name))))
        hint = did_you_mean(name, known)
        raise UsageError(
            f"--edition {name!r}: {spec.name} has {', '.join(known)}.{hint} `culteval data import` adds some."
        )
    return file, name


def reference_of(spec: TaskSpec, country: str, edition: str | None) -> Reference:
    """Return a country's shares.

    Raises:
        UsageError: the edition or the country is missing. InputError: a malformed file.
    """
    path, name = file_of(spec, edition)
    table = load_shares(path)
    if country not in table.countries:
        wave = " Saudi Arabia is not in wave 7 of the survey." if country == "SA" else ""
        known = ", ".join(sorted(table.countries))
        raise UsageError(
            f"country {country}: edition {name!r} of {spec.name} has no shares of {name_of(country)}.{wave} "
            f"It has {known}."
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
    variants = parse(Variants, read_yaml(path), path)
    return {item: variants.merge for item in variants.countries.get(country, ())}
