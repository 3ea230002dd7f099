"""The command ``task``: create a task, or validate one."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Any

import click
import numpy as np

from ...errors import InputError, UsageError, did_you_mean, shown
from ...tasks.answers import UNPARSED, Answers
from ...tasks.intervals import LEAST_UNITS
from ...tasks.items import Presented, Questions
from ...tasks.measure import MeasureOptions, countries_of, measure_of
from ...tasks.prompts import ProtocolOptions, render, render_protocol
from ...tasks.spec import TaskSpec, load_spec, read_yaml
from ..analysis.significance import detectable
from ..registry import table
from ..scoring.score import score_answers
from ..util.atomic_io import replacing

TEMPLATE = Path(__file__).parents[2] / "tasks" / "template"
OWN_HOOKS = "culteval.tasks.hooks."


@click.group()
def task() -> None:
    """Create a task, or validate one."""


@task.command()
@click.argument("name")
def new(name: str) -> None:
    """Create a folder NAME with a small working task, to be filled with your own questions."""
    folder = Path(name)
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", folder.name):
        raise UsageError(f"task new {name!r}: a task's name has lower-case letters, digits and underscores only.")
    if folder.name in table("tasks"):
        raise UsageError(f"task new {name!r}: there is a task of this name already. Choose another name.")
    if folder.exists():
        raise UsageError(f"task new: {folder} is there already. Choose another name, or remove it.")
    with replacing(folder) as temporary:
        temporary.mkdir()
        for source in sorted(TEMPLATE.iterdir()):
            text = Template(source.read_text(encoding="utf-8")).safe_substitute(name=folder.name)
            target = f"{folder.name}.yaml" if source.name == "task.yaml" else source.name
            (temporary / target).write_text(text, encoding="utf-8")
    spec = folder / f"{folder.name}.yaml"
    click.echo(f"{folder}: written.\nnext       culteval task validate {spec}")


@task.command()
@click.argument("path", type=click.Path(dir_okay=False))
def validate(path: str) -> None:
    """Validate a spec: schema, scales, splits, references, leakage, metrics.

    Nothing of it is executed.
    """
    spec = load_spec(Path(path))
    _check_lm_eval(spec, read_yaml(Path(path)))
    _check_scorings(spec)
    _check_rendering(spec)
    _check_leakage(spec)
    countries = _check_measure(spec)
    if not any((spec.folder / name).is_file() for name in ("README.md", "TERMS.md")):
        raise InputError(f"{spec.folder}: no README.md. Write one with the source and the licence of the items.")
    reach = f"{len(countries)} countries" if countries else "any country"
    total = len(render_protocol(spec, ProtocolOptions()))
    protocol_of = f"{len(spec.items.ids)} items, {len(spec.paraphrases)} paraphrases, {reach}, {total} answers"
    click.echo(f"{path}: valid ({protocol_of}).")
    if spec.metadata.measure == "shares" and isinstance(spec.items, Questions):
        scales = sum(question.ordered for question in spec.items.questions)
        click.echo(f"options that are a scale, compared by w1: {scales} of {len(spec.items.ids)} questions")
    for line in _detected(spec):
        click.echo(line)
    example = render(spec, "fit")
    prompt = f"{example.texts[0]}\n\nmay be answered: {', '.join(example.choices[0]) or 'anything'}"
    click.echo(f"\nfirst prompt:\n{shown(prompt)}")


def _detected(spec: TaskSpec) -> list[str]:
    """Describe the smallest difference that the held-out protocol detects at worst, with 20 personas if needed."""
    rows = detectable(spec)
    if rows and rows[0].unit == "personas":
        protocol_of = "--personas 20"
        lines = ["without personas, no difference can be tested"]
        rows = detectable(spec, LEAST_UNITS)
    else:
        protocol_of, lines = "as it stands", []
    known = [f"{row.metric} {row.difference:.3g} ({row.n} {row.unit})" for row in rows if row.difference is not None]
    if known:
        lines.append(f"smallest difference detected with a power of 0.8, at worst, {protocol_of}: {', '.join(known)}")
    return lines


def _check_lm_eval(spec: TaskSpec, data: dict[str, Any]) -> None:
    """Check what stock lm-eval needs of the file; name functions outside culteval, without running them."""
    if "include" not in data and "custom_dataset" not in data:
        raise InputError(f"{spec.path}: custom_dataset: missing. Write `custom_dataset: !function {OWN_HOOKS}dataset`.")
    called = [data.get("custom_dataset"), data.get("process_results")]
    metrics = data.get("metric_list", [])
    called += [row.get("aggregation") for row in metrics if isinstance(row, dict)]
    for name in called:
        if isinstance(name, str) and not name.startswith(OWN_HOOKS):
            click.echo(
                f"note: {spec.path}: stock lm-eval would run {name[:100]!a}, which is not part of culteval.", err=True
            )
    if spec.metadata.headline.metric not in spec.metrics:
        raise InputError(f"{spec.path}: metric_list: lacks the headline {spec.metadata.headline.metric!r}. Add it.")


def _check_scorings(spec: TaskSpec) -> None:
    as_text = spec.output_type == "generate_until"
    if as_text != ("text" in spec.metadata.scorings):
        raise InputError(
            f"{spec.path}: metadata.scorings: 'text' goes with output_type generate_until, and only with it."
        )


def _check_rendering(spec: TaskSpec) -> None:
    for split, part in spec.metadata.splits.named.items():
        for item in spec.items.ids:
            for paraphrase in part.paraphrases:
                shown: Presented = spec.items.present(item, paraphrase, "natural")
                if not shown.text.strip() or len(set(shown.choices)) < len(shown.choices):
                    where = f"{spec.path}: {split}: item {item!r}, paraphrase {paraphrase!r}"
                    raise InputError(f"{where}: the text is empty, or two options are equal.")


def _check_leakage(spec: TaskSpec) -> None:
    fit, heldout = (render(spec, split) for split in ("fit", "heldout"))
    held = set(heldout.texts)
    for row, text in enumerate(fit.texts):
        if text in held:
            item = fit.layout.items[fit.layout.item[row]]
            raise InputError(
                f"{spec.path}: item {item!r}: its prompt is in fit and in heldout, word for word. Change one."
            )


def _check_measure(spec: TaskSpec) -> tuple[str, ...]:
    """Check that uniform answers give the headline in its direction, and return the reference's countries."""
    default, headline = spec.metadata.default_country, spec.metadata.headline
    try:
        known = countries_of(spec, None)
        measure_of(spec, default, MeasureOptions())
    except UsageError as error:
        raise InputError(f"{spec.path}: metadata.default_country: {error}") from None
    layout = render_protocol(spec, ProtocolOptions()).layout
    probs = layout.inside / np.maximum(layout.widths, 1)[:, None]
    texts = tuple("" for _ in range(len(layout)))
    first = np.where(layout.widths > 0, layout.codes[:, 0], UNPARSED).astype(int)
    answers = Answers(layout, probs[None], np.zeros((1, len(layout))), texts, first)
    scores = score_answers(spec, answers, default, MeasureOptions(), "uniform")
    metrics = list(dict.fromkeys(row.metric for row in scores))
    for field, name in (
        ("metadata.headline.metric", headline.metric),
        *(("metric_list", name) for name in spec.metrics),
    ):
        if name not in metrics:
            raise InputError(f"{spec.path}: {field}: no metric {name!r}.{did_you_mean(name, metrics)}")
    of_headline = [row for row in scores if row.metric == headline.metric]
    if of_headline[0].higher_is_better is not None and of_headline[0].higher_is_better != headline.higher_is_better:
        raise InputError(f"{spec.path}: metadata.headline.higher_is_better: {headline.metric} says the opposite.")
    return known
