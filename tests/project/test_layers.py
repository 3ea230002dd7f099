"""The rooms of the package: imports never climb, nothing heavy is loaded early, and the package list is whole."""

import ast
import configparser
import fnmatch
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = (  # the import order of rooms, lowest first: an import never climbs
    "errors",
    "tasks",
    "harness.util",
    "harness.model_info",
    "harness.registry",
    "harness.engine",
    "harness.adapters",
    "harness.models",
    "harness.submissions",
    "harness.providers",
    "harness.integrations",
    "harness.report",
    "harness.scoring",
    "harness.alignment",
    "harness.runs",
    "harness.analysis",
    "harness.sweeps",
    "harness.cli",
    "optimizers",
    "leaderboards",
)
REGISTRY = "harness/registry.py"  # the one file that may name what stands above it
FLOORS = 6  # rooms in the longest chain of imports inside the harness
MOST_MODULES, MOST_LINES = 14, 400
TOP = ("tasks", "harness", "optimizers", "leaderboards")
NOT_PACKAGES = ("tests", "benchmarks", "docs", "examples", "build", "dist")  # an example is a package of its own
PUBLISHED = ROOT / "leaderboards" / "results"  # a board, read where it is: no part of what is installed
HEAVY = ("torch", "transformers", "lm_eval", "peft", "datasets", "accelerate")


def sources(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path, *, module_level=False):
    """Absolute dotted names of what a file imports; with ``module_level`` only what runs when it is imported."""
    tree = parsed(path)
    package = ("culteval", *path.relative_to(ROOT).parts[:-1])
    inside = set()
    if module_level:
        for node in ast.walk(tree):
            guard = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            if guard or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inside |= {id(child) for part in node.body for child in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = (*base, *(node.module.split(".") if node.module else ()))
            yield from (".".join((*base, alias.name)) for alias in node.names)


def named(path):
    """Dotted names of this package in the strings of a file, as in "culteval.tasks.metrics.survey:HofstedeSurvey"."""
    pattern = re.compile(rf"(culteval\.(?:{'|'.join(TOP)})(?:\.\w+)*)(?::.*)?\.?")
    for node in ast.walk(parsed(path)):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if found := pattern.fullmatch(text):
            yield found[1]


def reached(path):
    """Dotted names of the folders and files that a file leads to from its own place, by ``Path(__file__)``."""
    tree, known = parsed(path), {}

    def place(node):
        match node:
            case ast.Name(id=name):
                return known.get(name)
            case ast.Call(func=ast.Name(id="Path"), args=[ast.Name(id="__file__")]):
                return path
            case ast.Call(func=ast.Attribute(value=start, attr="resolve" | "absolute")):
                return place(start)
            case ast.Call(func=ast.Attribute(value=start, attr="with_name"), args=[ast.Constant(value=str(name))]):
                return (found := place(start)) and found.with_name(name)
            case ast.Call(func=ast.Attribute(value=start, attr="joinpath"), args=[ast.Constant(value=str(name)), *_]):
                return (found := place(start)) and found / name
            case ast.Attribute(value=start, attr="parent"):
                return (found := place(start)) and found.parent
            case ast.Subscript(value=ast.Attribute(value=start, attr="parents"), slice=ast.Constant(value=int(number))):
                return (found := place(start)) and found.parents[number]
            case ast.BinOp(left=start, op=ast.Div(), right=ast.Constant(value=str(name))):
                return (found := place(start)) and found / name
            case ast.BinOp(left=start, op=ast.Div()):  # what is not known is somewhere in there
                return place(start)
        return None

    if "__file__" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (found := place(node.value)):
            known[node.targets[0].id] = found
    for node in ast.walk(tree):
        found = place(node) if isinstance(node, ast.expr) else None
        if found and found.is_relative_to(ROOT) and found != ROOT:
            yield ".".join(("culteval", *found.relative_to(ROOT).with_suffix("").parts))


def room_of(name):
    """The room that a dotted name is in, None outside this package or at its very top."""
    parts = name.split(".")
    if parts[0] != "culteval" or len(parts) < 2:
        return None
    return ".".join(parts[1:3]) if parts[1] == "harness" and len(parts) > 2 else parts[1]


def dotted(path):
    """A file's dotted name; a package's is that of its ``__init__.py``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("culteval", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def climbs(path):
    """What a file imports, names or reads of the rooms above its own, or of none in the order."""
    own = room_of(dotted(path))
    paths = () if path == ROOT / REGISTRY else (*named(path), *reached(path))
    for name in (*imported(path), *paths):
        room = room_of(name)
        if room in (None, own, "harness"):  # the package's own __init__ is empty
            continue
        if room not in ORDER or ORDER.index(room) > ORDER.index(own):
            yield room, name


def test_the_walk_sees_what_a_file_leads_to(tmp_path, monkeypatch):
    """The tests below are worth as much as this one."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "harness" / "runs" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import torch.nn\nfrom ..cli import run\nfrom ...tasks.spec import load\nfrom . import y\n"
        "if TYPE_CHECKING:\n    import peft\n"
        "def f():\n    from culteval.leaderboards.rank import boards\n    import lm_eval\n"
        "LAZY = {'clca': 'culteval.optimizers.clca.aligner:CLCA', 'prose': 'culteval.optimizers is a room'}\n"
        "HERE = Path(__file__).parents[2]\nCONFIG = HERE / 'leaderboards' / f'{name}.yaml'\n"
        "OWN = Path(__file__).with_name('x.yaml')\nOTHER = Path(__file__).parent.parent / 'sweeps'\n"
    )
    every = {"torch.nn", "culteval.harness.cli.run", "culteval.tasks.spec.load", "culteval.harness.runs.y"}
    assert set(imported(path, module_level=True)) == every
    assert set(imported(path)) == every | {"peft", "culteval.leaderboards.rank.boards", "lm_eval"}
    assert set(named(path)) == {"culteval.optimizers.clca.aligner"}
    assert set(reached(path)) == {
        "culteval.leaderboards", "culteval.harness.runs.x", "culteval.harness.sweeps", "culteval.harness",
        "culteval.harness.runs",
    }  # fmt: skip
    assert {room for room, _ in climbs(path)} == {"harness.cli", "leaderboards", "optimizers", "harness.sweeps"}


def test_nothing_climbs():
    """Neither an import, nor a "module:Name" string, nor a data path outside the registry."""
    found = {}
    for path in sources(*TOP):
        if path.parent != ROOT / "harness" or path.name != "__init__.py":
            for room, name in climbs(path):
                found[path.relative_to(ROOT).as_posix(), room] = name
    assert not found


def test_every_room_is_in_the_order():
    rooms = {room_of(dotted(path)) for path in sources(*TOP)} - {"harness"}
    assert not rooms - set(ORDER) and len(set(ORDER)) == len(ORDER)


def arrows(name_of):
    """By ``name_of`` of a dotted module: the others of this package that it imports, wherever in the file."""
    files = {dotted(path): path for path in sources(*TOP)}
    found = {name_of(module): set() for module in files}
    for module, path in files.items():
        for name in imported(path):
            parts = name.split(".")
            names = (".".join(parts[:end]) for end in range(len(parts), 1, -1))
            if target := next((name for name in names if name in files), None):
                found[name_of(module)] |= {name_of(target)} - {name_of(module)}
    return found


def test_there_is_no_circle():
    """Between modules, imports inside functions and for type checkers counted too."""
    graph = arrows(str)
    assert len(graph) > 100

    def above(module):
        seen, left = set(), [module]
        while left:
            new = graph[left.pop()] - seen
            seen |= new
            left += new
        return seen

    reach = {module: above(module) for module in graph}
    circles = {frozenset(other for other in reach[module] if module in reach[other]) for module in graph}
    found = [{name.removeprefix("culteval.") for name in each} for each in circles if each]
    assert not found


def test_the_harness_has_few_floors():
    """The longest chain of imports from room to room."""
    graph = arrows(room_of)

    def chain(room):
        below = [chain(other) for other in graph[room] if other.startswith("harness.")]
        return (room, *max(below, key=len, default=()))

    longest = max((chain(room) for room in graph if room.startswith("harness.")), key=len)
    assert len(longest) <= FLOORS, longest


def test_folders_and_modules_are_small():
    folders = {path.parent for path in sources("harness")}
    counts = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in folders}
    assert max(counts.values()) <= MOST_MODULES, counts
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*TOP)}
    assert not {str(path): count for path, count in lines.items() if count > MOST_LINES}


def test_the_root_stands_on_nothing():
    """Importing the package imports its errors at most."""
    for name in ("__init__.py", "errors.py"):
        assert {room_of(each) for each in imported(ROOT / name, module_level=True)} <= {None, "errors"}


def test_tasks_are_light_and_so_is_the_way_to_scores():
    for path in sources("tasks"):
        heavy = [name for name in imported(path, module_level=True) if name.split(".")[0] in HEAVY]
        assert not heavy, f"{path}: {heavy}"
    for path in sources("tasks", "leaderboards"):
        torch = [name for name in imported(path) if name.split(".")[0] in ("torch", "transformers")]
        assert not torch, f"{path}: {torch}"


def test_search_is_numpy_and_scipy_only():
    """Ask-tell optimisers: arrays and the standard library, not even the house."""
    for path in sources("optimizers/search"):
        for name in imported(path):
            first = name.split(".")[0]
            inner = name.startswith(("culteval.optimizers.search", "culteval.errors"))
            arrays = first in ("numpy", "scipy", "cmaes")
            assert first in sys.stdlib_module_names or arrays or inner, f"{path} imports {name}"


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
    for path in sources(*TOP):
        assert (path.parent / "__init__.py").is_file(), f"{path} would not be installed"


def test_every_data_file_is_installed():
    config, listed = setup()["options.package_data"], packages_here()
    for path in (p for floor in TOP for p in (ROOT / floor).rglob("*")):
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
def test_help_loads_click_alone(flags):
    names, text = loaded_by(MAIN, *flags)
    installing = {name for name in names if name.startswith(("__editable__", "_distutils_hack", "_virtualenv"))}
    assert names - sys.stdlib_module_names - installing == {"__main__", "click", "culteval"} and text


def test_help_documents_the_exit_codes():
    _, text = loaded_by(MAIN, "--help")
    text = " ".join(text.split())
    for code in ("0 done", "1 internal", "2 wrong usage", "3 bad input", "4 model", "5 a run", "130 interrupted"):
        assert code in text
    for command in ("run", "resume", "score", "ls", "task", "leaderboard"):
        assert f" {command} " in text


@pytest.mark.parametrize(
    ("program", "present"),
    [
        ("import culteval", "culteval"),
        (
            "from culteval.harness import registry; from culteval.harness.submissions import reader; "
            "from culteval.harness.scoring import score",
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


def test_every_module_that_decides_an_answer_is_in_the_key_of_the_cache():
    """Of what a local model leads to; the others make prompts, which are in the key as they are, or only look on."""
    from culteval.harness.runs.answer_cache import DECIDING

    seen, todo = set(), [ROOT / "harness" / "models" / name for name in ("local.py", "aligned.py")]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += [file for name in imported(path) if (file := file_of(name))]
    names = {str(path.relative_to(ROOT)) for path in seen}
    without = {name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in DECIDING)}
    util = {"errors.py", *(f"harness/util/{name}.py" for name in ("at_work", "atomic_io", "display"))}
    prompts = ("countries", "file_kinds", "imported", "items", "personas", "reading", "rows", "schema", "spec")
    assert without == util | {f"tasks/{name}.py" for name in (*prompts, "templated_items")}


def file_of(name):
    """The file of a dotted name of this package, or of what it is imported from; None for other packages."""
    parts = name.split(".")
    ends = (len(parts), len(parts) - 1) if parts[0] == "culteval" else ()
    files = (ROOT.joinpath(*parts[1:end]).with_suffix(".py") for end in ends)
    return next((file for file in files if file.is_file()), None)
