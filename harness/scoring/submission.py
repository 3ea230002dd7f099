"""Submissions as objects: the manifest, the answers, which are read on first use, and scores for any country."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, UsageError
from ...tasks.answers import Answers
from ...tasks.countries import country as resolve
from ...tasks.countries import name_of
from ...tasks.measure import MeasureOptions, countries_of, measure_of
from ...tasks.prompts import of_split
from ...tasks.score import Score
from ...tasks.spec import TaskSpec
from ..submissions.manifest import MANIFEST, AskedTask, Manifest, submission_of
from ..submissions.reader import read_manifest, read_submission
from .judge import JudgeVerdict, judged_scores, read_verdicts
from .score import Reading, TaskCache, readings, score_readings
from .scores import Scores

if TYPE_CHECKING:
    import pandas as pd


class Submission:
    """One submission: its manifest, its answers and their scores.

    Answers are read from the folder on first use and kept.

    Args:
        folder: the folder of its manifest and answers.
        answers: by task, if they are in memory already.
        cache: specs and measures shared with other submissions.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        answers: Mapping[str, Answers] | None = None,
        cache: TaskCache | None = None,
    ) -> None:
        self.folder, self.manifest, self.cache = folder, manifest, cache or TaskCache()
        if answers is not None:  # where the cached property below keeps them
            self.__dict__["answers"] = answers

    def __repr__(self) -> str:
        tasks = ", ".join(task.name for task in self.manifest.tasks)
        return f"Submission({str(self.folder)!r}: {self.manifest.aligner.name}, {self.manifest.country}, {tasks})"

    @cached_property
    def answers(self) -> Mapping[str, Answers]:
        """Return the answers by task.

        Raises:
            InputError: missing, malformed or out of bounds, or answers that do not match the task; names file and
                field.
        """
        manifest, answers = read_submission(self.folder, self.cache.spec)
        if manifest != self.manifest:
            raise InputError(f"{self.folder / MANIFEST}: it has changed since it was read. Load the submission anew.")
        return answers

    @cached_property
    def verdicts(self) -> list[JudgeVerdict]:
        """Return the verdicts of an LLM judge on the open answers; none for a submission that was not judged.

        Raises:
            InputError: damaged verdicts, or verdicts on other answers.
        """
        return read_verdicts(self.folder, self.manifest)

    @cached_property
    def readings(self) -> Mapping[str, list[Reading]]:
        """Return by task the answers of each split for each answer scoring; they do not depend on the country."""
        return {name: list(readings(self.cache.spec(name), given)) for name, given in self.answers.items()}

    def score(
        self,
        country: str | None = None,
        *,
        task: str | None = None,
        edition: str | None = None,
        constants: str | None = None,
        norm: str | None = None,
    ) -> Scores:
        """Score the answers against the reference.

        Args:
            country: a name or code; ``all`` for every country of the reference [default: the submission's own].
            task: the only task to score [default: all of them].
            edition: of the reference, instead of the submission's own.
            constants: of the indices, instead of the submission's own.
            norm: of the loss, instead of the submission's own.

        Raises:
            InputError: a bad submission. UsageError: a country or option that the reference does not have.
        """
        given = {"edition": edition, "constants": constants, "norm": norm}
        overrides = {name: value for name, value in given.items() if value is not None}
        _ = self.answers  # a bad submission is named before anything is computed
        rows: list[Score] = []
        for number, asked in enumerate(self.manifest.tasks):
            if task in (None, asked.name):
                rows += self._task_scores(number, asked, country, overrides)
        return Scores(rows, f"aligned to {name_of(self.manifest.country)}")

    def _task_scores(
        self, number: int, asked: AskedTask, country: str | None, overrides: Mapping[str, str]
    ) -> list[Score]:
        spec, aligner = self.cache.spec(asked.name), self.manifest.aligner.name
        options = asked.options.model_copy(update=dict(overrides))
        rows: list[Score] = []
        try:
            for code in self._countries(spec, asked, country, options):
                measure = self.cache.measure(spec, code, options)
                rows += score_readings(measure, self.readings[asked.name], aligner)
                judged = judged_scores(spec, asked.name, self.answers[asked.name], self.verdicts, code, options)
                rows += [row.model_copy(update={"aligner": aligner}) for row in judged]
        except UsageError:
            self._check_own(spec, asked, number)
            raise
        return rows

    def _countries(
        self, spec: TaskSpec, asked: AskedTask, country: str | None, options: MeasureOptions
    ) -> tuple[str, ...]:
        known = self.cache.countries(spec, options.edition)
        if country == "all":
            return known or (asked.country,)
        return (resolve(asked.country if country is None else country, known).code,)

    def _check_own(self, spec: TaskSpec, asked: AskedTask, number: int) -> None:
        """Raise InputError where the manifest names a country, edition or constants that the reference lacks."""
        try:
            code = resolve(asked.country, countries_of(spec, asked.edition)).code
            measure_of(spec, code, asked.options)
        except UsageError as error:
            place = f"{self.folder / MANIFEST}: tasks.{number}"
            raise InputError(f"{place}: {error} Or say another by a flag of `culteval score`.") from None

    def to_frame(self) -> pd.DataFrame:
        """Return the answers as a table, one row an answer.

        Columns: task, split, item, paraphrase, order, persona; ``expected`` (the mean code) and ``argmax`` (the most
        probable code), missing where no probabilities are known; ``off_options``, the probability off the options;
        ``text`` and ``parsed``, missing where no text was generated; ``p_CODE``, the probability of each code, missing
        where an item does not have it. ``pandas.wide_to_long`` or ``melt`` give one row an option.
        """
        import pandas as pd

        tables = [pd.DataFrame(_columns(self.cache.spec(name), given)) for name, given in self.answers.items()]
        table = pd.concat(tables, ignore_index=True)
        shares = sorted((name for name in table if name.startswith("p_")), key=lambda name: int(name[2:]))
        return table[[name for name in table if name not in shares] + shares]


def as_submission(given: Any) -> Submission:
    """Return the submission that is given, that of a given run, or the one at a given path.

    Raises:
        InputError: no submission at the path.
    """
    submission = getattr(given, "submission", given)
    return submission if isinstance(submission, Submission) else load_submission(submission)


def score(
    submission: Any,
    country: str | None = None,
    *,
    task: str | None = None,
    edition: str | None = None,
    constants: str | None = None,
    norm: str | None = None,
) -> Scores:
    """Score a submission against the reference; no model is needed.

    Args:
        submission: a ``Submission``, a ``Run``, or the path of either.
        country: a name or code; ``all`` for every country of the reference [default: the submission's own].
        task: the only task to score [default: all of them].
        edition: of the reference, instead of the submission's own.
        constants: of the indices, instead of the submission's own.
        norm: of the loss, instead of the submission's own.

    Raises:
        InputError: a bad submission. UsageError: a country or option that the reference does not have.
    """
    return as_submission(submission).score(country, task=task, edition=edition, constants=constants, norm=norm)


def load_submission(path: str | Path, cache: TaskCache | None = None) -> Submission:
    """Load a submission from its folder, its manifest or the folder of its run; answers are read on first use.

    Raises:
        InputError: no manifest there, or a malformed one.
    """
    place = submission_of(Path(path))
    return Submission(place if place.is_dir() else place.parent, read_manifest(place), cache=cache)


def _columns(spec: TaskSpec, answers: Answers) -> dict[str, Any]:
    """Return the columns of ``Submission.to_frame`` for one task."""
    layout, count = answers.layout, len(answers.layout)
    split = np.full(count, "", dtype=object)
    for name in spec.metadata.splits.named:
        split[of_split(spec, layout, name)] = name
    known, closed = answers.weighed, layout.widths > 0
    columns: dict[str, Any] = {
        "task": np.full(count, spec.name, dtype=object),
        "split": split,
        "item": np.array(layout.items, dtype=object)[layout.item],
        "paraphrase": np.array(layout.paraphrases, dtype=object)[layout.paraphrase],
        "order": np.array(layout.orders, dtype=object)[layout.order],
        "persona": layout.persona,
        "expected": np.where(closed & known, answers.values("expected")[0], np.nan),
        "argmax": np.where(closed & known, answers.values("argmax")[0], np.nan),
        "off_options": answers.off_options[0],
        "text": np.full(count, None, dtype=object) if answers.texts is None else np.array(answers.texts, dtype=object),
        "parsed": answers.values("text")[0] if answers.parsed is not None else np.full(count, np.nan),
    }
    for code in np.unique(layout.codes[layout.inside]):
        where = (layout.codes == code) & layout.inside
        share = np.where(where, answers.probs[0], 0).sum(1)
        columns[f"p_{int(code)}"] = np.where(where.any(1) & known, share, np.nan)
    return columns
