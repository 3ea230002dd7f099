"""The study of what models know of countries by name: all countries of the map, and correlations of their points."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from culteval.errors import InputError
from culteval.harness.analysis.significance import holm
from culteval.harness.scoring.submission import load_submission
from culteval.harness.sweeps.grid import cells, read_grid
from culteval.tasks.metrics.map_projection import load_projection

from benchmarks import countries as study

from ..command import invoked

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "benchmarks" / "countries.yaml"


def test_the_sweep_asks_for_every_country_of_the_map():
    asked = [cell.config.country for cell in cells(read_grid(SWEEP), SWEEP)]
    points = load_projection(ROOT / "tasks" / "iw_map" / "countries.csv").points
    assert sorted(asked) == sorted([*points] * 3)


def test_points_are_those_of_the_scores(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = yaml.safe_load(SWEEP.read_text()) | {"models": [str(tiny())], "countries": ["SE", "NO", "EG", "ZW"]}
    grid["options"] = {"dtype": "float32", "threads": 1, "limit": 1}
    Path("few.yaml").write_text(yaml.safe_dump(grid))
    invoked("sweep", "few.yaml", "--workers", "1", "--quiet")
    ((key, places),) = study.read(Path("few")).items()
    assert key[1] == "third_person" and set(places) == {"SE", "NO", "EG", "ZW"}
    submission = load_submission(next(Path("few").glob("iw_map-NO-*")))
    scores = {s.metric: s.value for s in submission.score() if (s.split, s.scoring) == ("heldout", "expected")}
    own, published = places["NO"]
    assert own.tolist() == [scores["traditional_secular"], scores["survival_selfexpression"]]
    np.testing.assert_allclose(own - published, [scores[f"{axis}_error"] for axis in study.AXES])
    shutil.copytree(submission.folder.parent, Path("few") / "iw_map-NO-again")
    with pytest.raises(InputError, match=r"two runs of .* for NO by one way"):
        study.read(Path("few"))
    points = load_projection(ROOT / "tasks" / "iw_map" / "countries.csv").points
    np.testing.assert_allclose(published, points["NO"])


def test_the_direction_counts_not_the_distance():
    rng = np.random.default_rng(0)
    points = {f"C{at}": rng.normal(size=2) for at in range(9)}
    near = {code: (0.01 * point * [1, -1] + 5, point) for code, point in points.items()}
    first, second = study.rows({("m", "third_person"): near})
    assert first[:4] == ["m", "third_person", "traditional_secular", "9"]
    assert (first[6], second[6]) == ("+1.00", "-1.00") and float(first[7]) < 1e-6
    noise = {code: (rng.normal(size=2), point) for code, point in points.items()}
    found = list(study.rows({("m", "third_person"): noise, ("n", "third_person"): near}))
    p, adjusted = ([float(row[place]) for row in found] for place in (7, 8))
    assert adjusted == pytest.approx(holm(p), rel=0.1) and adjusted[0] > p[0]
