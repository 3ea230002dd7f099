"""``culteval compare``, its rank correlations too: what is shared, what is said, what is escaped."""

import json
import sys
from importlib.metadata import version

import numpy as np
import pytest
from culteval.harness.analysis.compare import by_seed, compare, read_sides
from culteval.harness.registry import spec_of
from culteval.harness.submissions.writer import write_submission
from culteval.tasks.answers import Answers
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from culteval.tasks.spec import OWN_EDITION

from ...submission_files import reseal, rows_of

HOSTILE = ("[/bold] [red]x[/red]", "[link=http://x]y", "<script>alert(1)</script>", "a|b", "\\[x]", ":smile:")


def write(folder, tasks=("vsm13",), people=0, seed=0, country="SA", aligner="de", answers=None, texts=None, **more):
    """A submission with random answers (drawn from ``answers``, by default the seed), ``texts`` beside or alone."""
    rng, given, asked = np.random.default_rng(seed if answers is None else answers), {}, []
    protocol = {key: more.pop(key) for key in ("limit",) if key in more}
    for name in tasks:
        spec = spec_of(name)
        layout = render_protocol(spec, ProtocolOptions(people, seed, **protocol)).layout
        probs = rng.random(layout.codes.shape) ** 3 * layout.inside
        probs = probs / np.maximum(probs.sum(-1, keepdims=True), 1e-300)
        given[name] = Answers(layout, probs[None], np.zeros((1, len(layout))))
        if texts:
            kept = probs * (texts == "beside")
            parsed = np.take_along_axis(layout.codes, probs.argmax(-1)[:, None], 1)[:, 0]
            given[name] = Answers(layout, kept[None], np.zeros((1, len(layout))), tuple(map(str, parsed)), parsed)
        row = {
            "name": name,
            "hash": spec.hash,
            "country": country,
            "personas": people,
            "edition": spec.default_edition,
        }
        asked.append(row | protocol | {"constants": more.pop("constants", "world")})
    model = {"name": "m", "revision": "0", "dtype": "float32", "device": "cpu", "threads": 1, "chat_template": None,
             "forward": "fused"} | more.pop("model", {})  # fmt: skip
    manifest = {
        "tasks": asked, "model": model, "aligner": {"name": aligner, "settings": {}, "adapter_sha256": None},
        "fitted": None, "country": country, "seed": seed, "versions": {"culteval": version("culteval")}, "command": "x",
        "budget": {"item_forwards_allowed": 0, "item_forwards": 0, "survey_evaluations": 0, "tokens": 0, "seconds": 0},
    }  # fmt: skip
    write_submission(folder, manifest, given)
    return folder


def compared(*folders, **more):
    return compare(read_sides(folders), np.random.default_rng(0), **more)


def run(monkeypatch, capsys, *arguments):
    """Exit code, output and errors of the command line."""
    from culteval.harness.cli.main import main

    monkeypatch.setenv("COLUMNS", "220")
    monkeypatch.setattr(sys, "argv", ["culteval", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_submission_with_itself(tmp_path):
    folder = write(tmp_path / "a", people=20)
    (found,) = compared(folder, folder)
    assert (found.a, found.b, found.cautions) == ("de #2", "de #1", ())
    assert {(row.difference, row.p, row.adjusted) for row in found.differences} == {(0, 1, 1)}
    assert {row.change for row in found.changes} == {0} and {row.p for row in found.changes} == {1}


def test_differences_and_moved_answers_by_hand(tmp_path):
    one, two = write(tmp_path / "a", people=8, answers=1), write(tmp_path / "b", people=8, answers=2, aligner="gd")
    (found,) = compared(one, two)
    assert (found.a, found.b, found.answers) == ("gd", "de", 8 * 144)

    def codes(folder):
        per_item = {}
        for row in rows_of(folder):
            if row["paraphrase"] in ("C", "D"):
                mean = sum(code * p for code, p in enumerate(row["probs"], start=1))
                per_item.setdefault(row["item"], []).append(mean)
        return {item: np.mean(values) for item, values in per_item.items()}

    base, other = codes(one), codes(two)
    assert {row.item: row.change for row in found.changes} == pytest.approx({i: other[i] - base[i] for i in base})
    assert [abs(row.change) for row in found.changes] == sorted(
        (abs(row.change) for row in found.changes), reverse=True
    )
    assert all(row.p <= row.adjusted <= 1 for row in found.changes) and found.changes[0].mean_a is not None
    assert "?" in found.changes[0].question or found.changes[0].question


def test_questions_move_by_their_options(tmp_path):
    one = write(tmp_path / "a", ("general",), country="US", answers=1)
    two = write(tmp_path / "b", ("general",), country="US", answers=2)
    (found,) = compared(one, two)
    spec = spec_of("general")
    assert {row.item for row in found.changes} == {i for i in spec.items.ids if spec.items.tag(i) == "heldout"}
    row = found.changes[0]
    assert row.likely_a in spec.items.by_id[row.item].options and row.question == spec.items.by_id[row.item].question
    assert 0 < row.change <= 1 and row.p is None and row.mean_a is None
    assert found.differences[0].unit == "questions" and found.differences[0].p is not None


@pytest.mark.parametrize("said", ["beside", "alone"])
def test_text_on_one_side_only(tmp_path, said, monkeypatch, capsys):
    """What both sides can be read as is compared: the other side's text, or its probabilities, are left out."""
    weighed = write(tmp_path / "a", ("vsm13_text",), people=8, answers=1)
    texts = write(tmp_path / "b", ("vsm13_text",), people=8, answers=2, texts=said)
    for order in ((weighed, texts), (texts, weighed)):
        (found,) = compared(*order)
        assert {row.scoring for row in found.differences} == ({"expected", "argmax"} if said == "beside" else set())
        assert all(row.text_a is None and row.text_b is None for row in found.changes)
        code, told, _ = run(monkeypatch, capsys, "compare", *order)
        assert code == 0 and "only one side has answers" in told
        assert ("no answer changed" in told or "changed most (text" in told) is False


def test_holm_runs_over_all_that_is_shown(tmp_path):
    folders = [write(tmp_path / str(k), people=8, answers=k, aligner=f"a{k}") for k in range(3)]
    two, three = compared(*folders[:2]), compared(*folders)
    assert [each.b for each in three] == ["a0", "a0"] and [each.a for each in three] == ["a1", "a2"]
    family = [row for each in three for row in each.differences]
    assert len(family) == 2 * len(two[0].differences)
    least = min(row.p for row in family)
    assert min(row.adjusted for row in family) == pytest.approx(min(1, least * len(family)))


CASES = {
    "personas": ({"people": 20}, {"people": 30}, "20 of seed 0"),
    "seed": ({"people": 20}, {"people": 20, "seed": 1}, "20 of seed 1"),
    "nobody": ({"people": 20}, {}, "none"),
    "limit": ({}, {"limit": 1}, "72 of 144"),
    "constants": ({}, {"constants": "zero"}, "zero constants"),
    "country": ({}, {"country": "US"}, "United States"),
    "model": ({}, {"model": {"name": "other"}}, "other"),
    "dtype": ({}, {"model": {"dtype": "bfloat16"}}, "bfloat16"),
    "adapter": ({}, {"model": {"adapter_sha256": "ab" * 32}}, "the models differ in adapter"),
    "template": ({"model": {"chat_template": "t"}}, {"model": {"chat_template": "u"}}, "differ in chat template"),
    "chat": ({}, {"model": {"chat": {"system": "You are.", "date": "2024-01-01"}}}, "in system prompt, chat options"),
    "default": ({"model": {"chat": {}}}, {"model": {"adapter_sha256": "ab" * 32}}, "the models differ in adapter"),
    "other": ({"model": {"chat_template": "t"}}, {"model": {"name": "other"}}, "different models: other and m"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_the_same_is_said(tmp_path, case):
    left, right, needle = CASES[case]
    (found,) = compared(write(tmp_path / "a", answers=1, **left), write(tmp_path / "b", answers=2, **right))
    assert len(found.cautions) == 1 and needle in found.cautions[0], found.cautions
    assert found.differences
    if case in ("personas", "seed", "nobody"):
        assert {row.p for row in found.differences} == {None} and {row.p for row in found.changes} == {None}


def test_alike_but_for_the_seed_are_points(tmp_path):
    folders = [write(tmp_path / str(k), seed=k) for k in range(3)]
    (found,) = by_seed(read_sides(folders))
    assert found.seeds == (0, 1, 2) and len(found.points.values) == 3 and found.metric == "loss"
    assert not by_seed(read_sides([folders[0], write(tmp_path / "x", aligner="gd", seed=9)]))


def test_seeds_without_a_headline_have_no_point(tmp_path):
    """An item without a readable answer gives no index, and no value of the seed."""
    folders = [write(tmp_path / str(k), ("vsm13_text",), seed=k, texts=True, answers=k) for k in range(3)]
    rows = rows_of(folders[1])
    for row in rows:
        if row["item"] == "m01":
            row.update(text="?", parsed=-1)
    reseal(folders[1], [(json.dumps(row) + "\n").encode() for row in rows])
    (found,) = by_seed(read_sides(folders))
    assert found.seeds == (0, 2) and len(found.points.values) == 2
    assert not by_seed(read_sides(folders[:2]))


def test_tasks_that_both_answered(tmp_path, monkeypatch, capsys):
    one = write(tmp_path / "a", ("vsm13", "general"), country="US", answers=1)
    two = write(tmp_path / "b", ("general",), country="US", answers=2)
    assert [each.task for each in compared(one, two)] == ["general"]
    code, out, err = run(monkeypatch, capsys, "compare", two, write(tmp_path / "c", country="US"))
    assert code == 2 and out == "" and "general" in err and "vsm13" in err and len(err.splitlines()) <= 4


def test_the_commands_tables(tmp_path, monkeypatch, capsys):
    one = write(tmp_path / "a", people=20, answers=1)
    two = write(tmp_path / "b" / "submission", people=20, answers=2, aligner="gd")
    code, out, _ = run(monkeypatch, capsys, "compare", one, two.parent)
    (found,) = compared(one, two)
    assert code == 0 and "gd minus de" in out and "loss ↓" in out
    assert found.changes[0].item in out and found.changes[0].question[:50] in out
    pdi = next(row for row in found.differences if row.metric == "pdi")
    assert f"{pdi.low:+.1f} to {pdi.high:+.1f}" in out
    code, out, err = run(monkeypatch, capsys, "compare", one, two.parent, "--json")
    assert code == 0 and err == ""
    data = json.loads(out)["comparisons"][0]
    assert [row["difference"] for row in data["differences"]] == pytest.approx(
        [r.difference for r in found.differences]
    )
    assert len(data["changes"]) == 24
    code, out, _ = run(monkeypatch, capsys, "compare", one, two.parent, "--country", "US", "--markdown")
    assert code == 0 and out.startswith("### vsm13, United States: gd minus de")


@pytest.mark.parametrize("form", [[], ["--markdown"]])
@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are(tmp_path, name, form, monkeypatch, capsys):
    one, two = write(tmp_path / "a", aligner=name), write(tmp_path / "b", aligner="gd", answers=2)
    code, out, _ = run(monkeypatch, capsys, "compare", one, two, *form)
    assert code == 0
    if not form:
        assert name in out
    else:
        assert "<script" not in out
        tables = [line.replace("\\|", "") for line in out.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in tables} == {10, 6}


@pytest.mark.parametrize(
    ("arguments", "code", "needle"),
    [(["a"], 2, "two submissions"), (["a", "none"], 3, "none"), (["a", "empty"], 3, "manifest.json"),
     (["a", "a", "--json", "--markdown"], 2, "not both"), (["a", "a", "--country", "Nowhere"], 2, "Nowhere"),
     (["a", "a", "--country", "US", "--rank-correlation"], 2, "--country goes without"),
     (["a", "changed"], 3, "is not this vsm13")],
)  # fmt: skip
def test_what_cannot_be_compared(tmp_path, monkeypatch, capsys, arguments, code, needle):
    write(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    changed = write(tmp_path / "changed") / "manifest.json"
    changed.write_text(changed.read_text().replace(spec_of("vsm13").hash, "0" * 64))
    paths = [word if word.startswith("--") or word in ("Nowhere", "US") else tmp_path / word for word in arguments]
    found, out, err = run(monkeypatch, capsys, "compare", *paths)
    assert (found, out) == (code, "") and needle in err and "Traceback" not in err


def test_correlate(tmp_path, monkeypatch, capsys):
    codes = ("SA", "US", "CN", "IN", "DE", "BR", "FR", "JP", "GB", "MX")
    folders = [write(tmp_path / code, country=code, answers=k) for k, code in enumerate(codes)]
    code, out, _ = run(monkeypatch, capsys, "compare", "--rank-correlation", *folders, "--json")
    rows = json.loads(out)["correlations"]
    assert code == 0 and len(rows) == 2 * 6 * 2
    assert all(row["association"]["low"] < row["association"]["value"] < row["association"]["high"] for row in rows)
    assert all(row["association"]["p"] <= row["adjusted"] for row in rows)
    code, out, _ = run(monkeypatch, capsys, "compare", "--rank-correlation", *folders)
    assert code == 0 and "kendall" in out and "pdi" in out
    rebuilt = write(tmp_path / "IT", country="IT") / "manifest.json"
    manifest = json.loads(rebuilt.read_bytes())
    manifest["model"]["revision"] = "another"
    rebuilt.write_text(json.dumps(manifest))
    for wrong, needle in (
        (folders[:9], "9 countries"),
        ([*folders, rebuilt.parent], "differ in more than the country: build"),
        ([*folders, write(tmp_path / "twice")], "more than one is aligned to Saudi Arabia"),
        ([*folders, write(tmp_path / "gd", aligner="gd", country="IT")], "differ in more than the country: aligner"),
        ([write(tmp_path / f"general-{name}", ("general",), country=name) for name in ("US", "CN")], "no task"),
    ):
        code, out, err = run(monkeypatch, capsys, "compare", "--rank-correlation", *wrong)
        assert (code, out) == (2, "") and needle in err
        assert len([line for line in err.splitlines() if line.startswith("Error")]) == 1


def test_own_editions_are_no_difference(tmp_path):
    assert spec_of("general").default_edition == OWN_EDITION
    one, two = (write(tmp_path / str(k), ("general",), country="US", answers=k) for k in range(2))
    assert compared(one, two)[0].cautions == ()
