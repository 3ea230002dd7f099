"""What models know of countries by name: their answers for every country beside its published point on the map.

culteval sweep benchmarks/countries.yaml
python -m benchmarks.countries countries

A correlation over countries asks for the direction only: it is the same however little a name moves the answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from culteval.errors import InputError
from culteval.harness.analysis.significance import holm
from culteval.harness.report.tables import markdown_table
from culteval.tasks.metrics.map_projection import AXES
from scipy.stats import pearsonr

from .common import Command
from .elicitation import way_of
from .stored import submissions

TASK = "iw_map"
Places = dict[str, tuple[np.ndarray, np.ndarray]]
"""By country, the point of the model's answers and the published one, (2,) each."""


def read(folder: Path) -> dict[tuple[str, str], Places]:
    """Read the points of all submissions to ``iw_map`` by model and way of asking; held-out expected answers.

    Raises:
        InputError: a submission cannot be read; several runs of one model and way for one country.
    """
    places = defaultdict[tuple[str, str], Places](dict)
    for submission in submissions(folder):
        manifest = submission.manifest
        values = {
            score.metric: score.value
            for score in submission.score(task=TASK)
            if (score.split, score.scoring) == ("heldout", "expected")
        }
        point = np.array([values[axis] for axis in AXES])
        published = point - [values[f"{axis}_error"] for axis in AXES]
        own = places[manifest.model.name, way_of(manifest.aligner)]
        if manifest.country in own:
            raise InputError(f"two runs of {manifest.model.name} for {manifest.country} by one way. Keep one.")
        own[manifest.country] = point, published
    return dict(places)


def rows(places: dict[tuple[str, str], Places]) -> Iterator[list[str]]:
    """Yield for each model, way and axis: countries, spread of both, correlation, its p and that after Holm."""
    found, tests = [], []
    for (model, way), points in sorted(places.items()):
        theirs, published = (np.array([pair[side] for pair in points.values()]) for side in (0, 1))
        for axis, name in enumerate(AXES):
            spreads = (f"{table[:, axis].std():.3f}" for table in (theirs, published))
            tests.append(pearsonr(theirs[:, axis], published[:, axis]))
            found.append([model, way, name, str(len(points)), *spreads])
    adjusted = holm([float(test.pvalue) for test in tests])
    for cells, test, p in zip(found, tests, adjusted, strict=True):
        yield [*cells, f"{test.statistic:+.2f}", f"{test.pvalue:.2g}", f"{p:.2g}"]


@click.command(cls=Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print how answers for countries and the countries' points correlate."""
    head = ["model", "way", "axis", "countries", "spread of answers", "spread of countries", "r", "p", "p after Holm"]
    click.echo(markdown_table(head, list(rows(read(folder))), words=range(3)))


if __name__ == "__main__":
    main()
