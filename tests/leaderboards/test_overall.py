"""``culteval leaderboard show --overall``: means of what is comparable, one row an aligner, one column a task."""

import json

import pytest
from click.testing import CliRunner
from culteval.harness.cli.main import cli
from culteval.harness.scoring.submission import score

from ..board_files import SPENT, write


def show(folder, form="json"):
    done = CliRunner().invoke(cli, ["leaderboard", "show", str(folder), "--overall", "--format", form])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout) if form == "json" else done.stdout


def value(folder, metric="skill", scoring="expected"):
    """The held-out headline of a submission, as ``culteval score`` has it."""
    rows = score(folder)
    (found,) = [row for row in rows if (row.metric, row.scoring, row.split) == (metric, scoring, "heldout")]
    return found.value


def by_row(records, metric):
    return {row["aligner"]: row for row in records if row["metric"] == metric}


def test_means_over_seeds_then_countries(tmp_path):
    """A country with three seeds counts as much as one with a single seed."""
    us = [write(tmp_path, f"us{seed}", country="US", seed=seed) for seed in range(3)]
    br = write(tmp_path, "br", country="BR", seed=9)
    quiz = write(tmp_path, "quiz", task="culture_core", country="US", aligner="de", seed=4)
    records = show(tmp_path)
    skill, accuracy = by_row(records, "skill"), by_row(records, "accuracy")
    expected = (sum(map(value, us)) / 3 + value(br)) / 2
    assert skill["de"]["value"] == pytest.approx(expected, rel=1e-12) and skill["de"]["countries"] == ["BR", "US"]
    assert skill["de"]["runs"] <= 4 and skill["constant"]["value"] == pytest.approx(0, abs=1e-12)
    assert accuracy["de"]["value"] == pytest.approx(value(quiz, "accuracy", "argmax"), rel=1e-12)
    assert accuracy["uniform"]["value"] == pytest.approx(0.25, abs=1e-12)  # four options a question


def test_what_is_not_comparable_is_not_averaged(tmp_path):
    """Another model, budget or setting is another row, another edition another column."""
    made = {
        "de tiny-8B": write(tmp_path, "a"),
        "de other-1B": write(tmp_path, "b", model="other-1B", seed=1),
        "gd tiny-8B, 480 item forwards, tokens=10": write(tmp_path, "c", aligner="gd", seed=2),
        "gd tiny-8B, 960 item forwards, tokens=10": write(
            tmp_path, "d", aligner="gd", seed=3, budget=SPENT | {"item_forwards_allowed": 960}
        ),
        "gd tiny-8B, 480 item forwards, tokens=20": write(tmp_path, "e", aligner="gd", seed=4, settings={"tokens": 20}),
    }
    found = by_row(show(tmp_path), "skill")
    named = {name.replace(" float32", ""): row["value"] for name, row in found.items()}
    assert {name: named[name] for name in made} == pytest.approx({name: value(path) for name, path in made.items()})
    other = write(tmp_path, "f", country="US", seed=5)
    manifest = other / "manifest.json"
    data = json.loads(manifest.read_text())
    data["tasks"][0]["edition"] = "2015"
    manifest.write_text(json.dumps(data))
    tasks = {row["task"] for row in show(tmp_path) if row["metric"] == "skill"}
    assert len(tasks) == 2 and any("2015" in task for task in tasks)


def test_a_partial_row_stands_beside_the_unaligned_model_in_the_same_countries(tmp_path):
    for country in ("US", "BR"):
        write(tmp_path, f"naive{country}", country=country, aligner="naive", seed=len(country) + ord(country[0]))
    gd = write(tmp_path, "gd", country="US", aligner="gd", seed=3)
    lines = [line.split(" | ")[0].removeprefix("| ") for line in show(tmp_path, "md").splitlines()[2:]]
    assert lines[:3] == ["naive", "gd, US only", "naive, US only"]
    found = by_row(show(tmp_path), "skill")
    assert found["gd, US only"]["value"] == pytest.approx(value(gd))
    assert found["naive, US only"]["value"] == pytest.approx(value(tmp_path / "naiveUS"))
    assert found["naive, US only"]["countries"] == ["US"]


def test_between_country_r2_by_hand(tmp_path):
    """One minus the squared error of the country-centred indices over the published ones' sum of squares."""
    import numpy as np
    from culteval.harness.registry import spec_of
    from culteval.tasks.metrics.reference import DIMENSIONS, scores_of

    codes = ("US", "BR", "CN", "DE", "IN", "MX")
    model = []
    for at, code in enumerate(codes):
        rows = score(write(tmp_path, code, country=code, seed=at, tilt=0.3))
        index = {row.metric: row.value for row in rows if (row.scoring, row.split) == ("expected", "heldout")}
        model.append([index[name] for name in DIMENSIONS])
    for name in codes:  # one set: the seed of all of them is the same
        manifest = tmp_path / name / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"seed": 0}))
    x, y = np.array(model), np.array([scores_of(spec_of("vsm13"), None).target(code) for code in codes])
    x, y = x - x.mean(0), y - y.mean(0)
    expected = 1 - ((x - y) ** 2).sum() / (y**2).sum()
    found = by_row(show(tmp_path), "between_country_r2")
    assert list(found) == ["de"] and found["de"]["value"] == pytest.approx(expected, rel=1e-9)
    text = show(tmp_path, "terminal")
    assert f"{expected:.2f}" in text and "country-centred" in text


def test_random_prefixes_of_two_models_are_two_rows(tmp_path):
    """Each with the mean and the standard deviation of its own prefixes."""
    import statistics

    values = {}
    for model, seeds in (("tiny-8B", (0, 1, 2)), ("my-tiny-8B", (3, 4, 5))):
        made = [write(tmp_path, f"{model}{n}", aligner="random_prefix", model=model, seed=n) for n in seeds]
        values[f"random prefix {model} float32"] = [value(path) for path in made]
    write(tmp_path, "de", seed=9)
    found = {name: row for name, row in by_row(show(tmp_path), "skill").items() if "prefix" in name}
    assert found.keys() == values.keys()
    for name, each in values.items():
        assert found[name]["value"] == pytest.approx(statistics.mean(each))
        assert found[name]["spread"] == pytest.approx(statistics.stdev(each))


def test_hostile_names_are_inert(tmp_path):
    name = "[red]a|b[/red]<script>"
    write(tmp_path, "x", aligner=name)
    assert name in show(tmp_path, "terminal").replace("\n", "")
    assert "<script>" not in show(tmp_path, "md") and r"a\|b" in show(tmp_path, "md")
