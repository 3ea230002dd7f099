"""Cross-validation of the length of an aligner's soft prompt, with folds of whole groups of items."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from ...errors import InputError, UsageError
from ...tasks.reading import read_unmarked
from ...tasks.schema import Scoring, Strict
from ...tasks.spec import first_problem
from ..alignment.aligner import find_aligner
from ..alignment.budget import Budget
from ..alignment.checkpoint import Checkpoint
from ..alignment.objective import TaskObjective
from ..models.aligned import AlignedModel
from ..report.plots import drawing
from ..util.atomic_io import locked, write_json
from ..util.display import Display
from .config import RunConfig, aligner_settings, objective_of
from .folder import MODEL, same_model

RESULTS = "folds.json"


class Fold(Strict):
    """The losses of one fit on training and validation items; ``tokens`` 0 is the model without a soft prompt.

    ``loss`` is computed by ``expected`` scoring, ``argmax`` of the most probable answers: for labels and pairs, the
    error rate.
    """

    tokens: int = Field(ge=0)
    fold: int = Field(ge=0)
    train_loss: float
    train_argmax: float
    validation_loss: float
    validation_argmax: float
    seconds: float


_FOLDS = TypeAdapter(list[Fold])
_SCORINGS: tuple[tuple[str, Scoring], ...] = (
    ("loss", "expected"),
    ("argmax", "argmax"),
)  # suffixes of the losses' names


class _Progress(Checkpoint):
    """Progress of a fit that is too short to be resumed."""

    def __init__(self, budget: Budget, display: Display, label: str) -> None:
        self.budget, self.display, self.label = budget, display, label

    def save(self, state: Mapping[str, np.ndarray], best: float) -> None:
        """Move the progress bar."""
        allowed = self.budget.total / self.budget.per_survey
        self.display.advance(self.label, self.budget.evaluations, allowed, best)


def divide(groups: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the rows left out in each of ``count`` folds; rows of one group (prompts,) are left out together.

    Raises:
        UsageError: fewer groups than folds.
    """
    names = rng.permutation(np.unique(groups))
    if len(names) < count:
        raise UsageError(f"`folds` {count}: there are {len(names)} groups of items; give {len(names)} at most.")
    return [np.flatnonzero(np.isin(groups, part)) for part in np.array_split(names, count)]


def cross_validate(
    config: RunConfig,
    lengths: Sequence[int],
    count: int,
    path: Path,
    model_of: Callable[[], Any],
    display: Display,
) -> list[Fold]:
    """Fit every length on all folds but one and evaluate on that one; skip fits whose results are in ``path``.

    Args:
        path: the file of results, rewritten after every fit.

    Raises:
        UsageError: the task's loss needs all its items, or too many folds. InputError: a damaged file. RunError:
            another process works in the folder, or earlier fits were of another model.
    """
    objective = objective_of(config)
    assert isinstance(objective, TaskObjective), "one `fit`"
    parts = divide(objective.groups, count, np.random.default_rng(config.seed))
    objective.take(parts[0])  # raises now where the loss needs all items
    with locked(path.parent):
        folds = read_folds(path)
        done = {(fold.tokens, fold.fold) for fold in folds}
        for tokens in (0, *lengths):
            for number, rows in enumerate(parts):
                if (tokens, number) in done:
                    continue
                model = model_of()
                same_model(path.with_name(MODEL), model, f"Use another `out`, or delete {path.parent}.")
                label = f"{tokens} tokens, fold {number + 1} of {count}"
                folds.append(_fold(config, objective, rows, tokens, number, model, display, label))
                write_json(path, [fold.model_dump() for fold in folds])
    return sorted(folds, key=lambda fold: (fold.tokens, fold.fold))


def folder_name(config: RunConfig, folds: int) -> str:
    """Name a folder after task, country and aligner, with a hash of everything but the lengths."""
    settings = {name: value for name, value in config.settings.items() if name != "tokens"}
    digest = hashlib.sha256(f"{folds}{config.model_copy(update={'settings': settings}).digest}".encode()).hexdigest()
    return f"{config.fit[0]}-{config.fit_country}-{config.aligner}-{digest[:10]}"


def compare_lengths(
    config: RunConfig, lengths: Sequence[int], folds: int, folder: Path, model_of: Callable[[], Any], display: Display
) -> list[Fold]:
    """Cross-validate in a folder, draw both losses there, and return the results of these lengths and of no prompt."""
    results = cross_validate(config, lengths, folds, folder / RESULTS, model_of, display)
    shown = [fold for fold in results if fold.tokens in (0, *lengths)]
    draw(shown, "loss", folder / "loss.svg", "loss (expected values)")
    draw(shown, "argmax", folder / "argmax.svg", "loss of the most probable answers")
    return shown


def _fold(
    config: RunConfig,
    objective: TaskObjective,
    left_out: np.ndarray,
    tokens: int,
    number: int,
    model: Any,
    display: Display,
    label: str,
) -> Fold:
    kept = np.setdiff1d(np.arange(len(objective.prompts)), left_out)
    train, validation = objective.take(kept), objective.take(left_out)
    started, aligned = time.perf_counter(), AlignedModel(model)
    if tokens:
        settings = aligner_settings(config.aligner, (f"tokens={tokens}",), config.settings)
        items = len(np.unique(train.prompts.layout.item))
        budget = Budget(config.budget * items, items)
        rng = np.random.default_rng([config.seed, number])
        checkpoint = _Progress(budget, display, label)
        aligned = find_aligner(config.aligner)(settings).align(model, train, budget, rng, checkpoint)
    losses = {
        f"{name}_{key}": loss
        for name, part in (("train", train), ("validation", validation))
        for key, loss in _losses(aligned, part)
    }
    return Fold(tokens=tokens, fold=number, seconds=round(time.perf_counter() - started, 3), **losses)


def _losses(aligned: AlignedModel, objective: TaskObjective) -> Iterator[tuple[str, float]]:
    probs = aligned.answer(objective.prompts).probs
    for key, scoring in _SCORINGS:
        yield key, float(np.asarray(objective.read_as(scoring).loss(probs))[0])


def read_folds(path: Path) -> list[Fold]:
    """Read the results of earlier calls; return none where there is no file.

    Raises:
        InputError: a damaged file.
    """
    if not path.exists():
        return []
    try:
        return _FOLDS.validate_json(read_unmarked(path))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}. Delete it to start over.") from None


def draw(folds: Sequence[Fold], column: str, path: Path, heading: str) -> None:
    """Draw an SVG of a loss against the length: folds as points, means as lines, the bare model as a dashed line."""
    lengths = sorted({each.tokens for each in folds if each.tokens})
    with drawing(path, 6, 3.6) as axes:
        for name, colour, broken in (("train", "#0072b2", ":"), ("validation", "#d55e00", "--")):
            values = {n: [getattr(f, f"{name}_{column}") for f in folds if f.tokens == n] for n in (0, *lengths)}
            axes.scatter(
                [n for n in lengths for _ in values[n]], [v for n in lengths for v in values[n]], s=12, color=colour
            )
            axes.plot(lengths, [np.mean(values[n]) for n in lengths], color=colour, label=name)
            axes.axhline(np.mean(values[0]), color=colour, linestyle=broken, label=f"{name}, no prompt")
        axes.set_xlabel("soft tokens")
        axes.set_ylabel(heading)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
