"""Tests of spec files: what the shipped ones ask, and what loading says of broken ones."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
from pathlib import Path

import pytest
from culteval.errors import InputError
from culteval.tasks.measure import MeasureOptions, measure_of
from culteval.tasks.spec import OWN_EDITION, load_spec, read_yaml

from ..imported_tasks import IMPORTED

TASKS = Path(__file__).parents[2] / "tasks"
SHIPPED = sorted(p for p in TASKS.rglob("*.yaml") if "metadata" in read_yaml(p) and p.parent.name != "template")
SPEC = load_spec(TASKS / "vsm13" / "vsm13.yaml")
PARAPHRASES = SPEC.items.paraphrases


# What is asked


def test_both_shipped_specs_are_found():
    assert {"vsm13.yaml", "vsm13_text.yaml"} <= {path.name for path in SHIPPED}


def test_those_whose_data_are_imported_are_found():
    assert set(IMPORTED) <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", [p for p in SHIPPED if p.stem in IMPORTED], ids=lambda path: path.stem)
def test_a_spec_whose_data_are_not_imported_says_so(path, tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path))
    with pytest.raises(InputError, match=rf"{path.name}: .*not imported here\. `culteval data import"):
        load_spec(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [p for p in SHIPPED if p.stem not in IMPORTED], ids=lambda path: path.stem)
def test_every_shipped_spec_loads(path, tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path))  # with what is shipped, and no more
    spec = load_spec(path)
    assert spec.name == path.stem
    assert len(spec.hash) == 64
    if spec.metadata.reference is None:
        assert (spec.default_edition, spec.reference_hash) == (OWN_EDITION, None)
    else:
        assert spec.default_edition == spec.metadata.reference.default_edition
        assert spec.default_edition in spec.metadata.reference.editions
        assert len(spec.reference_hash) == 64
    measure_of(spec, spec.metadata.default_country, MeasureOptions())


def test_protocol():
    splits = SPEC.metadata.splits
    assert (splits.fit.paraphrases, splits.fit.orders) == (("A", "B"), ("natural",))
    assert (splits.heldout.paraphrases, splits.heldout.orders) == (("C", "D"), ("natural", "reversed"))
    assert SPEC.paraphrases == ("A", "B", "C", "D")
    assert SPEC.metadata.scorings == ("expected", "argmax")
    assert SPEC.default_scoring == "expected"
    assert (SPEC.metadata.headline.metric, SPEC.metadata.headline.higher_is_better) == ("loss", False)


# From the manual: the item's scale, its stem ("ideal job", "private life" or none) and the index it belongs to.
ITEMS = {
    "m01": ("importance", "job", "idv"), "m02": ("importance", "job", "pdi"), "m03": ("importance", "job", "mas"),
    "m04": ("importance", "job", "idv"), "m05": ("importance", "job", "mas"), "m06": ("importance", "job", "idv"),
    "m07": ("importance", "job", "pdi"), "m08": ("importance", "job", "mas"), "m09": ("importance", "job", "idv"),
    "m10": ("importance", "job", "mas"), "m11": ("importance", "life", "ivr"), "m12": ("importance", "life", "ivr"),
    "m13": ("importance", "life", "lto"), "m14": ("importance", "life", "lto"), "m15": ("frequency", None, "uai"),
    "m16": ("frequency", None, "ivr"), "m17": ("hindrance", None, "ivr"), "m18": ("health", None, "uai"),
    "m19": ("pride", None, "lto"), "m20": ("fear", None, "pdi"), "m21": ("agreement", None, "uai"),
    "m22": ("agreement", None, "lto"), "m23": ("agreement", None, "pdi"), "m24": ("agreement", None, "uai"),
}  # fmt: skip


def test_24_items_each_with_its_scale_stem_and_dimension():
    asked = {name: (key.scale, key.stem, key.dimension) for name, key in SPEC.items.items.items()}
    assert asked == ITEMS
    assert list(asked) == list(ITEMS)


# Label 1 .. label 5, read one by one: code 1 is the most of it everywhere, save in `fear`, where code 1 is never.
SCALES = {
    "importance": {  # of utmost importance .. of very little or no importance
        "A": ("top importance", "high importance", "medium importance", "low importance", "minimal or no importance"),
        "B": ("matters enormously", "matters a lot", "matters somewhat", "matters a little", "hardly matters at all"),
        "C": ("paramount", "substantial", "intermediate", "minor", "negligible or nil"),
        "D": ("counts above all", "counts for much", "counts for something", "counts for little",
              "counts for almost nothing"),
    },
    "frequency": {  # always .. never
        "A": ("constantly", "often", "at times", "rarely", "at no time"),
        "B": ("all the time", "a lot", "now and then", "hardly ever", "never ever"),
        "C": ("continuously", "frequently", "occasionally", "infrequently", "in no instance"),
        "D": ("the whole time", "most of the time", "some of the time", "little of the time", "none of the time"),
    },
    "hindrance": {  # yes, always .. no, never
        "A": ("yes, constantly", "yes, often", "at times", "no, rarely", "no, at no time"),
        "B": ("yes, all the time", "yes, a lot", "now and then", "no, hardly ever", "no, never ever"),
        "C": ("invariably obstructed", "frequently obstructed", "occasionally obstructed", "infrequently obstructed",
              "in no instance obstructed"),
        "D": ("on every occasion", "on most occasions", "on some occasions", "on few occasions", "on no occasion"),
    },
    "health": {  # very good .. very poor
        "A": ("excellent", "quite good", "average", "quite bad", "terrible"),
        "B": ("really great", "pretty decent", "so-so", "pretty rough", "really awful"),
        "C": ("highly favourable", "favourable", "intermediate", "unfavourable", "highly unfavourable"),
        "D": ("top shape", "good shape", "middling shape", "bad shape", "dreadful shape"),
    },
    "pride": {  # very proud .. not proud at all
        "A": ("a great deal", "quite a lot", "some", "not much", "none"),
        "B": ("super proud", "pretty proud", "kind of proud", "not that proud", "not one bit proud"),
        "C": ("very strong", "rather strong", "intermediate", "rather weak", "absent"),
        "D": ("full of pride", "largely proud", "partly proud", "barely proud", "without any pride"),
    },
    "fear": {  # never .. always: the other direction
        "A": ("at no time", "rarely", "at times", "often", "constantly"),
        "B": ("never ever", "hardly ever", "now and then", "a lot", "all the time"),
        "C": ("in no instance", "infrequently", "occasionally", "frequently", "invariably"),
        "D": ("in no case", "in few cases", "in some cases", "in most cases", "in every case"),
    },
    "agreement": {  # strongly agree .. strongly disagree
        "A": ("fully agree", "mostly agree", "unsure", "mostly disagree", "fully disagree"),
        "B": ("absolutely yes", "more yes than no", "can't decide", "more no than yes", "absolutely no"),
        "C": ("firmly endorse", "tend to endorse", "take no position", "tend to reject", "firmly reject"),
        "D": ("wholly right", "largely right", "hard to say", "largely wrong", "wholly wrong"),
    },
}  # fmt: skip


@pytest.mark.parametrize("paraphrase", "ABCD")
@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_runs_in_the_direction_of_the_manual(scale, paraphrase):
    assert PARAPHRASES[paraphrase].scales[scale] == SCALES[scale][paraphrase]


@pytest.mark.parametrize("paraphrase", "ABCD")
def test_there_are_seven_scales(paraphrase):
    assert set(PARAPHRASES[paraphrase].scales) == set(SCALES)


@pytest.mark.parametrize("paraphrase", "AB")
def test_fear_is_frequency_turned_round(paraphrase):
    assert PARAPHRASES[paraphrase].scales["fear"] == PARAPHRASES[paraphrase].scales["frequency"][::-1]


def texts_of(paraphrase):
    labels = itertools.chain.from_iterable(paraphrase.scales.values())
    return {text.lower().strip(" ?.") for text in [paraphrase.instruction, *paraphrase.stems.values(), *labels]} | {
        text.lower().strip(" ?.") for text in paraphrase.items.values()
    }


@pytest.mark.parametrize(("one", "other"), itertools.combinations("ABCD", 2))
def test_no_text_is_in_two_paraphrases(one, other):
    assert not texts_of(PARAPHRASES[one]) & texts_of(PARAPHRASES[other])


@pytest.mark.parametrize("paraphrase", "ABCD")
def test_within_a_paraphrase_items_differ_and_labels_of_a_scale_differ(paraphrase):
    assert len(set(PARAPHRASES[paraphrase].items.values())) == 24
    assert all(len(set(labels)) == 5 for labels in PARAPHRASES[paraphrase].scales.values())


# Includes


@pytest.fixture
def folder(tmp_path):
    """A copy of the task's folder that may be broken."""
    return Path(shutil.copytree(TASKS / "vsm13", tmp_path / "vsm13"))


def swap(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def child(folder, text, name="child.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_text_task_says_what_differs_and_takes_the_rest():
    text = load_spec(TASKS / "vsm13" / "vsm13_text.yaml")
    assert (text.name, text.output_type) == ("vsm13_text", "generate_until")
    assert text.metadata.title.endswith("answered in text")
    assert text.metadata.scorings == ("text", "expected", "argmax")
    assert text.default_scoring == "text"
    for field in ("construct_text", "measure", "splits", "reference", "licence", "citation", "default_country"):
        assert getattr(text.metadata, field) == getattr(SPEC.metadata, field), field
    assert text.items == SPEC.items
    assert [path.name for path in text.sources] == ["vsm13_text.yaml", "vsm13.yaml", "items.yaml"]
    assert text.hash != SPEC.hash
    assert text.reference_hash == SPEC.reference_hash


def test_an_include_of_an_include(folder):
    spec = load_spec(child(folder, "include: vsm13_text.yaml\ntask: third\nmetadata: {title: Third}\n"))
    assert (spec.name, spec.output_type, spec.metadata.title) == ("third", "generate_until", "Third")
    assert spec.metadata.scorings == ("text", "expected", "argmax")
    assert spec.metadata.default_country == "SA"


def test_a_child_without_metadata_takes_it_whole(folder):
    assert load_spec(child(folder, "include: vsm13.yaml\ntask: c\n")).metadata == SPEC.metadata


def test_a_block_inside_metadata_is_replaced_as_a_whole(folder):
    """Metadata are merged field by field; what is nested deeper has to be given in full, or the error names it."""
    full = "{fit: {paraphrases: [C], orders: [natural]}, heldout: {paraphrases: [A], orders: [reversed]}}"
    spec = load_spec(child(folder, f"include: vsm13.yaml\ntask: c\nmetadata: {{splits: {full}}}\n"))
    assert spec.paraphrases == ("C", "A")
    part = child(folder, "include: vsm13.yaml\ntask: c\nmetadata: {reference: {default_edition: '2015'}}\n")
    with pytest.raises(InputError, match=r"child\.yaml:3: metadata\.reference\.editions: Field required"):
        load_spec(part)


@pytest.mark.parametrize("ring", [["child.yaml"], ["b.yaml", "child.yaml"], ["./b.yaml", "../vsm13/child.yaml"]])
def test_an_include_that_comes_back_is_an_error(folder, ring):
    child(folder, f"include: {ring[0]}\ntask: c\n")
    if len(ring) > 1:
        child(folder, f"include: {ring[1]}\n", "b.yaml")
    with pytest.raises(InputError, match=r"child\.yaml: includes itself"):
        load_spec(folder / "child.yaml")


def test_a_missing_include_is_named(folder):
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        load_spec(child(folder, "include: nowhere.yaml\ntask: c\n"))


# Broken files


def test_broken_yaml_names_file_and_line(folder):
    path = child(folder, "include: vsm13.yaml\ntask: c\na: [1\nb: 2\n")
    with pytest.raises(InputError, match=r"child\.yaml:4: not valid YAML") as caught:
        load_spec(path)
    assert caught.value.exit_code == 3


def test_broken_items_name_the_item_file(folder):
    swap(folder / "items.yaml", "  m02: {scale", "  m02: }{scale")
    with pytest.raises(InputError, match=r"items\.yaml:5: not valid YAML"):
        load_spec(folder / "vsm13.yaml")


@pytest.mark.parametrize("name", ["vsm13.yaml", "items.yaml"])
def test_other_encodings_are_refused(folder, name):
    (folder / name).write_bytes("title: Müßiggang\n".encode("latin-1"))
    with pytest.raises(InputError, match=rf"{name}:1: not UTF-8 text"):
        load_spec(folder / "vsm13.yaml")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "empty"),
        (" \n\n", "empty"),
        ("# nothing but a remark\n", "expected a mapping"),
        ("- a\n- b\n", "expected a mapping"),
        ("only words\n", "expected a mapping"),
        ("3\n", "expected a mapping"),
    ],
)
def test_a_spec_is_a_mapping(folder, body, message):
    with pytest.raises(InputError, match=rf"child\.yaml: {message}"):
        load_spec(child(folder, body))


def test_a_folder_is_no_spec(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_spec(tmp_path)


@pytest.mark.parametrize("field", ["task", "output_type", "metadata"])
def test_needed_fields(folder, field):
    data = {"task": "c", "output_type": "multiple_choice", "metadata": "{}"}
    del data[field]
    with pytest.raises(InputError, match=f"{field}: missing"):
        load_spec(child(folder, "".join(f"{key}: {value}\n" for key, value in data.items())))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("vsm13.yaml", "  headline:", "  headlin:",
         r"vsm13\.yaml:<metadata:>: metadata\.headline: Field required \(and 1 more\)"),
        ("vsm13.yaml", "  citation:", "  colour: red\n  citation:",
         r"vsm13\.yaml:<colour:>: metadata\.colour: Extra inputs"),
        ("vsm13.yaml", "orders: [natural]}", "orders: [natural], x: 1}",
         r"vsm13\.yaml:<x: 1>: metadata\.splits\.fit\.x: Extra inputs"),
        ("vsm13.yaml", "[C, D]", "[B, C]",
         r"yaml:<  splits:>: metadata\.splits: paraphrases \['B'\] are in fit and in heldout"),
        ("vsm13.yaml", "[C, D]", "[C, E]", r"vsm13\.yaml: metadata\.splits: no paraphrase 'E' in items\.yaml"),
        ("vsm13.yaml", "[C, D]", "[]",
         r"yaml:<heldout: {>: metadata\.splits\.heldout\.paraphrases: Tuple should have at least 1 item"),
        ("vsm13.yaml", "orders: [natural]", "orders: [sideways]",
         r"yaml:<sideways>: metadata\.splits\.fit\.orders\.0: Input should be 'natural'"),
        ("vsm13.yaml", "[expected, argmax]", "[expected, median]",
         r"yaml:<median>: metadata\.scorings\.1: Input should be 'expected'"),
        ("vsm13.yaml", "items: items.yaml", "items: none.yaml", r"none\.yaml: cannot be read"),
        ("items.yaml", "scale: fear", "scale: feer", r"paraphrases\.A\.scales: no labels for scale 'feer' of item m20"),
        ("items.yaml", "stem: life", "stem: live", r"paraphrases\.A\.stems: no text for stem 'live' of item m11"),
        ("items.yaml", '      m24: "Statement', '      m25: "Statement', r"paraphrases\.A\.items: \['m24', 'm25'\]"),
        ("items.yaml", ', "terrible"]', "]", "scale 'health' has another number of labels in some paraphrase"),
        ("items.yaml", "    stems:\n", "    stemms:\n", r"paraphrases\.A\.stems: Field required"),
        ("items.yaml", '"are given credit for work done well?"', "yes",
         r"paraphrases\.A\.items\.m03: Input should be a"),
        ("items.yaml", "  m24: {scale: agreement, stem: null, ", "  m24: {scale: agreement, ",
         r"items\.yaml:<  m24: {>: items\.m24\.stem"),
    ],
)  # fmt: skip
def test_a_malformed_file_names_file_field_and_remedy(folder, file, old, new, message):
    swap(folder / file, old, new)
    lines = (folder / file).read_text(encoding="utf-8").splitlines()
    # <text> stands for the number of the line that holds it.
    message = re.sub("<(.+?)>", lambda found: str(1 + next(i for i, x in enumerate(lines) if found[1] in x)), message)
    with pytest.raises(InputError, match=message):
        load_spec(folder / "vsm13.yaml")


def test_a_whole_paraphrase_missing(folder):
    path = folder / "items.yaml"
    head, _, _ = path.read_text(encoding="utf-8").partition("  D: ")
    path.write_text(head, encoding="utf-8")
    with pytest.raises(InputError, match=r"no paraphrase 'D' in items\.yaml"):
        load_spec(folder / "vsm13.yaml")


def test_an_unknown_measure_is_an_input_error_with_a_hint(folder):
    swap(folder / "vsm13.yaml", "measure: hofstede", "measure: hofsted")
    with pytest.raises(InputError, match=r"unknown measure 'hofsted'\. Did you mean 'hofstede'\?"):
        measure_of(load_spec(folder / "vsm13.yaml"), "SA", MeasureOptions())


def test_the_measure_needs_the_24_items_in_order(folder):
    text = (folder / "items.yaml").read_text(encoding="utf-8")
    lines = text.split("\n")
    first, second = (next(i for i, line in enumerate(lines) if line.startswith(f"  {m}: {{")) for m in ("m01", "m02"))
    lines[first], lines[second] = lines[second], lines[first]
    (folder / "items.yaml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match="needs the items m01 to m24, in this order"):
        measure_of(load_spec(folder / "vsm13.yaml"), "SA", MeasureOptions())


# Nothing is executed


def test_function_tags_stay_strings_and_are_never_run(folder):
    trap = folder / "ran"
    (folder / "evil_hooks.py").write_text(f"open({str(trap)!r}, 'w')\ndef run(**_):\n    pass\n", encoding="utf-8")
    path = child(folder, "include: vsm13.yaml\ntask: c\ncustom_dataset: !function evil_hooks.run\n")
    assert read_yaml(path)["custom_dataset"] == "evil_hooks.run"
    assert load_spec(path).name == "c"
    assert not trap.exists()
    assert "evil_hooks" not in sys.modules


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
def test_python_tags_are_refused(folder, tag):
    trap = folder / "made"
    path = child(folder, f"include: vsm13.yaml\ntask: c\nx: {tag} [{trap}]\n")
    with pytest.raises(InputError, match=r"child\.yaml:3: not valid YAML"):
        load_spec(path)
    assert not trap.exists()


def test_a_function_tag_on_a_mapping_is_an_input_error(folder):
    with pytest.raises(InputError, match="not valid YAML"):
        load_spec(child(folder, "include: vsm13.yaml\ntask: c\nx: !function {a: b}\n"))


# Hashes


def test_a_copy_has_the_same_hash(folder):
    assert load_spec(folder / "vsm13.yaml").hash == SPEC.hash


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("items.yaml", "have likeable co-workers?", "have likable co-workers?"),
        ("items.yaml", '"at no time", "rarely", "at times"', '"at no time", "seldom", "at times"'),
        ("vsm13.yaml", "orders: [natural]}", "orders: [reversed]}"),
    ],
)
def test_the_hash_tells_what_was_asked(folder, file, old, new):
    before = {name: load_spec(folder / name) for name in ("vsm13.yaml", "vsm13_text.yaml")}
    hashes = {name: (spec.hash, spec.reference_hash) for name, spec in before.items()}
    swap(folder / file, old, new)
    for name, (hash_, reference_hash) in hashes.items():
        after = load_spec(folder / name)
        assert after.hash != hash_
        assert after.reference_hash == reference_hash


def test_the_reference_has_a_hash_of_its_own(folder):
    swap(folder / "hofstede.csv", "SA,72,48", "SA,95,25")
    after = load_spec(folder / "vsm13.yaml")
    assert after.hash == SPEC.hash
    assert after.reference_hash != SPEC.reference_hash


# Known faults: each is to become an InputError


@pytest.mark.parametrize("block", ["metadata:", "metadata: 3", "metadata: [a]"])
def test_metadata_that_is_no_mapping(folder, block):
    with pytest.raises(InputError, match=r"child\.yaml"):
        load_spec(child(folder, f"include: vsm13.yaml\ntask: c\n{block}\n"))


def test_a_missing_reference_file_is_named(folder):
    (folder / "hofstede.csv").unlink()
    with pytest.raises(InputError, match=r"hofstede\.csv"):
        measure_of(load_spec(folder / "vsm13.yaml"), "SA", MeasureOptions())
