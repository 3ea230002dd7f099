"""Registry of aligners, tasks, models and commands: lazy "module:Name" strings, and entry points of plug-ins.

The commands of packages above the command line, ``leaderboard`` and ``clca``, are entry points of this distribution, in
the same group as those of plug-ins.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from ..tasks.spec import TaskSpec
    from ..tasks.task import Task

Row = TypeVar("Row")

_OWN = {
    "aligners": {
        "naive": "culteval.optimizers.naive:Naive",
        "icl": "culteval.optimizers.icl:InContext",
        "random_prefix": "culteval.optimizers.random_prefix:RandomPrefix",
        "random": "culteval.optimizers.random_search:RandomSearch",
        "best_of_n": "culteval.optimizers.best_of_n:BestOfN",
        "evo_prompt": "culteval.optimizers.evo_prompt:EvoPrompt",
        "gd": "culteval.optimizers.gd:GradientPrompt",
        "augmented": "culteval.optimizers.augmented:AugmentedPrompt",
        "cma": "culteval.optimizers.cma:CovarianceAdaptationPrompt",
        "pso": "culteval.optimizers.pso:ParticleSwarmPrompt",
        "de": "culteval.optimizers.de:DifferentialEvolutionPrompt",
        "steer": "culteval.optimizers.steer:Steer",
        "sft": "culteval.optimizers.lora.aligner:SupervisedTuning",
        "dpo": "culteval.optimizers.lora.aligner:PreferenceTuning",
        "clca": "culteval.optimizers.clca.aligner:CLCA",
    },
    "tasks": {
        name: f"culteval.tasks.{family}:{name}.yaml"
        for family, names in {
            "vsm13": (
                "vsm13",
                "vsm13_text",
                "vsm13_cloze",
                "vsm13_verbalized",
                "vsm13_ar",
                "vsm13_de",
                "vsm13_es",
                "vsm13_hi",
                "vsm13_zh",
                "vsm13_official",
                "vsm13_training",
            ),
            "culturebench": ("culture_core", "culture_core_cloze", "culturalbench_easy", "culturalbench_hard"),
            "wvs": ("wvs", "wvs_text", "wvs_cloze", "wvs_verbalized", "wvs_themes", "wvs_training"),
            "iw_map": (
                "iw_map",
                "iw_map_text",
                "iw_map_ar",
                "iw_map_de",
                "iw_map_es",
                "iw_map_hi",
                "iw_map_zh",
            ),
            "probes": ("probes",),
            "cdeval": ("cdeval_core", "cdeval_idv", "cdeval_ivr", "cdeval"),
            "globalopinionqa": ("globalopinionqa",),
            "blend": ("blend",),
            "simbench": ("simbench_pop", "simbench_grouped"),
            "opinionqa": ("opinionqa",),
            "normad": ("normad_country", "normad_value", "normad_rule"),
            "synthetic_survey": ("synthetic_survey",),
            "general": ("general", "general_cloze"),
        }.items()
        for name in names
    },
    "models": {
        "smollm2": "culteval.harness.models.embedded:smollm2",
        "qwen2.5-coder-0.5b": "culteval.harness.models.embedded:qwen25_coder_05b",
        "qwen2.5-coder-1.5b": "culteval.harness.models.embedded:qwen25_coder_15b",
    },
    "commands": {},
}
_CULTUREBENCH = ("culturalbench_hard", "culturalbench_easy", "culture_core")
FAMILIES = {"culturebench": _CULTUREBENCH, "culturalbench": _CULTUREBENCH, "cdeval": ("cdeval", "cdeval_core")}


@cache
def table(kind: str) -> dict[str, str]:
    """Return the names of a kind (aligners, tasks, models, commands) with their "module:Name" strings.

    A plug-in cannot replace a built-in name.
    """
    points = sorted(entry_points(group=f"culteval.{kind}"), key=lambda point: point.value.startswith("culteval."))
    return {point.name: point.value for point in points} | _OWN[kind]  # the last of equal names is kept: the built-in


def find(kind: str, name: str) -> Any:
    """Import and return the object of a name: an aligner class, or a function that returns a model's folder.

    Raises:
        UsageError: the name is unknown (with the nearest known one), or a plug-in cannot be imported.
    """
    known = table(kind)
    if name not in known:
        raise UsageError(f"{kind[:-1]} {name!r}: unknown.{did_you_mean(name, known)} `culteval ls {kind}` lists them.")
    module, _, attribute = known[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # an untrusted plug-in may fail in any way
        raise UsageError(f"{kind[:-1]} {name!r}: cannot be loaded from {known[name]!r} ({error}).") from error


def listing(kind: str, describe: Callable[[str], Row], more: Iterable[str] = ()) -> list[Row]:
    """Apply ``describe`` to every name of a kind and to ``more``; warn about broken entries and skip them."""
    rows = []
    for name in (*table(kind), *more):
        try:
            rows.append(describe(name))
        except Exception as error:  # an untrusted plug-in may fail in any way
            warnings.warn(f"skipped {name}: {error}", stacklevel=2)
    return rows


def summary(value: str) -> str:
    """Return the first docstring line of a "module:Name" string, read from the source without importing the module.

    It is the docstring of the function or class of that name, else the module's; empty if neither has one.

    Raises:
        ImportError: the module does not exist. SyntaxError: its source cannot be parsed. OSError: it cannot be read.
    """
    import ast

    module, _, name = value.partition(":")
    path = _source(module)
    if path is None:
        return ""
    tree = ast.parse(path.read_bytes())
    kinds = (ast.FunctionDef, ast.ClassDef)
    nodes = [node for node in tree.body if isinstance(node, kinds) and node.name == name]
    text = next(filter(None, map(ast.get_docstring, [*nodes, tree])), "")
    return text.partition("\n")[0]


def _source(module: str) -> Path | None:
    """Locate a module's source without importing its parent packages; None for a module without source."""
    where: list[str] | None = None
    for end in range(module.count(".") + 1):
        name = ".".join(module.split(".")[: end + 1])
        try:
            specs = [finder.find_spec(name, where) for finder in sys.meta_path]
        except KeyError:  # nested namespace packages can be found only after an import
            return None
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None:
            raise ImportError(f"no module {name!r}")
        where, origin = list(spec.submodule_search_locations or ()), spec.origin if spec.has_location else None
    return Path(origin) if origin and origin.endswith(".py") else None


def local_tasks() -> dict[str, Path]:
    """Return the tasks in the working folder, as ``culteval task new`` writes them."""
    paths = {path.parent.name: path for path in sorted(Path().glob("*/*.yaml")) if path.stem == path.parent.name}
    return {name: path for name, path in paths.items() if name.isidentifier() and path.is_file()}


def family(name: str) -> tuple[str, ...]:
    """Return the tasks of a family, imported ones before built-in ones; for any other name the name itself.

    A task of the same name from a plug-in or the working folder takes precedence over the family.
    """
    tasks = FAMILIES.get(name, (name,))
    return tasks if name in tasks or (name not in table("tasks") and name not in local_tasks()) else (name,)


def concrete(name: str) -> str:
    """Resolve a name to a task: the first task of its family whose data are available.

    Family names occur only in user input: runs, submissions and leaderboards hold names of tasks.

    Raises:
        InputError: imported data are damaged.
    """
    from ..tasks.spec import NotImportedError

    first, *others = family(name)
    for task in (first, *others) if others else ():
        try:
            spec_of(task)
        except NotImportedError:
            continue
        return task
    return first


_specs: dict[tuple[Path, Path], tuple[list[int], TaskSpec]] = {}  # a leaderboard names the same task once per run


def spec_of(name: str) -> TaskSpec:
    """Read the spec of a task by name, found by ``spec_path``; cached until one of its files changes.

    Raises:
        UsageError: as ``spec_path``. InputError: the spec is malformed.
    """
    from ..tasks.imported import data_dir
    from ..tasks.spec import load_spec

    key = (spec_path(name), data_dir())
    if key in _specs and _specs[key][0] == _changed(_specs[key][1]):
        return _specs[key][1]
    spec = load_spec(key[0])
    _specs[key] = (_changed(spec), spec)
    return spec


def _changed(spec: TaskSpec) -> list[int]:
    """Return the modification time in ns of each file of a spec; -1 for a missing file."""
    return [path.stat().st_mtime_ns if path.exists() else -1 for path in spec.sources]


def get_task(name: str) -> Task:
    """Return the task of a name, or the available task of a family's name.

    Raises:
        UsageError: the task is unknown. InputError: its spec is malformed, or its data are not imported.
    """
    from ..tasks.task import Task

    return Task(spec_of(concrete(name)))


def spec_path(name: str) -> Path:
    """Return the YAML file of a task: a registered one, else ``NAME/NAME.yaml`` in the working folder.

    A name is never a path: submissions are untrusted input and name tasks, and must not choose files to be read.

    Raises:
        UsageError: the task is unknown, or the package of a plug-in is missing.
    """
    known = table("tasks")
    if name not in known and (path := local_tasks().get(name)):
        return path
    if name not in known:
        raise UsageError(f"task {name!r}: unknown.{did_you_mean(name, known)} `culteval ls tasks` lists them.")
    package, _, file = known[name].partition(":")
    try:
        return Path(str(files(package) / file))
    except Exception as error:  # an untrusted plug-in may fail in any way
        raise UsageError(f"task {name!r}: cannot be loaded from {known[name]!r} ({error}).") from error
