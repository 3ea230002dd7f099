"""Format aligned sets as tables: between-country R2, the explained variance of country-centred indices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ...harness.analysis.between_countries import ALL, LEAST_COUNTRIES
from ...tasks.glossary import meaning
from ..country_sets import AlignedSet

HEADINGS = ("aligner", "countries", "between-country R2", "correlation")  # the indices, and the skill, follow
WORDS = range(1)  # columns of text
COLLAPSED = "*: number of countries in which the answers are collapsed"
MEANING = (
    f"between-country R2: {meaning('explained_variance')}",
    f"correlation: {meaning('correlation')}",
)
BY_INDEX = "by dimension: between-country R2"
SKILL = "; skill: mean of the single-country skills, which depend on the constant C"


def heading(title: str) -> str:
    """Return the heading of a table of sets."""
    return f"{title}: between-country R2"


def headings(sets: Sequence[AlignedSet]) -> tuple[str, ...]:
    """Return the headings of the columns of comparable sets."""
    return (*HEADINGS, *sets[0].indices, *(["skill"] if _has_skill(sets) else []))


def _has_skill(sets: Iterable[AlignedSet]) -> bool:
    return any(each.centred is not None and each.centred.skill is not None for each in sets)


def grouped(sets: Iterable[AlignedSet]) -> dict[str, list[AlignedSet]]:
    """Group comparable sets by title."""
    groups: dict[str, list[AlignedSet]] = {}
    for each in sets:
        groups.setdefault(each.title, []).append(each)
    return groups


def rows(sets: Iterable[AlignedSet]) -> list[list[str]]:
    """Return the cells of sets with enough countries, in the order of ``headings``."""
    found = []
    for each in sets:
        if (value := each.centred) is not None:
            r, countries = value.correlation[ALL], len(value.countries)
            shown = f"{countries} ({len(value.collapsed)}*)" if value.collapsed else str(countries)
            cells = [each.name, shown, f"{value.explained_variance[ALL]:z.2f}", "-" if r is None else f"{r:z.2f}"]
            skill = [] if value.skill is None else [f"{value.skill:z.2f}"]
            found.append([*cells, *(f"{value.explained_variance[name]:z.2f}" for name in each.indices), *skill])
    return found


def notes(sets: Sequence[AlignedSet]) -> list[str]:
    """Return the definitions of the numbers, and the sets with too few countries."""
    few = [f"{each.name} ({len(each.countries)})" for each in sets if each.centred is None]
    lines = [*MEANING, BY_INDEX + SKILL * _has_skill(sets)] if len(few) < len(sets) else []
    if any(each.centred and each.centred.collapsed for each in sets):
        lines.append(COLLAPSED)
    return [*lines, f"needs {LEAST_COUNTRIES} countries: {', '.join(few)}"] if few else lines


def records(sets: Iterable[AlignedSet]) -> Iterator[dict[str, Any]]:
    """Yield one record for each set and value; none for a set with too few countries."""
    for each in sets:
        if (value := each.centred) is None:
            continue
        who: dict[str, Any] = {
            "kind": "set",
            "task": each.task,
            "variant": each.title,
            "country": " ".join(value.countries),
        }
        who |= {"aligner": each.aligner, "seed": each.seed, "model": each.model}
        who |= {"scoring": each.scoring, "split": "heldout"}
        numbers: dict[str, float | None] = {
            f"explained_variance_{name}": figure for name, figure in value.explained_variance.items()
        }
        numbers |= {f"correlation_{name}": figure for name, figure in value.correlation.items()}
        numbers["skill"] = value.skill
        note = f"collapsed in {len(value.collapsed)} countries" if value.collapsed else None
        for metric, figure in numbers.items():
            yield who | {"metric": metric, "value": figure, "note": note}
