"""What CLCA learned from: the dialogues kept as in the paper, counts of their quality, and a page of samples."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from ...harness.report.tables import escape
from ...optimizers.clca.dialogues.dialogue import Dialogue, read_dialogues
from ...optimizers.clca.dialogues.dialogue_filter import Decision, check, repeated, said, split_words
from ...optimizers.clca.dialogues.scenarios import place_of
from ...optimizers.clca.dialogues.simulate import Playing
from ...optimizers.clca.pipeline import Pipeline
from ...optimizers.clca.rows import read_rows
from ...tasks.countries import name_of
from .results import Table, Value

KEPT = {  # Liu et al. 2025: ranges over the cultures CN, DE, GB, MX, JP
    "country": "published",
    "dialogues": "about 200",
    "kept": "69 to 143",
    "turns": "5.4 to 7.0",
    "words a turn": "75 to 79",
}
QUALITY = (
    "country",
    "answers",
    "malformed",
    "spoken turns",
    "both speak",
    "repeated words",
    "other language",
    "country named",
)
SAMPLES = 3  # dialogues of a country


def dialogues_table(pipelines: Sequence[Pipeline]) -> Table:
    """Make the table of simulated dialogues, as in the paper: how many were kept, their turns and words."""
    rows: list[dict[str, Value]] = []
    for pipeline in pipelines:
        if pipeline.done("filter"):
            whole, kept = read_dialogues(pipeline.folder / "dialogues.jsonl"), pipeline.kept()
            row: dict[str, Value] = {"country": pipeline.country, "dialogues": len(whole), "kept": len(kept)}
            rows.append(row | _size(kept))
    note = "All dialogues that were not malformed; of those that the filter kept, mean turns and words a spoken turn."
    return Table("dialogues", "Dialogues", list(KEPT), [*rows, dict(KEPT)], form=".1f", notes=[note])


def _size(kept: Sequence[Dialogue]) -> dict[str, Value]:
    words = [len(turn.text.split()) for each in kept for turn in each.turns if turn.kind == "speak"]
    return {
        "turns": statistics.fmean(len(each.turns) for each in kept) if kept else None,
        "words a turn": statistics.fmean(words) if words else None,
    }


def quality_table(pipelines: Sequence[Pipeline]) -> Table:
    """Make the table of counts that say how well the dialogues are played, before the filter."""
    rows = [_quality(pipeline) for pipeline in pipelines if pipeline.done("simulate")]
    notes = [
        "`answers`: what the agents were asked for, repetitions included; `malformed`: the share of answers that were "
        "asked for again. The other columns are of all dialogues, before the filter, as shares: turns with words; "
        "dialogues in which both speak; word triples that occur before in the dialogue (mean); dialogues in another "
        "language than English; dialogues that mention a name, place or thing of the country."
    ]
    return Table("quality", "Quality of the dialogues", QUALITY, rows, form=".2f", notes=notes)


def _quality(pipeline: Pipeline) -> dict[str, Value]:
    dialogues, place = read_dialogues(pipeline.folder / "dialogues.jsonl"), place_of(pipeline.country)
    turns = [turn for each in dialogues for turn in each.turns]
    failed = [{problem.partition(":")[0] for problem in check(each, place)} for each in dialogues]
    row: dict[str, Value] = {"country": pipeline.country, "answers": None, "malformed": None}
    if (path := pipeline.folder / "playing.jsonl").exists():  # not for dialogues from elsewhere
        played = read_rows(path, Playing)
        again = sum(each.malformed for each in played)
        answers = again + sum(len(each.turns) for each in played)
        row |= {"answers": answers, "malformed": again / answers if answers else None}
    return row | {
        "spoken turns": _share(turn.kind == "speak" for turn in turns),
        "both speak": _share("both spoke" not in each for each in failed),
        "repeated words": statistics.fmean(repeated(split_words(said(each).lower())) for each in dialogues),
        "other language": _share("language" in each for each in failed),
        "country named": _share("culture words" not in each for each in failed),
    }


def _share(found: Iterator[bool]) -> float | None:
    every = list(found)
    return sum(every) / len(every) if every else None


def samples(pipelines: Sequence[Pipeline], seed: int) -> str:
    """Write a page of dialogues in Markdown: some of each country, drawn among all, with what the filter said."""
    parts = [
        "# Dialogues\n",
        f"{SAMPLES} of each country, drawn with seed {seed} among all that were not malformed. Only its owner knows a "
        "goal.\n",
    ]
    for pipeline in (each for each in pipelines if each.done("filter")):
        whole = read_dialogues(pipeline.folder / "dialogues.jsonl")
        decisions = {each.id: each for each in read_rows(pipeline.folder / "decisions.jsonl", Decision)}
        drawn = np.random.default_rng(seed).permutation(len(whole))[:SAMPLES]
        parts.append(f"## {name_of(pipeline.country)}\n")
        parts += [_sample(whole[at], decisions[whole[at].id]) for at in sorted(drawn)]
    return "\n".join(parts)


def _sample(dialogue: Dialogue, decision: Decision) -> str:
    """Write one dialogue; all of its text is a model's, and escaped."""
    lines = [f"### {escape(dialogue.id)}\n", f"{escape(dialogue.scenario)}\n"]
    lines += [f"- {escape(who)}: {escape(goal)}" for who, goal in zip(dialogue.people, dialogue.goals, strict=True)]
    lines += ["", *(f"> {escape(' '.join(turn.line().split()))}\n>" for turn in dialogue.turns)]
    said_of_it = "kept" if decision.kept else f"dropped ({'; '.join(decision.reasons)})"
    return "\n".join([*lines[:-1], lines[-1].removesuffix("\n>"), "", f"The filter: {escape(said_of_it)}.\n"])
