"""Boards on disk for the tests that check and verify them: commands, entries, and entries changed by a cheat."""

import hashlib
import json

from click.testing import CliRunner
from culteval.errors import CultevalError
from culteval.harness.cli.main import cli
from culteval.harness.util.atomic_io import sha256

from .submission_files import rows_of, unpacked

BASE = ["run", "--task", "vsm13", "--country", "US", "--dtype", "float32", "--threads", 1, "--no-compare"]


def culteval(*arguments):
    """Exit code, standard output and error line of a command."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if isinstance(done.exception, CultevalError):
        return done.exception.exit_code, done.stdout, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


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


def key_of(folder):
    return sha256(folder / "manifest.json")


def marks_of(board):
    return json.loads((board / "verified.json").read_text())


def weigh_nothing(rows):
    """As an API that tells no probabilities."""
    for row in rows:
        row["probs"], row["off_options"] = [], 1.0
