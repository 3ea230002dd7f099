"""Stock lm-eval runs the specs as they are and gives the same numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from culteval.harness.registry import spec_path
from culteval.harness.scoring.score import score_answers
from culteval.tasks.measure import MeasureOptions
from culteval.tasks.metrics.reference import DIMENSIONS
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from culteval.tasks.spec import load_spec

METRICS = (*DIMENSIONS, "loss", "skill", "loss_reversed")


def lm_eval(folder: Path, task: str, *, chat: bool, peft: Path | None = None, **metadata: object) -> dict[str, float]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(spec_path("vsm13").parent), include_defaults=False, metadata=metadata)
    arguments = f"pretrained={folder},dtype=float32" + (f",peft={peft}" if peft else "")
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args=arguments,
        tasks=[task],
        task_manager=manager,
        apply_chat_template=chat,
        batch_size=16,
        device="cpu",
        bootstrap_iters=0,
    )
    return {key.partition(",")[0]: value for key, value in results["results"][task].items()}


def ours(aligned, name: str, country: str, scoring: str) -> dict[str, float]:
    spec = load_spec(spec_path(name))
    answers = aligned.answer(
        render_protocol(spec, ProtocolOptions()), most_tokens=spec.most_tokens if scoring == "text" else 0
    )
    rows = score_answers(spec, answers, country, MeasureOptions(), "x")
    return {row.metric: row.value for row in rows if row.split == "heldout" and row.scoring == scoring}


@pytest.mark.parametrize(("chat", "country"), [(True, "SA"), (False, "US")])
def test_same_indices_as_stock_lm_eval(tiny, load, chat, country):
    from culteval.harness.models.aligned import AlignedModel

    theirs = lm_eval(tiny("llama", chat), "vsm13", chat=chat, country=country)
    mine = ours(AlignedModel(load("llama", chat)), "vsm13", country, "expected")
    for metric in METRICS:
        assert theirs[metric] == pytest.approx(mine[metric], rel=1e-5, abs=1e-2), metric
    assert np.ptp([mine[name] for name in DIMENSIONS]) > 1


def test_soft_prompt_adapter_gives_the_same_indices_in_stock_lm_eval(tiny, load, tmp_path):
    from culteval.harness.models.aligned import AlignedModel

    model = load("llama", True)
    soft = np.random.default_rng(0).normal(0, 0.5, (1, 5, model.dim)).astype(np.float32)
    aligned = AlignedModel(model, soft)
    aligned.save(tmp_path / "adapter")
    theirs = lm_eval(tiny("llama", True), "vsm13", chat=True, peft=tmp_path / "adapter")
    mine = ours(aligned, "vsm13", "SA", "expected")
    bare = ours(AlignedModel(model), "vsm13", "SA", "expected")
    for metric in METRICS:
        assert theirs[metric] == pytest.approx(mine[metric], rel=1e-5, abs=1e-2), metric
    assert abs(mine["loss"] - bare["loss"]) > 1


def test_specs_name_no_metric_lm_eval_lacks(tiny, load):
    from culteval.harness.models.aligned import AlignedModel

    theirs = lm_eval(tiny("llama", True), "vsm13_text", chat=True)
    mine = ours(AlignedModel(load("llama", True)), "vsm13_text", "SA", "text")
    for metric in METRICS:
        if metric in mine:
            assert theirs[metric] == pytest.approx(mine[metric], abs=1e-6), metric
        else:  # an item without one valid answer: no index can be formed, here or there
            assert np.isnan(theirs[metric])
    assert json.dumps(sorted(mine)) != "[]"
