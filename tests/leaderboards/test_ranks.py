"""Ranks and ties: which standings share a rank and on what ground, and what a board compares at all."""

from culteval.harness.registry import spec_of
from culteval.leaderboards import boards as rank
from culteval.leaderboards import entries as collect
from culteval.leaderboards.suite import current, read_suite

from ..board_files import data_of


def fake(values, intervals=None, seeds=None, better=True, others=None):
    """Standings of made-up headlines on culture_core, with ``others`` as another metric: (rank, basis) by name."""
    spec = spec_of("culture_core" if better else "vsm13")
    headline, entries = rank.headline_of(spec), []
    for number, value in enumerate(values):
        low, high = intervals[number] if intervals else (None, None)
        score = {"task": spec.name, "country": "SA", "metric": headline.metric, "scoring": headline.scoring,
                 "split": "heldout", "value": value, "low": low, "high": high, "n": 9, "edition": "e",
                 "higher_is_better": better, "paraphrases": ("A",), "orders": ("natural",)}  # fmt: skip
        group, seed = seeds[number] if seeds else (number, 0)
        scores = [score, score | {"metric": "off_options", "value": others[number] if others else 0.5}]
        manifest = {"tasks": [{"name": spec.name, "hash": "0" * 64, "country": "SA"}], "country": "SA", "seed": seed,
                    "model": {"name": "m", "revision": "r", "dtype": "d", "device": "c", "threads": 1,
                              "chat_template": None, "forward": "f"},
                    "aligner": {"name": f"a{group}", "settings": {}, "adapter_sha256": None}, "fitted": None,
                    "versions": {}, "command": "", "answers": {"sha256": f"{number:064x}", "rows": 1},
                    "budget": {"item_forwards_allowed": 0, "item_forwards": 0, "survey_evaluations": 0, "tokens": 0,
                               "seconds": 0}}  # fmt: skip
        entries.append(collect.Entry(name=f"n{number}", key="k", manifest=manifest, scores=scores))
    found = {one.entry.name: one for one in rank._ranked(entries, spec, [], {})}
    return [(found[f"n{number}"].rank, found[f"n{number}"].basis) for number in range(len(values))]


def test_intervals_that_overlap_share_a_rank():
    """.9 is above all; .7 and .6 overlap each other; .3 lies below .9 and .7, and overlaps .6 by its upper end."""
    intervals = [(0.85, 0.95), (0.62, 0.78), (0.35, 0.65), (0.2, 0.4)]
    assert fake([0.9, 0.7, 0.6, 0.3], intervals) == [(1, "interval"), (2, "interval"), (2, "interval"), (3, "interval")]
    assert fake([0.5, 0.5], [(0.4, 0.5), (0.5, 0.6)]) == [(1, "interval")] * 2  # touching is not better


def test_three_seeds_stand_for_noise_two_do_not():
    seeds = [("x", 0), ("x", 1), ("x", 2), ("y", 0), ("y", 1)]
    assert fake([10.0, 30.0, 20.0, 25.0, 40.0], seeds=seeds, better=False) == [
        (1, "seeds"), (1, "seeds"), (1, "seeds"), (1, None), (5, None)
    ]  # fmt: skip


def test_seeds_that_change_nothing_bound_nothing():
    """Whatever the hashes of the files are; three seeds that differ elsewhere have a range of the headline."""
    seeds = [("x", 0), ("x", 1), ("x", 2)]
    for others, basis in (([0.7, 0.7, 0.7], None), ([0.7, 0.7, 0.8], None), ([0.7, 0.8, 0.9], "seeds")):
        assert {found for _, found in fake([1.0, 1.0, 1.0], seeds=seeds, others=others)} == {basis}


def test_same_seed_twice_is_one_seed():
    assert {basis for _, basis in fake([1.0, 2.0, 3.0], seeds=[("x", 0), ("x", 0), ("x", 1)])} == {None}


def test_the_suite_is_what_its_tasks_are_today():
    assert current() == read_suite(), "raise its version, then: python -m culteval.leaderboards.suite > suite.json"


def test_no_mean_over_tasks_and_no_row_for_a_task_not_answered(board_pages):
    boards = data_of(board_pages / "data" / "boards.js", "boards")
    names = [submission["name"] for submission in boards["submissions"]]
    for board in boards["boards"]:
        mine = {names[row["s"]] for row in board["rows"]}
        assert mine == {
            n
            for n in names
            if n.startswith({"wvs": "wvs", "culture_core": "quiz"}.get(board["task"], ("d", "n", "s", "h")))
        }
    assert [b["inSuite"] for b in boards["boards"]] == [True, False, False]  # limited ones are boards of their own
