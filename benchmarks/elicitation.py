"""The study of ways of asking: which is nearest to a country's answers, beside the spread over paraphrases.

culteval sweep benchmarks/elicitation.yaml
culteval leaderboard add elicitation/*-* --to benchmarks/results/elicitation
python -m benchmarks.elicitation benchmarks/results/elicitation

All ways are scored on the held-out paraphrases in natural order, which ``verbalized`` tasks have, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from culteval.errors import InputError
from culteval.harness.models.embedded import EMBEDDED
from culteval.harness.report.plots import drawing
from culteval.harness.report.tables import escape, markdown_table
from culteval.harness.scoring.submission import Submission
from culteval.harness.submissions.manifest import UsedAligner
from culteval.tasks.metrics.common import uniform_answers
from culteval.tasks.score import Score
from culteval.tasks.spec import TaskSpec

from .common import Command
from .stored import submissions

CONSTANT, UNIFORM, WORLD = "constant", "uniform", "world mean"
NULLS = (CONSTANT, UNIFORM, WORLD)
SURVEYS = ("vsm13", "wvs", "iw_map")
SMALLEST = "smollm2"


@dataclass(frozen=True)
class Point:
    """One way of asking one model for one country's answers to a survey, or a baseline.

    ``value`` is the headline (lower is nearer), ``least`` and ``most`` its smallest and its largest value over
    paraphrases, ``unread`` the share of texts without an answer, ``collapsed`` whether the answers are in effect one.
    NaN where the answers that could be read give no value.
    """

    model: str
    survey: str
    way: str
    country: str
    value: float
    least: float
    most: float
    unread: float
    collapsed: bool

    @property
    def spread(self) -> float:
        """Return the range over paraphrases."""
        return self.most - self.least


def read(folder: Path) -> list[Point]:
    """Read every finished run or added submission of the sweep, and add baselines of each survey and country.

    Raises:
        InputError: a submission cannot be read.
    """
    points: dict[tuple[str, str, str, str], Point] = {}
    for submission in submissions(folder):
        for point in _points(submission):
            points.setdefault((point.model, point.survey, point.way, point.country), point)
    return list(points.values())


def _points(submission: Submission) -> Iterator[Point]:
    manifest, cache = submission.manifest, submission.cache
    for asked in manifest.tasks:
        spec = cache.spec(asked.name)
        measure, scoring = cache.measure(spec, asked.country, asked.options), spec.default_scoring
        way = way_of(manifest.aligner, spec.verbalized)
        held = next(row for row in submission.readings[asked.name] if row[:2] == ("heldout", scoring))[2]
        answers = held.take(held.layout.where(held.layout.asked_paraphrases, ("natural",)))
        given = {way: answers}
        if not spec.verbalized:
            given |= {CONSTANT: measure.constant(answers.layout), UNIFORM: uniform_answers(answers.layout)}
            given[WORLD] = measure.baselines(answers.layout)[WORLD]
        for name, each in given.items():
            layout = each.layout
            parts = [each.take(layout.where((one,), layout.asked_orders)) for one in layout.asked_paraphrases]
            scores = [measure.score(part, "heldout", scoring) for part in (each, *parts)]
            yield _point((manifest.model.name, _survey(spec), name), spec, *scores)


def way_of(aligner: UsedAligner, verbalized: bool = False) -> str:
    """Return the name of a way of asking.

    Raises:
        InputError: another aligner, which is no way of asking.
    """
    if aligner.name == "naive":
        return "none, shares stated" if verbalized else "none"
    if aligner.name != "icl":
        raise InputError(f"a run of {aligner.name}: the study is of naive and icl. Keep only those.")
    return str(aligner.settings.get("elicitation", "persona"))


def _survey(spec: TaskSpec) -> str:
    return spec.folder.name


def _point(key: tuple[str, str, str], spec: TaskSpec, scores: Sequence[Score], *parts: Sequence[Score]) -> Point:
    """Take the headline and the share of unread texts from the scores of one reading, and of its paraphrases."""
    headline = spec.metadata.headline.metric
    values = {score.metric: score.value for score in scores}
    each = [next((row.value for row in part if row.metric == headline), float("nan")) for part in parts]
    ends = (float(np.min(each)), float(np.max(each))) if len(each) > 1 else (float("nan"), float("nan"))
    value = values.get(headline, float("nan"))
    return Point(*key, scores[0].country, value, *ends, values.get("unparsed", 0.0), values.get("collapsed", 0.0) == 1)


def table(points: Sequence[Point]) -> str:
    """Build a Markdown table: a row for each model, survey and way, a column for each country, the nearest first.

    Means are over the countries in which every way of this survey and model has a value.
    """
    countries = list(dict.fromkeys(point.country for point in points))
    rows = []
    for (model, survey), ways in sorted(_grouped(points).items()):
        shared = _shared(ways)
        for way, found in sorted(ways.items(), key=lambda pair: _mean(pair[1], shared, "value")):
            cells = [_cell(found.get(code), survey) for code in countries]
            means = [_number(_mean(found, shared, name), survey) for name in ("value", "spread")]
            unread = float(np.mean([point.unread for point in found.values()]))
            rows.append([model, survey, way, *cells, *means, f"{unread:.0%}" if unread else ""])
    return markdown_table(["model", "survey", "way", *countries, "mean", "spread", "unread"], rows, words=range(3))


def means(points: Sequence[Point]) -> str:
    """Build a short Markdown table: a row for each way, a column for each survey and model, means over countries.

    The nearest way of a column is bold. The last row is the spread over paraphrases, its mean over the ways that have
    one.
    """
    grouped = _grouped(points)
    order = sorted(grouped, key=lambda key: (SURVEYS.index(key[1]), key[0] != SMALLEST, key[0]))
    every = {way: [] for key in order for way in grouped[key]}
    names, last = [], []
    for model, survey in order:
        ways, shared = grouped[model, survey], _shared(grouped[model, survey])
        values = {way: _mean(ways.get(way, {}), shared, "value") for way in every}
        asked = {way: value for way, value in values.items() if way not in NULLS and np.isfinite(value)}
        nearest = min(asked.values(), default=np.inf)
        for way, value in values.items():
            text = _number(value, survey)
            every[way].append((value, f"**{text}**" if way in asked and value == nearest else text))
        names.append(escape(f"{survey} {model}"))
        spreads = [spread for way in asked if np.isfinite(spread := _mean(ways[way], shared, "spread"))]
        last.append(_number(float(np.mean(spreads)) if spreads else np.inf, survey))
    rows = sorted(every.items(), key=lambda row: (row[0] in NULLS, row[1][0][0]))
    lines = [[way.replace("_", " "), *(text for _, text in cells)] for way, cells in rows]
    return markdown_table(
        ["before the question", *names], [*lines, ["*spread over paraphrases, mean of all ways*", *last]], words=(0,)
    )


def verdicts(points: Sequence[Point]) -> Iterator[str]:
    """Yield a sentence for each model and survey: which way is nearest, and whether paraphrases vary less than that."""
    for (model, survey), ways in sorted(_grouped(points).items()):
        shared = _shared(ways)
        asked = {w: found for w, found in ways.items() if w not in NULLS and np.isfinite(_mean(found, shared, "value"))}
        if len(asked) < 2:
            continue
        first, *others = sorted(asked, key=lambda way: _mean(asked[way], shared, "value"))
        best, next_best = (_mean(asked[way], shared, "value") for way in (first, others[0]))
        spread = max(_mean(asked[way], shared, "spread") for way in (first, others[0]))
        null = min(_mean(ways[way], shared, "value") for way in NULLS if way in ways)
        nearest = sum(first == min(asked, key=lambda way: asked[way][code].value) for code in shared)
        collapsed = sum(asked[first][code].collapsed for code in shared)
        flat = f", collapsed in {collapsed}" if collapsed else ""
        yield (
            f"{model}, {survey}: {first} is nearest ({_number(best, survey)}, in {nearest} of {len(shared)} "
            f"countries{flat}); {others[0]} is {_number(next_best - best, survey)} farther"
            f"{_beside(next_best - best, spread, survey)}. The best baseline has {_number(null, survey)}."
        )


DRAWN = {
    "none": "unaligned",
    "persona": "persona",
    "third_person": "third person",
    "demonstrations": "answered examples",
}
UNITS = {"vsm13": "loss (squared index points)", "wvs": "Wasserstein-1", "iw_map": "map units"}


def draw_sizes(points: Sequence[Point], path: Path) -> None:
    """Draw the distance to the country's answers against the size of the model: a panel for each survey.

    Lines are ways of asking, means over countries, with bars from the nearest to the farthest paraphrase; the dotted
    and the dashed line are the world's mean and equal shares, which need no model.
    """
    grouped = _grouped(points)
    with drawing(path, 9, 3.4, (1, len(SURVEYS))) as panels:
        for axes, survey in zip(panels, SURVEYS, strict=True):
            models = sorted({model for model, name in grouped if name == survey}, key=_parameters)
            for place, (way, name) in enumerate(DRAWN.items()):
                found = {model: grouped[model, survey] for model in models}
                value, least, most = (
                    np.array([_mean(ways[way], _shared(ways), what) for ways in found.values()])
                    for what in ("value", "least", "most")
                )
                at = [_parameters(model) * (0.94 + 0.04 * place) for model in models]  # beside each other
                bars = np.maximum([value - least, most - value], 0)  # of pooled answers, which may be nearer than any
                axes.errorbar(at, value, bars, label=name, color=f"C{place}", marker="o", ms=4, lw=1.2, elinewidth=0.8)
            for null, style in ((WORLD, ":"), (UNIFORM, "--")):
                ways = grouped[models[-1], survey]
                axes.axhline(_mean(ways[null], _shared(ways), "value"), color="#666666", ls=style, lw=1, label=null)
            axes.set_xscale("log")
            axes.set_xticks([_parameters(model) for model in models], [_short(model) for model in models])
            axes.set_xticks([], minor=True)
            axes.set_ylim(bottom=0)
            axes.set_title(survey, loc="left", fontsize=10)
            axes.set_ylabel(UNITS[survey], fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=8
        )


def _parameters(model: str) -> int:
    return EMBEDDED[model].parameters


def _short(model: str) -> str:
    """Return the size in a model's name, such as 0.5B."""
    return EMBEDDED[model].name.split("-")[-2]


def _beside(gap: float, spread: float, survey: str) -> str:
    """Compare a gap with the larger spread of its two ways, if they have one."""
    if not np.isfinite(spread):
        return ""
    more = "more" if gap > spread else "less"
    return f", {more} than the larger of their spreads over paraphrases ({_number(spread, survey)})"


Ways = Mapping[str, Mapping[str, Point]]


def _grouped(points: Sequence[Point]) -> Mapping[tuple[str, str], Ways]:
    groups: dict[tuple[str, str], dict[str, dict[str, Point]]] = defaultdict(lambda: defaultdict(dict))
    for point in points:
        groups[point.model, point.survey][point.way][point.country] = point
    return groups


def _shared(ways: Ways) -> list[str]:
    """Return the countries in which every way that has any value has one."""
    valued = [{code for code, p in found.items() if np.isfinite(p.value)} for found in ways.values()]
    return sorted(set.intersection(*filter(None, valued))) if any(valued) else []


def _mean(found: Mapping[str, Point], shared: Sequence[str], name: str) -> float:
    """Compute the mean over the shared countries; infinite (sorted last) for a way without values."""
    values = [getattr(found[code], name) for code in shared if code in found]
    whole = bool(values) and len(values) == len(shared) and bool(np.isfinite(values).all())
    return float(np.mean(values)) if whole else float("inf")


def _cell(point: Point | None, survey: str) -> str:
    if point is None:
        return ""
    return _number(point.value, survey) + ("\\*" if point.collapsed and point.way not in NULLS else "")


def _number(value: float, survey: str) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if survey == "vsm13" else f"{value:.3f}"


@click.command(cls=Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Distance by size, .svg.")
def main(folder: Path, picture: Path | None) -> None:
    """Print the table and which way is nearest; \\* marks answers that are in effect one."""
    points = read(folder)
    if picture:
        draw_sizes(points, picture)
    click.echo(table(points))
    for line in verdicts(points):
        click.echo(f"- {line}")


if __name__ == "__main__":
    main()
