"""Submissions for the tests of the board, drawn from a seed, and the data of its pages read back."""

import json

import numpy as np
from culteval.harness.registry import spec_of
from culteval.harness.submissions.writer import write_submission
from culteval.harness.util.atomic_io import sha256
from culteval.leaderboards import entries as collect
from culteval.tasks.answers import Answers
from culteval.tasks.prompts import ProtocolOptions, render_protocol

EVIL = "<img src=x onerror=window.hit=1>"
SPENT = {"item_forwards_allowed": 480, "item_forwards": 480, "survey_evaluations": 10, "tokens": 5, "seconds": 2.5}
LIMIT = {"vsm13": None, "iw_map": None, "wvs": 1, "culture_core": 1}


def write(folder, name, *, task="vsm13", country="SA", aligner="de", seed=0, tilt=1.0, model="tiny-8B", **more):
    """A submission of answers drawn from a seed; a smaller ``tilt`` is nearer to one option."""
    spec, limit = spec_of(task), LIMIT[task]
    layout = render_protocol(spec, ProtocolOptions(0, seed, limit)).layout
    rng, shape = np.random.default_rng(seed + 1000 * len(aligner)), layout.codes.shape
    probs = rng.dirichlet(np.full(shape[1], tilt), (1, shape[0])) * layout.inside
    answers = Answers(layout, probs / probs.sum(-1, keepdims=True), np.full((1, shape[0]), 0.25))
    manifest = {
        "tasks": [{"name": task, "hash": spec.hash, "country": country, "limit": limit}],
        "model": {"name": model, "revision": "r1", "dtype": "float32", "device": "cpu", "threads": 1,
                  "chat_template": None, "forward": "fused"},
        "aligner": {"name": aligner, "settings": more.pop("settings", {"tokens": 10}), "adapter_sha256": "ab" * 32},
        "fitted": {"tasks": [task], "country": country, "scoring": "expected", "norm": "sse"},
        "country": country, "seed": seed, "versions": {"culteval": "0.1.0"}, "command": "culteval run",
        "budget": SPENT,
    }  # fmt: skip
    write_submission(folder / name, manifest | more, {task: answers})
    return folder / name


def adapter(folder, *names):
    """What an aligner made, beside a submission: files that nobody reads here, and an empty text."""
    for name in (*names, "preamble.txt"):
        path = folder / "adapter" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if name == "preamble.txt" else f"made of {name}")


def fill(home):
    """Submissions of three tasks, with seeds of one configuration, and hostile ones beside them."""
    for seed in range(3):
        write(home, f"de-{seed}", seed=seed)
    write(home, "naive", aligner="naive", tilt=9)
    adapter(
        home / "de-0", "adapter_config.json", "adapter_model.safetensors", "lora/adapter_model.safetensors", "run.sh"
    )
    write(home, "small", aligner="gd", model="other-500M", seed=7, budget=SPENT | {"survey_evaluations": 100})
    write(home, "wvs-a", task="wvs", country="US", aligner="icl")
    write(home, "quiz-a", task="culture_core", country="SA", aligner="icl")
    write(home, "quiz-b", task="culture_core", country="SA", aligner="naive")
    write(
        home, "hostile", aligner=EVIL, model="</script><script>window.hit=1</script>", seed=5,
        command="culteval run \u202e\u2028 javascript:alert(1) </script>",
        settings={"=HYPERLINK(1)": EVIL, "n": "${7*7}"},
    )  # fmt: skip
    digest = sha256(home / "de-1" / "manifest.json")
    (home / collect.VERIFIED).write_text(json.dumps({digest: {"by": "keepers"}}))
    return home


def data_of(path, name):
    text = path.read_text(encoding="ascii")
    assert text.startswith(f"culteval.{name}=") and text.endswith(";\n")
    return json.loads(text[len(f"culteval.{name}=") : -2])
