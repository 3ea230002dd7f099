"""Hofstede's published scores: editions, countries, world constants."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...errors import InputError, UsageError, did_you_mean
from ..countries import name_of
from ..reading import read_csv
from ..spec import TaskSpec

DIMENSIONS = ("pdi", "idv", "mas", "uai", "lto", "ivr")
STRICT = "matrix-2015"  # rows of the published matrix; the other rows contain estimates from a consultancy's site


@dataclass(frozen=True)
class Scores:
    """The scores of an edition: ``rows`` maps a two-letter code to six numbers, ``sources`` to their source."""

    edition: str
    rows: dict[str, np.ndarray]
    sources: dict[str, str]

    def target(self, code: str) -> np.ndarray:
        """Return the six scores (float64, order of ``DIMENSIONS``) of a country.

        Raises:
            UsageError: the country is unknown to this edition or lacks dimensions; names them.
        """
        if code not in self.rows:
            raise UsageError(
                f"country {code}: edition {self.edition!r} has no Hofstede scores for {name_of(code)}. "
                "`culteval ls countries` lists those it has; `edition` extended has the most."
            )
        row = self.rows[code]
        if missing := [name for name, value in zip(DIMENSIONS, row, strict=True) if np.isnan(value)]:
            raise UsageError(
                f"country {code}: {name_of(code)} has no published score for {', '.join(missing)} "
                f"(edition {self.edition!r}). `culteval ls countries` lists countries with all six."
            )
        return row

    def high(self, code: str) -> dict[str, bool]:
        """Return whether a country is above the world mean, by dimension; UsageError as ``target``."""
        return dict(zip(DIMENSIONS, self.target(code) > self.world, strict=True))

    def is_estimate(self, code: str) -> bool:
        """Return whether a country's row contains estimates rather than the published matrix."""
        return self.sources[code] != STRICT

    @cached_property
    def complete(self) -> tuple[str, ...]:
        """Return the codes of the countries with all six dimensions."""
        return tuple(code for code, row in self.rows.items() if not np.isnan(row).any())

    @cached_property
    def world(self) -> np.ndarray:
        """Compute the mean over the complete rows of the published matrix.

        58.6, 45.8, 49.1, 67.0, 49.8, 47.5 in any edition.
        """
        published = [self.rows[code] for code in self.complete if not self.is_estimate(code)]
        if not published:
            raise InputError(
                f"edition {self.edition!r}: no complete row has the source {STRICT!r}, so there is no mean."
            )
        return np.mean(published, axis=0)


def load_scores(path: Path, edition: str) -> Scores:
    """Read ``hofstede.csv``; edition ``2015`` keeps the published matrix only, ``extended`` all rows.

    Raises:
        InputError: a malformed file; names line and field.
    """
    rows, sources = {}, {}
    for line, row in enumerate(read_csv(path, ("iso2", *DIMENSIONS, "source")), start=2):
        try:
            values = np.array([float(row[name] if row[name] != "" else "nan") for name in DIMENSIONS])
            code, source = row["iso2"], row["source"]
            if np.isinf(values).any() or not source:
                raise ValueError("a cell is missing or not a finite number")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}:{line}: {error}. Expected iso2,{','.join(DIMENSIONS)},source.") from None
        if edition == "extended" or source == STRICT:
            rows[code], sources[code] = values, source
    return Scores(edition, rows, sources)


def scores_of(spec: TaskSpec, edition: str | None) -> Scores:
    """Return the scores that a spec's reference names, in an edition or the default one.

    Raises:
        UsageError: no such edition. InputError: the spec has no reference, or its file is malformed.
    """
    reference = spec.metadata.reference
    if reference is None or reference.file is None:
        raise InputError(f"{spec.path}: metadata.reference: missing. This measure compares with published scores.")
    chosen = reference.default_edition if edition is None else edition
    if chosen not in reference.editions:
        hint = did_you_mean(chosen, reference.editions)
        raise UsageError(f"`edition` {chosen!r}: {spec.name} has {', '.join(reference.editions)}.{hint}")
    return load_scores(spec.folder / reference.file, chosen)
