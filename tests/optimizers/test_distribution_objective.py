"""Aligners on answer distributions: losses by scipy and stock transformers, budgets, resumption, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from culteval.errors import UsageError
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.joint_objective import JointObjective
from culteval.harness.cli.main import cli
from culteval.harness.engine.padded import PlainForward
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.registry import find
from culteval.harness.runs.config import aligner_settings
from culteval.harness.submissions.manifest import Manifest
from culteval.leaderboards.submission_page import command
from culteval.optimizers.lora.adapter import attached
from culteval.optimizers.lora.examples import Presentation, SoftLabels
from culteval.optimizers.texts import sentence
from culteval.tasks.countries import country
from scipy import stats

from ..memory_checkpoint import Memory
from ..tasks.test_target_distributions import by_hand, objective_of, people

WEIGHTS = "adapter_model.safetensors"
BATCH, FORWARDS = 6, 3  # prompts a step of sft, item forwards of each
SMALL = {
    "random": ["tokens=3"],
    "de": ["tokens=3", "population=4", "screening=1"],
    "cma": ["tokens=3", "population=4", "dimensions=12"],
    "pso": ["tokens=3", "population=4", "dimensions=12"],
    "gd": ["tokens=3", "rate=0.3"],
    "augmented": ["tokens=3", "rate=0.3"],
    "best_of_n": ["middles=3"],
    "evo_prompt": ["population=3", "words=8"],
}
BUDGET = 12  # candidates


def align(name, model, objective, folder, budget, flags=(), stop=None, kept=None):
    checkpoint = Memory(Budget(budget, 44), kept, stop)
    checkpoint.folder = folder
    checkpoint.progress = lambda *_: None
    aligner = find("aligners", name)(aligner_settings(name, flags))
    aligned = aligner.align(model, objective, checkpoint.budget, np.random.default_rng(3), checkpoint)
    return aligned, checkpoint


def sft(model, objective, folder, steps, **given):
    flags = [f"batch={BATCH}", "rate=0.02", "dropout=0.1"]
    return align("sft", model, objective, folder, steps * BATCH * FORWARDS + 1, flags, **given)


def loss_by_hand(aligned, objective):
    layout = objective.prompts.layout
    return by_hand(objective.country.code, layout, aligned.answer(objective.prompts).probs[0])[0]


@pytest.mark.parametrize("name", SMALL)
def test_every_search_and_descent_fits_distributions(name, load, tmp_path):
    model, objective = load("llama", True), objective_of()
    aligned, checkpoint = align(name, model, objective, tmp_path, BUDGET * objective.cost + 1, SMALL[name])
    assert checkpoint.budget.left < objective.cost * (3 if name == "gd" else 1.5 if name == "augmented" else 1)
    after = loss_by_hand(aligned, objective)
    if name != "augmented":  # whose losses are of new paraphrases
        assert min(checkpoint.best) == pytest.approx(after, rel=1e-4)
        assert checkpoint.best[-1] <= checkpoint.best[0]
    if name in ("gd", "augmented"):
        assert after < loss_by_hand(align("random_prefix", model, objective, tmp_path, 0, ["tokens=3"])[0], objective)


@pytest.mark.parametrize("name", ["de", "gd", "augmented"])
def test_stopped_anywhere_it_ends_the_same(name, load, tmp_path):
    model, objective = load("llama", True), objective_of()
    whole, _ = align(name, model, objective, tmp_path, BUDGET * objective.cost, SMALL[name])
    kept = Memory(None, stop=2)
    with pytest.raises(KeyboardInterrupt):
        kept = Memory(Budget(BUDGET * objective.cost, 44), stop=2)
        aligner = find("aligners", name)(aligner_settings(name, SMALL[name]))
        aligner.align(model, objective, kept.budget, np.random.default_rng(3), kept)
    resumed, _ = align(name, model, objective, tmp_path, BUDGET * objective.cost, SMALL[name], kept=kept.kept)
    assert resumed.soft.tobytes() == whole.soft.tobytes()


@pytest.mark.parametrize("task, code", [("wvs", "US"), ("wvs_themes", "DE")])
@pytest.mark.parametrize("shape", ["llama", "qwen3"])
def test_the_first_loss_of_soft_labels_is_that_of_stock_transformers(shape, task, code, load, tiny, tmp_path):
    """Options of one token and of two (10 on a scale of ten), and scales that were shortened in the country."""
    from transformers import AutoModelForCausalLM

    model, objective = load(shape, True), objective_of(task, code)
    flags = [f"batch={4 * BATCH}"]
    _, checkpoint = align("sft", model, objective, tmp_path, 4 * BATCH * FORWARDS, flags)
    asked = objective.prompts.take(objective.distributions.known)
    encoded, layout, table = model.tokenised(asked), asked.layout, people(code)
    theirs, losses = AutoModelForCausalLM.from_pretrained(tiny(shape)).eval(), []
    examples = SoftLabels(model, [Presentation(objective)])
    drawn = examples.draw(1, 4 * BATCH, np.random.default_rng(3))
    size, read = examples.in_one_pass(drawn, 4 * BATCH), set()
    assert len(drawn) == 4 * BATCH and len(set(drawn)) == len(drawn) and size in (2, 4, 8)
    for at, row in enumerate(drawn):
        context, logs = encoded.contexts[row], []
        for option in encoded.options[row]:
            with torch.no_grad():
                predicted = theirs(torch.tensor([context + option])).logits[0].log_softmax(-1)
            logs.append(sum(float(predicted[len(context) - 1 + place, token]) for place, token in enumerate(option)))
            whole = context + option[:-1]
            read |= {(at // size, *whole[:end]) for end in range(1, len(whole) + 1)}  # a pass reads a beginning once
        question, merged = layout.items[layout.item[row]], {}
        for one, log in zip(layout.options[row], logs, strict=True):
            counts = {1: 2, 5: 4}.get(one, one) if code == "US" and question in ("Q33", "Q34", "Q35") else one
            merged[counts] = merged.get(counts, 0) + np.exp(log)
        losses.append(stats.entropy([table[question].get(one, 0) for one in merged], list(merged.values())))
    assert checkpoint.best == [pytest.approx(np.mean(losses), rel=1e-4)]
    assert checkpoint.budget.tokens == FORWARDS * len(read)
    widths = {len(option) for row in encoded.options for option in row}
    assert widths == ({1, 2} if task == "wvs_themes" else {1})


@pytest.mark.parametrize("tasks", [("wvs_cloze",), ("wvs", "wvs_themes")])
def test_soft_labels_are_read_as_answers_are(tasks, load):
    """Options of whole texts, by the likelihood per byte; several tasks together."""
    parts = tuple(map(objective_of, tasks))
    model, objective = load("llama", True), parts[0] if len(parts) == 1 else JointObjective(parts)
    examples, rows = SoftLabels(model, [Presentation(objective)]), np.array([3, 50, len(objective.prompts) - 1, 3])
    apart = objective.distributions.divergence(model.answer(objective.prompts).probs)[0]
    assert len(examples) == len(objective.prompts) and apart[rows].min() > 0
    assert float(examples.loss(model, rows.tolist())) == pytest.approx(apart[rows].mean(), rel=1e-4)


def test_soft_labels_of_random_paraphrases_are_those_of_each(load, tmp_path):
    model, objective = load("llama", True), objective_of()
    drawn = [
        objective.paraphrased(np.random.default_rng(seed), order) for seed, order in enumerate(("natural", "reversed"))
    ]
    assert drawn[0].prompts.texts != drawn[1].prompts.texts
    examples, count = SoftLabels(model, [*map(Presentation, drawn)]), len(drawn[0].prompts)
    apart = [each.distributions.divergence(model.answer(each.prompts).probs)[0] for each in drawn]
    wanted = (apart[0][[2, 7]].sum() + apart[1][[0, 2]].sum()) / 4
    assert float(examples.loss(model, [2, count, 7, count + 2])) == pytest.approx(wanted, rel=1e-4)
    steps = np.array(examples.draw(40, 16, np.random.default_rng(0))).reshape(-1, 8)
    of_second = steps >= count
    assert (of_second.all(1) | ~of_second.any(1)).all()  # a group is of one presentation
    assert of_second.all(1).sum() == 40 and len(np.unique(steps)) == 2 * count
    assert steps.tolist() != np.array(examples.draw(40, 16, np.random.default_rng(1))).reshape(-1, 8).tolist()


def test_the_gradient_of_a_packed_pass_is_that_of_each_prompt_alone(load, shape="llama"):
    """LoRA's weights, with their second matrix away from zero, beside plain passes of the unpacked model."""
    model, objective = load(shape, True), objective_of("wvs_themes", "DE")
    examples = SoftLabels(model, [Presentation(objective)])
    rows, found = [0, 5, 9, 30], []
    for packed in (True, False):
        torch.manual_seed(0)
        tuned = attached(model.fresh(), find("aligners", "sft").Settings())
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        if packed:
            learner = model.learner(tuned)
            assert learner.engine is not None
            examples.loss(learner, rows).backward()
            assert learner.tokens == examples.tokens(rows)
        else:
            examples.loss(OneByOne(tuned), rows).backward()
        found.append(torch.cat([one.grad.ravel() for one in tuned.parameters() if one.requires_grad]))
        assert all("lora" in name for name, one in tuned.named_parameters() if one.requires_grad)
    assert found[0].norm() > 0.01
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


class OneByOne:
    """A learner that reads each prompt in plain passes of its own."""

    def __init__(self, model):
        self.model = model

    def logprobs_of(self, encoded):
        return PlainForward(self.model, encoded, alone=True).logprobs(None)


def test_paraphrases_are_learned_in_both_orders(load, tmp_path, monkeypatch):
    objective, seen = objective_of(), []
    changed = type(objective).paraphrased
    monkeypatch.setattr(
        type(objective), "paraphrased", lambda self, rng, order: seen.append(order) or changed(self, rng, order)
    )
    flags = [f"batch={BATCH}", "paraphrases=3"]
    one, checkpoint = align("sft", load("llama", True), objective, tmp_path / "1", 2 * BATCH * FORWARDS, flags)
    two, _ = align("sft", load("llama", True), objective, tmp_path / "2", 2 * BATCH * FORWARDS, flags)
    assert seen == 2 * ["natural", "reversed", "natural"] and checkpoint.budget.spent == 2 * BATCH * FORWARDS
    assert (one.lora / WEIGHTS).read_bytes() == (two.lora / WEIGHTS).read_bytes()
    plain, _ = align("sft", load("llama", True), objective, tmp_path / "3", 2 * BATCH * FORWARDS, flags[:1])
    assert (plain.lora / WEIGHTS).read_bytes() != (one.lora / WEIGHTS).read_bytes()


def test_countries_are_learned_together_each_by_its_name(load, tmp_path):
    model, objective = load("llama", True), objective_of(code="US")
    flags = [f"batch={BATCH}", "rate=0.02", "elicitation=resident", "countries=[CN, US, DE]"]
    aligned, checkpoint = align("sft", model, objective, tmp_path, 40 * BATCH * FORWARDS, flags)
    others = {code: objective.for_country(country(code)) for code in ("CN", "DE")}
    assert aligned.preamble == sentence(objective, "resident") + "\n\n" and "United States" in aligned.preamble
    settings = find("aligners", "sft")(aligner_settings("sft", flags))
    assert [each.country.code for each in settings.countries(objective)] == ["US", "CN", "DE"]
    assert checkpoint.budget.spent == 40 * BATCH * FORWARDS
    assert loss_by_hand(aligned, objective) < loss_by_hand(AlignedModel(model, preamble=aligned.preamble), objective)
    for code, other in others.items():
        named = replace(aligned, preamble=sentence(other, "resident") + "\n\n")
        assert loss_by_hand(named, other) < loss_by_hand(AlignedModel(model, preamble=named.preamble), other), code


@pytest.mark.parametrize(
    "flags, words",
    [
        (["countries=[CN]"], "elicitation that names them"),
        (["elicitation=persona", "countries=[Atlantis]"], "Atlantis"),
    ],
)
def test_countries_without_a_name_are_refused(flags, words):
    with pytest.raises(UsageError, match=words):
        aligner_settings("sft", flags)


def test_a_country_without_figures_is_refused_before_training():
    aligner = find("aligners", "sft")(aligner_settings("sft", ["elicitation=persona", "countries=[SA]"]))
    with pytest.raises(UsageError, match="Saudi Arabia"):
        aligner.check(objective_of(), Budget(1000, 44))


def test_soft_labels_bring_the_distributions_near_at_the_cost_of_the_budget(load, tmp_path):
    model, objective = load("qwen2", True), objective_of()
    aligned, checkpoint = sft(model, objective, tmp_path, 30)
    assert loss_by_hand(aligned, objective) < 0.5 * loss_by_hand(model, objective)
    assert checkpoint.budget.spent == 30 * BATCH * FORWARDS and checkpoint.budget.left == 1


def test_soft_labels_stopped_anywhere_end_the_same(load, tmp_path):
    model, objective = load("llama", True), objective_of()
    whole, plain = sft(model, objective, tmp_path / "whole", 8)
    weights = (whole.lora / WEIGHTS).read_bytes()
    for stop in (1, 3):
        kept = Memory(Budget(8 * BATCH * FORWARDS + 1, 44), stop=stop)
        kept.folder, kept.progress = tmp_path / str(stop), lambda *_: None
        aligner = find("aligners", "sft")(aligner_settings("sft", [f"batch={BATCH}", "rate=0.02", "dropout=0.1"]))
        with pytest.raises(KeyboardInterrupt):
            aligner.align(model, objective, kept.budget, np.random.default_rng(3), kept)
        resumed, again = sft(model, objective, kept.folder, 8, kept=kept.kept)
        assert (resumed.lora / WEIGHTS).read_bytes() == weights
        assert (again.budget.spent, again.budget.tokens) == (plain.budget.spent, plain.budget.tokens)


def test_pairs_have_no_distribution():
    dpo = find("aligners", "dpo")
    with pytest.raises(UsageError, match="`objective` distribution: dpo learns from pairs of options"):
        dpo(dpo.Settings()).check(objective_of(), Budget(10**6, 44))


def test_a_run_records_what_it_minimised(tiny, tmp_path):
    given = ["run", "--aligner", "sft", "--task", "wvs", "--model", str(tiny()), "--dtype", "float32", "--threads", "1"]
    given += ["--objective", "distribution", "--budget", "4", "--no-compare", "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(cli, given)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)
    (folder,) = tmp_path.glob("wvs-*")
    manifest = Manifest.model_validate_json((folder / "submission" / "manifest.json").read_bytes())
    assert manifest.fitted.objective == "distribution" and "--objective distribution" in command(manifest)
    assert json.loads((folder / "config.json").read_bytes())["objective"] == "distribution"
    refused = CliRunner().invoke(cli, [*given[:4], "vsm13", *given[5:]])
    assert isinstance(refused.exception, UsageError) and "--objective distribution: vsm13" in str(refused.exception)
