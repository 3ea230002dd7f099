"""Open questions of the probes answered before and after, side by side, with the reading of the forced choices.

A choice is asked in both option orders. The same content twice is a choice by content, the same place twice one by
position (Masoud et al. 2025, appendix).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...harness.registry import spec_of
from ...tasks.answers import UNPARSED, Answers
from ...tasks.countries import name_of
from ...tasks.items import Question, Questions
from ...tasks.metrics.probes import refuses
from .results import Results, Table, Value
from .soft_prompt_tables import PROBES

DIMENSIONS = ("idv", "ivr")  # those of the paper's choices
SHOWN = 160  # characters of an answer
UNREAD = "unread"


@dataclass(frozen=True)
class Choice:
    """A forced choice answered in both orders: texts, and codes of the option, 1 the high pole, or ``UNPARSED``."""

    texts: tuple[str, str]
    codes: tuple[int, int]

    @property
    def reading(self) -> str:
        """Return what the choice follows: content, with the pole; position, with the place; or that it is unread."""
        natural, reversed_ = self.codes
        if UNPARSED in self.codes:
            return UNREAD
        if natural == reversed_:
            return f"content ({'high' if natural == 1 else 'low'} pole)"
        return f"position ({'first' if natural == 1 else 'second'})"


def choice_of(answers: Answers, item: str) -> Choice:
    """Read one choice from the answers in text.

    Raises:
        ValueError: it was not answered in both orders.
    """
    layout = answers.layout
    assert answers.texts is not None and answers.parsed is not None, "the task is answered in text"
    found: dict[str, tuple[str, int]] = {}
    for row in range(len(layout)):
        if layout.items[layout.item[row]] == item:
            found[layout.orders[layout.order[row]]] = answers.texts[row], int(answers.parsed[row])
    (one, first), (two, second) = found["natural"], found["reversed"]
    return Choice((one, two), (first, second))


def question_tables(results: Results, countries: Sequence[str]) -> list[Table]:
    """Make a table for each country: answers of the bare model and of the model with the prompt found by DE."""
    tables = []
    for code in countries:
        pair = [results.of(aligner=name, country=code) for name in ("naive", "de")]
        answers = [found.runs[0].submission.answers[PROBES] if found.runs else None for found in pair]
        tables.append(_table(code, answers))
    return tables


def _table(country: str, answers: Sequence[Answers | None]) -> Table:
    spec = spec_of(PROBES)
    assert isinstance(spec.items, Questions), "the probes are questions"
    own = [q for q in spec.items.questions if q.split == "heldout" and _is_shown(q)]
    rows: list[dict[str, Value]] = []
    counts: list[Counter[str]] = [Counter(), Counter()]
    for question in own:
        row: dict[str, Value] = {"question": " / ".join((question.question, *question.options))}
        for when, given, count in zip(("before", "after"), answers, counts, strict=True):
            cells = dict(_cells(question, given))
            row |= {f"{when}{heading}": text for heading, text in cells.items()}
            if question.options and given is not None:
                count[str(cells[", read as"]).partition(" ")[0]] += 1
        rows.append(row)
    notes = [
        "Choices: the high pole first, then the low one (individualism, indulgence first); answers in natural / "
        "reversed order. Greedy text of the bare model and of the prompt that DE found (constants zero).",
        *(f"{when}: {_counted(count)}." for when, count in zip(("Before", "After"), counts, strict=True)),
    ]
    title = f"Open questions before and after, {name_of(country)}"
    return Table(f"questions {country}", title, list(rows[0]), rows, notes=notes)


def _is_shown(question: Question) -> bool:
    return question.kind == "identity" or (question.kind == "choice" and question.dimension in DIMENSIONS)


def _cells(question: Question, answers: Answers | None) -> Iterator[tuple[str, Value]]:
    """Yield the text and its reading under the ends of their headings; None where there are no answers yet."""
    if answers is None:
        yield from (("", None), (", read as", None))
    elif question.options:
        choice = choice_of(answers, question.id)
        yield "", " / ".join(text.strip()[:SHOWN] for text in choice.texts)
        yield ", read as", choice.reading
    else:
        text = _text_of(answers, question.id)
        yield "", text[:SHOWN]
        yield ", read as", "no answer" if not text else "refusal" if refuses(text) else "-"


def _text_of(answers: Answers, item: str) -> str:
    assert answers.texts is not None, "the task is answered in text"
    names = [answers.layout.items[number] for number in answers.layout.item]
    return answers.texts[names.index(item)].strip()


def _counted(count: Counter[str]) -> str:
    return ", ".join(f"{kind} {count[kind]}" for kind in ("content", "position", UNREAD)) if count else "no answers yet"
