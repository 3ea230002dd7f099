"""The cultural map: ten items from fourteen answers, the projection, distance, rank and zone, and what is refused."""

import csv
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_of
from culteval.harness.scoring.baselines import baselines
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.measure import MeasureOptions, countries_of, measure_of
from culteval.tasks.metrics.map_projection import AXES, INDICATORS, ZONES, load_projection
from culteval.tasks.prompts import ProtocolOptions, render
from culteval.tasks.spec import load_spec

FOLDER = Path(__file__).parents[2] / "tasks" / "iw_map"
LANGUAGES = ("iw_map", "iw_map_ar", "iw_map_de", "iw_map_es", "iw_map_hi", "iw_map_zh")
ITEMS = ("A008", "A165", "E018", "E025", "E003", "E004", "F063", "F118", "F120", "G006", "A029", "A039", "A040", "A042")


def certain(codes, layout, **text):
    """Answers that put all probability on one code an item."""
    chosen = np.array([codes[layout.items[i]] for i in layout.item])
    probs = (layout.codes == chosen[:, None]) & layout.inside
    return Answers(layout, probs[None].astype(float), np.zeros((1, len(layout))), **text)


def shares(by_item, layout):
    """Answers with the same option probabilities for an item in every prompt."""
    probs = np.zeros((1, *layout.codes.shape))
    for row, i in enumerate(layout.item):
        given = by_item[layout.items[i]]
        probs[0, row, : len(given)] = given
    return Answers(layout, probs, np.zeros((1, len(layout))))


def table():
    """The rows of the data file, read apart from the package: points, and means where known."""
    rows = list(csv.DictReader((FOLDER / "countries.csv").open()))
    points = {row["iso2"]: np.array([float(row[axis]) for axis in AXES]) for row in rows}
    means = {row["iso2"]: [float(row[name]) for name in INDICATORS] for row in rows if row["A008"]}
    return points, {code: np.array(values) for code, values in means.items()}


def fitted(x, y, ridge=2.0):
    """A ridge by least squares with added rows, another way than the package's normal equations."""
    z, scale = x - x.mean(0), x.std(0, ddof=1)
    above = np.vstack([z / scale, np.sqrt(ridge) * np.eye(10)])
    beta = np.linalg.lstsq(above, np.vstack([y - y.mean(0), np.zeros((10, 2))]), rcond=None)[0]
    return lambda means: (means - x.mean(0)) / scale @ beta + y.mean(0)


def rows_of(answers, country="SA", scoring="expected", edition=None):
    measure = measure_of(spec_of("iw_map"), country, MeasureOptions(edition=edition))
    scores = measure.score(answers, "heldout", scoring)
    found = {score.metric: score for score in scores}
    assert len(found) == len(scores)
    return found


# ---------------------------------------------------------------- the projection


def test_countries_left_out_are_found_with_the_error_that_is_shown():
    points, means = table()
    assert len(points) == 110 and len(means) == 20
    codes = list(means)
    x, y = np.array([means[code] for code in codes]), np.array([points[code] for code in codes])
    guess = [fitted(np.delete(x, i, 0), np.delete(y, i, 0))(x[i]) for i in range(20)]
    error = np.sqrt(((guess - y) ** 2).mean(0))
    r2 = 1 - ((guess - y) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    projection = load_projection(FOLDER / "countries.csv")
    np.testing.assert_allclose(projection.error, error, atol=1e-9)
    np.testing.assert_allclose(projection.r2, r2, atol=1e-9)
    assert (r2 >= 0.9).all() and (error < 0.22).all()
    measure = measure_of(spec_of("iw_map"), "US", MeasureOptions())
    assert f"{error[0]:.2f}" in measure.caution and f"{r2[1]:.2f}" in measure.caution


def test_the_same_ten_means_give_the_same_point():
    """Through the package's projection, another solver, and answers in which they come about differently."""
    points, means = table()
    codes = list(means)
    other = fitted(np.array([means[code] for code in codes]), np.array([points[code] for code in codes]))
    projection = load_projection(FOLDER / "countries.csv")
    for code in codes:
        np.testing.assert_allclose(projection.coordinates(means[code]), other(means[code]), atol=1e-9)
    layout = render(spec_of("iw_map"), "heldout").layout
    two = {
        "A008": ([0.5, 0, 0.5, 0], [0, 1, 0, 0]), "A165": ([0.3, 0.7], [0.3, 0.7]), "E018": ([0.5, 0, 0.5], [0, 1, 0]),
        "E025": ([0.2, 0.6, 0.2], [0, 1, 0]), "E003": ([0.6, 0.4, 0, 0], [0, 0, 0.6, 0.4]),
        "E004": ([0.1, 0, 0.4, 0.5], [0.3, 0.3, 0.2, 0.2]), "G006": ([1, 0, 0, 0], [1, 0, 0, 0]),
    }  # fmt: skip
    ten = ([0.5, *[0] * 8, 0.5], [*[0] * 4, 0.5, 0.5, *[0] * 4])
    two |= dict.fromkeys(("F063", "F118", "F120"), ten) | dict.fromkeys(ITEMS[-4:], ([0.9, 0.1], [0.9, 0.1]))
    both = [rows_of(shares({item: given[way] for item, given in two.items()}, layout)) for way in (0, 1)]
    # 2, .3, 2, 2, three times 5.5, 1, 1 + .4 + .5, and .9 + .9 - .9 - .9
    point = other(np.array([2, 0.3, 2, 2, 5.5, 5.5, 5.5, 1, 1.9, 0]))
    for rows in both:
        np.testing.assert_allclose([rows[axis].value for axis in AXES], point, atol=1e-9)


def test_by_hand():
    """One imaginary respondent, every part of the ten items at work."""
    codes = {
        "A008": 1, "A165": 1, "E018": 3, "E025": 1, "E003": 2, "E004": 3, "F063": 2, "F118": 9, "F120": 8, "G006": 3,
        "A029": 1, "A039": 1, "A040": 2, "A042": 1,
    }  # fmt: skip
    means = np.array([1, 1, 3, 1, 2, 9, 8, 3, 2, -1])  # Y002 = 1 + 1 + 0, Y003 = 0 + 1 - 1 - 1
    points, known = table()
    x, y = np.array(list(known.values())), np.array([points[code] for code in known])
    point = fitted(x, y)(means)
    layout = render(spec_of("iw_map"), "heldout").layout
    parsed = np.array([codes[layout.items[i]] for i in layout.item])
    for scoring in ("expected", "argmax", "text"):
        more = {"texts": ("?",) * len(layout), "parsed": parsed} if scoring == "text" else {}
        rows = rows_of(certain(codes, layout, **more), "SE", scoring)
        reach = {code: float(np.hypot(*(at - point))) for code, at in points.items()}
        assert rows["distance"].value == pytest.approx(reach["SE"], abs=1e-9)
        assert rows["country_rank"].value == 1 + sum(each < reach["SE"] for each in reach.values())
        assert rows["traditional_secular_error"].value == pytest.approx(point[0] - points["SE"][0], abs=1e-9)
        assert rows["zone_hit"].value == 1  # far out beyond Protestant Europe
        z = (means - x.mean(0)) / x.std(0, ddof=1)
        train = (x - x.mean(0)) / x.std(0, ddof=1)
        ridge = np.linalg.inv(train.T @ train + 2 * np.eye(10))
        wider = np.sqrt(1 + z @ ridge @ train.T @ train @ ridge @ z)
        error = load_projection(FOLDER / "countries.csv").error * wider
        assert rows["projection_error"].value == pytest.approx(np.sqrt((error**2).mean()), rel=1e-9)
        assert wider > 1.1 and rows["collapsed"].value == 0


def test_unparsed_texts_are_left_out_and_an_item_without_an_answer_has_no_point():
    layout = render(spec_of("iw_map"), "heldout").layout
    codes = dict.fromkeys(ITEMS, 2)
    parsed = np.full(len(layout), 2)
    parsed[layout.item == 0] = np.where(np.arange(4) < 3, UNPARSED, 1)
    said = {"texts": ("?",) * len(layout), "parsed": parsed}
    rows = rows_of(certain(codes, layout, **said), scoring="text")
    alone = rows_of(certain(codes | {"A008": 1}, layout))
    assert rows["distance"].value == pytest.approx(alone["distance"].value, abs=1e-9)
    assert rows["unparsed"].value == pytest.approx(3 / 56)
    parsed[layout.item == 0] = UNPARSED
    assert set(rows_of(certain(codes, layout, **said), scoring="text")) <= {"unparsed", "agreement"}


# ---------------------------------------------------------------- the measure


def test_personas_give_the_coordinates_intervals_and_the_distance_none():
    spec = spec_of("iw_map")
    layout = render(spec, "heldout", ProtocolOptions(30)).layout
    rng = np.random.default_rng(3)
    own = rng.normal(size=(30, 14, 1)) + np.zeros((30, 14, 10))
    logits = (own[layout.persona, layout.item] * layout.codes / 4)[:, :10]
    probs = np.exp(logits) * layout.inside
    answers = Answers(layout, (probs / probs.sum(1, keepdims=True))[None], np.zeros((1, len(layout))))
    rows = rows_of(answers, "US")
    assert rows["distance"].low is None and rows["distance"].n == 30
    each = [
        [rows_of(answers.take(layout.persona == person), "US")[axis].value for axis in AXES] for person in range(30)
    ]
    from scipy.stats import t

    half = t.ppf(0.975, 29) * np.std(each, axis=0, ddof=1) / np.sqrt(30)
    for axis, reach in zip(AXES, half, strict=True):
        assert rows[axis].value == pytest.approx(np.mean(each, axis=0)[AXES.index(axis)])
        assert (rows[axis].high - rows[axis].low) / 2 == pytest.approx(reach, rel=1e-6)


@pytest.mark.parametrize("country", ["SA", "US"])
def test_nulls(country):
    spec = spec_of("iw_map")
    layout = render(spec, "heldout").layout
    points, _ = table()
    world = np.mean(list(points.values()), axis=0)
    found = {
        row.name: {s.metric: s for s in row.scores if s.scoring == "expected"}
        for row in baselines(spec, layout, country, MeasureOptions())
    }
    assert set(found) == {"constant", "uniform", "world mean"}
    np.testing.assert_allclose([found["world mean"][axis].value for axis in AXES], world, atol=1e-9)
    assert found["world mean"]["distance"].value == pytest.approx(np.hypot(*(world - points[country])), abs=1e-9)
    assert found["uniform"]["distance"].note == "collapsed" and found["constant"]["distance"].value > 1


@pytest.mark.parametrize("scoring", ["expected", "argmax"])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_the_same_option_for_every_item_is_collapsed(which, scoring):
    """Whatever it counts: the first option of trust is 1, of a scale its lowest end."""
    layout = render(spec_of("iw_map"), "heldout").layout
    place = layout.widths - 1 if which < 0 else np.minimum(which, layout.widths - 1)
    probs = 0.99 * (np.arange(layout.codes.shape[1]) == place[:, None]) + 0.01 * layout.inside / layout.widths[:, None]
    rows = rows_of(Answers(layout, probs[None], np.zeros((1, len(layout)))), scoring=scoring)
    assert rows["collapsed"].value == 1 and rows["distance"].note == "collapsed"
    probs[layout.item == 8] = layout.inside[layout.item == 8] / 10  # of one item the middle
    rows = rows_of(Answers(layout, probs[None], np.zeros((1, len(layout)))), scoring="expected")
    assert rows["collapsed"].value == 0 and rows["distance"].note is None


def test_the_loss_is_the_headline_and_has_a_gradient():
    spec = spec_of("iw_map")
    layout = render(spec, "fit").layout
    probs = np.random.default_rng(0).dirichlet(np.ones(10), (3, len(layout))) * layout.inside
    probs /= probs.sum(-1, keepdims=True)
    measure = measure_of(spec, "JP", MeasureOptions())
    loss = measure.loss_function(layout, "expected")(probs)
    for candidate in range(3):
        one = Answers(layout, probs[candidate : candidate + 1], np.zeros((1, len(layout))))
        assert loss[candidate] == pytest.approx(measure.score(one, "fit", "expected")[1].value, abs=1e-9)
    given = torch.tensor(probs, requires_grad=True)
    total = measure.loss_function(layout, "expected")(given)
    total.sum().backward()
    np.testing.assert_allclose(total.detach(), loss, atol=1e-12)
    step = 1e-6 * given.grad.numpy()
    moved = measure.loss_function(layout, "expected")(probs - step)
    np.testing.assert_allclose(loss - moved, (step * given.grad.numpy()).sum((1, 2)), rtol=1e-3)


def test_examples_are_near_their_country():
    """The codes that ``icl`` shows: a whole respondent whose point is the country's as nearly as codes allow."""
    spec = spec_of("iw_map")
    layout = render(spec, "heldout").layout
    away = {}
    for country in countries_of(spec, None):
        codes = measure_of(spec, country, MeasureOptions()).demonstrations(layout)
        by_item = {layout.items[i]: code for i, code in zip(layout.item, codes.tolist(), strict=True)}
        assert by_item["E003"] != by_item["E004"]  # nobody can choose the same aim twice
        away[country] = rows_of(certain(by_item, layout), country)["distance"].value
    assert np.mean(list(away.values())) < 0.15 and max(away.values()) < 0.6, max(away, key=away.get)


# ---------------------------------------------------------------- items


@pytest.mark.parametrize("name", LANGUAGES)
def test_scales_have_the_survey_s_codes(name):
    spec = spec_of(name)
    widths = {item: len(spec.items.codes(item)) for item in spec.items.ids}
    assert tuple(widths) == ITEMS
    assert list(widths.values()) == [4, 2, 3, 3, 4, 4, 10, 10, 10, 4, 2, 2, 2, 2]
    paraphrases = 4 if name == "iw_map" else 2
    assert len(spec.items.presentations) == paraphrases
    prompts = render(spec, "heldout")
    assert len(prompts) == 14 * paraphrases  # half of the paraphrases in two orders
    ten = prompts.texts[6]
    assert "2, 3, 4, 5, 6, 7, 8, 9" in ten and ten.splitlines()[1].startswith("1 = ")
    turned = prompts.texts[14 + 6]
    assert turned.splitlines()[1].startswith("10 = ") and "9, 8, 7, 6, 5, 4, 3, 2" in turned
    assert prompts.choices[6] == prompts.choices[14 + 6] == tuple(map(str, range(1, 11)))


def test_the_texts_are_not_the_survey_s():
    """Phrases of the official questionnaire, a few telling words each."""
    official = (
        "taking all things together", "most people can be trusted", "too careful", "greater respect for authority",
        "signing a petition, ", "how important is god", "justifiable", "how proud are you to be", "maintaining order",
        "giving people more say", "fighting rising prices", "protecting freedom of speech", "might do", "never do",
        "tolerance and respect", "determination, perseverance", "quite happy", "not at all happy",
    )  # fmt: skip
    text = (FOLDER / "items.yaml").read_text(encoding="utf-8").lower()
    assert not [phrase for phrase in official if phrase in text]


# ---------------------------------------------------------------- broken input

HEADER = f"iso2,zone,{','.join(AXES)},{','.join(INDICATORS)}"


def _lines(change):
    def mangle(home):
        path = home / "countries.csv"
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return mangle


def _text(name, old, new):
    def mangle(home):
        path = home / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return mangle


BROKEN = {
    "empty": (_lines(lambda _: []), r"countries\.csv: empty. Give the whole file"),
    "a header": (_lines(lambda rows: rows[:1]), "a header and no rows. Give the whole file"),
    "no column": (_lines(lambda rows: [rows[0].replace("zone", "region"), *rows[1:]]), "no column 'zone'. It needs"),
    "semicolons": (_lines(lambda rows: [r.replace(",", ";") for r in rows]), "separated by ';'. Save it with commas"),
    "few cells": (_lines(lambda rows: [*rows[:-1], rows[-1].rpartition(",")[0]]), r"csv:111: the number of cells"),
    "a word": (_lines(lambda rows: [*rows[:2], rows[2].replace("-0.7427", "low"), *rows[3:]]), r"csv:3: .* a cell is"),
    "infinite": (_lines(lambda rows: [*rows[:2], rows[2].replace("-0.7427", "inf"), *rows[3:]]), r"3: .* a cell is"),
    "a mean missing": (_lines(lambda rows: [r.replace("1.7828", "1.7,", 1)[:-8] if r[:2] == "AU" else r for r in rows]),
                       r"csv:\d+: .*Correct this line"),
    "twice": (_lines(lambda rows: [*rows, rows[-1]]), r"csv:112: 'ZW': there twice"),
    "no zone": (_lines(lambda rows: [r.replace("Confucian", "Atlantis") for r in rows]), "unknown zone 'Atlantis'"),
    "few means": (_lines(lambda rows: [rows[0], *(r for r in rows[1:] if r.endswith(","))]), "0 countries with ten"),
    "an item gone": (lambda home: [_text("items.yaml", "  A042: {scale: quality, stem: quality, "
                                         "dimension: traditional_secular}\n", "")(home)], r"paraphrases\.A\.items"),
    "a scale short": (_text("items.yaml", '"highly happy", "fairly happy", ', '"highly happy", '), "number of labels"),
    "items in another order": (
        lambda home: (home / "items.yaml").write_text(re.sub(
            r"(  A008: \{.*\n)(  A165: \{.*\n)", r"\2\1", (home / "items.yaml").read_text(encoding="utf-8"), count=1),
            encoding="utf-8"), "cultural_map needs the items A008, A165"),
    "no reference": (lambda home: (home / "iw_map.yaml").write_text(re.sub(
        r"  reference:\n(    .*\n|      .*\n)+", "", (home / "iw_map.yaml").read_text())), "reference: missing"),
    "no file": (lambda home: (home / "countries.csv").unlink(), r"countries\.csv: cannot be read"),
    "another measure": (_text("iw_map.yaml", "measure: cultural_map", "measure: cultural_mop"), "Did you mean"),
    "a paraphrase unknown": (_text("iw_map.yaml", "paraphrases: [C, D]", "paraphrases: [C, E]"), "no paraphrase 'E'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_refused_with_place_and_remedy(kind, tmp_path):
    change, message = BROKEN[kind]
    home = tmp_path / "iw_map"
    shutil.copytree(FOLDER, home, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    change(home)
    with pytest.raises(InputError, match=message) as caught:
        measure_of(load_spec(home / "iw_map.yaml"), "SA", MeasureOptions())
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_countries_and_editions_are_refused():
    spec = spec_of("iw_map")
    with pytest.raises(
        UsageError, match=r"country AQ: edition '2022' of iw_map has no point of Antarctica.*ls countries"
    ):
        measure_of(spec, "AQ", MeasureOptions())
    with pytest.raises(UsageError, match=r"`edition` '2023': iw_map has 2022. Did you mean '2022'.*data import iw-map"):
        measure_of(spec, "US", MeasureOptions(edition="2023"))
    layout = render(spec, "fit").layout
    with pytest.raises(UsageError, match="iw_map: its loss needs all its items"):
        measure_of(spec, "US", MeasureOptions()).loss_function(layout.take(layout.item > 0), "expected")


def test_zones_are_those_of_the_nearest_mean_point():
    projection = load_projection(FOLDER / "countries.csv")
    rows = list(csv.DictReader((FOLDER / "countries.csv").open()))
    assert {row["zone"] for row in rows} == set(ZONES)
    middle = {
        zone: np.mean([[float(row[axis]) for axis in AXES] for row in rows if row["zone"] == zone], axis=0)
        for zone in ZONES
    }
    for point in product((-1.5, 0.2, 1.2), (-1.0, 0.4, 2.4)):
        nearest = min(middle, key=lambda zone: np.hypot(*(middle[zone] - point)))
        assert projection.zone(np.array(point)) == nearest
