"""Flags and terminals that commands share."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from ..model_info import THINKING_TOKENS
from ..providers.settings import Api
from ..report.progress import TerminalDisplay
from ..runs import load_model as loading
from ..runs.config import RunConfig

_API = Api.model_fields


_MEASURE_OPTIONS = (
    click.option("--edition", help="Edition of the reference scores [default: the task's own]."),
    click.option("--constants", help="Constants C of the indices: world or zero [default: world]."),
    click.option("--norm", help="Norm of the fitted loss: sse, l2 or l1 [default: sse]."),
)


_API_OPTIONS = (
    click.option("--base-url", help="Where an API is: http://HOST:PORT/v1 [default: OpenAI's]."),
    click.option("--key-env", help=f"Environment variable with its key [default: {_API['key_env'].default}]."),
    click.option("--concurrency", type=int, help=f"Requests at a time [default: {_API['concurrency'].default}]."),
    click.option("--timeout", type=float, help=f"Seconds a request may take [default: {_API['timeout'].default:g}]."),
    click.option("--retries", type=int, help=f"Tries after a failed one [default: {_API['retries'].default}]."),
    click.option("--price-in", type=float, help="Price of a million tokens read, to count costs."),
    click.option("--price-out", type=float, help="Price of a million tokens written."),
)


def api_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of a model behind an API."""
    for option in reversed(_API_OPTIONS):
        command = option(command)
    return command


_CHAT_OPTIONS = (
    click.option("--system", metavar="TEXT", help="System message before every prompt."),
    click.option(
        "--chat-template", metavar="FILE|none", help="Jinja template in place of the model's own, or none at all."
    ),
    click.option(
        "--template-args",
        multiple=True,
        metavar="KEY=VALUE",
        help="A variable of the chat template, such as enable_thinking=true; may be repeated.",
    ),
    click.option(
        "--thinking-tokens",
        type=click.IntRange(1, 100_000),
        help=f"Tokens that a model may think aloud before it answers in text [default: {THINKING_TOKENS}].",
    ),
)


def chat_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_CHAT_OPTIONS):
        command = option(command)
    return command


no_cache = click.option(
    "--no-cache", is_flag=True, envvar="CULTEVAL_NO_CACHE", help="Neither use nor keep answers of other runs."
)


def measure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_MEASURE_OPTIONS):
        command = option(command)
    return command


def terminal(as_json: bool, talk: str | None = None) -> TerminalDisplay:
    """Where a command tells what it is doing; nothing where JSON goes to no terminal, unless ``talk`` is verbose."""
    silent = talk == "quiet" or (talk is None and as_json and not os.isatty(2))
    return TerminalDisplay(Console(stderr=True, quiet=silent), verbose=talk == "verbose")


def load(config: RunConfig, display: TerminalDisplay) -> Any:
    """The model of a configuration; what libraries print goes nowhere, since a command's output may be JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        return loading.load(config, display.say)
