"""Aligned sets: submissions of one aligner, model and protocol that differ in the country they are aligned to.

Identification, rank correlation and boards use this definition.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ...tasks.countries import name_of
from ...tasks.spec import TaskSpec
from ..model_info import ModelInfo
from ..submissions.manifest import Manifest


class Setup(NamedTuple):
    """The configuration that the submissions of a set share: everything except the country."""

    aligner: str
    settings: str
    model: str
    dtype: str
    build: str
    fit: str
    budget: int
    seed: int
    edition: str
    constants: str
    personas: int
    limit: int | None


def build_of(model: ModelInfo) -> str:
    """Return revision, adapter and chat options of a model as one text, equal for models that answer alike."""
    build = {"revision": model.revision, "adapter": model.adapter_sha256}
    build |= {"chat": model.chat.model_dump_json()} if model.chat else {}
    return json.dumps(build, sort_keys=True)


def setup_of(manifest: Manifest, spec: TaskSpec) -> Setup:
    """Return the setup of one submission for a task that it answered."""
    entry, fitted = manifest.task(spec.name), manifest.fitted
    fit = fitted.model_dump(include={"tasks", "scoring", "norm", "objective"}) if fitted else {}
    return Setup(
        manifest.aligner.name,
        json.dumps(manifest.aligner.settings, sort_keys=True),
        manifest.model.name,
        manifest.model.dtype,
        build_of(manifest.model),
        json.dumps(fit, sort_keys=True),
        manifest.budget.item_forwards_allowed,
        manifest.seed,
        entry.edition or spec.default_edition,
        entry.constants,
        entry.personas,
        entry.limit,
    )


def why_no_set(manifests: Sequence[Manifest], spec: TaskSpec) -> str | None:
    """Return the reason why submissions are no aligned set, one a country; None where they are one.

    Seeds may differ. Boards, which have several seeds of each country, make one set for each seed.
    """
    if len(manifests) < 2:
        return "that takes several submissions, each aligned to another country"
    countries = Counter(manifest.aligned_to for manifest in manifests)
    if twice := [code for code, times in countries.items() if times > 1]:
        return f"more than one is aligned to {name_of(twice[0])}"
    columns = zip(Setup._fields, zip(*(setup_of(manifest, spec) for manifest in manifests), strict=True), strict=True)
    if different := [name for name, values in columns if name != "seed" and len(set(values)) > 1]:
        return f"they differ in more than the country: {', '.join(different)}"
    return None
