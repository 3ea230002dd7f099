"""The files of a release: what a wheel and a source distribution hold, and that the wheel works without the clone."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("harness/", "tasks/", "optimizers/", "leaderboards/")
KEPT_OUT = "leaderboards/results/"  # the published board stays in the repository

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git lists the files of a clone")


def run(*command, **given):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **given)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the source distribution of a copy of the tracked files."""
    folder = tmp_path_factory.mktemp("release")
    source = folder / "source"
    names = run("git", "-C", str(ROOT), "ls-files", "-z").split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith((KEPT_OUT, "tests/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools import build_meta as b; b.build_wheel('../out'); b.build_sdist('../out')"
    (folder / "out").mkdir()
    run(sys.executable, "-c", build, cwd=source)
    return folder / "out"


def expected():
    names = run("git", "-C", str(ROOT), "ls-files", *ROOMS).splitlines()
    return {name for name in names if not name.startswith(KEPT_OUT) and (ROOT / name).is_file()}


def test_wheel_and_source_hold_every_file_of_the_rooms_and_no_results(built):
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    in_wheel = {name.removeprefix("culteval/") for name in zipfile.ZipFile(wheel).namelist()}
    with tarfile.open(source) as opened:
        in_source = {name.partition("/")[2] for name in opened.getnames()}
    for held in (in_wheel, in_source):
        assert not expected() - held
        assert not [name for name in held if name.startswith((KEPT_OUT, "tests/"))]
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt"} <= in_source


def test_the_wheel_works_without_the_clone(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "site"), str(wheel))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    where = run(sys.executable, "-c", "import culteval; print(culteval.__file__)", env=environment, cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)
    listed = run(sys.executable, "-m", "culteval", "ls", "tasks", "--json", env=environment, cwd=tmp_path)
    assert '"vsm13"' in listed and '"iw_map"' in listed
    run(sys.executable, "-m", "culteval", "task", "new", "mine", env=environment, cwd=tmp_path)
    run(sys.executable, "-m", "culteval", "task", "validate", "mine/mine.yaml", env=environment, cwd=tmp_path)
