"""Entries verified: a sample of the answers is asked again, and compared with the stored ones."""

import json
import shutil

import numpy as np
import pytest
from culteval.errors import InputError
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.submissions.reader import read_submission
from culteval.harness.submissions.writer import write_submission
from culteval.leaderboards.entries import entries
from culteval.leaderboards.verify import NEAR, TOLERANCE, Models, _sample, _samples

from ..kept_boards import BASE, culteval, entry, key_of, marks_of, rewrite, weigh_nothing
from ..submission_files import answers_of, manifest_of, rows_of


def verify(tiny, board, *arguments, seed=("--seed", 0)):
    """The command, told where the entries' model lies: they call it by the last name of its folder."""
    return culteval("leaderboard", "verify", board, *arguments, "--model", tiny(), *seed)


def test_random_prefixes_are_drawn_anew_and_large_adapters_lie_elsewhere(tiny, tmp_path, monkeypatch):
    from culteval.leaderboards import publish

    for flags in (["random_prefix", "--set", "tokens=3", "--seed", 5], ["random", "--set", "tokens=2", "--budget", 12]):
        assert culteval(*BASE, "--model", tiny(), "--out", tmp_path / "runs", "--aligner", *flags)[0] == 0
    runs, board = sorted((tmp_path / "runs").iterdir()), tmp_path / "board"
    monkeypatch.setattr(publish, "MOST_KEPT", 100)
    _, _, error = culteval("leaderboard", "add", *runs, "--to", board)
    assert error.count("is not added") == 1  # of the random prefix nothing is missing
    assert not list(board.glob("*/adapter"))
    code, out, error = verify(tiny, board)
    assert code == 0 and out.count("matches") == 1 and "random_prefix" in out and "the adapter is missing" in error
    (random,) = (run for run in runs if "-random-" in run.name)
    shutil.copytree(random / "adapter", tmp_path / "elsewhere" / entry(board, "random").name)
    code, out, error = verify(tiny, board, "--adapters", tmp_path / "elsewhere")
    assert code == 0 and out.count("matches") == 2, error
    rewrite(entry(board, "random_prefix"), lambda manifest: manifest.update(seed=6))
    assert "its seed gives another random prefix" in verify(tiny, board)[2]


def test_verify_marks_what_the_model_says_again(board, tiny):
    code, out, error = verify(tiny, board, "--json")
    assert code == 0, error
    told = json.loads(out)
    assert [verdict["compared"] for verdict in told["verdicts"]] == [24] * 3 and not told["not_verified"]
    assert all(verdict["holds"] and verdict["largest"] < 1e-4 for verdict in told["verdicts"])
    kept = marks_of(board)
    assert set(kept) == {key_of(folder) for folder in board.glob("vsm13-*")}
    assert kept == {verdict["manifest_sha256"]: verdict for verdict in told["verdicts"] if verdict.pop("holds")}


def test_invented_answers_are_not_verified_and_lose_their_mark(board, tiny):
    def invent(rows):
        for row in rows:
            row["probs"] = row["probs"][1:] + row["probs"][:1]

    verify(tiny, board)
    name = entry(board, "random").name
    folder = rewrite(entry(board, "random"), change_answers=invent)
    code, out, _ = verify(tiny, board, folder.name)
    assert code == 3 and "DIFFERS" in out and len(json.loads((board / "verified.json").read_text())) == 3
    kept = json.loads((board / "verified.json").read_text())
    sha = key_of(folder)
    (board / "verified.json").write_text(json.dumps(kept | {sha: {}}))  # a mark from elsewhere goes
    verify(tiny, board, folder.name)
    assert sha not in json.loads((board / "verified.json").read_text())
    code, _, error = verify(tiny, board, name)
    assert code == 2 and "no entry" in error


def test_a_mark_is_of_one_manifest(board, tiny):
    """The same answers in an entry of another seed are not verified until its model is asked again, too."""
    verify(tiny, board)
    shutil.copytree(entry(board, "naive"), board / "vsm13-US-naive-copy")
    copy = rewrite(board / "vsm13-US-naive-copy", lambda manifest: manifest.update(seed=6)).name
    assert {one.name for one in entries(board, pytest.fail) if not one.verified} == {copy}
    assert verify(tiny, board, copy)[0] == 0
    assert all(one.verified for one in entries(board, pytest.fail)) and len(marks_of(board)) == 4


def test_each_sample_is_another_and_can_be_drawn_again(board, tiny):
    name = entry(board, "naive").name
    seeds = []
    for _ in range(2):
        code, out, _ = verify(tiny, board, name, seed=())
        (mark,) = marks_of(board).values()
        seeds.append(mark["seed"])
        assert code == 0 and out.splitlines()[1] == f"--sample 24 --seed {mark['seed']} regenerates the same answers."
    assert seeds[0] != seeds[1]
    verify(tiny, board, name, seed=("--seed", seeds[1]))
    assert list(marks_of(board).values()) == [mark]


def test_answers_that_are_honest_in_one_sample_only_are_not_verified(board, tiny):
    honest = _sample(144, 24, 1, np.random.default_rng(0)).tolist()

    def invent(rows):
        for number, row in enumerate(rows):
            if number not in honest:
                row["probs"] = row["probs"][1:] + row["probs"][:1]

    name = rewrite(entry(board, "naive"), change_answers=invent).name
    assert verify(tiny, board, name, seed=("--seed", 0))[0] == 0
    assert verify(tiny, board, name, seed=())[0] == 3


def test_every_task_has_a_sample_of_its_own(tmp_path):
    given = {"vsm13": answers_of(), "vsm13_text": answers_of("vsm13_text", texts=True)}
    write_submission(tmp_path / "s", manifest_of(tuple(given)), given)
    drawn = _samples(*read_submission(tmp_path / "s"), 24, np.random.default_rng(0))
    assert [len(each.prompts) for each in drawn] == [24, 32]  # texts in whole batches of 16


def test_what_rounding_alone_explains_is_verified(tiny, tmp_path, monkeypatch):
    """Stored answers are those of float32: as far from bfloat16 as rounding. Then those of other prompts, farther."""
    rows = {}
    for dtype in ("bfloat16", "float32"):
        words = ["--dtype", dtype, "--model", tiny(), "--aligner", "naive", "--out", tmp_path / dtype]
        code, _, error = culteval(*BASE, *words)
        assert code == 0, error
        code, _, error = culteval(
            "leaderboard", "add", *(tmp_path / dtype).iterdir(), "--to", tmp_path / f"{dtype}-board"
        )
        rows[dtype] = rows_of(next((tmp_path / f"{dtype}-board").glob("vsm13-*")))
    board = tmp_path / "bfloat16-board"
    code, out, _ = verify(tiny, board)
    assert code == 0 and "by rounding alone" not in out
    off = np.abs(np.subtract(*([row["probs"] for row in some] for some in rows.values()))).max()
    monkeypatch.setitem(TOLERANCE, "bfloat16", 0.3 * off)

    def exact(some):
        for row, other in zip(some, rows["float32"], strict=True):
            row["probs"] = other["probs"]

    def shifted(some):
        for row, other in zip(some, rows["float32"][1:] + rows["float32"][:1], strict=True):
            row["probs"] = other["probs"]

    for change, holds in ((exact, True), (shifted, False)):
        rewrite(next(board.glob("vsm13-*")), change_answers=change)
        code, out, error = verify(tiny, board, "--sample", 144, "--json")
        (verdict,) = json.loads(out)["verdicts"]
        assert (code == 0, verdict["holds"]) == (holds, holds), (verdict, error)
        assert verdict["largest"] > verdict["tolerance"] >= verdict["rounding"] > 0


def test_without_its_adapter_nobody_can_ask_again(board, tiny):
    shutil.rmtree(entry(board, "random") / "adapter")
    code, out, error = verify(tiny, board)
    assert code == 0 and out.count("matches") == 2 and "the adapter is missing" in error


def test_another_revision_is_not_verified(board, tiny):
    rewrite(entry(board, "naive"), lambda manifest: manifest["model"].update(revision="f" * 16))
    code, out, error = verify(tiny, board)
    assert code == 0 and out.count("matches") == 2 and "ffff" in error


def test_a_model_behind_an_adapter_that_is_not_there_is_not_verified(board, tiny):
    rewrite(entry(board, "naive"), lambda manifest: manifest["model"].update(adapter_sha256="f" * 64))
    code, out, error = verify(tiny, board)
    assert code == 0 and out.count("matches") == 2 and "an adapter, which entries do not contain" in error


def test_a_damaged_mark_file_is_named(board, tiny):
    (board / "verified.json").write_text("[]")
    code, _, error = verify(tiny, board)
    assert code == InputError.exit_code and "verified.json" in error


def swap_texts(rows):
    """Every text under another question; probabilities and options stay."""
    texts = [row["text"] for row in rows]
    for row, text in zip(rows, texts[1:] + texts[:1], strict=True):
        row["text"] = text


def swap_codes(rows):
    for row in rows:
        if row["probs"]:
            row["parsed"] = 2 if row["parsed"] == 1 else 1


WRITTEN = {
    "honest": (lambda rows: None, True),
    "texts alone": (weigh_nothing, True),
    "swapped texts": (swap_texts, False),
    "swapped codes": (swap_codes, False),
    "swapped texts alone": (lambda rows: (weigh_nothing(rows), swap_texts(rows)), False),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_written_answers_are_asked_again_too(case, probed, tmp_path, tiny):
    change, holds = WRITTEN[case]
    shutil.copytree(probed, tmp_path / "board")
    rewrite(next((tmp_path / "board").iterdir()), change_answers=change)
    code, out, error = verify(tiny, tmp_path / "board", "--json")
    (verdict,) = json.loads(out)["verdicts"]
    assert (code == 0, verdict["holds"]) == (holds, holds), (verdict, error)
    assert verdict["largest"] < 1e-4 and verdict["compared"] == 26  # a batch, and the last one, which is smaller


def test_texts_that_rounding_may_give_are_verified(probed, tmp_path, tiny, monkeypatch):
    """Beginnings of answers to other prompts are as near as the tolerance says, whatever is identical."""

    def change(rows):
        swap_texts(rows)
        for row in rows:
            row["text"] = row["text"][:4]

    shutil.copytree(probed, tmp_path / "board")
    folder = rewrite(next((tmp_path / "board").iterdir()), change_answers=change)
    manifest, answers = read_submission(folder)
    aligned = AlignedModel.load(Models([tiny()], print)(manifest), folder / "adapter")
    (sample,) = _samples(manifest, answers, 24, np.random.default_rng(0))
    off = aligned.shortfalls(sample.prompts, sample.stored.texts, sample.tokens)
    assert (off > 0.1).all() and np.isfinite(off).all()
    for near, holds in ((np.quantile(off, 0.8), False), (off.max(), True)):
        monkeypatch.setitem(NEAR, "float32", float(near))
        code, out, _ = verify(tiny, tmp_path / "board")
        assert (code == 0) == holds and (f"of texts within {near}" in out) == (not holds), out


def test_what_is_written_in_batches_is_asked_again_in_the_same_ones():
    drawn = [_sample(122, 24, 16, np.random.default_rng(seed)) for seed in range(20)]
    whole = [np.arange(122)[at : at + 16].tolist() for at in range(0, 122, 16)]
    for rows in drawn:
        assert rows.tolist() in [one + other for one in whole for other in whole if one < other]
    assert len({tuple(rows) for rows in drawn}) > 5
    assert len(set(_sample(122, 24, 1, np.random.default_rng(0)))) == 24
    assert _sample(7, 24, 16, np.random.default_rng(0)).tolist() == list(range(7))
