"""``culteval sweep``: a grid by workers, skipped where done, tried again where it failed, one folder all read."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from culteval.errors import CultevalError, InputError
from culteval.harness.runs.execute import SCORES
from culteval.harness.sweeps.executors.base import Outcome
from culteval.harness.sweeps.executors.worker import work
from culteval.harness.sweeps.grid import cells, read_grid
from culteval.harness.sweeps.scheduler import run_cells
from culteval.harness.sweeps.status import STATUS

from ...command import invoked

GRID = """
models: [{model}]
aligners:
  - naive
  - {{name: random, settings: {{tokens: 2}}}}
tasks: [general, [vsm13, vsm13_text]]
countries: [US, SA]
seeds: [0]
budget: 4
options: {{limit: 1, dtype: float32}}
"""


@pytest.fixture
def file(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text(GRID.format(model=tiny()))
    return tmp_path / "grid.yaml"


@pytest.fixture
def here(monkeypatch):
    """Carry out the runs of a sweep in this process, where no worker is looked at: each takes seconds to start."""

    class Here(nullcontext):
        workers = 1

        def start(self, worker, job):
            self.ended = [(worker, work(job))]

        def finished(self, seconds):
            return self.ended

    monkeypatch.setattr("culteval.harness.sweeps.executors.worker._held", {})
    monkeypatch.setattr("culteval.harness.cli.sweep.executor_of", lambda *given: Here())


def call(*words):
    return invoked(*words).stdout


def test_a_grid_is_every_combination_checked_first(file):
    grid = cells(read_grid(file), file)
    assert len(grid) == 8 and len({cell.name for cell in grid}) == 8
    both = [cell.config for cell in grid if cell.config.tasks == ("vsm13", "vsm13_text")]
    assert {(c.aligner, c.country, c.budget, c.limit) for c in both} == {
        (name, code, 4 if name == "random" else 0, 1) for name in ("naive", "random") for code in ("US", "SA")
    }
    file.write_text(file.read_text() + "without: {SA: [vsm13_text]}\n")
    grid = cells(read_grid(file), file)
    assert {(c.config.country, c.config.tasks) for c in grid if "vsm13_text" in c.config.tasks} == {
        ("US", ("vsm13", "vsm13_text"))
    }
    file.write_text(file.read_text().replace("without: {SA: [vsm13_text]", "without: {Saudi Arabia: [vsm13_text]"))
    assert [cell.name for cell in cells(read_grid(file), file)] == [cell.name for cell in grid]
    wrong = Path(f"{file}.wrong")
    wrong.write_text(file.read_text().replace("Saudi Arabia: [vsm13_text]", "Germany: [vsm13_text]"))
    with pytest.raises(InputError, match="without: 'Germany' is no country of the grid"):
        cells(read_grid(wrong), wrong)
    file.write_text(file.read_text().replace("Saudi Arabia: [vsm13_text]", "SA: [vsm13_test]"))
    with pytest.raises(InputError, match=r"'vsm13_test' is no task of the grid.*'vsm13_text'"):
        cells(read_grid(file), file)


def test_an_aligner_has_countries_and_seeds_of_its_own(file):
    given = file.read_text().replace("- naive", "- {name: naive, countries: [US, CN], seeds: [3]}")
    file.write_text(given)
    grid = [cell.config for cell in cells(read_grid(file), file)]
    assert {(c.country, c.seed) for c in grid if c.aligner == "naive"} == {("US", 3), ("CN", 3)}
    assert {c.seed for c in grid if c.aligner == "random"} == {0}


def test_an_aligner_has_options_of_its_own(file):
    own = "- {name: naive, options: {limit: 2, constants: zero}}"
    file.write_text(file.read_text().replace("- naive", own))
    grid = [cell.config for cell in cells(read_grid(file), file)]
    found = {(c.aligner, c.limit, c.options.constants, c.dtype) for c in grid}
    assert found == {("naive", 2, "zero", "float32"), ("random", 1, "world", "float32")}


def test_the_time_left_weighs_runs_by_their_item_forwards(file):
    from culteval.harness.cli.sweep import table_of

    naive, random, *_ = grid = [cell for cell in cells(read_grid(file), file) if cell.config.tasks[0] == "vsm13"]
    # limit 1: 24 items in one paraphrase of fit, one of heldout in both orders, as numbers and in text; a fit of 4
    # evaluations of 24 items beside
    assert (naive.item_forwards, random.item_forwards) == (2 * 72, 2 * 72 + 4 * 24)
    naive.state, naive.seconds = "done", 144 * 10
    left = 240 + 144 + 240  # ten seconds an item forward, by two workers
    lines = [str(part) for part in table_of(grid, 0.0, 2, whole=False).renderables]
    assert lines[-1].endswith(f"; about {left * 10 / 2 / 60:.0f} min left")


def test_settings_and_budgets_of_an_aligner_are_a_grid_too(file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    given, old = file.read_text(), "{name: random, settings: {tokens: 2}}"
    grid = "grid: {sigma: [1, 2.5], tokens: [2, 3]}, budgets: [4, 6]"
    file.write_text(given.replace(old, f"{{name: random, settings: {{space: full}}, {grid}}}"))
    planned = cells(read_grid(file), file)
    ours = [c.config for c in planned if (c.config.aligner, c.config.country) == ("random", "US")]
    assert {(c.settings["sigma"], c.settings["tokens"], c.budget) for c in ours} == {
        (sigma, tokens, budget) for sigma in (1, 2.5) for tokens in (2, 3) for budget in (4, 6)
    }
    assert len(planned) == 4 + 4 * 8 and {c.settings["space"] for c in ours} == {"full"}
    random = next(cell for cell in planned if cell.config.aligner == "random")
    assert random.varied == random.record()["varied"] == {"sigma": 1, "tokens": 2}
    assert "random sigma=2.5 tokens=3" in " ".join(call("sweep", file, "--dry-run").split())
    file.write_text(given.replace(old, f"{{name: random, {grid}}}\n  - {{name: random, settings: {{tokens: 2}}}}"))
    again = cells(read_grid(file), file)
    assert len(again) == 4 + 4 * 8  # sigma is 1 by default, so these are there already
    same = f"{old}\n  - {{name: random, grid: {{tokens: [2]}}, budgets: [4, 4]}}\n  - {{name: naive, budgets: [1, 2]}}"
    file.write_text(given.replace(old, same))
    assert len(cells(read_grid(file), file)) == 8


def test_a_dry_run_lists_what_there_is_to_do(file):
    listed = json.loads(call("sweep", file, "--dry-run", "--json"))
    assert [row["state"] for row in listed] == ["waiting"] * 8
    file.write_text(file.read_text() + f"seeds: {list(range(12))}\n")  # more than a screen has room for
    assert call("sweep", file, "--dry-run").count("waiting") == 8 * 12 + 1
    assert not (file.parent / "grid").exists()


def test_a_sweep_runs_skips_and_is_read_by_the_other_commands(file):
    rows = json.loads(call("sweep", file, "--workers", "2", "--json"))
    assert [row["state"] for row in rows] == ["done"] * 8 and all(row["seconds"] > 0 for row in rows)
    assert json.loads((file.parent / "grid" / STATUS).read_text()) == rows
    again = json.loads(call("sweep", file, "--json"))
    assert again == [row | {"state": "skipped"} for row in rows]
    board = call("leaderboard", "show", "grid")
    assert "naive s0" in board and "random s0" in board and "general" in board and "vsm13_text" in board
    scores = json.loads(call("score", f"grid/{rows[0]['run']}", "--json"))["scores"]
    assert scores == json.loads((file.parent / "grid" / rows[0]["run"] / SCORES).read_text())


def test_a_failing_run_is_tried_again_and_its_reason_kept(file, here):
    file.write_text(file.read_text().replace("tokens: 2", "tokens: 590").replace("limit: 1, ", ""))
    folder = file.parent / "short"
    shutil.copytree(Path(yaml.safe_load(file.read_text())["models"][0]), folder)
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 600}
    (folder / "config.json").write_text(json.dumps(config))
    file.write_text(re.sub(r"models: .*", f"models: [{folder}]", file.read_text()))
    with pytest.raises(CultevalError, match="of 8 runs failed"):
        call("sweep", file, "--json", "--retries", "1")
    rows = json.loads((file.parent / "grid" / STATUS).read_text())
    failed = [row for row in rows if row["state"] == "failed"]
    assert {row["aligner"] for row in failed} == {"random"} and {row["attempts"] for row in failed} == {2}
    assert all(len(row["reasons"]) == 2 and "context" in row["reasons"][0] for row in failed)
    assert {row["state"] for row in rows if row["aligner"] == "naive"} == {"done"}
    listed = {row["run"]: row for row in json.loads(call("ls", "runs", "grid", "--json"))}
    assert listed.keys() == {row["run"] for row in rows}
    for row in rows:
        told = ("failed", row["reasons"][-1]) if row in failed else ("finished", "")
        assert (listed[row["run"]]["state"], listed[row["run"]]["reason"]) == told


def start(file):
    """A sweep under way, and its worker: a run has written its first checkpoint."""
    text = file.read_text().replace("budget: 4", "budget: 150")
    file.write_text(text.replace("[general, [vsm13, vsm13_text]]", "[vsm13]"))
    command = [sys.executable, "-m", "culteval", "sweep", str(file), "--json", "--retries", "3", "--out", "a"]
    sweep = subprocess.Popen(command, cwd=file.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(600):
        if sweep.poll() is not None or next((file.parent / "a").glob("*random*/checkpoint.npz"), None):
            break
        time.sleep(0.1)
    assert sweep.poll() is None
    threads = Path(f"/proc/{sweep.pid}/task").glob("*/children")
    children = [child for thread in threads for child in thread.read_text().split()]
    return sweep, next(int(c) for c in children if "spawn_main" in Path(f"/proc/{c}/cmdline").read_text())


def test_a_killed_worker_is_replaced_and_results_are_those_of_an_undisturbed_sweep(file, here):
    sweep, worker = start(file)
    os.kill(worker, signal.SIGKILL)
    out, error = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, error.decode()[-2000:]
    rows = json.loads(out)
    assert {row["state"] for row in rows} == {"done"} and any("worker died" in "".join(row["reasons"]) for row in rows)
    json.loads(call("sweep", file, "--json", "--out", "b"))
    for row in rows:
        ours, theirs = (json.loads((file.parent / out / row["run"] / SCORES).read_text()) for out in ("a", "b"))
        assert ours == theirs


def test_a_killed_sweep_leaves_no_worker_and_goes_on_at_once(file, here):
    sweep, worker = start(file)
    sweep.kill()
    sweep.communicate()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists() or "Z (zombie)" in Path(f"/proc/{worker}/status").read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker outlived its sweep")
    rows = json.loads(call("sweep", file, "--json", "--out", "a"))
    assert {row["state"] for row in rows} <= {"done", "skipped"} and not any(row["reasons"] for row in rows)


def test_two_sweeps_in_one_folder_keep_each_other_s_rows(file, tmp_path):
    grid = cells(read_grid(file), file)

    class Fake:
        workers = 1

        def __init__(self, meanwhile=lambda: None):
            self.meanwhile = meanwhile

        def start(self, worker, job):
            self.meanwhile()
            self.ended = [(worker, Outcome(1.0, None, ()))]

        def finished(self, seconds):
            return self.ended

    def sweep(part, executor):
        run_cells(part, tmp_path / "both", executor, 0, lambda cells: None)

    sweep(grid[:1], Fake(lambda: sweep(grid[1:3], Fake())))
    rows = json.loads((tmp_path / "both" / STATUS).read_text())
    assert {row["run"]: row["state"] for row in rows} == {cell.name: "done" for cell in grid[:3]}


MANY = {key: list(range(9)) for key in "abcde"}
BROKEN = {
    "unknown field": ("seeds: [0]", "seed: [0]", "seed"),
    "no aligner": ("aligners:", "aligners: []\nrest:", "grid.yaml:"),
    "unknown aligner": ("- naive", "- naiv", "Did you mean 'naive'"),
    "unknown task": ("[general,", "[generl,", "Did you mean 'general'"),
    "unknown setting": ("tokens: 2", "tokns: 2", "tokns"),
    "unknown option": ("limit: 1", "limits: 1", "options.limits"),
    "unknown option of an aligner": ("- naive", "- {name: naive, options: {fits: [vsm13]}}", "options.fits"),
    "an aligner's option of the file": ("- naive", "- {name: naive, options: {country: US}}", "options.country"),
    "unknown country": ("[US, SA]", "[US, Atlantis]", "Atlantis"),
    "Norway": ("[US, SA]", "[US, NO]", "YAML reads words such as NO and ON as False; put quotes around them"),
    "unknown setting in a grid": ("settings: {tokens: 2}", "grid: {tokns: [2]}", "tokns"),
    "a value that does not fit": ("settings: {tokens: 2}", "grid: {tokens: [2, 0]}", "tokens"),
    "no list": ("settings: {tokens: 2}", "grid: {tokens: 2}", "aligners.1.grid.tokens"),
    "no values": ("settings: {tokens: 2}", "grid: {tokens: []}", "aligners.1.grid.tokens"),
    "a setting twice": ("tokens: 2}", "tokens: 2}, grid: {tokens: [3]}", "'tokens' is in settings and in grid"),
    "a budget and budgets": ("tokens: 2}", "tokens: 2}, budget: 4, budgets: [5]", "exclude each other"),
    "no budgets": ("tokens: 2}", "tokens: 2}, budgets: []", "aligners.1.budgets"),
    "more than can be": ("settings: {tokens: 2}", f"grid: {MANY}", "more than 10,000"),
    "a budget too small": ("budget: 4", "budget: 1", "one candidate costs"),
    "a seed too large": ("seeds: [0]", f"seeds: [{(1 << 62) + 1}]", "--seed "),
    "a limit too large": ("limit: 1", "limit: 100001", "--limit "),
    "a budget too large": ("budget: 4", f"budget: {10**12 + 1}", "--budget "),
    "not YAML": ("seeds: [0]", "seeds: [0", "not valid YAML"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_before_anything_runs(name, file):
    old, new, words = BROKEN[name]
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(CultevalError) as caught:
        call("sweep", file)
    assert words in str(caught.value) and "grid.yaml" in str(caught.value)
    assert not (file.parent / "grid").exists()


def test_any_seed_of_a_run_is_one_of_a_sweep(file):
    file.write_text(file.read_text().replace("seeds: [0]", f"seeds: [{1 << 62}]"))
    assert {row["seed"] for row in json.loads(call("sweep", file, "--dry-run", "--json"))} == {1 << 62}


def test_a_piece_of_a_grid_is_chosen_and_the_rest_stays(file, here):
    words = ["sweep", file, "--aligner", "naive", "--country", "United States", "--seed", 0]
    piece = json.loads(call(*words, "--json"))
    assert [(row["aligner"], row["country"], row["state"]) for row in piece] == [("naive", "US", "done")] * 2
    whole = json.loads(call("sweep", file, "--aligner", "naive", "--json"))
    assert sorted((row["country"], row["state"]) for row in whole) == [("SA", "done")] * 2 + [("US", "skipped")] * 2
    assert len(json.loads((file.parent / "grid" / STATUS).read_text())) == 4
    for odd, reason in (
        (["--seed", 1], "--seed 1: the file has no such run; it has 0."),
        (["--aligner", "gd"], "--aligner gd: the file has no such run; it has naive, random."),
    ):
        with pytest.raises(CultevalError, match=reason):
            call("sweep", file, "--dry-run", *odd)


def test_values_that_no_run_of_a_grid_has_together_are_refused(file):
    file.write_text(file.read_text().replace("- naive", "- {name: naive, countries: [SA]}"))
    with pytest.raises(CultevalError, match="no run of these together"):
        call("sweep", file, "--dry-run", "--aligner", "naive", "--country", "US")
