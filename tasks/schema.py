"""Schema of a task: the ``metadata:`` block of a spec. The schema of its items is in ``items``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Order = Literal["natural", "reversed"]
SplitName = Literal["fit", "heldout", "control"]
Scoring = Literal[
    "expected", "argmax", "text", "cloze", "verbalized", "expected_calibrated", "argmax_calibrated", "cloze_pmi"
]
FitObjective = Literal["task", "distribution", "worst_paraphrase"]
"""What a fit minimises: the task's own loss, or the divergence from the people's answer distributions."""
OWN_SCORINGS = ("expected", "argmax", "text", "cloze", "verbalized")  # a spec may name them; others follow from answers
ALONE = ("cloze", "verbalized")  # they need prompts of their own, so that a spec with one of them has no other


FileName = Annotated[str, Field(pattern=r"^[^/\\\\]{1,200}$")]
"""A file beside the spec: an untrusted task must not make a user read (and send to a model) a file of its choice."""


class Strict(BaseModel):
    """Base of every strict schema: unknown fields, NaN and infinity are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Split(Strict):
    """The paraphrases, option orders and items of a split; ``items`` is a tag of the items, or all."""

    paraphrases: tuple[str, ...] = Field(min_length=1)
    orders: tuple[Order, ...] = Field(min_length=1)
    items: Literal["all", "fit", "heldout"] = "all"

    @model_validator(mode="after")
    def _once(self) -> Split:
        if len(set(self.paraphrases)) < len(self.paraphrases) or len(set(self.orders)) < len(self.orders):
            raise ValueError("a paraphrase or an order is named twice")
        return self


class Splits(Strict):
    """The splits of a task: ``fit`` is all that an aligner receives; ``heldout`` is for scoring only.

    ``control`` is presented and scored beside them: prompts that show what a score means, such as omitted questions.
    """

    fit: Split
    heldout: Split
    control: Split | None = None

    @model_validator(mode="after")
    def _disjoint(self) -> Splits:
        if self.fit.items == "heldout":
            raise ValueError("fit.items: items tagged heldout cannot be in fit")
        if (self.fit.items, self.heldout.items) == ("fit", "heldout"):
            pass
        elif shared := set(self.fit.paraphrases) & set(self.heldout.paraphrases):
            raise ValueError(
                f"paraphrases {sorted(shared)} are in fit and in heldout; a paraphrase belongs to one split"
            )
        if self.control and (
            shared := set(self.control.paraphrases) & {*self.fit.paraphrases, *self.heldout.paraphrases}
        ):
            raise ValueError(f"paraphrases {sorted(shared)} are in control and in another split")
        return self

    @property
    def named(self) -> dict[SplitName, Split]:
        """Return the existing splits by name, in the order in which they are presented."""
        parts: dict[SplitName, Split | None] = {"fit": self.fit, "heldout": self.heldout, "control": self.control}
        return {name: part for name, part in parts.items() if part is not None}


class Reference(Strict):
    """The source of the figures that answers are compared with.

    Without a ``file`` the editions are imported by the user, or are the shares beside the imported questions.
    """

    file: str | None = None
    editions: tuple[str, ...] = Field(min_length=1)
    default_edition: str
    source: str

    @model_validator(mode="after")
    def _known(self) -> Reference:
        if self.default_edition not in self.editions:
            raise ValueError(f"default_edition {self.default_edition!r} is not among editions")
        return self


class Headline(Strict):
    """The metric by which a leaderboard ranks."""

    metric: str
    higher_is_better: bool


class Licence(Strict):
    """Terms of the code and of the data, separately."""

    code: str
    data: str


class Metadata(Strict):
    """The ``metadata:`` block of a spec; see ``docs/architecture.md``.

    ``items`` names the item file: a survey (``.yaml``) or questions (``.jsonl``), which are put in ``templates``.
    ``persona_file`` names the file that personas are drawn from, ``imported`` a set of paraphrases or a question file
    that users import because it may not be distributed. ``dimensions`` keeps the items of some dimensions; none keeps
    all.
    """

    version: float
    title: str
    construct_text: str = Field(alias="construct")
    measure: str
    items: FileName
    templates: dict[str, str] = Field(default_factory=dict)
    persona_file: FileName | None = None
    imported: str | None = None
    dimensions: tuple[str, ...] = ()
    languages: tuple[str, ...]
    splits: Splits
    default_country: str
    reference: Reference | None = None
    scorings: tuple[Scoring, ...] = Field(min_length=1)
    headline: Headline
    licence: Licence
    citation: str

    @model_validator(mode="after")
    def _own_scorings(self) -> Metadata:
        if unknown := [name for name in self.scorings if name not in OWN_SCORINGS]:
            raise ValueError(f"scorings: {unknown[0]!r} is not one of {', '.join(OWN_SCORINGS)}")
        for name in ALONE:
            if name in self.scorings and len(self.scorings) > 1:
                raise ValueError(f"scorings: {name!r} has prompts of its own, so it stands alone in a spec")
        return self
