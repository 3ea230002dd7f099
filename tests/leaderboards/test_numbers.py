"""The published board's numbers: what the code gave on 28 November 2026 is what it gives now, but for rounding.

``tests/data/numbers.json.xz`` was written by this module (``python -m tests.leaderboards.test_numbers``) before the
harness was taken apart and put together anew. It was written again with version 2 of submissions, which has other names
of metrics, aligners and entries: all numbers were equal, except that means and standard deviations over random prefixes
are sums in order of seed since, and differ by 5e-16 of their size; and when answer shares (``wvs``) got a score and a
note of collapsed answers (30 November 2026), without any other change. It holds every number of every board, all scores
of all entries, scores against all countries, comparisons, identification and between-country agreement.
``tests/data/submissions.json.xz`` has small submissions of version 1 with their scores, of what the board lacks:
answers in text, calibration, personas.
A change that is to move a number writes the file anew and says so in its commit; any other change leaves it alone.

Floats may differ by 1e-13 of their size, since a processor without AVX-512 adds in another order; differences of
comparisons, which may be close to zero, by 1e-13. Everything else is equal.
"""

import json
import lzma
import math
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import InputError
from culteval.harness.analysis.compare import compare, read_sides
from culteval.harness.analysis.country_distance import distances_to_countries
from culteval.harness.scoring.submission import load_submission
from culteval.harness.submissions.reader import read_manifest
from culteval.harness.util.atomic_io import sha256
from culteval.leaderboards.migrate import migrate

from ..published import RESULTS
from ..published import read as read_board

STORED = Path(__file__).parents[1] / "data" / "numbers.json.xz"
SMALL = STORED.with_name("submissions.json.xz")
ALL_COUNTRIES = (("US", "de"), ("SA", "naive"))
PAIRS = (("US", "naive", "US", "de"), ("US", "naive", "US", "clca"), ("SA", "icl", "CN", "icl"))
SETS = ("de", "augmented")
COUNTRIES = ("BR", "CN", "DE", "IN", "SA", "US")
SEEDS = {("US", "naive"): 0, ("US", "clca"): 2, ("BR", "de"): 0, ("IN", "augmented"): 0, ("SA", "de"): 0}  # else 1
DIFFERENCE = ("metric", "scoring", "split", "a", "b", "difference", "low", "high", "p", "adjusted", "n", "detectable")
ITEM = ("item", "likely_a", "likely_b", "mean_a", "mean_b", "change", "p", "adjusted")
PRESENT = {  # metrics of version 1 that have another name
    "outside_mass": "off_options", "side": "pole_accuracy", "side_order_spread": "pole_accuracy_order_spread",
    "loss_wording_spread": "loss_paraphrase_spread",
}  # fmt: skip
SCORED = ("metric", "scoring", "split", "value", "low", "high", "n", "note")


def folder(country, aligner):
    """The entry of a country and aligner with the seed that was stored."""
    seed = SEEDS.get((country, aligner), 1)
    found = [path for path in RESULTS.glob(f"vsm13-{country}-{aligner}-*") if read_manifest(path).seed == seed]
    return min(found)


def rows(scores):
    """Scores by task and country, as lists of names and numbers."""
    found = {}
    for score in scores:
        cells = [getattr(score, name) for name in SCORED]
        found.setdefault(f"{score.task} {score.country}", []).append(cells)
    return found


def of_board(board):
    """What a board shows: baselines with their spread, and each entry's rank, bounds and improvement."""
    trivial = [
        [row.name, rows(row.scores), sorted([*place, value] for place, value in (row.spread or {}).items())]
        for row in board.baselines
    ]
    standings = []
    for one in board.standings:
        headline = [s.value for s in one.row.scores if s.metric == board.spec.metadata.headline.metric]
        standings.append([one.entry.name, one.rank, one.basis, one.low, one.high, one.row.improvement, headline])
    return {"baselines": trivial, "entries": standings}


def of_comparison(one):
    """A comparison of one task: every difference and every item, without the sentences."""
    differences = [[getattr(row, name) for name in DIFFERENCE] for row in one.differences]
    items = [[getattr(row, name) for name in ITEM] for row in one.changes]
    return [one.task, one.country, one.a, one.b, one.scoring, one.answers, differences, items]


def of_agreement(one):
    """Between-country agreement: explained variance and correlation by dimension, skill, collapsed countries."""
    if one is None:
        return None
    variance, correlation = dict(one.explained_variance), dict(one.correlation)
    return [list(one.countries), variance, correlation, one.skill, list(one.collapsed)]


def of_set(one):
    """An aligned set of the board."""
    return [one.title, one.aligner, one.seed, one.scoring, list(one.countries), of_agreement(one.centred)]


def of_identification(one):
    """Distances, double-centred distances, ranks and p of an aligned set."""
    arrays = [np.asarray(array).tolist() for array in (one.distances, one.centred, one.ranks)]
    return [list(one.countries), *arrays, one.p, one.permutations]


def numbers(board):
    """Everything that is compared."""
    found = {
        "boards": {" ".join(each.key): of_board(each) for each in board.boards},
        "scores": {entry.name: rows(entry.scores) for entry in board.runs},
        "sets": sorted((of_set(each) for each in board.sets), key=lambda each: each[:3]),
        "all countries": {},
        "comparisons": [],
        "identification": {},
    }
    for country, aligner in ALL_COUNTRIES:
        path = folder(country, aligner)
        found["all countries"][path.name] = rows(load_submission(path).score("all"))
    for country, aligner, other, second in PAIRS:
        sides = read_sides([folder(country, aligner), folder(other, second)])
        found["comparisons"] += [of_comparison(each) for each in compare(sides, np.random.default_rng(0))]
    for aligner in SETS:
        paths = [folder(country, aligner) for country in COUNTRIES]
        each = distances_to_countries(paths, None, None, None, 0)
        nearest = [[one.own, one.rank, one.distances] for one in each.placed]
        found["identification"][aligner] = [of_identification(each.identified), nearest, of_agreement(each.between)]
    return json.loads(json.dumps(found))


def differing(old, new, place=""):
    """The places where two trees of lists, dicts and plain values differ, floats by more than rounding."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from differing(old.get(key), new.get(key), f"{place}/{key}")
    elif isinstance(old, list) and isinstance(new, list):
        for number, (one, other) in enumerate(zip_longest(old, new)):
            yield from differing(one, other, f"{place}/{number}")
    elif isinstance(old, float) and isinstance(new, float):
        nothing = 1e-13 if place.startswith("/comparisons") else 1e-15
        if not math.isclose(old, new, rel_tol=1e-13, abs_tol=nothing):
            yield place, old, new
    elif old != new:
        yield place, old, new


def read(path):
    return json.loads(lzma.decompress(path.read_bytes()))


def test_the_published_boards_numbers_are_as_they_were(published):
    old, new = read(STORED), numbers(published)
    assert len(old["boards"]) == 29 and len(old["scores"]) == 131 and len(old["sets"]) > 5
    odd = list(differing(old, new))
    assert not odd, (len(odd), odd[:5])


@pytest.mark.parametrize("name", ["vsm13-US-random", "cdeval_core-US-icl", "text"])
def test_scores_of_small_submissions_are_as_they_were(tmp_path, name):
    """Read a submission of version 1 by its migration: fields have other names, scores are the same."""
    stored = read(SMALL)[name]
    (tmp_path / name).mkdir()
    for file, text in stored["files"].items():
        (tmp_path / name / file).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="leaderboard migrate"):
        load_submission(tmp_path / name)
    assert migrate(tmp_path, None, pytest.fail) == 1
    (entry,) = tmp_path.iterdir()
    old = {
        key: [[PRESENT.get(cells[0], cells[0]), *cells[1:]] for cells in cells_by_place]
        for key, cells_by_place in stored["scores"].items()
    }
    odd = list(differing(old, json.loads(json.dumps(rows(load_submission(entry).score())))))
    assert len(old) and not odd, (len(odd), odd[:5])


def test_a_mark_moves_with_an_entry_of_version_1(tmp_path):
    (tmp_path / "old").mkdir()
    for file, text in read(SMALL)["text"]["files"].items():
        (tmp_path / "old" / file).write_text(text, encoding="utf-8")
    key = json.loads((tmp_path / "old" / "manifest.json").read_text())["answers"]["sha256"]
    (tmp_path / "verified.json").write_text(json.dumps({key: {"entry": "old", "answers_sha256": key, "compared": 24}}))
    assert migrate(tmp_path, None, pytest.fail) == 1
    (entry,) = (path.parent for path in tmp_path.glob("*/manifest.json"))
    key = sha256(entry / "manifest.json")
    marks = {key: {"entry": entry.name, "manifest_sha256": key, "compared": 24}}
    assert json.loads((tmp_path / "verified.json").read_text()) == marks


def main():
    STORED.parent.mkdir(exist_ok=True)
    data = numbers(read_board())
    STORED.write_bytes(lzma.compress(json.dumps(data, separators=(",", ":")).encode(), preset=9))


if __name__ == "__main__":
    main()
