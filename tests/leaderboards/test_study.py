"""The study of aligners: its table, seeds one by one, and its plot, against the scores of finished runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.harness.registry import spec_of
from culteval.harness.scoring.submission import load_submission
from culteval.harness.submissions.manifest import SUBMISSION
from culteval.tasks.answers import Answers
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from culteval.tasks.score import Score

from ..harness.runs.test_run import culteval

SEEDS, COLLAPSED, BUDGET = (0, 3), 9, 12


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """``benchmarks`` is found in the root of the clone, wherever the tests are started."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


def same_everywhere():
    """The third option as the answer to everything."""
    layout = render_protocol(spec_of("vsm13"), ProtocolOptions()).layout
    return {"vsm13": Answers(layout, (layout.codes == 3)[None].astype(float), np.zeros((1, len(layout))))}


def own_scores(rows):
    return {(score.metric, score.scoring, score.split): score.value for score in rows}


@pytest.fixture(scope="module")
def study(tiny, submit, tmp_path_factory):
    """The folder, and folder and scores of its runs by (aligner, seed): two seeds searched, one collapsed, naive."""
    folder, runs = tmp_path_factory.mktemp("study"), {}
    searched = ("--set", "population=5", "--budget", BUDGET)
    for aligner, seed, flags in (("naive", 0, ()), *(("de", seed, searched) for seed in SEEDS)):
        model = ("--model", tiny(), "--dtype", "float32", "--threads", 1)
        where = ("--task", "vsm13", "--country", "SA", "--out", folder, "--no-compare", "--json")
        done = culteval("run", "--aligner", aligner, "--seed", seed, *flags, *model, *where)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        rows = [Score.model_validate(row) for row in found["scores"] if row["aligner"] == aligner]
        runs[aligner, seed] = folder / found["run"], own_scores(rows)
    constant = submit(folder / "constant", same_everywhere(), "SA", "de", seed=COLLAPSED, allowed=BUDGET * 24)
    runs["de", COLLAPSED] = constant, own_scores(load_submission(constant / SUBMISSION).score())
    return folder, runs


def shown(*words):
    """The rows of the table as dictionaries."""
    from benchmarks.aligners import main

    done = CliRunner().invoke(main, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.output.splitlines()]
    assert all(len(row) == len(cells[0]) for row in cells)
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def wrong(run):
    """The skill against the other countries, each scored by itself."""
    from benchmarks.aligners import OTHERS

    skills = []
    for code in OTHERS:
        if code != "SA":
            rows = load_submission(run / SUBMISSION).score(code)
            skills += [s.value for s in rows if (s.metric, s.scoring, s.split) == ("skill", "expected", "heldout")]
    assert len(skills) == len(OTHERS) - 1
    return np.mean(skills)


def assert_shows(row, runs):
    """A row holds the means of what these runs scored."""
    from benchmarks.aligners import COLUMNS

    for name, *wanted, form in COLUMNS:
        assert row[name] == f"{np.mean([scores[tuple(wanted)] for _, scores in runs]):{form}}", name
    assert float(row["wrong country"]) == pytest.approx(np.mean([wrong(run) for run, _ in runs]), abs=0.0051)
    assert row["collapsed"] == str(sum(scores["collapsed", "expected", "heldout"] == 1 for _, scores in runs))


def test_a_row_a_seed(study):
    folder, runs = study
    rows = shown(folder, "--seeds")
    searched = [("de", str(BUDGET), str(seed)) for seed in (*SEEDS, COLLAPSED)]
    assert [(row["aligner"], row["budget"], row["seed"]) for row in rows] == [*searched, ("naive", "0", "0")]
    assert {row["country"] for row in rows} == {"Saudi Arabia"}
    for row in rows:
        assert_shows(row, [runs[row["aligner"], int(row["seed"])]])
    assert rows[2]["collapsed"] == "1" and len({row["heldout"] for row in rows[:3]}) == 3


def test_means_over_seeds(study):
    folder, runs = study
    evolved, bare = shown(folder)
    assert (evolved["aligner"], evolved["seeds"], bare["aligner"], bare["seeds"]) == ("de", "3", "naive", "1")
    assert_shows(evolved, [runs["de", seed] for seed in (*SEEDS, COLLAPSED)])
    assert_shows(bare, [runs["naive", 0]])
    assert evolved["sec"] == "0"  # the least: what was submitted took no time


def test_what_is_not_finished_is_not_counted(study, tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}", encoding="utf-8")
    assert shown(tmp_path) == []


def test_the_plot_is_written(study, tmp_path):
    folder, _ = study
    assert len(shown(folder, "--plot", tmp_path / "curves.svg")) == 2
    picture = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert picture.rstrip().endswith("</svg>")
    for word in ("Saudi Arabia, fit", "Saudi Arabia, heldout", "survey evaluations", ">de<", ">naive<"):
        assert word in picture, word
