"""Settings of CLCA: the published values, and sizes for a laptop."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ...harness.alignment.aligner import Settings
from ...harness.providers.settings import is_remote
from ...tasks.countries import country
from ..lora.adapter import ModuleName
from .dialogues.dialogue_filter import CHECKS, Check
from .dialogues.shipped import SHIPPED, hash_of
from .training.examples import Part

# The laptop's model cannot keep to a format and rarely names details of its scene. The paper: about 200 dialogues.
PRESETS: dict[str, dict[str, Any]] = {
    "laptop": {
        "scenarios": 20, "turns": 6, "words": 48, "length": 1024, "epochs": 1,
        "actions": "drawn", "checks": CHECKS[:-1],
    },
    "paper": {"scenarios": 100, "turns": 10, "words": 160, "length": 2048, "epochs": 3},
}  # fmt: skip


class CLCASettings(Settings):
    """The published values (Liu et al. 2025, arXiv 2504.02953) except for the sizes, which ``preset`` sets.

    Simulation: the number of ``scenarios``, each played ``repeats`` times for at most ``turns`` turns of ``words``
    tokens, drawn with ``top_p``. With ``rewrite`` the writer rewrites setting, backgrounds and goals of the scenes,
    which data place in the country. ``actions``: the agents choose their actions in free text (``free``, as published),
    or the kind is drawn and they write the words (``drawn``), for models that cannot keep to a format. ``dialogues``: a
    file of the user's own dialogues instead of simulated ones, or ``shipped`` for those that come with culteval, which
    need no judge; the hash of the file, or of all shipped ones, is recorded. ``judge`` applies the three judgements and
    the drop rule, ``checks`` are those that need no judge. ``teacher`` plays the agents, judges, rewrites and names
    intents, in place of the model that is trained: a name, folder or hub id, or a model behind an endpoint;
    ``teacher_dtype`` is its own dtype, such as int8, where it is not the run's. ``parts``: the parts of the training
    data. For controls: ``culture`` is another country whose interactions are learned, and ``unrelated`` trains on as
    much arithmetic instead.

    Training: LoRA of ``rank`` and ``alpha`` with ``dropout`` on ``modules``, with ``save_embeddings`` the head and the
    embeddings in full too; ``epochs`` over batches of ``batch`` examples of at most ``length`` tokens at a learning
    ``rate``. ``heldout`` is the share of dialogues on which training is evaluated; it stops after ``patience``
    evaluations without improvement.
    """

    preset: Literal["laptop", "paper"] = "laptop"
    scenarios: int = Field(20, ge=1, le=10_000)
    repeats: int = Field(2, ge=1, le=100)
    turns: int = Field(6, ge=2, le=100)
    words: int = Field(48, ge=4, le=1000)
    top_p: float = Field(0.7, gt=0, le=1)
    rewrite: bool = False
    actions: Literal["free", "drawn"] = "free"
    dialogues: str | None = None
    dialogues_sha256: str | None = None
    checks: tuple[Check, ...] = CHECKS
    judge: bool = True
    teacher: str | None = None
    teacher_dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None
    parts: tuple[Part, ...] = Field(("dialogue", "intent"), min_length=1)
    culture: str | None = None
    unrelated: bool = False
    rank: int = Field(4, ge=1, le=512)
    alpha: float = Field(0.1, gt=0, le=10_000)
    dropout: float = Field(0.5, ge=0, lt=1)
    modules: tuple[ModuleName, ...] = Field(("q_proj", "v_proj"), min_length=1)
    save_embeddings: bool = False
    epochs: int = Field(1, ge=1, le=1000)
    batch: int = Field(8, ge=1, le=10_000)
    rate: float = Field(1e-4, gt=0, le=1)
    length: int = Field(1024, ge=16, le=1 << 20)
    heldout: float = Field(0.1, ge=0, lt=1)
    patience: int = Field(3, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, given: Any) -> Any:
        """Apply the preset's sizes if none are given, and record the hash of a file, so that changes are detected."""
        if not isinstance(given, dict):
            return given
        sized = PRESETS.get(given.get("preset", "laptop"), {}) | given
        source = given.get("dialogues")
        if isinstance(source, str) and (found := hash_of(source)):
            if given.get("dialogues_sha256") not in (None, found):
                raise ValueError(f"dialogues: {source} has changed since the start. Start over with `fresh`.")
            sized["dialogues_sha256"] = found
        if source == SHIPPED:  # judged before they were shipped
            sized = {"judge": False} | sized
        return sized

    @model_validator(mode="after")
    def _local(self) -> CLCASettings:
        if self.teacher_dtype and (not self.teacher or is_remote(self.teacher)):
            raise ValueError("teacher_dtype: only for a `teacher` on this machine. Give one, or leave it out.")
        return self

    def country(self, own: str) -> str:
        """Return the code of the country whose interactions are learned, ``own`` unless another is set."""
        return country(self.culture).code if self.culture else own

    def own(self) -> dict[str, Any]:
        """Return the settings that differ from the preset."""
        usual, current = CLCASettings(preset=self.preset).model_dump(mode="json"), self.model_dump(mode="json")
        return {name: value for name, value in current.items() if value != usual[name]}
