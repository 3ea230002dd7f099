"""Schema of a task: the ``metadata:`` block of a spec and the item file beside it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Order = Literal["natural", "reversed"]
SplitName = Literal["fit", "heldout"]
Readout = Literal["expected", "argmax", "text"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(_Strict):
    """Which wordings and presentation orders belong to a split."""

    wordings: tuple[str, ...] = Field(min_length=1)
    orders: tuple[Order, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _once(self) -> Split:
        if len(set(self.wordings)) < len(self.wordings) or len(set(self.orders)) < len(self.orders):
            raise ValueError("a wording or an order is named twice")
        return self


class Splits(_Strict):
    """``fit`` is all an aligner is ever handed; ``heldout`` is for scoring alone."""

    fit: Split
    heldout: Split

    @model_validator(mode="after")
    def _disjoint(self) -> Splits:
        if shared := set(self.fit.wordings) & set(self.heldout.wordings):
            raise ValueError(f"wordings {sorted(shared)} are in fit and in heldout; a wording belongs to one split")
        return self


class Reference(_Strict):
    """Where the figures that answers are compared with come from."""

    file: str
    editions: tuple[str, ...] = Field(min_length=1)
    default_edition: str
    source: str

    @model_validator(mode="after")
    def _known(self) -> Reference:
        if self.default_edition not in self.editions:
            raise ValueError(f"default_edition {self.default_edition!r} is not among editions")
        return self


class Headline(_Strict):
    """The metric a board ranks by."""

    metric: str
    higher_is_better: bool


class Licence(_Strict):
    """Terms of the code and of the data, separately."""

    code: str
    data: str


class Metadata(_Strict):
    """The ``metadata:`` block of a spec; see ``docs/architecture.md``."""

    version: float
    title: str
    construct_text: str = Field(alias="construct")
    measure: str
    items: str
    languages: tuple[str, ...]
    splits: Splits
    default_country: str
    reference: Reference
    readouts: tuple[Readout, ...] = Field(min_length=1)
    headline: Headline
    licence: Licence
    citation: str


class ItemKey(_Strict):
    """What all wordings of an item share."""

    scale: str
    stem: str | None
    dimension: str


class Wording(_Strict):
    """One paraphrase of the whole survey: texts in one language, labels in code order."""

    instruction: str
    scales: dict[str, tuple[str, ...]]
    stems: dict[str, str]
    items: dict[str, str]


class ItemFile(_Strict):
    """Items and their wordings, as in ``tasks/vsm13/items.yaml``."""

    language: str
    items: dict[str, ItemKey] = Field(min_length=1)
    wordings: dict[str, Wording] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> ItemFile:
        for name, wording in self.wordings.items():
            if set(wording.items) != set(self.items):
                odd = sorted(set(wording.items) ^ set(self.items))
                raise ValueError(f"wordings.{name}.items: {odd} not in both this wording and 'items'")
            for item, key in self.items.items():
                if key.scale not in wording.scales:
                    raise ValueError(f"wordings.{name}.scales: no labels for scale {key.scale!r} of item {item}")
                if key.stem is not None and key.stem not in wording.stems:
                    raise ValueError(f"wordings.{name}.stems: no text for stem {key.stem!r} of item {item}")
        for scale in {key.scale for key in self.items.values()}:
            if len({len(wording.scales[scale]) for wording in self.wordings.values()}) > 1:
                raise ValueError(f"scale {scale!r} has another number of labels in some wording")
        return self
