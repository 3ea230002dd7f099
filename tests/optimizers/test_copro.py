"""The example with DSPy's COPRO, ``examples/copro``: refused without DSPy; with it budget, best text, resumption."""

import json
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import CheckpointError, RunError, UnavailableError
from culteval.harness import registry
from culteval.harness.alignment.aligner import find_aligner
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.registry import spec_of
from culteval.tasks.answers import Answers, unweighed
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions

from ..api_client import quick, server  # noqa: F401  fixtures
from ..harness.runs.test_run import culteval
from ..memory_checkpoint import Memory

COPRO = Path(__file__).parents[2] / "examples" / "copro"
dspy = pytest.mark.skipif(find_spec("dspy") is None, reason="DSPy is not installed; it is no dependency of culteval")


@pytest.fixture
def copro(monkeypatch):
    """The example's module, importable and registered as for who installed it."""
    monkeypatch.syspath_prepend(str(COPRO))
    points = tomllib.loads((COPRO / "pyproject.toml").read_text())["project"]["entry-points"]["culteval.aligners"]
    table = registry.table
    monkeypatch.setattr(registry, "table", lambda kind: table(kind) | (points if kind == "aligners" else {}))
    import culteval_copro

    return culteval_copro


def objective_of():
    return fit_objective(spec_of("vsm13_text"), country("US"), "text", MeasureOptions(), 0, 0)


class Says:
    """A model of text: its answers depend on the preamble alone, and its replies on the seed."""

    name, has_weights, tokens = "tiny", False, 0

    def __init__(self, marks=True):
        self.model, self.marks, self.asked = self, marks, []

    def generate(self, prompts, soft, preamble, most, *, weighed):
        number = sum(preamble.encode())
        texts = [str(1 + (number + 7 * row) % 5) for row in range(len(prompts))]
        return Answers(prompts.layout, *unweighed(prompts.layout), tuple(texts), prompts.parse(texts))

    def write(self, chats, style, seed, begun=()):
        self.asked += chats
        self.tokens += 5
        text = f"Version {seed % 9973} for the United States."
        fields = ("proposed_instruction", text), ("proposed_prefix_for_output_field", "A:"), ("completed", "")
        return [
            "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in fields) if self.marks else f" {text}\n\nOk?"
        ]


def memory(folder, kept=None, stop=None):
    """A checkpoint with a budget for 14 preambles of 48 answers, and a little more."""
    checkpoint = Memory(Budget(14 * 48 + 3, 24), kept, stop)
    checkpoint.folder, checkpoint.progress = folder, lambda *_: None
    return checkpoint


def align(copro, monkeypatch, checkpoint, model):
    monkeypatch.setattr(copro, "writer_of", lambda *_: model)
    aligner = copro.Copro(copro.CoproSettings(breadth=4))
    return aligner.align(model, objective_of(), checkpoint.budget, np.random.default_rng(2), checkpoint)


def test_it_is_an_aligner_of_text_that_culteval_lists_without_dspy(copro):
    assert find_aligner("copro") is copro.Copro and not copro.Copro.needs_weights
    assert "COPRO" in copro.Copro.summary and "dspy" not in (copro.Copro.Settings.model_fields)


def test_without_dspy_a_run_is_refused_in_one_line(copro, monkeypatch, tmp_path):
    monkeypatch.setattr(copro, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"Install dspy: pip install 'dspy>=3\.4'"):
        copro.Copro(copro.CoproSettings()).check(objective_of(), Budget(1000, 24))
    done = culteval("run", "--aligner", "copro", "--task", "vsm13", "--out", tmp_path / "runs")
    assert done.returncode == 4 and "Install dspy" in done.stderr and not (tmp_path / "runs").exists()
    assert len(done.stderr.strip().splitlines()) == 1


@dspy
@pytest.mark.parametrize("marks", [True, False])
def test_the_best_of_all_texts_is_kept_at_the_cost_of_the_budget(marks, copro, monkeypatch, tmp_path):
    """Also where a model ignores DSPy's marks between fields, as small ones do."""
    model, checkpoint = Says(marks), memory(tmp_path)
    aligned = align(copro, monkeypatch, checkpoint, model)
    state = checkpoint.kept[0]
    texts, losses = json.loads(bytes(state["written"]))[1], state["losses"]
    assert checkpoint.budget.spent == 14 * 48 and checkpoint.budget.left == 3 and checkpoint.budget.tokens > 0
    assert len(set(texts)) == 14 and sum(text.startswith("Version") for text in texts) == 13
    assert "average person" in "".join(texts)  # the first preamble is the persona
    assert aligned.preamble == texts[int(np.argmin(losses))] + "\n\n"
    objective = objective_of()
    answers = model.generate(objective.prompts, None, aligned.preamble, 8, weighed=False)
    spread = (objective.prompts.layout.codes == answers.parsed[:, None]).astype(float)
    assert objective.loss(spread[None])[0] == pytest.approx(min(losses))
    first, later = ["".join(message["content"] for message in chat) for chat in (model.asked[0], model.asked[-1])]
    assert "average person" in first and "Resulting Score" in later and "Version" in later


@dspy
@pytest.mark.parametrize("stop", [1, 5, 9])
def test_stopped_anywhere_it_ends_the_same(stop, copro, monkeypatch, tmp_path):
    undisturbed, stopped = memory(tmp_path), memory(tmp_path, stop=stop)
    whole = align(copro, monkeypatch, undisturbed, Says())
    with pytest.raises(KeyboardInterrupt):
        align(copro, monkeypatch, stopped, Says())
    after = memory(tmp_path, stopped.kept)
    again = align(copro, monkeypatch, after, Says())
    assert again.preamble == whole.preamble and after.budget.spent == undisturbed.budget.spent
    for name, value in undisturbed.kept[0].items():
        np.testing.assert_array_equal(after.kept[0][name], value, err_msg=name)
    torn = (stopped.kept[0] | {"losses": np.ones(1 + stop)}, stopped.kept[1])
    with pytest.raises(CheckpointError, match="do not match"):
        align(copro, monkeypatch, memory(tmp_path, torn), Says())


@dspy
def test_an_error_of_the_model_is_not_taken_for_a_bad_preamble(copro, monkeypatch, tmp_path):
    model = Says()

    def broken(*_, **__):
        raise RunError("the server is gone")

    model.generate = broken
    with pytest.raises(RunError, match="the server is gone"):
        align(copro, monkeypatch, memory(tmp_path), model)


@dspy
def test_a_model_behind_an_endpoint_is_aligned(copro, server, tmp_path):  # noqa: F811
    server.logprobs = server.echo = False
    server.says = lambda text: "Think as they do there." if "proposed_instruction" in text else f"{1 + len(text) % 5}."
    where = ("--model", "openai-chat:tiny", "--base-url", server.url, "--task", "vsm13_text", "--out", tmp_path)
    flags = ("--aligner", "copro", "--scoring", "text", "--budget", 8, "--no-compare", "--json")
    done = culteval("run", *flags, *where)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("vsm13_text-SA-copro-*")
    assert (folder / "adapter" / "preamble.txt").read_text().strip()
    assert 0 < json.loads(done.stdout)["budget"]["item_forwards"] <= 8 * 24
