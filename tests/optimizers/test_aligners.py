"""What every searching aligner promises: budget to the unit, seeds, exact resumption, better than where it began."""

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from culteval.errors import RunError, UsageError
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.evaluator import Evaluator
from culteval.harness.alignment.joint_objective import JointObjective
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.cli.main import cli
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.registry import find, spec_of
from culteval.harness.runs.checks import require_effect
from culteval.harness.runs.config import aligner_settings
from culteval.optimizers import embeddings, gd
from culteval.optimizers.descent import SoftPromptAdam, cross_entropy, label_places, penalised, smooth_loss
from culteval.optimizers.gd import presentations
from culteval.optimizers.spaces import SpaceSettings, lay_space, space_cost
from culteval.tasks.answers import UNPARSED
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions
from safetensors.torch import load_file, save_file

from ..memory_checkpoint import Memory

SMALL = {
    "random": ["tokens=3"],
    "de": ["tokens=3", "population=6", "screening=20"],
    "cma": ["tokens=3", "population=6", "dimensions=12"],
    "pso": ["tokens=3", "population=6", "dimensions=12"],
    "gd": ["tokens=3"],
    "augmented": ["tokens=3"],
    "best_of_n": ["middles=3"],
}
DESCENTS = ("gd", "augmented")
EVOLVED = ("tokens=3", "refine=0", "screening=1", "space=random")  # DE alone, as it was by default
VARIANTS = {
    "separable": ("cma", ["tokens=3", "population=6", "space=full", "separable=true"]),
    "embeddings": ("cma", ["tokens=3", "population=4", "space=embeddings", "dimensions=12", "start=persona"]),
    "swarm around the mean": ("pso", ["tokens=3", "population=6", "space=full", "start=mean"]),
    "one presentation a step": ("gd", ["tokens=3", "presentations=1", "start=noise", "schedule=constant"]),
    "descent from the mean": ("gd", ["tokens=3", "start=mean"]),
    "labels": ("gd", ["tokens=3", "target=labels"]),
    "five labels of one paraphrase a step": ("gd", ["tokens=3", "target=labels", "presentations=1", "items=5"]),
    "retold in one order": ("augmented", ["tokens=3", "orders=natural", "off_options=0", "averaged=1"]),
    "evolution in a subspace": ("de", [*EVOLVED, "population=6", "dimensions=8", "start=persona"]),
    "evolution begun anew": ("de", [*EVOLVED, "population=5", "restart=1", "racing=false"]),
    "evolution adapted": ("de", [*EVOLVED, "population=6", "dimensions=8", "strategy=shade"]),
    "evolution refined": ("de", [*EVOLVED, "population=5", "dimensions=6", "refine=0.5"]),
    "full space refined": ("de", [*EVOLVED, "population=5", "space=full", "start=tokens", "refine=0.4"]),
    "evolution screened": ("de", [*EVOLVED, "population=6", "dimensions=8", "screening=20"]),
    "evolution in active directions": ("de", [*EVOLVED, "population=4", "space=active", "dimensions=6"]),
    "swarm begun anew": ("pso", ["tokens=3", "population=4", "dimensions=6", "restart=1"]),
    "random in a subspace": ("random", ["tokens=3", "space=embeddings", "dimensions=6", "racing=false"]),
    "orders in turn": ("augmented", ["tokens=3", "own=1", "countries=[US]"]),
    "descent from the persona": ("gd", ["tokens=12", "start=persona", "rate=0.3"]),
}
CASES = {name: (name, flags) for name, flags in SMALL.items()} | VARIANTS


def objective_of(name="vsm13", scoring="expected", code="SA"):
    spec = spec_of(name)
    return fit_objective(spec, country(code), scoring, MeasureOptions(), 0, 0), len(spec.items.ids)


def made(aligned):
    """What an aligner made, to be compared to the last bit."""
    return aligned.preamble, None if aligned.soft is None else aligned.soft.tobytes()


def align(case, model, objective, budget, checkpoint=None, seed=0):
    name, flags = CASES[case]
    aligner = find("aligners", name)(aligner_settings(name, flags))
    return aligner.align(model, objective, budget, np.random.default_rng(seed), checkpoint or Memory(budget))


@pytest.mark.parametrize("case", CASES)
def test_budget_seed_and_gain(case, load):
    model, (objective, items) = load("llama", True), objective_of()
    # A run of CMA-ES with 45 has two generations, of which the second is better or not by the rounding of a processor.
    found, enough = [], {"labels": 61, "cma": 120}.get(case, 45)
    for seed in (0, 0, 1):
        budget = Budget(enough * items, items)
        checkpoint = Memory(budget)
        found.append(align(case, model, objective, budget, checkpoint, seed))
        step = objective.cost * (3 if CASES[case][0] in DESCENTS else 1) // (2 if "one" in case else 1)
        assert budget.total - step < budget.spent <= budget.total or CASES[case][0] == "de"
        assert budget.spent <= budget.total and budget.tokens > 0 and budget.seconds > 0
    assert made(found[0]) == made(found[1])
    # A descent from a sentence over all prompts draws nothing.
    assert made(found[0]) != made(found[2]) or case == "descent from the persona"
    if "one" not in case and CASES[case][0] != "augmented":
        loss = objective.loss(found[0].answer(objective.prompts).probs)[0]
        last = Memory(Budget(enough * items, items))
        align(case, model, objective, last.budget, last)
        assert loss == pytest.approx(last.best[-1], rel=1e-4)
        assert last.best[-1] < last.best[0] or (CASES[case][0] == "random" and last.best[-1] == last.best[0])


@pytest.mark.parametrize("case", CASES)
def test_stopped_anywhere_it_ends_the_same(case, load):
    model, (objective, items) = load("llama", True), objective_of()
    enough = 80 if case == "de" else 26  # the wide search and refining
    whole = align(case, model, objective, Budget(enough * items, items))
    for stop in (1, 2, *((3, 4) if case == "de" else ())):
        first = Budget(enough * items, items)
        checkpoint = Memory(first, stop=stop)
        with pytest.raises(KeyboardInterrupt):
            align(case, model, objective, first, checkpoint)
        again = Budget(enough * items, items)
        resumed = align(case, model, objective, again, Memory(again, checkpoint.kept))
        assert made(resumed) == made(whole)
        assert again.spent > first.spent or CASES[case][0] == "random"  # ten candidates a save end its budget in two


@pytest.mark.parametrize("task", ["wvs", "cdeval_core", "culture_core", "synthetic_survey", "probes"])
@pytest.mark.parametrize("name", SMALL)
def test_every_objective_can_be_fitted(task, name, load):
    model, (objective, items) = load("llama", True), objective_of(task, code="US")
    budget = Budget({"de": 20, "gd": 20, "best_of_n": 2, "augmented": 4}.get(name, 8) * objective.cost, items)
    checkpoint = Memory(budget)
    aligned = align(name, model, objective, budget, checkpoint)
    assert np.isfinite(checkpoint.best).all() and 0 < budget.spent <= budget.total
    assert aligned.preamble if name == "best_of_n" else np.isfinite(aligned.soft).all() and aligned.soft.any()
    if name not in DESCENTS:
        assert checkpoint.best == sorted(checkpoint.best, reverse=True)
    if name == "gd":
        assert checkpoint.best[-1] < checkpoint.best[0]


@pytest.fixture(scope="module")
def spoiled(tiny, tmp_path_factory):
    """The folder of a tiny model with one weight that is not a number."""
    folder = shutil.copytree(tiny(), tmp_path_factory.mktemp("spoiled") / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("name", ["naive", "icl", "random_prefix", "steer", "sft", "dpo", *SMALL])
def test_a_weight_that_is_not_a_number_is_told_in_a_line(name, spoiled, tmp_path):
    given = ["run", "--aligner", name, "--task", "vsm13", "--model", str(spoiled), "--dtype", "float32", "--no-compare"]
    given += ["--threads", "1", "--budget", "14", "--out", str(tmp_path / "runs")]
    done = CliRunner().invoke(cli, given + [part for flag in SMALL.get(name, ()) for part in ("--set", flag)])
    assert isinstance(done.exception, RunError), done.output
    told = str(done.exception)
    assert done.exception.exit_code == 5 and len(told.splitlines()) == 1 and "--dtype float32" in told
    assert not list((tmp_path / "runs").glob("*/scores.json"))


def test_an_untrained_prompt_is_one_of_random_search_s_first(load):
    model, (objective, items) = load("llama", True), objective_of()
    budget = Budget(0, items)
    aligned = find("aligners", "random_prefix")(aligner_settings("random_prefix", ["tokens=3"])).align(
        model, objective, budget, np.random.default_rng(5), Memory(budget)
    )
    one = align("random", model, objective, Budget(objective.cost, items), seed=5)
    np.testing.assert_array_equal(aligned.soft, one.soft)
    assert budget.spent == 0


def test_gradients_are_those_of_small_steps(load):
    """One step of Adam with a tiny rate goes down by what the slope says."""
    model, (objective, items) = load("llama", True), objective_of()
    losses = []
    for steps in (1, 30):
        budget = Budget(3 * objective.cost * steps, items)
        checkpoint = Memory(budget)
        align("gd", model, objective, budget, checkpoint)
        losses.append(checkpoint.best[-1])
    assert losses[1] < 0.9 * losses[0]


@pytest.mark.parametrize("scoring", ["expected", "argmax"])
@pytest.mark.parametrize("name", ["gd", "augmented"])
def test_labels_have_a_gradient_whatever_the_read_out(name, scoring, load):
    model, (objective, items) = load("llama", True), objective_of(scoring=scoring)
    before = objective.loss(model.answer(objective.prompts).probs)[0]
    settings = aligner_settings(name, ["tokens=6", "target=labels", "rate=0.5"])
    budget = Budget(6 * objective.cost * 40, items)
    aligned = find("aligners", name)(settings).align(model, objective, budget, np.random.default_rng(0), Memory(budget))
    assert objective.loss(aligned.answer(objective.prompts).probs)[0] < before


def test_labels_are_learned_some_items_a_step(load):
    model, (objective, items) = load("llama", True), objective_of(scoring="argmax")
    flags = ["tokens=20", "target=labels", "presentations=1", "items=12", "rate=0.5", "start=mean"]
    budget = Budget(36 * 300, items)
    aligner = find("aligners", "gd")(aligner_settings("gd", flags))
    aligned = aligner.align(model, objective, budget, np.random.default_rng(0), Memory(budget))
    assert budget.spent == budget.total
    right = aligned.answer(objective.prompts).probs[0].argmax(1) == label_places(objective)
    before = model.answer(objective.prompts).probs[0].argmax(1) == label_places(objective)
    assert right.mean() > max(0.6, before.mean() + 0.2)


@pytest.mark.parametrize("items", [10, 12, 23])
def test_the_rate_falls_over_the_whole_budget_whatever_a_step_costs(load, items, monkeypatch):
    rates, step = [], SoftPromptAdam.step

    def noted(self, *args, **given):
        step(self, *args, **given)
        rates.append(self.adam.param_groups[0]["lr"] / self.rate)

    monkeypatch.setattr(SoftPromptAdam, "step", noted)
    model, (objective, per_survey) = load("llama", True), objective_of(scoring="argmax")
    flags = ["tokens=2", "target=labels", "presentations=1", f"items={items}"]
    budget = Budget(24 * 3 * 10, per_survey)
    find("aligners", "gd")(aligner_settings("gd", flags)).align(
        model, objective, budget, np.random.default_rng(0), Memory(budget)
    )
    count = 10 * -(-24 // items)
    assert budget.spent == budget.total and len(rates) == count
    np.testing.assert_allclose(rates, (1 + np.cos(np.pi * np.arange(count) / count)) / 2, atol=1e-9)


def test_beta2_says_how_soon_a_large_gradient_is_forgotten(load):
    model, moved = load("llama", True), {}
    for beta2 in (0.999, 0.95):
        adam = SoftPromptAdam(model, np.zeros((2, model.dim), np.float32), 0.1, beta2)
        for weight in (100.0, *[1.0] * 60):
            adam.step(lambda soft, weight=weight: weight * soft.sum())
        before = adam.prompt
        adam.step(lambda soft: soft.sum())
        moved[beta2] = float(np.abs(adam.prompt - before).mean())
    assert moved[0.95] > 2 * moved[0.999]
    assert aligner_settings("gd", ["beta2=0.95"]).beta2 == 0.95


def test_clipped_gradients_have_a_norm_of_their_own_or_less(load):
    model = load("llama", True)
    for clip, weight, norm in ((None, 100.0, 100.0), (1.0, 100.0, 1.0), (1.0, 0.5, 0.5)):
        adam = SoftPromptAdam(model, np.zeros((2, model.dim), np.float32), 0.1, clip=clip)
        adam.step(lambda soft, weight=weight: weight * soft[0, 0, 0])
        assert float(adam.soft.grad.norm()) == pytest.approx(norm)
    assert aligner_settings("gd", ["clip=1"]).clip == 1


def test_labels_are_the_country_s_answers(load):
    objective, _ = objective_of("culture_core")
    places = label_places(objective)
    questions = {q.id: q for q in objective.spec.items.questions}
    layout = objective.prompts.layout
    assert all(p + 1 == questions[layout.items[i]].answer for p, i in zip(places, layout.item, strict=True))


def test_prompts_without_a_label_do_not_count():
    objective, _ = objective_of("wvs", code="EG")
    places, items = label_places(objective), np.array(objective.prompts.layout.items)[objective.prompts.layout.item]
    unasked = np.isin(items, ["Q25", "Q36"])
    assert ((places == UNPARSED) == unasked).all()
    logs = torch.log_softmax(torch.randn(1, len(places), 10, generator=torch.Generator().manual_seed(0)), -1)
    asked = cross_entropy(logs[:, ~unasked], places[~unasked])
    assert float(cross_entropy(logs, places)) == pytest.approx(float(asked))
    assert float(cross_entropy(logs[:, unasked], places[unasked])) == 0


@pytest.mark.parametrize("tasks", [("vsm13",), ("vsm13", "cdeval_idv")])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_step_asks_more_than_was_said(load, tasks, count):
    """Where a presentation has more items than a step may ask, pieces of different ones fill the steps."""
    objective = JointObjective(tuple(objective_of(name)[0] for name in tasks)) if len(tasks) > 1 else objective_of()[0]
    settings = aligner_settings("gd", ["tokens=2", "target=labels", f"presentations={count}", "items=20"])
    parts, cost = gd._drawn(objective, settings)
    steps = gd._epoch(parts, settings, np.random.default_rng(0))
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(objective.prompts)))
    assert max(3 * len(rows) for rows in steps) <= cost
    assert all(len(np.intersect1d(rows, part)) <= 20 for rows in steps for part in parts)
    budget = Budget(cost, objective.cost)  # for one step
    find("aligners", "gd")(settings).align(
        load("llama", True), objective, budget, np.random.default_rng(0), Memory(budget)
    )
    assert 0 < budget.spent <= cost


def test_descent_has_patience_and_needs_a_gradient(load):
    model, (objective, items) = load("llama", True), objective_of()
    budget = Budget(3 * objective.cost * 40, items)
    settings = aligner_settings("gd", ["tokens=2", "rate=10", "patience=1", "schedule=constant"])
    find("aligners", "gd")(settings).align(model, objective, budget, np.random.default_rng(0), Memory(budget))
    assert budget.spent < budget.total
    stiff, _ = objective_of("vsm13_text", scoring="text")
    with pytest.raises(UsageError, match="no gradient"):
        align("gd", model, stiff, Budget(10**6, items))
    with pytest.raises(UsageError, match="one step costs 6"):
        align("gd", model, objective, Budget(5 * items, items))


def test_argmax_answers_are_shared_where_they_are_descended():
    """The loss of options at a quarter of the temperature, 1 where options are equal; with joint objectives, too."""
    parts = [objective_of(name, "argmax", "US")[0] for name in ("wvs", "iw_map")]
    found = []
    for stiff in (*parts, JointObjective(tuple(parts))):
        logs = torch.randn(1, *stiff.prompts.layout.codes.shape, dtype=torch.float64, requires_grad=True)
        shared = (logs.detach() * 4).masked_fill(~torch.tensor(stiff.prompts.layout.inside), -torch.inf).softmax(-1)
        inside = logs.masked_fill(~torch.tensor(stiff.prompts.layout.inside), -torch.inf)
        loss = smooth_loss(stiff)(inside.softmax(-1))[0]
        assert loss.item() == pytest.approx(float(stiff.read_as("expected").loss(shared.numpy())[0]))
        assert loss.item() != pytest.approx(stiff.loss(shared.numpy())[0])
        loss.backward()
        assert float(logs.grad.abs().sum()) > 0
        equal = torch.tensor(np.where(stiff.prompts.layout.inside, 0.0, -np.inf))[None].log_softmax(-1)
        found.append(float(penalised(stiff, equal, 0)))
    assert found == pytest.approx([1, 1, 1])


def test_the_worst_paraphrase_shares_answers_by_itself():
    spec = spec_of("vsm13")
    worst = fit_objective(spec, country("SA"), "argmax", MeasureOptions(), 0, 0, "worst_paraphrase")
    assert smooth_loss(worst) is worst.loss


@pytest.mark.parametrize("name", ["gd", "augmented"])
def test_argmax_losses_fall_by_descent(name, load):
    model, (objective, items) = load("llama", True), objective_of(scoring="argmax")
    before = objective.loss(model.answer(objective.prompts).probs)[0]
    budget = Budget(3 * objective.cost * 60, items)
    settings = aligner_settings(name, ["tokens=4", "rate=1"])
    aligned = find("aligners", name)(settings).align(model, objective, budget, np.random.default_rng(0), Memory(budget))
    assert objective.loss(aligned.answer(objective.prompts).probs)[0] < before / 2


def test_a_small_share_of_the_steps_averages_the_last(load):
    model, (objective, items) = load("llama", True), objective_of()
    found = []
    for averaged in ("1e-17", "0.01"):  # of eight steps
        budget = Budget(24 * items, items)
        settings = aligner_settings("augmented", ["tokens=3", f"averaged={averaged}"])
        checkpoint = Memory(budget)
        aligner, rng = find("aligners", "augmented")(settings), np.random.default_rng(0)
        aligned = aligner.align(model, objective, budget, rng, checkpoint)
        assert checkpoint.saves == 8
        np.testing.assert_array_equal(aligned.soft, checkpoint.kept[0]["adam_soft"])
        found.append(aligned.soft)
    assert found[0].any()
    np.testing.assert_array_equal(*found)


def test_presentations_are_paraphrases_by_orders():
    objective, _ = objective_of("cdeval_core")
    parts = presentations(objective.prompts.layout)
    assert len(parts) == 2 and sorted(np.concatenate(parts).tolist()) == list(range(len(objective.prompts)))


def test_moments_of_the_embeddings_are_those_of_all_at_once(load, monkeypatch):
    model = load("llama", True)
    monkeypatch.setattr(model, "vocabulary_parts", partial(model.vocabulary_parts, 100))
    vectors = model.token_vectors(model.ordinary_tokens()).astype(float)
    mean, scale = embeddings.mean_and_scale(model)
    np.testing.assert_allclose(mean, vectors.mean(0), rtol=1e-6)
    assert scale == pytest.approx(vectors.std(), rel=1e-12)
    np.testing.assert_allclose(
        embeddings.scatter(model, vectors.mean(0)), len(vectors) * np.cov(vectors.T, bias=True), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", ["gd", "augmented"])
def test_embeddings_are_read_once_for_a_descent_from_their_mean(name, load, monkeypatch):
    model, (objective, items) = load("llama", True), objective_of()
    parts, read = type(model).vocabulary_parts, []
    monkeypatch.setattr(type(model), "vocabulary_parts", lambda self, *rows: read.append(1) or parts(self, *rows))
    budget, settings = Budget(6 * items, items), find("aligners", name).Settings(tokens=3, start="mean")
    find("aligners", name)(settings).align(model, objective, budget, np.random.default_rng(0), Memory(budget))
    assert read == [1]


@pytest.mark.parametrize("space", ["full", "random", "embeddings", "active"])
def test_a_unit_step_is_one_deviation_of_the_embeddings(space, load):
    model, (objective, items) = load("llama", True), objective_of()
    settings = SpaceSettings(tokens=6, space=space, dimensions=24)
    laid = lay_space(Evaluator(model, objective, Budget(6 * items, items)), settings, np.random.default_rng(0))
    vectors = np.random.default_rng(1).standard_normal((400, laid.dim))
    moved = laid.prompts(vectors) - laid.prompts(np.zeros((1, laid.dim)))
    assert moved.std() == pytest.approx(model.token_vectors(model.ordinary_tokens()).std(), rel=0.15)
    again = type(laid).from_state(laid.state())
    np.testing.assert_array_equal(again.prompts(vectors), laid.prompts(vectors))


def test_active_directions_are_principal_gradients_of_expected_answers(load):
    model, (objective, items) = load("llama", True), objective_of(scoring="argmax")
    budget, settings = Budget(6 * items, items), SpaceSettings(tokens=3, space="active", dimensions=5)
    laid = lay_space(Evaluator(model, objective, budget), settings, np.random.default_rng(0))
    assert budget.spent == 6 * items == space_cost(objective, settings)
    length = (laid.centre.size / 5) ** 0.5
    np.testing.assert_allclose(laid.basis @ laid.basis.T, length**2 * np.eye(5), atol=1e-6 * length**2)

    def expected(prompts):  # (items, n): mean over an item's prompts of the expected answer code
        layout, probs = objective.prompts.layout, model.answer(objective.prompts, prompts.astype(np.float32)).probs
        codes = (probs * np.where(layout.inside, layout.codes, 0)).sum(-1)
        return np.stack([codes[:, layout.item == item].mean(1) for item in np.unique(layout.item)])

    def rise(direction):  # of the expected answers, by central differences
        step = 0.003 * direction.reshape(laid.centre.shape) / length
        high, low = expected(np.stack([laid.centre + step, laid.centre - step])).T
        return np.linalg.norm(high - low)

    rises = [rise(direction) for direction in laid.basis]
    assert rises[0] > 1.5 * rises[-1] and rises == sorted(rises, reverse=True)
    others = np.random.default_rng(1).standard_normal((20, laid.centre.size))
    others *= length / np.linalg.norm(others, axis=1, keepdims=True)
    assert max(map(rise, others)) < rises[0]


@pytest.mark.parametrize("name", ["de", "random", "cma", "pso"])
def test_an_active_space_is_paid_from_the_budget(name, load):
    model, (objective, items) = load("llama", True), objective_of(scoring="argmax")
    aligner = find("aligners", name)(find("aligners", name).Settings(tokens=3, space="active", dimensions=4))
    with pytest.raises(UsageError, match="candidate with the gradients costs 8 survey evaluations"):
        aligner.check(objective, Budget(7 * items, items))
    budget = Budget(9 * items, items)
    aligner.align(model, objective, budget, np.random.default_rng(0), Memory(budget))
    assert 7 * items < budget.spent <= 9 * items


@pytest.mark.parametrize("strategy", ["best1bin", "shade"])
def test_the_last_share_of_the_budget_is_spent_near_the_best_prompt(load, strategy, monkeypatch):
    model, (objective, items) = load("llama", True), objective_of()
    flags = [
        *EVOLVED,
        "population=5",
        "dimensions=6",
        "space=active",
        "sigma=2",
        "refine=0.5",
        f"strategy={strategy}",
    ]
    asked, answers = [], Evaluator.answers

    def noted(self, soft):
        asked.append((self.budget.spent / items, soft))
        return answers(self, soft)

    monkeypatch.setattr(Evaluator, "answers", noted)
    budget = Budget(100 * items, items)
    checkpoint = Memory(budget)
    aligner = find("aligners", "de")(aligner_settings("de", [*flags, "racing=false"]))
    best = aligner.align(model, objective, budget, np.random.default_rng(0), checkpoint).soft
    wide, near = ([soft for spent, soft in asked if (spent > 50) == late] for late in (False, True))
    assert len(wide) > 3 and len(near) > 3
    first = near[0][0]  # the best prompt of the first half, and others around it
    assert any(np.array_equal(first, one) for soft in wide for one in soft)
    assert max(abs(soft - first).max() for soft in near) < 0.2 * max(abs(soft - wide[0][0]).max() for soft in wide)
    assert abs(best - first).max() < 0.2 * max(abs(soft - wide[0][0]).max() for soft in wide)
    assert checkpoint.best[-1] <= min(checkpoint.best)


@pytest.mark.parametrize("name", ["random", "de", "cma", "pso"])
def test_a_search_starts_from_a_text(load, name):
    model, (objective, items) = load("llama", True), objective_of()
    text, space = "You live in Saudi Arabia.", ["start=text", "space=random", "dimensions=4", "sigma=0.001"]
    length = len(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def aligned(tokens, *flags):
        budget = Budget(8 * objective.cost, items)
        aligner = find("aligners", name)(aligner_settings(name, [*space, f"tokens={tokens}", *flags]))
        return aligner.align(model, objective, budget, np.random.default_rng(0), Memory(budget)).soft[0]

    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    found, embedded = aligned(length, f"text={text}"), model.token_vectors(np.array(ids))
    assert abs(found - embedded).max() < 0.02 * embedded.std()
    with pytest.raises(UsageError, match=f"text: has {length} tokens for a prompt of 3. Add tokens={length}"):
        aligned(3, f"text={text}")
    for wrong in ([], ["start=mean", "text=x"]):
        with pytest.raises(UsageError, match="text: the sentence to start from"):
            aligned(length, *wrong)


def test_a_search_restarts_only_where_the_budget_pays_for_its_space(load):
    model, (objective, items) = load("llama", True), objective_of(scoring="argmax")
    settings = find("aligners", "random").Settings(tokens=3, space="active", dimensions=4, restart=1)
    budget = Budget(12 * items, items)  # 6 for the space and 2 a candidate: no second space
    find("aligners", "random")(settings).align(model, objective, budget, np.random.default_rng(0), Memory(budget))
    assert budget.spent == 12 * items


def test_an_alignment_without_effect_is_refused(load):
    model, (objective, _) = load("llama", True), objective_of()
    require_effect(AlignedModel(model), objective, pytest.fail)
    require_effect(AlignedModel(model, np.ones((1, 2, model.dim), dtype=np.float32)), objective, pytest.fail)

    class Deaf(AlignedModel):
        def answer(self, prompts, **_):
            return AlignedModel(self.model).answer(prompts)

    with pytest.raises(RunError, match="no effect"):
        require_effect(Deaf(model, np.ones((1, 2, model.dim), dtype=np.float32)), objective, pytest.fail)


@pytest.mark.parametrize(("dtype", "little", "something"), [("float32", 5e-5, 2e-4), ("bfloat16", 0.05, 0.2)])
@pytest.mark.parametrize("sure", [False, True])
def test_an_effect_is_more_than_rounding(dtype, little, something, sure, load):
    """In log-probabilities, so that a model that is sure of itself is judged like any other; little is said."""
    model, (objective, _) = load("llama", True), objective_of()
    model.info = model.info.model_copy(update={"dtype": dtype})

    class Moved(AlignedModel):
        by = 0.0

        def answer(self, prompts, **_):
            found = AlignedModel(self.model).answer(prompts)
            odds = np.log(np.maximum(found.probs, 1e-30)) * (50 if sure else 1)
            odds[..., 0] += self.by if self.soft is not None else 0
            probs = np.exp(odds - odds.max(-1, keepdims=True))
            return replace(found, probs=probs / probs.sum(-1, keepdims=True))

    moved = Moved(model, np.ones((1, 2, model.dim), dtype=np.float32))
    said = []
    Moved.by = little
    require_effect(moved, objective, said.append)
    assert [f"rounding to {dtype}" in line for line in said] == [True]
    Moved.by = something
    require_effect(moved, objective, pytest.fail)


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("cma", ["space=full"], "separable=true"),
        ("cma", ["dimensions=2000"], "separable=true"),
        ("cma", ["population=1"], "population"),
        ("pso", ["population=1"], "population"),
        ("pso", ["sigma=0"], "sigma"),
        ("gd", ["rate=0"], "rate"),
        ("gd", ["tokens=0"], "tokens"),
        ("gd", ["steps=4"], "no such setting"),
        ("gd", ["items=5"], "needs target=labels"),
        ("gd", ["items=5", "target=labels"], "presentations a step"),
        ("gd", ["patience=3", "presentations=1"], "do not compare"),
        ("cma", ["space=half"], "space"),
    ],
)
def test_bad_settings_are_refused_before_any_model_is_loaded(name, flags, words):
    with pytest.raises(UsageError, match=words):
        aligner_settings(name, flags)
