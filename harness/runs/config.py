"""Configuration of a run: everything that decides its result, and the name of its folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from ...errors import InputError, UsageError, did_you_mean
from ...tasks.chat_options import ChatOptions
from ...tasks.countries import Country, name_of
from ...tasks.measure import MeasureOptions
from ...tasks.personas import OWN as PERSONAS
from ...tasks.prompts import ProtocolOptions, split_items
from ...tasks.reading import parse_yaml, read_text
from ...tasks.schema import FitObjective, Scoring, Strict
from ...tasks.spec import TaskSpec, first_problem
from ..alignment.aligner import Settings, find_aligner
from ..alignment.budget import Budget
from ..alignment.joint_objective import JointObjective
from ..alignment.objective import Objective, fit_objective
from ..models.fingerprint import file_hash, folder_hash
from ..models.gguf import is_gguf
from ..providers.settings import EndpointSettings, is_remote
from ..registry import spec_of, table
from ..submissions.manifest import MOST_TASKS, Limit, Seed, Surveys

DEFAULT_MODEL = "qwen2.5-coder-0.5b"  # the smallest embedded model whose answers depend on the question
DEFAULT_BUDGET = 24
# Distributed files as they were before digests held such files: with these, names of runs stay as they were.
_FORMER = {
    "variants.yaml": "6841ac2fd4a7426153f057572094be78b5be950d3210bf9db1b3af69febf08d7",  # of tasks/wvs
    "personas.yaml": "b27243a4b7547a6e4e02288047430ee5783803693b3cf5962003dde20b5391fc",  # of tasks
}


class RunConfig(Strict):
    """The resolved configuration of a run. Countries are two-letter codes; ``budget`` is in survey evaluations.

    ``adapter`` is the folder of a PEFT adapter that the model has from the start, ``adapter_sha256`` its hash;
    ``chat`` are the options of the chat template around every prompt, None for the default.
    """

    aligner: str
    settings: dict[str, Any]
    model: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "cpu"
    threads: int | None = Field(None, ge=1)
    adapter: str | None = None
    adapter_sha256: str | None = None
    chat: ChatOptions | None = None
    endpoint: EndpointSettings | None = None
    fit: tuple[str, ...] = Field(min_length=1, max_length=MOST_TASKS)
    fit_country: str
    tasks: tuple[str, ...] = Field(min_length=1, max_length=MOST_TASKS)
    country: str
    options: MeasureOptions
    scoring: Scoring
    objective: FitObjective = "task"
    personas: int = Field(0, ge=0, le=100_000)
    limit: Limit | None = None
    calibrate: bool = False
    budget: Surveys = DEFAULT_BUDGET
    seed: Seed = 0

    def protocol(self) -> ProtocolOptions:
        """Return how much of each task's protocol is asked."""
        return ProtocolOptions(self.personas, self.seed, self.limit, self.calibrate)

    @property
    def model_content(self) -> str | None:
        """Return the hash of a user's model, whose content may change; None for other models (see ``content_of``)."""
        return content_of(self.model)

    @property
    def digest(self) -> str:
        """Return ten hexadecimal digits of a hash over this configuration, its task files and local models' files."""
        specs = {name: spec_of(name) for name in (*self.fit, *self.tasks)}
        edition = self.options.edition
        tasks = {name: (spec.hash, spec.compared_with(edition)) for name, spec in specs.items()}
        # An adapter enters by its hash, not by its path; unset fields are left out, so that older names stay valid.
        unset = {name for name in ("adapter_sha256", "chat") if getattr(self, name) is None}
        unset |= {"objective"} if self.objective == "task" else set()
        given = self.model_dump(mode="json", exclude={"endpoint", "adapter"} | unset)
        if self.endpoint and self.endpoint.base_url:  # speed limits and prices of an endpoint do not affect results
            given["base_url"] = self.endpoint.base_url
        content = self.model_content
        files = {name: hashes for name, spec in specs.items() if (hashes := _beside(spec, self.personas))}
        models = {key: content for key, value in self.settings.items() if (content := _content_in(value))}
        more = [part for part in (content, files, models) if part]
        text = json.dumps([given, tasks, *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def folder_name(self) -> str:
        """Return a readable and unique name."""
        return f"{spec_of(self.tasks[0]).name}-{self.country}-{self.aligner}-{self.digest}"

    def with_aligner(self, name: str) -> RunConfig:
        """Return the configuration with another aligner at default settings, and a budget only where it searches."""
        aligner = find_aligner(name)
        settings = aligner_settings(name, ()).model_dump(mode="json")
        budget = self.budget if aligner.budgeted else 0
        return self.model_copy(update={"aligner": name, "settings": settings, "budget": budget})


def content_of(model: str) -> str | None:
    """Return the hash of a user's model: a folder, a GGUF file, or the folders that a name of lm-eval holds; else None.

    Raises:
        OSError: a file cannot be read.
    """
    if model in table("models"):
        return None
    if is_gguf(model):
        return file_hash(Path(model))
    if is_remote(model):
        arguments = [part.partition("=")[::2] for part in model.split(",")]
        folders = [place.strip() for key, place in arguments if key.strip() in ("pretrained", "peft")]
        hashes = [folder_hash(Path(folder)) for folder in folders if os.path.isdir(folder)]
        return hashlib.sha256(json.dumps(hashes).encode()).hexdigest() if hashes else None
    return folder_hash(Path(model)) if os.path.isdir(model) else None  # False also for an invalid path


def _content_in(value: Any) -> str | None:
    """Return the hash of the model that a setting names, None where it names none with files of the user."""
    if not isinstance(value, str) or (os.path.isdir(value) and not (Path(value) / "config.json").is_file()):
        return None
    return content_of(value)


def _beside(spec: TaskSpec, personas: int) -> dict[str, str]:
    """Return the hashes, by name, of files that decide targets and prompts but are in no hash of the spec."""
    hashes = {}
    if (variants := spec.folder / "variants.yaml").is_file():
        hashes[variants] = _merges_hash(read_text(variants), str(variants))
    own = spec.metadata.persona_file
    people = spec.folder / own if own else PERSONAS
    if personas and people not in spec.sources and people.is_file():
        hashes[people] = file_hash(people)
    former = {PERSONAS.parent / "wvs" / "variants.yaml", PERSONAS}
    known = {path for path in former if hashes.get(path) == _FORMER[path.name]}
    return {path.name: value for path, value in hashes.items() if path not in known}


@lru_cache
def _merges_hash(text: str, place: str) -> str:
    """Return the hash of the options that are merged by country; the rest of the file concerns imports."""
    given = parse_yaml(text, place)
    merges = [given.get(field) for field in ("merge", "countries")] if isinstance(given, dict) else given
    return hashlib.sha256(json.dumps(merges, default=str).encode()).hexdigest()


def aligner_settings(name: str, assignments: Iterable[str], base: Mapping[str, Any] | None = None) -> Settings:
    """Make an aligner's settings of a mapping, overridden by ``key=value`` texts (values are read as YAML).

    Raises:
        UsageError: no such aligner or setting, or an invalid value.
    """
    model = find_aligner(name).Settings
    given = dict(base or {}) | read_assignments("`settings`", assignments)
    for key in given:
        if str(key) not in model.model_fields:
            known = ", ".join(model.model_fields) or "none"
            hint = did_you_mean(str(key), model.model_fields)
            raise UsageError(f"`settings` {key}: {name} has no such setting.{hint} It has: {known}.")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise UsageError(f"`settings` {first_problem(error)} (aligner {name}).") from None


def read_assignments(flag: str, texts: Iterable[str]) -> dict[str, Any]:
    """Parse ``key=value`` texts; values are read as YAML.

    Raises:
        UsageError: a text of another form.
    """
    given = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign:
            raise UsageError(f"{flag} {text!r}: expected key=value.")
        try:
            given[key] = parse_yaml(value, f"{flag} {key}")
        except InputError:
            raise UsageError(f"{flag} {key}: {value!r} is not a value.") from None
    return given


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Return the ``key=value`` texts, a line each, from which ``aligner_settings`` reads these settings."""
    return [f"{key}={_one_line(value)}" for key, value in sorted(settings.items())]


def _one_line(value: Any) -> str:
    if isinstance(value, list | tuple):
        parts = (json.dumps(one, ensure_ascii=False) if isinstance(one, str) else _one_line(one) for one in value)
        return f"[{', '.join(parts)}]"
    if isinstance(value, str) and not value.isprintable():  # YAML would write a line break literally
        return json.dumps(value, ensure_ascii=False)
    text: str = yaml.safe_dump(value, allow_unicode=True, width=math.inf)
    return text.split("\n")[0]


def objective_of(config: RunConfig) -> Objective:
    """Make the objective of a configuration, for one task or for several together.

    Raises:
        UsageError: a task whose reference lacks the country, without closed questions to fit, or without answer
            distributions for the objective ``distribution``.
    """
    country = Country(config.fit_country, name_of(config.fit_country))
    common = (country, config.scoring, config.options, config.personas, config.seed, config.objective)
    objectives = tuple(fit_objective(spec_of(name), *common) for name in config.fit)
    return objectives[0] if len(objectives) == 1 else JointObjective(objectives)


def budget_of(config: RunConfig) -> Budget:
    """Make the budget of a configuration; one survey evaluation asks every fitted item once."""
    items = sum(len(split_items(spec_of(name), "fit", ProtocolOptions())) for name in config.fit)
    return Budget(total=config.budget * items, per_survey=items)
