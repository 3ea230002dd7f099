"""Evolution of preambles in words: a model writes mutations and crossovers of the best texts so far.

Form: the genetic algorithm of EvoPrompt (Guo et al. 2024, arXiv 2309.08532), with first texts from ``preambles.yaml``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from ..errors import CheckpointError
from ..harness.alignment.aligner import CANDIDATE_COST, Aligner, Card, Settings
from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.evaluator import Evaluator, TextLoss, require_budget, require_readable
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from ..harness.util.atomic_io import write_text
from ..tasks.countries import name_of
from ..tasks.spec import read_yaml
from .best_of_n import preambles
from .search.interface import pack_rng, unpack_rng
from .writing.teacher import writer_of
from .writing.writer import Style

if TYPE_CHECKING:
    from ..harness.engine.chat import Message
    from ..harness.models.local import LanguageModel

FOLDER, TEXTS = "evo_prompt", "texts.jsonl"
MOST_CHARACTERS = 600  # of a text that is evaluated
MOST_SPARE = 10_000  # preambles that are looked through for a new one
MIDDLES = 2  # sentences between opening and closing of the first texts
_QUOTED = re.compile(r"""^["'“”«]+|["'“”»]+$""")
_LABEL = re.compile(r"^(?:(?:new |another |joined )?instruction|\d+)\s*[:.]\s*", re.IGNORECASE)


class EvoPromptSettings(Settings):
    """The settings of evolution in words.

    ``population``: the texts that are kept, and those written in a generation. ``mutation``: the share of texts that
    come from one parent instead of two. ``writer``: a model by name, folder, hub id or endpoint that writes the texts
    [default: the model that is aligned]; it draws with ``top_p`` and writes at most ``words`` tokens.
    """

    population: int = Field(8, ge=2, le=1000)
    mutation: float = Field(0.5, ge=0, le=1)
    writer: str | None = None
    words: int = Field(80, ge=8, le=1000)
    top_p: float = Field(0.9, gt=0, le=1)


class EvoPrompt(Aligner):
    """A genetic algorithm over preambles, whose mutations and crossovers a model writes, the aligned one or another.

    The first texts are those of ``best_of_n``, and the best of all texts is kept.
    """

    Settings: ClassVar = EvoPromptSettings
    summary: ClassVar = "preamble by evolution, its mutations and crossovers written by a model"
    card: ClassVar = Card(
        source="EvoPrompt: Guo et al. 2024 (arXiv 2309.08532)",
        needs="the country's figures on `fit` as a loss; a model that writes; text alone is enough",
        cost=f"{CANDIDATE_COST}; the writer's tokens are counted beside it",
        gives="preamble",
        limits=(
            "Small writers repeat their parents or leave the task. English only. The minimum of many noisy losses is "
            "biased downwards: compare `heldout`."
        ),
    )
    needs_weights: ClassVar = False
    settings: EvoPromptSettings

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError unless the budget pays for a candidate."""
        require_budget(objective.cost, "candidate", budget)

    def longest_preamble(self, objective: Objective) -> str:
        """Return a text as long as the longest that may be evaluated."""
        return "word " * (MOST_CHARACTERS // 5)

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Evaluate generations of texts until the budget is used up; the best text is kept, and all are on file.

        Raises:
            RunError: too small a budget, a loss that is not a number, or no answer that can be read.
            CheckpointError: a damaged checkpoint.
        """
        self.check(objective, budget)
        evaluator = Evaluator(model, objective, budget)
        course = _Course(self.settings, objective, rng)
        if state := checkpoint.load():
            course.restore(state)
            if len(course.losses) * objective.cost != budget.spent:
                raise CheckpointError("the checkpoint's texts do not match its budget. Start over with `fresh`.")
        folder = Path(checkpoint.folder) / FOLDER
        folder.mkdir(exist_ok=True)
        teller = checkpoint.other_model(self.settings.writer) if self.settings.writer else model
        writer = writer_of(teller, folder, checkpoint.progress)
        while evaluator.affordable:
            if course.texts:
                started, tokens = time.perf_counter(), writer.model.tokens
                chats, seed = course.requests()
                written = writer.write(chats, Style(self.settings.words, self.settings.top_p), seed)
                budget.record(writer.model.tokens - tokens, started)
                fresh = course.children(written)
            else:
                fresh = course.first()
            for text in fresh[: evaluator.affordable]:
                course.add(text, evaluator.loss_of_text(f"{text}\n\n"))
            write_text(folder / TEXTS, course.lines())
            checkpoint.save(course.state(), min(course.losses))
            require_readable(course.unread, objective)
        return AlignedModel(model, preamble=f"{course.best[0]}\n\n")


class _Course:
    """The texts so far with their losses, in the order of their evaluation."""

    def __init__(self, settings: EvoPromptSettings, objective: Objective, rng: np.random.Generator) -> None:
        self.settings, self.rng = settings, rng
        self.country = name_of(objective.country.code)
        self.spare = preambles(objective, np.random.default_rng(rng.integers(1 << 63)), MIDDLES)
        self.texts: list[str] = []
        self.losses: list[float] = []
        self.unread: list[int] = []

    @cached_property
    def _asked(self) -> dict[str, str]:
        return read_yaml(Path(__file__).with_name("evo_prompt.yaml"))

    @property
    def best(self) -> list[str]:
        """The texts of the population, the best first."""
        order = np.argsort(self.losses, kind="stable")[: self.settings.population]
        return [self.texts[place] for place in order]

    def first(self) -> list[str]:
        """Return the first texts: the persona sentence and random preambles."""
        return [text.strip() for text in islice(self.spare, self.settings.population)]

    def requests(self) -> tuple[list[list[Message]], int]:
        """Draw parents by rank; return the writer's chats and its seed."""
        best, chats = self.best, list[list["Message"]]()
        weights = np.arange(len(best), 0, -1, dtype=float)
        for _ in range(self.settings.population):
            one, two = self.rng.choice(len(best), 2, replace=False, p=weights / weights.sum())
            kind = "mutation" if self.rng.random() < self.settings.mutation else "crossover"
            text = self._asked[kind].format(first=best[one], second=best[two], country=self.country)
            chats.append([{"role": "user", "content": text}])
        return chats, int(self.rng.integers(1 << 31))

    def children(self, replies: list[str]) -> list[str]:
        """Return the readable replies; a spare preamble stands for each that names no country or is not new."""
        found: list[str] = []
        for reply in replies:
            text = cleaned(reply)
            if len(text) > MOST_CHARACTERS or self.country not in text or text in (*self.texts, *found):
                spare = map(str.strip, islice(self.spare, MOST_SPARE))
                text = next((one for one in spare if one not in (*self.texts, *found)), text[:MOST_CHARACTERS])
            found.append(text)
        return found

    def add(self, text: str, value: TextLoss) -> None:
        """Add an evaluated text."""
        self.texts.append(text)
        self.losses.append(value.loss)
        self.unread.append(value.unread)

    def lines(self) -> str:
        """Return all texts with their losses and numbers of unread answers as JSON lines."""
        rows = zip(self.texts, self.losses, self.unread, strict=True)
        records = (dict(zip(("text", "loss", "unread"), row, strict=True)) for row in rows)
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    def state(self) -> dict[str, np.ndarray]:
        """Return plain arrays for a checkpoint."""
        return {
            "texts": np.frombuffer(json.dumps(self.texts).encode(), np.uint8),
            "losses": np.array(self.losses),
            "unread": np.array(self.unread),
            "rng": pack_rng(self.rng),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a checkpoint."""
        self.texts, self.losses = json.loads(state["texts"].tobytes()), state["losses"].tolist()
        self.unread = state["unread"].tolist()
        self.rng = unpack_rng(state["rng"])
        known = set(self.texts)
        self.spare = (text for text in self.spare if text.strip() not in known)


def cleaned(reply: str) -> str:
    """Return the first paragraph of a reply without a label or quotation marks around it."""
    paragraph = next((part for part in reply.strip().split("\n\n") if part.strip()), "")
    text = " ".join(paragraph.split())
    return _QUOTED.sub("", _LABEL.sub("", _QUOTED.sub("", text))).strip()
