"""``culteval leaderboard show``: trivial rows among the runs, the random-prefix control, sets of countries, figures."""

from __future__ import annotations

import json
import re
from statistics import fmean, stdev

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.harness.cli.main import cli
from culteval.harness.registry import spec_of
from culteval.harness.report.tables import headline_of
from culteval.harness.scoring.score import TaskCache
from culteval.harness.scoring.submission import load_submission
from culteval.leaderboards.boards import boards
from culteval.leaderboards.country_sets import aligned_sets
from culteval.leaderboards.entries import entries
from culteval.leaderboards.leaderboard import leaderboard
from culteval.leaderboards.literature import reported, reported_for
from culteval.leaderboards.suite import read_suite
from culteval.tasks.answers import Answers
from culteval.tasks.metrics.hofstede import means_with
from culteval.tasks.metrics.reference import scores_of
from culteval.tasks.prompts import ProtocolOptions, render_protocol

from ..submission_files import lines_of, reseal


def saying(means):
    """Answers to vsm13 with these item means: the same in every paraphrase, so that fit and heldout agree."""
    layout = render_protocol(spec_of("vsm13"), ProtocolOptions()).layout
    probs = np.maximum(1 - abs(layout.codes - np.clip(means, 1, 5)[layout.item][:, None]), 0)
    return {"vsm13": Answers(layout, probs[None], np.zeros((1, len(layout))))}


def answers(seed, strength=0.5):
    """Answers around the middle of the scale."""
    return saying(3 + strength * np.random.default_rng(seed).normal(size=24))


@pytest.fixture
def folder(tmp_path, submit):
    """Five prefixes made for Brazil (one seed twice), two searches and nothing for the United States and Brazil."""
    for seed in range(5):
        submit(tmp_path / f"u{seed}", answers(seed, 0.1), "BR", "random_prefix", seed, settings={"tokens": 10})
    submit(tmp_path / "u0us", answers(0, 0.1), "US", "random_prefix", 0, settings={"tokens": 10})
    for code in ("US", "BR"):
        submit(tmp_path / f"de{code}", answers(90), code, "de", allowed=960)
        submit(tmp_path / f"naive{code}", answers(0, 0.1), code, "naive")
    submit(tmp_path / "random", answers(91), "US", "random", allowed=960)
    return tmp_path


def by_country(folder):
    return {board.key.country: board for board in boards(entries(folder, print), TaskCache(), read_suite())}


def rows_of(board):
    return {row.aligner: row for row in board.rows()}


@pytest.mark.parametrize("country", ["US", "BR"])
def test_the_control_is_one_row_for_every_country(folder, country):
    """Its prompts look at no country: runs made for Brazil are scored against the United States, each seed once."""
    rows = rows_of(by_country(folder)[country])
    control = rows["random prefix (5)"]
    assert not any("random_prefix" in name for name in rows)
    column = headline_of(spec_of("vsm13"))
    values = [
        next(s.value for s in load_submission(folder / f"u{seed}" / "submission").score(country)
             if (s.metric, s.scoring, s.split) == ("loss", "expected", "heldout")) for seed in range(5)
    ]  # fmt: skip
    assert column.find(control.scores).value == pytest.approx(fmean(values))
    assert control.spread["loss", "expected", "heldout"] == pytest.approx(stdev(values))
    constant = column.find(rows["constant"].scores).value
    for name, row in rows.items():
        value = column.find(row.scores).value
        beyond = value < min(constant, fmean(values) - 2 * stdev(values))
        assert row.improvement == (beyond if name[-3:] == " s0" else None), (
            name
        )  # a row of no aligner is none and lacks none
    assert rows["naive s0"].improvement is False  # one of the prefixes, in effect


def towards(country, share):
    """Answers with indices some share of the way from the world's mean to the country's."""
    published = scores_of(spec_of("vsm13"), None)
    return saying(3 + share * (means_with(published.target(country), published.world) - 3))


def test_a_gain_is_over_all_that_comes_without_alignment(folder, submit):
    """Nearer than constant and prefixes is one; not with one answer given 24 times, nor behind the constant answer."""
    submit(folder / "near", towards("US", 0.9), "US", "near")
    submit(folder / "flat", towards("US", 0.1), "US", "flat")
    submit(folder / "away", towards("US", -0.02), "US", "away")
    rows = rows_of(by_country(folder)["US"])
    column = headline_of(spec_of("vsm13"))
    flat, away, constant = (column.find(rows[name].scores) for name in ("flat s0", "away s0", "constant"))
    assert flat.note == "collapsed" and flat.value < constant.value < away.value
    assert {name: rows[f"{name} s0"].improvement for name in ("near", "flat", "away")} == {
        "near": True,
        "flat": False,
        "away": False,
    }


def test_the_control_s_spread_is_exported(folder):
    done = CliRunner().invoke(cli, ["leaderboard", "export", str(folder), "--format", "json", "--country", "US"])
    place = ("loss", "expected", "heldout")
    told = {
        row["aligner"]: row["spread"]
        for row in json.loads(done.stdout)
        if (row["metric"], row["scoring"], row["split"]) == place
    }
    control = next(row for row in by_country(folder)["US"].baselines if row.spread)
    assert told.pop(control.name) == control.spread[place] > 0
    assert len(told) > 2 and set(told.values()) == {None}


def test_rows_are_ranked_among_each_other(folder):
    board = by_country(folder)["US"]
    assert {"constant", "random prefix (5)", "naive s0", "de s0", "random s0"} == set(rows_of(board))
    values = [headline_of(board.spec).find(row.scores).value for row in board.rows()]
    assert values == sorted(values)


def test_what_a_board_owes_is_said(folder, submit):
    notes = {code: " | ".join(board.notes) for code, board in by_country(folder).items()}
    assert "5 of the 24 seeds of a control" in notes["US"] and "also uniform and world mean" in notes["US"]
    assert "no `random` at the budget of de (960 item forwards)" in notes["BR"] and "no `random`" not in notes["US"]
    for path in folder.glob("u[1-4]"):
        (path / "scores.json").unlink()
    for board in by_country(folder).values():  # one prefix has no spread: it stands as the run it is
        assert "no random-prefix control" in " | ".join(board.notes)
        assert True not in {row.improvement for row in board.rows()}  # what lies above the constant may be one or not
    assert "random_prefix s0" in rows_of(by_country(folder)["US"])


def test_controls_of_two_lengths_must_both_be_beaten(folder, submit):
    """Longer prefixes that wander farther are a row of their own, and an improvement is one over both."""
    for seed in range(4):
        submit(folder / f"long{seed}", answers(50 + seed, 3.0), "US", "random_prefix", seed, settings={"tokens": 40})
    rows = rows_of(by_country(folder)["US"])
    assert {"random prefix (5), tokens 10", "random prefix (4), tokens 40"} <= set(rows)
    assert not any(row.improvement for name, row in rows.items() if "prefix" not in name)


def rebuilt(path, **fields):
    """Give the model of a submission other fields."""
    manifest = path / "submission" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["model"] |= fields
    manifest.write_text(json.dumps(data))


BUILDS = {
    "revision": {"revision": "s"},
    "adapter": {"adapter_sha256": "ab" * 32},
    "chat": {"chat": {"system": "Answer as they would.\n\u202e"}},
}


@pytest.mark.parametrize("part", BUILDS)
def test_a_control_is_of_one_build_of_a_model(tmp_path, submit, part):
    """Prefixes before other weights, another adapter or another system prompt are a control of their own."""
    for seed in range(4):
        submit(tmp_path / f"u{seed}", answers(seed, 0.1 if seed < 3 else 3.0), "US", "random_prefix", seed)
    submit(tmp_path / "near", towards("US", 0.9), "US", "near")
    assert "random prefix (4)" in rows_of(by_country(tmp_path)["US"])
    rebuilt(tmp_path / "u3", **BUILDS[part])
    rows = rows_of(by_country(tmp_path)["US"])
    assert "random prefix (3), m float32" in " ".join(rows) and "random_prefix s3" in rows
    rebuilt(tmp_path / "u2", **BUILDS[part])
    board = by_country(tmp_path)["US"]
    column, found = headline_of(board.spec), {row.name: row for row in board.baselines if row.spread}
    assert len(found) == 2 and all(name.isprintable() for name in found)
    for pair in ((0, 1), (2, 3)):
        scores = [load_submission(tmp_path / f"u{seed}" / "submission").score() for seed in pair]
        values = [column.find(each).value for each in scores]
        assert fmean(values) in [pytest.approx(column.find(row.scores).value) for row in found.values()]
    assert rows_of(board)["near s0"].improvement is True  # the other build's prefixes vary more
    rebuilt(tmp_path / "near", **BUILDS[part])
    assert rows_of(by_country(tmp_path)["US"])["near s0"].improvement is False
    for seed in (2, 3):
        (tmp_path / f"u{seed}" / "scores.json").unlink()
    board = by_country(tmp_path)["US"]
    assert rows_of(board)["near s0"].improvement is None
    (note,) = (note for note in board.notes if note.startswith("no random-prefix control of m float32, "))
    assert part in note and note.isprintable()


def test_one_run_under_several_seeds_has_no_range(tmp_path, submit):
    """Lines in another order are the same answers, and answers to another task are no noise of this one."""
    given = towards("US", 0.9)
    layout = render_protocol(spec_of("general"), ProtocolOptions()).layout
    for seed in range(3):
        probs = np.random.default_rng(seed).random(layout.codes.shape) * layout.inside
        probs /= probs.sum(-1, keepdims=True)
        given["general"] = Answers(layout, probs[None], np.zeros((1, len(layout))))
        home = submit(tmp_path / f"s{seed}", given, "US", "near", seed) / "submission"
        lines = lines_of(home)
        reseal(home, [lines[at] for at in np.random.default_rng(seed).permutation(len(lines))])
    found = leaderboard(tmp_path, warn=pytest.fail)
    (board,), table = found.select("vsm13"), found.overview()
    assert {(one.basis, one.place) for one in board.standings} == {(None, "(1)")}
    (row,) = (row for row in table.rows if row.submissions)
    cells = {column.metric: cell for cell, column in zip(row.cells, table.columns, strict=True)}
    assert (cells["skill"].basis, cells["skill"].seeds) == (None, 3) and cells["accuracy"].basis == "interval"


def test_the_table_and_its_forms(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    shown = {form: CliRunner().invoke(cli, ["leaderboard", "show", str(folder), "--format", form])
             for form in ("terminal", "md", "json")}  # fmt: skip
    assert {done.exit_code for done in shown.values()} == {0}
    text = shown["terminal"].output
    assert "random prefix (5)" in text and " ± " in text and "than the random prefixes by two" in " ".join(text.split())
    assert "between-country R2: needs 6 countries, at most 2 here" in text
    assert "other protocol" in text and "14,497" in text and "arXiv:2503.16094" in text
    first, _, boards_of = shown["md"].output.partition("### vsm13")
    assert first.startswith("### Overview") and "| de " in first
    ranked, _, reported = boards_of.partition("### vsm13: reported elsewhere")
    lines = [line for line in ranked.splitlines() if line.startswith("|")]
    assert (
        "14,497" in reported and len({line.count("|") for line in lines}) == 1 and any(" no " in line for line in lines)
    )
    names = {row["aligner"] for row in json.loads(shown["json"].output)["scores"]}
    assert {"constant", "random prefix (5)", "de"} <= names


def test_a_narrow_terminal_has_whole_numbers_and_says_what_it_leaves_out(folder, submit, monkeypatch):
    for code in ("US", "BR", "CN", "DE", "IN", "MX"):
        submit(folder / f"icl{code}", answers(len(code)), code, "icl")

    def show(width):
        monkeypatch.setenv("COLUMNS", str(width))
        return CliRunner().invoke(cli, ["leaderboard", "show", str(folder)]).output

    wide, narrow = show(200), show(80)
    assert "not shown at this width" not in wide
    assert max(map(len, narrow.splitlines())) <= 80
    numbers = set(re.findall(r"\d[\d,.]*", wide))
    lines = [line for line in narrow.splitlines() if line.startswith(" icl s0 ")]
    assert len(lines) > 6 and all(set(re.findall(r"\d[\d,.]*", line)) <= numbers for line in lines)
    first = narrow[narrow.index("vsm13, ") :].partition("\n\n")[0]
    left_out = first.partition("not shown at this width: ")[2]
    assert "sec" in left_out and "improvement" in first and "rank" in first and "heldout expected" not in left_out


def test_without_a_control_a_gain_is_not_known_and_none_may_be(tmp_path, submit):
    submit(tmp_path / "a", towards("US", 0.9), "US", "near")
    done = CliRunner().invoke(cli, ["leaderboard", "show", str(tmp_path)])
    assert "improvement" not in done.output.split("loss:")[0]
    submit(tmp_path / "b", answers(1), "US", "naive")
    (board,) = boards(entries(tmp_path, print), TaskCache(), read_suite())
    known = {name: row.improvement for name, row in rows_of(board).items() if row.spent}
    assert known == {"near s0": None, "naive s0": False}


def test_sets_of_six_countries(folder, submit, monkeypatch):
    """Seven countries by one aligner and seed are a set; another seed, and a run scored elsewhere, are not of it."""
    monkeypatch.setenv("COLUMNS", "140")
    codes = ("US", "BR", "CN", "DE", "IN", "MX", "JP")
    for code in codes:
        submit(folder / f"icl{code}", answers(1), code, "icl")  # says the same everywhere
    submit(folder / "icl1", answers(1), "US", "icl", seed=1)
    submit(folder / "elsewhere", answers(1), "FR", "icl", fitted="US")
    rebuilt = submit(folder / "rebuilt", answers(2), "PL", "gd") / "submission" / "manifest.json"
    submit(folder / "built", answers(2), "TR", "gd")
    rebuilt.write_text(rebuilt.read_text().replace('"revision": "r"', '"revision": "s"'))
    found = aligned_sets(entries(folder, print), TaskCache())
    assert sorted(each.countries for each in found if each.name == "gd s0") == [("PL",), ("TR",)]  # other weights
    sets = {each.name: each for each in found}
    assert sets["icl s0"].countries == tuple(sorted(codes)) and sets["icl s1"].centred is None
    assert sets["icl s0"].centred.explained_variance["all"] == pytest.approx(0)
    assert not any(name.startswith("random_prefix") for name in sets)
    text = CliRunner().invoke(cli, ["leaderboard", "show", str(folder)]).output
    line = next(line for line in text.splitlines() if line.strip().startswith("icl s0 "))
    (*_, table) = text.partition("): between-country R2")
    line = next(line for line in table.splitlines() if line.strip().startswith("icl s0 "))
    assert line.split()[2:5] == ["7", "0.00", "-"]
    assert "needs 6 countries: " in table and "icl s1 (1)" in table
    for words in (["show", "--format", "md"], ["export", "--format", "md", "--country", "FR"]):
        lines = CliRunner().invoke(cli, ["leaderboard", words[0], str(folder), *words[1:]]).output.splitlines()
        assert any(line.startswith("| icl s0 | 7 | 0.00 | - |") for line in lines), words
    text = CliRunner().invoke(cli, ["leaderboard", "export", str(folder), "--format", "latex"]).output
    assert r"icl s0 & 7 & 0.00 & {-} &" in text and r"\label{tab:between-vsm13}" in text
    rows = json.loads(CliRunner().invoke(cli, ["leaderboard", "export", str(folder), "--format", "json"]).output)
    values = {row["metric"]: row["value"] for row in rows if row["kind"] == "set" and row["aligner"] == "icl"}
    assert values["explained_variance_all"] == pytest.approx(0) and values["correlation_all"] is None
    assert {row["kind"] for row in rows} == {
        "overview",
        "overview baseline",
        "submission",
        "baseline",
        "set",
        "reported",
    }


def test_reported_figures_have_source_and_mark():
    assert reported_for("vsm13") and reported_for("wvs_text") and not reported_for("general")
    for row in reported():
        assert "arXiv:" in row.source and row.mark.startswith("other protocol: ")
        for task in row.tasks:
            spec_of(task) if task != "culturalbench_hard" else None
    llama = next(row for row in reported_for("wvs") if "exact match" in row.metric)
    assert llama.figures == {"no training": 0.3162, "CLCA": 0.3973} and llama.higher_is_better


def test_a_run_that_cannot_be_scored_here_is_left_out(folder):
    """An edition that only its maker has imported: named on standard error, the others stand."""
    path = folder / "deUS" / "submission" / "manifest.json"
    path.write_text(path.read_text().replace('"edition": null', '"edition": "theirs"'))
    done = CliRunner().invoke(cli, ["leaderboard", "show", str(folder)])
    assert done.exit_code == 0 and "note: left out: " in done.stderr
    assert "`edition` 'theirs'" in done.stderr
    assert "random prefix (5)" in done.stdout
