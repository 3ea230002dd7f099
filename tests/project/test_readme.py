"""The README's two commands, as they stand there: a copy of the tree, an empty environment, an empty cache."""

import re

import pytest

from .. import first_command as commands
from ..first_command import COMMANDS, ROOT, SMALL, shell

first_command = commands.first_command


def test_there_are_two_and_ci_runs_the_second():
    assert len(COMMANDS) == 2
    assert COMMANDS[0].endswith('culteval" run --aligner de --task vsm13')
    assert COMMANDS[1].endswith('-m pytest "$C"')
    assert "grep -m1 -- '-m pytest' README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.slow
def test_first_command_from_nothing_and_again_from_another_folder(first_command, tiny_cache, tmp_path):
    """The embedded model with a small budget, and the command's own budget on a tiny model in its place."""
    clone, command = first_command.clone, COMMANDS[0]
    again = shell(command.replace("C=.", f'C="{clone}"') + SMALL, clone, CULTEVAL_CACHE=str(first_command.cache))
    whole = shell(f'C="{clone}" && {command.rpartition(" && ")[2]}', tmp_path, CULTEVAL_CACHE=str(tiny_cache))
    for done in (again, whole):
        assert done.returncode == 0, done.stderr[-3000:]
    for done in (first_command, again, whole):
        for word in ("constant", "naive", "icl", "random", "de", "submission", "culteval score"):
            assert word in done.stdout
    assert [("finished before" in done.stderr) for done in (first_command, again, whole)] == [False, True, False]
    score = shell(f'"{clone}/.venv/bin/culteval" score "{first_command.run}" --country US', tmp_path)
    assert score.returncode == 0 and "United States" in score.stdout
    tests = shell(COMMANDS[1].replace("C=.", f'C="{clone}"'), tmp_path, PYTEST_ADDOPTS="--collect-only -q")
    assert tests.returncode == 0, tests.stdout[-2000:] + tests.stderr[-2000:]
    assert re.search(r"\d+ tests collected", tests.stdout)
