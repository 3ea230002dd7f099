"""The study of ways of asking: its sweep is one, and its table says what runs on a tiny model scored."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from culteval.errors import InputError
from culteval.harness.scoring.submission import load_submission
from culteval.harness.sweeps.grid import cells, read_grid

from benchmarks import elicitation as study

from ..command import invoked

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "benchmarks" / "elicitation.yaml"
WAYS = {"none", "persona", "resident", "third_person", "language", "demonstrations", "none, shares stated", "forecast"}


def test_the_sweep_asks_every_way_in_every_country_the_survey_has():
    grid = cells(read_grid(SWEEP), SWEEP)
    asked = {}
    for cell in grid:
        way = cell.config.settings.get("elicitation", "persona" if cell.config.aligner == "icl" else "none")
        asked.setdefault((cell.config.tasks, way), set()).add((cell.config.model, cell.config.country))
    models = {"smollm2", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"}
    for (tasks, way), found in asked.items():
        countries = {"US", "CN", "SA", "IN", "DE"} - ({"SA"} if tasks[0].startswith("wvs") else set())
        assert found == {(model, country) for model in models for country in countries}
        assert tasks[0].endswith("_verbalized") == (way == "forecast") or way == "none"
    ways = WAYS - {"none, shares stated"}
    assert {way for tasks, way in asked} == ways


def test_the_table_says_what_was_scored(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = yaml.safe_load(SWEEP.read_text()) | {"models": [str(tiny())], "tasks": ["vsm13"], "countries": ["US", "DE"]}
    grid["options"] = {"dtype": "float32", "threads": 1}
    del grid["without"]
    grid["aligners"] = ["naive", {"name": "icl", "grid": {"elicitation": ["persona", "third_person"]}},
                        {"name": "naive", "tasks": ["vsm13_verbalized"]}]  # fmt: skip
    Path("ways.yaml").write_text(yaml.safe_dump(grid))
    invoked("sweep", "ways.yaml", "--workers", "1", "--quiet")
    points = {(p.way, p.country): p for p in study.read(Path("ways"))}
    assert {way for way, _ in points} == {
        "none", "persona", "third_person", "none, shares stated", "constant", "uniform", "world mean"
    }  # fmt: skip
    for folder in Path("ways").glob("vsm13-*"):
        submission = load_submission(folder)
        way = submission.manifest.aligner.settings.get("elicitation", "persona")
        way = way if submission.manifest.aligner.name == "icl" else "none"
        scores = {s.metric: s.value for s in submission.score() if (s.scoring, s.split) == ("expected", "heldout")}
        point = points[way, submission.manifest.country]
        assert point.value == scores["loss"] and point.spread == pytest.approx(scores["loss_paraphrase_spread"])
        assert 0 <= point.least < point.most
    invoked("leaderboard", "add", *map(str, Path("ways").glob("vsm13*")), "--to", "kept")
    kept = {(p.way, p.country): p for p in study.read(Path("kept"))}
    folder = next(iter(points.values())).model  # an added submission has the model's name without its folder
    assert {key: repr(replace(p, model=folder)) for key, p in kept.items()} == {k: repr(p) for k, p in points.items()}
    (Path("kept") / next(Path("kept").iterdir()).name / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"manifest\.json"):
        study.read(Path("kept"))
    silent = points["none, shares stated", "US"]  # a random model states no shares
    assert silent.unread == 1 and silent.value != silent.value
    # The middle of the scale has all indices at their constants: the loss is the sum of squares of the published
    # United States from the means of the 62 countries (Hofstede 2015 and its site), as the task's README says.
    assert points["constant", "US"].spread == 0 == points["uniform", "US"].spread
    assert points["constant", "US"].value == pytest.approx(points["uniform", "US"].value)
    text = study.table(list(points.values()))
    rows = [line for line in text.splitlines() if "| vsm13 |" in line]
    assert len(rows) == 7 and rows[-1].split("|")[3].strip() == "none, shares stated" and "100%" in rows[-1]
    (verdict,) = study.verdicts(list(points.values()))
    ways = ("none", "persona", "third_person")
    means = {way: (points[way, "US"].value + points[way, "DE"].value) / 2 for way in ways}
    assert f"{min(means, key=means.get)} is nearest ({min(means.values()):,.0f}, in" in verdict


def test_the_short_table_has_a_column_for_each_survey_and_model():
    def point(model, survey, way, value, spread=0.01, country="US"):
        return study.Point(model, survey, way, country, value, value, value + spread, 0.0, False)

    points = [point("smollm2", "iw_map", "none", 1.5), point("smollm2", "iw_map", "third_person", 1.25, 0.03),
              point("large", "wvs", "none", 0.25), point("large", "wvs", "third_person", 0.5),
              point("large", "wvs", "constant", 0.125, 0.0), point("smollm2", "wvs", "none", float("nan")),
              point("smollm2", "wvs", "third_person", 0.375), point("smollm2", "wvs", "constant", 0.125, 0.0),
              point("large", "wvs", "none", 0.75, country="DE"), point("large", "wvs", "third_person", 0.5, 0.04, "DE"),
              point("large", "wvs", "constant", 0.125, 0.0, "DE")]  # fmt: skip
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in study.means(points).splitlines()] == [
        ["before the question", "wvs smollm2", "wvs large", "iw\\_map smollm2"],
        ["---", "---:", "---:", "---:"],
        ["third person", "**0.375**", "**0.500**", "**1.250**"],
        ["none", "-", "**0.500**", "1.500"],
        ["constant", "0.125", "0.125", "-"],
        ["*spread over paraphrases, mean of all ways*", "0.010", "0.018", "0.020"],
    ]


def test_a_difference_within_the_spread_is_said_to_be_less():
    def point(way, value, spread):
        return study.Point("m", "wvs", way, "US", value, value, value + spread, 0.0, False)

    near = [point("persona", 0.30, 0.02), point("resident", 0.31, 0.01), point("constant", 0.25, 0.0)]
    assert list(study.verdicts(near)) == [
        "m, wvs: persona is nearest (0.300, in 1 of 1 countries); resident is 0.010 farther, less than the larger of "
        "their spreads over paraphrases (0.020). The best baseline has 0.250."
    ]
    far = [point("persona", 0.30, 0.002), point("resident", 0.31, 0.001), point("constant", 0.25, 0.0)]
    assert "more than the larger of their spreads" in next(study.verdicts(far))
    one = [point("persona", 0.30, float("nan")), point("resident", 0.31, float("nan")), point("constant", 0.25, 0.0)]
    assert "spread" not in next(study.verdicts(one))  # a single paraphrase


def test_sizes_are_drawn_for_every_survey(tmp_path):
    values = {
        "none": 0.4,
        "persona": 0.3,
        "third_person": 0.35,
        "demonstrations": 0.2,
        "world mean": 0.1,
        "uniform": 0.5,
    }
    points = [
        study.Point(model, survey, way, "US", value, value - 0.05, value + 0.05, 0.0, False)
        for model in ("smollm2", "qwen2.5-coder-0.5b")
        for survey in study.SURVEYS
        for way, value in values.items()
    ]
    study.draw_sizes(points, tmp_path / "sizes.svg")
    text = (tmp_path / "sizes.svg").read_text()
    assert all(f">{name}<" in text for name in ("135M", "0.5B", *study.SURVEYS, *study.DRAWN.values(), "world mean"))


def test_figures_of_the_documents_are_shown_there():
    from benchmarks.documents import FIGURES, ROOT, documents

    shown = "".join(path.read_text() for path in documents())
    for name in FIGURES:
        assert (ROOT / name).is_file() and f"({Path(name).name})" in shown
