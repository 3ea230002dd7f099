"""Stages of CLCA: their artefacts, that stopped ones go on where they were, and what they tell."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from culteval.errors import InputError, RunError, UsageError
from culteval.harness.util.atomic_io import write_json
from culteval.optimizers.clca import pipeline, shipping
from culteval.optimizers.clca.commands import planned
from culteval.optimizers.clca.dialogues import shipped
from culteval.optimizers.clca.dialogues.dialogue import read_dialogues, write_dialogues
from culteval.optimizers.clca.dialogues.dialogue_filter import judge
from culteval.optimizers.clca.dialogues.rewriting import rewrite
from culteval.optimizers.clca.dialogues.scenarios import Scenario, adapted
from culteval.optimizers.clca.rows import read_rows
from culteval.optimizers.clca.settings import CLCASettings
from culteval.optimizers.writing.writer import LocalWriter

from ...clca_course import CULTURE, Script, course, scenes, talk, told


def weights(folder):
    return (folder / "lora" / "adapter_model.safetensors").read_bytes()


def test_every_stage_leaves_its_artefact(load, tmp_path):
    from datasets import load_from_disk

    one = course(tmp_path, load)
    for stage in pipeline.STAGES:
        assert not one.done(stage)
        one.run(stage)
        assert one.done(stage)
    report = one.report()
    assert report["simulated"]["dialogues"] == 8 and report["filtered"]["kept"] == 8
    assert report["loss"][1] < report["loss"][0] and (tmp_path / "loss.svg").stat().st_size > 1000
    assert len(load_from_disk(str(tmp_path / "dataset"))) == 8
    assert not (tmp_path / "checkpoints").exists()
    base = one.model_of().model
    assert not any("lora" in name for name, _ in base.named_parameters())


def retold(chat, seed):
    """As ``talk``, and a text of a scene in other words; one that begins with its setting loses all names."""
    asked = chat[-1]["content"]
    if "nowhere else" not in asked:
        return talk(chat, seed)
    [text] = [line for line in asked.splitlines() if line and line in TOLD]
    return f"{text} On Thanksgiving." if TOLD[text] == "kept" else "Somebody does something."


TOLD = {
    text: "lost" if any(part in text for one in scene.people for part in one.name.split()) and place == 0 else "kept"
    for scene in adapted("US", 4, np.random.default_rng(0))
    for place, text in enumerate([scene.setting, *(t for one in scene.people for t in (one.background, one.goal))])
}


def test_scenes_are_rewritten_where_no_name_is_lost(load, tmp_path):
    one, plain = course(tmp_path / "a", load, Script(retold), rewrite=True), course(tmp_path / "b", load)
    for each in (one, plain):
        each.run("scenarios")
    lost = sum(kind == "lost" for kind in TOLD.values())
    assert one.report()["rewritten"] == {"texts": 20, "stayed": lost} and 0 < lost < 20
    assert "rewritten" not in plain.report()
    for new, old in zip(*(read_rows(each.folder / "scenarios.jsonl", Scenario) for each in (one, plain)), strict=True):
        assert (new.id, [p.name for p in new.people]) == (old.id, [p.name for p in old.people])
        assert new.people[0].goal == f"{old.people[0].goal} On Thanksgiving."
        assert new.people[0].secret == old.people[0].secret
        assert new.setting == (old.setting if TOLD[old.setting] == "lost" else f"{old.setting} On Thanksgiving.")
    one.clear("scenarios")
    assert not (one.folder / "rewritten.json").exists()


def test_texts_that_are_empty_or_too_long_stay_as_they_were():
    for said in ("", '""', "A b. " * 400, "One.\n\nTwo."):
        found, stayed = rewrite(scenes(), CULTURE, Script(lambda chat, seed, said=said: said), 0, lambda *told: None)
        assert found == scenes() and stayed == 15


def test_the_same_seed_ends_in_the_same_adapter(load, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        course(tmp_path / name, load, seed=seed).run()
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_stopped_in_any_stage_it_ends_the_same(load, tmp_path, monkeypatch):
    course(tmp_path / "whole", load).run()

    def stopping(after):
        count = [0]

        def tell(*told):
            count[0] += 1
            if count[0] == after:
                raise KeyboardInterrupt

        return tell

    for after in (2, 5, 6, 8, 10, 13):  # in the rounds, before and in the judge, before intents, in training
        folder = tmp_path / str(after)
        with pytest.raises(KeyboardInterrupt):
            replace(course(folder, load), tell=stopping(after)).run()
        course(folder, load).run()
        assert weights(folder) == weights(tmp_path / "whole"), after


def test_dialogues_are_the_same_with_and_without_memory_and_after_a_kill_within_a_group(load, tmp_path):
    """Eight dialogues in groups of three, by a model that reads what is new, or every chat as a whole."""

    def simulated(name, memory=True, stop=None, top_p=0.9):
        model = load("llama", True)
        writer = LocalWriter(model, batch=3)
        if not memory:
            writer.remembering = nullcontext
        one = course(tmp_path / name, load, writer=writer, actions="drawn", top_p=top_p)
        heard = []

        def tell(stage, done, rounds):
            heard.append((done, rounds))
            if len(heard) == stop:
                raise KeyboardInterrupt

        one.run("scenarios")
        replace(one, tell=tell).run("simulate")
        return (tmp_path / name / "dialogues.jsonl").read_bytes(), heard, model.tokens

    whole, heard, _ = simulated("whole")
    assert len(whole.splitlines()) == 8 and heard == [(done, 12) for done in range(13)]
    for stop in (3, 7, 12):
        with pytest.raises(KeyboardInterrupt):
            simulated(str(stop), stop=stop)
        assert simulated(str(stop))[0] == whole
    greedy, plain = simulated("greedy", top_p=1e-9), simulated("plain", memory=False, top_p=1e-9)  # draws differ
    assert greedy[0] == plain[0] != whole and greedy[2] < 0.7 * plain[2]


def test_judgements_are_the_same_with_and_without_memory(load):
    def judged(memory):
        model = load("llama", True)
        writer, asked = LocalWriter(model, batch=2), []
        if not memory:
            writer.remembering = nullcontext
        before = model.tokens
        found = judge([told()] * 3, CULTURE, writer, 0, lambda *at: asked.append(at))
        return found, model.tokens - before, asked

    (found, tokens, asked), (plain, more, _) = judged(True), judged(False)
    assert found == plain and tokens < 0.7 * more
    assert asked == [(0, 9), (2, 9), (4, 9), (6, 9), (7, 9), (8, 9), (9, 9)]


def test_killed_after_the_judgement_that_ends_training_it_ends_the_same(load, tmp_path, monkeypatch):
    """The trainer alone would go on from its last checkpoint, though it had stopped early."""
    from culteval.optimizers.clca.training import train as module

    early = {"rate": 0.9, "alpha": 500, "heldout": 0.3, "patience": 1, "epochs": 6}
    course(tmp_path / "whole", load, **early).run()
    points = json.loads((tmp_path / "whole" / "losses.json").read_text())
    judged = [point["loss"] for point in points if point["heldout"]]
    assert judged[-1] >= min(judged[:-1]) and len(judged) < 24  # it did stop early

    def killed(history):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_points", killed)
        with pytest.raises(KeyboardInterrupt):
            course(tmp_path / "killed", load, **early).run()
    one = course(tmp_path / "killed", load, **early)
    one.run()
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert json.loads((tmp_path / "killed" / "losses.json").read_text()) == points
    assert one.spent()["train"]["tokens"] == course(tmp_path / "whole", load, **early).spent()["train"]["tokens"] > 0


def test_what_every_stage_took_is_noted(load, tmp_path):
    model = load("llama", True)
    one = course(tmp_path, load, writer=LocalWriter(model), actions="drawn", checks=())
    one.run()
    spent = one.spent()
    assert list(spent) == list(pipeline.STAGES) and spent["scenarios"]["tokens"] == 0
    assert all(spent[stage]["tokens"] > 0 < spent[stage]["seconds"] for stage in pipeline.STAGES[1:])
    assert one.report()["tokens"]["train"] == spent["train"]["tokens"]
    one.clear("intents")
    assert list(one.spent()) == ["scenarios", "simulate", "filter"]


def test_judges_and_intents_tell_how_far_they_are(load, tmp_path):
    heard = []
    one = replace(course(tmp_path, load, scenarios=25), tell=lambda *told: heard.append(told))
    one.run("intents")
    assert ("judging", 40, 150) in heard and ("judging", 130, 150) in heard
    steps = {
        stage: [done for name, done, _ in heard if name == stage] for stage in ("simulating", "judging", "intents")
    }
    assert steps["intents"] == [0, 40, 80, 120, 160, 200] and steps["judging"][-1] == 150
    assert steps["simulating"] == [*range(9)]  # 40 dialogues and 10, of four turns; a bar is full at the end


def test_a_stage_done_anew_takes_later_ones_with_it(load, tmp_path):
    one = course(tmp_path, load)
    one.run()
    one.clear("filter")
    assert one.done("simulate") and not any(one.done(name) for name in ("filter", "intents", "train"))
    one.run()
    assert one.done("train")


def test_people_s_own_dialogues_are_learned_without_agents(load, tmp_path):
    write_dialogues(tmp_path / "own.jsonl", [told(), told().model_copy(update={"id": "b"})])
    one = course(tmp_path / "run", load, dialogues=str(tmp_path / "own.jsonl"), checks=(), judge=False)
    one.run()
    assert one.report()["simulated"] == {
        "source": str(tmp_path / "own.jsonl"),
        "dialogues": 2,
        "turns": 2 * len(told().turns),
    }


def test_shipped_dialogues_need_no_other_model(load, tmp_path, monkeypatch):
    for module in (shipped, shipping):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    made = course(tmp_path / "made", load, writer=Script(talk), checks=())
    made.run("intents")
    full = read_dialogues(made.folder / "intents.jsonl")
    config = planned({"country": "US", "seed": made.seed})
    config = config.model_copy(update={"settings": made.settings.model_dump(mode="json")})
    write_json(made.folder / "config.json", config.model_dump(mode="json"))
    assert shipping.ship(made.folder) == tmp_path / "US.jsonl.zst" == shipped.shipped_files()[0]
    how = shipping.provenance_of(tmp_path / "US.jsonl.zst")
    assert (how.country, how.simulated, how.filtered["kept"], how.seed) == ("US", len(full), len(full), made.seed)
    assert how.answers == sum(len(each.turns) for each in full) and not how.malformed
    one = course(tmp_path / "run", load, dialogues="shipped", checks=())
    assert not one.settings.judge and len(one.settings.dialogues_sha256) == 64
    replace(one, writer_of=lambda folder: pytest.fail("a writer was asked for")).run()
    assert one.kept() == full and one.done("train")
    assert CLCASettings(dialogues="shipped", judge=True).judge
    with pytest.raises(UsageError, match=r"no dialogues of Japan \(JP\) are shipped; there are US"):
        shipped.file_of("shipped", "JP")


def test_nothing_kept_is_told(load, tmp_path):
    one = course(tmp_path, load, writer=Script(lambda chat, seed: "LEAVE"))
    with pytest.raises(RunError, match="no dialogue was kept"):
        one.run()
    with pytest.raises(RunError, match=r"malformed.*actions=drawn"):
        course(tmp_path / "none", load, writer=Script(lambda chat, seed: "well")).run()
    assert one.report()["filtered"]["length"] == 8 and not (tmp_path / "lora").exists()


def test_modules_that_the_model_has_not_are_told(load, tmp_path):
    with pytest.raises(RunError, match="modules"):
        course(tmp_path, load, modules=("nothing_proj",)).run()


def test_a_damaged_artefact_is_named(load, tmp_path):
    one = course(tmp_path, load)
    one.run("scenarios")
    (tmp_path / "scenarios.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"scenarios\.jsonl:1: .*fresh"):
        one.run()
