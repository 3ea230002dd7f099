"""The study of travel: does what was fitted on one instrument reach others, and the right country more than wrong ones?

culteval sweep benchmarks/travel.yaml
culteval leaderboard add travel/*-* --to benchmarks/results/travel
python -m benchmarks.travel benchmarks/results/travel
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from culteval.errors import InputError
from culteval.harness.analysis.identification import LEAST_COUNTRIES, MEASURES, distances, heldout, identification
from culteval.harness.report.tables import markdown_table
from culteval.harness.scoring.baselines import CONTROL
from culteval.harness.scoring.submission import Submission
from culteval.tasks.answers import Answers

from .common import Command
from .stored import submissions, value

BARE, WORLD = "naive", "world mean"
SHARED = {"iw_map": ("E018", "A029", "A039", "A040", "A042")}  # what wvs asks, too, in other words
UNSHARED = "{}, only questions that wvs does not ask"
COLUMNS = (
    *("aligner", "fitted to", "answers", "own country", "bare, own", "wrong countries", "bare, wrong"),
    *("nearer than bare", "than random prefixes", "mean rank", "p", "world mean"),
)


@dataclass(frozen=True)
class Answered:
    """One submission's held-out distances to every country, by task; ``country`` is the one it was fitted to.

    ``world`` is by task the distance of the other countries' mean answers from that country.
    """

    aligner: str
    fitted: str
    country: str
    distances: Mapping[str, Mapping[str, float]]
    world: Mapping[str, float]


def read(folder: Path) -> list[Answered]:
    """Read every finished run or added submission of the study.

    The map is scored a second time with the bare model's answers to the questions that ``wvs`` asks, too: what is
    gained then is gained on questions that were not fitted.

    Raises:
        InputError: a submission cannot be read, or no run of the bare model.
    """
    found = list(submissions(folder))
    bare = next((each for each in found if each.manifest.aligner.name == BARE), None)
    if bare is None:
        raise InputError(f"{folder}: no run of {BARE}. Run the sweep of the study to the end.")
    return [_answered(each, bare.answers) for each in found]


def _answered(submission: Submission, bare: Mapping[str, Answers]) -> Answered:
    manifest, cache, found, world = submission.manifest, submission.cache, {}, {}
    for task in manifest.tasks:
        spec = cache.spec(task.name)
        if spec.metadata.measure in MEASURES:
            answers = submission.answers[task.name]
            found[task.name] = distances(spec, answers, "expected", task.options, manifest.country)
            measure, held_out = cache.measure(spec, manifest.country, task.options), heldout(spec, answers)
            others = measure.score(measure.baselines(held_out.layout)[WORLD], "heldout", "expected")
            world[task.name] = value(others, spec.metadata.headline.metric, "expected", "heldout")
            if shared := SHARED.get(task.name):
                mixed = _with(answers, bare[task.name], shared)
                name = UNSHARED.format(task.name)
                found[name] = distances(spec, mixed, "expected", task.options, manifest.country)
    fitted = manifest.fitted
    learned = fitted is not None and manifest.aligner.name not in (BARE, CONTROL)
    return Answered(manifest.aligner.name, " + ".join(fitted.tasks) if learned else "", manifest.country, found, world)


def _with(answers: Answers, others: Answers, items: Sequence[str]) -> Answers:
    """Return answers with those of others to some items."""
    rows = np.isin(np.array(answers.layout.items)[answers.layout.item], items)
    probs = np.where(rows[:, None], others.probs, answers.probs)
    return replace(answers, probs=probs, off_options=np.where(rows, others.off_options, answers.off_options))


def rows(answered: Sequence[Answered]) -> Iterator[list[str]]:
    """Yield a row for each aligner and fit, and each task that it answered: means over its countries.

    Distances are those to the country fitted to, and the mean of those to the other countries of the set; beside both,
    those of the bare model. Then in how many countries it is nearer than the bare model, and than random prefixes by
    two standard deviations; whether the countries are identified; and the distance of other countries' mean answers.
    """
    bare = next(each for each in answered if each.aligner == BARE)
    controls = [each for each in answered if each.aligner == CONTROL]
    sets: dict[tuple[str, str], dict[str, Answered]] = defaultdict(dict)
    for each in answered:
        if each.fitted:
            sets[each.aligner, each.fitted][each.country] = each
    for (aligner, fitted), by_country in sets.items():
        for task in bare.distances:
            known = sorted(code for code in by_country if code in bare.distances[task])
            table = {code: by_country[code].distances[task] for code in known}
            world = _number([by_country[code].world[task] for code in known if task in by_country[code].world], task)
            yield [aligner, fitted, task, *_summary(table, bare.distances[task], controls, task), world]


def _summary(
    table: Mapping[str, Mapping[str, float]], bare: Mapping[str, float], controls: Sequence[Answered], task: str
) -> list[str]:
    codes, own, bare_own = list(table), [table[code][code] for code in table], [bare[code] for code in table]
    wrong = [table[code][other] for code in codes for other in codes if other != code]
    bare_wrong = [bare[other] for code in codes for other in codes if other != code]
    means = [_number(values, task) for values in (own, bare_own, wrong, bare_wrong)]
    nearer = sum(mine < theirs for mine, theirs in zip(own, bare_own, strict=True))
    beyond = "-"
    if len(controls) > 1:
        drawn = {code: [each.distances[task][code] for each in controls] for code in codes}
        limits = [np.mean(drawn[code]) - 2 * np.std(drawn[code], ddof=1) for code in codes]
        beyond = f"{sum(mine < limit for mine, limit in zip(own, limits, strict=True))}/{len(codes)}"
    found = identification(table, np.random.default_rng(0)) if len(codes) >= LEAST_COUNTRIES else None
    tested = ["-", "-"] if found is None else [f"{found.mean_rank:.2f}", f"{found.p:.4f}"]
    return [*means, f"{nearer}/{len(codes)}", beyond, *tested]


def _number(values: Sequence[float], task: str) -> str:
    return f"{np.mean(values):,.{0 if task == 'vsm13' else 3}f}" if len(values) else "-"


def table(answered: Sequence[Answered]) -> str:
    """Build the Markdown table of ``rows``."""
    return markdown_table(COLUMNS, list(rows(answered)), words=range(3))


@click.command(cls=Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print the table."""
    click.echo(table(read(folder)), nl=False)


if __name__ == "__main__":
    main()
