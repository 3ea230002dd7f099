"""Boards that are kept: runs added under their names, contributed entries checked, older boards migrated."""

import json
import shutil

import numpy as np
import pytest

from ..kept_boards import BASE, culteval, entry, key_of, marks_of, rewrite, weigh_nothing
from ..submission_files import bytes_of, unpacked


def test_what_add_made_is_in_order(kept_board):
    code, out, _ = culteval("leaderboard", "check", kept_board, "--since", kept_board)
    assert (code, out) == (0, "3 entries, no problems.\n")
    names = {path.name for path in entry(kept_board, "random").iterdir()}
    assert names == {"manifest.json", "answers.jsonl.zst", "adapter"}


def test_a_run_is_added_once_and_only_when_finished(kept_board, tmp_path):
    code, _, error = culteval("leaderboard", "add", entry(kept_board, "naive"), "--to", kept_board)
    assert code == 2 and "already" in error
    (tmp_path / "empty").mkdir()
    code, _, error = culteval("leaderboard", "add", tmp_path / "empty", "--to", tmp_path / "new")
    assert code == 3 and "no finished run" in error and not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", ["{broken", "[" * 100_000, "[]"])
def test_an_adapter_whose_configuration_is_no_json_is_named(content, kept_board, tmp_path):
    (run,) = (kept_board.parent / "runs").glob("vsm13-US-random-*")
    shutil.copytree(run, tmp_path / run.name)
    place = tmp_path / run.name / "adapter" / "adapter_config.json"
    place.write_text(content)
    code, _, error = culteval("leaderboard", "add", tmp_path / run.name, "--to", tmp_path / "new")
    assert code == 3 and f"{place}: not a JSON object" in error and "Start the run over" in error, error
    assert len(error.strip().splitlines()) == 1 and not list((tmp_path / "new").glob("*"))


def scored(folder):
    """The scores of an entry as its submitter may put them beside it."""
    scores = json.loads(culteval("score", folder, "--json")[1])["scores"]
    (folder / "scores.json").write_text(json.dumps(scores))
    return scores


def loud(folder):
    scores = scored(folder)
    scores[0]["value"] -= 1
    (folder / "scores.json").write_text(json.dumps(scores))


def cut(folder):
    (folder / "answers.jsonl.zst").write_bytes((folder / "answers.jsonl.zst").read_bytes()[:-40])


def free(manifest):
    manifest["budget"] |= {"item_forwards": 0, "survey_evaluations": 0.0}


def overspent(manifest):
    spend(manifest, manifest["budget"]["item_forwards_allowed"] + 1)


def spend(manifest, forwards):
    manifest["budget"] |= {"item_forwards": forwards, "survey_evaluations": round(forwards / 24, 2)}


def praise(folder):
    """A score beside those that the answers give."""
    scores = scored(folder)
    (folder / "scores.json").write_text(
        json.dumps([*scores, scores[0] | {"metric": "judged_pole_accuracy", "value": 1.0}])
    )


def mark(board, *keys):
    (board / "verified.json").write_text(json.dumps({key: {} for key in keys}))


def relink(file):
    file.unlink()
    file.symlink_to("/dev/zero")


def hide(folder):
    """As a run that is not finished."""
    files = sorted(folder.iterdir())
    (folder / "submission").mkdir()
    for file in files:
        file.rename(folder / "submission" / file.name)


SPOILED = {
    "another name": (lambda board: entry(board, "naive").rename(board / "vsm13-US-naive-0123456789"), "rename it"),
    "better scores": (lambda board: loud(entry(board, "random")), "differs from the scores of its answers"),
    "a score of nothing": (lambda board: praise(entry(board, "random")), "1 scores not from its answers"),
    "a cheap search": (
        lambda board: rewrite(entry(board, "random"), lambda m: m["budget"].update(survey_evaluations=1.0)),
        "12.00 survey evaluations of 24 items, not 1.00",
    ),
    "a search for another task": (
        lambda board: rewrite(entry(board, "random"), lambda m: m["fitted"].update(tasks=["nowhere"])),
        "cannot be counted",
    ),
    "a search for no task": (
        lambda board: rewrite(entry(board, "random"), lambda m: m.update(fitted=None)),
        "fitted to nothing",
    ),
    "answers cut short": (lambda board: cut(entry(board, "random")), "answers.jsonl"),
    "a search for nothing": (lambda board: rewrite(entry(board, "random"), free), "nothing was spent"),
    "more than allowed": (lambda board: rewrite(entry(board, "random"), overspent), "allowed"),
    "a budget without a search": (
        lambda board: rewrite(entry(board, "naive"), lambda m: m["budget"].update(item_forwards_allowed=240)),
        "uses no budget",
    ),
    "another adapter": (
        lambda board: (entry(board, "random") / "adapter" / "preamble.txt").write_text("Hello."),
        "not the adapter that the manifest names",
    ),
    "a link": (lambda board: (board / "vsm13-US-x-0000000000").symlink_to(entry(board, "naive")), "a link"),
    "a damaged adapter": (
        lambda board: (entry(board, "random") / "adapter" / "lora").mkdir(),
        "adapter_config.json",
    ),
    "a mark of its own": (lambda board: mark(board, key_of(entry(board, "naive"))), "differs from the release"),
    "a mark of nothing": (lambda board: mark(board, "0" * 64), "no entry has this manifest"),
    "marks that cannot be read": (lambda board: (board / "verified.json").write_text("[]"), "verified.json"),
    "a page": (lambda board: (board / "evil.html").write_text("<b>"), "no entry"),
    "an empty folder": (lambda board: (board / "empty").mkdir(), "no entry"),
    "an unfinished run": (lambda board: hide(entry(board, "random")), "no entry"),
    "a page in an entry": (lambda board: (entry(board, "naive") / "evil.html").write_text("<b>"), "'evil.html'"),
    "a page in an adapter": (
        lambda board: (entry(board, "random") / "adapter" / "evil.html").write_text("<b>"),
        "'adapter/evil.html'",
    ),
    "a link in an adapter": (
        lambda board: relink(entry(board, "random") / "adapter" / "adapter_config.json"),
        "'adapter/adapter_config.json'",
    ),
}


SINCE = {"a mark of its own"}  # which only the release tells


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_spoiled_is_named(case, board, kept_board):
    spoil, text = SPOILED[case]
    spoil(board)
    since = ["--since", kept_board] if case in SINCE else []
    code, out, error = culteval("leaderboard", "check", board, *since)
    assert code == 3 and text in out and "1 problems" in error
    code, out, _ = culteval("leaderboard", "check", board, *since, "--json")
    assert code == 3 and text in json.loads(out)["problems"][0]["text"]


def test_names_of_submitted_scores_are_shown_in_one_printable_line(board):
    """A line that begins with ``::`` is a command to the workflow that runs the check."""
    folder = entry(board, "naive")
    scores = scored(folder)
    evil = {"task": "\n::error file=x::", "metric": "\r\u2028##\u202e\x1b[2J" + "x" * 5000}
    (folder / "scores.json").write_text(json.dumps([*scores, scores[0] | evil]))
    code, out, _ = culteval("leaderboard", "check", board)
    assert code == 3 and len(out.splitlines()) == 1 and out.strip().isprintable() and "::error file=x:: US ##" in out
    assert out.startswith(folder.name) and out.endswith("xxx); remove it, or add the run again\n")
    assert json.loads(culteval("leaderboard", "check", board, "--json")[1])["problems"][0]["text"] in out


@pytest.mark.parametrize("noise", [0, 4e-4, 0.05])
def test_copied_answers_are_found_even_behind_a_little_noise(noise, board):
    rng = np.random.default_rng(0)

    def blur(rows):
        for row in rows:
            probs = np.array(row["probs"]) + noise * rng.uniform(-1, 1, len(row["probs"]))
            row["probs"] = (probs.clip(0) / probs.clip(0).sum()).tolist()

    copy = board / "vsm13-US-mine-copy"
    shutil.copytree(entry(board, "random"), copy)
    shutil.rmtree(copy / "adapter")
    mine = rewrite(copy, lambda manifest: manifest["aligner"].update(name="mine", adapter_sha256="0" * 64), blur)
    code, out, _ = culteval("leaderboard", "check", board)
    if noise > 0.01:  # no longer the same answers
        assert code == 0, out
    else:
        assert code == 3 and "equal those of" in out and (mine.name in out or entry(board, "random").name in out)


def test_one_model_left_alone_answers_alike_for_every_country(kept_board, tiny, tmp_path):
    """That is no copy: naive says nothing of a country."""
    shutil.copytree(kept_board, tmp_path / "board")
    flags = [*BASE, "--model", tiny(), "--out", tmp_path / "runs", "--aligner", "naive", "--country", "SA"]
    assert culteval(*flags)[0] == 0
    assert culteval("leaderboard", "add", *(tmp_path / "runs").iterdir(), "--to", tmp_path / "board")[0] == 0
    assert culteval("leaderboard", "check", tmp_path / "board")[1] == "4 entries, no problems.\n"


def test_nothing_disappears_and_nothing_changes(kept_board, board):
    shutil.rmtree(entry(board, "naive"))
    folder = entry(board, "random")
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text() + " ")
    code, out, _ = culteval("leaderboard", "check", board, "--since", kept_board)
    assert code == 3 and "was released and is missing" in out and "with other content" in out


def test_two_decimals_of_survey_evaluations_will_do(board):
    rewrite(entry(board, "random"), lambda manifest: spend(manifest, 287))
    assert culteval("leaderboard", "check", board)[1] == "3 entries, no problems.\n"


CHANGED = {
    "no adapter": lambda folder: shutil.rmtree(folder / "adapter"),
    "another adapter's configuration": lambda folder: (folder / "adapter" / "adapter_config.json").write_text("{}"),
    "verdicts": lambda folder: (folder / "verdicts.jsonl").write_text(""),
}


@pytest.mark.parametrize("case", CHANGED)
def test_no_file_of_a_released_entry_changes(case, kept_board, board):
    CHANGED[case](entry(board, "random"))
    code, out, error = culteval("leaderboard", "check", board, "--since", kept_board)
    assert code == 3 and "with other content" in out and "1 problems" in error


def test_scores_may_be_there(kept_board, board):
    scored(entry(board, "random"))
    assert culteval("leaderboard", "check", board, "--since", kept_board)[0] == 0


def older(board):
    """A board as earlier versions made it: plain answers, scores beside them."""
    for folder in board.iterdir():
        scored(unpacked(folder))
    return {path.relative_to(board): path.read_bytes() for path in board.rglob("*") if path.is_file()}


def test_an_older_board_is_migrated(kept_board, board):
    files = older(board)
    plain = {name: data for name, data in files.items() if name.name == "answers.jsonl"}
    assert len(plain) == 3
    code, out, error = culteval("leaderboard", "migrate", board)
    assert (code, out, error) == (0, "3 entries changed.\n", "")
    names = {path.relative_to(board) for path in board.rglob("*") if path.is_file()}
    assert names == {path.relative_to(kept_board) for path in kept_board.rglob("*") if path.is_file()}
    assert all(bytes_of(board / name.parent) == data for name, data in plain.items())
    kept = [name for name in names if not name.name.startswith("answers")]
    assert len(kept) > 4 and all((board / name).read_bytes() == files[name] for name in kept)
    assert culteval("leaderboard", "check", board, "--since", kept_board)[1] == "3 entries, no problems.\n"
    assert culteval("leaderboard", "migrate", board)[1] == "0 entries changed.\n"


def test_a_migrated_board_is_the_released_one(board, tmp_path):
    older(board)
    shutil.copytree(board, tmp_path / "released")
    assert culteval("leaderboard", "migrate", board)[0] == 0
    assert culteval("leaderboard", "check", board, "--since", tmp_path / "released")[0] == 0


def test_a_bad_entry_is_not_migrated(board):
    older(board)
    bad = entry(board, "naive")
    (bad / "answers.jsonl").write_bytes((bad / "answers.jsonl").read_bytes()[:-40])
    code, out, error = culteval("leaderboard", "migrate", board)
    assert (code, out) == (0, "2 entries changed.\n") and f"not changed: {bad}" in error
    assert {path.name for path in bad.iterdir()} >= {"answers.jsonl", "scores.json"}


def test_marks_stay_as_they_were_released(board, kept_board, tmp_path):
    (board / ".gitkeep").touch()
    released = tmp_path / "released"
    shutil.copytree(kept_board, released)
    one, other = (key_of(entry(board, name)) for name in ("naive", "random"))
    mark(released, one)
    mark(board, one)
    assert culteval("leaderboard", "check", board, "--since", released)[:2] == (0, "3 entries, no problems.\n")
    for marks in ({}, {one: {}, other: {}}, {one: {"compared": 24}}):
        (board / "verified.json").write_text(json.dumps(marks))
        code, out, error = culteval("leaderboard", "check", board, "--since", released)
        assert code == 3 and "only maintainers" in out and "1 problems" in error


def test_an_empty_board(tmp_path):
    code, _, error = culteval("leaderboard", "check", tmp_path)
    assert code == 3 and "no entries" in error


def test_marks_of_answers_become_marks_of_the_manifest_that_they_name(board):
    """As they were in earlier versions; a mark that names another entry is not moved."""
    shas = {name: json.loads((entry(board, name) / "manifest.json").read_text())["answers"]["sha256"]
            for name in ("naive", "icl")}  # fmt: skip
    name = entry(board, "naive").name
    marks = {sha: {"entry": name, "answers_sha256": sha, "compared": 36} for sha in shas.values()}
    (board / "verified.json").write_text(json.dumps(marks))
    assert culteval("leaderboard", "migrate", board)[0] == 0
    key = key_of(entry(board, "naive"))
    moved = {"entry": name, "manifest_sha256": key, "compared": 36}
    assert marks_of(board) == {key: moved, shas["icl"]: marks[shas["icl"]]}
    code, out, _ = culteval("leaderboard", "check", board)
    assert code == 3 and f"{shas['icl'][:12]}: no entry has this manifest" in out


def test_verdicts_go_with_the_answers_that_they_judge(probed, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(next(probed.iterdir()), run)
    assert culteval("judge", run, "--model", "dummy")[0] == 0
    code, out, error = culteval("leaderboard", "add", run, "--to", tmp_path / "board")
    assert code == 0, error
    (made,) = (tmp_path / "board").iterdir()
    assert {"judge.json", "verdicts.jsonl"} < {path.name for path in made.iterdir()}
    assert "judged_unread" in culteval("score", made, "--json")[1]
    assert culteval("leaderboard", "check", tmp_path / "board")[1] == "1 entries, no problems.\n"
    scored(made)
    (made / "judge.json").unlink()
    code, out, _ = culteval("leaderboard", "check", tmp_path / "board")
    assert code == 3 and "judged_" in out and "scores not from its answers" in out


@pytest.mark.parametrize("case", ["own words", "copied words", "a few changed", "too short to identify"])
def test_copied_words_are_found_where_no_probabilities_are_known(case, probed, tmp_path):
    def says(writer, changed=0):
        def change(rows):
            weigh_nothing(rows)
            for number, row in enumerate(rows):
                who = "another" if number < changed else writer
                row["text"] = "yes" if case == "too short to identify" else f"as {who} I say of it {number} things"

        return change

    board = tmp_path / "board"
    shutil.copytree(probed, board)
    shutil.copytree(next(board.iterdir()), copy := board / "probes-US-mine-copy")
    first = rewrite(next(board.glob("probes-US-icl-*")), change_answers=says("me"))
    words = says("you" if case == "own words" else "me", changed=2 if case == "a few changed" else 0)
    second = rewrite(copy, lambda manifest: manifest["aligner"].update(name="mine"), words)
    code, out, _ = culteval("leaderboard", "check", board)
    if case in ("own words", "too short to identify"):
        assert (code, out) == (0, "2 entries, no problems.\n")
    else:
        assert code == 3 and "equal those of" in out and (first.name in out or second.name in out)


def test_codes_that_their_texts_do_not_give_are_named(probed, tmp_path):
    """``consistency`` would go from 0 to 1, with texts as the model wrote them."""

    def agree(rows):
        for row in rows:
            row["parsed"] = 1 if row["probs"] else row["parsed"]

    board = tmp_path / "board"
    shutil.copytree(probed, board)
    folder = rewrite(next(board.iterdir()), change_answers=agree)
    code, out, error = culteval("leaderboard", "check", board)
    assert code == 3 and out.startswith(f"{folder.name}: probes: ") and "another `parsed` than their text" in out
    assert "1 problems" in error
