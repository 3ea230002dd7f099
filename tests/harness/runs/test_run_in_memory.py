"""``culteval.run`` of a model in memory: the answers of its folder, and no argument passed over in silence."""

import culteval
import numpy as np
import pytest
from culteval.harness.models.load import load_model
from culteval.harness.providers.model import ApiModel
from culteval.harness.providers.settings import EndpointSettings
from culteval.tasks.chat_options import ChatOptions
from transformers import AutoModelForCausalLM, AutoTokenizer, ByT5Tokenizer

FIXED = {"adapter": "folder", "dtype": "bfloat16", "device": "cuda", "revision": "v1", "endpoint": {"concurrency": 2}}
ASKED = {"aligner": "naive", "tasks": "vsm13", "country": "US", "limit": 1, "progress": False}


@pytest.fixture
def pair(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny()), AutoTokenizer.from_pretrained(tiny())


def test_it_answers_as_its_folder_does(tiny, pair, tmp_path):
    here = culteval.run(model=pair, out=tmp_path / "here", **ASKED)
    there = culteval.run(model=str(tiny()), dtype="float32", out=tmp_path / "there", **ASKED)
    one, other = (run.submission.answers["vsm13"].probs for run in (here, there))
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert culteval.run(model=pair, out=tmp_path / "here", **ASKED).reused


def test_its_chat_is_followed(pair, tmp_path):
    run = culteval.run(model=pair, chat={"system": "Be brief."}, out=tmp_path, **ASKED)
    assert run.manifest.model.chat.system == "Be brief."


@pytest.mark.parametrize("name", FIXED)
def test_what_it_cannot_follow_is_refused(pair, tmp_path, name):
    with pytest.raises(culteval.UsageError, match=f"`{name}`: the model is in memory"):
        culteval.run(model=pair, out=tmp_path, **ASKED, **{name: FIXED[name]})
    assert not list(tmp_path.iterdir())


def test_a_finished_run_of_another_tokenizer_or_end_token_is_not_returned(pair, tmp_path):
    model, tokenizer = pair
    first = culteval.run(model=pair, out=tmp_path, **ASKED)
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    other.chat_template += "!"
    assert not culteval.run(model=(model, other), out=tmp_path, **ASKED).reused
    model.generation_config.eos_token_id = [0, 2]
    again = culteval.run(model=pair, out=tmp_path, **ASKED)
    assert not again.reused
    assert again.manifest.model.content_sha256 != first.manifest.model.content_sha256  # the key of cached answers


def test_a_slow_tokenizer_is_known_by_its_vocabulary(pair, tmp_path):
    model, _ = pair
    assert not culteval.run(model=(model, ByT5Tokenizer()), out=tmp_path, **ASKED).reused
    assert culteval.run(model=(model, ByT5Tokenizer()), out=tmp_path, **ASKED).reused
    other = culteval.run(model=(model, ByT5Tokenizer(extra_ids=7)), out=tmp_path, **ASKED)
    assert not other.reused and other.manifest.model.content_sha256 is None


def test_the_chat_of_a_wrapped_model_is_part_of_its_run(tiny, tmp_path):
    for system in (None, "Be brief."):
        model = load_model(str(tiny()), dtype="float32", threads=1, chat=ChatOptions(system=system))
        assert not culteval.run(model=model, out=tmp_path, **ASKED).reused
    assert culteval.run(model=model, out=tmp_path, **ASKED).reused


def test_a_model_behind_an_endpoint_is_named(tmp_path):
    model = ApiModel("openai-chat:m", EndpointSettings(base_url="http://localhost:1/v1"), print)
    with pytest.raises(culteval.UsageError, match="behind an endpoint as a string, openai-chat:NAME"):
        culteval.run(model=model, out=tmp_path, **ASKED)
    assert not list(tmp_path.iterdir())
