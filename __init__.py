"""culteval: measure how a language model is aligned to a country's culture, and align it to another.

    import culteval

    run = culteval.run(aligner="gd", tasks=["vsm13"], country="SA", budget=24)
    run.scores.to_frame()
    culteval.score(run, country="all").to_frame()

Nothing heavy is loaded until a function is called. Errors that a person can mend are ``CultevalError``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, CultevalError, InputError, RunError, UnavailableError, UsageError

if TYPE_CHECKING:
    from .harness.analysis.compare import compare_submissions as compare
    from .harness.analysis.country_distance import identify
    from .harness.analysis.cultural_map import cultural_map
    from .harness.registry import get_task
    from .harness.runs.listing import list_aligners, list_countries, list_models, list_tasks
    from .harness.runs.run import run
    from .harness.scoring.submission import load_submission, score
    from .leaderboards.leaderboard import leaderboard

_FUNCTIONS = {
    "run": "harness.runs.run",
    "score": "harness.scoring.submission",
    "compare": "harness.analysis.compare:compare_submissions",
    "identify": "harness.analysis.country_distance",
    "cultural_map": "harness.analysis.cultural_map",
    "leaderboard": "leaderboards.leaderboard",
    "load_submission": "harness.scoring.submission",
    "get_task": "harness.registry",
    "list_tasks": "harness.runs.listing",
    "list_aligners": "harness.runs.listing",
    "list_models": "harness.runs.listing",
    "list_countries": "harness.runs.listing",
}

__all__ = [
    "CheckpointError",
    "CultevalError",
    "InputError",
    "RunError",
    "UnavailableError",
    "UsageError",
    "compare",
    "cultural_map",
    "get_task",
    "identify",
    "leaderboard",
    "list_aligners",
    "list_countries",
    "list_models",
    "list_tasks",
    "load_submission",
    "run",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, function = _FUNCTIONS[name].partition(":")
    found = getattr(import_module(f".{module}", __name__), function or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
