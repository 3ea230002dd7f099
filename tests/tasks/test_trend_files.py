"""``data import wvs`` of SPSS, Stata and trend files: shares, cells and correlations, computed here by other means."""

from __future__ import annotations

import csv
import json
import subprocess
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadstat
import pytest
from culteval.errors import CultevalError, UsageError
from culteval.tasks.importers import stat_file, stat_worker
from culteval.tasks.importers.official import officials
from culteval.tasks.importers.people import read_people
from culteval.tasks.importers.wvs import pairwise

from ..command import invoked

ISO = {840: "US", 276: "DE", 76: "BR", 909: "XI"}
RNG = np.random.default_rng(22)
N = 400


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(low, high, size=N):
    """Answers with a tenth of the survey's codes for missing ones."""
    values = RNG.integers(low, high + 1, size).astype(float)
    values[RNG.random(size) < 0.1] = RNG.choice([-1, -2, -4, -5])
    return values


TREND = pd.DataFrame(
    {
        "S002VS": RNG.integers(5, 8, N).astype(float), "S003": RNG.choice(list(ISO), N).astype(float),
        "S017": RNG.uniform(0.2, 3, N), "X001": RNG.integers(1, 3, N).astype(float),
        "X003": RNG.choice([-2, 15, 16, 24, 25, 44, 64, 65, 99], N).astype(float), "X025R": made(1, 3),
        "F025": made(0, 9), "X049": made(1, 8), "A001": made(1, 4), "A008": made(1, 4), "A029": made(0, 1),
        "A165": made(1, 2), "F051": made(0, 1), "E018": made(1, 3), "F063": made(1, 10), "G006": made(1, 5),
        "F118": made(1, 10), "Y003": RNG.choice([-5, -2, -1, 0, 1, 2], N).astype(float), "E036": made(1, 10),
        "E037": made(1, 10),
        "S007": np.arange(N).astype(float), "NOTE": RNG.choice(["a", "b"], N),
    }
)  # fmt: skip
NAMES = {"A001": "Q1", "A008": "Q46", "A029": "Q8", "A165": "Q57", "F051": "Q166", "E018": "Q45", "F063": "Q164",
         "E036": "Q107"}  # fmt: skip
ENDS = {"A001": (1, 4), "A008": (1, 4), "A165": (1, 2), "E018": (1, 3), "F063": (1, 10), "E036": (1, 10)}


def by_hand(table, weight="S017", country="S003", names=NAMES, group=lambda row: None):
    """``(country, question, code, group) -> (share, count)``; 0 and 1 of two options become 2 and 1."""
    sums, counts, totals = defaultdict(float), defaultdict(int), defaultdict(float)
    for row in table.to_dict("records"):
        for name, question in names.items():
            code = row[name]
            if name in ("A029", "F051"):
                code = {1: 1, 0: 2, 2: 2}.get(code, -1)
            low, high = ENDS.get(name, (1, 2))
            if np.isnan(code) or not low <= code <= high:
                continue
            key = ISO.get(row[country], row[country]), question, int(code), group(row)
            sums[key] += row[weight]
            counts[key] += 1
            totals[key[0], question, key[3]] += row[weight]
    return {key: (total / totals[key[0], key[1], key[3]], counts[key]) for key, total in sums.items()}


def stored(home, folder="", edition="weighted"):
    with (home / "data" / "wvs" / folder / f"{edition}.csv").open() as file:
        return list(csv.DictReader(file))


def shares(home, edition="weighted"):
    return {(row["country"], row["question"], int(row["code"]), None): (float(row["share"]), int(row["count"]))
            for row in stored(home, edition=edition)}  # fmt: skip


def same(found, expected):
    assert set(found) == set(expected)
    for key, (share, count) in expected.items():
        assert found[key] == (pytest.approx(share, abs=6e-7), count), key


def last_waves(table):
    return table[table.groupby("S003").S002VS.transform("max") == table.S002VS]


def write(table, path, **more):
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        (pyreadstat.write_sav if path.suffix in (".sav", ".zsav") else pyreadstat.write_dta)(table, path, **more)
    return path


def call(*words):
    return invoked("data", "import", "wvs", *words).output


@pytest.mark.parametrize("suffix", [".sav", ".zsav", ".dta", ".csv"])
def test_a_trend_file_gives_each_countrys_last_wave(suffix, home):
    more = {"compress": True} if suffix == ".zsav" else {}
    table = TREND[~((TREND.S003 == 276) & (TREND.S002VS == 7))]  # Germany's last wave is the sixth
    write(table, home / f"trend{suffix}", **more)
    said = call(f"trend{suffix}")
    expected = last_waves(table)
    assert f"{len(expected)} respondents, 4 countries, 8 questions (EVS or WVS trend file)" in said
    assert "subgroups  gender, age, education, religion, settlement" in said
    same(shares(home), by_hand(expected))
    source = json.loads((home / "data" / "wvs" / "weighted.source.json").read_text())
    assert source["waves"] == {"BR": [7], "DE": [6], "US": [7], "XI": [7]}


@pytest.mark.parametrize("kind", ["trend", "joint"])
def test_e037_is_not_q108(kind, home):
    """People take more responsibility at its 1, the government at that of Q108 and of V98 in wave 6."""
    table = TREND.assign(COUNTRY_ALPHA="DE")
    if kind == "joint":
        table = table.rename(columns={"COUNTRY_ALPHA": "cntry_AN", "S017": "gwght"})
    write(table, home / "table.sav")
    call("table.sav")
    assert "Q108" not in {row["question"] for row in stored(home)}
    with pytest.raises(UsageError, match="E037"):
        read_people(home / "table.sav", ["E037"])
    assert officials()["Q108"].named == {"wave7": "Q108", "wave6": "V98"}


def test_a_zip_archive_as_it_is_downloaded(home):
    write(TREND, home / "WVS_Trend.sav")
    with zipfile.ZipFile(home / "F00011931.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(home / "WVS_Trend.sav", "WVS_Trend.sav")
        archive.writestr("note.txt", "read me")
    before = set(Path(tempfile.gettempdir()).glob("*.sav"))
    call("F00011931.zip")
    same(shares(home), by_hand(last_waves(TREND)))
    assert set(Path(tempfile.gettempdir()).glob("*.sav")) <= before


def test_waves_may_be_chosen(home):
    write(TREND, home / "trend.sav")
    call("trend.sav", "--wave", 5, "--wave", 6, "--edition", "old")
    same(shares(home, "old"), by_hand(TREND[TREND.S002VS < 7]))


def test_cells_are_of_one_attribute_each(home):
    write(TREND, home / "trend.dta")
    call("trend.dta")
    table, rows = last_waves(TREND), stored(home, "cells")
    bands = {16: "16-24", 24: "16-24", 25: "25-34", 44: "35-44", 64: "55-64", 65: "65+", 99: "65+"}
    groups = {
        "gender": lambda row: {1: "man", 2: "woman"}[row["X001"]],
        "age": lambda row: bands.get(row["X003"], "missing"),
        "education": lambda row: {1: "lower", 2: "middle", 3: "higher"}.get(row["X025R"], "missing"),
        "settlement": lambda row: "missing" if row["X049"] < 0 else "rural" if row["X049"] < 3 else "urban",
    }
    for attribute, group in groups.items():
        found = {
            (row["country"], row["question"], int(row["code"]), row["cell"].split("=")[1]):
                (float(row["share"]), int(row["count"])) for row in rows if row["cell"].startswith(f"{attribute}=")
        }  # fmt: skip
        expected = by_hand(table, group=group)
        same(found, {key: value for key, value in expected.items() if key[3] != "missing"})
    assert {"religion=none", "religion=muslim"} <= {row["cell"] for row in rows}
    assert "missing" not in {row["cell"].split("=")[1] for row in rows}


def test_correlations_are_those_of_numpy(home):
    """Of people who answered both items, weighted as ``numpy.cov`` does with ``aweights``."""
    write(TREND, home / "trend.sav")
    call("trend.sav", "--wave", 5, "--wave", 6, "--wave", 7)
    rows = {(r["country"], r["first"], r["second"]): (float(r["correlation"]), int(r["count"]))
            for r in stored(home, "correlations")}  # fmt: skip
    us = TREND[TREND.S003 == 840]
    both = us[(us.A001 > 0) & (us.F063 > 0)]
    expected = np.cov(both.A001, both.F063, aweights=both.S017)
    r = expected[0, 1] / np.sqrt(expected[0, 0] * expected[1, 1])
    assert rows["US", "Q1", "Q164"] == (pytest.approx(r, abs=6e-5), len(both))
    both = us[(us.A029 >= 0) & (us.F063 > 0)]  # mentioned is 1, not mentioned 2: the sign turns
    expected = np.cov(-both.A029, both.F063, aweights=both.S017)
    r = expected[0, 1] / np.sqrt(expected[0, 0] * expected[1, 1])
    assert rows["US", "Q8", "Q164"][0] == pytest.approx(r, abs=6e-5)


def test_a_constant_answer_correlates_with_nothing():
    answers = np.array([[1.0, 2, 3], [2, 2, np.nan], [3, 2, 1], [4, 2, 5]])
    found, counts = pairwise(answers, np.ones(4))
    assert np.isnan(found[0, 1]) and np.isnan(found[1, 1]) and counts.tolist() == [[4, 4, 3], [4, 4, 3], [3, 3, 3]]
    assert found[0, 2] == pytest.approx(np.corrcoef([1, 3, 4], [3, 1, 5])[0, 1])


WAVE7 = TREND.rename(columns=NAMES | {"S017": "W_WEIGHT", "X001": "Q260", "X003": "Q262", "F118": "Q182"}).assign(
    B_COUNTRY_ALPHA=TREND.S003.map({840: "USA", 276: "DEU", 76: "BRA", 909: "NIR"}),
    **{name: TREND[old].replace({0: 2}) for name, old in {"Q8": "A029", "Q166": "F051"}.items()},
)


@pytest.mark.parametrize("suffix", [".sav", ".dta", ".csv"])
def test_wave_7_in_every_format(suffix, home):
    keep = [name for name in WAVE7 if name in {*NAMES.values(), "W_WEIGHT", "Q260", "Q262", "B_COUNTRY_ALPHA", "Q182"}]
    write(WAVE7[keep], home / f"wave7{suffix}")
    assert "(WVS wave 7)" in call(f"wave7{suffix}")
    same(shares(home), by_hand(TREND))


def test_the_joint_file(home):
    letters = TREND.S003.map({840: "US", 276: "DE", 76: "BR", 909: "NIR"})
    joint = TREND.rename(columns={"S017": "gwght", "X049": "size_5c"}).assign(cntry_AN=letters)
    joint["size_5c"] = RNG.integers(1, 6, N).astype(float)
    write(joint.drop(columns=["S002VS", "S003"]), home / "joint.sav")
    assert "(joint EVS/WVS file)" in call("joint.sav")
    same(shares(home), by_hand(TREND))
    cells = {row["cell"] for row in stored(home, "cells") if row["cell"].startswith("settlement")}
    assert cells == {"settlement=rural", "settlement=urban"}


EVS = {"A001": "v2", "A008": "v7", "A029": "v86", "A165": "v31", "E018": "v114", "F063": "v63", "G006": "v170"}
EVS_LABELS = {
    "v2": "how important in your life: family (Q1B)", "v7": "taking all things together how happy are you (Q3)",
    "v86": "learn children at home: independence (Q28B)", "v31": "people can be trusted/can't be too careful (Q7)",
    "v114": "good/bad: greater respect for authority (Q37B)", "v63": "how important is God in your life (Q18)",
    "v170": "how proud are you to be a ... [country] citizen (Q47)",
}  # fmt: skip


def evs(**labels):
    table = TREND[list(EVS)].rename(columns=EVS).assign(
        c_abrv=TREND.S003.map(ISO).replace("XI", "GB-NIR").replace("GB-NIR", "GB"), gweight=TREND.S017, age=TREND.X003
    )  # fmt: skip
    return table, {"column_labels": EVS_LABELS | labels}


def test_evs_2017_is_read_by_its_labels(home):
    """EVS numbers "bad" 2 and "don't mind" 3, the survey and the trend files the other way round."""
    table, more = evs()
    table["v114"] = table["v114"].replace({2: 3, 3: 2})
    more["variable_value_labels"] = {"v114": {1: "good", 2: "bad", 3: "don't mind", -1: "don't know"}}
    write(table, home / "ZA7500.sav", **more)
    assert "(EVS 2017)" in call("ZA7500.sav")
    names = {name: NAMES[name] for name in ("A001", "A008", "A029", "A165", "E018", "F063")}
    expected = by_hand(TREND.assign(S003=TREND.S003.replace({909: 826})), names=names)
    letters = {826: "GB"}
    same(shares(home), {(letters.get(key[0], key[0]), *key[1:]): value for key, value in expected.items()})


@pytest.mark.parametrize(
    ("weight", "marks", "names", "kind"),
    [
        ("V258", ["V203A"], {"A001": "V4", "A029": "V12", "F063": "V152", "E018": "V69"}, "WVS wave 6"),
        ("V259", [], {"A001": "V4", "A029": "V12", "F063": "V192", "E018": "V78"}, "WVS wave 5"),
    ],
)
def test_waves_5_and_6(weight, marks, names, kind, home):
    table = TREND[list(names)].rename(columns=names).assign(V2=TREND.S003, **{weight: TREND.S017})
    table["V12"] = table["V12"].replace({0: 2})
    said = {"A001": "Important in life: Family", "A029": "Important child qualities: independence",
            "F063": "How important is God in your life", "E018": "Future changes: respect for authority"}  # fmt: skip
    labels = {column: said[name] for name, column in names.items()}
    write(table.assign(**{mark: 1.0 for mark in marks}), home / "wave.dta", column_labels=labels)
    assert f"({kind})" in call("wave.dta")
    same(shares(home), by_hand(TREND, names={name: NAMES[name] for name in names}))


def test_columns_may_be_named_in_their_labels(home):
    table = TREND.rename(columns={name: f"var{i}" for i, name in enumerate(TREND)})
    labels = {f"var{i}": f"{name}: what it asks" for i, name in enumerate(TREND)}
    write(table, home / "named.sav", column_labels=labels)
    call("named.sav")
    same(shares(home), by_hand(last_waves(TREND)))


def test_attributes_are_read_by_their_labels(home):
    write(TREND, home / "turned.sav", variable_value_labels={"X001": {1: "Female", 2: "Male"}})
    names, place = read_people(home / "turned.sav", ["A001"], attributes=True).attributes["gender"]
    assert [names[i] for i in place] == [{1: "woman", 2: "man"}[code] for code in TREND.X001]


def test_values_that_the_file_declares_missing_are_no_answers(home):
    table = TREND.assign(A001=TREND.A001.replace({-1: 4}))
    write(table, home / "user.sav", missing_ranges={"A001": [4]})
    call("user.sav")
    found = {key[2] for key in shares(home) if key[1] == "Q1"}
    assert found == {1, 2, 3}


def test_a_code_that_is_labelled_as_missing_is_no_answer(home):
    """And it is no contradiction to the labels that are not known."""
    labels = {"A001": {1: "Very important", 2: "hm", 3: "Not applicable", 4: "ho"}}
    write(TREND, home / "trend.dta", variable_value_labels=labels)
    call("trend.dta")
    assert {key[2] for key in shares(home) if key[1] == "Q1"} == {1, 2, 4}


def test_a_scale_labelled_in_the_other_direction_is_turned(home):
    """As far as every code that is in the data has a label."""
    labels = {1: "Not at all important", 2: "Not very important", 3: "Rather important", 4: "Very important"}
    write(TREND, home / "turned.sav", variable_value_labels={"A001": labels})
    call("turned.sav")
    same(shares(home), by_hand(last_waves(TREND.assign(A001=np.where(TREND.A001 > 0, 5 - TREND.A001, -1)))))


def test_nought_for_not_mentioned_is_no_contradiction(home):
    write(TREND, home / "trend.sav", variable_value_labels={"A029": {0: "Not mentioned", 1: "Important, mentioned"}})
    call("trend.sav")
    same(shares(home), by_hand(last_waves(TREND)))


def test_only_the_needed_columns_are_read_in_blocks(home, monkeypatch):
    write(TREND, home / "trend.sav")
    asked, read = [], pyreadstat.read_sav
    monkeypatch.setattr(pyreadstat, "read_sav", lambda path, **how: asked.append(how) or read(path, **how))
    monkeypatch.setattr(stat_worker, "CELLS", 1000)
    about = stat_worker.metadata("trend.sav")
    request = {"rows": about["rows"], "texts": about["texts"], "encoding": None}
    found, arrays = stat_worker.columns("trend.sav", ["A001", "NOTE"], **request)
    metadata, *blocks = asked
    assert metadata["metadataonly"] and len(blocks) == 1
    for texts, place, name in zip(found["distinct"], arrays, ["A001", "NOTE"], strict=True):
        assert [texts[i] for i in place] == [stat_worker.text_of(value) for value in TREND[name]]
    monkeypatch.setattr(stat_worker, "CELLS", 100)
    again, blocked = stat_worker.columns("trend.sav", ["A001", "NOTE"], **request)
    assert len(asked) == 2 + 8 and all(how["usecols"] == ["A001", "NOTE"] for how in asked[1:])
    assert again == found and all(np.array_equal(one, other) for one, other in zip(arrays, blocked, strict=True))


def test_the_import_asks_for_the_needed_columns_only(home, monkeypatch):
    write(TREND, home / "trend.sav")
    asked, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **how: asked.append(command) or popen(command, **how))
    call("trend.sav")
    names = [json.loads(command[-1])["names"] for command in asked]
    assert names[0] is None and len(names) == 2
    needed = {"S003", "S017", "S002VS", "X001", "X003", "X025R", "F025", "X049", *NAMES}
    assert set(names[1]) == needed


def test_a_crash_of_the_reader_is_a_damaged_file(home, monkeypatch):
    """The C library may crash: this takes the place of such a file."""
    write(TREND, home / "trend.sav")
    crash = home / "crash.py"
    crash.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(stat_file, "_WORKER", crash)
    with pytest.raises(CultevalError, match=r"an SPSS file that cannot be read \(its reader stopped\)\. Download"):
        call("trend.sav")


def test_people_as_arrays_under_the_names_that_were_asked_for(home):
    """A name of trend files gives trend codes, one of wave 7 its codes, whatever the file."""
    write(TREND, home / "trend.sav")
    wave7 = WAVE7[["B_COUNTRY_ALPHA", "W_WEIGHT", "Q8", "Q182", "Q46"]].assign(Y003=TREND.Y003)
    write(wave7, home / "wave7.dta")
    for path in ("trend.sav", "wave7.dta"):
        found = read_people(home / path, ["A029", "Q8", "F118", "Q182", "A008", "Y003", "G006", "Y002"])
        assert ("G006" in found.columns) == (path == "trend.sav") and "Y002" not in found.columns
        yes = np.where(TREND.A029 < 0, np.nan, TREND.A029)
        np.testing.assert_array_equal(found.columns["A029"], yes)
        np.testing.assert_array_equal(found.columns["Q8"], 2 - yes)
        np.testing.assert_array_equal(found.columns["F118"], np.where(TREND.F118 < 0, np.nan, TREND.F118))
        np.testing.assert_array_equal(found.columns["Q182"], found.columns["F118"])
        np.testing.assert_array_equal(found.columns["Y003"], np.where(TREND.Y003 == -5, np.nan, TREND.Y003))
        np.testing.assert_allclose(found.weight, TREND.S017)
        assert [found.countries[i] for i in found.country] == [ISO[int(code)] for code in TREND.S003]
    found = read_people(home / "trend.sav", ["G006"], attributes=True)
    np.testing.assert_array_equal(found.columns["G006"], np.where(TREND.G006.between(1, 4), TREND.G006, np.nan))
    np.testing.assert_array_equal(found.wave, TREND.S002VS)
    names, place = found.attributes["religion"]
    assert names[:3] == ("none", "catholic", "protestant") and names[-1] == "missing"
    expected = np.where(TREND.F025 < 0, len(names) - 1, np.minimum(TREND.F025, 8))  # 8 and 9 are other
    np.testing.assert_array_equal(place, expected)
    with pytest.raises(UsageError, match="Z999"):
        read_people(home / "trend.sav", ["Z999"])


def test_an_attribute_that_cannot_be_read_is_left_out_and_said(home):
    table = TREND.assign(X025R=TREND.X025R.map({1: "low", 2: "so so", 3: "high"}).fillna("NA"))
    write(table, home / "trend.csv")
    said = call("trend.csv")
    assert "subgroups  gender, age, religion, settlement" in said
    assert "left out   education: X025R: no code is known for the label" in said


# ---------------------------------------------------------------- what is refused


def without(*names):
    return lambda path: write(TREND.drop(columns=list(names)), path)


def changed(**columns):
    return lambda path: write(TREND.assign(**columns), path)


def labelled(labels):
    return lambda path: write(TREND, path, variable_value_labels=labels)


def cut(share):
    def do(path):
        write(pd.concat([TREND] * 20), path, row_compress=True)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return do


def foreign(labels):
    def do(path):
        table, more = evs(**labels)
        write(table, path, **more)

    return do


def evs_text(path):
    write(evs()[0], path)


def one(name, value):
    values = TREND[name].astype(object if isinstance(value, str) else float).copy()
    values[3] = value
    return changed(**{name: values.astype(str) if isinstance(value, str) else values})


REFUSED = {
    "no weight": ("t.sav", without("S017"), "no column 'S017', as EVS or WVS trend file has"),
    "no country": ("t.dta", without("S003"), "no column"),
    "no question": ("t.sav", without(*NAMES), "none of the questions of the task"),
    "another table": ("t.sav", lambda path: write(pd.DataFrame({"a": [1.0], "b": [2.0]}), path), "no column"),
    "no rows": ("t.sav", lambda path: write(TREND[:0], path), "no rows"),
    "an unknown country": ("t.sav", one("S003", 998.0), "S003: '998' is not a country"),
    "an empty country": ("t.dta", one("S003", np.nan), "S003: an empty cell is not a country"),
    "a weight below zero": ("t.sav", one("S017", -0.5), "S017: a weight below zero"),
    "no weights": ("t.sav", changed(S017=np.full(N, np.nan)), "S017: missing or zero for every respondent"),
    "weights in words": ("t.sav", one("S017", "heavy"), "S017: a cell is not a number"),
    "half a code": ("t.sav", one("A001", 1.5), "A001: '1.5' is not a code"),
    "an unknown answer in words": ("t.dta", one("A001", "often"), "A001: no code is known for the label 'often'"),
    "other labels": ("t.sav", labelled({"A001": {1: "Not at all important", 2: "hm", 3: "Rather important", 4: "ho"}}),
                     "A001: code 1 is labelled 'Not at all important', unlike in the survey"),
    "ten points turned round": ("t.sav", labelled({"F063": {1: "Very important", 10: "Not at all important", 5: "5"}}),
                                "F063: code 1 is labelled 'Very important'"),
    "ends turned round": ("t.sav", labelled({"F063": {1: "Very important", 10: "Not at all important", -1: "DK"}}),
                          "F063: code 1 is labelled 'Very important'"),
    "two codes of one answer": ("t.sav", labelled({"A165": {1: "Need to be very careful", 2: "Can't be too careful: "
                                "very careful"}}), "A165: code 1 is labelled"),
    "EVS moved": ("t.sav", foreign({"v63": "how important is family (Q1B)"}), "V63 is labelled 'how important is fam"),
    "EVS without a label": ("t.sav", foreign({"v63": ""}), "V63 is labelled '', not 'god'"),
    "EVS as text": ("t.csv", evs_text, "EVS 2017 as text has no labels"),
    "a wave that is not there": ("t.sav", lambda path: write(TREND, path), "--wave 3: not in this file, which has 5"),
    "a column twice": ("t.dta", changed(a001=TREND.A001), "column 'A001' is there twice. Remove one"),
    "SPSS cut short": ("t.sav", cut(0.5), "an SPSS file that cannot be read"),
    "Stata cut short": ("t.dta", lambda path: path.write_bytes(write(TREND, path).read_bytes()[:9000]),
                        "a Stata file that cannot be read"),
    "SPSS without its end of metadata": ("t.sav", lambda path: path.write_bytes(write(TREND, path).read_bytes()[:200]),
                                         "an SPSS file that cannot be read"),
    "a name of the future": ("t.dta", lambda path: path.write_bytes(b"<stata_dta><header><release>999</release>"),
                             "a Stata file that cannot be read"),
    "SAS": ("t.sas7bdat", lambda path: path.write_bytes(bytes(12) + b"\xc2\xea\x81\x60" + bytes(50)), "a SAS file"),
    "nothing there": ("gone.sav", lambda path: None, "cannot be read (No such file or directory)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_place_and_remedy(name, home):
    file, make, words = REFUSED[name]
    make(home / file)
    with pytest.raises(CultevalError) as caught:
        call(file, *(("--wave", 3) if name.startswith("a wave") else ()))
    said = str(caught.value)
    assert words in said and 1 <= len(said.splitlines()) <= 2 and caught.value.exit_code in (2, 3), said
    assert "Give" in said or "Download" in said or "Save" in said or "which has" in said or "Remove" in said, said
    assert not (home / "data").exists()


def test_there_are_twenty():
    assert len(REFUSED) >= 20


def test_a_file_beyond_the_bounds(home, monkeypatch):
    write(TREND, home / "t.sav")
    monkeypatch.setattr(stat_file, "MOST_ROWS", 100)
    with pytest.raises(CultevalError, match="400 rows and 22 columns; this is not the survey's file"):
        call("t.sav")
