"""Items of a task: a survey's items in several paraphrases, or questions with options of their own.

Both kinds present an item as a text and its possible answers in code order; other modules do not distinguish them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from pydantic import Field, model_validator

from .schema import Strict

NOTHING = "N/A"  # the question of a content-free item (Zhao et al. 2021)
MOST_OPTIONS = 26


def free_id(split: str, kind: str) -> str:
    """Return the id of a content-free item of a split."""
    return f"free:{split}:{kind}"


def free_kind(item: str) -> str:
    """Return the scale or number of options of a content-free item; an empty text for any other item."""
    return item.split(":", 2)[2] if item.startswith("free:") else ""


class Presented(NamedTuple):
    """A prompt's text, and its possible answers in code order."""

    text: str
    choices: tuple[str, ...]


class Items(Protocol):
    """The interface of an item file that ``prompts`` and the measures use."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Return all items in file order."""

    @property
    def presentations(self) -> tuple[str, ...]:
        """Return the names of the paraphrases or question templates."""

    @property
    def free(self) -> dict[str, str]:
        """Return the kind of the content-free item of every item.

        The scale or the number of options they have in common.
        """

    def tag(self, item: str) -> str | None:
        """Return the split an item is tagged for, None for all."""

    def group(self, item: str) -> str:
        """Return the group that an item is judged with; its own name if it is judged alone."""

    def dimension(self, item: str) -> str | None:
        """Return the dimension that an item measures, None for none."""

    def codes(self, item: str) -> tuple[int, ...]:
        """Return the codes of the options; none for an open question."""

    def only(self, items: tuple[str, ...], presentations: tuple[str, ...]) -> Items:
        """Return some of the items in some of the paraphrases or templates, without the others."""

    def present(self, item: str, paraphrase: str, order: str) -> Presented:
        """Present one item with its options in natural or reversed order. Content-free items can be presented too."""


class ItemKey(Strict):
    """The fields that all paraphrases of a survey item have in common.

    ``group`` names the item that this one paraphrases.
    """

    scale: str
    stem: str | None
    dimension: str
    group: str | None = None
    split: str | None = Field(None, pattern="^(fit|heldout)$")


class Paraphrase(Strict):
    """One paraphrase of the whole survey: texts in one language, labels in code order."""

    instruction: str
    scales: dict[str, tuple[str, ...]]
    stems: dict[str, str]
    items: dict[str, str]


class Survey(Strict):
    """Items and their paraphrases, as in ``tasks/vsm13/items.yaml``.

    ``codes`` are a scale's own numbers in ascending order, 1 to n if it has none; an option with an empty label is
    listed as its number alone.
    """

    language: str
    codes_of_scales: dict[str, tuple[int, ...]] = Field(default_factory=dict, alias="codes")
    items: dict[str, ItemKey] = Field(min_length=1)
    paraphrases: dict[str, Paraphrase] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> Survey:
        if reserved := [item for item in self.items if item.startswith("free:")]:
            raise ValueError(f"items.{reserved[0]}: ids that begin with 'free:' are reserved for content-free items")
        for name, paraphrase in self.paraphrases.items():
            if set(paraphrase.items) != set(self.items):
                differing = sorted(set(paraphrase.items) ^ set(self.items))
                raise ValueError(f"paraphrases.{name}.items: {differing} not in both this paraphrase and 'items'")
            for item, key in self.items.items():
                if key.scale not in paraphrase.scales:
                    raise ValueError(f"paraphrases.{name}.scales: no labels for scale {key.scale!r} of item {item}")
                if key.stem is not None and key.stem not in paraphrase.stems:
                    raise ValueError(f"paraphrases.{name}.stems: no text for stem {key.stem!r} of item {item}")
        for scale in dict.fromkeys(key.scale for key in self.items.values()):
            if len({len(paraphrase.scales[scale]) for paraphrase in self.paraphrases.values()}) > 1:
                raise ValueError(f"scale {scale!r} has another number of labels in some paraphrase")
            for name, paraphrase in self.paraphrases.items():
                self._check_scale(name, scale, paraphrase.scales[scale])
        return self

    def _check_scale(self, name: str, scale: str, labels: tuple[str, ...]) -> None:
        where = f"paraphrases.{name}.scales.{scale}"
        if not 2 <= len(labels) <= MOST_OPTIONS:
            raise ValueError(f"{where}: {len(labels)} labels; a scale has 2 to {MOST_OPTIONS}")
        codes = self.codes_of_scales.get(scale)
        if codes is not None and len(codes) != len(labels):
            raise ValueError(f"{where}: {len(labels)} labels for {len(codes)} codes")
        if codes is not None and (list(codes) != sorted(set(codes)) or codes[0] < 0):
            raise ValueError(f"codes.{scale}: codes ascend from 0 or more, each once")
        spoken = [label for label in labels if label]
        if len(set(spoken)) < len(spoken):
            raise ValueError(f"{where}: two options have the same label")

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Return all items in file order."""
        return tuple(self.items)

    @property
    def presentations(self) -> tuple[str, ...]:
        """Return the names of the paraphrases."""
        return tuple(self.paraphrases)

    @cached_property
    def free(self) -> dict[str, str]:
        """Return one content-free item per scale."""
        return {item: key.scale for item, key in self.items.items()}

    def tag(self, item: str) -> str | None:
        """Return the split an item is tagged for."""
        return self.items[item].split

    def group(self, item: str) -> str:
        """Return the item that this one paraphrases, or itself."""
        return self.items[item].group or item

    def dimension(self, item: str) -> str:
        """Return the dimension that an item measures."""
        return self.items[item].dimension

    def only(self, items: tuple[str, ...], presentations: tuple[str, ...]) -> Survey:
        """Return some of the items in some of the paraphrases."""
        paraphrases = {}
        for name in presentations:
            words = self.paraphrases[name]
            paraphrases[name] = words.model_copy(update={"items": {item: words.items[item] for item in items}})
        keys = {item: self.items[item] for item in items}
        whole = self.model_dump(by_alias=True, exclude={"items", "paraphrases"})
        return type(self).model_validate(whole | {"items": keys, "paraphrases": paraphrases})

    def scale(self, item: str) -> str:
        """Return the scale of an item or a content-free item."""
        return free_kind(item) or self.items[item].scale

    def codes(self, item: str) -> tuple[int, ...]:
        """Return the scale's own numbers."""
        scale = self.scale(item)
        paraphrase = next(iter(self.paraphrases.values()))
        return self.codes_of_scales.get(scale) or tuple(range(1, len(paraphrase.scales[scale]) + 1))

    def present(self, item: str, paraphrase: str, order: str) -> Presented:
        """Present the instruction and scale first (equal between neighbours), the item last.

        Each option keeps its number.
        """
        words = self.paraphrases[paraphrase]
        codes = self.codes(item)
        lines = scale_lines(codes, words.scales[self.scale(item)], order == "reversed")
        return Presented("\n".join([words.instruction, *lines, self.asked(item, words)]), tuple(map(str, codes)))

    def mixed(self, paraphrases: tuple[str, ...], rng: np.random.Generator) -> Paraphrase:
        """Draw a paraphrase from parts of others: the instruction, the labels of each scale and the text of each item.

        An item keeps the stem that was written for it, so that every sentence is complete.
        """

        def draw() -> Paraphrase:
            return self.paraphrases[paraphrases[rng.integers(len(paraphrases))]]

        instruction = draw().instruction
        scales = {scale: draw().scales[scale] for scale in dict.fromkeys(key.scale for key in self.items.values())}
        items = {}
        for item in self.items:
            items[item] = self.asked(item, draw())
        stems = {key.stem: "" for key in self.items.values() if key.stem}
        return Paraphrase(instruction=instruction, scales=scales, stems=stems, items=items)

    def asked(self, item: str, words: Paraphrase) -> str:
        """Return the question of an item, stem included."""
        if free_kind(item):
            return NOTHING
        stem = self.items[item].stem
        return f"{words.stems[stem]} {words.items[item]}".lstrip() if stem else words.items[item]


def scale_lines(codes: Iterable[int], labels: Iterable[str], reverse: bool) -> list[str]:
    """List one labelled option per line; neighbours without a label are on one line of numbers."""
    lines: list[str] = []
    bare: list[str] = []
    pairs = list(zip(codes, labels, strict=True))
    for code, label in reversed(pairs) if reverse else pairs:
        if label and bare:
            lines.append(", ".join(bare))
            bare = []
        if label:
            lines.append(f"{code} = {label}")
        else:
            bare.append(str(code))
    return [*lines, ", ".join(bare)] if bare else lines


class Question(Strict):
    """One line of a question file. Options are coded 1 to n in order; a question without options is answered in text.

    ``answer`` (or ``answers``) is the code of the right option if there is one, ``source`` says why it is right;
    questions of a ``group`` are judged together, and variants of one question (``variant_of``), such as with other
    wrong options, count once with their mean. ``ordered`` says whether the options are a scale, so that answer shares
    can be compared by the distance between options.
    """

    id: str = Field(min_length=1, max_length=100)
    question: str = Field(min_length=1, max_length=20_000)
    options: tuple[str, ...] = Field((), max_length=MOST_OPTIONS)
    answer: int | None = None
    answers: tuple[int, ...] = ()
    country: str | None = Field(None, pattern="^[A-Z]{2}$")
    dimension: str | None = None
    kind: str | None = None
    group: str | None = Field(None, max_length=100)
    variant_of: str | None = Field(None, max_length=100)
    topic: str | None = None
    difficulty: str | None = None
    source: str | None = None
    ordered: bool = True
    split: str | None = Field(None, pattern="^(fit|heldout)$")

    @model_validator(mode="after")
    def _answerable(self) -> Question:
        if self.id.startswith("free:"):
            raise ValueError("id: ids that begin with 'free:' are reserved for content-free items")
        if self.answer is not None and self.answers:
            raise ValueError("answers: give answer or answers, not both")
        if self.group and self.variant_of:
            raise ValueError("variant_of: give group or variant_of, not both")
        if len(self.options) == 1 or len(set(self.options)) < len(self.options) or not all(self.options):
            raise ValueError("options: two or more, different and not empty")
        if invalid := [code for code in self.right if not 1 <= code <= len(self.options)]:
            raise ValueError(f"answer: {invalid[0]} is not the number of an option (1 to {len(self.options)})")
        return self

    @property
    def right(self) -> tuple[int, ...]:
        """Return the codes of the right options: one, several, or none if the question has no right answer."""
        return self.answers or (() if self.answer is None else (self.answer,))


class Questions(Strict):
    """Questions and their templates: texts with ``{question}``, ``{options}`` and ``{country}``.

    An open question uses the template of the same name with the suffix ``_open``, if there is one.
    """

    language: str
    templates: dict[str, str] = Field(min_length=1)
    questions: tuple[Question, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _once(self) -> Questions:
        if len(self.by_id) < len(self.questions):
            twice = next(name for name, times in Counter(q.id for q in self.questions).items() if times > 1)
            raise ValueError(f"questions: id {twice!r} is there twice")
        for name, template in self.templates.items():
            if "{question}" not in template and "{options}" not in template:
                raise ValueError(f"templates.{name}: holds neither {{question}} nor {{options}}")
        return self

    @cached_property
    def by_id(self) -> dict[str, Question]:
        """Return the questions by id."""
        return {question.id: question for question in self.questions}

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Return all questions in file order."""
        return tuple(self.by_id)

    @property
    def presentations(self) -> tuple[str, ...]:
        """Return the names of the templates."""
        return tuple(self.templates)

    @cached_property
    def free(self) -> dict[str, str]:
        """Return one content-free item per number of options."""
        return {q.id: str(len(q.options)) for q in self.questions if q.options}

    def tag(self, item: str) -> str | None:
        """Return the split a question is tagged for."""
        return self.by_id[item].split

    def group(self, item: str) -> str:
        """Return the group of a question, or itself."""
        return self.by_id[item].group or item

    def dimension(self, item: str) -> str | None:
        """Return the dimension of a question, None for none."""
        return self.by_id[item].dimension

    def only(self, items: tuple[str, ...], presentations: tuple[str, ...]) -> Questions:
        """Return some of the questions in some of the templates, including the templates for open questions."""
        names = [name for name in self.templates if name.removesuffix("_open") in presentations]
        templates = {name: self.templates[name] for name in names}
        return type(self)(
            language=self.language, templates=templates, questions=tuple(self.by_id[item] for item in items)
        )

    def codes(self, item: str) -> tuple[int, ...]:
        """Return 1 to the number of options."""
        size = int(kind) if (kind := free_kind(item)) else len(self.by_id[item].options)
        return tuple(range(1, size + 1))

    def present(self, item: str, paraphrase: str, order: str) -> Presented:
        """Present a question in a template.

        Letters follow the listed position, so reversed order changes each option's letter.
        """
        if free_kind(item):
            asked, country, options = NOTHING, None, (NOTHING,) * len(self.codes(item))
        else:
            question = self.by_id[item]
            asked, country, options = question.question, question.country, question.options
        letters = [chr(ord("A") + place) for place in range(len(options))]
        listed = options[::-1] if order == "reversed" else options
        lines = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, listed, strict=True))
        template = (
            self.templates[paraphrase]
            if options
            else self.templates.get(f"{paraphrase}_open", self.templates[paraphrase])
        )
        text = fill(template, asked, country, lines).rstrip("\n")
        return Presented(text, tuple(letters[::-1] if order == "reversed" else letters))


def fill(template: str, question: str, country: str | None, options: str) -> str:
    """Replace the placeholders in sequence, untrusted texts last, so that none of them is read as a placeholder."""
    from .countries import name_of

    named = template.replace("{country}", name_of(country) if country else "")
    before, mark, after = named.partition("{options}")
    return before.replace("{question}", question) + (options if mark else "") + after.replace("{question}", question)
