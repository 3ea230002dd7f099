"""The embedded model in the README's first command: packing, an adapter in stock tools, memory. Slow; runs last."""

import json

import numpy as np
import pytest
from culteval.harness.runs.config import DEFAULT_MODEL

from ... import first_command as commands

pytestmark = pytest.mark.slow
first_command = commands.first_command


def test_layers_run_fused(first_command):
    manifest = json.loads((first_command.run / "submission" / "manifest.json").read_text())
    assert manifest["model"]["forward"] == "fused"


def test_de_beats_naive_where_it_was_fitted(first_command):
    wanted = {"metric": "loss", "split": "fit", "scoring": "expected"}
    rows = [row for scores in first_command.compared.values() for row in scores]
    fitted = {row["aligner"]: row["value"] for row in rows if wanted.items() <= row.items()}
    assert set(fitted) == {"naive", "icl", "random", "de"}
    assert fitted["de"] < fitted["naive"]


def test_fits_a_laptop(first_command):
    assert 2e8 < first_command.peak < 3e9  # four aligners in one process, and pip: 2.75; a survey alone: 2.1


def test_packed_equals_plain(first_command):
    import torch
    from culteval.harness.engine.packed import PackedForward
    from culteval.harness.engine.padded import PlainForward
    from culteval.harness.engine.tokenize import encode
    from culteval.harness.models.aligned import AlignedModel
    from culteval.harness.models.load import load_model
    from culteval.harness.registry import spec_path
    from culteval.tasks.prompts import render
    from culteval.tasks.spec import load_spec

    model = load_model(DEFAULT_MODEL, dtype="float32", notify=print)
    spec = load_spec(spec_path("vsm13"))
    prompts = render(spec, "heldout").take(np.arange(0, 96, 6))
    soft = torch.from_numpy(AlignedModel.load(model, first_command.run / "adapter").soft)
    encoded = encode(model.chat, prompts)
    with torch.inference_mode():
        packed = PackedForward(model.engine, encoded).logprobs(soft)
        plain = PlainForward(model.model, encoded).logprobs(soft)
    assert float((packed - plain).abs().max()) < 1e-4


def test_stock_lm_eval_gives_the_adapter_s_answers(first_command):
    """All of the survey through lm-eval's tasks is tested on tiny models; here, some of the run's own answers."""
    from culteval.harness.models.embedded import fetch
    from culteval.harness.registry import spec_path
    from culteval.harness.submissions.reader import read_submission
    from culteval.tasks import hooks
    from culteval.tasks.prompts import ProtocolOptions, of_split, render
    from culteval.tasks.spec import load_spec
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    spec = load_spec(spec_path("vsm13"))
    heldout = render(spec, "heldout", ProtocolOptions())
    stored = read_submission(first_command.run / "submission")[1]["vsm13"]
    stored = stored.take(np.flatnonzero(of_split(spec, stored.layout, "heldout")))
    some = np.arange(0, len(heldout), 16)
    asked, mine = heldout.take(some), stored.take(some)
    assert np.array_equal(asked.layout.codes, mine.layout.codes) and len(some) > 5

    adapter = str(first_command.run / "adapter")
    stock = HFLM(str(fetch(DEFAULT_MODEL)), peft=adapter, dtype="float32", device="cpu")
    requests, logs = [], []
    for text, choices in zip(asked.texts, asked.choices, strict=True):
        context = stock.apply_chat_template([{"role": "user", "content": text}])
        requests += [Instance("loglikelihood", {}, (context, choice), 0) for choice in choices]
    found = iter(stock.loglikelihood(requests, disable_tqdm=True))
    logs = [[next(found)[0] for _ in choices] for choices in asked.choices]
    masses = [hooks.option_mass(spec, choices, log) for choices, log in zip(asked.choices, logs, strict=True)]
    np.testing.assert_allclose(hooks.answers_of(asked, masses).probs, mine.probs, atol=1e-4)
