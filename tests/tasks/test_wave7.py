"""``data import wvs``: the survey's file in the shapes people have, to the same shares, computed here by hand."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections import defaultdict

import numpy as np
import pytest
from culteval.errors import CultevalError, InputError
from culteval.tasks.importers import survey_file, wave_labels, wvs

from ..command import invoked


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words):
    return invoked("data", "import", "wvs", *words).output


def refused(*words):
    with pytest.raises(CultevalError) as caught:
        call(*words)
    assert 1 <= len(str(caught.value).splitlines()) <= 2 and caught.value.exit_code in (2, 3)
    return str(caught.value)


QUESTIONS = wvs._questions()
PEOPLE = 60


def people():
    """Rows of a made-up file: header names and cells as text."""
    rng = np.random.default_rng(7)
    rows = []
    for _ in range(PEOPLE):
        row = {"D_INTERVIEW": str(rng.integers(1e6)), "B_COUNTRY_ALPHA": str(rng.choice(["USA", "KOR", "HKG", "NIR"]))}
        row |= {
            "W_WEIGHT": f"{rng.uniform(0.2, 3):.5f}",
            "Q260": str(rng.integers(1, 3)),
            "X003R": str(rng.integers(1, 7)),
        }
        for name, codes in QUESTIONS.items():
            row[name] = str(rng.choice([*codes, -1, -2, -5]))
        rows.append(row)
    return rows


ROWS = people()
LETTERS = {"USA": "US", "KOR": "KR", "HKG": "HK", "NIR": "XI"}


def by_hand(rows):
    """``(country, question, code) -> (share, count)`` over people whose weight is a number above zero."""
    sums, counts = defaultdict(float), defaultdict(int)
    for row in rows:
        try:
            weight = float(row["W_WEIGHT"])
        except ValueError:
            continue
        if not weight > 0:
            continue
        for name in QUESTIONS:
            if (code := int(row[name])) in QUESTIONS[name]:
                key = LETTERS[row["B_COUNTRY_ALPHA"]], name, code
                sums[key] += weight
                counts[key] += 1
    totals = defaultdict(float)
    for (country, name, _), weight in sums.items():
        totals[country, name] += weight
    return {key: (weight / totals[key[:2]], counts[key]) for key, weight in sums.items()}


def text_of(rows, mark=",", header=lambda name: name, end="\n"):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=mark, lineterminator=end)
    writer.writerow([header(name) for name in rows[0]])
    writer.writerows([list(row.values()) for row in rows])
    return out.getvalue()


def changed(rows, **columns):
    return [row | {name: of(row[name]) for name, of in columns.items()} for row in rows]


def shares(folder, edition="weighted"):
    with (folder / "data" / "wvs" / f"{edition}.csv").open() as file:
        return {
            (r["country"], r["question"], int(r["code"])): (float(r["share"]), int(r["count"]))
            for r in csv.DictReader(file)
        }


def same(found, expected):
    assert set(found) == set(expected)
    for key, (share, count) in expected.items():
        assert found[key] == (pytest.approx(share, abs=6e-7), count), key


def zipped(text, name="F00010734-WVS.csv", **more):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
        for other, inside in more.items():
            archive.writestr(other, inside)
    return out.getvalue()


# Labels of a scale by code, as a statistics program writes them in place of codes
IMPORTANT = {1: "Very important", 2: "Rather important", 3: "Not very important", 4: "Not at all important"}
MISSING = {-1: "Don´t know", -2: "No answer", -5: "Missing; Unknown"}
AGREE = {1: "Agree strongly", 2: "Agree", 3: "Neither agree nor disagree", 4: "Disagree", 5: "Disagree strongly"}
PLACES = {"USA": "United States", "KOR": "South Korea", "HKG": "Hong Kong SAR", "NIR": "Northern Ireland"}


def labelled(labels, wrap=str):
    return lambda cell: wrap((labels | MISSING)[int(cell)])


def labels():
    ends = {1: "Never justifiable", 10: "Always justifiable"} | {n: str(n) for n in range(2, 10)}
    member = {0: "Don't belong", 1: "Inactive member", 2: "Active member"}
    democracy = {1: "Not an essential characteristic of democracy", 10: "An essential characteristic of democracy"}
    democracy |= {n: str(n) for n in range(2, 10)}
    return changed(
        ROWS, Q1=labelled(IMPORTANT), Q33=labelled(AGREE), Q178=labelled(ends), Q94=labelled(member),
        Q241=labelled(democracy), B_COUNTRY_ALPHA=PLACES.get,
    )  # fmt: skip


PLAIN = text_of(ROWS)
LABEL = text_of(ROWS, header=lambda name: f"{name}: what, or how, is asked")
SHAPES = {
    "plain": PLAIN,
    "semicolons": text_of(ROWS, ";"),
    "tabs": text_of(ROWS, "\t"),
    "bars": text_of(ROWS, "|"),
    "decimal commas": text_of(changed(ROWS, W_WEIGHT=lambda w: w.replace(".", ",")), ";"),
    "decimal commas in quotes": text_of(changed(ROWS, W_WEIGHT=lambda w: w.replace(".", ","))),
    "labels with commas": LABEL,
    "labels with line breaks": text_of(ROWS, header=lambda name: f"{name}: two\nlines, here"),
    "labels as R writes them": text_of(ROWS, header=lambda name: f"{name}..What.or.how"),
    "labels behind a dash": text_of(ROWS, header=lambda name: f"{name} - what, or how"),
    "labels in Latin-1": text_of(ROWS, header=lambda name: f"{name}: für wen").encode("latin-1"),
    "answers in Latin-1": text_of(changed(ROWS, Q1=labelled(IMPORTANT))).replace("Don´t", "Don´t").encode("latin-1"),
    "answers in cp1252": text_of(changed(ROWS, Q1=labelled(IMPORTANT))).replace("Don´t", "Don’t").encode("cp1252"),
    "an unused column in Latin-1": text_of([row | {"TOWN": "Köln"} for row in ROWS]).encode("latin-1"),
    "an unused column with line breaks": text_of([row | {"NOTE": "a\nb;c,d"} for row in ROWS]),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UTF-16 LE": b"\xff\xfe" + PLAIN.encode("utf-16-le"),
    "UTF-16 BE": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "UTF-16 with tabs": text_of(ROWS, "\t").encode("utf-16"),
    "UTF-32": PLAIN.encode("utf-32"),
    "lower case": text_of(ROWS, header=str.lower),
    "lines before": "World Values Survey\nwave 7; version 6, 2024\n\n" + PLAIN,
    "Excel's sep line": "sep=;\n" + text_of(ROWS, ";"),
    "Windows' line ends": text_of(ROWS, end="\r\n"),
    "old line ends": text_of(ROWS, end="\r"),
    "everything in quotes": "\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in PLAIN.splitlines()),
    "codes as decimals": text_of(changed(ROWS, Q1=lambda c: f"{c}.0", Q2=lambda c: f"{c}.00")),
    "spaces around": text_of(changed(ROWS, Q1=lambda c: f" {c} ", B_COUNTRY_ALPHA=lambda c: f"{c} ")),
    "R's and Stata's missing": text_of(
        changed(ROWS, Q1=lambda c: "NA" if int(c) < 0 else c, Q2=lambda c: ".a" if int(c) < 0 else c)
    ),
    "row numbers": text_of([{"": str(i)} | row for i, row in enumerate(ROWS)]),
    "value labels": text_of(labels()),
    "value labels with numbers": text_of(
        changed(ROWS, Q1=lambda c: f"{c}. {(IMPORTANT | MISSING)[int(c)]}", Q27=lambda c: f"{c} - mm")
    ),
    "other apostrophes and case": text_of(
        changed(ROWS, Q1=lambda c: (IMPORTANT | {-1: "don’t know", -2: "no answer", -5: "not asked"})[int(c)].upper())
    ),
    "two-letter countries": text_of(changed(ROWS, B_COUNTRY_ALPHA=lambda c: {"NIR": "NIR"}.get(c, c).lower())),
    "a zip archive": zipped(PLAIN),
    "a zip archive with a note": zipped(LABEL, **{"__MACOSX/._x.csv": "x", "readme.txt": "note"}),
    "UTF-16 in a zip archive": zipped(PLAIN.encode("utf-16")),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_shares(shape, home):
    data = SHAPES[shape]
    (home / "wave7").write_bytes(data if isinstance(data, bytes) else data.encode())
    assert f"{PEOPLE} respondents, 4 countries, 92 questions" in call("wave7")
    same(shares(home), by_hand(ROWS))


def test_questions_without_their_middle_option_in_the_netherlands_are_left_out(home):
    """As in ``shares_extended.csv``; elsewhere the same two questions are imported."""
    rows = [row | {"B_COUNTRY_ALPHA": "NLD"} if row["B_COUNTRY_ALPHA"] == "KOR" else row for row in ROWS]
    (home / "wave7.csv").write_text(text_of(rows))
    assert "92 questions" in call("wave7.csv")
    asked = defaultdict(set)
    for country, question, _ in shares(home):
        asked[country].add(question)
    assert asked["NL"] == {*QUESTIONS} - {"Q122", "Q124"} and asked["US"] == {*QUESTIONS}


WEIGHTS = {
    "empty": ["", "", ""],
    "NA": ["NA", "nan", "."],
    "the survey's own codes": ["-1", "-4", "-5"],
    "zero": ["0", "0.0", "0"],
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_people_without_a_weight_are_in_no_share_and_no_count(kind, home):
    rows = [row | {"W_WEIGHT": WEIGHTS[kind][i]} if i < 3 else row for i, row in enumerate(ROWS)]
    (home / "wave7.csv").write_text(text_of(rows))
    said = call("wave7.csv")
    assert "57 respondents, 4 countries" in said
    assert "left out   3 respondents with a weight that is missing or zero" in said
    same(shares(home), by_hand([row if i >= 3 else row | {"W_WEIGHT": "0"} for i, row in enumerate(rows)]))
    found = json.loads(call("wave7.csv", "--json"))
    assert found["respondents"] == 57 and sum(found["left_out"].values()) == 3
    lost = defaultdict(int)
    for row in ROWS[:3]:
        lost[LETTERS[row["B_COUNTRY_ALPHA"]]] += 1
    assert found["left_out"] == lost
    source = json.loads((home / "data" / "wvs" / "weighted.source.json").read_text())
    assert source["left_out"] == lost and source["respondents"] == 57


def test_a_country_all_of_whose_weights_are_missing_is_named(home):
    rows = [row | {"W_WEIGHT": ""} if row["B_COUNTRY_ALPHA"] == "KOR" else row for row in ROWS]
    (home / "wave7.csv").write_text(text_of(rows))
    lost = sum(row["B_COUNTRY_ALPHA"] == "KOR" for row in ROWS)
    said = call("wave7.csv")
    assert f"(KR {lost})" in said and f"{PEOPLE - lost} respondents, 3 countries" in said
    assert {key[0] for key in shares(home)} == {"US", "HK", "XI"}


def test_cells_count_the_same_people(home):
    rows = [row | {"W_WEIGHT": ""} if i < 5 else row for i, row in enumerate(ROWS)]
    rows = changed(rows, Q260=lambda c: {"1": "Male", "2": "Female"}[c])
    (home / "wave7.csv").write_text(text_of(rows))
    call("wave7.csv")
    totals = defaultdict(int)
    with (home / "data" / "wvs" / "cells" / "weighted.csv").open() as file:
        for row in csv.DictReader(file):
            if row["cell"].startswith("age"):
                continue
            assert row["cell"] in ("gender=man", "gender=woman")
            totals[row["country"], row["question"], int(row["code"])] += int(row["count"])
    assert totals == {key: count for key, (_, count) in by_hand(rows).items()}


def one(name, cell):
    return text_of([row | {name: cell} if i == 4 else row for i, row in enumerate(ROWS)])


BROKEN = {
    "empty": ("", "empty"),
    "a mark and nothing": (b"\xff\xfe", "empty"),
    "another table": ("a,b\n1,2\n", "no column 'B_COUNTRY_ALPHA'"),
    "no rows": (PLAIN.splitlines()[0] + "\n", "no rows"),
    "no country": (one("B_COUNTRY_ALPHA", "XXX"), "'XXX'"),
    "no country's name": (one("B_COUNTRY_ALPHA", "Atlantis"), "'Atlantis'"),
    "an empty country": (one("B_COUNTRY_ALPHA", ""), "empty cell"),
    "a weight below zero": (one("W_WEIGHT", "-0.5"), "below zero"),
    "another weight below zero": (one("W_WEIGHT", "-99"), "below zero"),
    "a weight in words": (one("W_WEIGHT", "heavy"), "W_WEIGHT: a cell is not a number ('heavy')"),
    "an endless weight": (one("W_WEIGHT", "inf"), "W_WEIGHT: a cell is not a number ('inf')"),
    "commas and points": (one("W_WEIGHT", "1,5"), "W_WEIGHT: numbers with commas and with points"),
    "no weights": (text_of(changed(ROWS, W_WEIGHT=lambda w: "")), "missing or zero for every respondent"),
    "no weights but zeros": (text_of(changed(ROWS, W_WEIGHT=lambda w: "-4")), "missing or zero for every respondent"),
    "an unknown label": (one("Q1", "often"), "Q1: no code is known for the label 'often'"),
    "a label of another scale": (one("Q27", "Very important"), "Q27: no code is known for the label 'Very important'"),
    "half a code": (one("Q1", "1.5"), "Q1: '1.5' is not a code"),
    "a short row": (PLAIN + "7,DEU,1\n", "columns"),
    "a header without quotes": (PLAIN.replace("Q158,", "Q158: healthier, easier,", 1), "columns"),
    "a column twice": (PLAIN.replace("D_INTERVIEW", "q1", 1), "'Q1' is there twice"),
    "UTF-16 cut short": (PLAIN.encode("utf-16")[:-1], "not text in utf-16"),
    "SPSS": (b"$FL2@(#) SPSS DATA FILE" + bytes(80), "an SPSS file that cannot be read"),
    "zipped SPSS": (b"$FL3@(#) SPSS DATA FILE" + bytes(80), "an SPSS file that cannot be read"),
    "Stata": (b"<stata_dta><header><release>118</release>", "a Stata file that cannot be read"),
    "old Stata": (b"\x72\x02\x01\x00" + bytes(90), "a Stata file that cannot be read"),
    "SAS": (bytes(12) + b"\xc2\xea\x81\x60\xb3\x14", "this is a SAS file"),
    "R": (gzip.compress(b"RDX3\nX\n\x00\x00\x00\x03"), "this is an R data file"),
    "R's rds": (gzip.compress(b"X\n\x00\x00\x00\x03\x00\x04"), "this is an R data file"),
    "gzip": (gzip.compress(PLAIN.encode()), "this is a gzip archive. Unpack it"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(90), "this is an Excel file"),
    "Excel": (zipped("x", "[Content_Types].xml", **{"xl/workbook.xml": "x"}), "Excel"),
    "PDF": (b"%PDF-1.7\n", "this is a PDF"),
    "Parquet": (b"PAR1" + bytes(90), "this is a Parquet file"),
    "a web page": (b"\n<!DOCTYPE html><html>Please log in</html>", "this is a web page"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "SPSS in a zip archive": (zipped("x", "wave7.sav"), "without one CSV, SPSS or Stata file in it (wave7.sav)"),
    "two files in a zip archive": (zipped(PLAIN, "a.csv", **{"b.csv": PLAIN}), "without one CSV, SPSS or Stata file"),
    "a damaged zip archive": (zipped(PLAIN)[:-50], "an archive that cannot be read"),
    "a damaged file in it": (
        zipped(PLAIN)[:900] + b"\x00" * 99 + zipped(PLAIN)[999:],
        "an archive that cannot be read",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_says_what_it_is(name, home):
    data, words = BROKEN[name]
    (home / "wave7.csv").write_bytes(data if isinstance(data, bytes) else data.encode())
    assert words in refused("wave7.csv")
    assert not (home / "data").exists()


def test_a_huge_file_in_an_archive_is_refused_before_it_is_unpacked(home, monkeypatch):
    monkeypatch.setattr(survey_file, "MOST_BYTES", 1000)
    (home / "wave7.zip").write_bytes(zipped(PLAIN))
    assert "larger than" in refused("wave7.zip")


def test_every_scale_has_a_label_for_its_codes_or_for_its_ends():
    known = wave_labels.known().scales
    for question, phrases in wave_labels.phrases_of_questions().items():
        codes = QUESTIONS[question]
        assert set(phrases) == set(codes) if len(codes) < 10 else set(phrases) == {codes[0], codes[-1]}, question
    for scale, phrases in known.items():
        said = [part.strip().removeprefix("~") for parts in phrases.values() for part in parts.split("|")]
        assert len(said) == len(set(said)), scale
        for part in said:
            assert part == wave_labels._plain(part), part


@pytest.mark.parametrize(
    ("question", "label", "code"),
    [
        ("Q7", "Mentioned", 1), ("Q18", "Not mentioned", 2), ("Q43", "Don't mind", 2), ("Q46", "Quite happy", 2),
        ("Q57", "Most people can be trusted", 1), ("Q61", "Trust somewhat", 2), ("Q94", "Don´t belong", 0),
        ("Q106", "Incomes more equal", 1), ("Q107", "Government ownership", 10), ("Q110", "Luck and connections", 10),
        ("Q112", "There is no corruption", 1), ("Q113", "Few of them", 2), ("Q122", "Hard to say", 1),
        ("Q130", "Let anyone come", 1), ("Q142", "A good deal", 2), ("Q171", "Only on special holy days/feasts", 4),
        ("Q196", "Probably should not have the right", 3), ("Q209", "Might do", 2), ("Q257", "Not close at all", 4),
        ("Q241", "Not an essential feature", 1), ("Q241", "An essential feature", 10),
        ("Q250", "Absolutely important", 10),
    ],
)  # fmt: skip
def test_labels(question, label, code):
    column = survey_file.Column((label,), np.zeros(1, int))
    assert wave_labels.codes(column, wave_labels.phrases_of_questions()[question], "x").tolist() == [code]


def test_no_scale_takes_a_missing_answer_for_one():
    said = ("Don't know", "Don´t know", "No answer", "Not applicable", "Not asked in survey", "Missing; Unknown", "DK")
    column = survey_file.Column(said, np.arange(len(said)))
    for question, phrases in wave_labels.phrases_of_questions().items():
        assert np.isnan(wave_labels.codes(column, phrases, question)).all()


@pytest.mark.parametrize("edition", ["shipped", "own", "extended", "../up", ""])
def test_editions_that_are_no_names(edition, home):
    (home / "wave7.csv").write_text(PLAIN)
    assert "--edition" in refused("wave7.csv", "--edition", edition)
    assert not (home / "data").exists()


def test_an_edition_is_what_a_task_is_scored_against(home):
    from culteval.harness.registry import spec_of
    from culteval.tasks.measure import MeasureOptions, countries_of, measure_of

    (home / "wave7.csv").write_text(PLAIN)
    call("wave7.csv", "--edition", "mine")
    assert countries_of(spec_of("wvs"), "mine") == ("HK", "KR", "US", "XI")
    counts = measure_of(spec_of("wvs"), "KR", MeasureOptions(edition="mine")).reference.counts
    assert counts["Q1"] == sum(
        count for (place, name, _), (_, count) in by_hand(ROWS).items() if (place, name) == ("KR", "Q1")
    )


def test_a_pipe_is_not_waited_for(home):
    import os

    os.mkfifo(home / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        wvs.convert(home / "pipe")
