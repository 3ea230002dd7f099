"""A checkpoint in memory, for tests of aligners."""

import numpy as np
from culteval.harness.alignment.checkpoint import Checkpoint


class Memory(Checkpoint):
    """A checkpoint in memory; ``stop`` raises after so many saves, as a kill would."""

    def __init__(self, budget, state=None, stop=None):
        self.budget, self.kept, self.stop, self.saves, self.best = budget, state, stop, 0, []

    def load(self):
        if self.kept is None:
            return None
        self.budget.restore(self.kept[1])
        return {key: np.array(value) for key, value in self.kept[0].items()}

    def save(self, state, best):
        self.kept = ({key: np.array(value) for key, value in state.items()}, self.budget.state())
        self.saves += 1
        self.best.append(best)
        if self.saves == self.stop:
            raise KeyboardInterrupt
