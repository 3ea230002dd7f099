"""Paired comparison of submissions: differences of metrics with intervals and tests, and changes of answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UsageError
from ...tasks.answers import Answers, chosen
from ...tasks.chat_options import DEFAULT_CHAT
from ...tasks.countries import country as resolve
from ...tasks.countries import name_of
from ...tasks.items import Questions, Survey
from ...tasks.measure import countries_of
from ...tasks.sample import Metric, Sample, average, quotient, tally
from ...tasks.schema import Scoring
from ...tasks.score import find
from ...tasks.spec import TaskSpec
from ..model_info import ModelInfo
from ..registry import spec_of
from ..scoring.score import readings
from ..scoring.submission import Submission, as_submission
from ..submissions.manifest import AskedTask, Manifest
from .comparison import Comparison, ItemChange, SeedRange, TaskComparison
from .significance import LEAST_PAIRS, Points, differences, holm, permutation, shared


@dataclass(frozen=True)
class Side:
    """A submission in a comparison, with a name that is unique in it."""

    name: str
    submission: Submission

    @property
    def path(self) -> Path:
        """Return the folder of the submission."""
        return self.submission.folder

    @property
    def manifest(self) -> Manifest:
        """Return the manifest of the submission."""
        return self.submission.manifest

    @property
    def answers(self) -> Mapping[str, Answers]:
        """Return the answers of the submission by task."""
        return self.submission.answers


def read_sides(submissions: Sequence[Any], say: Callable[[str], None] = lambda text: None) -> list[Side]:
    """Load and validate submissions, or those of runs and paths, and give each a unique name.

    Raises:
        InputError: a bad submission, or one of another version of its task than the one installed.
    """
    loaded = []
    for given in submissions:
        if isinstance(given, str | Path):
            say(f"reading {given}")
        submission = as_submission(given)
        _ = submission.answers  # validates the file before anything is computed
        loaded.append(submission)
    return [Side(*pair) for pair in zip(_names([each.manifest for each in loaded]), loaded, strict=True)]


def _names(manifests: Sequence[Manifest]) -> list[str]:
    """Name submissions by aligner, with country, model and seed where these differ, and a number where all agree."""
    columns = [[m.aligner.name for m in manifests]]
    for column in (
        [m.country for m in manifests],
        [m.model.name for m in manifests],
        [f"s{m.seed}" for m in manifests],
    ):
        if len(set(column)) > 1:
            columns.append(column)
    names = [" ".join(parts) for parts in zip(*columns, strict=True)]
    times, seen = Counter(names), Counter[str]()
    for place, name in enumerate(names):
        seen[name] += 1
        if times[name] > 1:
            names[place] = f"{name} #{seen[name]}"
    return names


def compare_submissions(*submissions: Any, country: str | None = None, seed: int = 0) -> Comparison:
    """Compare submissions with the first one: differences, intervals, paired permutation tests, changed answers.

    Args:
        submissions: two or more ``Submission``s, ``Run``s, or paths of either; the first is the baseline.
        country: the country to score against [default: the baseline's, task by task].
        seed: of resampling.

    Raises:
        UsageError: fewer than two, or none that shares a task with the first. InputError: a bad submission.
    """
    if len(submissions) < 2:
        raise UsageError("compare: give two submissions or more; the first is the baseline.")
    return compare(read_sides(submissions), np.random.default_rng(seed), country)


def compare(
    sides: Sequence[Side],
    rng: np.random.Generator,
    country: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Subtract the first side from every other side, task by task, with Holm's correction over all metrics of all.

    Args:
        country: the country to score against [default: the baseline's, task by task].

    Raises:
        UsageError: no task shared with the first side, or a country or option that the reference does not have.
    """
    base, comparisons = sides[0], []
    for side in sides[1:]:
        for task in (name for name in base.answers if name in side.answers):
            say(f"comparing {side.name} with {base.name}: {task}")
            comparisons.append(_compare(spec_of(task), side, base, country, rng))
    if not comparisons:
        others = ", ".join(dict.fromkeys(task for side in sides[1:] for task in side.answers))
        raise UsageError(f"nothing to compare: {base.name} answered {', '.join(base.answers)}, the others {others}.")
    adjusted = iter(holm([row.p for each in comparisons for row in each.differences]))
    return Comparison(
        replace(each, differences=tuple(replace(row, adjusted=next(adjusted)) for row in each.differences))
        for each in comparisons
    )


def _compare(spec: TaskSpec, side: Side, base: Side, country: str | None, rng: np.random.Generator) -> TaskComparison:
    a, b = side.manifest.task(spec.name), base.manifest.task(spec.name)
    options = b.options
    code = resolve(country or b.country, countries_of(spec, options.edition)).code
    answers_a, answers_b = side.answers[spec.name], base.answers[spec.name]
    personas = _personas(a, side.manifest.seed), _personas(b, base.manifest.seed)
    paired = personas[0] == personas[1]
    one, two = shared(answers_a, answers_b, paired=paired)
    cautions = [*_cautions(side.manifest, base.manifest, a, b, code), *([] if paired else [_unpaired(*personas)])]
    total = max(len(answers_a.layout), len(answers_b.layout))
    if len(one.layout) < total and paired:
        cautions.append(
            f"{len(one.layout):,} of {total:,} prompts were answered on both sides; the others are left out"
        )
    both, alone = _scorings(spec, one, two)
    if alone:
        cautions.append(f"only one side has answers for {', '.join(alone)} scoring, which is left out")
    rows = differences(spec, one, two, code, options, rng, paired=paired)
    changes = item_changes(spec, one, two, both[0], rng, paired=paired) if both else []
    return TaskComparison(
        spec.name,
        code,
        side.name,
        base.name,
        both[0] if both else spec.default_scoring,
        tuple(cautions),
        len(one.layout),
        tuple(rows),
        tuple(changes),
    )


def _scorings(spec: TaskSpec, a: Answers, b: Answers) -> tuple[list[Scoring], list[Scoring]]:
    """Return the answer scorings available on both sides, in the spec's order, and those on one side only."""
    of_a, of_b = (dict.fromkeys(scoring for _, scoring, _ in readings(spec, each)) for each in (a, b))
    return [name for name in of_a if name in of_b], sorted(of_a.keys() ^ of_b.keys())


def _personas(asked: AskedTask, seed: int) -> tuple[int, int | None]:
    """Return the size of the persona sample and the seed that drew it; None for the seed of an empty sample."""
    people = asked.protocol(seed).people()
    return people, seed if people else None


def _unpaired(a: tuple[int, int | None], b: tuple[int, int | None]) -> str:
    """Describe two persona samples that differ."""

    def described(personas: tuple[int, int | None]) -> str:
        return f"{personas[0]} of seed {personas[1]}" if personas[0] else "none"

    return f"different personas: {described(a)} and {described(b)}; their answers cannot be paired"


def _cautions(side: Manifest, base: Manifest, a: AskedTask, b: AskedTask, country: str) -> list[str]:
    """List the differences between two submissions, apart from the aligner, that affect their scores."""
    cautions = []
    if (a.edition, a.constants) != (b.edition, b.constants):
        kinds = [f"{each.edition}, {each.constants} constants" for each in (a, b)]
        cautions.append(f"different references ({kinds[0]}; {kinds[1]}); both are scored here by the baseline's")
    if side.country != base.country:
        names = f"{name_of(side.country)} and {name_of(base.country)}"
        cautions.append(f"aligned to {names}; both are scored here against {name_of(country)}")
    return [*cautions, *_model_cautions(side.model, base.model)]


def _model_cautions(a: ModelInfo, b: ModelInfo) -> list[str]:
    """List the differences between two models. Other models have other chat templates; that is no further one."""
    cautions, is_other = [], (a.name, a.revision) != (b.name, b.revision)
    if is_other:
        cautions.append(f"different models: {a.name} and {b.name}")
    elif a.dtype != b.dtype:
        cautions.append(f"different precision: {a.dtype} and {b.dtype}")
    one, two = (each.chat or DEFAULT_CHAT for each in (a, b))
    parts = {
        "adapter": a.adapter_sha256 != b.adapter_sha256,
        "chat template": not is_other and (a.chat_template, one.template) != (b.chat_template, two.template),
        "system prompt": one.system != two.system,
        "chat options": (one.arguments, one.date, one.thinking_tokens)
        != (two.arguments, two.date, two.thinking_tokens),
    }
    if different := [name for name, is_different in parts.items() if is_different]:
        cautions.append(f"the models differ in {', '.join(different)}")
    return cautions


def item_changes(
    spec: TaskSpec, a: Answers, b: Answers, scoring: Scoring, rng: np.random.Generator, *, paired: bool
) -> list[ItemChange]:
    """Compute the change of answers to each held-out item by one answer scoring, the largest first.

    Args:
        a, b: answers to the same prompts.
        paired: whether the personas are the same on both sides, so that changes can be tested.
    """
    wanted = ("heldout", scoring)
    parts = [answers for each in (a, b) for *key, answers in readings(spec, each) if tuple(key) == wanted]
    if len(parts) < 2:
        return []
    survey = isinstance(spec.items, Survey)
    spreads = [_spreads(each, scoring) for each in parts]
    codes = [_codes_sample(each, scoring) for each in parts]
    means = [quotient(each.sums.sum(0), each.counts.sum(0)) for each in codes]
    items = [i for i in range(len(spec.items.ids)) if not any(np.isnan(spread[i]).any() for spread in spreads)]
    rows, with_texts = [], all(each.texts is not None for each in parts)
    for item in items:
        width = len(spec.items.codes(spec.items.ids[item]))
        pair = [spread[item, :width] for spread in spreads]
        likely = [_option(spec, spec.items.ids[item], int(each.argmax())) for each in pair]
        mean_a, mean_b = (float(each[item]) for each in means)
        apart = float(abs(pair[0] - pair[1]).sum() / 2)
        texts = [_first_text(each, item) if with_texts else None for each in parts]
        rows.append(
            ItemChange(
                spec.items.ids[item],
                _question(spec, item),
                likely_a=likely[0],
                likely_b=likely[1],
                mean_a=mean_a if survey else None,
                mean_b=mean_b if survey else None,
                change=mean_a - mean_b if survey else apart,
                text_a=texts[0],
                text_b=texts[1],
            )
        )
    if survey and paired and len(codes[0]) >= LEAST_PAIRS and rows:
        p = permutation(codes[0], codes[1], [Metric(np.array([item]), average) for item in items], rng).tolist()
        rows = [replace(r, p=x, adjusted=y) for r, x, y in zip(rows, p, holm(p), strict=True)]
    return sorted(rows, key=lambda row: -abs(row.change))


def _spreads(answers: Answers, scoring: str) -> np.ndarray:
    """Compute the mean distribution over options (items, options) of the answers to each item; NaN without answers."""
    layout, spread = answers.layout, chosen(answers, scoring)
    answered = spread.sum(-1) > 0
    columns = []
    for option in range(spread.shape[1]):
        values = np.where(answered, spread[:, option], np.nan)
        _, sums, counts = tally(np.zeros_like(layout.item), layout.item, values, len(layout.items))
        columns.append(quotient(sums, counts)[0])
    return np.stack(columns, axis=1)


def _codes_sample(answers: Answers, scoring: str) -> Sample:
    """Make the sample of codes by persona and item."""
    layout = answers.layout
    sums = tally(layout.persona, layout.item, answers.values(scoring)[0], len(layout.items))
    return Sample("personas", *sums, {})


def _question(spec: TaskSpec, item: int) -> str:
    """Return the text of an item: in a survey's first held-out paraphrase, or the question."""
    if isinstance(spec.items, Survey):
        return spec.items.paraphrases[spec.metadata.splits.heldout.paraphrases[0]].items[spec.items.ids[item]]
    assert isinstance(spec.items, Questions)
    return spec.items.questions[item].question


def _option(spec: TaskSpec, item: str, place: int) -> str:
    """Name an option by its code in a survey, by its text in a question."""
    if isinstance(spec.items, Survey):
        return str(spec.items.codes(item)[place])
    assert isinstance(spec.items, Questions)
    return spec.items.by_id[item].options[place]


def _first_text(answers: Answers, item: int) -> str | None:
    if answers.texts is None:
        return None
    return answers.texts[int(np.flatnonzero(answers.layout.item == item)[0])]


def by_seed(sides: Sequence[Side]) -> list[SeedRange]:
    """Compute the headline of submissions that differ in their seed alone, for groups of two or more that have it."""
    groups: dict[str, list[Side]] = defaultdict(list)
    for side in sides:
        groups[side.manifest.configuration].append(side)
    ranges = []
    for group in groups.values():
        if len({side.manifest.seed for side in group}) < 2:
            continue
        group = sorted(group, key=lambda side: side.manifest.seed)
        for asked in group[0].manifest.tasks:
            spec = spec_of(asked.name)
            metric, scoring = spec.metadata.headline.metric, spec.default_scoring
            rows = [side.submission.score(task=spec.name) for side in group]
            found = [find(scores, (metric, scoring, "heldout")) for scores in rows]
            values = {side.manifest.seed: row.value for side, row in zip(group, found, strict=True) if row}
            if len(values) < 2:
                continue
            name = f"{group[0].manifest.aligner.name} {group[0].manifest.country}"
            points = Points(tuple(values.values()))
            ranges.append(SeedRange(spec.name, name, metric, scoring, tuple(values), points))
    return ranges
