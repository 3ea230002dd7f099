"""Ways of asking for a country's answers: what each puts before the question, and what it is refused for."""

import numpy as np
import pytest
from culteval.errors import UsageError
from culteval.harness.models.aligned import adapter_hash
from culteval.harness.runs.config import aligner_settings, budget_of, objective_of
from culteval.harness.runs.plan import RunRequest, plan
from culteval.harness.submissions.reader import read_manifest
from culteval.optimizers.icl import InContext
from culteval.optimizers.texts import _all

from ..published import RESULTS

ENGLISH = {
    "persona": "You are an average person from Germany. You answer as people in Germany do.\n\n",
    "resident": "I live in Germany. Answer as I would.\n\n",
    "third_person": "What would people in Germany answer to the following question?\n\n",
    "forecast": "Your country is Germany. Forecast how a representative sample of adults there answers.\n\n",
    "language": "Bitte beantworten Sie die folgende Frage.\n\n",
}


def asked(elicitation, *, task="vsm13", country="DE", **settings):
    task = "wvs_verbalized" if elicitation == "forecast" else task
    given = {"elicitation": elicitation} | settings
    config = plan(RunRequest.of(aligner="icl", tasks=(task,), country=country, settings=given))
    aligner = InContext(aligner_settings("icl", (), config.settings))
    return aligner.align(None, objective_of(config), budget_of(config), np.random.default_rng(0), None).preamble


@pytest.mark.parametrize("elicitation", ENGLISH)
def test_what_each_way_puts_before_the_question(elicitation):
    assert asked(elicitation) == ENGLISH[elicitation]


def test_demonstrations_alone_are_answered_questions_and_nothing_else():
    alone = asked("demonstrations", demonstrations=2)
    assert asked("persona", demonstrations=2) == ENGLISH["persona"] + alone
    first, second = alone.rstrip("\n").split("\n\n")
    assert {first[-2:], second[-2:]} <= {f"\n{code}" for code in range(1, 6)} and "Germany" not in alone


def test_sentences_are_in_the_language_of_the_task_but_language_in_the_country_s():
    assert asked("resident", task="vsm13_zh", country="DE").startswith("我住在德国")
    assert asked("language", country="CN") == "请回答下面的问题。\n\n"
    assert asked("language", task="vsm13_zh", country="SA") == "يرجى الإجابة عن السؤال التالي.\n\n"


def test_every_language_has_every_text():
    known = _all()
    names = set(ENGLISH) | {"countries", "demonstration"}
    for language, texts in known.items():
        assert set(texts) == names, language
        for name in set(ENGLISH) - {"language"}:
            assert "{country}" in texts[name], (language, name)
        assert "{" not in texts["language"]
    codes = [code for texts in known.values() for code in texts["countries"]]
    assert len(set(codes)) == len(codes)


def test_the_default_is_the_persona_under_the_names_that_runs_had():
    """A default that were written down would rename every run of `icl`."""
    for given in ({}, {"elicitation": "persona"}):
        settings = aligner_settings("icl", (), given)
        assert settings.model_dump(mode="json") == {"demonstrations": 0}
    other = aligner_settings("icl", ["elicitation=resident"])
    assert aligner_settings("icl", (), other.model_dump(mode="json")) == other


@pytest.mark.parametrize("folder", sorted(RESULTS.glob("vsm13-*-icl-*")), ids=lambda path: path.name)
def test_published_runs_would_be_made_again(folder):
    manifest = read_manifest(folder)
    settings = aligner_settings("icl", (), manifest.aligner.settings)
    assert settings.model_dump(mode="json") == manifest.aligner.settings
    assert asked("persona", country=manifest.country) == (folder / "adapter" / "preamble.txt").read_text()
    assert adapter_hash(folder / "adapter") == manifest.aligner.adapter_sha256


@pytest.mark.parametrize(
    ("settings", "task", "country", "message"),
    [
        ({"elicitation": "forecast"}, "vsm13", "DE", "one answer, not for shares.*wvs_verbalized"),
        ({"elicitation": "language"}, "vsm13", "BR", "no text in the language of Brazil; known: AU CA"),
        ({"elicitation": "demonstrations"}, "vsm13", "DE", "such as demonstrations=5"),
        ({"demonstrations": 3}, "wvs_verbalized", "DE", "examples are single answers"),
        ({"elicitation": "second_person"}, "vsm13", "DE", "`settings` elicitation: Input should be 'persona'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(settings, task, country, message):
    with pytest.raises(UsageError, match=message):
        plan(RunRequest.of(aligner="icl", tasks=(task,), country=country, settings=settings))
