"""What tasks ask: survey items with true codes, questions in templates, splits by tag, personas drawn in a chain."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pycountry
import pytest
import yaml
from culteval.errors import InputError
from culteval.harness.registry import spec_path, table
from culteval.tasks.items import Question, Questions, Survey, free_id, free_kind
from culteval.tasks.personas import OWN, Population, draw, draw_personas
from culteval.tasks.prompts import (
    ProtocolOptions,
    all_items,
    count_answers,
    of_split,
    render,
    render_protocol,
    split_items,
)
from culteval.tasks.spec import load_spec
from pydantic import ValidationError

from ..imported_tasks import IMPORTED

TASKS = sorted(set(table("tasks")) - set(IMPORTED))
PERSONAS = Path(__file__).parents[2] / "tasks" / "wvs" / "personas.yaml"
SURVEY = yaml.safe_load("""
language: en
codes: {zero: [0, 1, 2], ten: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], gap: [1, 2, 5]}
items:
  z: {scale: zero, stem: s, dimension: d}
  t: {scale: ten, stem: null, dimension: d, split: fit}
  g: {scale: gap, stem: null, dimension: d, split: heldout}
  own: {scale: plain, stem: null, dimension: d, split: heldout}
paraphrases:
  W:
    instruction: Number only.
    scales: {zero: ["no", perhaps, "yes"], ten: [worst, "", "", "", middle, "", "", "", "", best], gap: [a, b, c],
             plain: [x, "y"]}
    stems: {s: Are you in}
    items: {z: "a club?", t: "Life?", g: "Gap?", own: "Own?"}
""")
TEMPLATES = {"f": "Pick.\n{question}\n{options}", "b": "In {country}:\n{options}", "f_open": "Say: {question}"}
QUESTIONS = [
    {"id": "q1", "question": "One?", "options": ["p", "q", "r"], "answer": 2, "country": "SA", "split": "fit"},
    {"id": "q2", "question": "Two?", "options": ["p", "q"], "answers": [1, 2], "split": "heldout"},
    {"id": "q3", "question": "Open?", "split": "heldout"},
]
METADATA = {
    "version": 1.0, "title": "t", "construct": "c", "measure": "accuracy", "languages": ["en"], "default_country": "SA",
    "scorings": ["argmax"], "headline": {"metric": "accuracy", "higher_is_better": True},
    "licence": {"code": "c", "data": "d"}, "citation": "c",
}  # fmt: skip


@lru_cache
def shipped(task):
    return load_spec(spec_path(task))


def changed(base, *path, value):
    data = place = copy.deepcopy(base)
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return data


def questions(rows=None, templates=None):
    return Questions.model_validate(
        {"language": "en", "templates": templates or TEMPLATES, "questions": rows or QUESTIONS}
    )


def write_spec(folder, items, splits, **metadata):
    """A spec in ``folder`` of a survey (a dict) or questions (a list)."""
    if isinstance(items, dict):
        name, text, more = "items.yaml", yaml.safe_dump(items, sort_keys=False), {}
    else:
        name, text, more = "q.jsonl", "\n".join(json.dumps(row) for row in items), {"templates": TEMPLATES}
    (folder / name).write_text(text, encoding="utf-8")
    meta = METADATA | more | {"items": name, "splits": splits} | metadata
    spec = {"task": "small", "output_type": "multiple_choice", "metadata": meta}
    (folder / "small.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return load_spec(folder / "small.yaml")


# Surveys


@pytest.mark.parametrize(
    "item, order, text, choices",
    [
        ("z", "natural", "Number only.\n0 = no\n1 = perhaps\n2 = yes\nAre you in a club?", "0 1 2"),
        ("z", "reversed", "Number only.\n2 = yes\n1 = perhaps\n0 = no\nAre you in a club?", "0 1 2"),
        ("t", "natural", "Number only.\n1 = worst\n2, 3, 4\n5 = middle\n6, 7, 8, 9\n10 = best\nLife?",
         "1 2 3 4 5 6 7 8 9 10"),
        ("t", "reversed", "Number only.\n10 = best\n9, 8, 7, 6\n5 = middle\n4, 3, 2\n1 = worst\nLife?",
         "1 2 3 4 5 6 7 8 9 10"),
        ("g", "natural", "Number only.\n1 = a\n2 = b\n5 = c\nGap?", "1 2 5"),
        ("own", "reversed", "Number only.\n2 = y\n1 = x\nOwn?", "1 2"),
        ("free:fit:zero", "natural", "Number only.\n0 = no\n1 = perhaps\n2 = yes\nN/A", "0 1 2"),
        ("free:heldout:plain", "reversed", "Number only.\n2 = y\n1 = x\nN/A", "1 2"),
    ],
)  # fmt: skip
def test_a_survey_item_letter_by_letter(item, order, text, choices):
    survey = Survey.model_validate(SURVEY)
    assert survey.present(item, "W", order) == (text, tuple(choices.split()))
    assert survey.codes(item) == tuple(int(code) for code in choices.split())


def test_empty_labels_at_the_ends_of_a_scale():
    survey = Survey.model_validate(changed(SURVEY, "paraphrases", "W", "scales", "zero", value=["", "mid", ""]))
    assert survey.present("z", "W", "natural").text == "Number only.\n0\n1 = mid\n2\nAre you in a club?"


def test_a_survey_says_what_it_holds():
    survey = Survey.model_validate(SURVEY)
    assert (survey.ids, survey.presentations) == (("z", "t", "g", "own"), ("W",))
    assert survey.free == {"z": "zero", "t": "ten", "g": "gap", "own": "plain"}
    assert [survey.tag(item) for item in survey.ids] == [None, "fit", "heldout", "heldout"]
    assert (free_id("fit", "a:b"), free_kind("free:fit:a:b"), free_kind("z")) == ("free:fit:a:b", "a:b", "")


SECOND = copy.deepcopy(SURVEY["paraphrases"]["W"])
SECOND["scales"]["gap"] = ["a", "b"]
SCALES, TEXTS = ("paraphrases", "W", "scales"), ("paraphrases", "W", "items")


@pytest.mark.parametrize(
    "path, value, says",
    [
        (TEXTS, {"z": "?", "t": "?", "g": "?"}, r"paraphrases\.W\.items.*'own'"),
        ((*TEXTS, "extra"), "?", r"paraphrases\.W\.items.*'extra'"),
        (("items", "t", "scale"), "eleven", "no labels for scale 'eleven' of item t"),
        (("items", "z", "stem"), "nix", "no text for stem 'nix' of item z"),
        (("paraphrases", "V"), SECOND, "scale 'gap' has another number of labels"),
        ((*SCALES, "plain"), ["x"], "1 labels; a scale has 2 to 26"),
        ((*SCALES, "plain"), [str(i) for i in range(27)], "27 labels"),
        (("codes", "gap"), [1, 2], "3 labels for 2 codes"), (("codes", "gap"), [1, 5, 2], r"codes\.gap: codes ascend"),
        (("codes", "gap"), [1, 1, 2], r"codes\.gap: codes ascend"),
        (("codes", "gap"), [-1, 1, 2], r"codes\.gap: codes ascend"),
        ((*SCALES, "plain"), ["x", "x"], "the same label"), (("items",), {}, "items"),
        (("paraphrases",), {}, "paraphrases"),
        (("items", "z", "split"), "control", "split"), (("items", "z", "colour"), "red", "colour"),
    ],
)  # fmt: skip
def test_malformed_surveys_are_refused(path, value, says):
    with pytest.raises(ValidationError, match=says):
        Survey.model_validate(changed(SURVEY, *path, value=value))


# Questions


@pytest.mark.parametrize(
    "item, template, order, text, choices",
    [
        ("q1", "f", "natural", "Pick.\nOne?\nA. p\nB. q\nC. r", "ABC"),
        ("q1", "f", "reversed", "Pick.\nOne?\nA. r\nB. q\nC. p", "CBA"),
        ("q1", "b", "natural", "In Saudi Arabia:\nA. p\nB. q\nC. r", "ABC"),
        ("q2", "b", "reversed", "In :\nA. q\nB. p", "BA"), ("q3", "f", "natural", "Say: Open?", ""),
        ("free:fit:3", "f", "natural", "Pick.\nN/A\nA. N/A\nB. N/A\nC. N/A", "ABC"),
        ("free:heldout:2", "f", "reversed", "Pick.\nN/A\nA. N/A\nB. N/A", "BA"),
    ],
)  # fmt: skip
def test_a_question_letter_by_letter(item, template, order, text, choices):
    asks = questions()
    assert asks.present(item, template, order) == (text, tuple(choices))
    assert asks.codes(item) == tuple(range(1, len(choices) + 1))
    bare = questions(templates={"f": "Say.\n{question}\n{options}"})  # an open question without a template of its own
    assert bare.present("q3", "f", "natural") == ("Say.\nOpen?", ())


@pytest.mark.parametrize("template", ["{question}\n{options}", "{options}\n{question}"])
def test_a_strangers_braces_are_text(template):
    row = {"id": "q", "question": "{options} of {country}, {question}?", "options": ["{question}", "{options}"],
           "country": "SA"}  # fmt: skip
    text = questions([row], {"f": template}).present("q", "f", "natural").text
    lines = "A. {question}\nB. {options}"
    assert text == template.replace("{options}", "@").replace("{question}", row["question"]).replace("@", lines)


def test_questions_say_what_they_hold():
    asks = questions()
    assert (asks.ids, asks.presentations) == (("q1", "q2", "q3"), ("f", "b", "f_open"))
    assert asks.free == {"q1": "3", "q2": "2"}
    assert [asks.by_id[name].right for name in asks.ids] == [(2,), (1, 2), ()]
    assert [asks.tag(name) for name in asks.ids] == ["fit", "heldout", "heldout"]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"options": ["p"]}, "two or more"), ({"options": ["p", "p"]}, "different"),
        ({"options": ["p", ""]}, "not empty"), ({"options": [str(i) for i in range(27)]}, "options"),
        ({"answer": 0}, "answer: 0 is not the number"), ({"answer": 4}, r"answer: 4 .*1 to 3"),
        ({"answers": [1, 4], "answer": None}, "answer: 4"),
        ({"answers": [1]}, "not both"), ({"options": []}, "answer: 2"), ({"country": "sa"}, "country"),
        ({"country": "SAU"}, "country"), ({"split": "control"}, "split"), ({"id": ""}, "id"),
        ({"question": ""}, "question"), ({"hint": "no"}, "hint"),
    ],
)  # fmt: skip
def test_malformed_questions_are_refused(change, says):
    with pytest.raises(ValidationError, match=says):
        Question.model_validate(QUESTIONS[0] | change)


def test_questions_with_an_id_twice_or_an_idle_frame():
    with pytest.raises(ValidationError, match="'q2' is there twice"):
        questions([*QUESTIONS, QUESTIONS[1]])
    with pytest.raises(ValidationError, match=r"templates\.f: holds neither"):
        questions(templates={"f": "In {country}."})


@pytest.mark.parametrize("name", ["free:speech", "free:will:4"])
def test_an_id_that_looks_content_free_is_asked_or_refused(name):
    """A stranger's id may begin with ``free:``; its question must not be lost or break the harness."""
    row = {"id": name, "question": "One?", "options": ["p", "q"]}
    try:
        asks = questions([row])
    except ValidationError:
        return
    assert asks.present(name, "f", "natural").text == "Pick.\nOne?\nA. p\nB. q"


@pytest.mark.parametrize("mark", ["\u2028", "\x85"])
def test_a_line_separator_within_a_question_is_json_and_read(tmp_path, mark):
    row = QUESTIONS[0] | {"question": f"One{mark}two?"}
    splits = {
        "fit": {"paraphrases": ["f"], "orders": ["natural"]},
        "heldout": {"paraphrases": ["b"], "orders": ["natural"]},
    }
    write_spec(tmp_path, [row], splits)
    (tmp_path / "q.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load_spec(tmp_path / "small.yaml").items.by_id["q1"].question == row["question"]


# Splits and what is asked of them

BOTH = {name: {"paraphrases": ["W"], "orders": ["natural"], "items": name} for name in ("fit", "heldout")}
TAGGED = {
    "fit": {"paraphrases": ["f"], "orders": ["natural"], "items": "fit"},
    "heldout": {"paraphrases": ["f"], "orders": ["natural", "reversed"], "items": "heldout"},
    "control": {"paraphrases": ["b"], "orders": ["reversed"]},
}


def test_items_go_to_the_split_that_they_are_tagged_for(tmp_path):
    spec = write_spec(tmp_path, QUESTIONS, TAGGED)
    assert [split_items(spec, name, ProtocolOptions()) for name in TAGGED] == [
        ("q1",),
        ("q2", "q3"),
        ("q1", "q2", "q3"),
    ]
    free = ProtocolOptions(calibrate=True)
    assert split_items(spec, "fit", free) == ("q1", "free:fit:3")
    assert split_items(spec, "heldout", free) == ("q2", "q3", "free:heldout:2")
    names = {free_id(split, kind) for split in TAGGED for kind in "23"}
    assert all_items(spec, free)[:3] == ("q1", "q2", "q3") and set(all_items(spec, free)[3:]) == names
    whole = render_protocol(spec, free)
    mine = {name: [whole.texts[row] for row in np.flatnonzero(of_split(spec, whole.layout, name))] for name in TAGGED}
    assert mine["fit"] == ["Pick.\nOne?\nA. p\nB. q\nC. r", "Pick.\nN/A\nA. N/A\nB. N/A\nC. N/A"]
    assert mine["heldout"] == [
        "Pick.\nTwo?\nA. p\nB. q", "Say: Open?", "Pick.\nN/A\nA. N/A\nB. N/A",
        "Pick.\nTwo?\nA. q\nB. p", "Pick.\nN/A\nA. N/A\nB. N/A",
    ]  # fmt: skip


def test_codes_and_widths_of_scales_of_different_lengths(tmp_path):
    spec = write_spec(tmp_path, SURVEY, BOTH)
    layout = render_protocol(spec, ProtocolOptions()).layout
    assert [layout.items[i] for i in layout.item] == ["t", "g", "own"]
    assert layout.widths.tolist() == [10, 3, 2]
    assert layout.codes.tolist() == [list(range(1, 11)), [1, 2, 5] + [0] * 7, [1, 2] + [0] * 8]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"heldout": TAGGED["heldout"] | {"items": "fit"}}, "more than one split|paraphrase belongs to one split"),
        ({"fit": TAGGED["heldout"], "heldout": TAGGED["fit"]}, "cannot be in fit"),
        ({"fit": TAGGED["fit"] | {"items": "all"}}, "paraphrase belongs to one split"),
        ({"control": TAGGED["control"] | {"paraphrases": ["f"]}}, "in control and in another"),
        ({"fit": TAGGED["fit"] | {"paraphrases": ["nix"]}}, "'nix'"),
        ({"fit": TAGGED["fit"] | {"orders": ["natural", "natural"]}}, "twice"),
    ],
)
def test_splits_that_share_what_they_must_not(tmp_path, change, says):
    with pytest.raises(InputError, match=says):
        write_spec(tmp_path, QUESTIONS, TAGGED | change)
    with pytest.raises(InputError, match="no item is tagged 'fit'"):
        write_spec(tmp_path, QUESTIONS[1:], TAGGED)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("people, limit", [(0, None), (2, None), (3, 1), (1, 2)])
def test_asked_counts_the_protocol(task, people, limit, calibrate):
    spec, protocol = shipped(task), ProtocolOptions(people, 5, limit, calibrate)
    whole = render_protocol(spec, protocol)
    assert count_answers(spec, protocol) == len(whole) == len(whole.texts) == len(whole.choices) > 0
    assert whole.layout.personas == max(1, min(people, limit or people))
    for name, part in spec.metadata.splits.named.items():
        rows = of_split(spec, whole.layout, name)
        assert set(np.array(spec.paraphrases)[whole.layout.paraphrase[rows]]) == set(part.paraphrases[:limit])
    assert sum(of_split(spec, whole.layout, name).sum() for name in spec.metadata.splits.named) == len(whole)
    assert any(free_kind(whole.layout.items[i]) for i in whole.layout.item) == calibrate
    assert [len(choices) for choices in whole.choices] == whole.layout.widths.tolist()


@pytest.mark.parametrize("task", TASKS)
def test_no_text_is_in_fit_and_in_heldout(task):
    spec = shipped(task)
    for protocol in (ProtocolOptions(), ProtocolOptions(3, 1)):
        part = {name: set(render(spec, name, protocol).texts) for name in spec.metadata.splits.named}
        assert part["fit"] and part["heldout"]
        assert not part["fit"] & part["heldout"]
        assert not part.get("control", set()) & (part["fit"] | part["heldout"])


# Personas


def years(band):
    low, _, high = band.rstrip("+").partition("-")
    return int(low), int(high) if high else int(low) + 20


@pytest.mark.parametrize("path", [OWN, PERSONAS], ids=["own", "wvs"])
def test_shares_are_reached_given_what_they_are_given(path):
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    people = draw(Population.model_validate(raw), 20_000, np.random.default_rng(3))
    columns = {name: list(values) for name, values in people.items()}
    for name, attribute in raw["attributes"].items():
        if bands := attribute.get("bands"):
            ages = [int(value) for value in columns[name]]
            columns[name] = [next(b for b in bands if years(b)[0] <= age <= years(b)[1]) for age in ages]
            assert {min(ages), max(ages)} == {min(years(b)[0] for b in bands), max(years(b)[1] for b in bands)}
            for low, high in map(years, bands):
                usual = sum(low <= age <= high for age in ages) / (high + 1 - low)
                assert all(abs(ages.count(age) - usual) < 5 * usual**0.5 for age in range(low, high + 1))
    for name, attribute in raw["attributes"].items():
        tables = attribute["where"] if attribute.get("given") else {"": attribute.get("bands") or attribute["values"]}
        given = [columns[other] for other in attribute.get("given", [])]
        keys = ["|".join(cell) for cell in zip(*given, strict=True)] if given else [""] * 20_000
        for key, shares in tables.items():
            found = Counter(value for value, own in zip(columns[name], keys, strict=True) if own == key)
            n = found.total()
            assert n > 200 and set(found) <= set(shares)
            for value, share in shares.items():
                room = 4.5 * (share * (1 - share) / n) ** 0.5 + 1e-12
                assert abs(found[value] / n - share) < room, (name, key, value)


def test_panels_are_drawn_from_seed_and_split():
    spec = shipped("wvs")
    first = draw_personas(spec, 30, 1, "fit")
    assert first == draw_personas(spec, 30, 1, "fit") and len(first) == 30 and not draw_personas(spec, 0, 1, "fit")
    assert (
        len(
            {
                first,
                draw_personas(spec, 30, 1, "heldout"),
                draw_personas(spec, 30, 1, "control"),
                draw_personas(spec, 30, 2, "fit"),
            }
        )
        == 4
    )
    assert all(
        re.fullmatch(r"You are a (wo)?man aged \d\d and live in .*\. You are .* class\.", text) for text in first
    )
    assert render(spec, "fit", ProtocolOptions(1, 1)).texts[0].split("\n")[0] == draw_personas(spec, 1, 1, "fit")[0]


@pytest.mark.parametrize("path", [OWN, PERSONAS], ids=["own", "wvs"])
def test_no_text_names_a_nationality(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    said = "\n".join(line.split("#")[0] for line in lines).lower()
    names = {entry.name.split(",")[0].lower() for entry in pycountry.countries}
    names |= {"american", "german", "chinese", "saudi", "arab", "indian", "british", "african", "nationality"}
    assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", said)]


CHAIN = yaml.safe_load("""
order: [age, job]
attributes: {age: {bands: {18-24: 0.5, 65+: 0.5}}, job: {given: [age], where: {18-24: {a: 1.0}, 65+: {b: 1.0}}}}
texts: {en: "{age} {job}"}
""")


def test_a_small_chain(tmp_path):
    (tmp_path / "people.yaml").write_text(yaml.safe_dump(CHAIN, sort_keys=False))
    said = draw_personas(write_spec(tmp_path, SURVEY, BOTH, persona_file="people.yaml"), 200, 0, "fit")
    assert {text.split()[1] for text in said} == {"a", "b"}
    assert all(18 <= int(t.split()[0]) <= 24 if t.endswith("a") else 65 <= int(t.split()[0]) <= 85 for t in said)


JOB, AGE = ("attributes", "job"), ("attributes", "age", "bands")
MALFORMED = {
    "order_short": (("order",), ["age"]), "drawn_later": (("order",), ["job", "age"]),
    "sum": ((*JOB, "where", "65+"), {"b": 0.9}), "negative": ((*JOB, "where", "65+"), {"b": 1.5, "a": -0.5}),
    "not_a_number": ((*JOB, "where", "65+"), {"b": "many"}), "not_a_table": ((*JOB, "where", "65+"), 1.0),
    "no_row_for_a_value": ((*JOB, "where"), {"18-24": {"a": 1.0}}), "given_dropped": ((*JOB, "given"), []),
    "empty": (JOB, {}), "values_and_bands": (JOB, {"values": {"a": 1.0}, "bands": {"1-2": 1.0}}),
    "bands_given": (JOB, {"given": ["age"], "bands": {"1-2": 1.0}}), "band_of_words": (AGE, {"young": 1.0}),
    "band_backwards": (AGE, {"24-18": 1.0}), "unknown_field": (("texts", "en"), "{age} {town}"),
    "nameless_field": (("texts", "en"), "{age} {}"), "brace": (("texts", "en"), "{age"),
    "conversion": (("texts", "en"), "{age!r}"), "no_text": (("texts",), {}), "unknown_key": (("colour",), "red"),
}  # fmt: skip


@pytest.mark.parametrize("path, value", MALFORMED.values(), ids=MALFORMED)
def test_malformed_shares_of_people_are_refused(tmp_path, path, value):
    (tmp_path / "people.yaml").write_text(yaml.safe_dump(changed(CHAIN, *path, value=value), sort_keys=False))
    with pytest.raises(InputError, match=r"people\.yaml"):
        draw_personas(write_spec(tmp_path, SURVEY, BOTH, persona_file="people.yaml"), 50, 0, "fit")
