"""Resolve a request to the configuration of a run, with all checks that need no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator

from ...errors import UsageError, did_you_mean
from ...tasks.answers import IN_TEXT
from ...tasks.chat_options import DEFAULT_CHAT, ChatOptions
from ...tasks.countries import country as resolve
from ...tasks.measure import MeasureOptions, countries_of, measure_of
from ...tasks.prompts import ProtocolOptions, count_answers
from ...tasks.schema import FitObjective, Scoring, Strict
from ...tasks.spec import TaskSpec, first_problem, read_yaml
from ..adapters.peft_files import carried_hash, is_soft_prompt
from ..alignment.aligner import Aligner, find_aligner
from ..providers.settings import EndpointSettings, endpoint_of, is_local, is_remote
from ..registry import concrete, listing, spec_of
from ..submissions.manifest import MOST_ANSWERS, MOST_TASKS, Limit, Seed, Surveys
from .checks import require_context
from .config import DEFAULT_BUDGET, DEFAULT_MODEL, RunConfig, aligner_settings, budget_of, objective_of

Texts = tuple[str, ...]


class RunRequest(Strict):
    """The arguments of ``culteval.run`` that decide a result, as the user gives them; ``plan`` resolves them.

    ``fit`` has ``TASK[:COUNTRY]`` texts, by default the first of ``tasks``; ``country`` is a name or a code, by default
    that of ``fit``, else the task's own. ``budget`` is in survey evaluations. ``scoring`` is the answer scoring that a
    fit optimises; a task answered by shares in text is always fitted by them (``verbalized``). ``objective`` is the
    task's own loss or the divergence from the people's answer distributions. ``personas`` is the size of the persona
    sample, ``limit`` the maximum of paraphrases of a split, and of personas. ``config`` is a file, or the name of a
    configuration that the aligner ships; ``settings`` override it.
    """

    aligner: str
    tasks: Annotated[Texts, Field(min_length=1, max_length=MOST_TASKS)]
    fit: Annotated[Texts, Field(max_length=MOST_TASKS)] = ()
    country: str | None = None
    model: str = DEFAULT_MODEL
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    device: str = "cpu"
    threads: Annotated[int, Field(ge=1)] | None = None
    adapter: str | None = None
    chat: ChatOptions | None = None
    endpoint: EndpointSettings | None = None
    budget: Surveys = DEFAULT_BUDGET
    scoring: Literal["expected", "argmax", "text", "verbalized"] = "expected"
    objective: FitObjective = "task"
    personas: Annotated[int, Field(ge=0, le=100_000)] = 0
    limit: Limit | None = None
    calibrate: bool = False
    seed: Seed = 0
    config: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    edition: str | None = None
    constants: str | None = None
    norm: str | None = None

    @field_validator("tasks", "fit", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Make and validate a request of these arguments.

        Raises:
            UsageError: an unknown argument, or an invalid value.
        """
        if unknown := sorted(set(given) - set(cls.model_fields)):
            raise UsageError(f"`{unknown[0]}`: no such argument.{did_you_mean(unknown[0], cls.model_fields)}")
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            field, _, problem = first_problem(error).partition(": ")
            value = given.get(field)
            shown = f" {value!r}" if isinstance(value, str | int | float) else ""
            raise UsageError(f"`{field}`{shown}: {problem}.") from None


def plan(request: RunRequest) -> RunConfig:
    """Check a request and resolve it to the configuration of a run.

    Raises:
        UsageError, InputError: any error that can be detected before a model is loaded.
    """
    tasks = tuple(dict.fromkeys(map(concrete, request.tasks)))
    specs = [spec_of(name) for name in tasks]
    fit, fit_countries = _fitted(request.fit or tasks[:1])
    fit_specs = [spec_of(name) for name in fit]
    options = _measure_options(request)
    known = countries_of(fit_specs[0], options.edition)
    usual = next(iter(fit_countries), specs[0].metadata.default_country)
    country = resolve(usual if request.country is None else request.country, known).code
    fit_codes = tuple(dict.fromkeys(resolve(name, known).code for name in fit_countries)) or (country,)
    if len(fit_codes) > 1:
        raise UsageError(f"`fit`: {' and '.join(fit_codes)}; tasks fitted together have one country.")
    for spec in fit_specs:
        measure_of(spec, fit_codes[0], options)
    for spec in specs:
        measure_of(spec, country, options)
    protocol = ProtocolOptions(request.personas, request.seed, request.limit, request.calibrate)
    answers = sum(count_answers(spec, protocol) for spec in specs)
    if answers > MOST_ANSWERS:
        raise UsageError(f"`personas`: {answers} answers; a submission holds {MOST_ANSWERS} at most. Give fewer.")
    aligner = find_aligner(request.aligner)
    base = _named_settings(request.config, request.aligner, aligner) if request.config else {}
    chosen = aligner_settings(request.aligner, (), base | request.settings)
    working = aligner(chosen)
    if is_remote(request.model):
        _require_text(request, aligner)
        _require_one_server(request, chosen.model_dump())
    copied = ("aligner", "model", "revision", "dtype", "device", "threads", "limit", "calibrate", "seed")
    config = RunConfig(
        **{name: getattr(request, name) for name in copied},
        **_carried(request, aligner),
        scoring=_fitted_scoring(request, aligner, fit_specs),
        objective=request.objective,
        personas=request.personas,
        chat=None if request.chat == DEFAULT_CHAT else request.chat,
        endpoint=endpoint_of(request.endpoint, (request.model, *chosen.model_dump().values())),
        settings=chosen.model_dump(mode="json"),
        fit=fit,
        fit_country=fit_codes[0],
        tasks=tasks,
        country=country,
        options=options,
        budget=request.budget if aligner.budgeted else 0,
    )
    require_context(config.model, working.soft_tokens)
    working.check(objective_of(config), budget_of(config))
    return config


def _fitted_scoring(request: RunRequest, aligner: type[Aligner], specs: list[TaskSpec]) -> Scoring:
    """Return the answer scoring to fit; it is ``verbalized`` for tasks that are answered by shares in text.

    Raises:
        UsageError: a task has no such answers, or the aligner needs option probabilities.
    """
    if not aligner.budgeted:
        return request.scoring
    by_shares = request.scoring == "expected" and specs[0].verbalized
    scoring: Scoring = "verbalized" if by_shares else request.scoring
    for spec in specs:
        has = scoring in spec.metadata.scorings or (scoring in ("expected", "argmax") and not spec.verbalized)
        if not has:
            example = f", such as vsm13_{scoring}" if scoring in IN_TEXT else ""
            raise UsageError(f"`fit` {spec.name}: no answers by `scoring` {scoring}. Fit a task with them{example}.")
    if scoring in IN_TEXT and aligner.needs_weights:
        raise UsageError(
            f"`scoring` {scoring}: {request.aligner} fits option probabilities, not answers in text. Use {_able()}."
        )
    return scoring


def _named_settings(config: str, name: str, aligner: type[Aligner]) -> dict[str, Any]:
    """Read the settings of a file, or of a configuration that the aligner ships under this name."""
    path = aligner.configs.get(config, Path(config))
    if not path.is_file():
        shipped = f"It ships {', '.join(aligner.configs)}." if aligner.configs else "It ships none."
        raise UsageError(f"`config` {config!r}: neither a file nor a configuration of {name}. {shipped}")
    return read_yaml(path)


def _measure_options(request: RunRequest) -> MeasureOptions:
    """Make the options of a measure from the edition, constants and norm of a request.

    Raises:
        UsageError: an invalid value.
    """
    given = {name: getattr(request, name) for name in ("edition", "constants", "norm")}
    try:
        return MeasureOptions(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        field, _, problem = first_problem(error).partition(": ")
        raise UsageError(f"`{field}`: {problem}.") from None


def _require_text(request: RunRequest, aligner: type[Aligner]) -> None:
    """Raise UsageError for an aligner or argument that needs the weights of a model, which an endpoint lacks."""
    if aligner.needs_weights:
        behind = f"needs a model's weights, and {request.model} is behind an endpoint"
        raise UsageError(f"`aligner` {request.aligner}: {behind}. Use {_able()}.")
    for name in ("dtype", "device", "revision", "threads", "chat"):
        if getattr(request, name) != RunRequest.model_fields[name].default:
            raise UsageError(f"`{name}`: decided by the server of {request.model}. Leave it out.")


def _require_one_server(request: RunRequest, settings: Mapping[str, Any]) -> None:
    """Raise UsageError for a second model at a local address of the run's own, which may answer as it to any name.

    llama.cpp's server does. Ollama's knows its models by name, and so do hosted APIs and routers.
    """
    if not request.endpoint or not is_local(request.endpoint.base_url):
        return
    for key, value in settings.items():
        kinds = {str(name).partition(":")[0] for name in (value, request.model)}
        if is_remote(value) and value != request.model and kinds != {"ollama"}:
            raise UsageError(
                f"`settings` {key}={value}: {request.model} is at this `base_url`, and a server here may answer as it. "
                f"Leave {key} out, name a model in memory, or use a server that tells models apart by name."
            )


def _carried(request: RunRequest, aligner: type[Aligner]) -> dict[str, str]:
    """Return the fields of a configuration for the given adapter: its folder and hash; none without an adapter.

    Raises:
        UsageError: a soft prompt, which an aligner of weights cannot be combined with.
    """
    if not request.adapter:
        return {}
    folder = Path(request.adapter)
    if aligner.needs_weights and is_soft_prompt(folder):
        reason = f"`adapter` {folder} is a soft prompt, before which nothing can be put"
        raise UsageError(f"`aligner` {request.aligner}: {reason}. Use {_able()}.")
    return {"adapter": str(folder), "adapter_sha256": carried_hash(folder)}


def _able() -> str:
    """List the aligners that work without weights."""
    aligners = listing("aligners", lambda name: (name, find_aligner(name).needs_weights))
    return ", ".join(name for name, needs_weights in aligners if not needs_weights)


def _fitted(texts: Iterable[str]) -> tuple[Texts, Texts]:
    """Split ``TASK[:COUNTRY]`` texts into tasks and countries, each once; countries only where one is named."""
    tasks, countries = zip(*(text.partition(":")[::2] for text in texts), strict=True)
    return tuple(dict.fromkeys(map(concrete, tasks))), tuple(dict.fromkeys(filter(None, countries)))
