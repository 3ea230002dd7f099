"""Official names of columns in the files of the World Values Survey and the European Values Study."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from ...errors import InputError
from ..reading import read_csv, read_yaml
from ..schema import Strict
from ..spec import parse

FOLDER = Path(__file__).parent.parent / "wvs"
_COLUMNS = FOLDER / "columns.csv"
_NAMED = ("trend", "wave7", "evs2017", "wave6", "wave5")


class Source(Strict):
    """A kind of file: its columns of country, weight and wave, and those of demographic attributes with their coding.

    The first of several columns of countries or weights that a file has is used.
    ``marks`` are further columns that it must have; ``labelled`` says that its numbered columns need labels to be safe.
    ``waves`` map the codes of each column of waves to waves of the World Values Survey; empty for the same numbers.
    """

    title: str
    country: tuple[str, ...]
    weight: tuple[str, ...]
    marks: tuple[str, ...] = ()
    labelled: bool = False
    waves: dict[str, dict[int, int]] = Field(default_factory=dict)
    attributes: dict[str, dict[str, str]]


class Sources(Strict):
    """``sources.yaml``: kinds of files, the cells of each coding, and the first years of age bands."""

    sources: dict[str, Source]
    codings: dict[str, dict[str, tuple[int, ...]]]
    ages: tuple[int, ...]


@dataclass(frozen=True)
class Official:
    """An answer under its name in each kind of file, and the codes that are answers.

    ``named`` maps ``trend``, ``wave7`` and so on to names; ``label`` is a part of the column's label, or several
    between bars.
    """

    named: Mapping[str, str]
    lowest: int
    highest: int
    label: tuple[str, ...]

    @property
    def mentioned(self) -> bool:
        """Return whether it is yes or no: 1 and 0 in trend files, 1 and 2 in others."""
        return (self.lowest, self.highest) == (0, 1)

    def column(self, kind: str) -> str | None:
        """Return its name in a kind of file, None if it has none there."""
        return self.named.get("trend" if kind == "joint" else kind)


@lru_cache(maxsize=1)
def sources() -> Sources:
    """Return the kinds of files of ``tasks/wvs/sources.yaml``."""
    path = FOLDER / "sources.yaml"
    return parse(Sources, read_yaml(path), path)


@lru_cache(maxsize=1)
def officials() -> dict[str, Official]:
    """Return the answers of ``tasks/wvs/columns.csv`` by their names in trend files and in wave 7."""
    found: dict[str, Official] = {}
    for row in read_csv(_COLUMNS, (*_NAMED, "lowest", "highest", "label")):
        named = {kind: row[kind] for kind in _NAMED if row[kind]}
        one = Official(named, int(row["lowest"]), int(row["highest"]), tuple(filter(None, row["label"].split("|"))))
        found |= {named[kind]: one for kind in ("trend", "wave7") if kind in named}
    return found


def known_names() -> frozenset[str]:
    """Return every name that some kind of file has a column of."""
    named = {name for one in officials().values() for name in one.named.values()}
    for source in sources().sources.values():
        named |= {*source.country, *source.weight, *source.marks, *source.waves}
        named |= {column for columns in source.attributes.values() for column in columns}
    return frozenset(named)


def kind_of(names: Collection[str], where: Path) -> str:
    """Return the kind of the file that has these columns.

    Raises:
        InputError: none; names the columns that the most similar kind needs.
    """
    missing = {}
    for kind, source in sources().sources.items():
        needed = [(name,) for name in source.marks]
        missing[kind] = [any_of[0] for any_of in (source.country, source.weight, *needed) if not {*any_of} & {*names}]
        if not missing[kind]:
            return kind
    kind = min(missing, key=lambda name: len(missing[name]))
    title = sources().sources[kind].title
    problem = f"{where}: no column {missing[kind][0]!r}, as {title} has."
    raise InputError(f"{problem} Give an official file of the survey with its columns' official names.")
