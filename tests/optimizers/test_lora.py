"""LoRA trained on a task, by supervised fine-tuning and by direct preference optimisation."""

import math

import numpy as np
import pytest
import torch
from culteval.errors import CheckpointError, RunError, UsageError
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.registry import find, spec_of
from culteval.optimizers.lora.examples import Labels, Presentation
from culteval.optimizers.preferences import in_batches, nearest_and_farthest, preference_pairs
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions

from ..memory_checkpoint import Memory

STEP = {"sft": 3, "dpo": 8}  # item forwards of a prompt
BOTH = pytest.mark.parametrize("name", STEP)


@pytest.fixture(scope="module")
def objective():
    return fit_objective(spec_of("vsm13"), country("US"), "expected", MeasureOptions(), 0, 0)


def train(name, model, objective, folder, steps, stop=None, kept=None, **settings):
    settings = {"batch": 4, "rate": 0.02} | settings
    checkpoint = Memory(Budget(steps * settings["batch"] * STEP[name] + 1, 24), kept, stop)
    checkpoint.folder = folder
    kind = find("aligners", name)
    aligned = kind(kind.Settings(**settings)).align(
        model, objective, checkpoint.budget, np.random.default_rng(3), checkpoint
    )
    return aligned, checkpoint


def weights(aligned):
    return (aligned.lora / "adapter_model.safetensors").read_bytes()


def passes(name, model, objective, steps):
    """The prompts of each pass, as the aligner draws them."""
    if name == "dpo":
        return [in_batches(len(objective.prompts), 4 * steps, np.random.default_rng(3))]
    examples = Labels(model, [Presentation(objective)])
    drawn = examples.draw(steps, 4, np.random.default_rng(3))
    return np.reshape(drawn, (-1, examples.in_one_pass(drawn, 4)))


@BOTH
def test_modules_that_a_model_lacks_are_named_with_the_setting(name, load, objective, tmp_path):
    with pytest.raises(RunError, match=r"nowhere_proj.*\(`settings` modules\)\.$") as error:
        train(name, load("qwen2", True), objective, tmp_path, steps=2, modules=("nowhere_proj",))
    assert len(str(error.value).splitlines()) == 1


@BOTH
def test_what_is_trained_becomes_likelier_at_the_cost_of_the_budget(name, load, objective, tmp_path):
    model = load("qwen2", True)
    aligned, checkpoint = train(name, model, objective, tmp_path, steps=12)
    _, near, far = nearest_and_farthest(objective)
    rows = np.arange(len(near))
    before, after = (one.answer(objective.prompts).probs[0] for one in (model, aligned))
    if name == "sft":  # what preference optimisation raises is the ratio of the two
        assert np.log(after[rows, near]).mean() > np.log(before[rows, near]).mean() + 0.05
    ratio = np.log(after[rows, near] / after[rows, far]) - np.log(before[rows, near] / before[rows, far])
    assert ratio.mean() > 0.1
    assert checkpoint.budget.spent == 12 * 4 * STEP[name] and checkpoint.budget.left == 1
    encoded, tokens = model.tokenised(objective.prompts), 0
    for drawn in passes(name, model, objective, 12):
        if name == "dpo":
            both = [encoded.contexts[row] + encoded.options[row][at[row]] for row in drawn for at in (near, far)]
            tokens += 4 * sum(map(len, both))
        else:  # a pass reads a beginning once, and no last token of an option
            asked = [encoded.contexts[row] + option[:-1] for row in drawn for option in encoded.options[row]]
            tokens += 3 * len({tuple(text[:end]) for text in asked for end in range(1, len(text) + 1)})
    assert checkpoint.budget.tokens == tokens
    assert sorted(path.name for path in aligned.lora.iterdir() if path.is_dir()) == []


@BOTH
def test_the_first_loss_is_the_published_one(name, load, tiny, objective, tmp_path):
    """Cross-entropy of the options by stock transformers; log 2 where the model is still the reference."""
    from transformers import AutoModelForCausalLM

    model = load("llama", True)
    _, checkpoint = train(name, model, objective, tmp_path, steps=1)
    if name == "dpo":
        assert checkpoint.best == [pytest.approx(math.log(2), abs=1e-5)]
        return
    theirs, encoded = AutoModelForCausalLM.from_pretrained(tiny()).eval(), model.tokenised(objective.prompts)
    near, logs = nearest_and_farthest(objective).near, []
    for row in passes(name, model, objective, 1).ravel():
        context, option = encoded.contexts[row], encoded.options[row][near[row]]
        with torch.no_grad():
            predicted = theirs(torch.tensor([context + option])).logits[0].log_softmax(-1)
        logs += [float(predicted[len(context) - 1 + place, token]) for place, token in enumerate(option)]
    assert checkpoint.best == [pytest.approx(-np.sum(logs) / 4, rel=1e-4)]


@pytest.mark.parametrize(
    ("name", "given"), [("sft", {}), ("dpo", {}), ("sft", {"target": "objective", "paraphrases": 3, "batch": 24})]
)
def test_stopped_anywhere_it_ends_the_same(name, given, load, objective, tmp_path):
    model, given = load("llama", True), {"batch": 4, "dropout": 0.1} | given
    whole, plain = train(name, model, objective, tmp_path / "whole", steps=8, **given)
    for stop in (1, 3):
        folder = tmp_path / str(stop)
        kept = Memory(None, stop=stop)
        with pytest.raises(KeyboardInterrupt):
            kept = Memory(Budget(8 * given["batch"] * STEP[name] + 1, 24), stop=stop)
            kept.folder = folder
            kind = find("aligners", name)
            kind(kind.Settings(rate=0.02, **given)).align(model, objective, kept.budget, np.random.default_rng(3), kept)
        resumed, again = train(name, model, objective, folder, steps=8, kept=kept.kept, **given)
        assert weights(resumed) == weights(whole)
        assert (again.budget.spent, again.budget.tokens) == (plain.budget.spent, plain.budget.tokens)
    again, checkpoint = train(name, model, objective, tmp_path / "whole", steps=8, kept=plain.kept, **given)
    assert weights(again) == weights(whole) and checkpoint.saves == 0  # ended before: nothing is trained again
    ahead = ({"step": np.array(1)}, plain.kept[1])
    with pytest.raises(CheckpointError, match="does not match its budget"):
        train(name, model, objective, tmp_path / "new", steps=8, kept=ahead, **given)


def test_stock_peft_gives_the_same_answers(load, tiny, objective, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = load("llama", True)
    aligned, _ = train("dpo", model, objective, tmp_path, steps=4)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny()), aligned.lora).eval()
    encoded, probs = model.tokenised(objective.prompts), aligned.answer(objective.prompts).probs[0]
    for row in range(0, len(encoded.contexts), 7):
        with torch.no_grad():
            logits = theirs(torch.tensor([encoded.contexts[row]])).logits[0, -1]
        wanted = logits[[ids[0] for ids in encoded.options[row]]].softmax(-1).numpy()
        np.testing.assert_allclose(probs[row][: len(wanted)], wanted, atol=1e-4)


def test_what_a_country_was_not_asked_is_not_learned(load):
    model, asked = load("llama", True), fit_objective(spec_of("wvs"), country("EG"), "expected", MeasureOptions(), 0, 0)
    items = asked.prompts.layout.items
    rows = [row for row, item in enumerate(asked.prompts.layout.item) if items[item] not in ("Q25", "Q36")]
    assert len(rows) == len(asked.prompts) - 4
    assert nearest_and_farthest(asked).rows.tolist() == rows
    contexts = model.tokenised(asked.prompts).contexts
    assert [pair.prompt for pair in preference_pairs(model, asked)] == [contexts[row] for row in rows]
    assert len(Labels(model, [Presentation(asked)])) == len(rows)
    unknown = asked.take(np.setdiff1d(np.arange(len(asked.prompts)), rows))
    with pytest.raises(UsageError, match="none of these questions was asked"):
        preference_pairs(model, unknown)


@pytest.mark.parametrize("code", ["SA", "US", "CN"])
def test_ends_of_the_scale_that_are_equally_far_take_turns(code):
    """Otherwise the lowest code were the farthest option of most questions, whatever the country."""
    asked = fit_objective(spec_of("vsm13"), country(code), "expected", MeasureOptions(), 0, 0)
    _, _, far = nearest_and_farthest(asked)
    middle = asked.demonstrations == 3
    assert middle.sum() > 10 and abs((far[middle] == 0).sum() - (far[middle] == 4).sum()) <= 1


def test_rows_are_drawn_without_repeats_in_a_round():
    drawn = in_batches(5, 12, np.random.default_rng(0))
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == list(range(5)) and len(drawn) == 12
    assert drawn[:5].tolist() != drawn[5:10].tolist()


def test_what_cannot_be_trained_is_refused(load, objective, tmp_path):
    with pytest.raises(RunError, match="modules"):
        train("sft", load("llama", True), objective, tmp_path, steps=1, modules=("c_attn",))
    kind = find("aligners", "sft")
    with pytest.raises(UsageError, match="one step costs 1 survey"):
        kind(kind.Settings(batch=8)).check(objective, Budget(23, 24))


def test_the_run_s_seed_is_the_trainer_s_and_no_generator_of_others_moves(load, objective, tmp_path, monkeypatch):
    import random

    import transformers.trainer

    seeds, seed = [], transformers.trainer.set_seed
    monkeypatch.setattr(
        transformers.trainer, "set_seed", lambda given, *rest: seeds.append(given) or seed(given, *rest)
    )
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    train("sft", load("llama", True), objective, tmp_path, steps=1)
    drawn = np.random.default_rng(3)
    in_batches(len(objective.prompts), 4, drawn)
    assert seeds[0] == int(drawn.integers(1 << 31))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_the_sentence_before_prompts_is_checked_against_the_context(objective):
    kind = find("aligners", "sft")
    assert "United States" in kind(kind.Settings(elicitation="resident")).longest_preamble(objective)
    assert kind(kind.Settings()).longest_preamble(objective) == ""


def test_the_objective_is_descended_on_whole_paraphrases(load, objective, tmp_path):
    model, settings = load("llama", True), {"target": "objective", "batch": 24, "paraphrases": 4}
    shown = objective.paraphrased(np.random.default_rng(3), "natural")  # the first of those drawn
    answers = model.answer(shown.prompts)
    one = settings | {"paraphrases": 1, "off_options": 2}
    _, checkpoint = train("sft", model, objective, tmp_path / "one", steps=1, **one)
    first = shown.loss(answers.probs)[0] / shown.null_loss + 2 * answers.off_options.mean()
    assert checkpoint.best == [pytest.approx(first, rel=1e-4)]
    aligned, checkpoint = train("sft", model, objective, tmp_path / "all", steps=16, **settings)
    assert checkpoint.budget.spent == 16 * 3 * 24
    before, after = (objective.loss(each.answer(objective.prompts).probs)[0] for each in (model, aligned))
    assert after < before / 2


def test_a_paraphrase_a_step_costs_its_prompts(load, objective, tmp_path):
    cost, settings = 3 * 24, {"target": "objective", "paraphrases": 3, "batch": 8}
    _, checkpoint = train("sft", load("llama", True), objective, tmp_path, steps=9, **settings)
    assert checkpoint.budget.spent == 3 * cost  # 9 x 8 x 3 item forwards pay for three
    read = fit_objective(spec_of("vsm13_text"), country("US"), "text", MeasureOptions(), 0, 0)
    with pytest.raises(UsageError, match="text: it has no gradient"):
        train("sft", load("llama", True), read, tmp_path, steps=9, **settings)
