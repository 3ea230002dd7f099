"""CLCA from agents to adapter: what is shown and learned, rounds, stages that go on where they were, the adapter."""

import json
from collections import Counter

import numpy as np
import pytest
from culteval.errors import InputError, RunError
from culteval.harness.registry import spec_of
from culteval.optimizers.clca import examples as ex
from culteval.optimizers.clca import simulate, stages
from culteval.optimizers.clca.culture import in_words
from culteval.optimizers.clca.intents import with_intents
from culteval.optimizers.clca.rewriting import rewrite
from culteval.optimizers.clca.rows import read_rows
from culteval.optimizers.clca.scenarios import Scenario, adapted
from culteval.optimizers.clca.settings import CLCASettings
from culteval.optimizers.clca.stages import Course
from culteval.optimizers.clca.train import divide, train
from culteval.optimizers.clca.writer import LocalWriter, Style
from culteval.tasks.metrics.reference import scores_of

from .test_clca_scenes import dialogue, turn

CULTURE = in_words(scores_of(spec_of("vsm13"), "extended"), "US")


class Script:
    """A writer that says what a function makes of a chat; it remembers what it was shown."""

    name, tokens = "script", 0

    def __init__(self, say):
        self.say, self.shown = say, []

    def write(self, chats, style, seed, begun=()):
        self.shown += [list(chat) for chat in chats]
        return [self.say(chat, seed) for chat in chats]


def talk(chat, seed):
    """Well-formed and varied talk, a judge's and an intent's answers included."""
    last, count = chat[-1]["content"], len(chat)
    if "VERDICT" in last:
        return "good, confident"
    if "say what" in last:
        return "They want to settle it kindly. And more."
    said = (
        "Good morning, is the diner in Boston open on Thanksgiving this year",
        "My aunt bakes apple pie whenever her neighbours visit from Chicago",
        "Rent goes up next month although nothing has been repaired since May",
        "Could you lend me twenty dollars until the community college pays",
        "Perhaps we should ask everybody at the potluck what they prefer",
        "Nobody told the landlord about our barbecue behind the garage",
    )
    return f"SPEAK: {said[(seed + count // 2) % len(said)]} {'and so on ' * (seed % 2)}"


# rounds


def scenes(count=3, code="US"):
    return adapted(code, count, np.random.default_rng(0))


def play(writer, turns=4, count=3, repeats=2):
    playing, number = simulate.begin(scenes(count), repeats), 0
    while any(not each.ended for each in playing):
        playing = simulate.play_round(playing, CULTURE, writer, Style(10, 0.7), turns, number)
        number += 1
    return playing


def test_agents_see_their_own_goal_and_secret_and_never_the_other_s():
    writer = Script(talk)
    play(writer)
    for chat in writer.shown:
        assert chat[0]["role"] == "system" and chat[1]["role"] == "user"
        whole = json.dumps(chat)
        [scene] = [s for s in scenes() if s.setting[:40] in chat[0]["content"]]
        me, other = sorted(scene.people, key=lambda p: f"You play {p.name}" not in chat[0]["content"])
        assert me.goal in chat[0]["content"] and me.secret in chat[0]["content"] and CULTURE in chat[0]["content"]
        assert json.dumps(other.goal)[1:-1] not in whole and json.dumps(other.secret)[1:-1] not in whole
        assert other.background in chat[0]["content"]  # profiles are shared
        roles = [message["role"] for message in chat[1:]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


def test_turns_alternate_and_each_person_begins_once():
    playing = play(Script(talk))
    assert len(playing) == 6 and Counter(each.ended for each in playing) == {"turns": 6}
    for each in playing:
        names = [one.name for one in each.scenario.people]
        speakers = [t.speaker for t in each.turns]
        assert speakers == [names[(i + each.repeat) % 2] for i in range(4)]
    assert {each.dialogue().id for each in playing} == {f"{s.id}-r{r}" for s in scenes() for r in (0, 1)}


def test_a_dialogue_ends_when_somebody_leaves():
    playing = play(Script(lambda chat, seed: "LEAVE" if len(chat) > 3 else talk(chat, seed)), turns=9)
    assert {each.ended for each in playing} == {"left"}
    assert all(each.turns[-1].kind == "leave" and len(each.turns) == 3 for each in playing)


def test_malformed_turns_are_asked_again_then_dropped_and_counted():
    stubborn = play(Script(lambda chat, seed: "well, well"))
    assert {each.ended for each in stubborn} == {"malformed"} and {each.malformed for each in stubborn} == {3}
    late = play(Script(lambda chat, seed: talk(chat, seed) if seed % 3 == 2 else "hm"), turns=3)
    assert {each.ended for each in late} == {"turns"} and sum(each.malformed for each in late) > 0


def test_kinds_may_be_drawn_and_words_found(load):
    model = load("llama", True)
    playing, number = simulate.begin(scenes(8), 1), 0
    while any(not each.ended for each in playing):
        playing = simulate.play_round(playing, CULTURE, LocalWriter(model), Style(6, 0.7), 6, number, drawn=True)
        number += 1
    kinds = Counter(turn.kind for each in playing for turn in each.turns)
    assert kinds["speak"] > kinds["non-verbal"] > 0 and not kinds["none"]
    assert all(len(each.turns) > 4 for each in playing if each.ended == "left")


def test_many_dialogues_are_written_together(load):
    """A batch gives every chat what it alone would get, where the likeliest token is taken."""
    model = load("llama", True)
    writer = LocalWriter(model, batch=4)
    chats = [[{"role": "user", "content": "word " * n}] for n in (3, 40, 7, 19, 11)]
    together = writer.write(chats, Style(6, 0), 0)
    assert together == [LocalWriter(model).write([chat], Style(6, 0), 0)[0] for chat in chats]
    assert writer.tokens > 0


def test_the_same_seed_writes_the_same_and_another_does_not(load):
    import torch

    model = load("llama", True)
    chats = [[{"role": "user", "content": f"Say {n}"}] for n in range(4)]
    before = torch.random.get_rng_state()
    first, again, other = (LocalWriter(model).write(chats, Style(12, 0.9), seed) for seed in (5, 5, 6))
    assert first == again != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_chat_longer_than_the_context_loses_its_oldest_turns(load):
    model = load("llama", True)
    shown = [{"role": "system", "content": "rules"}]
    for number in range(400):
        shown.append({"role": ("user", "assistant")[number % 2], "content": f"turn number {number} of a long talk"})
    [text] = LocalWriter(model).write([shown], Style(8, 0), 0)
    assert isinstance(text, str) and len(LocalWriter(model)._encode(shown, 8)) + 8 <= model.context


# what is learned


def told():
    turns = (turn("Ann Lee", text="Hello there"), turn("Ann", "non-verbal", "nods"), turn("Ann Lee", text="Bye"))
    intents = ("Ann Lee wants in.", "Ann wants quiet.", "")
    turns = tuple(t.model_copy(update={"intent": i}) for t, i in zip(turns, intents, strict=True))
    return dialogue(turns)


def test_both_perspectives_and_their_intent_copies():
    chats = list(ex.perspectives(told(), ("dialogue", "intent")))
    said = [[m["content"] for m in chat if m["role"] == "assistant"] for chat in chats]
    assert said == [
        ["SPEAK: Hello there", "SPEAK: Bye"],
        ["ACT: nods"],
        ["Intent: Ann Lee wants in."],
        ["Intent: Ann wants quiet."],
    ]
    first, second = chats[0][0]["content"], chats[1][0]["content"]
    assert "You want in." in first and "You want quiet." not in first
    assert "You want quiet." in second and "You want in." not in second
    assert [m["content"] for m in chats[1] if m["role"] == "user"] == [
        'Ann Lee said: "Hello there"', 'Ann Lee said: "Bye"',
    ]  # fmt: skip


@pytest.mark.parametrize(("shape", "chat"), [("llama", True), ("llama", False), ("qwen3", True)])
def test_only_the_assistant_s_own_tokens_are_learned(load, shape, chat):
    tokenizer = load(shape, chat).tokenizer
    for shown in ex.perspectives(told(), ("dialogue", "intent")):
        found = ex.encode(tokenizer, shown, 10_000)
        learned = tokenizer.decode(found.ids[found.labels != ex.IGNORED])
        assert (found.ids[found.labels != ex.IGNORED] == found.labels[found.labels != ex.IGNORED]).all()
        own = [message["content"] for message in shown if message["role"] == "assistant"]
        rest = learned
        for text in own:
            assert text in rest
            rest = rest.replace(text, "", 1)
        assert not rest.replace("<|im_end|>", "").strip()  # nothing but what was said and its end
        for message in shown:
            if message["role"] != "assistant":
                assert message["content"] not in learned


def test_unrelated_text_is_as_much_and_about_nothing(load):
    tokenizer = load("llama", True).tokenizer
    like = ex.examples([told()] * 3, tokenizer, ("dialogue", "intent"), 900)
    made = ex.unrelated(tokenizer, like, 900, np.random.default_rng(0))
    assert [each.source for each in made] == [each.source for each in like]
    counts = [[int((e.labels != ex.IGNORED).sum()) for e in part] for part in (like, made)]
    assert all(one <= other < one + 40 for one, other in zip(*counts, strict=True))
    text = tokenizer.decode(made[0].ids)
    assert " = " in text and "Ann" not in text and max(len(each.ids) for each in made) <= 900


def test_another_country_may_be_learned():
    assert CLCASettings(culture="China").country("US") == "CN" and CLCASettings().country("US") == "US"


def test_what_lies_beyond_the_length_is_cut(load):
    tokenizer = load("llama", True).tokenizer
    [shown, *_] = ex.perspectives(told(), ("dialogue",))
    whole = ex.encode(tokenizer, shown, 10_000)
    first = int(np.flatnonzero(whole.labels != ex.IGNORED)[0])
    assert ex.encode(tokenizer, shown, first) is None
    assert len(ex.encode(tokenizer, shown, first + 1).ids) == first + 1


def test_a_template_that_rewrites_is_refused(load):
    tokenizer = load("llama", True).tokenizer
    kept = tokenizer.chat_template
    tokenizer.chat_template = "{{ messages | length }}: {% for m in messages %}{{ m['content'] }}{% endfor %}"
    try:
        with pytest.raises(InputError, match="rewrites"):
            ex.encode(tokenizer, next(ex.perspectives(told(), ("dialogue",))), 100)
    finally:
        tokenizer.chat_template = kept


def test_a_template_without_a_system_role_has_it_in_the_first_turn(load):
    tokenizer = load("llama", True).tokenizer
    kept = tokenizer.chat_template
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    refuse += "{% for m in messages %}{% if m['role'] != ['user', 'assistant'][loop.index0 % 2] %}"
    refuse += "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
    tokenizer.chat_template = refuse + kept
    try:
        for shown in ex.perspectives(told(), ("dialogue", "intent")):
            found = ex.encode(tokenizer, shown, 10_000)
            assert shown[0]["content"] in tokenizer.decode(found.ids) and (found.labels != ex.IGNORED).any()
    finally:
        tokenizer.chat_template = kept


def test_whoever_is_drawn_to_leave_is_not_asked():
    writer = Script(lambda chat, seed: "SPEAK: I stay here")
    playing, number = simulate.begin(scenes(20), 1), 0
    while any(not each.ended for each in playing):
        playing = simulate.play_round(playing, CULTURE, writer, Style(6, 0.7), 9, number, drawn=True)
        number += 1
    left = [each for each in playing if each.ended == "left"]
    assert left and all(not each.malformed for each in playing)
    assert len(writer.shown) == sum(len(each.turns) for each in playing) - len(left)


def test_intents_are_one_sentence_a_turn_with_words():
    writer = Script(talk)
    [found] = with_intents([told()], writer, 0, heard=lambda *at: None)
    assert [t.intent for t in found.turns] == ["They want to settle it kindly."] * 3
    assert len(writer.shown) == 3 and "Ann Lee wants" in writer.shown[0][0]["content"]


def test_a_dialogue_s_examples_stay_on_one_side():
    rows = [ex.Example(np.zeros(1), np.zeros(1), f"d{i // 4}") for i in range(40)]
    learned, left = divide(rows, 0.2, np.random.default_rng(0))
    assert len(left) == 8 and not {e.source for e in learned} & {e.source for e in left}


# stages


def course(folder, load, writer=None, seed=0, **settings):
    model = load("llama", True)
    small = {
        "scenarios": 4,
        "turns": 4,
        "words": 12,
        "length": 900,
        "epochs": 2,
        "batch": 2,
        "rate": 0.01,
        "alpha": 8,
        "actions": "free",
    }
    said = []
    return Course(
        folder, "US", CULTURE, CLCASettings(**small | settings), seed, lambda: model,
        lambda replies: writer or Script(talk), lambda *told: said.append(told),
    )  # fmt: skip


def weights(folder):
    return (folder / "lora" / "adapter_model.safetensors").read_bytes()


def test_every_stage_leaves_its_artefact(load, tmp_path):
    from datasets import load_from_disk

    one = course(tmp_path, load)
    for stage in stages.STAGES:
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


def test_secrets_are_kept_and_learned_by_their_owner_alone():
    for played in play(Script(talk)):
        for number, one in enumerate(played.scenario.people):
            assert played.dialogue().backgrounds[number] == f"{one.profile} Secret: {one.secret}"
            told = [chat[0]["content"] for chat in ex.perspectives(played.dialogue(), ("dialogue",))]
            assert [one.secret in each for each in told] == [number == 0, number == 1]


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

    for after in (2, 4, 5, 6, 8, 11):  # in the rounds, before the judge, before intents, in training
        folder = tmp_path / str(after)
        from dataclasses import replace

        with pytest.raises(KeyboardInterrupt):
            replace(course(folder, load), tell=stopping(after)).run()
        course(folder, load).run()
        assert weights(folder) == weights(tmp_path / "whole"), after


def test_killed_after_the_judgement_that_ends_training_it_ends_the_same(load, tmp_path, monkeypatch):
    """The trainer alone would go on from its last checkpoint, though it had stopped early."""
    from culteval.optimizers.clca import train as module

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
    assert list(spent) == list(stages.STAGES) and spent["scenarios"]["tokens"] == 0
    assert all(spent[stage]["tokens"] > 0 < spent[stage]["seconds"] for stage in stages.STAGES[1:])
    assert one.report()["tokens"]["train"] == spent["train"]["tokens"]
    one.clear("intents")
    assert list(one.spent()) == ["scenarios", "simulate", "filter"]


def test_judges_and_intents_tell_how_far_they_are(load, tmp_path):
    from dataclasses import replace

    heard = []
    one = replace(course(tmp_path, load, scenarios=25), tell=lambda *told: heard.append(told))
    one.run("intents")
    assert ("judging", 50, 150) in heard and ("judging", 140, 150) in heard
    steps = {
        stage: [done for name, done, _ in heard if name == stage] for stage in ("simulating", "judging", "intents")
    }
    assert steps["intents"] == [0, 40, 80, 120, 160, 200] and steps["judging"][-1] == 150
    assert steps["simulating"] == [0, 1, 2, 3, 4]  # a bar is full at the end


def test_a_stage_done_anew_takes_later_ones_with_it(load, tmp_path):
    one = course(tmp_path, load)
    one.run()
    one.clear("filter")
    assert one.done("simulate") and not any(one.done(name) for name in ("filter", "intents", "train"))
    one.run()
    assert one.done("train")


def test_people_s_own_dialogues_are_learned_without_agents(load, tmp_path):
    from culteval.optimizers.clca.dialogues import write_dialogues

    write_dialogues(tmp_path / "own.jsonl", [told(), told().model_copy(update={"id": "b"})])
    one = course(tmp_path / "run", load, dialogues=str(tmp_path / "own.jsonl"), checks=(), judge=False)
    one.run()
    assert one.report()["simulated"] == {"source": str(tmp_path / "own.jsonl"), "dialogues": 2}


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
    with pytest.raises(InputError, match=r"scenarios\.jsonl:1: .*--fresh"):
        one.run()


def test_presets_set_sizes_and_nothing_else():
    laptop, paper = CLCASettings(), CLCASettings(preset="paper")
    odd = {name for name in CLCASettings.model_fields if getattr(laptop, name) != getattr(paper, name)}
    assert odd == {"preset", "scenarios", "turns", "words", "length", "epochs", "actions", "checks"}
    assert CLCASettings(preset="paper", turns=3).turns == 3
    assert (laptop.rank, laptop.alpha, laptop.dropout, laptop.modules) == (4, 0.1, 0.5, ("q_proj", "v_proj"))
    assert (laptop.batch, laptop.rate, paper.epochs, paper.length, laptop.save_embeddings) == (8, 1e-4, 3, 2048, False)


def test_lora_is_what_peft_loads_and_changes_answers(load, tiny, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    one = course(tmp_path, load)
    one.run()
    base = AutoModelForCausalLM.from_pretrained(tiny())
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = base(ids).logits.clone()
        after = PeftModel.from_pretrained(base, tmp_path / "lora").eval()(ids).logits
    assert not torch.allclose(before, after)


def test_the_base_model_is_left_as_it_was(load, tmp_path):
    model = load("llama", True)
    before = {name: value.clone() for name, value in model.model.named_parameters()}
    learned = ex.examples([told()], model.tokenizer, ("dialogue",), 900)
    train(model, learned, CLCASettings(heldout=0, batch=1), tmp_path, 0, lambda *told: None)
    after = dict(model.model.named_parameters())
    assert before.keys() == after.keys() and all((before[n] == after[n]).all() for n in before)
    assert not any(value.requires_grad for value in after.values()) and not model.model.training
