"""The study of a served model: does evolution find a better preamble than those it starts from?

culteval sweep benchmarks/served.yaml
python -m benchmarks.served served

Losses are of parsed answers in text. A run's folder has every text with its loss, in the order of evaluation; the first
ones are the persona sentence and shipped preambles, as ``best_of_n`` draws them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from culteval.harness.report.tables import markdown_table
from culteval.harness.scoring.submission import Submission
from culteval.optimizers.evo_prompt import FOLDER, TEXTS
from culteval.tasks.countries import name_of

from .common import Command
from .stored import UNALIGNED, records, require_unaligned, submissions, value

OURS = "evo_prompt"
COLUMNS = ("country", "texts", "shipped", "found", "ratio", "at text", "held out", "unaligned, held out")


@dataclass(frozen=True)
class Course:
    """One run: the losses of its texts, how many of them are shipped ones, and the held-out loss of the best."""

    country: str
    losses: tuple[float, ...]
    shipped: int
    heldout: float

    @property
    def start(self) -> float:
        """Return the loss of the best shipped text."""
        return min(self.losses[: self.shipped])

    @property
    def best(self) -> float:
        """Return the lowest loss."""
        return min(self.losses)


def read(folder: Path) -> tuple[list[Course], dict[str, float]]:
    """Read the runs of a sweep, and the held-out losses of the unaligned model by country.

    Raises:
        InputError: a run cannot be read, or a country has no run of the unaligned model.
    """
    courses, bare = [], {}
    for one in submissions(folder):
        heldout = value(one.score(), "loss", "text", "heldout")
        if one.manifest.aligner.name == UNALIGNED:
            bare[one.manifest.country] = heldout
        elif one.manifest.aligner.name == OURS:
            courses.append(_course(one, heldout))
    require_unaligned((each.country for each in courses), bare)
    return courses, bare


def _course(submission: Submission, heldout: float) -> Course:
    texts = records(submission.folder.parent / FOLDER / TEXTS, "the texts")
    losses = tuple(float(text["loss"]) for text in texts)
    manifest = submission.manifest
    return Course(manifest.country, losses, int(manifest.aligner.settings["population"]), heldout)


def rows(courses: Sequence[Course], bare: dict[str, float]) -> Iterator[list[str]]:
    """Yield a row of text for each run, with the columns ``COLUMNS``."""
    for one in courses:
        at = one.losses.index(one.best) + 1
        numbers = [f"{loss:,.0f}" for loss in (one.start, one.best)]
        held = [f"{loss:,.0f}" for loss in (one.heldout, bare[one.country])]
        yield [name_of(one.country), str(len(one.losses)), *numbers, f"{one.best / one.start:.2f}", str(at), *held]


@click.command(cls=Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print the table."""
    click.echo(markdown_table(COLUMNS, list(rows(*read(folder))), words=range(1)), nl=False)


if __name__ == "__main__":
    main()
