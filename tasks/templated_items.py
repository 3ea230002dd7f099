"""Items that are presented by a template instead of a survey's instruction and scale, or without letters.

A template with ``{options}`` lists the options; their codes are the possible answers. A template without it is for
``cloze`` scoring: the possible answers are the texts of the options, which the prompt does not show.
"""

from __future__ import annotations

from functools import cached_property

from pydantic import model_validator

from .items import NOTHING, Presented, Question, Questions, Survey, fill, free_kind, scale_lines


class TemplatedSurvey(Survey):
    """A survey whose questions are put in one ``template``: a text with ``{question}``, and ``{options}`` or not."""

    template: str

    @model_validator(mode="after")
    def _fits(self) -> TemplatedSurvey:
        if "{question}" not in self.template:
            raise ValueError("templates: the template of a survey holds no {question}")
        used = {key.scale for key in self.items.values()}
        for name, paraphrase in self.paraphrases.items():
            if not self._lists and (bare := [scale for scale in used if not all(paraphrase.scales[scale])]):
                raise ValueError(f"paraphrases.{name}.scales.{bare[0]}: an option without a label cannot be read")
        return self

    @property
    def _lists(self) -> bool:
        return "{options}" in self.template

    def present(self, item: str, paraphrase: str, order: str) -> Presented:
        """Present the question in the template; the possible answers are codes if it lists them, else labels."""
        words, codes = self.paraphrases[paraphrase], self.codes(item)
        labels = words.scales[self.scale(item)]
        lines = "\n".join(scale_lines(codes, labels, order == "reversed"))
        text = fill(self.template, self.asked(item, words), None, lines).rstrip("\n")
        return Presented(text, tuple(map(str, codes)) if self._lists else labels)


class ClozeQuestions(Questions):
    """Questions that are answered by the text of an option, which their prompts do not show.

    Options belong to one question each, so every question has a content-free item of its own.
    """

    @model_validator(mode="after")
    def _unlisted(self) -> ClozeQuestions:
        if listed := [name for name, template in self.templates.items() if "{options}" in template]:
            raise ValueError(f"templates.{listed[0]}: holds {{options}}; a prompt for cloze scoring shows none")
        return self

    @cached_property
    def free(self) -> dict[str, str]:
        """Return the content-free item of every question with options: that with its own options."""
        return {q.id: q.id for q in self.questions if q.options}

    def codes(self, item: str) -> tuple[int, ...]:
        """Return 1 to the number of options."""
        return tuple(range(1, len(self._question(item).options) + 1))

    def present(self, item: str, paraphrase: str, order: str) -> Presented:
        """Present a question without its options; the possible answers are their texts."""
        question = self._question(item)
        asked, country = (NOTHING, None) if free_kind(item) else (question.question, question.country)
        return Presented(fill(self.templates[paraphrase], asked, country, "").rstrip("\n"), question.options)

    def _question(self, item: str) -> Question:
        return self.by_id[free_kind(item) or item]
