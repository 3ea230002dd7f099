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
from culteval.harness.analysis.significance import holm
from culteval.harness.report.tables import markdown_table
from culteval.harness.scoring.baselines import CONTROL
from culteval.harness.scoring.submission import Submission
from culteval.tasks.answers import Answers

from .common import Command
from .stored import submissions, value

BARE, WORLD, GENERAL = "naive", "world mean", "general"
SHARED = {"iw_map": ("E018", "A029", "A039", "A040", "A042")}  # what wvs asks, too, in other words
UNSHARED = "{}, questions that wvs does not ask"
ARGMAX, READ = "{}, most probable answers", ("vsm13",)  # tasks of which fits to these answers show them, too
COLUMNS = (
    *("aligner", "fitted to", "answers", "own country", "unaligned, own", "wrong countries", "unaligned, wrong"),
    *("nearer than unaligned", "than random prefixes", "mean rank", "p", "p after Holm", "world mean"),
)


@dataclass(frozen=True)
class Answered:
    """One submission's held-out distances to every country, by task; ``country`` is the one it was fitted to.

    ``world`` is by task the distance of the baseline ``world mean`` from that country; ``general`` the accuracy of the
    most probable answers to ``general``.
    """

    aligner: str
    fitted: str
    country: str
    distances: Mapping[str, Mapping[str, float]]
    world: Mapping[str, float]
    general: float = float("nan")


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
            others = measure.baselines(held_out.layout)[WORLD]
            world[task.name] = distances(spec, others, "expected", task.options, manifest.country)[manifest.country]
            if shared := SHARED.get(task.name):
                if task.name not in bare or len(bare[task.name].layout) != len(answers.layout):
                    raise InputError(f"the first run of {BARE} has no such answers to {task.name}. Run its sweep anew.")
                mixed = _with(answers, bare[task.name], shared)
                name = UNSHARED.format(task.name)
                found[name] = distances(spec, mixed, "expected", task.options, manifest.country)
            if task.name in READ:
                name = ARGMAX.format(task.name)
                found[name] = distances(spec, answers, "argmax", task.options, manifest.country)
    fitted = manifest.fitted
    learned = fitted is not None and manifest.aligner.name not in (BARE, CONTROL)
    tasks = " + ".join(fitted.tasks) if fitted and learned else ""
    if fitted and learned and fitted.scoring != "expected":
        tasks += f", {fitted.scoring}"
    general = float("nan")
    if any(task.name == GENERAL for task in manifest.tasks):
        general = value(submission.score(task=GENERAL), "accuracy", "argmax", "heldout")
    return Answered(manifest.aligner.name, tasks, manifest.country, found, world, general)


def _with(answers: Answers, others: Answers, items: Sequence[str]) -> Answers:
    """Return answers with those of others to some items."""
    rows = np.isin(np.array(answers.layout.items)[answers.layout.item], items)
    probs = np.where(rows[:, None], others.probs, answers.probs)
    return replace(answers, probs=probs, off_options=np.where(rows, others.off_options, answers.off_options))


@dataclass(frozen=True)
class Summary:
    """One aligner and fit on one task: mean distances over its countries.

    ``own`` to the country fitted to, ``wrong`` to the other countries of the set, each beside that of the bare model;
    ``world`` of the baseline ``world mean``. ``nearer`` and ``beyond``: in how many countries it is nearer than
    the bare model, and than random prefixes (``prefix``) by two standard deviations. NaN or None: not known.
    """

    aligner: str
    fitted: str
    task: str
    countries: tuple[str, ...]
    own: float
    bare_own: float
    wrong: float
    bare_wrong: float
    nearer: int
    beyond: int | None
    prefix: float
    mean_rank: float | None
    p: float | None
    world: float


def summaries(answered: Sequence[Answered]) -> Iterator[Summary]:
    """Yield a summary for each aligner and fit, and each task that it answered.

    Raises:
        InputError: several runs of one aligner and fit for one country.
    """
    bare = next(each for each in answered if each.aligner == BARE)
    controls = [each for each in answered if each.aligner == CONTROL]
    sets: dict[tuple[str, str], dict[str, Answered]] = defaultdict(dict)
    for each in answered:
        if each.fitted:
            if each.country in (own := sets[each.aligner, each.fitted]):
                raise InputError(f"two runs of {each.aligner} fitted to {each.fitted} for {each.country}. Keep one.")
            own[each.country] = each
    for (aligner, fitted), by_country in sets.items():
        for task in bare.distances:
            if task in map(ARGMAX.format, READ) and not fitted.endswith("argmax"):
                continue
            known = sorted(code for code in by_country if code in bare.distances[task])
            table = {code: by_country[code].distances[task] for code in known}
            world = [by_country[code].world[task] for code in known if task in by_country[code].world]
            yield _summary((aligner, fitted, task), table, bare.distances[task], controls, _mean(world))


def _summary(
    who: tuple[str, str, str],
    table: Mapping[str, Mapping[str, float]],
    bare: Mapping[str, float],
    controls: Sequence[Answered],
    world: float,
) -> Summary:
    codes, task = list(table), who[2]
    pairs = [(code, other) for code in codes for other in codes if other != code]
    own = [table[code][code] for code in codes]
    beyond, drawn = None, np.array([[each.distances[task][code] for code in codes] for each in controls])
    if len(controls) > 1:
        beyond = int((own < drawn.mean(0) - 2 * drawn.std(0, ddof=1)).sum())
    found = identification(table, np.random.default_rng(0)) if len(codes) >= LEAST_COUNTRIES else None
    return Summary(
        *who,
        tuple(codes),
        _mean(own),
        _mean([bare[code] for code in codes]),
        _mean([table[code][other] for code, other in pairs]),
        _mean([bare[other] for _, other in pairs]),
        sum(table[code][code] < bare[code] for code in codes),
        beyond,
        _mean(drawn.ravel()),
        None if found is None else found.mean_rank,
        None if found is None else found.p,
        world,
    )


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def rows(answered: Sequence[Answered]) -> Iterator[list[str]]:
    """Yield a row of text for each summary, with the columns ``COLUMNS``; p is corrected for the number of rows."""
    found = list(summaries(answered))
    for one, adjusted in zip(found, holm([one.p for one in found]), strict=True):
        count = len(one.countries)
        means = [_number(value, one.task) for value in (one.own, one.bare_own, one.wrong, one.bare_wrong)]
        beyond = "-" if one.beyond is None else f"{one.beyond}/{count}"
        tested = ["-"] * 3 if one.p is None else [f"{one.mean_rank:.2f}", f"{one.p:.4f}", f"{adjusted:.3f}"]
        world = _number(one.world, one.task)
        yield [one.aligner, one.fitted, one.task, *means, f"{one.nearer}/{count}", beyond, *tested, world]


def _number(mean: float, task: str) -> str:
    return "-" if np.isnan(mean) else f"{mean:,.{0 if task.startswith('vsm13') else 3}f}"


def table(answered: Sequence[Answered]) -> str:
    """Build the Markdown table of ``rows``."""
    return markdown_table(COLUMNS, list(rows(answered)), words=range(3))


BRIEF = (
    *("distance to the country ↓", "unaligned", "aligned to it"),
    *("the same models, to the other countries", "world mean", "random prefixes"),
)
UNITS = {"wvs": "share of a scale", "iw_map": "map units", "vsm13": "squared index points"}


def brief(answered: Sequence[Answered], aligner: str, fitted: str) -> str:
    """Build a Markdown table of one aligner and fit: a row for each task in its own name, and one for ``general``.

    Raises:
        InputError: no such run.
    """
    found = [one for one in summaries(answered) if (one.aligner, one.fitted) == (aligner, fitted)]
    if not found:
        raise InputError(f"no run of {aligner} fitted to {fitted} in this study. Run its sweep to the end.")
    learned, lines = fitted.partition(",")[0].split(" + "), []
    for one in found:
        means = (one.bare_own, one.own, one.wrong, one.world, one.prefix)
        task, _, part = one.task.partition(", ")
        seen = f"not learned but for {len(SHARED[task])} questions" if task in SHARED else "not learned"
        what = part or ("learned, in new wordings" if task in learned else seen)
        lines.append([f"`{task}`, {what} ({UNITS[task]})", *(_number(mean, task) for mean in means)])
    groups = ([BARE, ""], [aligner, fitted], [], [], [CONTROL, ""])
    kept = [[each.general for each in answered if [each.aligner, each.fitted] == group] for group in groups]
    accuracy = [_number(_mean(each), GENERAL) for each in kept]
    lines.append([f"`{GENERAL}`: accuracy ↑ (chance 0.25)", *accuracy])
    return markdown_table(BRIEF, lines, words=range(1))


@click.command(cls=Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print the table."""
    click.echo(table(read(folder)), nl=False)


if __name__ == "__main__":
    main()
