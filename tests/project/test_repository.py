"""What a contributor finds: workflows that name what exists, files of others as published, recipes that run."""

import configparser
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from culteval.leaderboards.render import site

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def setup():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def strings(value):
    """All texts of a YAML document, a matrix's values in the places that name them."""
    if isinstance(value, dict):
        value = list(value.values())
    return [text for one in value for text in strings(one)] if isinstance(value, list) else [str(value)]


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / ".pre-commit-config.yaml"], ids=lambda path: path.stem)
def test_what_workflows_and_hooks_name_exists(path, setup):
    words = [word.strip('"') for text in strings(yaml.safe_load(path.read_text("utf-8"))) for word in text.split()]
    for word in words:
        if re.fullmatch(r"tests/\S+|released/constraints\.txt|constraints\.txt", word):
            assert (ROOT / word.removeprefix("released/")).is_file(), word
        for extra in re.findall(r"^\.\[(\w+)\]$", word):
            assert extra in setup["options.extras_require"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_little_and_pin_what_they_use(path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"} and "secrets." not in text
    for name, job in workflow["jobs"].items():
        assert set(job.get("permissions", {})) <= {"id-token", "pages"}, name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert "uses" not in step or re.fullmatch(r"[\w./-]+@(v\d+|release/v\d+)", step["uses"]), step
            assert "${{ github.event." not in step.get("run", "")  # what a contributor writes is no part of a script


def test_oldest_and_newest_python_are_tested(setup):
    stated = re.findall(r"Python :: (3\.\d+)$", setup["metadata"]["classifiers"], re.MULTILINE)
    stated.sort(key=lambda version: int(version[2:]))
    assert setup["options"]["python_requires"] == f">={stated[0]}"
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    rows = {(row["python"], row["versions"]) for row in workflow["jobs"]["tests"]["strategy"]["matrix"]["include"]}
    assert rows == {(python, "recorded") for python in (stated[0], stated[-1])} | {
        (stated[0], "lowest"),
        (stated[-1], "newest"),
    }


def test_the_version_is_one(setup):
    version = setup["metadata"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    released = re.findall(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[:1] in ([], [version])
    for path in (
        path for room in ("harness", "tasks", "optimizers", "leaderboards") for path in ROOT.glob(f"{room}/**/*.py")
    ):
        assert f'"{version}"' not in path.read_text(encoding="utf-8"), f"{path}: ask importlib.metadata"


def test_files_of_others_are_as_published_and_installed_with_their_licences(setup, tmp_path):
    sums = dict(line.split()[::-1] for line in (site.VENDOR / "SHA256SUMS").read_text().splitlines())
    assert (
        set(sums) == set(site.VENDORED) == {path.name for path in site.VENDOR.iterdir()} - {"README.md", "SHA256SUMS"}
    )
    for name, stated in sums.items():
        assert hashlib.sha256((site.VENDOR / name).read_bytes()).hexdigest() == stated, name
        licence = site.VENDOR / f"{name.split('.')[0]}.LICENSE.txt"
        assert "Permission is hereby granted, free of charge" in licence.read_text(encoding="utf-8")
        assert f"leaderboards/vendor/{licence.name}" in [
            str(path.relative_to(ROOT))
            for glob in setup["metadata"]["license_files"].split()
            for path in ROOT.glob(glob)
        ]
    assert "vendor/*" in setup["options.package_data"]["culteval.leaderboards"]
    page = (site.TEMPLATES / "index.html").read_text(encoding="utf-8")
    scripts = [name for name in re.findall(r'src="assets/([\w.]+)"', page) if name in site.VENDORED]
    assert scripts == ["jquery.min.js", "dataTables.min.js"]  # in this order


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_links_exist(name):
    for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["A new task", "A new aligner", "Submit results"])
def test_recipes_run_as_they_stand(recipe, tiny_cache, tmp_path):
    """In a folder with what they use of the clone, packages beside the environment, the embedded model a tiny one."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition(f"## {recipe}\n")[2]
    script = section.partition("```sh\n")[2].partition("```")[0]
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "leaderboards" / "results").mkdir(parents=True)
    installed = str(tmp_path / "installed")
    environment = os.environ | {
        "CULTEVAL_CACHE": str(tiny_cache),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, (installed, os.environ.get("PYTHONPATH")))),
        "PIP_TARGET": installed, "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0",
    }  # fmt: skip
    command = ["bash", "-euo", "pipefail", "-c", f'culteval() {{ python -m culteval "$@"; }}\n{script}']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert script.count("\n") >= 3
    if recipe == "Submit results":
        (entry,) = (tmp_path / "leaderboards" / "results").iterdir()
        assert entry.name.startswith("vsm13-DE-icl-")
