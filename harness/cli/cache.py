"""The command ``cache``: show the caches, clear the answers, drop a model."""

from __future__ import annotations

import json
from typing import Any

import click

from ..models.converted import cached_models, drop, models_dir
from ..runs.answer_cache import MOST_BYTES, AnswerCache, answers_folder


@click.group()
def cache() -> None:
    """Show or clear the caches: answers, which later runs reuse, and models."""


def _opened() -> AnswerCache:
    return AnswerCache(answers_folder(), lambda text: click.echo(text, err=True))


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def info(as_json: bool) -> None:
    """Show where the caches are and how much they hold."""
    answers, models = _opened(), cached_models()
    facts: dict[str, Any] = {
        "answers": str(answers.folder),
        "sets": len(answers.entries()),
        "bytes": answers.size(),
        "most_bytes": MOST_BYTES,
        "models": str(models_dir()),
        "model_bytes": {model.name: model.size for model in models},
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    size = f"{facts['bytes'] / 2**20:.1f} of {MOST_BYTES / 2**20:.0f} MiB"
    click.echo(f"answers    {answers.folder}: {facts['sets']} sets, {size}")
    click.echo(f"models     {models_dir()}: {sum(model.size for model in models) / 1e9:.2f} GB")
    for model in models:
        click.echo(f"           {model.name}: {model.size / 1e9:.2f} GB ({model.origin})")


@cache.command()
def clear() -> None:
    """Delete all cached answers; models are kept."""
    click.echo(f"{_opened().clear()} sets of answers deleted from {answers_folder()}")


@cache.command("drop")
@click.argument("model")
def drop_model(model: str) -> None:
    """Delete a model that `culteval cache info` shows; a run that needs it fetches or converts it again."""
    click.echo(f"{drop(model) / 1e9:.2f} GB freed in {models_dir()}")
