"""Tasks with further wordings to learn from: the items of the scored task, in none of its wordings."""

from __future__ import annotations

import pytest
from culteval.harness.registry import spec_path
from culteval.tasks.spec import load_spec


@pytest.mark.parametrize(("task", "wordings"), [("wvs", 5), ("vsm13", 7)])
def test_training_wordings_are_none_of_the_scored_ones(task, wordings):
    scored, training = (load_spec(spec_path(name)).items for name in (task, f"{task}_training"))
    assert set(training.items) == set(scored.items) and training.codes_of_scales == scored.codes_of_scales
    assert all(training.items[name].dimension == scored.items[name].dimension for name in scored.items)
    assert all(training.items[name].scale == scored.items[name].scale for name in scored.items)
    known = {scored.asked(item, words).lower() for words in scored.paraphrases.values() for item in scored.items}
    new = [training.asked(item, words).lower() for words in training.paraphrases.values() for item in training.items]
    assert len(set(new)) == wordings * len(scored.items) and not set(new) & known
    words = list(training.paraphrases.values())
    assert all(len({tuple(one.scales[scale]) for one in words}) == wordings for scale in words[0].scales)
    labels = {tuple(words.scales[scale]) for words in scored.paraphrases.values() for scale in words.scales}
    assert not labels & {
        tuple(words.scales[scale]) for words in training.paraphrases.values() for scale in words.scales
    }
