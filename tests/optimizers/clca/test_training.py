"""What CLCA learns from dialogues: perspectives, labels, templates, and the adapter that it makes."""

import numpy as np
import pytest
from culteval.errors import InputError
from culteval.harness.engine.chat import Chat
from culteval.optimizers.clca.dialogues.intents import with_intents
from culteval.optimizers.clca.settings import CLCASettings
from culteval.optimizers.clca.training import examples as ex
from culteval.optimizers.clca.training.train import divide, train

from ...clca_course import Script, course, talk, told
from .test_scenes import turn


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
        found = ex.encode(Chat(tokenizer), shown, 10_000)
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
    like = ex.examples([told()] * 3, Chat(tokenizer), ("dialogue", "intent"), 900)
    made = ex.unrelated(Chat(tokenizer), like, 900, np.random.default_rng(0))
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
    whole = ex.encode(Chat(tokenizer), shown, 10_000)
    first = int(np.flatnonzero(whole.labels != ex.IGNORED)[0])
    assert ex.encode(Chat(tokenizer), shown, first) is None
    assert len(ex.encode(Chat(tokenizer), shown, first + 1).ids) == first + 1


def test_a_template_that_rewrites_is_refused(load):
    tokenizer = load("llama", True).tokenizer
    kept = tokenizer.chat_template
    tokenizer.chat_template = "{{ messages | length }}: {% for m in messages %}{{ m['content'] }}{% endfor %}"
    try:
        with pytest.raises(InputError, match="rewrites"):
            ex.encode(Chat(tokenizer), next(ex.perspectives(told(), ("dialogue",))), 100)
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
            found = ex.encode(Chat(tokenizer), shown, 10_000)
            assert shown[0]["content"] in tokenizer.decode(found.ids) and (found.labels != ex.IGNORED).any()
    finally:
        tokenizer.chat_template = kept


def test_intents_are_one_sentence_a_turn_with_words():
    writer, bare = Script(talk), told()
    bare = bare.model_copy(update={"turns": tuple(t.model_copy(update={"intent": ""}) for t in bare.turns)})
    [found] = with_intents([bare], writer, 0, heard=lambda *at: None)
    assert [t.intent for t in found.turns] == ["They want to settle it kindly."] * 3
    assert len(writer.shown) == 3 and "Ann Lee wants" in writer.shown[0][0]["content"]


def test_given_intents_are_kept():
    writer = Script(talk)
    [found] = with_intents([told()], writer, 0, heard=lambda *at: None)
    assert [t.intent for t in found.turns] == [
        "Ann Lee wants in.",
        "Ann wants quiet.",
        "They want to settle it kindly.",
    ]
    assert len(writer.shown) == 1


def test_a_short_dialogue_s_turns_are_asked_with_all_before_them():
    writer, first = Script(talk), told()
    for count, before in ((12, 11), (14, 4)):
        turns = tuple(turn(("Ann Lee", "Ann")[i % 2], text=f"word{i}") for i in range(count))
        with_intents([first.model_copy(update={"turns": turns})], writer, 0, heard=lambda *at: None)
        assert max(chat[0]["content"].count("word") for chat in writer.shown[-count:]) == before + 1


def test_a_dialogue_s_examples_stay_on_one_side():
    rows = [ex.Example(np.zeros(1), np.zeros(1), f"d{i // 4}") for i in range(40)]
    learned, left = divide(rows, 0.2, np.random.default_rng(0))
    assert len(left) == 8 and not {e.source for e in learned} & {e.source for e in left}


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
    learned = ex.examples([told()], model.chat, ("dialogue",), 900)
    train(model, learned, CLCASettings(heldout=0, batch=1), tmp_path, 0, lambda *told: None)
    after = dict(model.model.named_parameters())
    assert before.keys() == after.keys() and all((before[n] == after[n]).all() for n in before)
    assert not any(value.requires_grad for value in after.values()) and not model.model.training
