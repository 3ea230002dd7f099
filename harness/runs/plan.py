"""From what was asked for to a checked run configuration: everything that needs no model is checked here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from ...errors import UsageError
from ...tasks.countries import country as resolve
from ...tasks.measure import MeasureOptions, countries_of, measure_of
from ...tasks.prompts import Asking
from ...tasks.prompts import asked as count
from ...tasks.reading import read_text
from ...tasks.spec import first_problem
from ..adapters.peft_files import carried_hash, is_soft_prompt
from ..model_info import DEFAULT_CHAT, MOST_TEMPLATE, ChatOptions
from ..providers.settings import api_of, is_remote
from ..registry import concrete, family, find, listing, spec_of, table
from ..submissions.manifest import MOST_ANSWERS
from .checks import require_context
from .config import RunConfig, aligner_settings, budget_of, goal_of, read_assignments

SHORT = ("preset", "dialogues")  # settings with a flag of their own
DTYPE_NAMES = ("auto", "float32", "bfloat16", "float16")


def plan(flags: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration that the flags of ``culteval run`` ask for, by the names of its parameters.

    Args:
        settings: of the aligner, where they do not come from the flags ``config`` and ``assignments``.

    Raises:
        UsageError, InputError: whatever can be known to be wrong before a model is loaded.
    """
    tasks = tuple(dict.fromkeys(_in_language(_named(name), flags["language"]) for name in flags["tasks"]))
    specs = [spec_of(name) for name in tasks]
    fit, fit_countries = _fitted(flags["fit"] or tasks[:1])
    fit_specs = [spec_of(name) for name in fit]
    options = MeasureOptions(**{k: flags[k] for k in ("edition", "constants", "norm") if flags[k] is not None})
    known = countries_of(fit_specs[0], options.edition)
    usual = next(iter(fit_countries), specs[0].metadata.default_country)
    country = resolve(usual if flags["country"] is None else flags["country"], known).code
    fit_codes = tuple(dict.fromkeys(resolve(name, known).code for name in fit_countries)) or (country,)
    if len(fit_codes) > 1:
        raise UsageError(f"--fit: {' and '.join(fit_codes)}; tasks fitted together have one country.")
    if flags["dtype"] not in DTYPE_NAMES:
        raise UsageError(f"--dtype {flags['dtype']!r}: not one of {', '.join(DTYPE_NAMES)}.")
    if flags["readout"] not in ("expected", "argmax"):
        raise UsageError(f"--readout {flags['readout']!r}: a fit optimises expected or argmax.")
    for spec in fit_specs:
        measure_of(spec, fit_codes[0], options)
    for spec in specs:
        measure_of(spec, country, options)
    asking = Asking(flags["respondents"], flags["seed"], flags["limit"], flags["calibrate"])
    asked = sum(count(spec, asking) for spec in specs)
    if asked > MOST_ANSWERS:
        raise UsageError(f"--respondents: {asked} answers; a submission holds {MOST_ANSWERS} at most.")
    base = _settings_file(flags["config"], flags["aligner"]) if flags["config"] else settings
    base = dict(base or {}) | {name: flags[name] for name in SHORT if flags.get(name) is not None}
    chosen = aligner_settings(flags["aligner"], flags["assignments"], base)
    aligner = find("aligners", flags["aligner"])
    copied = ["aligner", "model", "revision", "dtype", "device", "threads", "readout", "respondents", "seed"]
    copied += ["limit", "calibrate"]
    if is_remote(flags["model"]):
        _require_text(flags, aligner)
    config = RunConfig(
        **{name: flags[name] for name in copied},
        **_carried(flags, aligner),
        chat=_chat(flags),
        api=api_of(flags, (flags["model"], *chosen.model_dump().values())),
        settings=chosen.model_dump(mode="json"),
        fit=fit,
        fit_country=fit_codes[0],
        tasks=tasks,
        country=country,
        options=options,
        budget=flags["budget"] if aligner.budgeted else 0,
    )
    require_context(config.model, chosen)
    if check := getattr(aligner, "check", None):
        check(aligner(chosen), goal_of(config), budget_of(config))
    return config


def _require_text(flags: Mapping[str, Any], aligner: Any) -> None:
    """Raise UsageError for what a model behind an API cannot have: aligners that need its weights, a place, a type."""
    if not _in_words(aligner):
        behind = f"needs a model's weights, and {flags['model']} is behind an API"
        raise UsageError(f"--aligner {flags['aligner']}: {behind}. Use {_able()}.")
    usual: dict[str, Any] = {"dtype": "auto", "device": "cpu", "revision": None, "threads": None, "system": None}
    usual |= {"chat_template": None, "template_args": (), "thinking_tokens": None}
    for name, value in usual.items():
        if flags[name] != value:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} {flags[name]}: decided by whoever runs {flags['model']}. Leave it out.")


def _chat(flags: Mapping[str, Any]) -> ChatOptions | None:
    """What is to be said around every prompt; None for the usual.

    Raises:
        UsageError: a file that is not there, or a value that does not fit.
    """
    given: dict[str, Any] = {"arguments": read_assignments("--template-args", flags["template_args"])}
    given |= {name: flags[name] for name in ("system", "thinking_tokens") if flags[name] is not None}
    if file := flags["chat_template"]:
        given["template"] = "" if file == "none" else read_text(Path(file), MOST_TEMPLATE)
    try:
        options = ChatOptions.model_validate(given)
    except ValidationError as error:
        raise UsageError(f"--system, --chat-template, --template-args: {first_problem(error)}.") from None
    return None if options == DEFAULT_CHAT else options


def _carried(flags: Mapping[str, Any], aligner: Any) -> dict[str, str]:
    """The adapter that the model carries, and its hash; nothing where it carries none.

    Raises:
        UsageError: the aligner would put a soft prompt before one that is carried.
    """
    if not flags.get("adapter"):
        return {}
    folder = Path(flags["adapter"])
    if not _in_words(aligner) and is_soft_prompt(folder):
        told = f"--adapter {folder} is a soft prompt, before which nothing can be put"
        raise UsageError(f"--aligner {flags['aligner']}: {told}. Use {_able()}.")
    return {"adapter": str(folder), "adapter_sha256": carried_hash(folder)}


def _in_words(aligner: Any) -> bool:
    return not getattr(aligner, "needs_weights", True)


def _able() -> str:
    found = listing("aligners", lambda name: (name, _in_words(find("aligners", name))))
    return ", ".join(name for name, may in found if may)


def _fitted(names: str | Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tasks and countries of ``TASK[:COUNTRY]`` texts, each once; no country where none is named."""
    pairs = [text.partition(":")[::2] for text in ([names] if isinstance(names, str) else names)]
    tasks, countries = zip(*pairs, strict=True)
    return tuple(dict.fromkeys(map(_named, tasks))), tuple(dict.fromkeys(filter(None, countries)))


def _named(name: str) -> str:
    """The task that a name stands for; where it is a family's, which one that is, is said once."""
    task = concrete(name)
    if len(family(name)) > 1:
        _say(f"{name}: {task}, {'ours' if task == family(name)[-1] else 'your import'}.")
    return task


@cache
def _say(text: str) -> None:
    click.echo(text, err=True)


def _in_language(task: str, language: str | None) -> str:
    """The sibling of a task in a language, which is named after it."""
    if language in (None, "en"):
        return task
    known = sorted(name.removeprefix(f"{task}_") for name in table("tasks") if name.startswith(f"{task}_"))
    known = [name for name in known if len(name) == 2]
    if language not in known:
        there = f"it is there in {', '.join(['en', *known])}" if known else "it is there in English only"
        raise UsageError(f"--language {language!r}: {task} has no such wording; {there}.")
    return f"{task}_{language}"


def _settings_file(name: str, aligner: str) -> dict[str, Any]:
    from ...tasks.spec import read_yaml

    shipped = Path(__file__).parents[2] / "optimizers" / "configs" / f"{name}.yaml"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        raise UsageError(f"--config {name!r}: neither a file nor a shipped configuration for {aligner}.")
    return read_yaml(path)
