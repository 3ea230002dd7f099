"""``culteval data import lm-eval``: what stock lm-eval wrote, as a submission with the same numbers, or a refusal."""

import json
import shutil

import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.adapters.peft_files import CONFIG, WEIGHTS, carried_hash
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.registry import spec_of, spec_path
from culteval.harness.scoring.submission import load_submission
from culteval.tasks.prompts import ProtocolOptions, render

from ...command import invoked

TASKS = {True: ("vsm13",), False: ("vsm13", "vsm13_cloze")}  # by whether there is a chat template


def stock(folder, model, tasks, out, *, chat, **metadata):
    """Run stock lm-eval as its command line does with --log_samples and --output_path."""
    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    tracker = EvaluationTracker(output_path=str(out))
    results = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(model), "dtype": "float32"}, tasks=list(tasks), batch_size=16,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False, metadata=metadata),
        apply_chat_template=chat, device="cpu", bootstrap_iters=0, log_samples=True, evaluation_tracker=tracker,
    )  # fmt: skip
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in tasks:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return out


@pytest.fixture(scope="module")
def ran(tiny, tmp_path_factory):
    """``ran(chat)``: the folder of a run of stock lm-eval, one each."""
    made = {}

    def of(chat):
        if chat not in made:
            out = tmp_path_factory.mktemp("lm-eval")
            made[chat] = stock(
                spec_path("vsm13").parent, tiny("llama", chat), TASKS[chat], out, chat=chat, country="DE"
            )
        return made[chat]

    return of


@pytest.fixture
def copy(ran, tmp_path):
    """A copy of a run with one task, to be damaged: its folder, its results, its samples."""
    folder = shutil.copytree(next(ran(True).iterdir()), tmp_path / "run")
    (results,) = folder.glob("results_*.json")
    (samples,) = folder.glob("samples_vsm13_2*.jsonl")
    data = json.loads(results.read_text())
    for part in ("results", "versions", "n-shot"):
        data[part] = {"vsm13": data[part]["vsm13"]}
    results.write_text(json.dumps(data))
    return folder, results, samples


@pytest.mark.parametrize("chat", [True, False])
def test_scores_are_those_of_lm_eval_and_answers_those_of_our_model(ran, load, tmp_path, chat):
    told = json.loads(invoked("data", "import", "lm-eval", ran(chat), "--out", tmp_path / "s", "--json").stdout)
    assert told["tasks"] == list(TASKS[chat]) and told["left_out"] == []
    submission = load_submission(tmp_path / "s")
    manifest = submission.manifest
    assert (manifest.country, manifest.aligner.name, manifest.fitted) == ("DE", "naive", None)
    model = load("llama", chat)
    assert (manifest.model.dtype, manifest.model.chat_template) == ("float32", model.info.chat_template)
    stated = json.loads(next(ran(chat).glob("*/results_*.json")).read_text())["results"]
    for task, scoring in zip(TASKS[chat], ("expected", "cloze"), strict=False):
        assert {score.split for score in submission.score(task=task)} == {"heldout"}
        found = {score.metric: score.value for score in submission.score(task=task) if score.scoring == scoring}
        given = {key.partition(",")[0]: value for key, value in stated[task].items() if key.endswith(",none")}
        compared = [metric for metric in spec_of(task).metrics if metric in found]
        assert len(compared) > 7
        for metric in compared:
            assert found[metric] == pytest.approx(given[metric], rel=1e-6), (task, metric)
        prompts = render(spec_of(task), "heldout", ProtocolOptions())
        ours, theirs = AlignedModel(model).answer(prompts), submission.answers[task]
        np.testing.assert_allclose(theirs.probs, ours.probs, atol=1e-5)
        if not chat:  # lm-eval adds the line break that ends this template to every option; their ratios are the same
            np.testing.assert_allclose(theirs.off_options, ours.off_options, atol=1e-5)


def test_it_is_read_by_other_commands_beside_a_whole_run(ran, tiny, tmp_path):
    out = invoked("data", "import", "lm-eval", ran(True), "--out", tmp_path / "s").stdout
    assert f"next       culteval score {tmp_path / 's'}" in out
    flags = ("--task", "vsm13", "--model", tiny(), "--country", "DE", "--dtype", "float32", "--no-compare")
    invoked("run", "--aligner", "icl", *flags, "--out", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    done = json.loads(invoked("compare", tmp_path / "s", run, "--json").stdout)
    assert done and "vsm13" in json.dumps(done)
    assert "naive" in invoked("leaderboard", "show", tmp_path, "--format", "md").stdout
    with pytest.raises(UsageError, match="there already"):
        invoked("data", "import", "lm-eval", ran(True), "--out", tmp_path / "s")


def edited(file, path, value):
    data = json.loads(file.read_text())
    *way, last = path
    place = data
    for part in way:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    file.write_text(json.dumps(data))


def line(samples, number, change):
    lines = samples.read_text().splitlines()
    data = json.loads(lines[number])
    change(data)
    lines[number] = json.dumps(data)
    samples.write_text("\n".join(lines) + "\n")


def dropped(samples, number):
    lines = samples.read_text().splitlines(keepends=True)
    del lines[number]
    samples.write_text("".join(lines))


BROKEN = {
    "no results": (lambda f, r, s: r.unlink(), "no results_.*--output_path"),
    "two runs": (lambda f, r, s: shutil.copy(r, r.with_name("results_2.json")), "2 runs of lm-eval. Give one"),
    "no JSON": (lambda f, r, s: r.write_text("{"), "results_.*Invalid JSON.*Give the output of lm-eval"),
    "no config": (lambda f, r, s: edited(r, ["config"], None), "config: Field required"),
    "a limit": (lambda f, r, s: edited(r, ["config", "limit"], 5), "config.limit: 5.*without --limit"),
    "an older lm-eval": (lambda f, r, s: edited(r, ["lm_eval_version"], "0.3.0"), "lm_eval_version: 0.3.0, not 0.4"),
    "another version": (lambda f, r, s: edited(r, ["versions", "vsm13"], 2.0), "versions.vsm13: 2.0, but .* has 1.0"),
    "few shots": (lambda f, r, s: edited(r, ["n-shot", "vsm13"], 5), "n-shot.vsm13: 5.*without --num_fewshot"),
    "no task of ours": (lambda f, r, s: edited(r, ["results"], {"arc_easy": {}}), "none of arc_easy is a task"),
    "no samples": (lambda f, r, s: s.unlink(), "samples_vsm13_.*missing.*--log_samples"),
    "empty samples": (lambda f, r, s: s.write_text(""), "empty.*--log_samples"),
    "a missing sample": (lambda f, r, s: dropped(s, 7), "1 of 96 prompts are missing, the first is doc.row 7"),
    "a sample twice": (lambda f, r, s: s.write_text(s.read_text() + s.read_text()), ":97: doc.row: 0 is there twice"),
    "no such row": (lambda f, r, s: line(s, 3, lambda d: d["doc"].update(row=96)), ":4: doc.row: 96, but"),
    "another text": (
        lambda f, r, s: line(s, 3, lambda d: d["doc"].update(text="x")), ":4: doc.text: not prompt 3 of this vsm13"),
    "another option": (
        lambda f, r, s: line(s, 3, lambda d: d["doc"]["choices"].reverse()), ":4: doc.text: not prompt 3"),
    "another country": (lambda f, r, s: line(s, 3, lambda d: d["doc"].update(country="US")), ":4: doc: another"),
    "a changed prompt": (
        lambda f, r, s: line(s, 3, lambda d: d["arguments"]["gen_args_0"].update(arg_0="x")), ":4: prompt_hash"),
    "options in another order": (
        lambda f, r, s: line(s, 3, lambda d: d["arguments"]["gen_args_0"].update(arg_1="5")), ":4: arguments: not the"),
    "no number": (
        lambda f, r, s: line(s, 3, lambda d: d["filtered_resps"].__setitem__(0, ["nan", "x"])), ":4: filtered_resps"),
    "a probability above one": (
        lambda f, r, s: line(s, 3, lambda d: d["filtered_resps"].__setitem__(0, [3.0, True])), ":4: filtered_resps"),
    "a changed answer": (
        lambda f, r, s: line(s, 3, lambda d: d["filtered_resps"].__setitem__(0, [-0.1, True])),
        "results.vsm13.loss: .* but the samples give"),
    "a changed headline": (
        lambda f, r, s: edited(r, ["results", "vsm13", "loss,none"], 12.0), "loss: 12, but the samples give"),
    "a probability of 400 digits": (
        lambda f, r, s: line(s, 3, lambda d: d["filtered_resps"].__setitem__(0, [-(10**400), True])),
        ":4: filtered_resps"),
    "a headline of 400 digits": (
        lambda f, r, s: edited(r, ["results", "vsm13", "loss,none"], 10**400), "loss: inf, but the samples give"),
    "weights of four bits": (
        lambda f, r, s: edited(r, ["config", "model_args", "load_in_4bit"], True), "model_args: load_in_4bit may"),
    "another tokenizer in a line": (
        lambda f, r, s: edited(r, ["config", "model_args"], "pretrained=a,tokenizer=b"), "model_args: tokenizer may"),
    "an adapter elsewhere": (
        lambda f, r, s: edited(r, ["config", "model_args", "peft"], "/no/where"), "peft: no folder '/no/where'"),
    "far too many personas": (
        lambda f, r, s: line(s, 0, lambda d: d["doc"].update(personas=100_000)), ":1: doc.personas: 100000; "),
    "no such edition": (lambda f, r, s: line(s, 0, lambda d: d["doc"].update(edition="x")), ":1: .*'x'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_output_is_refused_and_nothing_is_written(copy, tmp_path, name):
    folder, results, samples = copy
    change, message = BROKEN[name]
    change(folder, results, samples)
    with pytest.raises(InputError, match=message) as caught:
        invoked("data", "import", "lm-eval", folder, "--out", tmp_path / "s")
    assert len(str(caught.value).splitlines()) <= 2
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "more",
    [
        {"batch_size": 8, "device": "cpu", "revision": "main", "parallelize": True, "delta": None},
        "pretrained=a,dtype=float32,trust_remote_code=True",
    ],
)
def test_arguments_of_the_model_that_change_no_answer_are_accepted(copy, tmp_path, more):
    folder, results, _ = copy
    given = json.loads(results.read_text())["config"]["model_args"]
    edited(results, ["config", "model_args"], more if isinstance(more, str) else given | more)
    invoked("data", "import", "lm-eval", folder, "--out", tmp_path / "s")
    assert load_submission(tmp_path / "s").manifest.answers.rows == 96


@pytest.mark.parametrize("kind", ["lora", "soft"])
def test_of_an_adapter_s_folder_only_what_lm_eval_uses_is_hashed(copy, tmp_path, kind):
    """Its tokenizer and template are not: lm-eval takes those of the base model."""
    folder, results, _ = copy
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"lora": {"peft_type": "LORA", "r": 1, "lora_alpha": 1}, "soft": {"peft_type": "PROMPT_TUNING"}}[kind]
    (adapter / CONFIG).write_text(json.dumps(config | {"task_type": "CAUSAL_LM"}))
    (adapter / WEIGHTS).write_bytes(b"weights")
    bare = carried_hash(adapter)
    (adapter / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert carried_hash(adapter) != bare
    edited(results, ["config", "model_args", "peft"], str(adapter))
    invoked("data", "import", "lm-eval", folder, "--out", tmp_path / "s")
    assert load_submission(tmp_path / "s").manifest.model.adapter_sha256 == bare


def test_the_unbroken_copy_is_accepted(copy, tmp_path):
    results = copy[1]
    invoked("data", "import", "lm-eval", results, "--out", tmp_path / "s")
    assert load_submission(tmp_path / "s").manifest.answers.rows == 96


def test_few_shot_text_before_a_question_is_seen_without_its_number(copy, tmp_path):
    """A description or examples in the prompt, their hash right, the number of shots left at zero."""
    import hashlib

    folder, _, samples = copy

    def longer(data):
        text = data["doc"]["text"] + "\n3\n\n" + data["arguments"]["gen_args_0"]["arg_0"]
        for given in data["arguments"].values():
            given["arg_0"] = text
        data["prompt_hash"] = hashlib.sha256(text.encode()).hexdigest()

    line(samples, 0, longer)
    with pytest.raises(InputError, match=":1: arguments: the prompt has other text before or after"):
        invoked("data", "import", "lm-eval", folder, "--out", tmp_path / "s")


def test_generated_text_is_parsed_as_ours_is(copy, tmp_path):
    """Stated shares: the whole of a run's files, made of another's."""
    import hashlib

    from culteval.tasks.measure import MeasureOptions, measure_of
    from culteval.tasks.verbalized import stated_answers

    _, results, samples = copy
    spec = spec_of("vsm13_verbalized")
    prompts = render(spec, "heldout")
    said = [f"1: {row}, 2: 5, 3: {90 - row}, 4: 5, 5: 0" if row % 5 else "Many." for row in range(len(prompts))]
    setting = {key: json.loads(samples.read_text().splitlines()[0])["doc"][key] for key in (
        "gold", "spec", "country", "edition", "constants", "personas", "seed")}  # fmt: skip
    lines = []
    for row, (text, choices) in enumerate(zip(prompts.texts, prompts.choices, strict=True)):
        context = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        given = {"doc": setting | {"text": text, "choices": choices, "row": row}, "filter": "none"}
        asked = {"arg_0": context, "arg_1": {"until": [], "do_sample": False, "max_gen_toks": 96}}
        given |= {"arguments": {"gen_args_0": asked}, "filtered_resps": [said[row]]}
        lines.append(json.dumps(given | {"prompt_hash": hashlib.sha256(context.encode()).hexdigest()}) + "\n")
    samples.with_name(samples.name.replace("vsm13", "vsm13_verbalized")).write_text("".join(lines))
    answers = stated_answers(prompts.layout, said)
    scores = {
        s.metric: s.value for s in measure_of(spec, "DE", MeasureOptions()).score(answers, "heldout", "verbalized")
    }
    data = json.loads(results.read_text())
    data |= {"results": {"vsm13_verbalized": {"loss,none": scores["loss"]}}, "versions": {"vsm13_verbalized": "Yaml"}}
    results.write_text(json.dumps(data | {"n-shot": {"vsm13_verbalized": 0}}))
    invoked("data", "import", "lm-eval", results, "--out", tmp_path / "s")
    found = {s.metric: s.value for s in load_submission(tmp_path / "s").score()}
    assert found["loss"] == pytest.approx(scores["loss"]) and found["unparsed"] == pytest.approx(10 / 48)


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    """The folder of a run of stock lm-eval whose answers are text."""
    out, task = tmp_path_factory.mktemp("text"), ["vsm13_text"]
    return stock(spec_path("vsm13_text").parent, tiny("llama", True), task, out, chat=True, country="DE")


def test_text_that_stock_lm_eval_generated_is_imported(written, load, tmp_path):
    invoked("data", "import", "lm-eval", written, "--out", tmp_path / "s")
    submission, prompts = load_submission(tmp_path / "s"), render(spec_of("vsm13_text"), "heldout")
    ours = load("llama", True).generate(prompts, most=spec_of("vsm13_text").most_tokens)
    np.testing.assert_array_equal(submission.answers["vsm13_text"].parsed, ours.parsed)


@pytest.mark.parametrize(
    "change, refused",
    [
        ({"temperature": 0.0}, False),
        ({"do_sample": True, "temperature": 2.0}, True),
        ({"do_sample": True}, True),
        ({"temperature": 0.5}, True),
        ({"max_gen_toks": 500}, True),
        ({"until": []}, True),
        ({"repetition_penalty": 2.0}, True),
    ],
)
def test_text_that_was_generated_in_another_way_is_refused(written, tmp_path, change, refused):
    """As by --gen_kwargs, which lm-eval writes into every sample."""
    folder = shutil.copytree(next(written.iterdir()), tmp_path / "run")
    (samples,) = folder.glob("samples_*.jsonl")
    line(samples, 2, lambda data: data["arguments"]["gen_args_0"]["arg_1"].update(change))
    if not refused:
        invoked("data", "import", "lm-eval", folder, "--out", tmp_path / "s")
        return
    with pytest.raises(InputError, match=r":3: arguments: generated with .*vsm13_text\.yaml.*without --gen_kwargs"):
        invoked("data", "import", "lm-eval", folder, "--out", tmp_path / "s")
