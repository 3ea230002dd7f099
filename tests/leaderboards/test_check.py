"""Boards that are kept: runs added under their names, contributed entries checked, answers asked again."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.errors import CultevalError, InputError
from culteval.harness.cli.main import cli
from culteval.harness.submissions.reader import read_submission
from culteval.harness.submissions.writer import write_submission
from culteval.harness.util.atomic_io import sha256
from culteval.leaderboards.entries import entries
from culteval.leaderboards.verify import TOLERANCE, _sample, _samples

from ..submission_files import answers_of, bytes_of, manifest_of, rows_of, unpacked

BASE = ["run", "--task", "vsm13", "--country", "US", "--dtype", "float32", "--threads", 1, "--no-compare"]


def culteval(*arguments):
    """Exit code, standard output and error line of a command."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if isinstance(done.exception, CultevalError):
        return done.exception.exit_code, done.stdout, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def published(tiny, tmp_path_factory):
    """A board of three runs of one tiny model: left alone, behind a text, behind a soft prompt."""
    home = tmp_path_factory.mktemp("published")
    for flags in (["naive"], ["icl"], ["random", "--set", "tokens=2", "--budget", 12]):
        code, _, error = culteval(*BASE, "--model", tiny(), "--out", home / "runs", "--aligner", *flags)
        assert code == 0, error
    code, out, error = culteval("leaderboard", "add", *sorted((home / "runs").iterdir()), "--to", home / "board")
    assert (code, len(out.split())) == (0, 3), error
    return home / "board"


@pytest.fixture
def board(published, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(published, tmp_path / "board")
    return tmp_path / "board"


def verify(tiny, board, *arguments, seed=("--seed", 0)):
    """The command, told where the entries' model lies: they call it by the last name of its folder."""
    return culteval("leaderboard", "verify", board, *arguments, "--model", tiny(), *seed)


def entry(board, aligner):
    return next(board.glob(f"vsm13-US-{aligner}-*"))


def rewrite(folder, change_manifest=lambda manifest: None, change_answers=lambda rows: None):
    """Change an entry and make its hash and name right again, as somebody who cheats would."""
    rows = rows_of(folder)
    change_answers(rows)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (unpacked(folder) / "answers.jsonl").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["answers"]["sha256"] = hashlib.sha256(data).hexdigest()
    change_manifest(manifest)
    (folder / "manifest.json").write_text(text := json.dumps(manifest))
    (folder / "scores.json").unlink(missing_ok=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return folder.rename(folder.with_name(f"{folder.name.rpartition('-')[0]}-{digest}"))


def test_what_add_made_is_in_order(published):
    code, out, _ = culteval("leaderboard", "check", published, "--since", published)
    assert (code, out) == (0, "3 entries, no problems.\n")
    names = {path.name for path in entry(published, "random").iterdir()}
    assert names == {"manifest.json", "answers.jsonl.zst", "adapter"}


def test_a_run_is_added_once_and_only_when_finished(published, tmp_path):
    code, _, error = culteval("leaderboard", "add", entry(published, "naive"), "--to", published)
    assert code == 2 and "already" in error
    (tmp_path / "empty").mkdir()
    code, _, error = culteval("leaderboard", "add", tmp_path / "empty", "--to", tmp_path / "new")
    assert code == 3 and "no finished run" in error and not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", ["{broken", "[" * 100_000, "[]"])
def test_an_adapter_whose_configuration_is_no_json_is_named(content, published, tmp_path):
    (run,) = (published.parent / "runs").glob("vsm13-US-random-*")
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


def key_of(folder):
    return sha256(folder / "manifest.json")


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
def test_what_is_spoiled_is_named(case, board, published):
    spoil, text = SPOILED[case]
    spoil(board)
    since = ["--since", published] if case in SINCE else []
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


def test_one_model_left_alone_answers_alike_for_every_country(published, tiny, tmp_path):
    """That is no copy: naive says nothing of a country."""
    shutil.copytree(published, tmp_path / "board")
    flags = [*BASE, "--model", tiny(), "--out", tmp_path / "runs", "--aligner", "naive", "--country", "SA"]
    assert culteval(*flags)[0] == 0
    assert culteval("leaderboard", "add", *(tmp_path / "runs").iterdir(), "--to", tmp_path / "board")[0] == 0
    assert culteval("leaderboard", "check", tmp_path / "board")[1] == "4 entries, no problems.\n"


def test_nothing_disappears_and_nothing_changes(published, board):
    shutil.rmtree(entry(board, "naive"))
    folder = entry(board, "random")
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text() + " ")
    code, out, _ = culteval("leaderboard", "check", board, "--since", published)
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
def test_no_file_of_a_released_entry_changes(case, published, board):
    CHANGED[case](entry(board, "random"))
    code, out, error = culteval("leaderboard", "check", board, "--since", published)
    assert code == 3 and "with other content" in out and "1 problems" in error


def test_scores_may_be_there(published, board):
    scored(entry(board, "random"))
    assert culteval("leaderboard", "check", board, "--since", published)[0] == 0


def older(board):
    """A board as earlier versions made it: plain answers, scores beside them."""
    for folder in board.iterdir():
        scored(unpacked(folder))
    return {path.relative_to(board): path.read_bytes() for path in board.rglob("*") if path.is_file()}


def test_an_older_board_is_migrated(published, board):
    files = older(board)
    plain = {name: data for name, data in files.items() if name.name == "answers.jsonl"}
    assert len(plain) == 3
    code, out, error = culteval("leaderboard", "migrate", board)
    assert (code, out, error) == (0, "3 entries changed.\n", "")
    names = {path.relative_to(board) for path in board.rglob("*") if path.is_file()}
    assert names == {path.relative_to(published) for path in published.rglob("*") if path.is_file()}
    assert all(bytes_of(board / name.parent) == data for name, data in plain.items())
    kept = [name for name in names if not name.name.startswith("answers")]
    assert len(kept) > 4 and all((board / name).read_bytes() == files[name] for name in kept)
    assert culteval("leaderboard", "check", board, "--since", published)[1] == "3 entries, no problems.\n"
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


def test_marks_stay_as_they_were_released(board, published, tmp_path):
    (board / ".gitkeep").touch()
    released = tmp_path / "released"
    shutil.copytree(published, released)
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


def marks_of(board):
    return json.loads((board / "verified.json").read_text())


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


@pytest.fixture(scope="module")
def probed(tiny, tmp_path_factory):
    """A board of one run of the open questions, whose answers are texts."""
    home = tmp_path_factory.mktemp("probed")
    flags = ["--model", tiny(), "--out", home / "runs", "--aligner", "icl"]
    code, _, error = culteval("run", "--task", "probes", *BASE[3:], *flags)
    assert code == 0, error
    assert culteval("leaderboard", "add", *(home / "runs").iterdir(), "--to", home / "board")[0] == 0
    return home / "board"


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


def swap_texts(rows):
    """Every text under another question; probabilities and options stay."""
    texts = [row["text"] for row in rows]
    for row, text in zip(rows, texts[1:] + texts[:1], strict=True):
        row["text"] = text


def swap_codes(rows):
    for row in rows:
        if row["probs"]:
            row["parsed"] = 2 if row["parsed"] == 1 else 1


def weigh_nothing(rows):
    """As an API that tells no probabilities."""
    for row in rows:
        row["probs"], row["off_options"] = [], 1.0


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


def test_what_is_written_in_batches_is_asked_again_in_the_same_ones():
    drawn = [_sample(122, 24, 16, np.random.default_rng(seed)) for seed in range(20)]
    whole = [np.arange(122)[at : at + 16].tolist() for at in range(0, 122, 16)]
    for rows in drawn:
        assert rows.tolist() in [one + other for one in whole for other in whole if one < other]
    assert len({tuple(rows) for rows in drawn}) > 5
    assert len(set(_sample(122, 24, 1, np.random.default_rng(0)))) == 24
    assert _sample(7, 24, 16, np.random.default_rng(0)).tolist() == list(range(7))
