"""The model's context: what is too long for it is told before anything is spent, with what to do about it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.errors import CultevalError, UsageError
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.cli.main import cli
from culteval.harness.engine.tokenize import encode
from culteval.harness.models.context import require_room
from culteval.harness.registry import find, spec_of
from culteval.harness.runs.checks import require_context
from culteval.harness.runs.config import aligner_settings
from culteval.optimizers.augmented import _require_room
from culteval.optimizers.best_of_n import preambles
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions
from culteval.tasks.prompts import ProtocolOptions, render_protocol

GOAL = fit_objective(spec_of("vsm13"), country("SA"), "expected", MeasureOptions(), 0, 0)


@pytest.fixture(scope="module")
def narrow(tiny, tmp_path_factory):
    """``narrow(context)``: the folder of a tiny model with such a context."""

    def make(context: int) -> Path:
        folder = tmp_path_factory.mktemp("narrow") / "model"
        shutil.copytree(tiny(), folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": context}))
        return folder

    return make


def sizes(model):
    """Tokens of the longest prompt that is fitted, and of the longest that is asked."""
    return [
        encode(model.chat, prompts).longest
        for prompts in (GOAL.prompts, render_protocol(spec_of("vsm13"), ProtocolOptions()))
    ]


def refused(tmp_path, folder, aligner, *flags):
    """What a run is refused with, and what it has spent by then."""
    given = ["run", "--aligner", aligner, "--task", "vsm13", "--model", str(folder), "--dtype", "float32"]
    given += ["--threads", "1", "--no-compare", "--out", str(tmp_path / "runs"), *flags]
    done = CliRunner().invoke(cli, given)
    assert isinstance(done.exception, CultevalError), done.output
    assert done.exception.exit_code == 2 and len(str(done.exception).splitlines()) == 1
    kept = [path.name for path in (tmp_path / "runs").glob("*/*")] if (tmp_path / "runs").exists() else []
    assert not {"checkpoint.npz", "adapter", "cost.json", "submission"} & set(kept), kept
    return str(done.exception)


@pytest.mark.parametrize("aligner", ["random", "de", "gd", "random_prefix"])
def test_what_is_scored_is_measured_before_anything_is_spent(aligner, load, narrow, tmp_path):
    fit, asked = sizes(load())
    assert fit + 10 <= asked + 8  # what is fitted would fit
    budget = [] if aligner == "random_prefix" else ["--budget", "20"]
    told = refused(tmp_path, narrow(asked + 8), aligner, "--set", "tokens=10", *budget)
    assert f"longest prompt has {asked} tokens and 10 soft tokens" in told and "--set tokens=8 at most" in told


def test_what_just_fits_is_run(load, narrow, tmp_path):
    given = ["run", "--aligner", "random_prefix", "--task", "vsm13", "--model", str(narrow(sizes(load())[1] + 3))]
    given += ["--dtype", "float32", "--no-compare", "--set", "tokens=3", "--out", str(tmp_path), "--json"]
    assert CliRunner().invoke(cli, given).exit_code == 0


def test_prompts_alone_may_be_too_long(load, narrow, tmp_path):
    asked = sizes(load())[1]
    assert "a longer context" in refused(tmp_path, narrow(asked - 1), "naive")


def test_an_answer_in_text_counts_too(load, narrow, tmp_path):
    model, spec = load(), spec_of("vsm13_text")
    prompts = render_protocol(spec, ProtocolOptions())
    whole = model.longest(prompts, "", spec.most_tokens)
    assert whole == max(map(len, encode(model.chat, prompts).contexts)) + spec.most_tokens > model.longest(prompts)
    told = refused(tmp_path, narrow(whole - 1), "naive", "--task", "vsm13_text")
    assert f"the longest prompt with its answer in text has {whole} tokens" in told
    model.context_length = whole
    require_room(model, prompts, most=spec.most_tokens)


def test_preambles_count_too(load, narrow, tmp_path):
    _, asked = sizes(load())
    told = refused(tmp_path / "icl", narrow(asked + 4), "icl")
    assert "shorter preamble" in told
    told = refused(tmp_path / "best", narrow(asked + 40), "best_of_n", "--budget", "8", "--set", "middles=2")
    assert "shorter preamble" in told


@pytest.mark.parametrize("middles", [0, 2, 8])
def test_no_preamble_is_longer_than_the_longest(middles):
    aligner = find("aligners", "best_of_n")(aligner_settings("best_of_n", [f"middles={middles}"]))
    drawn = preambles(GOAL, np.random.default_rng(0), middles)
    assert max(len(next(drawn)) for _ in range(300)) <= len(aligner.longest_preamble(GOAL))


def test_retellings_count_too(load):
    model = load()
    longest = max(
        encode(model.chat, GOAL.paraphrased(np.random.default_rng(seed), "natural").prompts).longest
        for seed in range(40)
    )
    model.context_length = longest + 3
    _require_room(model, GOAL, 3)
    with pytest.raises(UsageError, match="tokens=3 at most"):
        _require_room(model, GOAL, 4)


def test_soft_tokens_alone_are_refused_before_a_model_is_loaded(narrow, tmp_path, tiny_cache, monkeypatch):
    monkeypatch.setattr("culteval.harness.runs.load_model.load", lambda *_: pytest.fail("a model was loaded"))
    told = refused(tmp_path, narrow(40), "de", "--set", "tokens=40")
    assert "--set tokens=40" in told and "is 40" in told
    monkeypatch.setenv("CULTEVAL_CACHE", str(tiny_cache))
    require_context("smollm2", 1000)  # 2048
    (config,) = tiny_cache.glob("models/smollm2-*/config.json")
    monkeypatch.setenv("CULTEVAL_CACHE", str(tmp_path / "cache"))
    copied = shutil.copytree(config.parent, tmp_path / "cache" / "models" / config.parent.name)
    (copied / "config.json").write_text('{"n_positions": 1000}')
    with pytest.raises(UsageError, match="context of smollm2 is 1000"):
        require_context("smollm2", 1000)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"max_position_embeddings": null}', '{"n_positions": true}', "[" * 9999]
)
def test_a_configuration_that_says_nothing_refuses_nothing(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    for model in (str(tmp_path), "nobody/nothing", "a\0b", "openai-chat:x"):
        require_context(model, 1000)
    require_context("smollm2", 0)


def test_of_many_prompts_the_longest_are_looked_at(load, monkeypatch):
    model, prompts = load(), render_protocol(spec_of("vsm13"), ProtocolOptions())
    longest = encode(model.chat, prompts).longest
    monkeypatch.setattr("culteval.harness.models.context.LOOKED_AT", 30)
    model.context_length = longest
    require_room(model, prompts)
    with pytest.raises(UsageError, match=f"{longest} tokens and 1 soft"):
        require_room(model, prompts, 1)


def test_open_questions_count_by_their_own_length(load):
    model, prompts = load(), render_protocol(spec_of("probes"), ProtocolOptions())
    open_ = prompts.take(prompts.layout.widths == 0)
    rows = [len(ids) for ids in encode(model.chat, open_).contexts]
    assert model.longest(open_) == max(rows) < model.longest(prompts)
