"""Registry of aligners, tasks, models and commands: ours are lazy "module:Name" strings, plug-ins are entry points.

Commands of the packages above the command line, ``leaderboard`` and ``clca``, are entry points of our own distribution:
they come through the group that a plug-in uses.
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
        "untrained": "culteval.optimizers.random_prefix:RandomPrefix",
        "random": "culteval.optimizers.random_search:RandomSearch",
        "best_of_n": "culteval.optimizers.best_of_n:BestOfN",
        "gd": "culteval.optimizers.gd:GradientPrompt",
        "augmented": "culteval.optimizers.augmented:AugmentedPrompt",
        "cma": "culteval.optimizers.cma:CovarianceAdaptationPrompt",
        "pso": "culteval.optimizers.pso:ParticleSwarmPrompt",
        "de": "culteval.optimizers.de:DifferentialEvolutionPrompt",
        "clca": "culteval.optimizers.clca.aligner:CLCA",
    },
    "tasks": {
        name: f"culteval.tasks.{family}:{name}.yaml"
        for family, names in {
            "vsm13": (
                "vsm13",
                "vsm13_text",
                "vsm13_ar",
                "vsm13_de",
                "vsm13_es",
                "vsm13_hi",
                "vsm13_zh",
                "vsm13_official",
            ),
            "culturebench": ("culture_core", "culturalbench_easy", "culturalbench_hard"),
            "wvs": ("wvs", "wvs_text", "wvs_themes"),
            "probes": ("probes",),
            "cdeval": ("cdeval_core", "cdeval"),
            "synthetic_survey": ("synthetic_survey",),
            "general": ("general",),
        }.items()
        for name in names
    },
    "models": {"smollm2": "culteval.harness.models.embedded:fetch"},
    "commands": {},
}
_CULTUREBENCH = ("culturalbench_hard", "culturalbench_easy", "culture_core")
FAMILIES = {"culturebench": _CULTUREBENCH, "culturalbench": _CULTUREBENCH, "cdeval": ("cdeval", "cdeval_core")}


@cache
def table(kind: str) -> dict[str, str]:
    """Return the names of a kind (aligners, tasks, models, commands) and where each is defined.

    A plug-in cannot take a name of ours.
    """
    found = sorted(entry_points(group=f"culteval.{kind}"), key=lambda point: point.value.startswith("culteval."))
    return {point.name: point.value for point in found} | _OWN[kind]  # of the same name the last stays: ours


def find(kind: str, name: str) -> Any:
    """The object a name stands for: an aligner class, or a function that returns a model's folder.

    Raises:
        UsageError: an unknown name (with the nearest known one), or a plug-in that cannot be imported.
    """
    known = table(kind)
    if name not in known:
        raise UsageError(f"{kind[:-1]} {name!r}: unknown.{did_you_mean(name, known)} `culteval ls {kind}` lists them.")
    module, _, attribute = known[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a stranger's plug-in may fail in any way
        raise UsageError(f"{kind[:-1]} {name!r}: cannot be loaded from {known[name]!r} ({error}).") from error


def listing(kind: str, describe: Callable[[str], Row], more: Iterable[str] = ()) -> list[Row]:
    """What ``describe`` says of every name of a kind and ``more``; what is broken is warned about and skipped."""
    rows = []
    for name in (*table(kind), *more):
        try:
            rows.append(describe(name))
        except Exception as error:  # a stranger's plug-in may fail in any way
            warnings.warn(f"skipped {name}: {error}", stacklevel=2)
    return rows


def summary(value: str) -> str:
    """Return the first line of a docstring that a "module:Name" string leads to, read from the source: nothing is run.

    It is the docstring of the function or class of that name, else the module's; empty where neither has one.

    Raises:
        ImportError: no such module. SyntaxError: its source cannot be parsed. OSError: it cannot be read.
    """
    import ast

    module, _, name = value.partition(":")
    path = _source(module)
    if path is None:
        return ""
    tree = ast.parse(path.read_bytes())
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = [node for node in tree.body if isinstance(node, kinds) and node.name == name]
    text = next(filter(None, map(ast.get_docstring, [*found, tree])), "")
    return text.partition("\n")[0]


def _source(module: str) -> Path | None:
    """Where a module's source is, found without importing the packages around it; None for one without source."""
    where: list[str] | None = None
    for end in range(module.count(".") + 1):
        name = ".".join(module.split(".")[: end + 1])
        try:
            specs = [finder.find_spec(name, where) for finder in sys.meta_path]
        except KeyError:  # a namespace package inside another is found only once that one is imported
            return None
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None:
            raise ImportError(f"no module {name!r}")
        where, found = list(spec.submodule_search_locations or ()), spec.origin if spec.has_location else None
    return Path(found) if found and found.endswith(".py") else None


def local_tasks() -> dict[str, Path]:
    """Tasks in the working folder, as ``culteval task new`` writes them."""
    found = {path.parent.name: path for path in sorted(Path().glob("*/*.yaml")) if path.stem == path.parent.name}
    return {name: path for name, path in found.items() if name.isidentifier() and path.is_file()}


def family(name: str) -> tuple[str, ...]:
    """The tasks that a name may stand for, the user's imports before ours; of any other name than a family's, itself.

    A plug-in's or the working folder's task of the name goes before the family.
    """
    tasks = FAMILIES.get(name, (name,))
    return tasks if name in tasks or (name not in table("tasks") and name not in local_tasks()) else (name,)


def concrete(name: str) -> str:
    """The task that a name stands for here: the first of its family whose data are there.

    Only what people type is a family's name: runs, submissions and boards hold tasks.

    Raises:
        InputError: data that were imported and are damaged.
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


_specs: dict[tuple[Path, Path], tuple[list[int], TaskSpec]] = {}  # a board names the same task once a run


def spec_of(name: str) -> TaskSpec:
    """The spec of a task by name, as ``spec_path`` finds it; read again only where one of its files has changed.

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
    """When each file of a spec was last changed; -1 for one that is gone."""
    return [path.stat().st_mtime_ns if path.exists() else -1 for path in spec.sources]


def get_task(name: str) -> Task:
    """The task of a name, or of a family's name the one that it stands for here.

    Raises:
        UsageError: no such task. InputError: its spec is malformed, or its data are not imported.
    """
    from ..tasks.task import Task

    return Task(spec_of(concrete(name)))


def spec_path(name: str) -> Path:
    """The YAML file of a task: a registered one, else ``NAME/NAME.yaml`` in the working folder.

    A name is never a path: submissions name their tasks too, and must not make anybody read a file of their choice.

    Raises:
        UsageError: no such task, or a plug-in whose package is not there.
    """
    known = table("tasks")
    if name not in known and (path := local_tasks().get(name)):
        return path
    if name not in known:
        raise UsageError(f"task {name!r}: unknown.{did_you_mean(name, known)} `culteval ls tasks` lists them.")
    package, _, file = known[name].partition(":")
    try:
        return Path(str(files(package) / file))
    except Exception as error:  # a stranger's plug-in may fail in any way
        raise UsageError(f"task {name!r}: cannot be loaded from {known[name]!r} ({error}).") from error
