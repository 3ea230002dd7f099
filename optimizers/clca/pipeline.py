"""The stages of CLCA, each with its own artefact in one folder; each can be resumed, or repeated separately.

scenarios.jsonl -> playing.jsonl -> dialogues.jsonl -> decisions.jsonl -> intents.jsonl -> lora/, losses.json, loss.svg
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...errors import RunError
from ...harness.report.plots import drawing
from ...harness.util.atomic_io import replacing, write_json
from ..lora.adapter import size_of
from ..lora.training import Tell
from ..writing.writer import Style, Writer
from .dialogues.dialogue import Dialogue, read_dialogues, save_dataset, write_dialogues
from .dialogues.dialogue_filter import Decision, check, decide, judge, said, tally
from .dialogues.intents import with_intents, without_intent
from .dialogues.language import ENGLISH, language_of
from .dialogues.rewriting import TEXTS, rewrite
from .dialogues.scenarios import Scenario, adapted, place_of
from .dialogues.shipped import file_of
from .dialogues.simulate import Playing, begin, play_round, round_seeds
from .rows import read_rows, write_rows
from .settings import CLCASettings
from .training.examples import examples, unrelated
from .training.train import LORA, Point, train

if TYPE_CHECKING:
    from ...harness.models.local import LanguageModel

STAGES = ("scenarios", "simulate", "filter", "intents", "train")
SPENT, REPLIES = "spent.json", "replies"
Made = TypeVar("Made")
# The files that each stage writes; repeating a stage requires repeating later ones.
_MADE = {
    "scenarios": ("scenarios.jsonl", "rewritten.json"),
    "simulate": ("playing.jsonl", "dialogues.jsonl", "simulated.json"),
    "filter": ("decisions.jsonl",),
    "intents": ("intents.jsonl", "dataset"),
    "train": ("checkpoints", "lora", "losses.json", "loss.svg"),
}


@dataclass(frozen=True)
class Pipeline:
    """A run of CLCA in a folder, for one country; ``culture`` describes that country in words.

    ``model_of`` and ``writer_of`` load models on first use; the writer plays the agents and the judge, and may keep
    replies in the folder that it receives. ``release`` lets the writer's memory go before the model is trained.
    """

    folder: Path
    country: str
    culture: str
    settings: CLCASettings
    seed: int
    model_of: Callable[[], LanguageModel]
    writer_of: Callable[[Path], Writer]
    tell: Tell
    release: Callable[[], None] = lambda: None

    def clear(self, first: str) -> None:
        """Remove the files of a stage and of those after it."""
        for stage in STAGES[STAGES.index(first) :]:
            for path in (*(self.folder / name for name in _MADE[stage]), self._replies(stage)):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        write_json(
            self.folder / SPENT, {s: cost for s, cost in self.spent().items() if s in STAGES[: STAGES.index(first)]}
        )

    def share(self, other: Pipeline, own: str) -> None:
        """Copy from another pipeline the results of the stages before ``own``, if they are missing here."""
        for stage in STAGES[: STAGES.index(own)]:
            for name in _MADE[stage]:
                source, target = other.folder / name, self.folder / name
                if source.exists() and not target.exists():
                    with replacing(target) as temporary:
                        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, temporary)

    def run(self, last: str = STAGES[-1]) -> None:
        """Run every unfinished stage up to ``last``; ``spent`` adds up its costs."""
        for stage in STAGES[: STAGES.index(last) + 1]:
            if not self.done(stage):
                self.folder.mkdir(parents=True, exist_ok=True)
                start = time.perf_counter()
                tokens = getattr(self, f"_{stage}")()
                spent = self.spent()
                before = spent.get(stage, {"tokens": 0, "seconds": 0.0})
                seconds = before["seconds"] + time.perf_counter() - start
                spent[stage] = {"tokens": before["tokens"] + tokens, "seconds": round(seconds, 3)}
                write_json(self.folder / SPENT, spent)

    def spent(self) -> dict[str, dict[str, float]]:
        """Return tokens written (by agents, judges) or trained on, and seconds, by finished stage.

        For a stage that was interrupted, only the costs after it was resumed are included.
        """
        path = self.folder / SPENT
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def done(self, stage: str) -> bool:
        """Return whether a stage has written its last file."""
        final = {"simulate": "simulated.json", "intents": "dataset", "train": "losses.json"}
        return (self.folder / final.get(stage, _MADE[stage][0])).exists()

    def _scenarios(self) -> int:
        found = adapted(self.country, self.settings.scenarios, np.random.default_rng(self.seed))
        tokens = 0
        if self.settings.rewrite:
            scenes, heard = found, partial(self.tell, "rewriting")
            (found, stayed), tokens = self._written(
                "scenarios", lambda writer: rewrite(scenes, self.culture, writer, self.seed, heard)
            )
            write_json(self.folder / "rewritten.json", {"texts": TEXTS * len(found), "stayed": stayed})
        write_rows(self.folder / "scenarios.jsonl", found)
        return tokens

    def _simulate(self) -> int:
        """Simulate dialogues with agents, with a checkpoint per round, or read the user's own from a file."""
        counts: dict[str, Any] = {"source": self.settings.dialogues or "simulated"}
        tokens = 0
        if self.settings.dialogues:
            dialogues = read_dialogues(file_of(self.settings.dialogues, self.country))
            counts |= {"turns": sum(len(each.turns) for each in dialogues)}
            self.tell("reading dialogues", len(dialogues), len(dialogues))
        else:
            played, tokens = self._written("simulate", self._played)
            dialogues = [each.dialogue() for each in played if each.ended != "malformed"]
            if not dialogues:
                raise RunError("clca: every dialogue was malformed. Use `settings` actions=drawn, or a larger model.")
            counts |= {"asked again": sum(each.malformed for each in played)}
            counts |= {f"ended: {why}": sum(e.ended == why for e in played) for why in ("left", "turns", "malformed")}
        write_dialogues(self.folder / "dialogues.jsonl", dialogues)
        write_json(self.folder / "simulated.json", counts | {"dialogues": len(dialogues)})
        return tokens

    def _replies(self, stage: str) -> Path:
        """Return the folder of a stage's replies; each stage has its own, so that repeating it requests new replies."""
        return self.folder / REPLIES / stage

    def _written(self, stage: str, work: Callable[[Writer], Made]) -> tuple[Made, int]:
        """Return the result of some work, and the number of tokens that the stage's writer wrote for it."""
        writer = self.writer_of(self._replies(stage))
        before = writer.tokens
        return work(writer), writer.tokens - before

    def _played(self, writer: Writer) -> list[Playing]:
        path, settings = self.folder / "playing.jsonl", self.settings
        if path.exists():
            playing = read_rows(path, Playing)
        else:
            playing = begin(read_rows(self.folder / "scenarios.jsonl", Scenario), settings.repeats)
        style, seeds = Style(settings.words, settings.top_p), round_seeds(self.seed)
        # Some dialogues are played to their end before the next ones begin, so that the writer remembers few. Each of
        # them has had one turn per round, so that rounds need not be counted separately.
        size, drawn = writer.batch, settings.actions == "drawn"
        rounds = settings.turns * -(-len(playing) // size)
        for start in range(0, len(playing), size):
            group, before = slice(start, start + size), start // size * settings.turns
            with writer.remembering():
                while going := [each for each in playing[group] if not each.ended]:
                    number = before + len(going[0].turns)
                    self.tell("simulating", number, rounds)
                    played = play_round(
                        playing[group], self.culture, writer, style, settings.turns, seeds(number), drawn
                    )
                    playing[group] = played
                    write_rows(path, playing)
        self.tell("simulating", rounds, rounds)
        return playing

    def _filter(self) -> int:
        place, dialogues = place_of(self.country), read_dialogues(self.folder / "dialogues.jsonl")
        own, checks = self.settings.dialogues, self.settings.checks
        language = language_of([said(each) for each in dialogues]) if own and "language" in checks else ENGLISH
        problems = [check(each, place, checks, language) for each in dialogues]
        passed = [each for each, wrong in zip(dialogues, problems, strict=True) if not wrong]
        found, tokens = {}, 0
        if self.settings.judge and passed:
            heard = partial(self.tell, "judging")
            judgements, tokens = self._written(
                "filter", lambda writer: judge(passed, self.culture, writer, self.seed, heard)
            )
            found = {each.id: given for each, given in zip(passed, judgements, strict=True)}
        decisions = [
            decide(each, wrong, found.get(each.id, {})) for each, wrong in zip(dialogues, problems, strict=True)
        ]
        write_rows(self.folder / "decisions.jsonl", decisions)
        return tokens

    def kept(self) -> list[Dialogue]:
        """Return the dialogues that the filter kept."""
        names = {each.id for each in read_rows(self.folder / "decisions.jsonl", Decision) if each.kept}
        return [each for each in read_dialogues(self.folder / "dialogues.jsonl") if each.id in names]

    def _intents(self) -> int:
        dialogues, tokens = self.kept(), 0
        if "intent" in self.settings.parts and any(map(without_intent, dialogues)):
            kept, heard = dialogues, partial(self.tell, "intents")
            dialogues, tokens = self._written("intents", lambda writer: with_intents(kept, writer, self.seed, heard))
        write_dialogues(self.folder / "intents.jsonl", dialogues)
        if dialogues:
            save_dataset(self.folder / "dataset", dialogues)
        else:
            (self.folder / "dataset").mkdir()
        return tokens

    def _train(self) -> int:
        path = self.folder / "intents.jsonl"
        dialogues = read_dialogues(path) if path.stat().st_size else []
        self.release()
        model = self.model_of()
        learned = examples(dialogues, model.chat, self.settings.parts, self.settings.length)
        if self.settings.unrelated:
            rng = np.random.default_rng(self.seed)
            learned = unrelated(model.chat, learned, self.settings.length, rng)
        points, tokens = train(model, learned, self.settings, self.folder, self.seed, self.tell)
        draw_losses(self.folder / "loss.svg", points)
        write_json(self.folder / "losses.json", [point._asdict() for point in points])
        return tokens

    def report(self) -> dict[str, Any]:
        """Return the numbers of every finished stage."""
        found: dict[str, Any] = {"folder": str(self.folder)}
        if (path := self.folder / "rewritten.json").exists():
            found["rewritten"] = json.loads(path.read_text(encoding="utf-8"))
        if self.done("simulate"):
            found["simulated"] = json.loads((self.folder / "simulated.json").read_text(encoding="utf-8"))
        if self.done("filter"):
            found["filtered"] = dict(tally(read_rows(self.folder / "decisions.jsonl", Decision)))
        if self.done("train"):
            points = [Point(**line) for line in json.loads((self.folder / "losses.json").read_text(encoding="utf-8"))]
            for name, left in (("loss", False), ("heldout loss", True)):
                values = [point.loss for point in points if point.heldout == left]
                found |= {name: [round(values[0], 4), round(values[-1], 4)]} if values else {}
            found["adapter size"] = size_of(self.folder / LORA)
        if spent := self.spent():
            found["tokens"] = {stage: cost["tokens"] for stage, cost in spent.items()}
            found["seconds"] = {stage: round(cost["seconds"]) for stage, cost in spent.items()}
        return found


def draw_losses(path: Path, points: Sequence[Point]) -> None:
    """Draw the loss curve as SVG."""
    with drawing(path, 6, 3.2) as axes:
        for left, colour, name in ((False, "#0072b2", "trained on"), (True, "#d55e00", "left out")):
            curve = [point for point in points if point.heldout == left]
            axes.plot(
                [p.step for p in curve], [p.loss for p in curve], color=colour, label=name, marker="o" if left else None
            )
        axes.set_xlabel("step")
        axes.set_ylabel("loss per token")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
