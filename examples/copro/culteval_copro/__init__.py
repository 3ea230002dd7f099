"""COPRO, a prompt optimiser of DSPy, as an aligner: a model proposes preambles from the best ones so far.

COPRO (DSPy: Khattab et al. 2024, arXiv 2310.03714) shows a model the best instructions with their scores, as OPRO
does (Yang et al. 2024, arXiv 2309.03409). Without DSPy this module can be imported, so that culteval lists the aligner.
"""

from importlib.util import find_spec
from typing import ClassVar

from culteval.errors import UnavailableError
from culteval.harness.alignment.aligner import Aligner, Settings
from culteval.harness.alignment.evaluator import Evaluator, require_budget, require_readable
from culteval.harness.models.aligned import AlignedModel
from culteval.optimizers.texts import persona
from culteval.optimizers.writing.teacher import writer_of
from pydantic import Field

MOST_CHARACTERS = 600  # of a preamble


class CoproSettings(Settings):
    """``breadth``: preambles in a round. The model that is aligned draws with ``top_p``, ``words`` tokens at most."""

    breadth: int = Field(8, ge=2, le=100)
    words: int = Field(150, ge=8, le=1000)
    top_p: float = Field(0.9, gt=0, le=1)


class Copro(Aligner):
    """DSPy's COPRO over preambles; works with text alone, so that models behind an endpoint can be aligned too."""

    Settings: ClassVar = CoproSettings
    summary: ClassVar = "preamble by DSPy's prompt optimiser COPRO"
    needs_weights: ClassVar = False

    def check(self, objective, budget):
        if find_spec("dspy") is None:
            raise UnavailableError("aligner copro: DSPy is missing. Install dspy: pip install 'dspy>=3.4'")
        require_budget(objective.cost, "candidate", budget)

    def longest_preamble(self, objective):
        return "word " * (MOST_CHARACTERS // 5)

    def align(self, model, objective, budget, rng, checkpoint):
        self.check(objective, budget)
        from .search import Record, search

        folder = checkpoint.folder / "copro"
        folder.mkdir(exist_ok=True)
        writer = writer_of(model, folder, checkpoint.progress)
        seed = int(rng.integers(1 << 31))
        record = Record(Evaluator(model, objective, budget), writer, self.settings, seed, checkpoint)
        search(record, persona(objective), self.settings.breadth, budget.total // objective.cost)
        require_readable(record.unread, objective)
        return AlignedModel(model, preamble=f"{record.best}\n\n")
