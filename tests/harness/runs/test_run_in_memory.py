"""``culteval.run`` of a model in memory: the answers of its folder, and no argument passed over in silence."""

import culteval
import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

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
