"""CLCA's scenes and dialogues: seeds, countries, the culture in words, actions, the file, checks, the drop rule."""

import json
import re

import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_of
from culteval.optimizers.clca.culture import CUTS, in_words, level, values_map
from culteval.optimizers.clca.dialogues import dialogue_filter as judging
from culteval.optimizers.clca.dialogues.actions import (
    Action,
    line_of_play,
    opening,
    parse_action,
    parse_line_of_play,
    written,
)
from culteval.optimizers.clca.dialogues.dialogue import (
    Dialogue,
    Turn,
    as_episode,
    from_episode,
    read_dialogues,
    save_dataset,
    write_dialogues,
)
from culteval.optimizers.clca.dialogues.language import language_of
from culteval.optimizers.clca.dialogues.scenarios import Seed, adapted, place_of, seeds
from culteval.tasks.metrics.reference import DIMENSIONS, scores_of
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

COUNTRIES = ("US", "CN", "DE", "GB", "MX", "JP", "SA", "IN", "EG", "BR", "NG", "KR", "TR", "FR", "RU", "ID")
LINE = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=60)


# scenes


def test_there_are_sixty_seeds_and_more_over_many_themes():
    found = seeds()
    assert len(found) >= 60 and len({seed.id for seed in found}) == len(found)
    assert len({seed.theme for seed in found}) >= 12
    for name in DIMENSIONS:
        assert sum(name in seed.values for seed in found) >= 15
    assert all(one.goal != one.secret and one.goal for seed in found for one in seed.people)


@pytest.mark.parametrize("code", COUNTRIES)
def test_scenes_of_a_country_have_its_names_and_nothing_left_open(code):
    place = place_of(code)
    scenes = adapted(code, len(seeds()), np.random.default_rng(0))
    for scene in scenes:
        text = scene.model_dump_json()
        assert not re.search(r"\{(first|second|city|place|food|holiday|institution)\}", text)
        given_names = [set(one.name.split()) & set(place.first_names) for one in scene.people]
        assert all(given_names) and scene.people[0].name != scene.people[1].name
        assert len(scene.customs) == 3 and set(scene.customs) <= set(place.customs)
    drawn = (*place.cities, *place.places, *place.foods, *place.holidays, *place.institutions)
    assert sum(any(word in scene.setting for word in drawn) for scene in scenes) > len(scenes) / 2


def test_scenes_are_those_of_the_seed_and_every_seed_is_taken_before_one_is_again():
    first, again = (adapted("US", 100, np.random.default_rng(4)) for _ in range(2))
    assert first == again != adapted("US", 100, np.random.default_rng(5))
    assert len({scene.id for scene in first}) == 100
    assert len({scene.id.partition("-")[0] for scene in first[: len(seeds())]}) == len(seeds())


def test_a_country_without_scenes_is_named():
    with pytest.raises(UsageError, match=r"country KE: no scenes of Kenya yet; there are BR, CN"):
        place_of("KE")


@pytest.mark.parametrize("text", ["{names}", "{first.name}", "{first!r}", "{first:>10}", "{}", "{0}"])
def test_seeds_have_no_other_placeholders(text):
    person = {"occupation": "cook", "age": 30, "background": "b", "goal": "g", "secret": "s"}
    seed = {"id": "x", "theme": "t", "relation": "r", "setting": text, "people": [person, person], "values": []}
    with pytest.raises(ValidationError, match="placeholder"):
        Seed.model_validate(seed)


# culture


def test_levels_are_cut_where_it_is_said():
    assert [level(z) for z in (-3, -1.01, -1, -0.4, 0, 0.4, 0.99, 1, 5)] == [0, 0, 1, 1, 2, 3, 3, 4, 4]
    assert list(CUTS) == sorted(CUTS)


def test_the_culture_in_words_follows_the_figures():
    scores = scores_of(spec_of("vsm13"), "extended")
    america, china, arabia = (in_words(scores, code) for code in ("US", "CN", "SA"))
    assert "highly individualistic" in america and "collective" in china
    assert "long-sighted" in china and "restrained" in arabia
    assert "values" in america and "People there" not in arabia  # Saudi Arabia is not in wave 7
    with pytest.raises(UsageError):
        in_words(scores, "AQ")


def test_the_values_map_has_both_axes_in_units_of_their_spread():
    found = np.stack(list(values_map().values()))
    assert found.shape == (12, 2) and abs(found.mean(0)).max() < 0.05 and (found.std(0) > 0.5).all()
    place = values_map()
    assert place["DE"].min() > 1 > -1 > place["EG"].max()


# actions


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("SPEAK: Good morning, sir.", Action("speak", "Good morning, sir.")),
        ('speak: "Good morning."', Action("speak", "Good morning.")),
        ("**ACT:** bows slightly", Action("non-verbal", "bows slightly")),
        ("\n\nSPEAK:  two   spaces \nSPEAK: a second line", Action("speak", "two spaces")),
        ("NONE", Action("none", "")),
        ("Leave.", Action("leave", "")),
        ("LEAVE: I have to go", Action("leave", "")),
        ('{"action_type": "speak", "argument": "Hello"}', Action("speak", "Hello")),
        ('{"action_type": "non-verbal communication", "argument": "nods"}', Action("non-verbal", "nods")),
        ('{"action_type": "leave", "argument": ""}', Action("leave", "")),
        ("", None),
        ("Good morning.", None),
        ("SPEAK:", None),
        ('SPEAK: ""', None),
        ("SPEAKING of which, no", None),
        ('{"action_type": "dance"}', None),
        ('{"action_type": ["speak"], "argument": "x"}', None),
        ('{"action_type": "speak", "argument": 3}', None),
        ("{" * 2000, None),
        ("[1]", None),
    ],
)
def test_actions_are_read(text, action):
    assert parse_action(text) == action


@given(st.text(max_size=300))
def test_whatever_is_written_gives_an_action_or_none(text):
    found = parse_action(text)
    if found is not None:
        assert bool(found.text) == (found.kind in ("speak", "non-verbal"))
        assert "\n" not in found.text and len(found.text) <= 1200
        Turn(speaker="A", kind=found.kind, text=found.text)


@given(st.sampled_from(["speak", "non-verbal"]), LINE)
def test_actions_are_read_back(kind, text):
    words = " ".join(text.split()).strip('"“”* ')
    words = " ".join(words.split()).strip('"“”* ')
    if words and words == words.strip():
        assert parse_action(written(Action(kind, words))) == Action(kind, words)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("speak", 'Ann Lee: " Hello there. Yes" and he', "Hello there. Yes"),
        ("speak", "“Hi there.” she said", "Hi there."),
        ("speak", "\n\nAnn Lee: Good day\nBo Xi: Good day", "Good day"),
        ("speak", 'Ann Lee: " Bo: hi', None),
        ("speak", 'Ann Lee: "Ann Lee: hi"', None),
        ("speak", 'Ann Lee: "', None),
        ("non-verbal", 'Ann Lee [ nods slowly] "x', "nods slowly"),
        ("non-verbal", "Ann Lee [", None),
    ],
)
def test_a_line_of_a_play_is_one_person_s_words_or_gesture(kind, text, words):
    found = parse_line_of_play(text, kind, ("Ann Lee", "Bo Xi"), 0)
    assert found == (None if words is None else Action(kind, words))
    if words:
        line = line_of_play(turn("Ann Lee", kind, words))
        assert line.startswith(opening(kind, "Ann Lee"))
        assert parse_line_of_play(line, kind, ("Ann Lee", "Bo Xi"), 0) == found


# the file


def turn(speaker, kind="speak", text="Good morning to you"):
    return Turn(speaker=speaker, kind=kind, text=text if kind in ("speak", "non-verbal") else "")


def dialogue(turns=None, **changed):
    fields = {
        "id": "s01-US-r0",
        "country": "US",
        "scenario": "At the gate.",
        "people": ("Ann Lee", "Ann"),
        "backgrounds": ("A cook.", "A guard."),
        "goals": ("You want in.", "You want quiet."),
        "turns": turns or (turn("Ann Lee"), turn("Ann", "non-verbal", "shakes the head"), turn("Ann Lee", "leave")),
    }
    return Dialogue(**fields | changed)


WORDS = st.lists(LINE.filter(str.strip), min_size=1, max_size=3).map("\n\n".join)


@st.composite
def dialogues(draw):
    names = draw(
        st.lists(
            st.from_regex(r"[A-Z][a-z]{1,8}( [A-Z][a-z]{1,8})?", fullmatch=True), min_size=2, max_size=2, unique=True
        )
    )
    turns = []
    for kind in draw(st.lists(st.sampled_from(["speak", "non-verbal", "none", "leave"]), max_size=6)):
        text = draw(WORDS).strip() if kind in ("speak", "non-verbal") else ""
        text = text.strip('"')
        if kind in ("speak", "non-verbal") and not text.strip():
            continue
        turns.append(Turn(speaker=draw(st.sampled_from(names)), kind=kind, text=text.strip()))
    return dialogue(tuple(turns) or (turn(names[0]),), people=tuple(names))


@given(dialogues())
def test_dialogues_are_read_back(one):
    line = json.loads(json.dumps(as_episode(one)))
    again = from_episode(line)
    assert again.people == one.people and [t.kind for t in again.turns] == [t.kind for t in one.turns]
    assert [t.text.strip() for t in again.turns] == [t.text for t in one.turns]


def test_the_file_has_the_published_fields(tmp_path):
    path = tmp_path / "dialogues.jsonl"
    write_dialogues(path, [dialogue(), dialogue(id="other")])
    line = json.loads(path.read_text().splitlines()[0])
    published = {"episode_id", "scenario", "codename", "agents_background", "social_goals", "social_interactions"}
    assert published < set(line)
    assert line["social_interactions"].split("\n\n") == [
        'Ann Lee said: "Good morning to you"',
        "Ann [non-verbal communication] shakes the head",
        "Ann Lee left the conversation",
    ]
    assert read_dialogues(path) == [dialogue(), dialogue(id="other")]


def test_an_episode_as_others_write_it_is_read(tmp_path):
    episode = {
        "episode_id": "01H", "environment_id": "x", "scenario": "A trade.", "codename": "craigslist",
        "agents_background": {"Mia Davis": "50-year-old", "Noah Davis": "48-year-old"},
        "social_goals": {"Noah Davis": "Sell", "Mia Davis": "Buy"},
        "social_interactions": 'Mia Davis said: "Hi."\n\nNoah Davis [action] shows it\n\nMia Davis did nothing',
        "rewards": [{"goal": 3.0}], "reasoning": "...",
    }  # fmt: skip
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps(episode) + "\n\n")
    [found] = read_dialogues(path)
    assert found.goals == ("Buy", "Sell") and [t.kind for t in found.turns] == ["speak", "non-verbal", "none"]


GOOD = as_episode(dialogue())


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([""], "no dialogue"),
        (["{"], ":1: "),
        (["[]"], ":1: "),
        (["3"], ":1: "),
        ([json.dumps(GOOD), '{"episode_id": "x"}'], ":2: "),
        ([json.dumps(GOOD)] * 2, "one episode_id"),
        ([json.dumps(GOOD | {"social_goals": {"A": "", "B": ""}})], "not the persons"),
        ([json.dumps(GOOD | {"social_interactions": "Eve said: hi"})], "not a turn of either person"),
        ([json.dumps(GOOD | {"agents_background": {"A": ""}})], "agents_background"),
        ([json.dumps(GOOD | {"scenario": "x" * 9000})], "scenario"),
        (["[" * 100_000], ":1: "),
        (["x" * ((4 << 20) + 1)], "longer than 4194304 bytes"),
        ([json.dumps(GOOD | {"social_interactions": "Ann did nothing\n\n" * 500})], "turns"),
        ([json.dumps(GOOD).replace("At the gate", "\ud800")], ":1: "),
    ],
)
def test_bad_files_are_named_in_a_line(tmp_path, lines, told):
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    with pytest.raises(InputError, match=told) as raised:
        read_dialogues(path)
    assert "bad.jsonl" in str(raised.value) and len(str(raised.value)) < 400


CHAT = [
    {"role": "system", "content": "You live in Jeddah."}, {"role": "user", "content": "Coffee?"},
    {"role": "assistant", "content": "Gladly.\n\nUser said: with dates"}, {"role": "user", "content": "\"Good\""},
]  # fmt: skip
SHARED = [
    {"from": "system", "value": "You live in Jeddah."}, {"from": "human", "value": "Coffee?"},
    {"from": "gpt", "value": "Gladly.\nUser said: with dates"}, {"from": "human", "value": " \"Good\" "},
]  # fmt: skip
PARTS = [{"role": "developer", "content": "You live in Jeddah."}] + [
    each | {"content": [{"type": "text", "text": each["content"]}]} for each in CHAT[1:]
]
SPOKEN = [("User", "Coffee?"), ("Assistant", "Gladly.\nUser said: with dates"), ("User", '"Good"')]


@pytest.mark.parametrize("record", [{"messages": CHAT}, {"conversations": SHARED}, {"messages": PARTS}])
@pytest.mark.parametrize("shape", ["lines", "array", "array over lines"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_chats_are_read_as_dialogues_of_a_user_and_an_assistant(tmp_path, record, shape, mark):
    records = [record, record, record | {"id": "x", "country": "SA"}]
    text = {
        "lines": "\n".join(map(json.dumps, records)),
        "array": json.dumps(records),
        "array over lines": f"\n {json.dumps(records, indent=2)}\n",
    }[shape]
    (tmp_path / "chats.json").write_bytes(mark + text.encode())
    found = read_dialogues(tmp_path / "chats.json")
    assert [(each.id, each.country) for each in found] == [("1", ""), ("2", ""), ("x", "SA")]
    for each in found:
        assert each.people == ("User", "Assistant") and each.backgrounds == ("", "You live in Jeddah.")
        assert [(turn.speaker, turn.text) for turn in each.turns] == SPOKEN
        assert {turn.kind for turn in each.turns} == {"speak"}
    write_dialogues(tmp_path / "kept.jsonl", found)
    assert read_dialogues(tmp_path / "kept.jsonl") == found


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_episodes_in_one_array(tmp_path, mark):
    (tmp_path / "e.json").write_text(mark + json.dumps([GOOD, GOOD | {"episode_id": "b"}]), encoding="utf-8")
    assert read_dialogues(tmp_path / "e.json") == [dialogue(), dialogue(id="b")]


TWO = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (json.dumps({"messages": TWO}) + "\n" + json.dumps({"messages": []}), ":2: messages: User and Assistant"),
        (json.dumps({"messages": TWO[:1]}), ":1: messages: Assistant said nothing"),
        (json.dumps({"conversations": [{"from": "gpt", "value": "b"}]}), ":1: conversations: User said nothing"),
        (json.dumps({"messages": [*TWO, {"role": "tool", "content": "x"}]}), ":1: messages, 3: role 'tool'"),
        (json.dumps({"messages": [*TWO, {"role": ["user"], "content": "x"}]}), ":1: messages, 3: role"),
        (json.dumps({"messages": [*TWO, {"role": "user", "content": " "}]}), ":1: messages, 3: content"),
        (json.dumps({"messages": [*TWO, {"role": "user", "content": None}]}), ":1: messages, 3: content"),
        (json.dumps({"messages": [*TWO, {"role": "user", "content": [{"type": "image_url"}]}]}), ":1: messages, 3: c"),
        (json.dumps({"messages": "hi"}), ":1: messages: not a list"),
        (json.dumps({"messages": [*TWO, "hi"]}), ":1: messages, 3: not an object"),
        (json.dumps({"messages": TWO * 150}), ":1: turns"),
        (json.dumps({"messages": [TWO[0], TWO[1] | {"content": "x" * 9000}]}), ":1: turns"),
        ("[\n" + json.dumps({"messages": TWO}) + ",\n" + json.dumps({"messages": TWO[:1]}) + "\n]", ":3: messages: A"),
        ("[" + json.dumps({"messages": TWO}) + json.dumps({"messages": TWO}) + "]", ":1: line 1: no comma"),
        ("[" + json.dumps({"messages": TWO}) + "] {}", ":1: more after"),
        ("[" + json.dumps({"messages": TWO}) + ",", ":1: "),
        (json.dumps([{"messages": TWO, "id": 7}, {"messages": TWO, "id": "7"}]), "one episode_id"),
        ("\ufeff", "no dialogue"),
        (json.dumps(["hi"]), ":1: "),
    ],
)  # fmt: skip
def test_chats_of_no_two_are_refused_by_line(tmp_path, text, told):
    path = tmp_path / "chats.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(told)) as raised:
        read_dialogues(path)
    assert "chats.json" in str(raised.value) and len(str(raised.value)) < 400


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl.*dialogues"):
        read_dialogues(tmp_path / "none.jsonl")


def test_a_compressed_file_is_read_and_bounded_by_its_text(tmp_path, monkeypatch):
    import pyarrow as pa

    plain, packed = tmp_path / "some.jsonl", tmp_path / "some.jsonl.zst"
    write_dialogues(plain, [dialogue(), dialogue(id="other")])
    with pa.output_stream(str(packed), compression="zstd") as stream:
        stream.write(plain.read_bytes() + b"\n" * 100_000)
    assert read_dialogues(packed) == [dialogue(), dialogue(id="other")]
    monkeypatch.setattr("culteval.optimizers.clca.dialogues.dialogue.MOST_BYTES", 50_000)
    with pytest.raises(InputError, match="more than 50000 bytes of text"):
        read_dialogues(packed)


@given(st.binary(max_size=200))
def test_whatever_the_bytes_a_file_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "any.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputError):
        read_dialogues(path)


def test_a_folder_of_the_datasets_library(tmp_path):
    from datasets import load_from_disk

    save_dataset(tmp_path / "set", [dialogue(), dialogue(id="b", turns=(turn("Ann"),))])
    found = load_from_disk(str(tmp_path / "set"))
    assert found["id"] == ["s01-US-r0", "b"] and found[1]["turn_speaker"] == ["Ann"]
    assert found[0]["turn_kind"] == ["speak", "non-verbal", "leave"]


# checks and the drop rule


def long(**changed):
    said = ("Good morning, would you like some apple pie today, Ann?", "No thanks, I had lunch at the diner with Sam.",
            "Then we could talk about the rent, which is due on Friday.")  # fmt: skip
    speakers = ("Ann Lee", "Ann", "Ann Lee")
    return dialogue(tuple(turn(who, text=text) for who, text in zip(speakers, said, strict=True)), **changed)


def test_a_good_dialogue_passes():
    assert judging.check(long(), place_of("US")) == []


BOTH = ("Ann", "Ann Lee")
TOLD = {
    "length": (turn("Ann", text="Hello there"),),
    "both spoke": tuple(turn("Ann", text=f"I talk of Boston and nothing but it, number {i}") for i in range(4)),
    "repetition": (turn("Ann"), turn("Ann Lee")) * 6,
    "language": tuple(turn(name, text="早上好，今天天气不错，我们去喝茶吧。 " * 3) for name in (*BOTH, "Ann")),
    "culture words": tuple(turn(name, text=f"we could speak later, number {i}") for i, name in enumerate(BOTH * 2)),
}


@pytest.mark.parametrize(("kind", "turns"), TOLD.items())
def test_each_check_drops_what_it_is_for(kind, turns):
    one = dialogue(turns)
    problems = judging.check(one, place_of("US"))
    assert kind in {problem.partition(":")[0] for problem in problems}
    decision = judging.decide(one, problems, {})
    assert not decision.kept and decision.reasons == tuple(problems)


@pytest.mark.parametrize(
    ("reply", "verdict", "confidence"),
    [
        ("good, very confident", "good", "very confident"),
        ("Bad, confident.", "bad", "confident"),
        ("**BAD** (very confident)", "bad", "very confident"),
        ("bad, not sure", "bad", "not sure"),
        ("bad, not very confident", "bad", "not sure"),
        ("bad", "bad", "not sure"),
        ("I cannot say", None, "not sure"),
        ("goodness", None, "not sure"),
        ("", None, "not sure"),
        ("good\nbad, very confident", "good", "not sure"),
        ("bad, very confident. It does not hold together", "bad", "very confident"),
        ("bad. It does not hold, I am very confident", "bad", "very confident"),
        ("Bad.\nIt does not hold.\nVery confident", "bad", "very confident"),
        ("VERDICT: bad, CONFIDENCE: very confident", "bad", "very confident"),
        ("**Verdict:** good\n**Confidence:** confident", "good", "confident"),
        ("BAD\nVERY CONFIDENT", "bad", "very confident"),
        ("bad, very-confident", "bad", "very confident"),
        ("bad, confident, not very confident", "bad", "confident"),
        ("bad, not confident", "bad", "not sure"),
        ("bad, I am not at all confident", "bad", "not sure"),
        ("bad, but I'm not sure; very confident of the rest", "bad", "not sure"),
        ("bad, though it isn't very confident", "bad", "not sure"),
        ("VERDICT: none", None, "not sure"),
    ],
)
def test_judgements_are_read(reply, verdict, confidence):
    found = judging.read_judgement(reply)
    assert (found.verdict, found.confidence) == (verdict, confidence)


@given(
    st.sampled_from(["good", "bad"]),
    st.sampled_from(judging.CONFIDENCE),
    st.sampled_from(["{}, {}", "{}\n{}", "VERDICT: {}, CONFIDENCE: {}", "**{}** ({})", "- {}; I am {}", "{} - {}"]),
    st.sampled_from(["", ". It does not hold together", "\nIt is not good", ", since nobody is confident"]),
    st.sampled_from([str.lower, str.upper, str.title]),
)
def test_the_forms_of_a_judgement_are_read(verdict, confidence, form, more, case):
    found = judging.read_judgement(case(form.format(verdict, confidence)) + more)
    assert (found.verdict, found.confidence) == (verdict, confidence)


@given(st.text(max_size=100))
def test_whatever_a_judge_says_is_a_judgement(reply):
    assert judging.read_judgement(reply).verdict in ("good", "bad", None)


@pytest.mark.parametrize("question", judging.QUESTIONS)
@pytest.mark.parametrize("verdict", ["good", "bad", "what?"])
@pytest.mark.parametrize("confidence", judging.CONFIDENCE)
def test_only_quality_or_meta_bad_and_very_confident_drop(question, verdict, confidence):
    judgements = {name: judging.read_judgement("good, confident") for name in judging.QUESTIONS}
    judgements[question] = judging.read_judgement(f"{verdict}, {confidence}")
    decision = judging.decide(long(), [], judgements)
    dropped = question in ("quality", "meta") and verdict == "bad" and confidence == "very confident"
    assert decision.kept != dropped
    assert decision.reasons == ((f"judge: {question} bad, very confident",) if dropped else ())


def test_reasons_are_counted():
    kept = judging.decide(long(), [], {})
    dropped = judging.decide(long(id="x"), ["length: short", "length: few words", "repetition: much"], {})
    assert judging.tally([kept, kept, dropped]) == {"kept": 2, "length": 1, "repetition": 1}


def test_a_judge_that_never_answers_does_not_look_like_one_that_keeps_all():
    silent = {name: judging.read_judgement("well, well") for name in judging.QUESTIONS}
    mild = {name: judging.read_judgement("good, confident") for name in judging.QUESTIONS}
    told = [judging.tally([judging.decide(long(), [], given)] * 2) for given in (silent, mild)]
    assert told == [{"kept": 2, "judgements": 6, "unreadable": 6}, {"kept": 2, "judgements": 6, "unreadable": 0}]


# own dialogues in other scripts


def chinese(count=4):
    lines = (
        "早上好，你家的饺子还有吗？",
        "有的，妈妈昨天包了很多，你要多少？",
        "给我二十个，谢谢，多少钱？",
        "不用钱，我们是邻居。",
    )
    people = ("王芳", "李明")
    turns = tuple(Turn(speaker=people[i % 2], kind="speak", text=lines[i % 4]) for i in range(count))
    return Dialogue(id="zh", scenario="厨房", people=people, backgrounds=("", ""), goals=("", ""), turns=turns)


def test_dialogues_of_another_script_pass_where_it_is_theirs():
    one, china = chinese(), place_of("CN")
    own = language_of([judging.said(one)])
    assert judging.check(one, china, judging.CHECKS[:-1], own) == []
    assert [each.partition(":")[0] for each in judging.check(one, china, ("language",))] == ["language"]
    english = dialogue(tuple(turn(name) for name in (*BOTH, *BOTH)))
    assert [each.partition(":")[0] for each in judging.check(english, china, ("language",), own)] == ["language"]
    named = one.model_copy(update={"turns": (*one.turns, Turn(speaker="王芳", kind="speak", text="李明真好"))})
    assert judging.names_culture(named, china) and not judging.names_culture(one, china)


def test_words_of_scripts_without_spaces_are_characters():
    assert judging.split_words("你好 Ann, fine") == ["你", "好", "Ann,", "fine"]
