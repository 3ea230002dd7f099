"""The base class of aligners: its defaults, and the same doors for a plug-in as for ours."""

import pytest
from culteval.errors import UsageError
from culteval.harness import registry
from culteval.harness.alignment.aligner import Aligner, Settings, find_aligner
from culteval.harness.runs.plan import RunRequest, plan

PLUG_IN = '''
from pathlib import Path

from culteval.harness.alignment.aligner import Aligner, Settings


class OwnSettings(Settings):
    """``strength``: how hard it tries."""

    strength: int = 1


class Own(Aligner):
    Settings = OwnSettings
    configs = {"strong": Path(__file__).with_name("strong.yaml")}

    def align(self, model, objective, budget, rng, checkpoint):
        raise NotImplementedError


class Bare(Aligner):
    def align(self, model, objective, budget, rng, checkpoint):
        raise NotImplementedError


class Stranger:
    budgeted = True
'''


@pytest.fixture
def plug_ins(tmp_path, monkeypatch):
    (tmp_path / "own_aligners.py").write_text(PLUG_IN)
    (tmp_path / "strong.yaml").write_text("strength: 9\n")
    monkeypatch.syspath_prepend(tmp_path)
    table, more = registry.table, {name.lower(): f"own_aligners:{name}" for name in ("Own", "Bare", "Stranger")}
    monkeypatch.setattr(registry, "table", lambda kind: table(kind) | (more if kind == "aligners" else {}))


def planned(**flags):
    return plan(RunRequest.of(**{"tasks": ("vsm13",)} | flags))


def test_what_is_not_said_has_a_default(plug_ins):
    aligner = find_aligner("bare")(Settings())
    assert aligner.budgeted and aligner.needs_weights and not aligner.configs
    assert (aligner.soft_tokens, aligner.longest_preamble(None), aligner.check(None, None)) == (0, "", None)
    assert planned(aligner="bare").settings == {}


def test_every_aligner_of_ours_is_one():
    for name in registry._OWN["aligners"]:
        assert issubclass(find_aligner(name), Aligner) and find_aligner(name).summary
    words = {name for name in registry._OWN["aligners"] if not find_aligner(name).needs_weights}
    assert words == {"naive", "icl", "evo_prompt"}


def test_named_configurations_are_the_aligner_s_own(plug_ins, tmp_path):
    assert planned(aligner="own", config="strong").settings == {"strength": 9}
    assert planned(aligner="de", config="de-paper").settings["population"] == 20
    assert planned(aligner="gd", config="gd-labels", scoring="argmax").settings["target"] == "labels"
    (tmp_path / "mine.yaml").write_text("strength: 4")
    assert planned(aligner="own", config=str(tmp_path / "mine.yaml")).settings == {"strength": 4}
    with pytest.raises(UsageError, match=r"`config` 'strong': .* of de\. It ships de-paper\."):
        planned(aligner="de", config="strong")
    with pytest.raises(UsageError, match=r"`config` 'strong': .* of icl\. It ships none\."):
        planned(aligner="icl", config="strong")


def test_what_is_no_aligner_is_refused(plug_ins):
    with pytest.raises(UsageError, match="'stranger': not a subclass of"):
        planned(aligner="stranger")
