"""Activation steering: the vector, the budget, resumption, and an adapter that stock peft loads."""

import numpy as np
import pytest
import torch
from culteval.errors import CheckpointError, RunError, UsageError
from culteval.harness.adapters.steering import write_steering
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.registry import spec_of
from culteval.optimizers.preferences import nearest_and_farthest
from culteval.optimizers.steer import STRENGTHS, Steer, SteerSettings, candidates
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions
from safetensors.numpy import load_file

from ..memory_checkpoint import Memory


def objective_of(task="vsm13", code="SA"):
    spec = spec_of(task)
    return fit_objective(spec, country(code), "expected", MeasureOptions(), 0, 0), len(spec.items.ids)


def steer(model, folder, surveys, stop=None, kept=None, **settings):
    objective, items = objective_of()
    checkpoint = Memory(Budget(surveys * items, items), kept, stop)
    checkpoint.folder = folder
    aligned = Steer(SteerSettings(**settings)).align(
        model, objective, checkpoint.budget, np.random.default_rng(0), checkpoint
    )
    return aligned, checkpoint


def last_states(folder, adapter, rows):
    """The hidden states of stock transformers and peft at the last token of each row."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter).eval() if adapter else model.eval()
    with torch.no_grad():
        found = [model(torch.tensor([row]), output_hidden_states=True) for row in rows]
    return np.stack([torch.stack([state[0, -1] for state in one.hidden_states[1:]], 0).numpy() for one in found], 1)


@pytest.mark.parametrize("shape", ["llama", "qwen2", "qwen3", "neox"])
def test_the_best_vector_is_a_multiple_of_the_mean_difference(shape, load, tiny, tmp_path):
    model, (objective, items) = load(shape, True), objective_of()
    aligned, checkpoint = steer(model, tmp_path, surveys=20)
    assert (
        checkpoint.budget.left < objective.cost
        and len(checkpoint.best) == (20 * items - 2 * len(objective.prompts)) // objective.cost
    )
    _, near, far = nearest_and_farthest(objective)
    encoded = model.tokenised(objective.prompts, "")
    sides = [
        last_states(
            tiny(shape, True),
            None,
            [c + o[at] for c, o, at in zip(encoded.contexts, encoded.options, side, strict=True)],
        )
        for side in (near, far)
    ]
    difference = (sides[0] - sides[1]).mean(1)[0]
    (vector,) = (
        value for name, value in load_file(aligned.lora / "adapter_model.safetensors").items() if "bias" in name
    )
    factors = vector / difference
    assert factors.std() < 1e-3 * factors.mean() and 0.1 < factors.mean() < 10
    rows = encoded.contexts[:3]
    moved = last_states(tiny(shape, True), aligned.lora, rows)[0] - last_states(tiny(shape, True), None, rows)[0]
    np.testing.assert_allclose(moved, np.broadcast_to(vector, moved.shape), atol=1e-5)


@pytest.mark.parametrize("shape", ["llama", "neox"])
def test_packed_answers_are_those_of_peft(shape, load, tiny, tmp_path):
    """The probabilities of the options, after stock transformers with stock peft."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model, (objective, _) = load(shape, True), objective_of()
    aligned, checkpoint = steer(model, tmp_path, surveys=12, contrast="persona")
    probs = aligned.answer(objective.prompts).probs[0]
    assert objective.loss(probs[None])[0] == pytest.approx(min(checkpoint.best), rel=1e-5)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny(shape, True)), aligned.lora).eval()
    encoded = model.tokenised(objective.prompts, "")
    for row, (context, options) in enumerate(zip(encoded.contexts, encoded.options, strict=True)):
        with torch.no_grad():
            logits = theirs(torch.tensor([context])).logits[0, -1]
        wanted = logits[[ids[0] for ids in options]].softmax(-1).numpy()
        np.testing.assert_allclose(probs[row][: len(options)], wanted, atol=1e-4)
    assert np.abs(probs - model.answer(objective.prompts).probs[0]).max() > 1e-3


def test_stopped_anywhere_it_ends_the_same(load, tmp_path):
    model = load("llama", True)
    whole, plain = steer(model, tmp_path, surveys=16)
    vectors = (whole.lora / "adapter_model.safetensors").read_bytes()
    for stop in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            steer(model, tmp_path / "", surveys=16, stop=stop)
    checkpoint = Memory(Budget(16 * 24, 24), stop=2)
    checkpoint.folder = tmp_path
    objective, _ = objective_of()
    with pytest.raises(KeyboardInterrupt):
        Steer(SteerSettings()).align(model, objective, checkpoint.budget, np.random.default_rng(0), checkpoint)
    resumed, again = steer(model, tmp_path, surveys=16, kept=checkpoint.kept)
    assert (resumed.lora / "adapter_model.safetensors").read_bytes() == vectors
    assert again.best[-1] == plain.best[-1] and again.budget.spent == plain.budget.spent
    kept = (checkpoint.kept[0] | {"losses": np.ones(9)}, checkpoint.kept[1])
    with pytest.raises(CheckpointError, match="do not match"):
        steer(model, tmp_path, surveys=16, kept=kept)


def test_poles_are_the_ends_of_the_scale_from_the_country():
    objective, _ = objective_of()
    layout = objective.prompts.layout
    _, near, far = nearest_and_farthest(objective)
    for row, code in enumerate(objective.demonstrations):
        codes = layout.codes[row][layout.inside[row]]
        assert abs(codes[near[row]] - code) == min(abs(codes - code))
        assert abs(codes[far[row]] - code) == max(abs(codes - code)) > 0


def test_candidates_are_a_grid_and_then_halved_steps_around_the_best():
    layers, losses = (2, 5), [9, 9, 9, 3, 9, 9, 9, 9, 2, 9, 1.0]
    made = candidates(layers, losses)
    assert made[:8] == [(layer, strength) for strength in STRENGTHS for layer in layers]
    assert made[8:] == [
        (5, 2 * 2**0.5),
        (5, 2 * 2**0.5 * 2**-0.5),
        (5, 2 * 2**0.5 * 2**0.25),
        (5, 2 * 2**0.5 * 2**0.25 * 2**-0.25),
    ]


def test_what_cannot_be_steered_is_refused(load, tmp_path):
    with pytest.raises(UsageError, match="layers: 1, but layers 0 to 0"):
        steer(load("llama", True), tmp_path, surveys=9, layers=(1,))
    with pytest.raises(UsageError, match="gemma3_text cannot be steered: their output is normalised"):
        steer(load("gemma3", True), tmp_path, surveys=9)
    with pytest.raises(UsageError, match="gpt2 cannot be steered"):
        write_steering(tmp_path, load("gpt2", True).model, "tiny", {0: np.zeros(32)})
    with pytest.raises((RunError, UsageError), match="budget"):
        steer(load("llama", True), tmp_path, surveys=2)


def test_an_adapter_without_effect_changes_nothing(load, tmp_path):
    model, (objective, _) = load("llama", True), objective_of()
    write_steering(tmp_path, model.model, "tiny", {0: np.zeros(32)})
    same = AlignedModel(model, lora=tmp_path).answer(objective.prompts).probs
    np.testing.assert_allclose(same, model.answer(objective.prompts).probs, atol=1e-6)


def test_from_the_command_line_and_as_an_adapter(tiny, tmp_path):
    """A run's answers are scored, and its adapter gives the same answers as ``--adapter`` of another run."""
    from click.testing import CliRunner
    from culteval.harness.cli.main import cli
    from culteval.harness.scoring.submission import load_submission

    def run(*words):
        given = ["run", "--task", "vsm13", "--model", str(tiny()), "--dtype", "float32", "--no-compare", "--no-cache"]
        done = CliRunner().invoke(cli, [*given, "--threads", "1", "--out", str(tmp_path), *words])
        assert done.exception is None, done.output
        return done.output

    assert "steer" in run("--aligner", "steer", "--budget", "9")
    (folder,) = tmp_path.glob("vsm13-SA-steer-*")
    run("--aligner", "naive", "--adapter", str(folder / "adapter" / "lora"))
    (other,) = tmp_path.glob("vsm13-SA-naive-*")
    mine, theirs = (load_submission(one / "submission").answers["vsm13"] for one in (folder, other))
    np.testing.assert_array_equal(mine.probs, theirs.probs)
    assert (
        load_submission(folder / "submission").manifest.budget.item_forwards == 2 * 48 + 2 * 48
    )  # activations, two candidates
