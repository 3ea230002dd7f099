"""The published evaluation and the ablations: metrics by hand, answers taken up again, arms that share."""

import json
from dataclasses import replace

import numpy as np
import pytest
from culteval.errors import RunError
from culteval.optimizers.clca import ablate, evaluate, tables
from culteval.optimizers.clca.evaluate import Asked, Country, Replies, ask, change, questions, values
from scipy.spatial.distance import jensenshannon

from .test_clca_training import Script, course, talk


@pytest.fixture(scope="module")
def general(load, tmp_path_factory):
    return ask(lambda: load(), 2, 0, tmp_path_factory.mktemp("general"), lambda *at: None).general


def people(texts_of, count=8):
    prompts = questions()
    return [
        Asked(persona=str(k), texts=tuple(texts_of(k, i, prompts.choices[i]) for i in range(len(prompts))))
        for k in range(count)
    ]


def test_every_item_is_asked_once():
    prompts = questions()
    assert len(prompts) == 44 == len(set(prompts.layout.item.tolist()))
    assert prompts.layout.asked_orders == ("natural",) and len(prompts.layout.asked_wordings) == 1


def test_metrics_are_those_of_the_shares_with_a_bucket(general):
    """Half say the first option, a quarter the last, a quarter nothing that can be read."""
    said = people(lambda k, i, may: (may[0], f"I say {may[0]}.", may[-1], "As a person, I would rather not")[k % 4])
    country = Country("US")
    found = values(country, Replies(said, general))
    accuracy, distances, kl = [], [], []
    for item, target in zip(country.measure.items, country.targets, strict=True):
        first, last = (
            np.unique(country.measure.codes[item]).tolist().index(country.measure.codes[item][at]) for at in (0, -1)
        )
        p = np.zeros(len(target))
        p[first] += 0.5
        p[last] += 0.25
        p[-1] += 0.25
        accuracy.append(p @ target)
        distances.append(jensenshannon(p, target))
        mixed = 0.99 * p + 0.01 / len(p)
        aim = 0.99 * target + 0.01 / len(p)
        kl.append(float((aim * np.log(aim / mixed)).sum()))
    assert found["none"] == 0.25
    np.testing.assert_allclose([found[n] for n in ("accuracy", "js", "kl")], np.mean([accuracy, distances, kl], axis=1))


def test_answers_with_the_countrys_shares_are_right_but_for_the_released_kl(general):
    rng, prompts, country = np.random.default_rng(0), questions(), Country("CN")
    codes = {int(item): row for row, item in enumerate(prompts.layout.item)}
    texts = [["1"] * len(prompts) for _ in range(400)]
    for item, target in zip(country.measure.items, country.targets, strict=True):
        own = [int(np.flatnonzero(country.measure.codes[item] == c)[0]) for c in np.unique(country.measure.codes[item])]
        for k, place in enumerate(rng.choice(len(own), 400, p=target[:-1] / target[:-1].sum())):
            texts[k][codes[item]] = prompts.choices[codes[item]][own[place]]
    said = [Asked(persona=str(k), texts=tuple(row)) for k, row in enumerate(texts)]
    found = values(country, Replies(said, general))
    assert found["kl"] < 0.02 and found["js"] < 0.06 and found["none"] == 0 and found["kl_clca"] > 0.1


def test_a_change_is_tested_over_the_same_personas(general):
    near = people(lambda k, i, may: may[0] if (k + i) % 3 else may[-1], 12)
    worse = people(lambda k, i, may: "no" if k % 2 else (may[0] if (k + i) % 3 else may[-1]), 12)
    rows = change(Country("US"), Replies(near, general), Replies(worse, general), np.random.default_rng(0))
    found = {row["metric"]: row for row in rows}
    assert list(found) == [*evaluate.METRICS, "general"]
    assert found["none"]["difference"] == 0.5 and found["none"]["after"] == 0.5 and found["none"]["p"] < 0.05
    assert found["kl"]["difference"] > 0 and found["accuracy"]["difference"] < 0
    # Half of the personas change from 0 to 1: the error of the mean of n such differences.
    assert found["none"]["standard_error"] == pytest.approx(np.sqrt(0.25 / 11))
    assert found["general"]["difference"] == 0 and found["general"]["unit"] == "questions"
    heading, cells = tables.changes(rows)
    assert len(cells) == len(rows) and all(len(row) == len(heading) for row in cells)
    assert tables.markdown(heading, cells).count("\n") == len(rows) + 2


def test_answers_are_taken_up_again_and_never_mixed(load, tmp_path):
    model, heard = load(), []
    whole = ask(lambda: model, 4, 0, tmp_path / "whole", lambda *at: heard.append(at))
    assert heard == [(k, 4) for k in range(4)] and len({each.persona for each in whole.people}) == 4

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(lambda: model, 4, 0, tmp_path / "cut", stop)
    again = ask(lambda: model, 4, 0, tmp_path / "cut", lambda *at: None)
    assert again.people == whole.people and np.array_equal(again.general.probs, whole.general.probs)
    read = ask(lambda: pytest.fail("no model is needed"), 4, 0, tmp_path / "cut", lambda *at: None)
    assert read.people == whole.people
    with pytest.raises(RunError, match="other personas"):
        ask(lambda: model, 4, 1, tmp_path / "cut", lambda *at: None)


def test_personas_are_system_prompts(load, tmp_path, monkeypatch):
    shown = []

    class Listening(Script):
        def __init__(self, model, batch):
            super().__init__(lambda chat, seed: "2")

        def write(self, chats, style, seed, begun=()):
            shown.extend((chats, style))
            return ["2\nbecause"] * len(chats)

    monkeypatch.setattr(evaluate, "LocalWriter", Listening)
    [one, two] = ask(lambda: load(), 2, 0, tmp_path, lambda *at: None).people
    assert set(one.texts) == {"2"} and len(shown[0]) == 44 and shown[1].top_p == 0
    assert [message["role"] for message in shown[0][0]] == ["system", "user"]
    assert {chat[0]["content"] for chat in shown[0]} == {one.persona} and one.persona != two.persona


# ablations

PERSONAS = 3  # too few for a permutation test, which takes its time


@pytest.fixture(scope="module")
def study(load, tmp_path_factory):
    folder, asked = tmp_path_factory.mktemp("study"), []
    some = ("whole", "unrelated text", "no filter", "embeddings too")

    def say(chat, seed):
        asked.append(chat)
        return talk(chat, seed)

    def course_of(code, where):
        one = course(where, load, writer=Script(say), scenarios=2, epochs=1)
        return replace(one, country=code)

    made = ablate.Study(folder, ("US", "CN"), course_of, load, PERSONAS, 0, lambda *told: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablate, "ARMS", tuple(arm for arm in ablate.ARMS if arm.name in some))
        yield made, made.run(), asked


def test_every_arm_is_there_for_every_country(study):
    made, rows, _ = study
    names = [ablate.NAIVE, *(arm.name for arm in ablate.ARMS), ablate.WRONG]
    assert [(row["country"], row["arm"]) for row in rows] == [(code, name) for code in ("US", "CN") for name in names]
    for row in rows:
        assert ("from_control" in row) == (row["arm"] != ablate.CONTROL)
    heading, cells = tables.arms(rows)
    assert all(len(row) == len(heading) for row in cells)
    for code in made.countries:
        assert ablate.verdict(rows, code).startswith(f"{code}: kl: the whole ")


def test_the_wrong_country_is_the_other_ones_adapter(study):
    made, rows, _ = study
    [wrong] = [row for row in rows if (row["country"], row["arm"]) == ("US", ablate.WRONG)]
    other = evaluate.read_rows(made.folder / "CN" / "whole" / "answers.jsonl", Asked)
    naive = ask(lambda: pytest.fail("asked again"), PERSONAS, 0, made.folder / "naive", lambda *at: None)
    assert wrong["metrics"] == values(Country("US"), Replies(other, naive.general)) | {
        "general": wrong["metrics"]["general"]
    }


def test_arms_share_what_is_alike_and_differ_in_what_they_name(study):
    made, _, asked = study
    us = made.folder / "US"
    whole = (us / "whole" / "dialogues.jsonl").read_bytes()
    adapters = set()
    for arm in ablate.ARMS:
        folder = us / arm.name.replace(" ", "-")
        assert (folder / "dialogues.jsonl").read_bytes() == whole
        adapters.add((folder / "lora" / "adapter_model.safetensors").read_bytes())
    assert len(adapters) == len(ablate.ARMS) - 1  # nothing was dropped, so that no filter is the whole
    config = json.loads((us / "embeddings-too" / "lora" / "adapter_config.json").read_text())
    assert sorted(config["modules_to_save"]) == ["embed_tokens", "lm_head"]
    # 16 turns a country, three judgements of 4 dialogues, intents of the whole and once more without the filter
    assert len(asked) == 2 * (16 + 12 + 16 + 16)


def test_gone_on_with_a_finished_study_asks_nobody(study):
    made, rows, asked = study
    before = len(asked)
    again = replace(made, model_of=lambda: pytest.fail("no model is needed")).run()
    assert again == rows and len(asked) == before


def test_the_verdict_says_by_how_much():
    def row(arm, **compared):
        return {"country": "US", "arm": arm, "metrics": {}, **compared}

    def said(size, error, p=0.01):
        found = {"metric": "kl", "difference": size, "standard_error": error, "higher_is_better": False, "p": p}
        return ablate.verdict([row("naive"), row("whole", from_control=[found])], "US")

    assert said(-0.02, 0.01) == "US: kl: the whole beats the control: -0.0200, 2.0 standard errors, p 0.01."
    assert "is worse than the control: +0.0200, 4.0" in said(0.02, 0.005)
    assert "cannot be told from the control: -0.0030, 0.3" in said(-0.003, 0.01)
    assert said(-0.02, 0.01, None).endswith("2.0 standard errors.") and "alike" in said(0.0, 0.0)
