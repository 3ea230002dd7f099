"""The published board: what its keepers' check says of it, what it must not hold, and what the documents show of it."""

import json
import re
from collections import Counter
from pathlib import Path

from click.testing import CliRunner
from culteval.harness.cli import cli
from culteval.harness.commands import run_defaults
from culteval.harness.submission import Manifest
from culteval.harness.sweep import cells, read_grid

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "leaderboards" / "results"


def manifests():
    return [Manifest.model_validate_json(path.read_bytes()) for path in RESULTS.glob("*/manifest.json")]


def printed(command, *words):
    done = CliRunner().invoke(command, [*map(str, words)])
    assert done.exit_code == 0, done.output[-2000:]
    return done.output


def test_its_keepers_check_finds_nothing_wrong():
    assert "nothing wrong" in printed(cli, "leaderboard", "check", RESULTS)


def test_it_names_no_folder_of_the_machine_it_was_made_on():
    texts = [path for path in RESULTS.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert len(texts) > 100
    odd = [path for path in texts if any(root in path.read_bytes() for root in (b"/root/", b"/home/", b"/tmp/"))]
    assert not odd, odd[:5]


def test_the_documents_have_its_table():
    from benchmarks.overview import main

    table = printed(main, RESULTS).splitlines()
    assert len(table) > 8
    for page in ("README.md", "docs/results.md"):
        assert not set(table) - set((ROOT / page).read_text(encoding="utf-8").splitlines()), page


def test_the_documents_say_how_well_countries_are_told_apart():
    shown = printed(cli, "leaderboard", "show", RESULTS, "--format", "md")
    (*_, table) = shown.partition("between countries, free of C")
    rows = re.findall(r"^\| \w+ s\d \|.*", table, re.MULTILINE)
    assert len(rows) > 5
    assert not set(rows) - set((ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines())


def test_it_is_every_run_of_its_sweep():
    path = ROOT / "leaderboards" / "results.yaml"
    planned = [cell.config for cell in cells(read_grid(path), run_defaults(), path)]
    wanted = Counter((one.aligner, str(one.settings), one.country, one.seed, one.tasks) for one in planned)
    assert wanted == Counter(
        (one.aligner.name, str(one.aligner.settings), one.country, one.seed, tuple(task.name for task in one.tasks))
        for one in manifests()
    )


def test_every_entry_is_marked_verified():
    marks = json.loads((RESULTS / "verified.json").read_text(encoding="utf-8"))
    assert {one.answers.sha256 for one in manifests()} == set(marks)
