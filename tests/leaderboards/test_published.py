"""The published board: what its keepers' check says of it, what it must not hold, and what the documents show of it."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

from click.testing import CliRunner
from culteval.harness.cli.main import cli
from culteval.harness.runs.config import aligner_settings
from culteval.harness.submissions.manifest import Manifest
from culteval.harness.sweeps.grid import cells, read_grid
from culteval.leaderboards.overview_builder import overview
from culteval.leaderboards.render import terminal

from ..published import RESULTS

ROOT = Path(__file__).parents[2]


def manifests():
    return [Manifest.model_validate_json(path.read_bytes()) for path in RESULTS.glob("*/manifest.json")]


def test_its_keepers_check_finds_nothing_wrong():
    done = CliRunner().invoke(cli, ["leaderboard", "check", str(RESULTS)])
    assert "no problems" in done.output and done.exit_code == 0, done.output[-2000:]


def test_it_names_no_folder_of_the_machine_it_was_made_on():
    texts = [path for path in RESULTS.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert len(texts) > 100
    odd = [path for path in texts if re.search(rb"/(root|home|tmp)/", path.read_bytes())]
    assert not odd, odd[:5]


def test_the_documents_have_its_tables(published):
    """The README's of all aligners, and the between-country tables."""
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    table = overview(published.boards, published.shelf).to_markdown().splitlines()
    assert len(table) > 8
    numbers = [line for line in table if re.search(r"\d\.\d", line)]
    for lines in ((ROOT / "README.md").read_text(encoding="utf-8").splitlines(), results):
        assert not set(numbers) - set(lines)
    (*_, between) = terminal.markdown(published.boards, published.sets).partition(": between-country R2")
    rows = re.findall(r"^\| \w+ s\d \|.*", between, re.MULTILINE)
    assert len(rows) > 5
    assert not set(rows) - set(results)


def test_it_is_small():
    """What a clone carries: a block of 4 KiB for every file and folder is counted, as du does."""
    paths = [RESULTS, *RESULTS.rglob("*")]
    blocks = sum(-(-path.stat().st_size // 4096) for path in paths)
    assert blocks * 4096 < 10_000_000


def test_the_table_of_a_part_of_it(tmp_path):
    for aligner in ("naive", "icl"):
        entry = next(RESULTS.glob(f"vsm13-US-{aligner}-*"))
        shutil.copytree(entry, tmp_path / entry.name)
    done = CliRunner().invoke(cli, ["leaderboard", "show", str(tmp_path), "--overview", "--format", "md"])
    assert done.exit_code == 0
    lines = [line.split("|") for line in done.output.splitlines() if line.startswith("| ")]
    assert [cells[2].strip() for cells in lines[1:3]] == ["naive", "icl"]


def in_order(settings):
    return json.dumps(settings, sort_keys=True)


def whole(aligner):
    """An aligner's settings, with today's default of a setting that it did not have when it ran."""
    return aligner_settings(aligner.name, (), aligner.settings).model_dump()


def test_it_is_every_run_of_its_sweep():
    path = ROOT / "leaderboards" / "results.yaml"
    planned = [cell.config for cell in cells(read_grid(path), path)]
    wanted = Counter((one.aligner, in_order(one.settings), one.country, one.seed, one.tasks) for one in planned)
    assert wanted == Counter(
        (each.aligner.name, in_order(whole(each.aligner)), each.country, each.seed, tuple(t.name for t in each.tasks))
        for each in manifests()
    )


def test_every_entry_is_marked_verified():
    marks = json.loads((RESULTS / "verified.json").read_text(encoding="utf-8"))
    assert {one.answers.sha256 for one in manifests()} == set(marks)
