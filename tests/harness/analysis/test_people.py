"""``subgroups`` and ``structure``: a submission's personas beside the respondents of a file, computed here by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.analysis import subgroups as people
from culteval.harness.analysis.structure import _agreement, _without_one, structure
from culteval.harness.analysis.subgroups import _gap, _sample, subgroups
from culteval.harness.registry import spec_of
from culteval.tasks.answers import Answers
from culteval.tasks.personas import draw_attributes, draw_personas
from culteval.tasks.prompts import ProtocolOptions, of_split, render_protocol
from scipy import stats

from ...command import invoked

ITEMS = {"Q1": 4, "Q2": 4, "Q8": 2, "Q27": 4, "Q33": 5}  # asked of the made-up people, with their numbers of options
PEOPLE, PERSONAS, SEED = 900, 110, 3
RNG = np.random.default_rng(5)


def respondents():
    """Made-up people of a country: answers depend on gender and on one trait, so that items are correlated."""
    gender, trait = RNG.integers(1, 3, PEOPLE), RNG.normal(size=PEOPLE)
    table = pd.DataFrame({"B_COUNTRY_ALPHA": "DEU", "W_WEIGHT": RNG.uniform(0.3, 2, PEOPLE), "Q260": gender})
    table["Q262"] = RNG.choice([20, 30, 40, 50, 60, 70], PEOPLE)
    table["Q275R"] = RNG.integers(1, 4, PEOPLE)
    for place, (name, options) in enumerate(ITEMS.items()):
        level = 0.5 + 0.2 * (gender == 1) + (-1) ** place * 0.18 * trait + 0.1 * RNG.normal(size=PEOPLE)
        table[name] = np.clip((level * options).astype(int) + 1, 1, options)
    return table


TABLE = respondents()


@pytest.fixture(scope="module")
def run(tmp_path_factory, submit):
    """A finished run with personas whose answers follow their gender and a trait, under an imported edition."""
    home = tmp_path_factory.mktemp("people")
    TABLE.to_csv(home / "wave7.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CULTEVAL_DATA", str(home / "data"))
        invoked("data", "import", "wvs", home / "wave7.csv")
        spec = spec_of("wvs")
        layout = render_protocol(spec, ProtocolOptions(PERSONAS, SEED)).layout
        men = np.array(draw_attributes(spec, PERSONAS, SEED, "heldout")["gender"]) == "man"
        trait = RNG.normal(size=PERSONAS)
        place = layout.item.astype(int)
        level = 0.4 + 0.25 * men[layout.persona] + (-1.0) ** place * 0.2 * trait[layout.persona]
        level += 0.05 * RNG.normal(size=len(layout))
        away = abs(np.arange(layout.codes.shape[1]) - (level * (layout.widths - 1))[:, None])
        probs = np.exp(-3 * away) * layout.inside
        probs /= probs.sum(-1, keepdims=True)
        answers = Answers(layout, probs[None], np.zeros((1, len(layout))))
        protocol = {"edition": "weighted", "personas": PERSONAS}
        folder = submit(home / "run", {"wvs": answers}, "DE", "naive", SEED, **protocol)
        yield folder, answers


@pytest.fixture(autouse=True)
def home(run, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(run[0].parent / "data"))


def heldout(answers):
    spec = spec_of("wvs")
    return spec, answers.take(of_split(spec, answers.layout, "heldout"))


def mean_by_persona(answers, item):
    """Mean probabilities of one item's options, (personas, options)."""
    spec, held = heldout(answers)
    rows = held.layout.item == spec.items.ids.index(item)
    own = held.probs[0][rows][:, : ITEMS[item]]
    return np.stack([own[held.layout.persona[rows] == i].mean(0) for i in range(PERSONAS)])


def mode(people, item):
    return people.groupby(item).W_WEIGHT.sum().idxmax()


BANDS = [(16, 24), (25, 34), (35, 44), (45, 54), (55, 64), (65, 120)]
LEVELS = {"primary school": 1, "lower secondary school": 1, "upper secondary school": 2, "vocational training": 2,
          "a university degree": 3}  # fmt: skip


def members(attribute, group):
    """Personas and respondents of a group, as masks."""
    drawn = draw_attributes(spec_of("wvs"), PERSONAS, SEED, "heldout")
    if attribute == "gender":
        code = {"man": 1, "woman": 2}[group]
        return np.array(drawn["gender"]) == group, code == TABLE.Q260
    if attribute == "education":
        code = {"lower": 1, "middle": 2, "higher": 3}[group]
        return np.array([LEVELS[one] for one in drawn["education"]]) == code, code == TABLE.Q275R
    low, high = next(band for band in BANDS if group.startswith(str(band[0])))
    ages = np.array(drawn["age"], dtype=int)
    return (ages >= low) & (ages <= high), TABLE.Q262.between(low, high)


def by_persona(answers, attribute, group):
    """Accuracy and error of each persona of a group, mean over the items."""
    personas, people = members(attribute, group)
    accuracy, error = [], []
    for item, options in ITEMS.items():
        best = mode(TABLE[people], item)
        own = mean_by_persona(answers, item)[personas]
        accuracy.append(own[:, best - 1])
        error.append(own @ abs(np.arange(1, options + 1) - best) / (options - 1))
    return np.mean(accuracy, 0), np.mean(error, 0)


def test_the_attributes_are_those_of_the_sentences():
    drawn = draw_attributes(spec_of("wvs"), 50, SEED, "heldout")
    for i, sentence in enumerate(draw_personas(spec_of("wvs"), 50, SEED, "heldout")):
        assert all(values[i] in sentence for values in drawn.values())


def test_groups_are_scored_against_their_own_people(run):
    found = subgroups(run[0])
    assert found.about == {"task": "wvs", "country": "DE", "edition": "weighted", "scoring": "expected",
                           "split": "heldout"}  # fmt: skip
    assert {(row.attribute, row.group) for row in found} >= {
        *(("gender", each) for each in ("man", "woman")),
        *(("education", each) for each in ("lower", "middle", "higher")),
    }
    assert "settlement" not in {row.attribute for row in found}  # the file does not have it
    for row in found:
        personas, _ = members(row.attribute, row.group)
        accuracy, error = by_persona(run[1], row.attribute, row.group)
        assert (row.personas, row.items) == (personas.sum(), len(ITEMS))
        assert (row.accuracy, row.error) == pytest.approx((accuracy.mean(), error.mean()), abs=1e-6)
        if row.personas >= 20:
            bounds = stats.t.interval(0.95, len(error) - 1, error.mean(), stats.sem(error))
            assert (row.error_low, row.error_high) == pytest.approx(bounds, abs=1e-6)
        else:
            assert row.error_low is None and row.accuracy_high is None
    man = next(row for row in found if row.group == "man")
    men = TABLE[TABLE.Q260 == 1]
    right = [mode(TABLE, item) == mode(men, item) for item in ITEMS]
    far = [abs(mode(TABLE, item) - mode(men, item)) / (size - 1) for item, size in ITEMS.items()]
    assert (man.accuracy_majority, man.error_majority) == pytest.approx((np.mean(right), np.mean(far)))


def test_the_gap_has_an_interval_over_all_pairs(run):
    found = subgroups(run[0])
    for attribute, pairs in (("gender", 1), ("education", 3)):
        groups = {row.group: by_persona(run[1], attribute, row.group)[1] for row in found if row.attribute == attribute}
        groups = {name: values for name, values in groups.items() if len(values) >= 20}
        assert len(groups) * (len(groups) - 1) // 2 == pairs
        best, worst = (pick(groups, key=lambda name: groups[name].mean()) for pick in (min, max))
        gap = next(gap for gap in found.gaps if (gap.attribute, gap.metric) == (attribute, "error"))
        welch = stats.ttest_ind(groups[worst], groups[best], equal_var=False).confidence_interval(1 - 0.05 / pairs)
        assert (gap.best, gap.worst) == (best, worst)
        assert (gap.gap, gap.low, gap.high) == pytest.approx(
            (groups[worst].mean() - groups[best].mean(), welch.low, welch.high), abs=1e-6
        )


def test_equally_served_groups_rarely_have_a_gap():
    """Of 200 draws the interval may exclude zero in 5 %; with no correction for the choice it would in about 12 %."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        draws = {str(i): {"error": _sample(np.arange(30), rng.beta(2, 4, (30, 5)), False)} for i in range(3)}
        found += _gap("attribute", "error", draws).low > 0
    assert found / 200 <= 0.08


def test_argmax_takes_the_most_probable_option(run):
    found = next(row for row in subgroups(run[0], scoring="argmax") if row.group == "woman")
    personas, people = members("gender", "woman")
    spec, held = heldout(run[1])
    hits = []
    for item in ITEMS:
        rows = (held.layout.item == spec.items.ids.index(item)) & personas[held.layout.persona]
        hits.append((held.probs[0][rows].argmax(-1) + 1 == mode(TABLE[people], item)).mean())
    assert found.accuracy == pytest.approx(np.mean(hits), abs=1e-9)


def test_correlations_over_personas_and_people(run):
    found = structure(run[0])
    means = {name: mean_by_persona(run[1], name) @ np.arange(1, size + 1) for name, size in ITEMS.items()}
    assert len(found) == found.agreement.pairs == 10 and found.about["constant_items"] == []
    for row in found:
        assert row.personas == pytest.approx(np.corrcoef(means[row.first], means[row.second])[0, 1], abs=1e-6)
        people = np.cov(TABLE[row.first], TABLE[row.second], aweights=TABLE.W_WEIGHT)
        expected = people[0, 1] / np.sqrt(people[0, 0] * people[1, 1])
        assert row.people == pytest.approx(expected, abs=6e-5) and row.count == PEOPLE
    differences = [abs(row.personas - row.people) for row in found]
    assert differences == sorted(differences, reverse=True)
    own, theirs = (np.array([getattr(row, name) for row in found]) for name in ("personas", "people"))
    alike = found.agreement
    assert alike.correlation == pytest.approx(np.corrcoef(own, theirs)[0, 1])
    assert alike.difference == pytest.approx(np.mean(differences))
    assert (alike.strength, alike.zero_difference) == pytest.approx((abs(own).mean(), abs(theirs).mean()))
    pairs = [(row.first, row.second) for row in found]
    left = []
    for i in range(PERSONAS):
        rest = {name: np.delete(values, i) for name, values in means.items()}
        left.append(np.corrcoef([np.corrcoef(rest[a], rest[b])[0, 1] for a, b in pairs], theirs)[0, 1])
    z = np.arctanh(left)
    error = np.sqrt((PERSONAS - 1) / PERSONAS * ((z - z.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, PERSONAS - 1) * error
    middle = np.arctanh(alike.correlation)
    assert (alike.low, alike.high) == pytest.approx((np.tanh(middle - half), np.tanh(middle + half)), abs=1e-6)
    halves = [[np.corrcoef(means[a][start::2], means[b][start::2])[0, 1] for a, b in pairs] for start in (0, 1)]
    half = np.corrcoef(*halves)[0, 1]
    assert alike.reliability == pytest.approx(2 * half / (1 + half), abs=1e-6)


def test_one_persona_that_alone_differs_gives_no_interval():
    """Without it the item does not vary; rounding is no variation."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        means = rng.uniform(1, 4, (30, 4))
        means[:, 0] = rng.uniform(1, 4)
        means[rng.integers(30), 0] += rng.uniform(0.1, 2)
        first, second = np.triu_indices(4, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            left = _without_one(means, first, second)
        assert (abs(left[np.isfinite(left)]) <= 1 + 1e-9).all()
        assert _agreement(means, first, second, rng.uniform(-1, 1, 6)).low is None


def test_a_group_of_few_people_takes_no_other_group_with_it(run, monkeypatch):
    """Made of the men: a third group of 40 people, which one persona is in."""
    whole = {row.group: row for row in subgroups(run[0]) if row.attribute == "gender"}
    cells = people.cells_of(spec_of("wvs"), "weighted", "DE")
    few = replace(cells["gender"]["man"], counts=dict.fromkeys(cells["gender"]["man"].counts, 40))
    more = cells | {"gender": cells["gender"] | {"other": few}}
    drawn = people.persona_cells

    def with_another(*given):
        found = drawn(*given)
        return found | {"gender": ["other", *found["gender"][1:]]}

    monkeypatch.setattr(people, "cells_of", lambda *given: more)
    monkeypatch.setattr(people, "persona_cells", with_another)
    found = {row.group: row for row in subgroups(run[0]) if row.attribute == "gender"}
    assert found.keys() == whole.keys() == {"man", "woman"} and found["man"].items == whole["man"].items


def test_commands_print_tables_json_and_figures(run, tmp_path):
    said = invoked("subgroups", run[0], "--plot", tmp_path / "groups.svg").output
    assert "gender" in said and "best served" in said and (tmp_path / "groups.svg").read_text().startswith("<?xml")
    found = json.loads(invoked("subgroups", run[0], "--json").output)
    assert {gap["metric"] for gap in found["gaps"]} == {"accuracy", "error"} and found["country"] == "DE"
    assert found["groups"] == subgroups(run[0]).records()
    said = invoked("structure", run[0], "--plot", tmp_path / "pairs.png", "--top", 3).output
    assert "correlation of the two sets" in said and (tmp_path / "pairs.png").read_bytes()[:4] == b"\x89PNG"
    found = json.loads(invoked("structure", run[0], "--json").output)
    assert len(found["pairs"]) == 10 and found["agreement"]["personas"] == PERSONAS
    with pytest.raises(UsageError, match=r"FILE\.svg"):
        invoked("structure", run[0], "--plot", "x.pdf")


def test_what_is_missing_is_said(run, tmp_path, submit, monkeypatch):
    with pytest.raises(UsageError, match="`edition` 'other': wvs has weighted"):
        subgroups(run[0], edition="other")
    with pytest.raises(UsageError, match="`task` vsm13: the submission has wvs"):
        structure(run[0], task="vsm13")
    with pytest.raises(UsageError, match="`scoring` 'text': the answers have expected, argmax"):
        subgroups(run[0], scoring="text")
    spec = spec_of("wvs")
    for size, words in ((0, "without personas"), (5, "5 personas; correlations need 20")):
        layout = render_protocol(spec, ProtocolOptions(size, 0)).layout
        answers = Answers(layout, layout.inside[None] / layout.widths[:, None], np.zeros((1, len(layout))))
        folder = submit(tmp_path / str(size), {"wvs": answers}, "US", "naive", personas=size)
        with pytest.raises(UsageError, match=words):
            (structure if size else subgroups)(folder)
    with pytest.raises(UsageError, match="edition 'weighted' of wvs has no shares of United States"):
        subgroups(folder)
    stored = run[0].parent / "data" / "wvs" / "cells" / "weighted.csv"
    whole = stored.read_text()
    try:
        stored.write_text("country,question,code,share\nDE,Q1,1,1\n")
        with pytest.raises(InputError, match=r"damaged .* Import the file again"):
            subgroups(run[0])
        stored.write_text(whole.splitlines()[0] + "\nDE,Q1,one,1,1,gender=man\n")
        with pytest.raises(InputError, match=r"code: not numbers\. Import the file again"):
            subgroups(run[0])
    finally:
        stored.write_text(whole)
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="no respondents are imported here"):
        structure(run[0])


def test_the_report_has_the_groups(run, monkeypatch, tmp_path):
    """The page of a run with personas."""
    from culteval.leaderboards.report import report

    page = report([run[0]])
    found = subgroups(run[0])
    for row in found:
        assert f'>{row.attribute}: {row.group}</th><td class="number">{row.personas}</td>' in page
        bounds = "" if row.error_low is None else f" ({row.error_low:.3f} to {row.error_high:.3f})"
        assert f'<td class="number">{row.error:.3f}{bounds}</td>' in page
    gap = next(gap for gap in found.gaps if gap.metric == "error")
    assert f"{gap.attribute}: {gap.worst} is farther than {gap.best} by {gap.gap:.3f}" in page
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "nothing"))
    with pytest.raises(InputError):  # the edition of the run is nowhere, so that it cannot be scored at all
        report([run[0]])
