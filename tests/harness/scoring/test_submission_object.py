"""``Submission`` and ``Scores``: what a notebook handles, and how often answers are read for it."""

import json

import matplotlib
import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_of
from culteval.harness.scoring import submission as module
from culteval.harness.scoring.submission import Submission, load_submission
from culteval.harness.submissions.manifest import as_stored
from culteval.harness.submissions.reader import read_submission
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from rich.console import Console

matplotlib.use("agg")


def answers_to(name, seed=0, texts=False, **protocol):
    layout = render_protocol(spec_of(name), ProtocolOptions(**protocol)).layout
    rng = np.random.default_rng(seed)
    probs = rng.random(layout.codes.shape) ** 3 * layout.inside
    probs = (probs / np.maximum(probs.sum(-1, keepdims=True), 1e-300))[None]
    parsed = np.where(rng.random(len(layout)) < 0.1, UNPARSED, layout.codes[:, 0]).astype(int)
    said = tuple("x" * 7_000 if k == 3 else f"answer {k}" for k in range(len(layout)))
    outside = rng.random((1, len(layout)))
    return Answers(layout, probs, outside, *((said, parsed) if texts else ()))


@pytest.fixture
def run(tmp_path, submit):
    return submit(tmp_path / "run", {"vsm13": answers_to("vsm13"), "general": answers_to("general", 1)}, "US")


def test_what_is_stored_is_what_is_read(tmp_path, submit):
    """Scores of answers in memory are those of the file, to the last digit: rounding is the file's."""
    given = {"vsm13_text": answers_to("vsm13_text", texts=True), "wvs": answers_to("wvs", 2)}
    folder = submit(tmp_path / "run", given, "US")
    stored = {name: as_stored(each) for name, each in given.items()}
    _, read = read_submission(folder / "submission")
    for name, each in read.items():
        for column in ("probs", "off_options", "parsed"):
            assert np.array_equal(getattr(each, column), getattr(stored[name], column)), (name, column)
        assert each.texts == stored[name].texts
    assert max(map(len, read["vsm13_text"].texts)) == 6_000
    loaded = load_submission(folder)
    assert Submission(loaded.folder, loaded.manifest, stored).score() == loaded.score()


def test_answers_are_read_once_and_readings_made_once(run, monkeypatch):
    reads, made = [], []
    monkeypatch.setattr(module, "read_submission", lambda *a: reads.append(a) or read_submission(*a))
    real = module.readings
    monkeypatch.setattr(module, "readings", lambda *a: made.append(a[0].name) or real(*a))
    submission = load_submission(run)
    assert not reads and submission.manifest.country == "US"
    every = submission.score("all")
    own = submission.score()
    assert len(reads) == 1 and made == ["vsm13", "general"]
    assert len({row.country for row in every if row.task == "vsm13"}) == 94
    assert [row for row in every if row.country == "US"] == list(own)
    zero = submission.score("SA", task="vsm13", constants="zero")
    assert {(row.task, row.country, row.constants) for row in zero} == {("vsm13", "SA", "zero")}
    with pytest.raises(UsageError, match="constants"):
        submission.score(constants="odd")


def test_a_manifest_that_changed_meanwhile(run):
    submission = load_submission(run)
    path = run / "submission" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 5}))
    with pytest.raises(InputError, match="changed since"):
        _ = submission.answers
    with pytest.raises(InputError, match="cannot be read"):
        load_submission(run / "none")


def test_the_frame_of_answers(run):
    table = load_submission(run).to_frame()
    splits = {"A": "fit", "B": "fit", "C": "heldout", "D": "heldout"}
    start = 0
    for name, seed in (("vsm13", 0), ("general", 1)):  # as the fixture has them
        given = answers_to(name, seed)
        layout = given.layout
        for at, row in enumerate(table[start : start + len(layout)].to_dict("records")):
            levels = (layout.items[layout.item[at]], layout.paraphrases[layout.paraphrase[at]])
            levels += (layout.orders[layout.order[at]],)
            assert (row["task"], row["item"], row["paraphrase"], row["order"]) == (name, *levels)
            codes = [int(code) for code in layout.codes[at, : layout.widths[at]]]
            probs = [round(p, 9) for p in given.probs[0, at, : len(codes)].tolist()]
            assert [row[f"p_{code}"] for code in codes] == probs
            assert row["expected"] == pytest.approx(sum(c * p for c, p in zip(codes, probs, strict=True)))
            assert row["argmax"] == codes[probs.index(max(probs))]
            assert row["off_options"] == round(float(given.off_options[0, at]), 9) and row["text"] is None
            if name == "vsm13" and row["order"] == "natural":
                assert row["split"] == splits[row["paraphrase"]]
        start += len(layout)
    assert start == len(table)
    assert np.isnan(table.loc[table["task"] == "general", "p_5"]).all()


def test_scores_as_table_and_picture(run):
    submission = load_submission(run)
    scores, every = submission.score(), submission.score("all")
    table = scores.to_frame()
    assert list(table["value"]) == [row.value for row in scores] and {"low", "high", "n"} <= set(table.columns)
    assert json.loads(json.dumps(scores.to_dicts()))[0]["metric"] == scores[0].metric
    indices = scores.plot()
    assert indices.get_yticklabels()[0].get_text() == "Power distance"
    chosen = scores.plot("accuracy")
    assert len(chosen.get_yticks()) == sum(row.metric == "accuracy" for row in scores)
    by_country = every.plot("loss")
    assert len(by_country.get_yticks()) == 94
    best = min((row for row in every if (row.metric, row.scoring, row.split) == ("loss", "expected", "heldout")),
               key=lambda row: row.value)  # fmt: skip
    assert by_country.lines[0].get_xdata()[0] == best.value
    with pytest.raises(UsageError, match="Did you mean"):
        scores.plot("losss")
    console = Console(record=True, width=100)
    console.print(scores)
    assert "vsm13: de, aligned to United States, scored against" in console.export_text()


def test_a_hostile_name_in_a_notebook(tmp_path, submit):
    name = "<script>alert(1)</script>[/bold]"
    scores = load_submission(submit(tmp_path / "r", {"general": answers_to("general")}, "US", name)).score()
    html = scores._repr_html_()
    assert "<script>" not in html and html.startswith("<table")
    assert scores.plot() is not None
    Console(record=True).print(scores)
