"""Shares of people read from generated text: what is accepted, what is not, and how it is scored."""

import json

import numpy as np
import pytest
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.registry import spec_of, spec_path
from culteval.harness.report.tables import columns_of
from culteval.harness.scoring.score import score_answers
from culteval.harness.submissions.reader import read_submission
from culteval.tasks.measure import MeasureOptions, measure_of
from culteval.tasks.prompts import ProtocolOptions, layout_of, of_split, render
from culteval.tasks.verbalized import MOST_READ, read_shares, stated_answers

from ..api_client import model_at, quick, run, server  # noqa: F401 (fixtures)
from ..fuzzing import MOST_SECONDS
from ..harness.runs.test_run import culteval

READ = {
    "1: 20, 2: 30, 3: 50": (0.2, 0.3, 0.5),
    "1: 20%, 2: 30%, 3: 50%": (0.2, 0.3, 0.5),
    "3: 50; 2: 30; 1: 20": (0.2, 0.3, 0.5),
    "1:20,2:30,3:50": (0.2, 0.3, 0.5),
    "1: 20 2: 30 3: 50": (0.2, 0.3, 0.5),
    "(1) 20 (2) 30 (3) 50": (0.2, 0.3, 0.5),
    "**1**: 20, **2**: 30, **3**: 50": (0.2, 0.3, 0.5),
    "- 1 = very much: 20 people\n- 2 = a little: 30 people\n- 3 = not: 50 people": (0.2, 0.3, 0.5),
    "I think 1 - 20, 2 - 30, 3 - 50.": (0.2, 0.3, 0.5),
    "20, 30, 50": (0.2, 0.3, 0.5),
    "20% 30% 50%": (0.2, 0.3, 0.5),
    "1: 0, 2: 0, 3: 100": (0, 0, 1),
    "1: 12.5, 2: 12.5, 3: 75": (0.125, 0.125, 0.75),
    "1: 12,5; 2: 12,5; 3: 75": (0.125, 0.125, 0.75),
    "1: 20, 2: 30, 3: 40": (2 / 9, 3 / 9, 4 / 9),  # 90 in all
    "1: 20, 2: 40, 3: 50": (2 / 11, 4 / 11, 5 / 11),  # 110 in all
    "<think>1: 40, 2: 40, 3: 20? No.</think>\n1: 20, 2: 30, 3: 50": (0.2, 0.3, 0.5),
    "<think>" + "So. " * MOST_READ + "</think>1: 20, 2: 30, 3: 50": (0.2, 0.3, 0.5),
}
UNREAD = (
    "",
    "2",
    "1: 20, 2: 30",  # an option is missing
    "1: 20, 1: 30, 3: 50",  # one is there twice
    "1: 20, 2: 30, 3: 50, 4: 0",  # one is not offered
    "1: 50, 2: 50, 3: 50",
    "1: 20, 2: 30, 3: 39",
    "1: 0.2, 2: 0.3, 3: 0.5",
    "1: -20, 2: 60, 3: 60",
    "1: 101, 2: 0, 3: 0",
    "1: 1000, 2: 0, 3: 0",
    "20, 30, 50, 0",
    "About 20 people would say 1, 30 say 2 and 50 say 3",
    "Most would choose 3.",
    "<think>1: 20, 2: 30, 3: 50",  # unfinished reasoning
    "<think>1: 20, 2: 30, 3: 50</think>It depends.",
    "1: twenty, 2: thirty, 3: fifty",
    " " * MOST_READ + "x" * MOST_READ + "1: 20, 2: 30, 3: 50",
)


@pytest.mark.parametrize("text", READ)
def test_shares_are_read(text):
    assert read_shares(text, (1, 2, 3)) == pytest.approx(READ[text])


@pytest.mark.parametrize("text", UNREAD)
def test_anything_else_is_unread(text):
    assert read_shares(text, (1, 2, 3)) is None


@pytest.mark.parametrize("text", ["1" * 50_000, "1: " * 9_000, "1 = " + "a " * 9_000, "1" + " " * 9_000, "9," * 9_000])
def test_hostile_texts_are_read_quickly(text):
    import time

    start = time.process_time()
    assert read_shares(text, (1, 2, 3)) is None
    assert time.process_time() - start < MOST_SECONDS  # what backtracks takes hours


def test_codes_are_the_scale_s_own():
    assert read_shares("0: 10, 5: 90", (0, 5)) == pytest.approx([0.1, 0.9])


def test_prompts_list_the_options_and_name_no_country():
    prompts = render(spec_of("wvs_verbalized"), "heldout")
    assert prompts.verbalized and not prompts.cloze
    listed = render(spec_of("wvs"), "heldout")
    natural = listed.take(listed.layout.order == 0)
    for text, other in zip(prompts.texts, natural.texts, strict=True):
        lines = other.split("\n")[1:-1]
        assert "\n" + "\n".join(lines) + "\n" in text and "{" not in text
        assert other.split("\n")[-1] in text


def test_scores_use_the_stated_shares_and_leave_out_the_rest():
    spec = spec_of("wvs_verbalized")
    layout = layout_of(spec, ProtocolOptions())
    held, texts = of_split(spec, layout, "heldout"), []
    measure = measure_of(spec, "DE", MeasureOptions())
    rows = np.flatnonzero(held & (layout.paraphrase == spec.paraphrases.index("C")))
    for row, codes in enumerate(layout.options):
        # Paraphrase C states the country's own shares in per mille of a point, D nothing that can be read.
        shares = measure.reference.shares.get(layout.items[layout.item[row]], {})
        cells = [f"{code}: {100 * shares.get(code, 0):.6f}" for code in codes]
        texts.append(", ".join(cells) if row in rows else "It depends.")
    answers = stated_answers(layout, texts)
    found = {
        row.metric: row.value
        for row in score_answers(spec, answers, "DE", MeasureOptions(), "x")
        if row.split == "heldout"
    }
    assert found["w1"] == pytest.approx(0, abs=1e-6) and found["tv"] == pytest.approx(0, abs=1e-6)
    assert found["unparsed"] == pytest.approx(np.mean([row not in rows for row in np.flatnonzero(held)]))
    assert 0.5 <= found["unparsed"] < 0.6 and "off_options" not in found and "agreement" not in found


def test_a_model_in_memory_states_shares(load, monkeypatch):
    from culteval.harness.models import local

    prompts = render(spec_of("wvs_verbalized"), "heldout").take(np.arange(4))
    said = "1: 10\n2: 20\n3: 30\n4: 40"
    monkeypatch.setattr(local, "write", lambda model, texts, soft, most, done: [said] * len(texts))
    answers = AlignedModel(load()).answer(prompts, most_tokens=96)
    np.testing.assert_allclose(answers.probs[0], [[0.1, 0.2, 0.3, 0.4, 0]] * 4)
    assert answers.texts[0].count("\n") == 3 and not answers.off_options.any()


def test_stock_lm_eval_loads_the_task_and_scores_the_same():
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(spec_path("wvs").parent), include_defaults=False, metadata={"country": "DE"})
    task = manager.load("wvs_verbalized")["tasks"]["wvs_verbalized"]
    assert task.OUTPUT_TYPE == "generate_until"
    spec, texts, records = spec_of("wvs_verbalized"), [], []
    for number, doc in enumerate(task.test_docs()):
        size = len(doc["choices"])
        share = 100 / size if number % 3 else 7  # a third cannot be read
        texts.append(", ".join(f"{code}: {share:.5f}" for code in doc["choices"]))
        assert task.doc_to_text(doc) == doc["text"]
        records.append(task.process_results(doc, [texts[-1]])["w1"])
    theirs = task.aggregation()["w1"](records)
    answers = stated_answers(render(spec, "heldout").layout, texts)
    rows = measure_of(spec, "DE", MeasureOptions()).score(answers, "heldout", "verbalized")
    assert theirs == next(row.value for row in rows if row.metric == "w1") > 0
    assert next(row.value for row in rows if row.metric == "unparsed") == pytest.approx(1 / 3, abs=0.01)


def test_an_endpoint_of_text_only_is_enough(server, tmp_path):  # noqa: F811
    server.logprobs = False
    server.says = lambda text: ", ".join(
        f"{code}: {100 / n:.4f}" for n in [text.count(" = ")] for code in range(1, n + 1)
    )
    done = run(server, tmp_path / "runs", task="wvs_verbalized")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = {(row["split"], row["metric"]): row["value"] for row in result["scores"] if row["aligner"] == "naive"}
    assert rows["heldout", "unparsed"] == 0
    assert {row["scoring"] for row in result["scores"]} == {"verbalized"}
    _, answers = read_submission(tmp_path / "runs" / result["submission"])
    layout = answers["wvs_verbalized"].layout
    even = layout.inside / layout.widths[:, None]
    np.testing.assert_allclose(answers["wvs_verbalized"].probs[0], even, atol=1e-6)
    assert len(server.bodies) == len(layout)  # one request a prompt, none for probabilities
    assert not any("logprobs" in body for body in server.bodies)
    again = json.loads(culteval("score", result["submission"], "--json").stdout)["scores"]
    stored = {(row["split"], row["metric"]): row["value"] for row in again if row["aligner"] == "naive"}
    assert stored == rows


def test_shares_in_text_are_not_fitted_by_probabilities(tiny, tmp_path):
    flags = ("--task", "wvs_verbalized", "--model", tiny(), "--country", "DE", "--out", tmp_path / "runs")
    done = culteval("run", "--aligner", "de", *flags)
    assert done.returncode == 2 and "not answers in text" in done.stderr and not (tmp_path / "runs").exists()


def test_a_first_token_does_not_weigh_texts(server):  # noqa: F811
    from culteval.errors import UnavailableError

    server.echo = False
    with pytest.raises(UnavailableError, match="whole options"):
        model_at(server, kind="openai-chat").answer(render(spec_of("vsm13_cloze"), "fit").take(np.arange(2)))


def test_indices_of_stated_shares_are_those_of_their_mean_answers():
    """All say 1 to m02 and 2 to m07, half 1 and half 3 to m20 and 2 to m23: PDI is 35 (2 - 1) + 25 (2 - 2) + C."""
    spec = spec_of("vsm13_verbalized")
    layout, said = layout_of(spec, ProtocolOptions()), {"m02": "1: 100, 2: 0", "m20": "1: 50, 2: 0, 3: 50"}
    texts = []
    for row in range(len(layout)):
        stated = said.get(layout.items[layout.item[row]], "1: 0, 2: 100")
        named = {cell.split(":")[0]: cell for cell in stated.split(", ")}
        texts.append(", ".join(named.get(str(code), f"{code}: 0") for code in range(1, 6)))
    scores = score_answers(spec, stated_answers(layout, texts), "SA", MeasureOptions(constants="zero"), "x")
    found = {score.metric: score.value for score in scores if score.split == "heldout"}
    assert (found["pdi"], found["unparsed"]) == (pytest.approx(35), 0)
    assert found["loss_paraphrase_spread"] == 0 and {score.scoring for score in scores} == {"verbalized"}


def test_a_table_of_stated_shares_has_its_columns():
    columns = columns_of(spec_of("vsm13_verbalized"))
    assert [column.place[:2] for column in columns] == [
        ("loss", "verbalized"), ("loss", "verbalized"), ("skill", "verbalized"), ("unparsed", "verbalized")
    ]  # fmt: skip
