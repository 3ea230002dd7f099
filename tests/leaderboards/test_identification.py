"""Identification of the countries of a board's aligned sets, with one correction for all."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.harness.analysis.country_distance import distances_to_countries
from culteval.harness.cli.main import cli
from culteval.leaderboards.identification import identified
from culteval.leaderboards.leaderboard import leaderboard

from ..board_files import write

CODES = ("US", "BR", "CN", "DE", "IN", "MX")


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Two sets whose answers differ by country, one that says the same everywhere, and one of five countries."""
    folder = tmp_path_factory.mktemp("board")
    for place, code in enumerate(CODES):
        write(folder, f"de-{code}", country=code, aligner="de", tilt=0.2 + place)
        write(folder, f"gd-{code}", country=code, aligner="gd", tilt=3 - place / 3)
        write(folder, f"naive-{code}", country=code, aligner="naive")
        if code != "MX":
            write(folder, f"pso-{code}", country=code, aligner="pso", tilt=1 + place)
    return folder


def test_ranks_are_those_of_identify_and_one_correction_covers_the_sets(board):
    rows = identified(leaderboard(board), np.random.default_rng(0))
    assert {row.of.setup.aligner for row in rows} == {"de", "gd"}  # naive says the same; five countries are too few
    for row in rows:
        paths = [board / f"{row.of.setup.aligner}-{code}" for code in CODES]
        alone = distances_to_countries(paths, task="vsm13").identified
        assert row.found.mean_rank == pytest.approx(alone.mean_rank) and row.found.p == pytest.approx(alone.p)
    low, high = sorted(row.found.p for row in rows)
    assert sorted(row.adjusted for row in rows) == pytest.approx(sorted([min(1, 2 * low), min(1, max(2 * low, high))]))


@pytest.mark.parametrize("form", ["terminal", "md", "json"])
def test_the_command_shows_every_set(board, form, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    done = CliRunner().invoke(cli, ["leaderboard", "identify", str(board), "--task", "vsm13", "--format", form])
    assert done.exit_code == 0, done.output
    if form == "json":
        rows = json.loads(done.stdout)
        assert [set(row["ranks"]) for row in rows] == [set(CODES)] * 2 and rows[0]["permutations"] == 720
    else:
        assert "Holm" in done.output and all(f" {name} " in f" {done.output}" for name in ("de", "gd"))
        assert "pso" not in done.output and "naive" not in done.output


def test_without_six_countries_it_says_what_does_it(tmp_path):
    write(tmp_path, "one")
    done = CliRunner().invoke(cli, ["leaderboard", "identify", str(tmp_path)])
    assert done.exit_code == 0 and "culteval identify" in done.output
