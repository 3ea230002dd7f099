"""The dialogues that come with culteval, and their page."""

from pathlib import Path

import pytest
from culteval.leaderboards.reproduction import clca_dialogues
from culteval.optimizers.clca.dialogues.dialogue import read_dialogues
from culteval.optimizers.clca.dialogues.dialogue_filter import check
from culteval.optimizers.clca.dialogues.scenarios import place_of
from culteval.optimizers.clca.dialogues.shipped import shipped_files
from culteval.optimizers.clca.shipping import provenance_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clca-dialogues.md"
FILES = shipped_files()


def test_the_page_is_of_the_shipped_files():
    made = clca_dialogues.shipped_page()
    assert PAGE.read_text(encoding="utf-8") == made + "\n", (
        "run: python -m culteval.leaderboards.reproduction.clca_dialogues > docs/clca-dialogues.md"
    )
    assert made.count("\n### ") == clca_dialogues.SAMPLES * len(FILES)
    assert all("<" not in line.replace("&lt;", "") for line in made.splitlines())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[:2])
def test_shipped_dialogues_are_whole(path):
    dialogues, how = read_dialogues(path), provenance_of(path)
    assert {each.country for each in dialogues} == {how.country} == {path.name[:2]}
    assert len(dialogues) == how.filtered["kept"] <= how.simulated and how.settings["teacher"]
    assert how.malformed / how.answers < 0.1
    for each in dialogues:
        assert not check(each, place_of(how.country), how.settings["checks"])
        assert all(turn.intent for turn in each.turns if turn.text), each.id


def test_what_models_wrote_is_escaped():
    (one, *_) = read_dialogues(FILES[0])
    turn = one.turns[0].model_copy(update={"text": "<b>*bold*</b>\n\n# head", "kind": "speak"})
    text = clca_dialogues._told(
        one.model_copy(update={"turns": (turn,), "scenario": "# <i>\n- a", "goals": ("a\n1. b", "c")})
    )
    assert "<" not in text.replace("&lt;", "") and "*bold*" not in text
    assert not [line for line in text.splitlines() if line and not line.startswith(("### ", "Scene: ", "- ", "> "))]
    assert len(text.splitlines()) == len(
        clca_dialogues._told(one.model_copy(update={"turns": one.turns[:1]})).splitlines()
    )
