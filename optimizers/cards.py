"""Method cards of all aligners: ``python -m culteval.optimizers.cards > docs/method-cards.md`` writes their page."""

from __future__ import annotations

import inspect
from dataclasses import asdict

from ..harness.alignment.aligner import Aligner, find_aligner
from ..harness.registry import table

_HEAD = """# Method cards

What each aligner does, needs and costs, and when not to use it. [Aligners](aligners.md) says how to run them;
[results](results-aligners.md) compares them. Costs are in item forwards (one item answered by one candidate).
"""


def markdown() -> str:
    """Return the page of the aligners of this package, in the order of the registry."""
    return "\n".join([_HEAD, *(_section(name, aligner) for name, aligner in own_aligners().items())])


def own_aligners() -> dict[str, type[Aligner]]:
    """Return the aligners of this package by name, in the order of the registry."""
    return {name: find_aligner(name) for name, value in table("aligners").items() if value.startswith("culteval.")}


def described(name: str, aligner: type[Aligner]) -> tuple[str, dict[str, str]]:
    """Return what an aligner does, from its docstring, and the rows of its card.

    Raises:
        ValueError: it has no card.
    """
    if aligner.card is None:
        raise ValueError(f"{name}: no method card")
    works = "required" if aligner.needs_weights else "not required: works behind an API too"
    text = " ".join(inspect.cleandoc(aligner.__doc__ or "").split()).replace("``", "`")
    return text, {"weights": works} | asdict(aligner.card)


def _section(name: str, aligner: type[Aligner]) -> str:
    """Return the card of one aligner as Markdown."""
    text, rows = described(name, aligner)
    lines = [f"## {name}", "", text, "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {label} | {value} |" for label, value in rows.items()), ""])


if __name__ == "__main__":
    print(markdown(), end="")
