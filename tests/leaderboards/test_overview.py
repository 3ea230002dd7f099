"""``culteval leaderboard show --overview``: means of what is comparable, a row an aligner, a column a task.

Expected values are computed here from the scores of single submissions, as ``culteval score`` has them.
"""

import json
from statistics import fmean

import pytest
from click.testing import CliRunner
from culteval.harness.cli.main import cli
from culteval.harness.scoring.submission import score
from culteval.harness.submissions.reader import read_submission
from culteval.harness.submissions.writer import write_submission
from culteval.leaderboards.leaderboard import leaderboard
from culteval.leaderboards.overview_builder import overview, scopes
from culteval.leaderboards.pooling import Cell, SetValue, Value, compared, pooled, pooled_sets, ranked, usual_countries
from culteval.leaderboards.render.overview_data import overview_pages
from culteval.leaderboards.suite import read_suite
from culteval.tasks.score import Score

from ..board_files import SPENT, write


def show(folder, form="json"):
    """The rows of runs and baselines, without the folded seeds."""
    done = CliRunner().invoke(cli, ["leaderboard", "show", str(folder), "--overview", "--format", form])
    assert done.exit_code == 0, done.output
    return (
        [row for row in json.loads(done.stdout)["overview"] if row["seed"] is None] if form == "json" else done.stdout
    )


def value_of(country, seed, value, low=None, high=None, answers=None, improvement=None, note=None):
    one = Score(
        task="t", country=country, metric="m", scoring="argmax", split="heldout", value=value, low=low, high=high, n=9,
        higher_is_better=True, edition="e", paraphrases=("p",), orders=("natural",), note=note,
    )  # fmt: skip
    return Value(country, seed, answers or f"{country}{seed}", one, improvement)


def test_a_country_counts_once_whatever_its_seeds():
    cell = pooled([value_of("US", 0, 0.2), value_of("US", 1, 0.4), value_of("US", 2, 0.6), value_of("BR", 0, 1.0)])
    assert cell.value == pytest.approx(((0.2 + 0.4 + 0.6) / 3 + 1.0) / 2)
    assert (cell.countries, cell.runs, cell.seeds) == (("BR", "US"), 4, 3)
    assert cell.basis is None and cell.low is None  # one seed of Brazil has no range
    assert pooled([]).value is None and pooled([]).reason


def test_the_range_of_intervals_is_the_mean_of_bounds():
    """Wider than the interval of a mean of independent runs, and exact for runs that share all questions."""
    cell = pooled(
        [value_of("US", 0, 0.5, 0.3, 0.8), value_of("US", 1, 0.6, 0.5, 0.8), value_of("BR", 0, 0.2, 0.0, 0.4)]
    )
    assert (cell.low, cell.high, cell.basis) == (
        pytest.approx((0.4 + 0.0) / 2),
        pytest.approx((0.8 + 0.4) / 2),
        "interval",
    )
    one_without = pooled([value_of("US", 0, 0.5, 0.3, 0.8), value_of("BR", 0, 0.2)])
    assert one_without.basis is None


def test_the_range_of_seeds():
    two = [value_of(code, seed, 0.1 * seed + base) for code, base in (("US", 0.2), ("BR", 0.5)) for seed in (0, 1)]
    cell = pooled(two)
    assert (cell.basis, cell.low, cell.high) == ("seeds", pytest.approx(0.35), pytest.approx(0.45))
    assert pooled(two[:2]).basis is None  # one country needs three seeds, as on its board
    three = pooled([*two[:2], value_of("US", 2, 0.9)])
    assert (three.basis, three.low, three.high) == ("seeds", pytest.approx(0.2), pytest.approx(0.9))
    twice = [value_of("US", 0, each, answers=f"{each}") for each in (0.1, 0.2, 0.3)]
    assert pooled(twice).basis is None  # one seed, repeated elsewhere
    same = [value_of(code, seed, 0.5, answers=code) for code in ("US", "BR") for seed in (0, 1, 2)]
    assert pooled(same).basis is None  # equal answers of all seeds are no noise that was measured


def test_improvements_and_collapsed_runs_are_counted():
    cell = pooled([
        value_of("US", 0, 1, improvement=True), value_of("US", 1, 1, improvement=False, note="collapsed"),
        value_of("BR", 0, 1),
    ])  # fmt: skip
    assert (cell.improvements, cell.judged, cell.collapsed, cell.runs) == (1, 2, 1, 3)


def test_ranks_have_ties_and_compare_the_same_countries_only():
    both = ("BR", "US")
    cells = {
        "a": Cell(0.9, 0.8, 1.0, "interval", both), "b": Cell(0.85, 0.7, 0.9, "interval", both),
        "c": Cell(0.5, 0.4, 0.6, "seeds", both), "d": Cell(0.55, countries=both), "e": Cell(1.0, countries=("US",)),
        "f": Cell(reason="none"),
    }  # fmt: skip
    placed = ranked(cells, both, True)
    assert {name: cell.place for name, cell in placed.items()} == {
        "a": "1", "b": "1", "c": "3", "d": "(3)", "e": "-", "f": "-",
    }  # fmt: skip
    assert placed["e"].reason == "not ranked: mean over US" and placed["f"].reason == "none"
    assert [ranked(cells, both, False)[name].rank for name in "abcd"] == [3, 3, 1, 1]


def test_the_unaligned_model_is_compared_on_the_same_countries():
    base = Cell(0.5, countries=("US",))
    high, low, wide, point = (
        Cell(0.7, 0.6, 0.8, "seeds", ("US",)), Cell(0.3, 0.2, 0.4, "seeds", ("US",)),
        Cell(0.7, 0.4, 0.9, "seeds", ("US",)), Cell(0.9, countries=("US",)),
    )  # fmt: skip
    assert [compared(cell, base, True).effect for cell in (high, low, wide, point)] == ["helps", "costs", None, None]
    assert [compared(cell, base, False).effect for cell in (high, low)] == ["costs", "helps"]
    assert compared(high, base, True).unaligned == 0.5
    assert [compared(high, base, True, noise).effect for noise in (0.19, 0.21)] == ["helps", None]
    assert compared(high, Cell(0.1, countries=("BR", "US")), True) == high


def test_sets_over_other_countries_are_not_averaged():
    six, seven = tuple("ABCDEF"), tuple("ABCDEFG")
    values = [SetValue(0, 0.2, six), SetValue(1, 0.4, six), SetValue(2, 0.9, seven)]
    assert pooled_sets(values, six).value == pytest.approx(0.3) and pooled_sets(values, six).seeds == 2
    assert pooled_sets(values, seven).value == 0.9
    assert pooled_sets(values, tuple("ABCDEFX")).countries == six
    three = [SetValue(seed, value, six) for seed, value in enumerate((0.1, 0.2, 0.6))]
    assert pooled_sets(three, six).bounds == (0.1, 0.6)


def test_several_sets_of_one_seed_are_all_averaged():
    six = tuple("ABCDEF")
    cell = pooled_sets([SetValue(0, value, six) for value in (0.1, 0.2, 0.6)], six)
    assert (cell.value, cell.seeds, cell.runs) == (pytest.approx(0.3), 1, 18)
    assert cell.basis is None  # one seed has no range


SIX, FOUR = tuple("ABCDEF"), tuple("ABCD")


@pytest.mark.parametrize(
    ("sets", "usual"),
    [
        ([("US", "BR"), ("BR", "US"), ("US",), ()], ("BR", "US")),
        ([("US",), ("BR", "CN")], ("BR", "CN")),  # each is half of the rows
        ([SIX] * 5 + [FOUR] * 2, SIX),  # 30 against 28 runs
        ([SIX] * 2 + [FOUR] * 5, FOUR),
        ([SIX] * 5 + [tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")] * 2, SIX),  # too few rows have all of them
        ([], ()),
    ],
)
def test_the_countries_that_rows_are_compared_on(sets, usual):
    assert usual_countries(sets) == usual


def value(folder, metric="skill", scoring="expected"):
    """The held-out headline of a submission, as ``culteval score`` has it."""
    rows = score(folder)
    (found,) = [row for row in rows if (row.metric, row.scoring, row.split) == (metric, scoring, "heldout")]
    return found.value


def by_row(records, metric):
    return {row["aligner"]: row for row in records if row["metric"] == metric and row["value"] is not None}


def test_means_over_seeds_then_countries(tmp_path):
    """A country with three seeds counts as much as one with a single seed."""
    us = [write(tmp_path, f"us{seed}", country="US", seed=seed) for seed in range(3)]
    br = write(tmp_path, "br", country="BR", seed=9)
    quiz = write(tmp_path, "quiz", task="culture_core", country="US", aligner="de", seed=4)
    records = show(tmp_path)
    skill, accuracy = by_row(records, "skill"), by_row(records, "accuracy")
    expected = (sum(map(value, us)) / 3 + value(br)) / 2
    assert skill["de"]["value"] == pytest.approx(expected, rel=1e-12) and skill["de"]["country"] == "BR US"
    assert (skill["de"]["runs"], skill["de"]["seeds"]) == (4, 4) and skill["constant"]["value"] == pytest.approx(
        0, abs=1e-12
    )
    assert accuracy["de"]["value"] == pytest.approx(value(quiz, "accuracy", "argmax"), rel=1e-12)
    assert accuracy["uniform"]["value"] == pytest.approx(0.25, abs=1e-12)  # four options a question


def test_what_is_not_comparable_is_not_averaged(tmp_path):
    """Another model, revision, budget, setting or fit is another row, another edition another column."""
    other_budget = SPENT | {"item_forwards_allowed": 960}
    fitted = {"tasks": ["wvs"], "country": "SA", "scoring": "expected", "norm": "sse"}
    made = {
        ("de", "tiny-8B float32", ""): write(tmp_path, "a"),
        ("de", "other-1B float32", ""): write(tmp_path, "b", model="other-1B", seed=1),
        ("gd", "tiny-8B float32", "480 item forwards, tokens=10"): write(tmp_path, "c", aligner="gd", seed=2),
        ("gd", "tiny-8B float32", "960 item forwards, tokens=10"): write(
            tmp_path, "d", aligner="gd", seed=3, budget=other_budget
        ),
        ("gd", "tiny-8B float32", "480 item forwards, tokens=20"): write(
            tmp_path, "e", aligner="gd", seed=4, settings={"tokens": 20}
        ),
        ("icl", "tiny-8B float32", "fit tasks=vsm13"): write(tmp_path, "g", aligner="icl", seed=6),
        ("icl", "tiny-8B float32", "fit country=US, fit tasks=vsm13"): write(
            tmp_path, "h", aligner="icl", seed=7, fitted=fitted | {"tasks": ["vsm13"], "country": "US"}
        ),
        ("icl", "tiny-8B float32", "fit tasks=wvs"): write(tmp_path, "i", aligner="icl", seed=8, fitted=fitted),
        ("pso", "tiny-8B float32", "model revision=r1"): write(tmp_path, "j", aligner="pso", seed=9),
        ("pso", "tiny-8B float32", "model revision=r2"): write(tmp_path, "k", aligner="pso", seed=10),
    }
    manifest = tmp_path / "k" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"r1"', '"r2"'))
    found = [row for row in show(tmp_path) if row["metric"] == "skill" and row["kind"] == "overview"]
    named = {(row["aligner"], row["model"], row["detail"]): row["value"] for row in found}
    assert named == pytest.approx({name: value(path) for name, path in made.items()})
    other = write(tmp_path, "f", country="US", seed=5)
    manifest = other / "manifest.json"
    data = json.loads(manifest.read_text())
    data["tasks"][0]["edition"] = "2015"
    manifest.write_text(json.dumps(data))
    titles = {row["variant"] for row in show(tmp_path) if row["metric"] == "skill"}
    assert len(titles) == 2 and any("2015" in title for title in titles)


def together(home, name, *paths, **more):
    """One submission with the answers of several to different tasks; ``more`` are fields of its manifest."""
    read = [read_submission(path) for path in paths]
    manifest = read[0][0].model_dump(mode="json", exclude={"answers"})
    tasks = [task.model_dump(mode="json") for each, _ in read for task in each.tasks]
    given = {task: answers for _, each in read for task, answers in each.items()}
    write_submission(home / name, manifest | {"tasks": tasks} | more, given)


def test_rows_are_told_apart_by_what_was_fitted_not_by_what_was_answered(tmp_path):
    """Fitted to one questionnaire, whichever others were answered, is one row; fitted to two is another."""
    parts, home = tmp_path / "parts", tmp_path / "board"
    for seed in range(3):
        for task in ("vsm13", "wvs"):
            write(parts, f"{task}{seed}", task=task, country="US", seed=seed)
    both = {"tasks": ["wvs", "vsm13"], "country": "US", "scoring": "expected", "norm": "sse"}
    together(home, "one", parts / "vsm130")
    together(home, "two", parts / "vsm131", parts / "wvs1")
    together(home, "three", parts / "vsm132", parts / "wvs2", fitted=both)
    rows = [row for row in leaderboard(home, warn=pytest.fail).overview().rows if row.submissions]
    found = {row.detail: sorted(name for _, name in row.submissions) for row in rows}
    assert found == {"fit tasks=vsm13": ["one", "two"], "fit tasks=vsm13 wvs": ["three"]}


def test_the_unaligned_model_is_one_row_whatever_it_would_have_been_fitted_to(tmp_path):
    """Six countries answered twice with one seed are two sets, and the row has the mean of both."""
    from culteval.harness.analysis.between_countries import ALL

    fitted = {"tasks": ["wvs"], "scoring": "expected", "norm": "sse"}
    for tilt, code in enumerate(("US", "BR", "CN", "DE", "IN", "MX"), start=1):
        own = {"country": code, "aligner": "naive"}
        write(tmp_path, f"a{code}", tilt=tilt / 3, **own)
        write(tmp_path, f"b{code}", tilt=2 / tilt, fitted=fitted | {"country": code}, **own)
    board = leaderboard(tmp_path, warn=pytest.fail)
    values = [each.centred.explained_variance[ALL] for each in board.sets]
    assert len(set(values)) == 2
    (row,) = (row for row in board.overview().rows if row.submissions)
    (between,) = (cell for cell, column in zip(row.cells, board.overview().columns, strict=True)
                  if column.metric == "between_country_r2")  # fmt: skip
    assert between.value == pytest.approx(fmean(values)) and row.name == "naive" and len(row.submissions) == 12


def test_a_row_with_fewer_countries_is_marked_unranked_and_beside_the_unaligned_model(tmp_path):
    for country in ("US", "BR"):
        write(tmp_path, f"naive{country}", country=country, aligner="naive", seed=len(country) + ord(country[0]))
    gd = write(tmp_path, "gd", country="US", aligner="gd", seed=3)
    text = show(tmp_path, "md")
    names = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| ")][1:3]
    assert names == [["| (1)", "naive"], ["| -", "gd, US only"]]
    assert "gd, US only: not ranked: mean over US" in text
    found = by_row(show(tmp_path), "skill")
    assert found["gd"]["value"] == pytest.approx(value(gd)) and found["gd"]["country"] == "US"
    assert found["gd"]["rank"] is None and found["gd"]["note"] == "not ranked: mean over US"
    assert found["gd"]["unaligned"] == pytest.approx(value(tmp_path / "naiveUS"))
    blank = next(row for row in show(tmp_path) if row["metric"] == "between_country_r2" and row["aligner"] == "gd")
    assert blank["value"] is None and blank["note"] == "between-country R2 needs 6 countries, has 1"


def test_a_mean_over_fewer_countries_in_one_column_says_so_in_its_cell(tmp_path, monkeypatch):
    """A row that has all countries of the first questionnaire keeps its name."""
    monkeypatch.setenv("COLUMNS", "200")
    fitted = {"tasks": ["vsm13"], "scoring": "expected", "norm": "sse"}
    for number, (aligner, asked) in enumerate({"naive": 4, "de": 4, "icl": 2, "gd": 1}.items()):
        for place, code in enumerate(("US", "BR", "CN", "DE")):
            for task in ("vsm13", "wvs") if place < asked else ("vsm13",):
                own = {"country": code, "aligner": aligner, "seed": 4 * number + place}
                write(tmp_path, f"{task}{aligner}{code}", task=task, fitted=fitted | {"country": code}, **own)
    text = show(tmp_path, "md")
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    columns = [next(at for at, name in enumerate(lines[0]) if name.startswith(begin)) for begin in ("vsm13: s", "wvs")]
    cells = {line[1]: [line[at] for at in columns] for line in lines[1:]}
    assert cells["gd"][1].endswith(", US only") and cells["icl"][1].endswith(", 2 of 4 countries")
    for whole in (*cells["naive"], *cells["de"], cells["gd"][0], cells["icl"][0], *cells["constant"]):
        assert " only" not in whole and "countries" not in whole
    assert "gd in wvs: not ranked: mean over US  \n" in text
    assert "icl in wvs: not ranked: mean over BR, US  \n" in text
    latex = CliRunner().invoke(cli, ["leaderboard", "export", str(tmp_path), "--format", "latex"]).output
    for shown in (show(tmp_path, "terminal"), latex):
        assert ", US only " in shown and ", 2 of 4 countries " in shown


def test_runs_without_a_score_are_counted(tmp_path, monkeypatch):
    """A mean over the runs whose answers could be read is marked as one."""
    from culteval.leaderboards import entries as collect

    for seed in range(3):
        write(tmp_path, f"de{seed}", seed=seed)
    known = value(tmp_path / "de0"), value(tmp_path / "de2")
    made = collect.entry_of

    def without(found, shelf):
        entry, submission = made(found, shelf)
        left = [score for score in entry.scores if found.name != "de1" or score.metric != "skill"]
        return entry.model_copy(update={"scores": tuple(left)}), submission

    monkeypatch.setattr(collect, "entry_of", without)
    found = by_row(show(tmp_path), "skill")["de"]
    assert found["value"] == pytest.approx(fmean(known)) and found["runs"] == 2
    assert found["note"] == "1 of 3 runs without a score of vsm13"
    text = show(tmp_path, "md")
    assert "de: 1 of 3 runs without a score of vsm13" in text and f"{fmean(known):.2f}†" in text


def test_a_row_with_more_countries_is_pooled_over_those_of_the_others(tmp_path):
    for country in ("US", "BR"):
        for aligner, seed in (("gd", 1), ("de", 2), ("cma", 3)):
            write(tmp_path, f"{aligner}{country}", country=country, aligner=aligner, seed=seed + 10 * ord(country[0]))
    write(tmp_path, "deJP", country="JP", aligner="de", seed=9)
    found = by_row(show(tmp_path), "skill")
    expected = fmean(value(tmp_path / f"de{country}") for country in ("US", "BR"))
    assert found["de"]["value"] == pytest.approx(expected) and found["de"]["country"] == "BR US"
    assert {found[name]["rank"] for name in ("de", "gd", "cma")} == {1, 2, 3}


def test_sets_of_countries_to_compare_on_and_the_seeds_of_a_row(tmp_path):
    for country, seeds in (("US", (0, 1, 2)), ("BR", (0, 1)), ("CN", (0,))):
        for seed in seeds:
            write(tmp_path, f"de{country}{seed}", country=country, seed=seed)
            if country != "CN":
                write(tmp_path, f"gd{country}{seed}", country=country, aligner="gd", seed=seed)
    board = leaderboard(tmp_path, warn=pytest.fail)
    assert scopes(board.rows) == [("BR", "CN", "US"), ("BR", "US"), ("BR",), ("CN",), ("US",)]
    every, two = (overview(board.rows, board.answers.shelf, codes) for codes in (None, ("BR", "US")))
    assert every.columns[every.main].countries == ("BR", "US") != every.countries  # both rows have these
    three = overview(board.rows, board.answers.shelf, every.countries)
    ranks = {row.name: row.cells[three.main].rank for row in three.rows if row.submissions}
    assert three.columns[three.main].countries == ("BR", "CN", "US") and ranks == {"de": 1, "gd": None}
    pages = {file: data for file, _, data in overview_pages(board.rows, board.answers.shelf, read_suite())}
    assert pages["overview"]["scopes"][:2] == [[[], "those of most runs"], [["BR", "CN", "US"], "all 3: BR, CN, US"]]
    at = two.main
    row = next(row for row in two.rows if row.name == "de")
    own = {
        (code, seed): value(tmp_path / f"de{code}{seed}") for code, of in (("US", 3), ("BR", 2)) for seed in range(of)
    }
    assert row.cells[at].value == pytest.approx(
        (fmean(own["US", seed] for seed in range(3)) + fmean(own["BR", seed] for seed in range(2))) / 2
    )
    least = [min(each for (code, _), each in own.items() if code == wanted) for wanted in ("US", "BR")]
    assert row.cells[at].basis == "seeds" and row.cells[at].low == pytest.approx(fmean(least))
    assert [seed.seed for seed in row.seeds] == [0, 1, 2] and row.seeds[0].name == "de s0"
    assert row.seeds[1].cells[at].value == pytest.approx((own["US", 1] + own["BR", 1]) / 2)
    assert row.seeds[2].cells[at].countries == ("US",) and row.seeds[2].submissions == (("US", "deUS2"),)
    assert (row.cost.survey_evaluations, row.cost.seconds, row.cost.tokens) == (10, 2.5, 5)


def test_points_of_the_map_and_the_arrow_from_the_unaligned_model(tmp_path):
    made = {name: write(tmp_path, name, task="iw_map", aligner=name[:-1], seed=int(name[-1])) for name in
            ("icl1", "icl2", "naive3")}  # fmt: skip
    axes = ("traditional_secular", "survival_selfexpression")
    at = {name: [value(path, axis) for axis in axes] for name, path in made.items()}
    table = leaderboard(tmp_path, warn=pytest.fail).overview()
    (point,) = next(row for row in table.rows if row.name == "icl").points
    assert point.country == "SA" and point.at == pytest.approx(
        [(first + second) / 2 for first, second in zip(at["icl1"], at["icl2"], strict=True)]
    )
    assert point.start == pytest.approx(at["naive3"])
    (bare,) = next(row for row in table.rows if row.name == "naive").points
    assert bare.start is None


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


def changed(path, old, new):
    """Put another text into a manifest."""
    manifest = path / "manifest.json"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    return path


def test_random_prefixes_of_several_models_are_several_rows(tmp_path):
    """Each with the mean and the standard deviation of its own prefixes, whatever the precision is called."""
    import statistics

    values, seeds = {}, iter(range(100))
    for model in ("tiny-8B", "my-tiny-8B", "my, tiny-8B"):
        for dtype in ("float32", "int8"):
            made = [write(tmp_path, f"c{seed}", aligner="random_prefix", model=model, seed=seed)
                    for seed in (next(seeds), next(seeds), next(seeds))]  # fmt: skip
            values[f"{model} {dtype}"] = [value(changed(path, '"float32"', f'"{dtype}"')) for path in made]
    write(tmp_path, "de", seed=90)
    rows = [row for row in show(tmp_path) if row["metric"] == "skill" and row["aligner"] == "random prefix"]
    found = {row["model"]: row for row in rows}
    assert found.keys() == values.keys() and len(rows) == 6
    for name, each in values.items():
        assert found[name]["value"] == pytest.approx(statistics.mean(each))
        assert found[name]["spread"] == pytest.approx(statistics.stdev(each))


@pytest.mark.parametrize("has_another", [False, True])
def test_random_prefixes_say_nothing_of_another_model_nor_of_another_task(tmp_path, has_another):
    """The difference lies within two standard deviations of the prefixes of one model; the other has none here."""
    for model in ("tiny-8B", "my-tiny-8B"):
        for seed in range(3):
            wvs = {"task": "wvs", "country": "US", "model": model, "seed": seed}
            write(tmp_path, f"naive {model} {seed}".replace(" ", "-"), aligner="naive", tilt=9, **wvs)
            write(tmp_path, f"de {model} {seed}".replace(" ", "-"), tilt=0.2, **wvs)
            if has_another:
                write(tmp_path, f"other-{model}-{seed}", aligner="random_prefix", country="US", model=model, seed=seed)
    for seed, tilt in enumerate((9, 0.02, 9, 0.02)):
        write(tmp_path, f"wvs-{seed}", task="wvs", country="US", aligner="random_prefix", seed=seed, tilt=tilt)
    table = leaderboard(tmp_path, warn=pytest.fail).overview()
    (at,) = (at for at, column in enumerate(table.columns) if column.variant.task == "wvs")
    cells = {row.configuration.model: row.cells[at] for row in table.rows if row.configuration.aligner == "de"}
    assert {model: cell.effect for model, cell in cells.items()} == {
        "tiny-8B float32": None,
        "my-tiny-8B float32": "costs",
    }
    (control,) = (row for row in table.rows if row.configuration[:2] == ("random prefix", "tiny-8B float32"))
    assert 0 < abs(cells["tiny-8B float32"].value - cells["tiny-8B float32"].unaligned) < 2 * control.cells[at].spread
    assert control.name == "random prefix tiny-8B float32"


def test_hostile_names_are_inert(tmp_path):
    name = "[red]a|b[/red]<script>"
    write(tmp_path, "x", aligner=name)
    assert name in show(tmp_path, "terminal").replace("\n", "")
    assert "<script>" not in show(tmp_path, "md") and r"a\|b" in show(tmp_path, "md")


def test_settings_of_submissions_are_made_printable(tmp_path):
    """They name rows of the table and of controls: no colour, no reversed text and no heading comes from them."""
    evil = "\x1b[31m\u202ered\n# heading"
    for seed, text in enumerate((evil, "plain")):
        write(tmp_path, f"de{seed}", seed=seed, settings={"prefix": text})
        for prefix in (0, 1):
            write(tmp_path, f"c{seed}{prefix}", aligner="random_prefix", seed=prefix, settings={"prefix": text})
    done = CliRunner().invoke(cli, ["leaderboard", "show", str(tmp_path), "--format", "md"])
    assert r"de, prefix=\\u001b\[31m\\u202ered\\u000a# heading" in done.output
    assert r"random prefix (2), prefix \\u001b\[31m" in done.output
    shown = {form: show(tmp_path, form) for form in ("terminal", "md")} | {"boards": done.output}
    for text in shown.values():
        assert not set("\x1b\u202e").intersection(text) and "\n# heading" not in text
    details = [row["detail"] for row in show(tmp_path) if row["aligner"] == "de"]
    assert all(detail.isprintable() for detail in details) and "\\u202e" in "".join(details)
