"""The identity of models on boards, and names that tell apart rows by the settings in which they differ."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from ..harness.analysis.country_set import build_of
from ..harness.submissions.manifest import Manifest
from .submission_page import visible

Key = TypeVar("Key", bound=Hashable)


class Model(NamedTuple):
    """What determines a model's answers: name, precision, and revision, adapter and chat options (``build_of``)."""

    name: str
    dtype: str
    build: str

    @property
    def short(self) -> str:
        """Format name and precision."""
        return f"{self.name} {self.dtype}"


def model_of(manifest: Manifest) -> Model:
    """Return the model of a submission."""
    return Model(manifest.model.name, manifest.model.dtype, build_of(manifest.model))


def model_names(models: Iterable[Model]) -> dict[Model, str]:
    """Return the short name of each model, with what differs between several models of one short name."""
    builds: dict[str, dict[Model, Any]] = defaultdict(dict)
    for model in models:
        builds[model.short][model] = json.loads(model.build)
    more = {model: parts for same in builds.values() for model, parts in differing(same).items()}
    return {model: ", ".join([model.short, *parts]) for model, parts in more.items()}


def differing(settings: Mapping[Key, Mapping[str, Any]]) -> dict[Key, list[str]]:
    """Return for each row the settings in which the rows differ, as ``key=value``; submitted texts made printable."""
    first = next(iter(settings.values()), {})
    known = {key for own in settings.values() for key in own}
    differ = {key for key in known if any(own.get(key) != first.get(key) for own in settings.values())}
    return {
        row: [visible(f"{key}={value}") for key, value in own.items() if key in differ] for row, own in settings.items()
    }
