"""Rounds of CLCA's agents: what each is shown, turns and their ends, secrets, and models that write."""

import json
from collections import Counter
from itertools import pairwise

import pytest
from culteval.optimizers.clca.dialogues import simulate
from culteval.optimizers.clca.training import examples as ex
from culteval.optimizers.writing.writer import LocalWriter, Style

from ...clca_course import CULTURE, Script, scenes, talk


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


def drawn(say, count=6, turns=6):
    writer, playing, number = Script(say), simulate.begin(scenes(count), 1), 0
    while any(not each.ended for each in playing):
        playing = simulate.play_round(playing, CULTURE, writer, Style(10, 0.7), turns, 10 * number, drawn=True)
        number += 1
    return playing, writer


def test_drawn_kinds_are_played_as_lines_of_a_play():
    playing, writer = drawn(lambda chat, seed: f'Well, number {seed}." and more')
    assert {t.text for each in playing for t in each.turns if t.text} >= {"Well, number 0.", "Well, number 10."}
    assert not any(each.malformed for each in playing)
    for chat in writer.shown:
        one = next(s for s in scenes(6) if s.setting in chat[0]["content"])
        me, other = sorted(one.people, key=lambda p: f"You are {p.name}" not in chat[0]["content"])
        assert CULTURE in chat[0]["content"] and me.secret in chat[0]["content"]
        assert other.secret not in chat[0]["content"] and other.goal not in chat[0]["content"]
        for message in chat[1:]:
            who = me.name if message["role"] == "assistant" else other.name
            assert message["content"].startswith((f'{who}: "Well', f"{who} [Well", f"({who} looks at you. "))
        reminded = chat[-1]["content"].endswith(f"\n({me.name}, come to the point. {me.goal})")
        assert reminded == (sum(message["content"].count("Well, number") for message in chat) < 2), "at the first turn"


def test_words_of_the_other_and_words_said_before_are_malformed():
    other, _ = drawn(lambda chat, seed: chat[0]["content"].split("The user is ")[1].split(" (")[0] + ": Hi.")
    assert {each.ended for each in other} == {"malformed"} and {each.malformed for each in other} == {3}
    echo, _ = drawn(lambda chat, seed: "As I said.")
    assert {(each.ended, len(each.turns)) for each in echo} == {("malformed", 1)}


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


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_a_style_may_forbid_repeated_ngrams(load, shape):
    """By the engine, and by transformers for models whose layers it does not support."""
    chats = [[{"role": "user", "content": f"Say {n}"}] for n in range(4)]
    writer = LocalWriter(load(shape, True))
    free, found = (writer.write(chats, Style(24, 0, n), 0) for n in (0, 2))
    pairs = lambda text: list(pairwise(writer.model.tokenizer(text, add_special_tokens=False)["input_ids"]))  # noqa: E731
    assert any(len(pairs(text)) > len(set(pairs(text))) for text in free), "nothing to forbid"
    assert free != found


def test_a_chat_longer_than_the_context_loses_its_oldest_turns(load):
    model = load("llama", True)
    shown = [{"role": "system", "content": "rules"}]
    for number in range(400):
        shown.append({"role": ("user", "assistant")[number % 2], "content": f"turn number {number} of a long talk"})
    ids, _, _ = LocalWriter(model)._encode(shown, 8)
    turns = next(n for n in range(1, 200) if ids == model.chat.chat_ids([shown[0], *shown[-2 * n :]]))
    longer = model.chat.chat_ids([shown[0], *shown[-2 * (turns + 1) :]])
    assert len(ids) + 8 <= model.context_length < len(longer) + 8, "no turn more than needed"
    whole = [{"role": "system", "content": "rules " * 2000}, *shown[1:3]]
    ids, _, _ = LocalWriter(model)._encode(whole, 8)
    assert ids == model.chat.chat_ids(whole[:1])[8 - model.context_length :], "a first message that is too long itself"


def test_whoever_is_drawn_to_leave_is_not_asked():
    writer = Script(lambda chat, seed: f"I stay here, {len(chat)} and {seed}.")
    playing, number = simulate.begin(scenes(20), 1), 0
    while any(not each.ended for each in playing):
        playing = simulate.play_round(playing, CULTURE, writer, Style(6, 0.7), 9, number, drawn=True)
        number += 1
    left = [each for each in playing if each.ended == "left"]
    assert left and all(not each.malformed for each in playing)
    assert len(writer.shown) == sum(len(each.turns) for each in playing) - len(left)


def test_secrets_are_kept_and_learned_by_their_owner_alone():
    for played in play(Script(talk)):
        for number, one in enumerate(played.scenario.people):
            assert played.dialogue().backgrounds[number] == f"{one.profile} Secret: {one.secret}"
            told = [chat[0]["content"] for chat in ex.perspectives(played.dialogue(), ("dialogue",))]
            assert [one.secret in each for each in told] == [number == 0, number == 1]
