"""Objectives of answers in text: what is read, what an unreadable answer costs, and which aligners can fit them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import RunError, UnreadableError, UsageError
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.evaluator import Evaluator, require_readable
from culteval.harness.alignment.joint_objective import JointObjective
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.registry import spec_of
from culteval.harness.runs.plan import RunRequest, plan
from culteval.optimizers.best_of_n import BestOfN, BestOfNSettings
from culteval.tasks.answers import Answers, unweighed
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions
from culteval.tasks.verbalized import stated_answers

from ...memory_checkpoint import Memory

EVERYBODY_3 = "1: 0\n2: 0\n3: 100\n4: 0\n5: 0"


def objective_of(task="vsm13_text", scoring="text", where="SA"):
    return fit_objective(spec_of(task), country(where), scoring, MeasureOptions(), 0, 0)


class Says:
    """A model of text alone; ``say`` makes an answer of an item's name and the number of the request."""

    has_weights, tokens = False, 0

    def __init__(self, say):
        self.say, self.asked = say, 0

    def generate(self, prompts, soft, preamble, most, *, weighed):
        assert soft is None and most > 0 and not weighed
        items = [prompts.layout.items[i] for i in prompts.layout.item]
        texts = [self.say(item, number) for number, item in enumerate(items)]
        self.asked += 1
        if prompts.verbalized:
            return stated_answers(prompts.layout, texts)
        return Answers(prompts.layout, *unweighed(prompts.layout), tuple(texts), prompts.parse(texts))

    def answer(self, prompts, soft, preamble):
        raise UnreadableError("it answers in sentences")


def loss_of(objective, say):
    budget = Budget(objective.cost, 24)
    found = Evaluator(Says(say), objective, budget).loss_of_text("Answer.")
    assert budget.left == 0
    return found


def far(where="SA"):
    """World mean minus the country's six scores: equal answers to all items give the world mean (VSM 2013 manual)."""
    names = ("pdi", "idv", "mas", "uai", "lto", "ivr")
    path = Path(spec_of("vsm13").path).with_name("hofstede.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    own = next(row for row in rows if row["iso2"] == where)
    published = [row for row in rows if row["source"] == "matrix-2015" and all(row[n] for n in names)]
    return {n: np.mean([float(row[n]) for row in published]) - float(own[n]) for n in names}


def test_the_loss_is_that_of_the_parsed_answers():
    away = far()
    same = sum(value**2 for value in away.values())
    assert loss_of(objective_of(), lambda item, number: "3") == (pytest.approx(same), 0)
    assert loss_of(objective_of(), lambda item, number: "I say 4.\nOr 2?") == (pytest.approx(same), 0)
    # PDI = 35 (m07 - m02) + 25 (m20 - m23): two points more on m07 are 70 points
    apart = same - away["pdi"] ** 2 + (away["pdi"] + 70) ** 2
    assert loss_of(objective_of(), lambda item, number: "5" if item == "m07" else "3") == (pytest.approx(apart), 0)


def test_stated_shares_are_fitted():
    away = far()
    same, stated = sum(value**2 for value in away.values()), objective_of("vsm13_verbalized", "verbalized")
    assert stated.most_tokens > 8 and stated.prompts.verbalized
    assert loss_of(stated, lambda item, number: EVERYBODY_3) == (pytest.approx(same), 0)
    half = "1: 0, 2: 0, 3: 50, 4: 0, 5: 50"
    apart = same - away["pdi"] ** 2 + (away["pdi"] + 35) ** 2
    assert loss_of(stated, lambda item, number: half if item == "m07" else EVERYBODY_3) == (pytest.approx(apart), 0)


def drawn_answers(scoring, objective, rng):
    """A random readable answer to every prompt."""
    codes = rng.integers(1, 6, objective.cost)
    texts = {code: "\n".join(f"{each}: {100 * (each == code)}" for each in range(1, 6)) for code in range(1, 6)}
    return [texts[code] if scoring == "verbalized" else str(code) for code in codes.tolist()]


@pytest.mark.parametrize("scoring", ["text", "verbalized"])
@pytest.mark.parametrize("every", [1, 2, 48])
@pytest.mark.parametrize("where", ["SA", "US"])
def test_an_unreadable_answer_is_never_a_gain(scoring, every, where):
    """Whatever was answered instead: refusing every question, every second one, or one."""
    objective = objective_of(f"vsm13_{scoring}", scoring, where)
    for seed in range(12):
        said = drawn_answers(scoring, objective, np.random.default_rng(seed))
        readable = loss_of(objective, lambda item, number, said=said: said[number])
        refused = loss_of(objective, lambda item, number, said=said: said[number] if number % every else "I can't.")
        assert readable.unread == 0 and refused.unread == len(range(0, objective.cost, every))
        assert readable.loss <= refused.loss < np.inf


class Silent(Says):
    """A model behind an endpoint with probabilities, which are lacking for some prompts."""

    def __init__(self, probs, unread):
        super().__init__(None)
        self.probs, self.unread = probs, unread

    def answer(self, prompts, soft, preamble):
        probs = self.probs.copy()
        probs[self.unread] = prompts.layout.inside[self.unread] / prompts.layout.widths[self.unread, None]
        return Answers(prompts.layout, probs[None], np.where(self.unread, 1.0, 0.0)[None])


@pytest.mark.parametrize("scoring", ["expected", "argmax"])
@pytest.mark.parametrize("task", ["vsm13", "culture_core", "cdeval_idv"])
def test_a_lacking_probability_is_never_a_gain(task, scoring):
    objective = objective_of(task, scoring, "US")
    rng, inside = np.random.default_rng(0), objective.prompts.layout.inside
    for row in range(0, objective.cost, 7):
        weights = np.exp(3 * rng.standard_normal(inside.shape)) * inside
        model = Silent(weights / weights.sum(1, keepdims=True), np.arange(objective.cost) == row)
        found = Evaluator(model, objective, Budget(objective.cost, 24)).loss_of_text("Answer.")
        whole = float(objective.loss(model.probs[None])[0])
        assert found.unread == 1 and whole <= found.loss + 1e-9 and np.isfinite(found.loss)


def test_an_endpoint_that_answers_in_sentences_is_bounded_too():
    """One candidate whose first tokens name no option must not end a search."""
    objective = objective_of("vsm13", "expected")
    assert objective.most_tokens == 0
    found = loss_of(objective, None)
    assert found.unread == objective.cost and sum(value**2 for value in far().values()) < found.loss < np.inf


def test_labelled_choices_in_text_cost_their_errors():
    objective = objective_of("probes", "text", "US")
    right, letters = objective.demonstrations.astype(int) - 1, objective.prompts.choices  # in code order
    assert loss_of(objective, lambda item, number: letters[number][right[number]]) == (pytest.approx(0, abs=1e-6), 0)
    assert loss_of(objective, lambda item, number: letters[number][1 - right[number]]).loss == pytest.approx(1)
    assert loss_of(objective, lambda item, number: "") == (pytest.approx(1), objective.cost)


def test_tasks_fitted_together_are_read_in_one_way():
    both = JointObjective((objective_of(where="US"), objective_of("wvs_text", where="US")))
    assert both.most_tokens == 8 and not both.prompts.verbalized and both.cost == len(both.prompts)
    asked = ("vsm13_verbalized", "wvs_verbalized")
    shares = JointObjective(tuple(objective_of(name, "verbalized", "US") for name in asked))
    assert shares.prompts.verbalized and shares.most_tokens > 8
    with pytest.raises(UsageError, match="different ways"):
        JointObjective((objective_of(where="US"), shares.parts[1])).prompts  # noqa: B018


def test_a_search_without_a_single_readable_answer_ends_with_a_remedy(tmp_path):
    objective = objective_of()
    with pytest.raises(UnreadableError, match=r"no answer of 2 texts to vsm13_text can be read.*Turn reasoning off"):
        require_readable([objective.cost, objective.cost], objective)
    require_readable([objective.cost, objective.cost - 1], objective)
    checkpoint = Memory(Budget(3 * objective.cost, 24))
    with pytest.raises(RunError, match="can be read"):
        BestOfN(BestOfNSettings()).align(
            Says(lambda item, number: "Well..."), objective, checkpoint.budget, np.random.default_rng(0), checkpoint
        )

    checkpoint = Memory(Budget(100 * objective.cost, 24))  # it ends early, before the rest is spent
    with pytest.raises(UnreadableError, match="no answer of 8 texts"):
        BestOfN(BestOfNSettings()).align(
            Says(lambda item, number: "Well..."), objective, checkpoint.budget, np.random.default_rng(0), checkpoint
        )
    assert checkpoint.budget.spent == 8 * objective.cost


def test_best_of_n_needs_text_alone():
    objective, checkpoint = objective_of(), Memory(Budget(4 * 48, 24))
    model = Says(lambda item, number: "3" if model.asked != 2 else "2" if item == "m07" else "3")
    aligned = BestOfN(BestOfNSettings()).align(
        model, objective, checkpoint.budget, np.random.default_rng(0), checkpoint
    )
    assert model.asked == 4 and "Saudi Arabia" in aligned.preamble and checkpoint.budget.left == 0


def test_a_model_in_memory_writes_the_same_text_without_probabilities(load):
    model, prompts = load("llama", True), objective_of().prompts.take(np.arange(6))
    whole, text = (model.generate(prompts, None, "Answer.", 8, weighed=weighed) for weighed in (True, False))
    assert text.texts == whole.texts and (text.parsed == whole.parsed).all()
    assert not text.weighed and (text.off_options == 1).all() and whole.weighed


def planned(**given):
    return plan(RunRequest.of(**{"aligner": "evo_prompt", "tasks": "vsm13_text", "country": "US"} | given))


def test_a_run_says_how_its_answers_are_read():
    assert planned().scoring == "expected"
    assert planned(scoring="text").scoring == "text"
    assert planned(tasks="vsm13_verbalized").scoring == "verbalized"
    assert planned(tasks="vsm13_verbalized", scoring="verbalized").scoring == "verbalized"
    assert planned(tasks="vsm13", fit="wvs_text", scoring="text", aligner="best_of_n").scoring == "text"
    assert planned(aligner="icl", tasks="vsm13_verbalized").scoring == "expected"  # fits nothing; names of runs stay


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": "vsm13", "scoring": "text"}, "`fit` vsm13: no answers by `scoring` text. .*such as vsm13_text"),
        ({"scoring": "verbalized"}, "vsm13_text: no answers by `scoring` verbalized. .*such as vsm13_verbalized"),
        ({"tasks": "vsm13_verbalized", "scoring": "argmax"}, "vsm13_verbalized: no answers by `scoring` argmax"),
        ({"tasks": "vsm13_verbalized", "scoring": "text"}, "vsm13_verbalized: no answers by `scoring` text"),
        ({"fit": ("vsm13", "wvs_verbalized")}, "wvs_verbalized: no answers by `scoring` expected"),
        ({"aligner": "de", "scoring": "text"}, "de fits option probabilities.* Use .*best_of_n, evo_prompt"),
        ({"aligner": "gd", "tasks": "vsm13_verbalized"}, "`scoring` verbalized: gd fits option probabilities"),
        ({"scoring": "median"}, "`scoring` 'median'"),
    ],
)
def test_what_cannot_be_read_is_refused_before_a_model_is_loaded(given, message):
    with pytest.raises(UsageError, match=message) as error:
        planned(**given)
    assert len(str(error.value).splitlines()) == 1
