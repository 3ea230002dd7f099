"""Persona samples: drawn from a seed, equal across countries, without a nationality."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from string import Formatter
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from .schema import SplitName, Strict
from .spec import TaskSpec, parse, read_yaml

OWN = Path(__file__).with_name("personas.yaml")


Shares = dict[str, Annotated[float, Field(ge=0, le=1)]]


class Attribute(Strict):
    """Shares of an attribute: of its values, of age bands, or of values ``given`` other attributes.

    A key of conditional shares (``where``) joins the values of the given attributes by ``|``.
    """

    values: Shares = Field(default_factory=dict)
    bands: Shares = Field(default_factory=dict)
    given: tuple[str, ...] = ()
    where: dict[str, Shares] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sums(self) -> Attribute:
        if sum(map(bool, (self.values, self.bands, self.where))) != 1 or bool(self.given) != bool(self.where):
            raise ValueError("give values, or bands, or where together with given")
        for key, table in (self.where or {"": self.values or self.bands}).items():
            if not table or abs(sum(table.values()) - 1) > 1e-9:
                raise ValueError(f"shares{f' of {key!r}' if key else ''} do not sum to 1")
        for band in self.bands:
            low, high = _ends(band)
            if low > high:
                raise ValueError(f"bands.{band}: ends before it begins")
        return self

    def shares(self, key: str) -> Shares:
        """Return the shares for a combination of given values; KeyError if there are none."""
        return self.where[key] if self.given else self.values or self.bands

    @property
    def possible(self) -> set[str]:
        """Return every value that may be drawn."""
        return {value for table in (self.where or {"": self.values or self.bands}).values() for value in table}


def _ends(band: str) -> tuple[int, int]:
    """Return the first and last year of ``20-29`` or ``65+`` (taken as twenty years more)."""
    found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3})|\+)", band)
    if not found:
        raise ValueError(f"bands.{band}: expected years such as 20-29 or 65+")
    low = int(found[1])
    return low, int(found[2]) if found[2] else low + 20


class Population(Strict):
    """Attributes in the order in which they are drawn, and sentences that describe a person in a language.

    ``translations`` give values in a language, by attribute; a value without a translation stays as it is.
    """

    order: tuple[str, ...] = Field(min_length=1)
    attributes: dict[str, Attribute]
    texts: dict[str, str] = Field(min_length=1)
    translations: dict[str, dict[str, dict[str, str]]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ordered(self) -> Population:
        if set(self.order) != set(self.attributes):
            raise ValueError("order and attributes name different attributes")
        for place, name in enumerate(self.order):
            if late := [other for other in self.attributes[name].given if other not in self.order[:place]]:
                raise ValueError(f"attributes.{name}.given: {late[0]!r} is drawn later")
            given = [self.attributes[other].possible for other in self.attributes[name].given]
            for cell in itertools.product(*given) if given else ():
                if (key := "|".join(cell)) not in self.attributes[name].where:
                    raise ValueError(f"attributes.{name}.where: no shares of {key!r}")
        for language, text in self.texts.items():
            try:
                parts = [(field, form, kind) for _, field, form, kind in Formatter().parse(text) if field is not None]
            except ValueError as error:
                raise ValueError(f"texts.{language}: {error}") from None
            if unknown := [field for field, form, kind in parts if field not in self.order or form or kind]:
                raise ValueError(f"texts.{language}: {{{unknown[0]}}} is not an attribute")
        return self


def draw_personas(spec: TaskSpec, size: int, seed: int, split: SplitName) -> tuple[str, ...]:
    """Draw ``size`` persona sentences; each split has different personas.

    Shares are read from the file that the spec names as ``persona_file``, else from ``personas.yaml``. Without personas
    (``size`` 0), the questions are answered once without a description.

    Raises:
        InputError: a malformed file of shares.
    """
    if size == 0:
        return ()
    population, people = _drawn(spec, size, seed, split)
    language = spec.metadata.languages[0]
    text = population.texts.get(language, next(iter(population.texts.values())))
    translated = population.translations.get(language, {})
    columns = {name: [translated.get(name, {}).get(v, v) for v in values] for name, values in people.items()}
    return tuple(text.format(**{name: values[i] for name, values in columns.items()}) for i in range(size))


def draw_attributes(spec: TaskSpec, size: int, seed: int, split: SplitName) -> dict[str, list[str]]:
    """Draw the attributes of the personas of ``draw_personas``, each a list of values in their order.

    Raises:
        InputError: a malformed file of shares.
    """
    return _drawn(spec, size, seed, split)[1]


def _drawn(spec: TaskSpec, size: int, seed: int, split: SplitName) -> tuple[Population, dict[str, list[str]]]:
    path = spec.folder / spec.metadata.persona_file if spec.metadata.persona_file else OWN
    population = parse(Population, read_yaml(path), path)
    rng = np.random.default_rng([seed, ("fit", "heldout", "control").index(split)])
    return population, draw(population, size, rng)


def draw(population: Population, size: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Draw the attributes of ``size`` people, one attribute after another; ages uniformly within their band."""
    drawn: dict[str, np.ndarray] = {}
    shown: dict[str, list[str]] = {}
    for name in population.order:
        attribute = population.attributes[name]
        draws = rng.random(size)
        keys = np.array(
            ["|".join(cell) for cell in zip(*(drawn[g] for g in attribute.given), strict=True)] or [""] * size
        )
        column = np.empty(size, dtype=object)
        for key in dict.fromkeys(keys.tolist()):
            table = attribute.shares(key)
            rows = keys == key
            edges = np.cumsum(list(table.values()))
            place = np.minimum(np.searchsorted(edges, draws[rows], side="right"), len(table) - 1)
            column[rows] = np.array(list(table), dtype=object)[place]
        drawn[name] = column
        shown[name] = _years(column, rng) if attribute.bands else column.tolist()
    return shown


def _years(bands: np.ndarray, rng: np.random.Generator) -> list[str]:
    ends = np.array([_ends(band) for band in bands])
    return [str(age) for age in rng.integers(ends[:, 0], ends[:, 1] + 1)]
