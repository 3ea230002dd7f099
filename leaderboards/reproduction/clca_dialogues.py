"""What CLCA learned from: the dialogues kept as in the paper, counts of their quality, and a page of samples."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from ...harness.report.tables import escape
from ...optimizers.clca.dialogues.dialogue import Dialogue, read_dialogues
from ...optimizers.clca.dialogues.dialogue_filter import Decision, check, repeated, said, split_words
from ...optimizers.clca.dialogues.scenarios import place_of
from ...optimizers.clca.dialogues.shipped import shipped_files
from ...optimizers.clca.dialogues.simulate import Playing, count_answers
from ...optimizers.clca.pipeline import Pipeline
from ...optimizers.clca.rows import read_rows
from ...optimizers.clca.shipping import Provenance, provenance_of
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
SHIPPED_INTRODUCTION = f"""# Dialogues that come with culteval

Simulated for [CLCA](clca.md) by a model of 1.5 billion parameters, so that training can be repeated without simulating:
`--set dialogues=shipped`. Persons and scenes are invented. {SAMPLES} dialogues of each country are shown, drawn at
random. CC-BY-4.0.
"""
SHIPPED_COUNTS = ("country", "simulated", "kept", "turns", "words a turn", *QUALITY[1:])
ANSWERS = (
    "`answers`: the lines that agents were asked for, repetitions included; leaving may be drawn without asking. "
    "`malformed`: the share of answers that were asked for again"
)
SHARES = (
    "turns with words; dialogues in which both speak; word triples that occur before in the dialogue (mean); dialogues "
    "in another language than English; dialogues that mention a name, place or thing of the country"
)
SHIPPED_NOTE = (
    f"{ANSWERS}; `simulated`: all dialogues that were not malformed. The other columns are of the kept ones: mean "
    f"turns and words a spoken turn; and as shares: {SHARES}."
)
NO_REASONS = ("kept", "judgements", "unreadable")  # of a filter's counts, beside the reasons for dropping


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
    notes = [f"{ANSWERS}. The other columns are of all dialogues, before the filter, as shares: {SHARES}."]
    return Table("quality", "Quality of the dialogues", QUALITY, rows, form=".2f", notes=notes)


def _quality(pipeline: Pipeline) -> dict[str, Value]:
    row: dict[str, Value] = {"country": pipeline.country, "answers": None, "malformed": None}
    if (path := pipeline.folder / "playing.jsonl").exists():  # not for dialogues from elsewhere
        row |= _asked(*count_answers(read_rows(path, Playing), pipeline.settings.actions == "drawn"))
    return row | _counts(read_dialogues(pipeline.folder / "dialogues.jsonl"), pipeline.country)


def _asked(answers: int, malformed: int) -> dict[str, Value]:
    return {"answers": answers, "malformed": malformed / answers if answers else None}


def _counts(dialogues: Sequence[Dialogue], country: str) -> dict[str, Value]:
    """Return the shares that describe the quality of dialogues."""
    turns = [turn for each in dialogues for turn in each.turns]
    failed = [{problem.partition(":")[0] for problem in check(each, place_of(country))} for each in dialogues]
    return {
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
        parts.append(f"## {name_of(pipeline.country)}\n")
        parts += [_sample(each, decisions[each.id]) for each in _drawn(whole, seed)]
    return "\n".join(parts)


def shipped_page() -> str:
    """Write the page of the dialogues that come with culteval: how they were made, counts, and samples, in Markdown."""
    rows, made, shown = [], [], []
    for path in shipped_files():
        how, dialogues = provenance_of(path), read_dialogues(path)
        size = {"simulated": how.simulated, "kept": len(dialogues)} | _size(dialogues)
        asked = _asked(how.answers, how.malformed)
        rows.append({"country": how.country} | size | asked | _counts(dialogues, how.country))
        made.append(f"- {name_of(how.country)}: {_how(how)}")
        shown += [f"## {name_of(how.country)}\n", *map(_told, _drawn(dialogues, how.seed))]
    table = Table("shipped", "Counts", SHIPPED_COUNTS, rows, form=".2f", notes=[SHIPPED_NOTE])
    return "\n".join([SHIPPED_INTRODUCTION, "\n".join(made), "", table.markdown(), *shown]).rstrip("\n")


def _drawn(dialogues: Sequence[Dialogue], seed: int) -> list[Dialogue]:
    drawn = np.random.default_rng(seed).permutation(len(dialogues))[:SAMPLES]
    return [dialogues[at] for at in sorted(drawn)]


def _how(how: Provenance) -> str:
    settings = how.settings
    teacher = f"`{settings['teacher']}`" + (f" in {settings['teacher_dtype']}" if settings["teacher_dtype"] else "")
    dropped = ", ".join(f"{name} {count}" for name, count in sorted(how.filtered.items()) if name not in NO_REASONS)
    return (
        f"{settings['scenarios']} scenes, each played {settings['repeats']} times by {teacher}, seed {how.seed}; of "
        f"{how.filtered.get('judgements', 0)} judgements {how.filtered.get('unreadable', 0)} could not be read; "
        f"dropped: {dropped or 'none'}."
    )


def _told(dialogue: Dialogue) -> str:
    """Write one dialogue; turns are a model's text, and all of it is escaped."""
    lines = [f"### {escape(dialogue.id)}\n", f"Scene: {_line(dialogue.scenario)}\n"]
    lines += [f"- {_line(who)}: {_line(goal)}" for who, goal in zip(dialogue.people, dialogue.goals, strict=True)]
    return "\n".join([*lines, "", "\n>\n".join(f"> {_line(turn.line())}" for turn in dialogue.turns), ""])


def _line(text: str) -> str:
    return escape(" ".join(text.split()))


def _sample(dialogue: Dialogue, decision: Decision) -> str:
    """Write one dialogue, and what the filter said."""
    said_of_it = "kept" if decision.kept else f"dropped ({'; '.join(decision.reasons)})"
    return f"{_told(dialogue)}\nThe filter: {escape(said_of_it)}.\n"


if __name__ == "__main__":
    print(shipped_page())
