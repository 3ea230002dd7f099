"""Seed scenarios, and their adaptation to a country by data: names, places, institutions, customs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ....errors import UsageError
from ....tasks.countries import name_of
from ....tasks.schema import Strict
from ....tasks.spec import parse, read_yaml
from .dialogue import Name, Text

PLACEHOLDERS = ("first", "second", "city", "place", "food", "holiday", "institution")
_HERE = Path(__file__).parent
_LISTS = {"city": "cities", "place": "places", "food": "foods", "holiday": "holidays", "institution": "institutions"}


class SeedPerson(Strict):
    """A person before the choice of a country; goal and secret are private."""

    occupation: str
    age: Annotated[int, Field(ge=16, le=100)]
    background: Text
    goal: Text
    secret: Text


class Seed(Strict):
    """A scenario with placeholders; ``values`` are the Hofstede dimensions of its conflict."""

    id: str
    theme: str
    relation: str
    setting: Text
    people: tuple[SeedPerson, SeedPerson]
    values: tuple[Literal["pdi", "idv", "mas", "uai", "lto", "ivr"], ...]

    @model_validator(mode="after")
    def _known(self) -> Seed:
        texts = [self.setting, *(text for one in self.people for text in (one.background, one.goal, one.secret))]
        for text in texts:
            for _, field, form, conversion in Formatter().parse(text):
                if field is not None and (field not in PLACEHOLDERS or form or conversion):
                    raise ValueError(f"placeholder {{{field}}}: not one of {', '.join(PLACEHOLDERS)}")
        return self


class Seeds(Strict):
    """The content of the seeds file."""

    scenarios: tuple[Seed, ...] = Field(min_length=1)


class Place(Strict):
    """The data for scenes in a country; ``words`` indicate that a dialogue took place there."""

    first_names: tuple[str, ...] = Field(min_length=2)
    family_names: tuple[str, ...] = Field(min_length=2)
    name_order: Literal["given first", "family first"]
    cities: tuple[str, ...] = Field(min_length=1)
    places: tuple[str, ...] = Field(min_length=1)
    foods: tuple[str, ...] = Field(min_length=1)
    holidays: tuple[str, ...] = Field(min_length=1)
    institutions: tuple[str, ...] = Field(min_length=1)
    customs: tuple[str, ...] = Field(min_length=1)
    words: tuple[str, ...] = Field(min_length=1)


class Person(Strict):
    """A person of a scenario."""

    name: Name
    occupation: str
    age: int
    background: Text
    goal: Text
    secret: Text

    @property
    def profile(self) -> str:
        """Describe the person as known to everyone in the scene."""
        return f"{self.name} ({self.age}, {self.occupation}). {self.background}"


class Scenario(Strict):
    """A scene set in a country, ready for simulation."""

    id: str
    codename: str
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]
    setting: Text
    customs: tuple[str, ...]
    people: tuple[Person, Person]


@cache  # the shipped files are read once a process
def seeds() -> tuple[Seed, ...]:
    """Return the project's own seeds, in file order."""
    path = _HERE / "scenarios.yaml"
    return parse(Seeds, read_yaml(path), path).scenarios


def place_of(code: str) -> Place:
    """Return the data for scenes in a country.

    Raises:
        UsageError: no data for the country.
    """
    path, known = _HERE / "places.yaml", _places()
    if code not in known:
        raise UsageError(f"country {code}: no scenes of {name_of(code)} yet; there are {', '.join(sorted(known))}.")
    return parse(Place, known[code], path)


@cache
def _places() -> dict[str, Any]:
    return read_yaml(_HERE / "places.yaml")


def adapt(seed: Seed, code: str, place: Place, rng: np.random.Generator) -> Scenario:
    """Set a seed in a country: draw names and places, and mention three customs."""
    first, second = (_full_name(place, given, rng) for given in rng.choice(place.first_names, 2, replace=False))
    drawn = {name: str(rng.choice(getattr(place, key))) for name, key in _LISTS.items()}
    words = drawn | {"first": first, "second": second}
    people = [
        Person(
            name=name,
            occupation=one.occupation,
            age=one.age,
            **{key: getattr(one, key).format_map(words) for key in ("background", "goal", "secret")},
        )
        for name, one in zip((first, second), seed.people, strict=True)
    ]
    customs = tuple(rng.choice(place.customs, min(3, len(place.customs)), replace=False).tolist())
    setting = seed.setting.format_map(words)
    return Scenario(
        id=f"{seed.id}-{code}",
        codename=seed.theme,
        country=code,
        setting=setting,
        customs=customs,
        people=tuple(people),
    )


def adapted(code: str, count: int, rng: np.random.Generator) -> list[Scenario]:
    """Draw ``count`` scenarios of a country; every seed is used once before it is repeated with other names."""
    place, own = place_of(code), seeds()
    found: list[Scenario] = []
    while len(found) < count:
        for number in rng.permutation(len(own))[: count - len(found)]:
            scene = adapt(own[number], code, place, rng)
            again = sum(each.id.startswith(scene.id) for each in found)
            found.append(scene.model_copy(update={"id": f"{scene.id}-{again}"}) if again else scene)
    return found


def _full_name(place: Place, given: str, rng: np.random.Generator) -> str:
    family = str(rng.choice(place.family_names))
    return f"{family} {given}" if place.name_order == "family first" else f"{given} {family}"
