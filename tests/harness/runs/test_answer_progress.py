"""Progress while a model answers: every prompt is told once, in passes, batches and texts, and not those known."""

import numpy as np
import pytest
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.registry import spec_of
from culteval.harness.runs.execute import execute
from culteval.harness.runs.plan import RunRequest, plan
from culteval.tasks.prompts import render


class Shown:
    """A display that keeps what it is told."""

    def __init__(self):
        self.told = []

    def say(self, text):
        pass

    def advance(self, label, spent, allowed, best):
        self.told.append((label, spent, allowed))


def test_every_prompt_is_told_once(load):
    prompts = render(spec_of("vsm13"), "heldout")
    one = load("llama", True)
    one.engine.most_tokens = lambda: 700  # several passes
    packed, plain, texts, soft = [], [], [], np.zeros((1, 2, one.dim), np.float32)
    expected = AlignedModel(load("llama", True), soft).answer(prompts)
    found = AlignedModel(one, soft).answer(prompts, done=packed.append)
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-5)
    assert len(packed) > 2 and sum(packed) == len(prompts) == 96
    one = load("gpt2", False)
    one.engine = None
    AlignedModel(one).answer(prompts, done=plain.append)
    assert len(plain) > 2 and sum(plain) == 96 and min(plain) >= 0
    AlignedModel(load("llama", True)).answer(prompts, most_tokens=2, done=texts.append)
    assert texts == [48, 48]
    texts.clear()
    AlignedModel(load("gpt2", True)).answer(prompts.take(np.arange(40)), most_tokens=2, done=texts.append)
    assert texts == [16, 16, 8]


@pytest.mark.parametrize("task", ["general", "vsm13_text"])
def test_a_run_shows_the_prompts_of_all_its_tasks(load, tiny, tmp_path, task):
    asked = plan(RunRequest.of(aligner="naive", tasks=("vsm13", task), model=str(tiny("llama", True)), limit=1))
    first, again, more = Shown(), Shown(), Shown()
    run = execute(asked, tmp_path / "runs", lambda: load("llama", True), first, cache=tmp_path / "cache")
    total = sum(len(answers.layout.item) for answers in run.submission.answers.values())
    label, spent, allowed = first.told[-1]
    assert label == "naive answering" and spent == allowed == total
    assert [row[1] for row in first.told] == sorted(row[1] for row in first.told)
    execute(asked, tmp_path / "more", lambda: load("llama", True), again, cache=tmp_path / "cache")
    assert not again.told
    wider = plan(RunRequest.of(aligner="naive", tasks=("vsm13", task, "cdeval_core"), model=asked.model, limit=1))
    run = execute(wider, tmp_path / "wider", lambda: load("llama", True), more, cache=tmp_path / "cache")
    assert more.told[-1][1:] == (len(run.submission.answers["cdeval_core"].layout.item),) * 2
