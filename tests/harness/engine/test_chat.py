"""What stands around a prompt: templates, system turns, start and end tokens, dates, thoughts; by hand beside ours."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import pytest
import torch
from culteval.errors import UnavailableError, UsageError
from culteval.harness.engine.chat import Chat, closed
from culteval.harness.models.load import load_model
from culteval.harness.registry import spec_of
from culteval.tasks.chat_options import DATE, ChatOptions
from culteval.tasks.prompts import ProtocolOptions, render

from ...conftest import _tokenizer

TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PARTS = TURNS.replace("{{ m['content'] }}", "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}")
CLOCK = "<|im_start|>system\nIt is {{ strftime_now('%d %B %Y %H:%M') }}.<|im_end|>\n" + TURNS + OPEN
LLAMA = "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}" + CLOCK
STRICT = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('A system message is required') }}{% endif %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DEAF = "{% for m in messages if m['role'] != 'system' %}" + TURNS.partition("%}")[2]  # leaves the system turn out
QWEN = TURNS + OPEN[:-11] + "{% if not enable_thinking|default(true) %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
R1 = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"


def spoken(own, **options):
    tokenizer = _tokenizer(chat=False)
    tokenizer.chat_template = own
    return Chat(tokenizer, ChatOptions(**options), "M")


def user(text, reply=""):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{reply}"


@pytest.fixture(scope="module")
def survey():
    prompts = render(spec_of("vsm13_text"), "heldout", ProtocolOptions(limit=1))
    return prompts.take(np.array([0, 7, 23]))


@pytest.fixture
def model_with(tiny, tmp_path):
    """``model_with(change)``: the tiny Llama whose tokenizer was changed; ``options`` as in ``ChatOptions``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def made(change, shape="llama", notes=None, **options):
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        tokenizer = AutoTokenizer.from_pretrained(tiny(shape))
        change(tokenizer)
        AutoModelForCausalLM.from_pretrained(tiny(shape), dtype=torch.float32).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        say = notes.append if notes is not None else lambda text: None
        return load_model(str(folder), dtype="float32", threads=1, notify=say, chat=ChatOptions(**options))

    return made


def by_hand(model, ids, choices):
    """Option probabilities after token ids, by transformers' own pass."""
    mass = []
    for choice in choices:
        own = model.tokenizer(choice, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logs = model.model(input_ids=torch.tensor([ids + own])).logits[0].double().log_softmax(-1)
        mass.append(np.exp(sum(float(logs[len(ids) - 1 + i, token]) for i, token in enumerate(own))))
    return np.array(mass) / sum(mass)


def same_as_by_hand(model, prompts, ids_of, delimiter=""):
    answers = model.answer(prompts)
    for row, text in enumerate(prompts.texts):
        expected = by_hand(model, ids_of(text), [f"{delimiter}{c}" for c in prompts.choices[row]])
        assert np.abs(answers.probs[0, row] - expected).max() < 1e-4


# ---------------------------------------------------------------- templates


@pytest.mark.parametrize("template", [TURNS + OPEN, PARTS + OPEN, NO_SYSTEM + TURNS + OPEN])
def test_a_prompt_is_in_the_chat(template):
    assert spoken(template).render_prompt("How\nmany?") == user("How\nmany?")


@pytest.mark.parametrize("template", [PARTS.replace("text", "words") + OPEN, "{{ messages|length }}" + OPEN, OPEN])
def test_a_template_that_loses_the_prompt_is_refused(template):
    with pytest.raises(UnavailableError, match="omits the prompt"):
        spoken(template).render_prompt("How many?")


def test_a_template_that_needs_a_system_turn_says_so_and_takes_one():
    with pytest.raises(UnavailableError, match=r"A system message is required.*\n.*system=TEXT"):
        spoken(STRICT + TURNS + OPEN).render_prompt("How many?")
    found = spoken(STRICT + TURNS + OPEN, system="You are Ana.").render_prompt("How many?")
    assert found == "<|im_start|>system\nYou are Ana.<|im_end|>\n" + user("How many?")


@pytest.mark.parametrize("template", [NO_SYSTEM + TURNS + OPEN, DEAF + OPEN])
def test_a_system_turn_that_has_no_place_goes_to_the_user(template):
    assert spoken(template, system="You are Ana.").render_prompt("How?") == user("You are Ana.\n\nHow?")
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]
    assert spoken(template).render(chat) == user("Be brief.\n\nHow?")


def test_the_given_system_text_stands_before_a_chat_s_own():
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]
    found = spoken(TURNS + OPEN, system="You are Ana.").render(chat)
    assert found == "<|im_start|>system\nYou are Ana.\n\nBe brief.<|im_end|>\n" + user("How?")


def test_any_failure_of_a_template_is_one_message():
    with pytest.raises(UnavailableError, match="`model` M: its chat template rejects the chat"):
        spoken("{{ messages[0]['content'] + 1 }}").render_prompt("How?")
    with pytest.raises(UnavailableError, match="rejects the chat"):
        spoken("{% if %}").render_prompt("How?")


def test_a_template_in_place_of_the_model_s_own_and_none():
    assert spoken(TURNS + OPEN, template="{{ messages[0]['content'] }}!").render_prompt("How?") == "How?!"
    bare = spoken(TURNS + OPEN, template="")
    assert bare.render_prompt("How?") == "How?" and not bare.tokenizer.chat_template


@pytest.mark.parametrize("options", [{"system": "Be brief."}, {"arguments": {"enable_thinking": False}}])
def test_what_no_template_can_take_is_refused(options):
    with pytest.raises(UsageError, match="has no chat template"):
        spoken(None, **options)


def test_an_argument_that_the_template_does_not_read_is_refused():
    with pytest.raises(UsageError, match=r"`chat` enable_thinkin: .* does not read it. Did you mean 'enable_"):
        spoken(QWEN, arguments={"enable_thinkin": False})


# ---------------------------------------------------------------- the date


@pytest.mark.parametrize("template", [CLOCK, LLAMA])
def test_a_template_is_told_a_pinned_date(template):
    today = datetime.fromisoformat(DATE).strftime("%d %B %Y %H:%M")
    assert spoken(template).render_prompt("How?") == f"<|im_start|>system\nIt is {today}.<|im_end|>\n" + user("How?")
    other = spoken(template, date="2024-07-26")
    assert "It is 26 July 2024 00:00." in other.render_prompt("How?")
    assert spoken(template).recorded.date == DATE and other.recorded.date == "2024-07-26"


def test_what_is_usual_is_not_recorded():
    assert spoken(TURNS + OPEN).recorded is None and spoken(None).recorded is None
    assert spoken(TURNS + OPEN, system="Be brief.").recorded.system == "Be brief."


@pytest.mark.parametrize("template", [TURNS + OPEN, None])
def test_a_limit_of_thoughts_is_recorded_whatever_the_template_holds(template):
    """A model may begin to reason by itself, up to this limit."""
    assert spoken(template, thinking_tokens=7).recorded.thinking_tokens == 7


# ---------------------------------------------------------------- thinking aloud


def test_thinking_is_off_where_the_template_can():
    assert spoken(QWEN).render_prompt("How?") == user("How?", "<think>\n\n</think>\n\n")
    assert spoken(QWEN).recorded.arguments == {"enable_thinking": False}
    assert spoken(QWEN, arguments={"enable_thinking": True}).render_prompt("How?") == user("How?")


def test_every_way_of_thinking_aloud_is_closed_empty():
    for opened, shut in {
        "a\n<think>": "a\n<think>\n\n</think>\n\n",
        "a [THINK]": "a [THINK]\n\n[/THINK]\n\n",
        "<|START_THINKING|>\n": "<|START_THINKING|>\n\n<|END_THINKING|>\n\n",
        "a<|end|><|start|>assistant": "a<|end|><|start|>assistant<|channel|>final<|message|>",
        "<think>\n\n</think>\n\n": "<think>\n\n</think>\n\n",
        "What does <think> mean?\nassistant": "What does <think> mean?\nassistant",
    }.items():
        assert closed(opened) == shut


def test_an_open_block_of_thoughts_is_closed_for_probabilities(model_with, survey):
    model = model_with(lambda tokenizer: setattr(tokenizer, "chat_template", R1))

    def ids_of(text):
        return model.tokenizer(user(text, "<think>\n\n</think>\n\n"), add_special_tokens=False)["input_ids"]

    same_as_by_hand(model, survey, ids_of)
    assert model.info.chat is not None


@pytest.mark.parametrize("template", [R1, TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"])
def test_text_is_read_behind_the_thoughts(model_with, survey, template, monkeypatch):
    """Thoughts are written up to their budget and ended; the answer is what the model goes on with."""
    from culteval.harness.models import greedy

    model = model_with(lambda tokenizer: setattr(tokenizer, "chat_template", template), thinking_tokens=5)
    tokenizer, written = model.tokenizer, greedy._generate
    if template != R1:  # a model that begins to think by itself

        def begins(model, rows, soft, most):
            began = tokenizer("<think>", add_special_tokens=False)["input_ids"]
            fresh = [not tokenizer.decode(row).rstrip().endswith(("<think>", "</think>")) for row in rows]
            new = written(model, [row + began * new for row, new in zip(rows, fresh, strict=True)], soft, most)
            return [began * was + row for was, row in zip(fresh, new, strict=True)]

        monkeypatch.setattr(greedy, "_generate", begins)
    texts = model.generate(survey, most=4).texts
    for row, text in enumerate(survey.texts):
        ids = tokenizer(user(text, "<think>\n" if template == R1 else "<think>"), add_special_tokens=False)["input_ids"]
        ids = greedily(model, ids, 5)
        ids += tokenizer("\n\n</think>\n\n", add_special_tokens=False)["input_ids"]
        new = greedily(model, ids, 4)[len(ids) :]
        assert texts[row] == tokenizer.decode(new, skip_special_tokens=True).lstrip().partition("\n")[0]


@pytest.mark.parametrize(
    ("template", "arguments", "most"),
    [(R1, {}, 9), (QWEN, {}, 0), (QWEN, {"enable_thinking": True}, 9), (TURNS + OPEN, {}, 0), (None, {}, 0)],
)
def test_thoughts_take_room_where_a_block_of_them_may_open(template, arguments, most):
    assert spoken(template, arguments=arguments, thinking_tokens=9).most_thoughts == most


def test_the_longest_answer_in_text_follows_its_thoughts(model_with, survey):
    model = model_with(lambda tokenizer: setattr(tokenizer, "chat_template", R1), thinking_tokens=40)
    assert model.longest(survey, "", 8) == max(map(len, model.tokenised(survey, "").contexts)) + 40 + 8


def greedily(model, ids, most):
    for _ in range(most):
        with torch.no_grad():
            ids = [*ids, int(model.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
        assert ids[-1] not in model.ends, "choose other prompts"
    return ids


# ---------------------------------------------------------------- start and end tokens


def processor(single):
    """A tokenizer's change: special tokens around every text; no chat template."""
    from tokenizers.processors import TemplateProcessing

    def change(tokenizer, template=None):
        tokenizer.chat_template = template
        tokenizer.bos_token = "<|im_start|>"
        names = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<|im_start|>", "<|end|>")]
        pair = single.replace("$A", "$A $B")
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=names)

    return change


@pytest.mark.parametrize("single", ["<|im_start|> $A", "<|im_start|> $A <|end|>", "$A <|end|>", "$A"])
@pytest.mark.parametrize(
    "template", [None, "{{ messages[0]['content'] }}\nAnswer:", "<|im_start|>{{ messages[0]['content'] }}:"]
)
def test_start_tokens_are_there_once_and_end_tokens_never(model_with, survey, single, template):
    model = model_with(lambda tokenizer: processor(single)(tokenizer, template))
    start = model.tokenizer.bos_token_id

    def ids_of(text):
        whole = template.replace("{{ messages[0]['content'] }}", text) if template else text
        ids = model.tokenizer(whole, add_special_tokens=False)["input_ids"]
        return ids if ids[0] == start or not single.startswith("<") else [start, *ids]

    same_as_by_hand(model, survey, ids_of, "" if template else " ")
    texts = model.generate(survey, most=5).texts
    for row, text in enumerate(survey.texts):
        ids = torch.tensor([ids_of(text)])
        with torch.no_grad():
            out = model.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
        new = model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert texts[row] == new.lstrip().partition("\n")[0]


def test_options_that_a_tokenizer_cannot_tell_apart_are_refused(model_with, survey):
    from tokenizers import normalizers

    def change(tokenizer):
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace("2", "1")

    with pytest.raises(UnavailableError, match="writes the options 1, 2, 3, 4, 5 with the same tokens"):
        model_with(change).answer(survey)


# ---------------------------------------------------------------- generation's defaults


def test_greedy_is_greedy_whatever_the_publisher_set(model_with, survey, tmp_path):
    plain = model_with(lambda tokenizer: None)
    folder = tmp_path / "model-0"
    set_ = {
        "repetition_penalty": 1.8,
        "no_repeat_ngram_size": 2,
        "do_sample": True,
        "temperature": 0.1,
        "min_length": 99,
    }
    (folder / "generation_config.json").write_text(json.dumps(set_))
    notes = []
    model = load_model(str(folder), dtype="float32", threads=1, notify=notes.append)
    assert model.generate(survey, most=12).texts == plain.generate(survey, most=12).texts
    said = {"repetition_penalty": "1.8", "no_repeat_ngram_size": "2", "min_length": "99"}
    assert model.info.generation_ignored == said and plain.info.generation_ignored == {}
    assert any("repetition_penalty=1.8" in note and "greedily" in note for note in notes)
