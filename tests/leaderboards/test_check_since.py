"""A contribution checked beside the release: what is as released is not read again, but copies of it are found."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from culteval.harness.submissions.manifest import MANIFEST
from culteval.harness.submissions.reader import read_manifest, read_submission
from culteval.leaderboards import check as checks
from culteval.leaderboards import copies
from culteval.leaderboards.publish import published_name
from culteval.leaderboards.suite import read_suite

from ..board_files import SPENT, write
from ..submission_files import lines_of, reseal

FREE = {key: 0 for key in SPENT}


def add(board, aligner, **more):
    """An entry that is in order, under its name."""
    folder = write(board, "new", aligner=aligner, budget=FREE, fitted=None, **more)
    return renamed(folder)


def renamed(folder):
    manifest = read_manifest(folder / MANIFEST)
    return folder.rename(folder.with_name(published_name(manifest, (folder / MANIFEST).read_bytes())))


def change(folder, rows=None, **fields):
    """Change the manifest's aligner, and answers, and make hash and name right again, as somebody who cheats would."""
    if rows is not None:
        reseal(folder, [(json.dumps(row) + "\n").encode() for row in rows])
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["aligner"] |= fields
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return renamed(folder)


def rows_of(folder):
    return [json.loads(line) for line in lines_of(folder)]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Entries of two tasks: some with other protocols, one of them with answers in another order."""
    board = tmp_path_factory.mktemp("released")
    for number in range(6):
        add(board, ("icl", "naive")[number % 2], seed=number, country=("SA", "US")[number % 3 == 0], model=f"m{number}")
    add(board, "icl", task="wvs", country="US")
    folder = add(board, "icl", seed=9, model="reversed")
    change(folder, rows_of(folder)[::-1])
    return board


@pytest.fixture
def board(released, tmp_path):
    return Path(shutil.copytree(released, tmp_path / "board"))


def checked(board, before):
    return checks.check(board, read_suite(), before, lambda done, of: None)


def blurred(rows, noise=4e-4):
    rng = np.random.default_rng(0)
    for row in rows:
        probs = (np.array(row["probs"]) + noise * rng.uniform(-1, 1, len(row["probs"]))).clip(0)
        row["probs"] = (probs / probs.sum()).tolist()
    return rows


def test_only_what_is_new_is_read_again(board, released, monkeypatch):
    new, read = add(board, "icl", seed=50, model="new"), []
    make = checks.entry_of
    monkeypatch.setattr(checks, "entry_of", lambda one, shelf: read.append(one.name) or make(one, shelf))
    assert checked(board, released) == (9, [])
    assert read == [new.name]
    assert checked(board, None) == (9, []) and len(read) == 10


@pytest.mark.parametrize("noise", [0, 4e-4])
def test_a_copy_of_any_released_entry_is_found(noise, released, tmp_path):
    """The new entry is named, whatever the names."""
    for number, original in enumerate(sorted(path.name for path in released.iterdir())):
        board = Path(shutil.copytree(released, tmp_path / str(number)))
        shutil.copytree(board / original, board / "mine")
        mine = change(board / "mine", blurred(rows_of(board / "mine"), noise), name="mine")
        count, problems = checked(board, released)
        assert count == 9 and [problem.entry for problem in problems] == [mine.name]
        assert f"equal those of {original}, which" in problems[0].text
        assert len(checked(board, None)[1]) == 1


def test_other_answers_or_the_same_origin_are_no_copy(board, released):
    first = next(board.glob("vsm13-*"))
    shutil.copytree(first, board / "other")
    change(board / "other", blurred(rows_of(board / "other"), 0.05), name="mine")
    shutil.copytree(first, board / "again")
    manifest = json.loads((board / "again" / MANIFEST).read_text())
    (board / "again" / MANIFEST).write_text(json.dumps(manifest | {"seed": 77}))
    renamed(board / "again")
    assert checked(board, released) == (10, []) == checked(board, None)


def test_copies_among_new_entries_are_found(board, released):
    new = add(board, "icl", seed=50, model="new")
    shutil.copytree(new, board / "mine")
    change(board / "mine", name="mine")
    (problem,) = checked(board, released)[1]
    assert "which names another model" in problem.text


def test_a_changed_entry_is_read_again(board, released):
    folder = next(board.glob("vsm13-*"))
    reseal(folder, lines_of(folder)[::-1])
    texts = [problem.text for problem in checked(board, released)[1] if problem.entry == folder.name]
    assert len(texts) == 2 and "rename it" in texts[0] and "other content" in texts[1]


def test_a_released_entry_that_cannot_be_read_is_named_where_it_counts(released, tmp_path):
    """A release should not have it; it is not passed over as no copy."""
    before = Path(shutil.copytree(released, tmp_path / "before"))
    broken = next(before.glob("vsm13-*"))
    (broken / "answers.jsonl.zst").write_bytes(b"damaged")
    board = Path(shutil.copytree(before, tmp_path / "board"))
    assert checked(board, before) == (8, [])
    add(board, "icl", seed=50, model="new")
    (problem,) = checked(board, before)[1]
    assert problem.entry == broken.name and "answers.jsonl.zst" in problem.text


def lines_from(answers, order):
    """The lines of answers to vsm13 in an order of their own."""
    layout, texts = answers.layout, answers.texts or [None] * len(answers.layout)
    for at in order:
        cell = {
            "task": "vsm13",
            "item": layout.items[layout.item[at]],
            "paraphrase": layout.paraphrases[layout.paraphrase[at]],
            "order": layout.orders[layout.order[at]],
            "persona": int(layout.persona[at]),
        }
        probs = answers.probs[0, at].tolist() if answers.probs.any() else []
        yield json.dumps(cell | {"probs": probs, "off_options": 0.0, "text": texts[at]}).encode()


@pytest.mark.parametrize("kind", ["probs", "texts", "both"])
def test_the_sieve_holds_back_no_copy(kind, tmp_path):
    """Whatever differs a little, in whatever order: what ``copies`` finds passes; most else does not."""
    rng, folder = np.random.default_rng(3), write(tmp_path, "one", aligner="icl")
    manifest, answers = read_submission(folder)
    mine = manifest.model_copy(update={"aligner": manifest.aligner.model_copy(update={"name": "mine"})})
    given, count = answers["vsm13"], len(answers["vsm13"].layout)
    if kind != "probs":  # of some, too short to identify their origin
        given = replace(given, texts=tuple(f"I say of it {at} things" if at % 3 else "yes" for at in range(count)))
    if kind == "texts":
        given = replace(given, probs=np.zeros_like(given.probs))
    originals = list(copies.task_answers("given", mine, {"vsm13": given}))
    sieve, seen = copies.Sieve(originals), []
    for _ in range(80):
        noise = rng.choice([0, 3e-4, 9e-4, 1.1e-3, 5e-3]) * rng.choice([-1, 1], given.probs.shape)
        texts = given.texts and np.array(given.texts, dtype=object)
        for at in rng.permutation(count)[: rng.choice([0, 12, 14, 16, 90])] if texts is not None else ():
            texts[at] = "something else is what I say"
        changed = replace(
            given,
            probs=(given.probs + noise).clip(0, 1) if given.probs.any() else given.probs,
            texts=None if texts is None else tuple(texts),
        )
        lines = list(lines_from(changed, rng.permutation(count)))
        is_copy = bool(list(copies.copies(originals, copies.task_answers("other", manifest, {"vsm13": changed}))))
        passed = sieve.passes(lines, sieve.comparable(manifest))
        assert passed or not is_copy
        seen.append((is_copy, passed))
    assert 10 < seen.count((True, True)) < 70 and seen.count((False, False)) > 5 and seen.count((False, True)) < 5
    assert sieve.comparable(mine) == []
