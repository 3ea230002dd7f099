"""The floors of the house: imports never climb, nothing heavy is loaded early, and the package list is whole."""

import ast
import configparser
import fnmatch
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("tasks", "harness", "optimizers", "leaderboards")
NOT_PACKAGES = ("tests", "benchmarks", "docs", "examples", "build", "dist")  # an example is a package of its own
PUBLISHED = ROOT / "leaderboards" / "results"  # a board, read where it is: no part of what is installed
HEAVY = ("torch", "transformers", "lm_eval", "peft", "datasets", "accelerate")


def sources(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path, *, module_level=False):
    """Absolute dotted names of what a file imports; with ``module_level`` only what runs when it is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ("culteval", *path.relative_to(ROOT).parts[:-1])
    inside = set()
    if module_level:
        for node in ast.walk(tree):
            guard = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            if guard or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                inside |= {id(child) for part in node.body for child in ast.walk(part)} if not isinstance(
                    node, ast.Lambda) else set()  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = (*base, *(node.module.split(".") if node.module else ()))
            yield from (".".join((*base, alias.name)) for alias in node.names)


def floor_of(name):
    parts = name.split(".")
    return parts[1] if parts[0] == "culteval" and len(parts) > 1 else None


def test_the_walk_sees_imports_of_every_kind(tmp_path, monkeypatch):
    """The tests below are worth as much as this one."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "tasks" / "metrics").mkdir(parents=True)
    path = tmp_path / "tasks" / "metrics" / "x.py"
    path.write_text(
        "import torch.nn\nfrom ...harness import run\nfrom ..spec import load\nfrom . import y\n"
        "if TYPE_CHECKING:\n    import peft\n"
        "def f():\n    from culteval.leaderboards.rank import boards\n    import lm_eval\n"
    )
    every = {"torch.nn", "culteval.harness.run", "culteval.tasks.spec.load", "culteval.tasks.metrics.y"}
    assert set(imported(path, module_level=True)) == every
    assert set(imported(path)) == every | {"peft", "culteval.leaderboards.rank.boards", "lm_eval"}


@pytest.mark.parametrize("path", sources(*FLOORS), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_never_climb(path):
    own = FLOORS.index(path.relative_to(ROOT).parts[0])
    for name in imported(path):
        floor = floor_of(name)
        if floor in FLOORS:
            assert FLOORS.index(floor) <= own, f"{path} imports {name}"
        else:
            assert floor in (None, "errors"), f"{path} imports {name}"


@pytest.mark.parametrize("name", ["__init__.py", "errors.py"])
def test_the_root_stands_on_nothing(name):
    for imports in imported(ROOT / name):
        assert floor_of(imports) in (None, "errors"), imports


def test_tasks_are_light_and_so_is_the_way_to_scores():
    for path in sources("tasks"):
        heavy = [name for name in imported(path, module_level=True) if name.split(".")[0] in HEAVY]
        assert not heavy, f"{path}: {heavy}"
    for path in sources("tasks", "leaderboards"):
        torch = [name for name in imported(path) if name.split(".")[0] in ("torch", "transformers")]
        assert not torch, f"{path}: {torch}"


def test_search_is_numpy_only():
    """Ask-tell optimisers: numpy and the standard library, not even the house."""
    for path in sources("optimizers/search"):
        for name in imported(path):
            first = name.split(".")[0]
            inner = name.startswith(("culteval.optimizers.search", "culteval.errors"))
            assert first in sys.stdlib_module_names or first in ("numpy", "cmaes") or inner, f"{path} imports {name}"


def setup():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def packages_here():
    folders = {path.parent for path in ROOT.rglob("__init__.py")}
    parts = [folder.relative_to(ROOT).parts for folder in folders]
    return {".".join(("culteval", *p)) for p in parts if not p or (p[0] not in NOT_PACKAGES and p[0][0] != ".")}


def test_the_package_list_is_whole():
    listed = setup()["options"]["packages"].split()
    assert listed == sorted(listed) and len(set(listed)) == len(listed)
    assert set(listed) == packages_here()


def test_every_module_is_in_a_package():
    for path in sources(*FLOORS):
        assert (path.parent / "__init__.py").is_file(), f"{path} would not be installed"


def test_every_data_file_is_installed():
    config, listed = setup()["options.package_data"], packages_here()
    for path in (p for floor in FLOORS for p in (ROOT / floor).rglob("*")):
        if path.is_dir() or path.suffix in (".py", ".pyc") or "__pycache__" in path.parts:
            continue
        if PUBLISHED in path.parents:
            continue
        home = next(
            folder for folder in path.parents if ".".join(("culteval", *folder.relative_to(ROOT).parts)) in listed
        )
        package = ".".join(("culteval", *home.relative_to(ROOT).parts))
        rest = str(path.relative_to(home))
        globs = [glob.strip() for glob in config.get(package, "").split(",")]
        fits = any(fnmatch.fnmatch(rest, glob) and rest.count("/") == glob.count("/") for glob in globs)
        assert fits, f"{path.relative_to(ROOT)} is in no package_data of setup.cfg"


# ---------------------------------------------------------------- what is loaded when


def loaded_by(program, *arguments):
    """First names of all modules in a process after the program, which may end with SystemExit."""
    code = (
        "import atexit, json, sys\n"
        "out = sys.stderr\n"
        "atexit.register(lambda: out.write('@@' + json.dumps(sorted({n.split('.')[0] for n in sys.modules}))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + program, *arguments], capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.partition("@@")[2])), done.stdout


MAIN = "from culteval.harness.cli.main import main; main()"


@pytest.mark.parametrize("flags", [["--help"], ["-h"], ["--version"]])
def test_help_loads_nothing_heavy(flags):
    names, text = loaded_by(MAIN, *flags)
    assert "click" in names and text
    heavy = {"torch", "transformers", "lm_eval", "pydantic", "numpy", "scipy", "rich", "yaml", "pycountry", "py3langid"}
    assert not names & heavy


def test_help_documents_the_exit_codes():
    _, text = loaded_by(MAIN, "--help")
    text = " ".join(text.split())
    for code in ("0 done", "1 internal", "2 wrong usage", "3 bad input", "4 model", "5 a run", "130 interrupted"):
        assert code in text
    for command in ("run", "resume", "score", "ls", "task", "leaderboard"):
        assert f" {command} " in text


def test_help_is_quick():
    """Under 0.3 s of processor time, the best of three."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", MAIN, "--help"], stdout=subprocess.DEVNULL, check=True, env=dict(os.environ)
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert 0 < min(times) < 0.3, times


@pytest.mark.parametrize(
    ("program", "present"),
    [
        ("import culteval", "culteval"),
        (
            "from culteval.harness import registry; from culteval.harness.submissions import reader; from culteval.harness.scoring import score",
            "pydantic",
        ),
        ("from culteval.leaderboards import entries, commands, boards", "pydantic"),
        ("import culteval.tasks.hooks", "numpy"),
    ],
)
def test_imports_without_a_model_load_no_torch(program, present):
    names, _ = loaded_by(program)
    assert present in names and not names & set(HEAVY)


def test_a_bare_import_is_bare():
    names, _ = loaded_by("import culteval")
    assert not names & {"click", "pydantic", "numpy", "yaml", "rich"}


def test_listing_aligners_and_settings_needs_no_torch():
    names, text = loaded_by(MAIN, "ls", "aligners", "--json")
    assert "torch" not in names and {"naive", "de"} <= {row["aligner"] for row in json.loads(text)}
