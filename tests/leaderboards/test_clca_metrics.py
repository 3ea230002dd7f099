"""The published evaluation and the ablations: metrics by hand, answers taken up again, arms that share."""

import json
from dataclasses import replace

import numpy as np
import pytest
from culteval.errors import RunError
from culteval.leaderboards.reproduction import clca_metrics as metrics
from culteval.leaderboards.reproduction import clca_study as ablate
from culteval.leaderboards.reproduction import clca_tables as tables
from culteval.leaderboards.reproduction.clca_metrics import PERSONAS as PEOPLE
from culteval.leaderboards.reproduction.clca_metrics import Asked, Country, Replies, ask, change, questions, values
from culteval.optimizers.clca.settings import CLCASettings
from scipy.spatial.distance import jensenshannon

from ..clca_course import Script, course, talk


@pytest.fixture(scope="module")
def general(load, tmp_path_factory):
    return ask(lambda: load(), 2, 0, tmp_path_factory.mktemp("general"), lambda *at: None).general


def even():
    return tuple((1 / width,) * width for width in questions().layout.widths.tolist())


def people(texts_of, count=8, probs=None):
    prompts = questions()
    said = [tuple(texts_of(k, i, prompts.choices[i]) for i in range(len(prompts))) for k in range(count)]
    return [Asked(persona=str(k), texts=row, probs=probs or even()) for k, row in enumerate(said)]


def test_as_many_are_asked_as_the_presets_say():
    assert PEOPLE == {"laptop": 50, "paper": 1000}


def test_every_item_is_asked_once():
    prompts = questions()
    assert len(prompts) == 44 == len(set(prompts.layout.item.tolist()))
    assert prompts.layout.asked_orders == ("natural",) and len(prompts.layout.asked_paraphrases) == 1


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
    said = [Asked(persona=str(k), texts=tuple(row), probs=even()) for k, row in enumerate(texts)]
    found = values(country, Replies(said, general))
    assert found["kl"] < 0.02 and found["js"] < 0.06 and found["none"] == 0 and found["kl_clca"] > 0.1


def test_a_change_is_tested_over_the_same_personas(general):
    near = people(lambda k, i, may: may[0] if (k + i) % 3 else may[-1], 12)
    worse = people(lambda k, i, may: "no" if k % 2 else (may[0] if (k + i) % 3 else may[-1]), 12)
    rows = change(Country("US"), Replies(near, general), Replies(worse, general), np.random.default_rng(0))
    found = {row["metric"]: row for row in rows}
    assert list(found) == [*metrics.METRICS, "general", *tables.HABITS]
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
    assert heard == [(k, 4) for k in range(5)] and len({each.persona for each in whole.people}) == 4

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(lambda: model, 4, 0, tmp_path / "cut", stop)
    again = ask(lambda: model, 4, 0, tmp_path / "cut", lambda *at: None)
    assert all(abs(sum(row) - 1) < 1e-4 for each in whole.people for row in each.probs)
    assert again.people == whole.people and np.array_equal(again.general.probs, whole.general.probs)
    read = ask(lambda: pytest.fail("no model is needed"), 4, 0, tmp_path / "cut", lambda *at: None)
    assert read.people == whole.people
    with pytest.raises(RunError, match="other personas"):
        ask(lambda: model, 4, 1, tmp_path / "cut", lambda *at: None)


def test_probabilities_are_those_of_the_same_chats(load, tmp_path):
    """One plain pass a chat, the persona as its system prompt; the order of the options is that of their codes."""
    import torch

    model, prompts = load(), questions()
    [one, _] = ask(lambda: model, 2, 0, tmp_path, lambda *at: None).people
    for row in (0, 20, 43):
        chat = [{"role": "system", "content": one.persona}, {"role": "user", "content": prompts.texts[row]}]
        with torch.no_grad():
            logs = model.model(torch.tensor([model.chat.chat_ids(chat)])).logits[0, -1].log_softmax(-1)
        read = [model.tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in prompts.choices[row]]
        if all(len(ids) == 1 for ids in read):
            expected = torch.stack([logs[ids[0]] for ids in read]).softmax(-1).numpy()
            np.testing.assert_allclose(one.probs[row], expected, atol=1e-4)
        assert len(one.probs[row]) == len(prompts.choices[row])


def test_probabilities_have_the_same_metrics(general):
    """Who says what it thinks likeliest for certain has the same metrics in both forms; whose probabilities are the
    country's shares is as near as can be, though it writes one number."""
    country, prompts = Country("US"), questions()
    sure = tuple((1.0, *(0.0,) * (width - 1)) for width in prompts.layout.widths.tolist())
    found = values(country, Replies(people(lambda k, i, may: may[0], probs=sure), general))
    for name in ("kl", "js", "accuracy"):
        assert found[f"{name}_probs"] == pytest.approx(found[name])
    row_of, near = {int(item): row for row, item in enumerate(prompts.layout.item)}, list(even())
    for item, target in zip(country.measure.items, country.targets, strict=True):
        _, place, alike = np.unique(country.measure.codes[item], return_inverse=True, return_counts=True)
        near[row_of[item]] = tuple((target[:-1] / alike)[place].tolist())  # shared among what counts as one code
    found = values(country, Replies(people(lambda k, i, may: may[0], probs=tuple(near)), general))
    assert found["kl_probs"] == pytest.approx(0, abs=1e-9) and found["js_probs"] == pytest.approx(0, abs=1e-6)
    assert found["kl"] > 0.3


def test_a_collapsed_model_is_told_apart_from_one_that_answers(general):
    one = Replies(people(lambda k, i, may: may[0]), general)
    other = Replies(people(lambda k, i, may: may[-1] if (k, i) == (0, 0) else may[0]), general)
    assert metrics.habits(one, one) == {"modal_share": 1.0, "changed_answers": 0.0, "total_variation": 0.0}
    found = metrics.habits(other, one)
    assert found["changed_answers"] == 1 and found["modal_share"] == pytest.approx(1 - 1 / 352)
    lopsided = tuple((1.0, *row[1:-1], 0.0) if len(row) > 1 else row for row in even())
    assert (
        metrics.habits(Replies(people(lambda k, i, may: may[0], probs=lopsided), general), one)["total_variation"] > 0.1
    )
    heading, cells = tables.changes(change(Country("US"), one, other, np.random.default_rng(0)))
    shown = {row[0]: dict(zip(heading, row, strict=True)) for row in cells}
    assert shown["modal_share"]["before"] == "1.0000*" and shown["changed_answers"]["after"] == "1"
    assert shown["changed_answers"]["n"] == "352"


def test_a_chat_is_read_once_for_text_and_probabilities(load, tmp_path, monkeypatch):
    """The same as from two readings, of which the second is of the prompts with their options."""
    once, twice = load(), load()
    both = [ask(lambda: once, 2, 0, tmp_path / "once", lambda *at: None).people]
    monkeypatch.setattr("culteval.harness.models.greedy.packs_text", lambda model, soft: False)
    both.append(ask(lambda: twice, 2, 0, tmp_path / "twice", lambda *at: None).people)
    for one, two in zip(*both, strict=True):
        assert one.texts == two.texts and len(set(one.texts)) > 1
        for mine, theirs in zip(one.probs, two.probs, strict=True):
            assert mine == pytest.approx(theirs, abs=2e-5)
    assert once.tokens < 0.8 * twice.tokens


def test_personas_are_system_prompts(load, tmp_path, monkeypatch):
    shown = []

    class Listening(Script):
        def __init__(self, model, batch):
            super().__init__(lambda chat, seed: "2")

        def write(self, chats, style, seed, begun=()):
            shown.extend((chats, style))
            return ["2\nbecause"] * len(chats)

    monkeypatch.setattr(metrics, "LocalWriter", Listening)
    [one, two] = ask(lambda: load("gpt2"), 2, 0, tmp_path, lambda *at: None).people
    assert set(one.texts) == {"2"} and len(shown[0]) == 44 and shown[1].top_p == 0
    assert [message["role"] for message in shown[0][0]] == ["system", "user"]
    assert {chat[0]["content"] for chat in shown[0]} == {one.persona} and one.persona != two.persona


# ablations

PERSONAS = 3  # too few for a permutation test, which takes its time


@pytest.fixture(scope="module")
def study(load, tmp_path_factory):
    folder, asked = tmp_path_factory.mktemp("study"), []

    def say(chat, seed):
        asked.append(chat)
        return talk(chat, seed)

    def course_of(code, where):
        one = course(where, load, writer=Script(say), scenarios=2, epochs=1)
        return replace(one, country=code)

    made = ablate.Study(folder, ("US", "CN"), course_of, load, PERSONAS, 0, lambda *told: None)
    *parts, rows = made.run()
    return made, rows, asked, parts


def test_every_arm_is_there_for_every_country(study):
    made, rows, *_ = study
    names = [ablate.NAIVE, *(arm.name for arm in ablate.ARMS), ablate.WRONG]
    assert [(row["country"], row["arm"]) for row in rows] == [(code, name) for code in ("US", "CN") for name in names]
    for row in rows:
        assert ("from_control" in row) == (row["arm"] != ablate.CONTROL)
    heading, cells = tables.arms(rows)
    assert all(len(row) == len(heading) for row in cells)
    for code in made.countries:
        told = ablate.verdicts(rows, code)
        assert told[0].startswith(f"{code}: kl: ") and told[1].startswith(f"{code}: kl_probs: ")
        assert ablate.verdict(rows, code).startswith(f"{code}: kl: the whole ")


def test_rows_are_told_from_the_control_on_and_stay_as_they_were(study):
    _, rows, _, parts = study
    assert [ablate.missing(each) for each in parts] == [
        [arm.name for arm in ablate.ARMS[number:]] for number in range(2, len(ablate.ARMS))
    ]
    assert not ablate.missing(rows)
    for each in parts:
        assert all(row in rows for row in each) and all(ablate.verdicts(each, code) for code in ("US", "CN"))


def test_the_wrong_country_is_the_other_ones_adapter(study):
    made, rows, *_ = study
    [wrong] = [row for row in rows if (row["country"], row["arm"]) == ("US", ablate.WRONG)]
    other = metrics.read_rows(made.folder / "CN" / "whole" / "answers.jsonl", Asked)
    naive = ask(lambda: pytest.fail("asked again"), PERSONAS, 0, made.folder / "naive", lambda *at: None)
    theirs = Replies(other, naive.general)
    own = {"general": wrong["metrics"]["general"]} | metrics.habits(theirs, naive)
    assert wrong["metrics"] == values(Country("US"), theirs) | own
    [chinese] = [row for row in rows if (row["country"], row["arm"]) == ("CN", ablate.WHOLE)]
    assert wrong["adapter size"] == chinese["adapter size"] and 0 < wrong["adapter size"]["lora"] < 10


def test_arms_share_what_is_alike_and_differ_in_what_they_name(study):
    made, _, asked, _ = study
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


def test_one_part_alone_is_learned_where_one_is_named(study):
    """Half of the examples of the whole, so about half of its tokens."""
    us = study[0].folder / "US"
    whole, *halves = (
        json.loads((us / name / "spent.json").read_text())["train"]["tokens"]
        for name in ("whole", "dialogue-only", "intent-only")
    )
    assert sum(halves) == whole and min(halves) > whole / 4


def test_arms_that_came_out_alike_are_asked_once(study):
    """Without a filter nothing else was kept, so that its adapter is the whole's."""
    us = study[0].folder / "US"
    assert (us / "no-filter" / "answers.jsonl").read_bytes() == (us / "whole" / "answers.jsonl").read_bytes()

    def answer(*given):
        pytest.fail("asked again")

    (us / "no-filter" / "answers.jsonl").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_asked", answer)
        *_, again = study[0].run()
    assert again == study[1]


def test_an_adapted_model_is_made_once(load, tmp_path):
    made = []

    def model_of():
        made.append(1)
        return load()

    ask(model_of, 3, 0, tmp_path, lambda *at: None)
    assert len(made) == 1


def test_gone_on_with_a_finished_study_asks_nobody(study):
    made, rows, asked, _ = study
    before = len(asked)
    *_, again = replace(made, model_of=lambda: pytest.fail("no model is needed")).run()
    assert again == rows and len(asked) == before


def test_a_study_in_which_nothing_moves_says_so():
    def row(arm, moved, commonest, **compared):
        return {
            "country": "US",
            "arm": arm,
            "metrics": {"changed_answers": moved, "modal_share": commonest},
            **compared,
        }

    equal = {"difference": 0.0, "standard_error": 0.0, "higher_is_better": False, "p": None}
    alike = [{"metric": metric, **equal} for metric in tables.JUDGED]
    faint, plain = {"adapter size": {"lora": 2e-6}}, {"adapter size": {"lora": 2e-6, "in full": 0.01}}
    whole, control = row("whole", 0, 1.0, from_control=alike, **faint), row("unrelated text", 3, 0.9, **plain)
    rows = [row("naive", 0, 1.0), whole, control]
    assert ablate.verdicts(rows, "US") == [
        "US: kl: the whole and the control answer alike.",
        "US: kl_probs: the whole and the control answer alike.",
        "US: collapsed, since nearly all answers are one number: naive, whole.",
        "US: no answer differs from the bare model's: whole.",
        "US: adapters of less than 4e-05 of the weights: in bfloat16 most of what distinguishes them is rounding, "
        "which standard errors over personas do not show: whole.",
    ]


def test_a_study_names_what_it_sets_itself():
    own = CLCASettings(rate=1e-3, alpha=8, epochs=3).own()
    assert own == {"alpha": 8, "epochs": 3, "rate": 1e-3} and CLCASettings(preset="paper").own() == {}
    assert tables.settings(own, "laptop") == "Settings: preset laptop, alpha 8.0, epochs 3, rate 0.001."


def test_the_verdict_says_by_how_much():
    def row(arm, **compared):
        return {"country": "US", "arm": arm, "metrics": {}, **compared}

    def said(size, error, p=0.01):
        found = {"metric": "kl", "difference": size, "standard_error": error, "higher_is_better": False, "p": p}
        return ablate.verdict([row("naive"), row("whole", from_control=[found])], "US")

    assert said(-0.02, 0.01) == "US: kl: the whole beats the control: -0.0200, 2.0 standard errors, p 0.01."
    assert "is worse than the control: +0.0200, 4.0" in said(0.02, 0.005)
    assert "does not differ significantly from the control: -0.0030, 0.3" in said(-0.003, 0.01)
    assert said(-0.02, 0.01, None).endswith("2.0 standard errors.") and "alike" in said(0.0, 0.0)
