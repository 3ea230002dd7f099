"""Evolution of preambles: what the writer is asked, what is kept, budget, resumption, and an endpoint."""

import json

import numpy as np
import pytest
from culteval.errors import CheckpointError
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.registry import spec_of
from culteval.optimizers import evo_prompt
from culteval.optimizers.evo_prompt import EvoPrompt, EvoPromptSettings, cleaned
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions

from ..api_client import quick, run, server  # noqa: F401  fixtures
from ..memory_checkpoint import Memory


class Teller:
    """A writer that numbers its texts; ``asked`` are the chats it was given, ``say`` makes a text of a number."""

    name, tokens = "teller", 0

    def __init__(self, say=lambda number, seed: f"Text {number} of {seed} on people in the United States."):
        self.asked, self.say, self.model = [], say, self

    def write(self, chats, style, seed, begun=()):
        self.asked += chats
        return [self.say(number, seed) for number in range(len(chats))]


@pytest.fixture(scope="module")
def objective():
    return fit_objective(spec_of("vsm13"), country("US"), "expected", MeasureOptions(), 0, 0)


def evolve(model, objective, folder, candidates, writer, monkeypatch, stop=None, kept=None, **settings):
    monkeypatch.setattr(evo_prompt, "writer_of", lambda *_: writer)
    checkpoint = Memory(Budget(candidates * objective.cost + 5, 24), kept, stop)
    checkpoint.folder, checkpoint.progress = folder, lambda *_: None
    aligner = EvoPrompt(EvoPromptSettings(**({"population": 4} | settings)))
    return aligner.align(model, objective, checkpoint.budget, np.random.default_rng(1), checkpoint), checkpoint


def rows(folder):
    return [json.loads(line) for line in (folder / "evo_prompt" / "texts.jsonl").read_text().splitlines()]


def test_the_best_of_all_texts_is_kept_at_the_cost_of_the_budget(load, objective, tmp_path, monkeypatch):
    model, writer = load("llama", True), Teller()
    aligned, checkpoint = evolve(model, objective, tmp_path, 11, writer, monkeypatch)
    found = rows(tmp_path)
    assert len(found) == 11 and len({row["text"] for row in found}) == 11
    assert checkpoint.budget.spent == 11 * objective.cost and checkpoint.budget.left == 5
    best = min(found, key=lambda row: row["loss"])
    assert aligned.preamble == best["text"] + "\n\n" and checkpoint.best[-1] == best["loss"]
    assert objective.loss(aligned.answer(objective.prompts).probs)[0] == pytest.approx(best["loss"], rel=1e-5)
    assert found[0]["text"].endswith("United States.") or "United States" in found[0]["text"]  # the persona first
    assert all(row["text"].startswith("Text ") for row in found[4:])
    assert len(writer.asked) == 8
    ranked = [row["text"] for row in sorted(found[:4], key=lambda row: row["loss"])]
    for chat in writer.asked[:4]:  # parents are of the population, and the country is named
        text = chat[0]["content"]
        assert any(one in text for one in ranked) and text.count("United States") >= 2
    kept = sorted(found[:8], key=lambda row: row["loss"])[:4]
    assert all(any(row["text"] in chat[0]["content"] for row in kept) for chat in writer.asked[4:])


@pytest.mark.parametrize("share", [0, 1])
def test_mutations_have_one_parent_and_crossovers_two(share, load, objective, tmp_path, monkeypatch):
    writer = Teller()
    evolve(load("llama", True), objective, tmp_path, 8, writer, monkeypatch, mutation=share)
    parents = [row["text"] for row in rows(tmp_path)[:4]]
    counts = {sum(f"\n{one}\n" in chat[0]["content"].replace("1. ", "").replace("2. ", "") for one in parents)
              for chat in writer.asked}  # fmt: skip
    assert counts == {1 if share else 2}


@pytest.mark.parametrize(
    "say",
    [
        lambda number, seed: "",
        lambda number, seed: "No place is named.",
        lambda number, seed: "United States " * 100,
        lambda number, seed: "People in the United States.",
    ],
)
def test_unusable_texts_are_replaced_by_preambles(say, load, objective, tmp_path, monkeypatch):
    evolve(load("llama", True), objective, tmp_path, 12, Teller(say), monkeypatch)
    texts = [row["text"] for row in rows(tmp_path)]
    assert len(set(texts)) == 12 and all("United States" in text and len(text) <= 600 for text in texts)
    assert texts.count("People in the United States.") == (say(0, 0) == "People in the United States.")


def test_stopped_anywhere_it_ends_the_same(load, objective, tmp_path, monkeypatch):
    model, part = load("llama", True), lambda number, seed: f"United States, {seed}" if number % 2 else ""
    whole, plain = evolve(model, objective, tmp_path, 15, Teller(part), monkeypatch)
    texts = rows(tmp_path)
    for stop in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            evolve(model, objective, tmp_path / "", 15, Teller(part), monkeypatch, stop=stop)
        kept = Memory(Budget(15 * objective.cost + 5, 24), stop=stop)
        kept.folder, kept.progress = tmp_path, lambda *_: None
        with pytest.raises(KeyboardInterrupt):
            EvoPrompt(EvoPromptSettings(population=4)).align(
                model, objective, kept.budget, np.random.default_rng(1), kept
            )
        again, checkpoint = evolve(model, objective, tmp_path, 15, Teller(part), monkeypatch, kept=kept.kept)
        assert again.preamble == whole.preamble and rows(tmp_path) == texts
        assert checkpoint.budget.spent == plain.budget.spent
    damaged = (plain.kept[0] | {"losses": np.ones(2)}, plain.kept[1])
    with pytest.raises(CheckpointError, match="do not match"):
        evolve(model, objective, tmp_path, 15, Teller(part), monkeypatch, kept=damaged)


def test_a_tiny_model_writes_its_own_texts(load, objective, tmp_path):
    """The words of a random model name no country, so that preambles stand for them; its tokens are counted."""
    model, checkpoint = load("llama", True), Memory(Budget(6 * objective.cost, 24))
    checkpoint.folder, checkpoint.progress = tmp_path, lambda *_: None
    settings = EvoPromptSettings(population=3, words=8)
    before = model.tokens
    aligned = EvoPrompt(settings).align(model, objective, checkpoint.budget, np.random.default_rng(0), checkpoint)
    assert "United States" in aligned.preamble and len(rows(tmp_path)) == 6
    assert checkpoint.budget.tokens == model.tokens - before > 0


def test_replies_are_cleaned():
    assert cleaned('\n "Instruction: Answer as they\n do."\n\nI hope this helps!') == "Answer as they do."
    assert cleaned("1. One of them.") == "One of them." and cleaned(" \n ") == ""


def test_a_model_behind_an_endpoint_is_aligned_and_writes(server, tmp_path):  # noqa: F811
    """A real local server: every text is asked for and every answer paid for; the run scores like any other."""
    server.says = lambda text: "Answer as people in Saudi Arabia do, please." if "instruction" in text else "1"
    done = run(server, tmp_path, "--budget", 24, "--set", "population=4", aligner="evo_prompt")
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("vsm13-SA-evo_prompt-*")
    found = rows(folder)
    assert len(found) == 12 and found[4]["text"] == "Answer as people in Saudi Arabia do, please."
    best = min(found, key=lambda row: row["loss"])["text"]
    assert (folder / "adapter" / "preamble.txt").read_text() == best + "\n\n"
    written = [body for body in server.bodies if "instruction" in str(body)]
    assert len(written) == 8 and all("Saudi Arabia" in str(body) for body in written)
