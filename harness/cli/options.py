"""Flags and terminals that commands share, and the translation from arguments of the library to flags."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from rich.console import Console

from ...errors import UsageError
from ...tasks.chat_options import MOST_TEMPLATE, ChatOptions
from ...tasks.reading import read_text
from ...tasks.spec import first_problem, read_yaml
from ..models.base import Model
from ..providers.settings import EndpointSettings
from ..report.progress import TerminalDisplay
from ..runs import load_model
from ..runs.config import RunConfig, read_assignments
from ..runs.plan import RunRequest
from ..util.command_help import option

Command = Callable[..., Any]
_OTHERWISE = {"tasks": "--task", "settings": "--set"}  # arguments of the library that have another name as flags
_OF_COMMANDS = ("fresh", "out", "folds", "task", "scoring", "workers", "address", "executor", "personas")
_ARGUMENTS = (*RunRequest.model_fields, *EndpointSettings.model_fields, *_OF_COMMANDS)
_FLAGS = {name: f"--{name.replace('_', '-')}" for name in _ARGUMENTS} | _OTHERWISE
_ARGUMENT = re.compile(r"`([a-z][a-z_]*)`")


def flagged(text: str) -> str:
    """Replace the `arguments` in a message of the library by the flags of the command line."""
    return _ARGUMENT.sub(lambda found: _FLAGS.get(found[1], found[0]), text)


def _together(*options: Command) -> Command:
    def decorate(command: Command) -> Command:
        for each in reversed(options):
            command = each(command)
        return command

    return decorate


measure_options = _together(
    click.option("--edition", help="Edition of the reference scores [default: the task's own]."),
    click.option("--constants", help="Constants C of the indices: world or zero [default: world]."),
    click.option("--norm", help="Norm of the fitted loss: sse, l2 or l1 [default: sse]."),
)
endpoint_options = _together(
    option("--base-url", metavar="URL", group="Endpoint", help="Server: http://HOST:PORT/v1 [default: OpenAI]."),
    option(
        "--endpoint",
        multiple=True,
        group="Endpoint",
        metavar="KEY=VALUE|FILE",
        help="key_env, concurrency, retries, price_in ...",
    ),
)
no_cache = option(
    "--no-cache",
    is_flag=True,
    envvar="CULTEVAL_NO_CACHE",
    group="Output",
    help="Neither use nor keep answers of other runs.",
)
as_json = option("--json", "as_json", is_flag=True, group="Output", help="Print one JSON object and nothing else.")


def endpoint_of(base_url: str | None, texts: Iterable[str]) -> EndpointSettings | None:
    """Make the settings of an endpoint of ``--base-url`` and ``--endpoint``; None where neither is given.

    Raises:
        UsageError: an invalid value or an unknown key. InputError: a malformed file.
    """
    given: dict[str, Any] = {}
    for text in texts:
        given |= read_assignments("--endpoint", [text]) if "=" in text else read_yaml(Path(text))
    if base_url is not None:
        given["base_url"] = base_url
    try:
        return EndpointSettings.model_validate(given) if given else None
    except ValidationError as error:
        raise UsageError(f"--endpoint {first_problem(error)}.") from None


def chat_of(texts: Iterable[str]) -> ChatOptions | None:
    """Make the chat options of ``--chat``; keys that are no fields are variables of the template.

    Raises:
        UsageError: an invalid value. InputError: a template that cannot be read.
    """
    pairs = [(text, *text.partition("=")) for text in texts]
    if not pairs:
        return None
    literal = {key: value for _, key, sign, value in pairs if sign and key in ("system", "template")}  # not YAML
    given = read_assignments("--chat", [text for text, key, _, _ in pairs if key not in literal])
    named = literal | {key: given.pop(key) for key in ("thinking_tokens",) if key in given}
    if file := literal.get("template"):
        named["template"] = "" if file == "none" else read_text(Path(file), MOST_TEMPLATE)
    try:
        return ChatOptions.model_validate(named | {"arguments": given})
    except ValidationError as error:
        raise UsageError(f"--chat {first_problem(error).removeprefix('arguments.')}.") from None


def terminal(as_json: bool, talk: str | None = None) -> TerminalDisplay:
    """Make the display of a command; with JSON and no terminal it is silent, unless ``talk`` is verbose."""
    silent = talk == "quiet" or (talk is None and as_json and not os.isatty(2))
    return TerminalDisplay(Console(stderr=True, quiet=silent), verbose=talk == "verbose")


def load(config: RunConfig, say: Callable[[str], None]) -> Model:
    """Load the model of a configuration, without output of libraries, since a command's output may be JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        return load_model.load(config, say)
