"""Method cards: every aligner has one, from its class, and the page says the same."""

import inspect
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from culteval.harness import registry
from culteval.harness.alignment.aligner import find_aligner
from culteval.optimizers import cards

PAGE = Path(__file__).parents[2] / "docs" / "method-cards.md"
NAMES = tuple(registry._OWN["aligners"])


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_it_does_in_two_sentences_and_the_rest_in_a_line(name):
    aligner = find_aligner(name)
    text = " ".join(inspect.cleandoc(aligner.__doc__).split())
    assert len(re.findall(r"[a-z`)]\.(?: |$)", text)) == 2, text
    for field, value in asdict(aligner.card).items():
        assert value and "\n" not in value and "|" not in value, field
    known = re.search(r"\b(19|20)\d\d\b", aligner.card.source)
    assert known or name == "naive"
    assert ("no budget" in aligner.card.cost) is not aligner.budgeted
    assert aligner.__doc__ is not (aligner.__base__.__doc__) and "card" in vars(aligner)  # its own, not inherited


def test_the_page_is_that_of_the_classes():
    page = PAGE.read_text(encoding="utf-8")
    assert page == cards.markdown(), "run: python -m culteval.optimizers.cards > docs/method-cards.md"
    assert re.findall(r"(?m)^## (.*)$", page) == list(NAMES)
    assert page.count("not required: works behind an API too") == 4


def test_an_aligner_without_a_card_is_named(monkeypatch):
    monkeypatch.setattr(find_aligner("pso"), "card", None)
    with pytest.raises(ValueError, match="pso: no method card"):
        cards.markdown()
