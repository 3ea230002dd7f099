"""Options read by the likelihood of their texts: prompts without letters, per-byte likelihoods, PMI, scores."""

import math
from dataclasses import replace

import numpy as np
import pytest
import yaml
from culteval.errors import InputError
from culteval.harness.registry import spec_of, spec_path
from culteval.harness.scoring.score import score_answers
from culteval.harness.submissions.manifest import as_stored
from culteval.tasks.answers import Answers, shares
from culteval.tasks.calibration import calibrated, is_free
from culteval.tasks.cloze import byte_lengths, lengths_of, log_likelihoods, per_byte
from culteval.tasks.measure import MeasureOptions
from culteval.tasks.prompts import ProtocolOptions, layout_of, of_split, render, render_protocol
from culteval.tasks.spec import load_spec

TASKS = ("general_cloze", "culture_core_cloze", "vsm13_cloze", "wvs_cloze")
WHOLE = ProtocolOptions(calibrate=True)


def answers_from(prompts, logs):
    """Answers as a model in memory makes them of log-likelihoods (prompts, options)."""
    return Answers(prompts.layout, *shares(np.exp(prompts.read_logs(logs[None]))))


def random_logs(prompts, seed=0):
    """Log-likelihoods of one to two nats a byte, -inf where a prompt has no option."""
    rng = np.random.default_rng(seed)
    logs = np.full(prompts.layout.codes.shape, -np.inf)
    for row, choices in enumerate(prompts.choices):
        logs[row, : len(choices)] = [-len(text.encode()) * rng.uniform(1, 2) for text in choices]
    return logs


@pytest.mark.parametrize("task", TASKS)
def test_prompts_show_no_options_and_are_answered_by_their_texts(task):
    spec, prompts = spec_of(task), render(spec_of(task), "heldout")
    listed = render(spec_of(task.removesuffix("_cloze")), "heldout", ProtocolOptions())
    assert prompts.cloze and not listed.cloze
    assert all(text.endswith("\nAnswer:") and text.count("\n") == 1 for text in prompts.texts)
    assert {name for i, name in enumerate(prompts.layout.orders) if (prompts.layout.order == i).any()} == {"natural"}
    natural = listed.take(listed.layout.order == 0)
    assert prompts.layout.options == natural.layout.options
    for text, choices in zip(natural.texts, prompts.choices, strict=True):
        places = [text.find(choice) for choice in choices]
        assert min(places) >= 0, (text, choices)  # the very options that the listed task shows
    assert spec.hash != spec_of(task.removesuffix("_cloze")).hash


def test_bytes_are_those_of_utf8():
    found = byte_lengths([("Größe", "ja"), ("قهوة", "咖啡", "tea")], 3)
    np.testing.assert_array_equal(found, [[7, 2, 1], [8, 6, 3]])


def test_per_byte_likelihoods_by_hand():
    logs = np.array([[[math.log(0.25), math.log(0.001), -np.inf]]])
    mapped = per_byte(logs, np.array([[2.0, 3.0, 1.0]]), np.array([2]))
    probs, outside = shares(np.exp(mapped))
    # Per byte 0.25 ** (1/2) = 0.5 and 0.001 ** (1/3) = 0.1, of which the mean is 0.3.
    np.testing.assert_allclose(probs, [[[5 / 6, 1 / 6, 0]]])
    np.testing.assert_allclose(outside, [[0.7]])


def test_torch_maps_as_numpy_and_keeps_the_graph():
    import torch

    prompts = render(spec_of("general_cloze"), "heldout")
    logs = random_logs(prompts)
    tensor = torch.tensor(logs[None, :, :3], requires_grad=True)
    mapped = prompts.read_logs(tensor)
    np.testing.assert_allclose(mapped.detach().numpy(), prompts.read_logs(logs[None])[..., :3])
    mapped.sum().backward()
    expected = [[1 / len(text.encode()) for text in choices[:3]] for choices in prompts.choices]
    np.testing.assert_allclose(tensor.grad[0].numpy(), expected)


@pytest.mark.parametrize("task", TASKS)
def test_log_likelihoods_follow_from_stored_answers(task):
    spec = spec_of(task)
    prompts = render_protocol(spec, WHOLE)
    logs = random_logs(prompts)
    stored = as_stored(answers_from(prompts, logs))
    lengths = lengths_of(spec, layout_of(spec, WHOLE))
    inside = prompts.layout.inside
    np.testing.assert_array_equal(lengths[inside], byte_lengths(prompts.choices, lengths.shape[1])[inside])
    np.testing.assert_allclose(log_likelihoods(stored, lengths)[0][inside], logs[inside], atol=1e-5)


@pytest.mark.parametrize("task", ["general_cloze", "vsm13_cloze"])
def test_pmi_is_the_gain_over_the_content_free_question(task):
    spec = spec_of(task)
    prompts = render_protocol(spec, WHOLE)
    logs = random_logs(prompts)
    answers = as_stored(answers_from(prompts, logs))
    rows = of_split(spec, prompts.layout, "heldout")
    found = calibrated(spec, answers.take(rows), "heldout")
    free = is_free(prompts.layout)
    by_cell = {}
    for row in np.flatnonzero(free & rows):
        assert "N/A" in prompts.texts[row]
        by_cell[prompts.choices[row], int(prompts.layout.paraphrase[row])] = logs[row]
    real = np.flatnonzero(rows & ~free)
    assert len(real) == len(found.layout)
    for at, row in enumerate(real):
        size = len(prompts.choices[row])
        gain = logs[row] - by_cell[prompts.choices[row], int(prompts.layout.paraphrase[row])]
        odds = np.exp(gain[:size])
        np.testing.assert_allclose(found.probs[0, at, :size], odds / odds.sum(), atol=1e-4)


def test_accuracy_is_that_of_lm_eval_s_definitions():
    """acc_bytes and acc_mutual_info (with the content-free question as premise) from the log-likelihoods alone."""
    spec = spec_of("general_cloze")
    prompts = render_protocol(spec, WHOLE)
    logs = random_logs(prompts)
    rows = score_answers(spec, as_stored(answers_from(prompts, logs)), "US", MeasureOptions(), "x")
    layout, right = prompts.layout, {"cloze": [], "cloze_pmi": []}
    held = of_split(spec, layout, "heldout")
    names = [layout.items[i] for i in layout.item]
    prior = {names[i]: logs[i] for i in np.flatnonzero(held & is_free(layout))}
    for row in np.flatnonzero(held & ~is_free(layout)):
        question = spec.items.by_id[names[row]]
        sizes = [len(text.encode()) for text in question.options]
        right["cloze"].append(int(np.argmax(logs[row] / sizes)) + 1 == question.answer)
        gain = logs[row] - prior[f"free:heldout:{question.id}"]
        right["cloze_pmi"].append(int(np.argmax(gain)) + 1 == question.answer)
    for scoring, hits in right.items():
        assert len(hits) == 80 and 0 < np.mean(hits) < 1
        found = {row.metric: row.value for row in rows if (row.scoring, row.split) == (scoring, "heldout")}
        assert found == {"accuracy": pytest.approx(np.mean(hits))}  # no letters, no mass off the options
    assert np.mean(right["cloze"]) != np.mean(right["cloze_pmi"])


def test_a_survey_is_scored_by_the_mean_code():
    spec = spec_of("vsm13_cloze")
    prompts = render_protocol(spec, WHOLE)
    answers = answers_from(prompts, random_logs(prompts))
    rows = score_answers(spec, answers, "SA", MeasureOptions(), "x")
    held = {row.metric: row.value for row in rows if (row.scoring, row.split) == ("cloze", "heldout")}
    twin = replace(spec, metadata=spec.metadata.model_copy(update={"scorings": ("expected",)}))
    expected = score_answers(twin, render_only(answers), "SA", MeasureOptions(), "x")
    same = {row.metric: row.value for row in expected if (row.scoring, row.split) == ("expected", "heldout")}
    assert held and {name: same[name] for name in held} == held
    assert {row.scoring for row in rows} == {"cloze", "cloze_pmi"}
    assert "off_options" not in held


def render_only(answers):
    return answers.take(~is_free(answers.layout))


BROKEN = {
    "options are listed": (
        "general",
        {"templates": {"plain": "{question}\n{options}", "formal": "{question}"}},
        "none",
    ),
    "beside letters": ("general", {"scorings": ["cloze", "argmax"]}, "alone"),
    "a survey without a template": ("vsm13", {"templates": {}}, "metadata.templates"),
    "two templates of a survey": (
        "vsm13",
        {"templates": {"a": "{question}", "b": "{question} "}},
        "metadata.templates",
    ),
    "a template that lists": ("vsm13", {"templates": {"a": "{question}{options}"}}, "metadata.templates"),
    "a survey read by letters": ("vsm13", {"scorings": ["expected"]}, "metadata.templates"),
    "no question": ("vsm13", {"templates": {"a": "Answer:"}}, "{question}"),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_broken_specs_name_the_field(tmp_path, case):
    family, change, said = BROKEN[case]
    for file in spec_path(family).parent.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / f"{family}_cloze.yaml"
    data = yaml.load(path.read_text(), yaml.BaseLoader)
    data["metadata"] |= change
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match=said) as caught:
        load_spec(path)
    assert str(caught.value).count("\n") == 0


def test_an_option_without_a_label_cannot_be_read(tmp_path):
    survey = {
        "language": "en",
        "items": {"x": {"scale": "s", "stem": None, "dimension": "d"}},
        "paraphrases": {
            name: {"instruction": "", "scales": {"s": ["no", "", "yes"]}, "stems": {}, "items": {"x": f"{name}?"}}
            for name in "AB"
        },
    }
    (tmp_path / "items.yaml").write_text(yaml.safe_dump(survey))
    data = yaml.load(spec_path("wvs_cloze").read_text(), yaml.BaseLoader)
    base = yaml.load(spec_path("wvs").read_text(), yaml.BaseLoader)["metadata"]
    metadata = base | data["metadata"] | {"items": "items.yaml", "languages": ["en"]}
    metadata["splits"] = {
        name: {"paraphrases": [p], "orders": ["natural"]} for name, p in (("fit", "A"), ("heldout", "B"))
    }
    metadata["headline"] = {"metric": "w1", "higher_is_better": False}
    del metadata["persona_file"]
    spec = {"task": "x", "output_type": "multiple_choice", "metadata": metadata}
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(spec))
    with pytest.raises(InputError, match="without a label"):
        load_spec(path)
