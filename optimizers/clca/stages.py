"""CLCA in stages, each with its own artefact in one folder; each goes on where it was, or is done anew alone.

scenarios.jsonl -> playing.jsonl -> dialogues.jsonl -> decisions.jsonl -> intents.jsonl -> lora/, losses.json, loss.svg
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from ...errors import InputError, RunError
from ...harness.files import replacing, write_json, write_text
from ...tasks.spec import first_problem
from .dialogues import Dialogue, read_dialogues, save_dataset, write_dialogues
from .examples import examples, unrelated
from .intents import with_intents
from .judging import Decision, check, decide, judge, tally
from .scenarios import Scenario, adapted, place_of
from .settings import CLCASettings
from .simulate import Playing, begin, play_round, round_seeds
from .train import Point, train
from .writer import Style, Tell, Writer

if TYPE_CHECKING:
    from ...harness.models import LanguageModel

STAGES = ("scenarios", "simulate", "filter", "intents", "train")
Row = TypeVar("Row", bound=BaseModel)
# What each stage leaves behind; what a stage makes anew, later ones must.
_MADE = {
    "scenarios": ("scenarios.jsonl",),
    "simulate": ("responses.jsonl", "endpoint.json", "playing.jsonl", "dialogues.jsonl", "simulated.json"),
    "filter": ("decisions.jsonl",),
    "intents": ("intents.jsonl", "dataset"),
    "train": ("checkpoints", "lora", "losses.json", "loss.svg"),
}


@dataclass(frozen=True)
class Course:
    """A run of CLCA in a folder, for one country; ``culture`` is that country's in words.

    ``model_of`` and ``writer_of`` load what a stage needs when it needs it; the writer plays the agents and the judge.
    """

    folder: Path
    country: str
    culture: str
    settings: CLCASettings
    seed: int
    model_of: Callable[[], LanguageModel]
    writer_of: Callable[[], Writer]
    tell: Tell

    def clear(self, first: str) -> None:
        """Remove what a stage and those after it have made."""
        for stage in STAGES[STAGES.index(first) :]:
            for name in _MADE[stage]:
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def run(self, last: str = STAGES[-1]) -> None:
        """Do every stage up to ``last`` that is not done."""
        for stage in STAGES[: STAGES.index(last) + 1]:
            if not self.done(stage):
                getattr(self, f"_{stage}")()

    def done(self, stage: str) -> bool:
        """Whether a stage has left its last artefact."""
        final = {"simulate": "simulated.json", "intents": "dataset", "train": "losses.json"}
        return (self.folder / final.get(stage, _MADE[stage][0])).exists()

    def _scenarios(self) -> None:
        found = adapted(self.country, self.settings.scenarios, np.random.default_rng(self.seed))
        write_rows(self.folder / "scenarios.jsonl", found)

    def _simulate(self) -> None:
        """Dialogues by the agents, a checkpoint a round; or people's own from a file."""
        counts: dict[str, Any] = {"source": self.settings.dialogues or "simulated"}
        if self.settings.dialogues:
            dialogues = read_dialogues(Path(self.settings.dialogues))
        else:
            played = self._played()
            dialogues = [each.dialogue() for each in played if each.ended != "malformed"]
            if not dialogues:
                raise RunError("clca: every dialogue was malformed. Use --set actions=drawn, or a larger model.")
            counts |= {"asked again": sum(each.malformed for each in played)}
            counts |= {f"ended: {why}": sum(e.ended == why for e in played) for why in ("left", "turns", "malformed")}
        write_dialogues(self.folder / "dialogues.jsonl", dialogues)
        write_json(self.folder / "simulated.json", counts | {"dialogues": len(dialogues)})

    def _played(self) -> list[Playing]:
        path, settings = self.folder / "playing.jsonl", self.settings
        if path.exists():
            playing = read_rows(path, Playing)
        else:
            playing = begin(read_rows(self.folder / "scenarios.jsonl", Scenario), settings.repeats)
        style, seeds = Style(settings.words, settings.top_p), round_seeds(self.seed)
        # Every dialogue that goes on has had one turn a round, so that rounds need not be counted apart.
        while going := [each for each in playing if not each.ended]:
            number = len(going[0].turns)
            self.tell("simulating", number, settings.turns)
            drawn = settings.actions == "drawn"
            playing = play_round(playing, self.culture, self.writer_of(), style, settings.turns, seeds(number), drawn)
            write_rows(path, playing)
        return playing

    def _filter(self) -> None:
        place, dialogues = place_of(self.country), read_dialogues(self.folder / "dialogues.jsonl")
        problems = [check(each, place, self.settings.checks) for each in dialogues]
        passed = [each for each, wrong in zip(dialogues, problems, strict=True) if not wrong]
        self.tell("judging", 0, len(passed))
        found: dict[str, Any] = {}
        if self.settings.judge and passed:
            judgements = judge(passed, self.culture, self.writer_of(), self.seed)
            found = {each.id: said for each, said in zip(passed, judgements, strict=True)}
        decisions = [
            decide(each, wrong, found.get(each.id, {})) for each, wrong in zip(dialogues, problems, strict=True)
        ]
        write_rows(self.folder / "decisions.jsonl", decisions)

    def kept(self) -> list[Dialogue]:
        """The dialogues that the filter kept."""
        names = {each.id for each in read_rows(self.folder / "decisions.jsonl", Decision) if each.kept}
        return [each for each in read_dialogues(self.folder / "dialogues.jsonl") if each.id in names]

    def _intents(self) -> None:
        kept = self.kept()
        self.tell("intents", 0, len(kept))
        told = with_intents(kept, self.writer_of(), self.seed) if "intent" in self.settings.parts else kept
        write_dialogues(self.folder / "intents.jsonl", told)
        if told:
            save_dataset(self.folder / "dataset", told)
        else:
            (self.folder / "dataset").mkdir()

    def _train(self) -> None:
        path = self.folder / "intents.jsonl"
        told = read_dialogues(path) if path.stat().st_size else []
        model = self.model_of()
        learned = examples(told, model.tokenizer, self.settings.parts, self.settings.length)
        if self.settings.unrelated:
            rng = np.random.default_rng(self.seed)
            learned = unrelated(model.tokenizer, learned, self.settings.length, rng)
        points = train(model, learned, self.settings, self.folder, self.seed, self.tell)
        draw_losses(self.folder / "loss.svg", points)
        write_json(self.folder / "losses.json", [point._asdict() for point in points])

    def report(self) -> dict[str, Any]:
        """What every finished stage made, in numbers."""
        found: dict[str, Any] = {"folder": str(self.folder)}
        if self.done("simulate"):
            found["simulated"] = json.loads((self.folder / "simulated.json").read_text(encoding="utf-8"))
        if self.done("filter"):
            found["filtered"] = dict(tally(read_rows(self.folder / "decisions.jsonl", Decision)))
        if self.done("train"):
            points = [Point(**line) for line in json.loads((self.folder / "losses.json").read_text(encoding="utf-8"))]
            for name, left in (("loss", False), ("heldout loss", True)):
                values = [point.loss for point in points if point.heldout == left]
                found |= {name: [round(values[0], 4), round(values[-1], 4)]} if values else {}
        return found


def write_rows(path: Path, rows: Sequence[BaseModel]) -> None:
    """One JSON object a line, atomically."""
    write_text(path, "".join(row.model_dump_json() + "\n" for row in rows))


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of ``write_rows``.

    Raises:
        InputError: a missing or damaged file; names the line.
    """
    adapter, found = TypeAdapter(kind), []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. Run the stage before again.") from None
    for number, line in enumerate(lines, start=1):
        try:
            found.append(adapter.validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}:{number}: {first_problem(error)}. Run its stage again with --fresh.") from None
    return found


def draw_losses(path: Path, points: Sequence[Point]) -> None:
    """An SVG of the loss curve."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "culteval"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for left, colour, name in ((False, "#0072b2", "trained on"), (True, "#d55e00", "left out")):
        mine = [point for point in points if point.heldout == left]
        axes.plot(
            [p.step for p in mine], [p.loss for p in mine], color=colour, label=name, marker="o" if left else None
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss per token")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)
