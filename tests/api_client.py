"""What asks the server of ``api_server.py``: models behind it, runs of it, and the fixtures of tests that do."""

import numpy as np
import pytest
from culteval.harness.providers.model import ApiModel
from culteval.harness.providers.settings import EndpointSettings
from culteval.harness.registry import spec_of
from culteval.tasks.prompts import ProtocolOptions, render

from .api_server import serving
from .harness.runs.test_run import culteval

KEY = "sk-abcdefghijklmnopqrstuvwxyz0123456789"
PROMPTS = 72  # of vsm13 with --limit 1


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short waits, a key, no proxy."""
    from culteval.harness.providers import http as endpoint

    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with serving() as found:
        yield found


def model_at(server, folder=None, kind="openai-chat", notes=None, **api):
    say = (lambda text: None) if notes is None else notes.append
    made = ApiModel(f"{kind}:tiny", EndpointSettings(base_url=server.url, **api), say)
    return made if folder is None else made.at(folder, lambda done, total: None)


def some(count=6, task="vsm13"):
    return render(spec_of(task), "fit", ProtocolOptions(limit=1)).take(np.arange(count))


def run(server, out, *more, task="vsm13", aligner="naive", kind="openai-chat"):
    flags = ["--aligner", aligner, "--task", task, "--limit", 1, "--no-compare", "--json", "--out", out]
    return culteval("run", *flags, "--model", f"{kind}:tiny", "--base-url", server.url, *more)
