"""Stored codes and shares must be those that the texts give; a few may differ, and cut texts are not compared."""

from dataclasses import replace

import numpy as np
import pytest
from culteval.harness.registry import spec_of
from culteval.harness.submissions.manifest import MOST_TEXT, as_stored
from culteval.leaderboards.check_texts import misread
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from culteval.tasks.verbalized import stated_answers

from ..submission_files import answers_of

TEXT, STATED = spec_of("vsm13_text"), spec_of("vsm13_verbalized")


@pytest.fixture
def written():
    return answers_of("vsm13_text", texts=True)


@pytest.fixture
def stated():
    layout = render_protocol(STATED, ProtocolOptions()).layout
    texts = ["1: 3, 2: 7, 3: 20, 4: 30, 5: 40", "1: 33, 2: 0, 3: 34, 4: 33, 5: 0", "I rather not"] * 24
    return as_stored(stated_answers(layout, texts))


@pytest.mark.parametrize("personas", [0, 2])
def test_what_texts_give_is_no_problem(personas, stated):
    written = answers_of("vsm13_text", personas, texts=True)
    assert (written.parsed > 0).sum() > 100 and not list(misread(TEXT, written))
    assert stated.stated.sum() == 48 and not list(misread(STATED, stated))
    assert not list(misread(TEXT, replace(written, texts=None, parsed=None)))  # is not scored by text


def test_other_codes_are_named_with_task_and_prompt(written):
    first = int(np.flatnonzero(written.parsed != 1)[0])
    layout = written.layout
    item, paraphrase = layout.items[layout.item[first]], layout.paraphrases[layout.paraphrase[first]]
    (text,) = misread(TEXT, replace(written, parsed=np.ones_like(written.parsed)))
    prompt = f"item {item}, paraphrase {paraphrase}, natural"
    assert text.startswith(f"vsm13_text: {(written.parsed != 1).sum()} answers") and f"first is {prompt}" in text


@pytest.mark.parametrize(("count", "found"), [(2, 0), (3, 1)])  # 2 % of 144 are 2.88
def test_a_parser_of_an_earlier_version_may_differ_in_a_few(count, found, written):
    parsed = written.parsed.copy()
    parsed[:count] = np.where(parsed[:count] == 1, 2, 1)
    assert len(list(misread(TEXT, replace(written, parsed=parsed)))) == found


@pytest.mark.parametrize(("length", "found"), [(MOST_TEXT, 0), (MOST_TEXT - 1, 1)])
def test_the_answer_may_be_in_the_part_of_a_text_that_was_cut(length, found, written):
    texts = ("x" * length,) * len(written.layout)
    assert len(list(misread(TEXT, replace(written, texts=texts)))) == found


def test_other_shares_and_missing_texts_are_named(stated):
    for changed in (
        replace(stated, probs=np.roll(stated.probs, 1, axis=2)),
        replace(stated, off_options=np.zeros_like(stated.off_options)),
    ):
        (text,) = misread(STATED, changed)
        assert text.startswith("vsm13_verbalized: ") and "another `probs` than their text" in text
    (text,) = misread(STATED, replace(stated, texts=None, parsed=None))
    assert "not every answer has a text" in text
