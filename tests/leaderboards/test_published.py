"""The published board: what its keepers' check says of it, what it must not hold, and what the documents show of it."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from culteval.errors import InputError
from culteval.harness.cli.main import cli
from culteval.harness.runs.config import aligner_settings
from culteval.harness.submissions.manifest import Manifest
from culteval.harness.sweeps.grid import cells, read_grid
from culteval.harness.util.atomic_io import sha256
from culteval.leaderboards.answer_reader import AnswerReader
from culteval.leaderboards.leaderboard import Leaderboard
from culteval.leaderboards.suite import read_suite

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


@pytest.fixture
def documents(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import documents

    return documents


@pytest.fixture(scope="module")
def found(published):
    return Leaderboard(published.boards, published.runs, AnswerReader(published.shelf), read_suite().version)


def test_the_documents_have_its_figures(documents, found):
    """Every block of README and docs is what the board, or the submissions of a study, say today."""
    used = set()
    for path in documents.documents():
        text = path.read_text(encoding="utf-8")
        blocks = [match[3] for match in documents.BLOCK.finditer(text)]
        begun = text.count("<!-- board: ") + text.count("<!-- study: ")
        assert begun == len(blocks), f"{path.name}: a block has no end"
        assert not blocks or documents.renewed(text, found) == text, (
            f"python -m benchmarks.documents renews {path.name}"
        )
        used.update(blocks)
    assert used == {*documents.BLOCKS, *documents.STUDIES}


def test_a_changed_figure_or_an_unknown_block_is_noticed(documents, found):
    whole = documents.renewed("a\n<!-- board: facts -->\n<!-- end -->\nb\n", found)
    assert f"\n\n{len(found.entries)} runs, 48 of them random prefixes" in whole and whole.startswith("a\n")
    assert documents.renewed(whole.replace(f"{len(found.entries)} runs", "7 runs"), found) == whole
    with pytest.raises(InputError, match="no such block"):
        documents.renewed("<!-- board: fact -->\n<!-- end -->\n", found)
    with pytest.raises(InputError, match="study: facts: no such block"):
        documents.renewed("<!-- study: facts -->\n<!-- end -->\n", found)
    rows = [line for line in documents.short(found).splitlines() if re.search(r"\d\.\d", line)]
    assert {len(line.split("|")) for line in rows} == {9} and len(rows) > 8


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


# What a search did before it had these settings, which its stored runs do not record.
BEFORE = {"de": {"refine": 0, "screening": 1}}


def whole(aligner):
    """An aligner's settings, and what stands for one that it did not have when it ran."""
    return aligner_settings(aligner.name, (), BEFORE.get(aligner.name, {}) | aligner.settings).model_dump()


def test_it_is_every_run_of_its_sweep():
    path = ROOT / "leaderboards" / "results.yaml"
    planned = [cell.config for cell in cells(read_grid(path), path)]
    wanted = Counter((one.aligner, in_order(one.settings), one.country, one.seed, one.tasks) for one in planned)
    assert wanted == Counter(
        (each.aligner.name, in_order(whole(each.aligner)), each.country, each.seed, tuple(t.name for t in each.tasks))
        for each in manifests()
    )


def test_all_answers_are_of_an_entry_that_is_marked_verified():
    """A mark is of one manifest; entries of the same answers need not all be verified."""
    marks = json.loads((RESULTS / "verified.json").read_text(encoding="utf-8"))
    paths = RESULTS.glob("*/manifest.json")
    given = {sha256(path): json.loads(path.read_bytes())["answers"]["sha256"] for path in paths}
    assert set(marks) <= set(given)
    assert {given[key] for key in marks} == set(given.values())
    assert all((RESULTS / mark["entry"] / "manifest.json").is_file() for mark in marks.values())
