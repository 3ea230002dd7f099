"""The study of searches: losses after each budget of a run's log, pairs below random search, held-out losses."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from culteval.errors import InputError
from culteval.harness.scoring.submission import load_submission

from benchmarks import searches as study

from ..command import invoked

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "benchmarks" / "searches.yaml"
ARMS = [
    {"name": "random"},
    {"name": "random", "settings": {"refine": 0.5}},
    {"name": "de", "settings": {"strategy": "shade", "screening": 1}},
    {"name": "de", "options": {"objective": "worst_paraphrase"}},
]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    made = tmp_path_factory.mktemp("searches")
    grid = yaml.safe_load(SWEEP.read_text()) | {"models": [str(tiny())], "countries": ["SA", "US"], "seeds": [0]}
    grid["aligners"] = ["naive", *(arm | {"settings": {"sigma": 2} | arm.get("settings", {})} for arm in ARMS)]
    grid["options"] |= {"dtype": "float32", "threads": 1}
    (made / "few.yaml").write_text(yaml.safe_dump(grid | {"budget": 60}))
    invoked("sweep", made / "few.yaml", "--out", made / "few", "--workers", "1", "--quiet")
    return made / "few"


def test_losses_are_those_of_log_and_submission(folder):
    found = {(each.search, each.country): each for each in study.read(folder)}
    shade, worst = "de (sigma=2.0, strategy=shade, screening=1)", "de (sigma=2.0), worst_paraphrase"
    draws, refined = "random (sigma=2.0)", "random (sigma=2.0, refine=0.5)"
    assert {each.search for each in found.values()} == {"naive", draws, refined, shade, worst}
    run = next(run for run in folder.glob("vsm13-US-de-*") if "shade" in (run / "config.json").read_text())
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    best = [each["best"] for each in events if each["event"] == "generation" and each["spent"] <= 50 * 24]
    one = found[shade, "US"]
    assert one.after(50) == min(best) and one.after(300) <= one.after(50)
    scores = load_submission(run / "submission").score()
    held = {s.metric: s.value for s in scores if (s.split, s.scoring) == ("heldout", "argmax")}
    assert one.heldout == held["loss"]
    bare = found["naive", "US"]
    assert bare.after(50) == bare.again and bare.heldout != one.heldout


def test_rows_are_means_and_pairs(folder, tmp_path):
    found = study.read(folder)
    lines = {line.partition(" (")[2][:20]: line for line in study.table(found).splitlines() if line.startswith("| de")}
    rows = {key: [cell.strip() for cell in line.strip("|").split("|")] for key, line in lines.items()}
    cells, worst = (rows[next(key for key in rows if name in key)] for name in ("strategy", "worst"))
    own = [each for each in found if "shade" in each.search]
    assert cells[1] == f"{np.mean([each.after(50) for each in own]):,.0f}" and cells[-1] == "2"
    assert cells[6] == f"{np.mean([each.again for each in own]):,.0f}" and worst[5] == ""  # no control of its own
    bare = {each.country: each for each in found if each.aligner == "naive"}
    assert cells[9] == f"{np.mean([each.heldout / bare[each.country].heldout for each in own]):.2f}"
    control = {each.country: each for each in found if each.search == "random (sigma=2.0)"}
    assert cells[5] == f"{sum(each.after300 < control[each.country].after300 for each in own)}/2"


def test_pieces_of_it_add_up_in_one_file(folder, tmp_path):
    rows, found = tmp_path / "rows.csv", study.read(folder)
    first = CliRunner().invoke(study.main, [str(folder), "--csv", str(rows)])
    assert study.saved(rows) == found and len(found) == 10
    part = tmp_path / "part"
    for run in folder.glob("vsm13-SA-*"):
        shutil.copytree(run, part / run.name)
    again = CliRunner().invoke(study.main, [str(part), "--csv", str(rows)])
    assert first.exit_code == again.exit_code == 0 and first.output == again.output
    assert study.saved(rows) == found
    rows.write_text(rows.read_text().replace("US,0,", "US,none,", 1))
    refused = CliRunner().invoke(study.main, [str(part), "--csv", str(rows)])
    assert refused.exit_code == InputError.exit_code and re.search(r"rows\.csv:\d+: seed", refused.stderr)


def test_a_study_without_its_baseline_is_refused(folder, tmp_path):
    found = [each for each in study.read(folder) if each.aligner != "naive"]
    with pytest.raises(InputError, match="no run of naive for SA, US"):
        study.table(found)
    copied = shutil.copytree(folder, tmp_path / "few", ignore=shutil.ignore_patterns("log.jsonl"))
    with pytest.raises(InputError, match=r"log\.jsonl: not found"):
        study.read(copied)
