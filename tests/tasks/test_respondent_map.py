"""The map's projection fitted on respondents: items from official columns, varimax, weights, and what is refused."""

import csv
import json

import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_of
from culteval.tasks.importers import respondent_map as fit
from culteval.tasks.importers.official import officials
from culteval.tasks.measure import MeasureOptions, countries_of, measure_of
from culteval.tasks.metrics.map_projection import AXES, INDICATORS
from culteval.tasks.prompts import render

from ..command import invoked
from .test_cultural_map import rows_of, shares

WAVE7 = {name: official.named.get("wave7") for name, official in officials().items()}
SENTINELS = (-1, -2, -4, -5, 99, np.nan)
PLACES = {"AUS": (0.6, 2.3), "EGY": (-0.9, -2.2), "JPN": (1.6, 1.3), "SWE": (1.1, 3.1), "COL": (-1.5, 0.3)}


def people(size=400, seed=0, trend=True):
    """Respondents drawn from two factors, as columns by official name, with country codes of three letters."""
    rng = np.random.default_rng(seed)
    country = np.repeat(list(PLACES), size)
    secular, expression = (np.repeat([at[axis] for at in PLACES.values()], size) for axis in (0, 1))
    a, b = secular + rng.normal(size=len(country)), expression / 2 + rng.normal(size=len(country))

    def noise():
        return rng.normal(scale=0.8, size=len(country))

    def cut(values, steps):
        return np.clip(np.floor((values + 3) / 6 * steps) + 1, 1, steps)

    def aims(values):
        return np.where(values > 0, rng.choice([2, 4], len(country)), rng.choice([1, 3], len(country)))

    def named(values):
        return np.where(values > 0, 1, 0 if trend else 2)

    table = {
        "A008": cut(noise() - b, 4), "A165": np.where(b + noise() > 0.5, 1, 2), "E018": cut(a + noise(), 3),
        "E025": cut(noise() - b, 3), "F063": cut(noise() - a, 10), "F118": cut(b + noise(), 10),
        "F120": cut(a + b / 3 + noise(), 10), "G006": cut(a + noise(), 4), "E003": aims(b + noise()),
        "E004": aims(b + noise()), "A029": named(a + noise()), "A039": named(a + noise()),
        "A040": named(noise() - a), "A042": named(noise() - a),
    }  # fmt: skip
    weight = rng.uniform(0.5, 1.5, len(country))
    return {name: np.asarray(values, dtype=float) for name, values in table.items()}, country, weight


def write(path, table, country, weight, names=WAVE7, head=("B_COUNTRY_ALPHA", "W_WEIGHT")):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*head, *(names[name] for name in table)])
        for number in range(len(country)):
            cells = (f"{values[number]:g}" for values in table.values())
            rows.writerow([country[number], f"{weight[number]:.6f}", *cells])
    return path


def test_items_from_official_columns():
    columns = {name: np.array([2.0, *SENTINELS]) for name in fit.CODES if name not in fit.INDICES}
    columns |= {"A165": np.array([1.0, *SENTINELS]), "E003": np.array([4.0, *SENTINELS])}
    columns |= {"A029": np.array([0.0, *SENTINELS]), "A040": np.array([1.0, *SENTINELS])}
    items = fit.indicators(columns)
    # trust is 1; post-materialism 1 + 1 + 1; autonomy faith 1 + obedience 0 - independence 0 - determination 0
    np.testing.assert_array_equal(items[0], [2, 1, 2, 2, 2, 2, 2, 2, 3, 1])
    assert np.isnan(items[1:]).all()


def test_indices_in_the_file_are_used_and_rebuilt_where_missing():
    table, *_ = people(20)
    made = fit.indicators(table)
    given = {"Y002": np.full(100, 1.0), "Y003": np.full(100, -2.0)}
    np.testing.assert_array_equal(fit.indicators(table | given)[:, 8:], np.tile([1.0, 2.0], (100, 1)))
    for row, code in enumerate((-5, np.nan, 3.5)):
        given["Y003"][row], given["Y002"][row] = code, code
    both = fit.indicators(table | given)
    np.testing.assert_array_equal(both[:3, 8:], made[:3, 8:])
    np.testing.assert_array_equal(both[3:, 8:], np.tile([1.0, 2.0], (97, 1)))
    assert set(made[:, 9]) <= {-2, -1, 0, 1, 2} and set(made[:, 8]) == {1, 2, 3}


@pytest.mark.parametrize("given", ["all", "every third", "all without qualities"])
def test_the_surveys_own_autonomy_gives_the_same_projection(given, tmp_path):
    """It is +2 where independence and determination are named, and not faith and obedience."""
    names, head = {name: name for name in (*fit.ANSWERS, *fit.INDICES)}, ("COUNTRY_ALPHA", "S017")
    table, country, weight = people(100)
    made = fit.read_respondents(write(tmp_path / "without.csv", table, country, weight, names, head))
    own = (table["A029"] + table["A039"]) - (table["A040"] + table["A042"])
    if given == "every third":
        own[np.arange(len(own)) % 3 > 0] = -5
    table["Y003"] = own
    if given == "all without qualities":
        table = {name: values for name, values in table.items() if name not in ("A029", "A039", "A040", "A042")}
    assert fit.read_respondents(write(tmp_path / "with.csv", table, country, weight, names, head)) == made


def test_varimax_is_the_best_of_all_rotations():
    rng = np.random.default_rng(4)
    for _ in range(5):
        loadings = rng.uniform(-1, 1, (10, 2))
        rows = loadings / np.linalg.norm(loadings, axis=1, keepdims=True)

        def criterion(rotation, rows=rows):
            return ((rows @ rotation) ** 2).var(0).sum()

        found = fit.varimax(loadings)
        np.testing.assert_allclose(found @ found.T, np.eye(2), atol=1e-12)
        angles = np.linspace(0, np.pi / 2, 20_001)
        every = [criterion(np.array([[np.cos(x), -np.sin(x)], [np.sin(x), np.cos(x)]])) for x in angles[::20]]
        assert criterion(found) >= max(every) - 1e-12


def test_the_projection_is_pca_with_varimax_and_the_association_s_rescaling():
    """Against scores computed another way: by singular values of repeated rows, rotated by search."""
    table, country, _ = people(120)
    weight = np.random.default_rng(1).integers(1, 4, len(country)).astype(float)
    items = fit.indicators(table)
    fitted = fit.fit_projection(items, country, weight)
    rows = np.repeat(items, weight.astype(int), axis=0)
    z = (rows - rows.mean(0)) / rows.std(0)
    left, _, _ = np.linalg.svd(z, full_matrices=False)
    scores = left[:, :2] * np.sqrt(len(z))  # unit variance
    loadings = z.T @ scores / len(z)
    near = loadings / np.linalg.norm(loadings, axis=1, keepdims=True)
    turns = [np.array([[np.cos(x), -np.sin(x)], [np.sin(x), np.cos(x)]]) for x in np.linspace(0, np.pi, 40_001)]
    best = max(turns, key=lambda turn: ((near @ turn) ** 2).var(0).sum())
    scores, loadings = scores @ best, loadings @ best
    god, homosexuality = (INDICATORS.index(name) for name in ("F063", "F118"))
    first = abs(loadings[god]).argmax()
    secular = -np.sign(loadings[god, first]) * scores[:, first]
    expression = np.sign(loadings[homosexuality, 1 - first]) * scores[:, 1 - first]
    places = np.repeat(country, weight.astype(int))
    for code, point in ((code, fitted.projection({}).points[code]) for code in PLACES):
        expected = [1.61 * secular[places == code].mean() - 0.1, 1.81 * expression[places == code].mean() + 0.038]
        np.testing.assert_allclose(point, expected, atol=1e-3)
    assert fitted.respondents == 600 and sum(fitted.explained) > 0.5
    rotation = np.array(fitted.rotation)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(2), atol=1e-12)


def test_missing_answers_count_in_no_mean_and_weights_count():
    table, country, weight = people(80)
    items = fit.indicators(table)
    items[::7, 3] = np.nan
    weight[::5] = 0
    fitted = fit.fit_projection(items, country, weight)
    here = (country == "EGY") & (weight > 0)
    for item, mean in enumerate(fitted.countries["EGY"].means):
        valid = here & ~np.isnan(items[:, item])
        assert mean == pytest.approx(np.average(items[valid, item], weights=weight[valid]), abs=1e-12)
    assert fitted.countries["EGY"].respondents == here.sum()
    assert fitted.respondents == ((weight > 0) & ~np.isnan(items).any(1)).sum()


@pytest.mark.parametrize("kind", ["wave 7", "trend"])
def test_an_imported_file_replaces_the_shipped_projection(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    table, country, weight = people(trend=kind == "trend")
    trend = (
        {"names": {name: name for name in fit.ANSWERS}, "head": ("COUNTRY_ALPHA", "S017")} if kind == "trend" else {}
    )
    source = write(tmp_path / "survey.csv", table, country, weight, **trend)
    said = json.loads(invoked("data", "import", "iw-map", source, "--edition", "mine", "--json").stdout)
    assert said["respondents"] == 2000 and said["countries"] == ["AU", "CO", "EG", "JP", "SE"]
    spec = spec_of("iw_map")
    assert set(countries_of(spec, "mine")) == {"AU", "CO", "EG", "JP", "SE"}
    fitted = fit.fit_projection(fit.indicators(table), country, np.round(weight, 6))
    layout = render(spec, "heldout").layout
    even = {item: np.full(len(codes), 1 / len(codes)) for item, codes in
            ((item, spec.items.codes(item)) for item in spec.items.ids)}  # fmt: skip
    rows = rows_of(shares(even, layout), "JP", edition="mine")
    means = np.array([2.5, 0.5, 2, 2, 5.5, 5.5, 5.5, 2.5, 2, 0])
    point = np.array(fitted.slope) @ means + fitted.offset
    np.testing.assert_allclose([rows[axis].value for axis in AXES], point, atol=1e-9)
    own = np.array(fitted.slope) @ fitted.countries["JPN"].means + fitted.offset
    assert rows["distance"].value == pytest.approx(np.hypot(*(point - own)), abs=1e-9)
    assert rows["projection_error"].value == 0
    assert measure_of(spec, "JP", MeasureOptions(edition="mine")).caution is None
    assert spec.compared_with("mine") not in (None, spec.reference_hash)
    with pytest.raises(UsageError, match="edition 'mine' of iw_map has no point of Germany"):
        measure_of(spec, "DE", MeasureOptions(edition="mine"))


def drop(name):
    return lambda table, country, weight: table.pop(name)


def fill(name, value):
    return lambda table, country, weight: table[name].fill(value)


BROKEN = {
    "no item": (drop("F118"), r"no column 'F118' \(Q182 in wave 7\)"),
    "no quality": (drop("A040"), "no column 'Y003', and none 'A040' to make it from"),
    "nobody answers": (fill("E025", -2), "0 respondents with all ten items of the map; the fit needs 200"),
    "one answer": (fill("G006", 2), "G006: every respondent gave the same answer. Mend the column"),
    "no weights": (lambda table, country, weight: weight.fill(0), "W_WEIGHT: missing or zero for every respondent"),
    "no country": (
        lambda table, country, weight: country.__setitem__(slice(None), "Nowhere"),
        "B_COUNTRY_ALPHA: 'Now' is not a country",
    ),
    "one country": (lambda table, country, weight: country.__setitem__(slice(None), "SWE"), "1 countries with all ten"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_surveys_are_refused_and_nothing_is_written(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    change, message = BROKEN[kind]
    table, country, weight = people(100)
    change(table, country, weight)
    source = write(tmp_path / "survey.csv", table, country, weight)
    with pytest.raises(InputError, match=message) as caught:
        invoked("data", "import", "iw-map", source)
    assert str(source) in str(caught.value) and len(str(caught.value).splitlines()) <= 2
    assert not (tmp_path / "data").exists()
    with pytest.raises(UsageError, match="--edition '2022': the task has an edition of that name"):
        invoked("data", "import", "iw-map", source, "--edition", "2022")


DAMAGED = {
    "no yaml": ("slope", "{slope", "YAML"),
    "another item": ("- Y003", "- Y004", "indicators: expected A008"),
    "nan": ("offset:\n- ", "offset:\n- .nan # ", "offset"),
    "a field more": ("respondents:", "respondence: 1\nrespondents:", "respondence: Extra inputs"),
    "a mean less": ("    means:\n    - ", "    means:\n    # ", "countries.AU.means"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_edition_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path))
    invoked("data", "import", "iw-map", write(tmp_path / "survey.csv", *people(100, trend=False)))
    path = tmp_path / "iw_map" / "survey.yaml"
    old, new, message = DAMAGED[kind]
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        measure_of(spec_of("iw_map"), "JP", MeasureOptions(edition="survey"))
    assert str(path) in str(caught.value)
