"""The README's first command, run once a session: a copy of the tree, an empty environment, an empty cache.

It is the embedded model with a small budget, in float32, so that its figures are the same on every processor.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
COMMANDS = [
    line.strip()
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    if "-m venv" in line
]
SMALL = " --budget 16 --dtype float32"

# Starts a command and writes its peak memory in KiB to a file. A process between pytest and the command, because Linux
# counts what a parent held when it forked as its child's peak, and pytest has held whole models by now.
WATCH = """
import pathlib, resource, subprocess, sys
done = subprocess.run(sys.argv[2:])
pathlib.Path(sys.argv[1]).write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(done.returncode)
"""


class FirstCommand(NamedTuple):
    """``clone`` with its environment, the cache, what was printed, and the peak memory in bytes of any process."""

    clone: Path
    cache: Path
    stdout: str
    stderr: str
    peak: int

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return next((self.clone / "culteval-runs").glob("vsm13-SA-de-*"))

    @property
    def compared(self) -> dict[str, list[dict[str, Any]]]:
        """The scores of its run, and of the runs it is compared with, by folder."""
        files = (self.clone / "culteval-runs").glob("vsm13-SA-*/scores.json")
        return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def copy_of_the_tree(target: Path) -> Path:
    """Copy what a clone would hold."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def shell(command: str, cwd: Path, peak: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would in a shell of their own; ``peak`` receives its peak memory in KiB."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTEST_", "PYTHON"))}
    environment = {k: v for k, v in environment.items() if k != "HF_HUB_OFFLINE"} | {"PIP_COMPILE": "0"} | extra
    watch = [] if peak is None else [sys.executable, "-c", WATCH, str(peak)]
    options = {"cwd": cwd, "env": environment, "capture_output": True, "text": True, "timeout": 1800}
    return subprocess.run([*watch, "bash", "-c", command], **options)


@pytest.fixture(scope="session")
def first_command(tmp_path_factory, worker_id) -> FirstCommand:
    """One for all of pytest's workers (the recipe of pytest-xdist's documentation)."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "the first command"  # a space in its name
    with FileLock(f"{folder}.lock"):
        if not (folder / "printed").is_file():
            folder.mkdir()
            clone = copy_of_the_tree(folder / "culteval")
            done = shell(COMMANDS[0] + SMALL, clone, folder / "peak", CULTEVAL_CACHE=str(folder / "cache"))
            assert done.returncode == 0, done.stderr[-3000:]
            (folder / "printed").write_text(json.dumps([done.stdout, done.stderr]), encoding="utf-8")
    printed = json.loads((folder / "printed").read_text(encoding="utf-8"))
    peak = 1024 * int((folder / "peak").read_text())
    return FirstCommand(folder / "culteval", folder / "cache", *printed, peak)
