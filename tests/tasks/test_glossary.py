"""The glossary has an entry for everything that tables show, and says the same on its page."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_of, table
from culteval.harness.report.tables import columns_of
from culteval.harness.scoring.score import score_answers
from culteval.leaderboards.metric_labels import board_metrics
from culteval.leaderboards.render import between, records
from culteval.tasks import glossary
from culteval.tasks.answers import Answers
from culteval.tasks.measure import MeasureOptions, countries_of
from culteval.tasks.prompts import ProtocolOptions, layout_of

ROOT = Path(__file__).parents[2]


def shipped():
    """The tasks whose data are here; those of imported data have the same kinds of measures."""
    names = []
    for name in table("tasks"):
        with suppress(InputError, UsageError):
            spec_of(name)
            names.append(name)
    return names


@pytest.mark.parametrize("name", shipped())
def test_every_metric_of_a_shipped_task_is_explained(name):
    """Answers with probabilities and texts, content-free items among them, give all that the task can yield."""
    spec = spec_of(name)
    layout = layout_of(spec, ProtocolOptions(0, 0, None, True))
    probs = np.random.default_rng(0).dirichlet(np.ones(layout.codes.shape[1]), (1, len(layout))) * layout.inside
    probs /= np.maximum(probs.sum(-1, keepdims=True), 1e-9)
    parsed = np.where(layout.widths > 0, layout.codes[:, 0], -1)
    texts = tuple("I can't help you, as an AI." for _ in range(len(layout)))
    country = next(iter(countries_of(spec, None)), "US")
    found = set(board_metrics(spec)) | {column.metric for column in columns_of(spec)} | set(spec.metrics)
    for answers in (
        Answers(layout, probs, np.full((1, len(layout)), 0.1), texts, parsed),
        Answers(layout, probs, np.full((1, len(layout)), 0.1)),
    ):
        scores = score_answers(spec, answers, country, MeasureOptions(), "x")
        assert scores
        for score in scores:
            found.add(score.metric)
            assert score.scoring in glossary.SCORINGS and score.split in glossary.SPLITS
            entry, higher = glossary.term(score.metric), score.higher_is_better
            assert entry is not None, f"tasks/glossary.py lacks {score.metric}"
            assert higher is None or entry.better in ("", "higher" if higher else "lower"), score.metric
    assert not [metric for metric in found if glossary.term(metric) is None]


@pytest.mark.parametrize(
    "metric", ["judged_pole_accuracy", "judged_neither", "judged_unread", "w1_split_half", "pdi_error"]
)
def test_metrics_that_need_more_than_answers(metric):
    assert glossary.term(metric)


@pytest.mark.parametrize("name", ["nonsense", "pdi_w1", "accuracy_sa", "w1_", "loss_high_xyz", "_error"])
def test_nothing_else_has_an_entry(name):
    assert glossary.term(name) is None
    assert glossary.meaning(name) == f"{name}, as the task's own page defines it"


def test_the_columns_of_all_tables_are_explained():
    known = {name.lower() for name in glossary.COLUMNS} | {one.label.lower() for one in glossary.COLUMNS.values()}
    known |= {one.label.lower() for one in glossary.METRICS.values()} | set(glossary.DIMENSION_LABELS)
    assert {heading.lower() for heading in between.HEADINGS} <= known
    provenance = {"kind", "task", "country", "variant", "suite", "source", "note", "basis"}
    scores = {"metric", "scoring", "split", "value", "low", "high", "spread"}
    marks = {"verified", "point_estimate_only", "submission", "survey_evaluations"}
    assert set(records.FIELDS) - provenance - scores - marks <= known
    script = (ROOT / "leaderboards" / "templates" / "board.js").read_text(encoding="utf-8")
    named = set(re.findall(r'about\("(\w+)"\)', script))
    assert len(named) > 8 and named <= set(glossary.COLUMNS)
    marks = set(re.findall(r'\["([a-z ]+)"\] : \[\]', (ROOT / "leaderboards/templates/common.js").read_text()))
    assert {"improvement", "no improvement", "collapsed", "scores differ"} == marks <= set(glossary.MARKS)


def test_entries_are_sentences_of_one_line():
    terms = [*glossary.METRICS.values(), *glossary.COLUMNS.values()]
    assert all(one.label and one.meaning and "\n" not in one.meaning and "|" not in one.meaning for one in terms)
    assert {one.better for one in terms} == {"", "higher", "lower"}


def test_the_page_is_as_generated():
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert page == glossary.markdown() + "\n", "run: python -m culteval.tasks.glossary > docs/glossary.md"
