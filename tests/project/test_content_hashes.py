"""What is kept under a hash of our code: a change of code that decides it makes it anew, any other does not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
import culteval
from culteval.harness.runs.answer_cache import _code
from culteval.leaderboards.entries import judging_hash
root, found = Path(culteval.__file__).parent, {}
for name in ["", *sys.argv[1:]]:
    before = (root / name).read_bytes() if name else b""
    if name:
        (root / name).write_bytes(before + b"# a comment\\n")
    _code.cache_clear(), judging_hash.cache_clear()
    found[name] = [_code(), judging_hash()]
    if name:
        (root / name).write_bytes(before)
print(json.dumps(found))
"""
FILES = {  # whether a comment in it changes the hash of answers, and that of boards
    "harness/cli/doctor.py": (False, False),
    "harness/cli/main.py": (False, False),
    "harness/sweeps/status.py": (False, False),
    "harness/runs/execute.py": (False, False),
    "harness/alignment/budget.py": (False, False),
    "optimizers/de.py": (False, False),
    "harness/engine/packed.py": (True, False),
    "harness/engine/padded.py": (True, False),
    "harness/models/local.py": (True, False),
    "harness/adapters/lora.py": (True, True),  # beside the hash of an adapter
    "harness/model_info.py": (True, True),  # part of every manifest
    "harness/engine/chat.py": (True, True),
    "tasks/chat_options.py": (True, True),
    "tasks/extraction.py": (True, True),
    "tasks/metrics/survey.py": (False, True),
    "tasks/metrics/shares.py": (False, True),
    "tasks/vsm13/items.yaml": (False, True),
    "harness/scoring/score.py": (False, True),
    "harness/submissions/reader.py": (False, True),
    "harness/report/tables.py": (False, True),
    "leaderboards/boards.py": (False, True),
    "leaderboards/templates/board.js": (False, True),
}


@pytest.fixture(scope="module")
def hashes(tmp_path_factory):
    home = tmp_path_factory.mktemp("copy") / "results"  # a name that the published board has, too
    listed = subprocess.run(
        ["find", *["errors.py", "__init__.py", "tasks", "harness", "leaderboards", "optimizers"], "-type", "f",
         "-not", "-path", "leaderboards/results/*", "-not", "-name", "*.pyc"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in listed:
        (home / "culteval" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "culteval" / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *FILES],
        env=os.environ | {"PYTHONPATH": str(home)}, cwd=home, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", FILES)
def test_a_comment_changes_the_hashes_of_what_it_may_decide(hashes, name):
    of_answers, of_boards = (now != before for now, before in zip(hashes[name], hashes[""], strict=True))
    assert (of_answers, of_boards) == FILES[name]
