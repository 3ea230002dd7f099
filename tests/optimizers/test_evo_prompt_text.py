"""Evolution of preambles behind an endpoint without log-probabilities: a real local server, killed runs, refusals."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ..api_client import quick, server  # noqa: F401  fixtures
from ..harness.runs.test_run import culteval

BUDGET, KEPT = 24, 4  # twelve texts of 48 answers
EVO = ("--aligner", "evo_prompt", "--budget", BUDGET, "--set", f"population={KEPT}", "--no-compare", "--json")


def only_text(found, name="Saudi Arabia"):
    """Make a server return no log-probabilities; it writes one of many texts, and answers with an option."""
    found.logprobs = found.echo = False

    def says(text):
        number = sum(text.encode())
        return f"Variant {number}: think as people in {name} do." if "instruction" in text else f"{1 + number % 5}."

    found.says = says
    return found


def flags(found, out, task="vsm13_text", kind="openai-chat", scoring=("--scoring", "text")):
    where = ("--model", f"{kind}:tiny", "--base-url", found.url, "--task", task, "--out", out)
    return ["run", *EVO, *where, *scoring]


def texts_of(out):
    (folder,) = out.glob("*-evo_prompt-*")
    return folder, [json.loads(line) for line in (folder / "evo_prompt" / "texts.jsonl").read_text().splitlines()]


def asked(bodies):
    return ["".join(str(body.get("prompt") or body["messages"][-1]["content"])) for body in bodies]


def row_of(done, metric, scoring):
    rows = [row for row in json.loads(done.stdout)["scores"] if row["aligner"] == "evo_prompt"]
    place = (metric, scoring, "fit")
    return next(row["value"] for row in rows if (row["metric"], row["scoring"], row["split"]) == place)


@pytest.mark.parametrize("kind", ["openai", "openai-chat"])
def test_parsed_answers_are_fitted_where_there_are_no_probabilities(kind, server, tmp_path):  # noqa: F811
    done = culteval(*flags(only_text(server), tmp_path, kind=kind))
    assert done.returncode == 0, done.stderr
    folder, found = texts_of(tmp_path)
    assert len(found) == BUDGET * 24 // 48 == len({row["text"] for row in found})
    assert all(row["unread"] == 0 for row in found) and sum(row["text"].startswith("Variant") for row in found) > 4
    best = min(found, key=lambda row: row["loss"])
    assert (folder / "adapter" / "preamble.txt").read_text() == best["text"] + "\n\n"
    assert row_of(done, "loss", "text") == pytest.approx(best["loss"], rel=1e-6)
    assert json.loads(done.stdout)["budget"]["item_forwards"] == BUDGET * 24
    counts = Counter(asked(server.bodies))
    fitted = sum("Variant" in text or "Saudi" in text for text in counts)
    assert fitted and max(counts.values()) <= 4  # only the first question of the final answers tries for probabilities
    assert sum(count > 1 for count in counts.values()) <= 1
    cost = json.loads((folder / "cost.json").read_text())
    written = sum("instruction" in text for text in counts)
    assert written == 8 and cost["tokens"] == 102 * (BUDGET * 24 + written)  # 100 read and 2 written by each request


def test_stated_shares_are_fitted_where_there_are_no_probabilities(server, tmp_path):  # noqa: F811
    def says(text):
        if "instruction" in text:
            return f"Variant {sum(text.encode())}, as in Saudi Arabia."
        share = sum(text.encode()) % 50
        return "It depends." if share < 5 else f"1: {share}\n2: {100 - share}\n3: 0\n4: 0\n5: 0"

    only_text(server).says = says
    done = culteval(*flags(server, tmp_path, "vsm13_verbalized", scoring=()))
    assert done.returncode == 0, done.stderr
    folder, found = texts_of(tmp_path)
    assert len(found) == BUDGET and any(row["unread"] for row in found)  # one paraphrase is fitted
    best = min(found, key=lambda row: row["loss"])
    unparsed = row_of(done, "unparsed", "verbalized")
    assert unparsed == pytest.approx(best["unread"] / 24)
    manifest = json.loads((folder / "submission" / "manifest.json").read_text())
    assert manifest["fitted"]["scoring"] == "verbalized" and manifest["model"]["device"] == "api"


def test_killed_while_texts_are_judged_it_ends_the_same(server, tmp_path):  # noqa: F811
    only_text(server).wait = 0.005
    command = [sys.executable, "-m", "culteval", *map(str, flags(server, tmp_path / "killed"))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for _ in range(2400):  # in the second generation, after texts were written
        if len(server.bodies) >= 5 * 48 + 20 or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    process.stderr.close()
    server.wait, killed = 0, len(server.bodies)
    folder, begun = texts_of(tmp_path / "killed")
    assert len(begun) == KEPT
    done = culteval("resume", folder, "--json")
    assert done.returncode == 0, done.stderr
    both = len(server.bodies)
    undisturbed = culteval(*flags(server, tmp_path / "whole"))
    assert undisturbed.returncode == 0, undisturbed.stderr
    alone = len(server.bodies) - both
    assert killed > 250 and alone <= both <= alone + 8  # requests in flight when it was killed are sent again
    (one, found), (other, same) = texts_of(tmp_path / "killed"), texts_of(tmp_path / "whole")
    assert found == same and len(found) == 12
    for name in ("adapter/preamble.txt", "submission/answers.jsonl.zst"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert [json.loads(each.stdout)["budget"]["item_forwards"] for each in (done, undisturbed)] == [BUDGET * 24] * 2


def test_only_aligners_of_text_run_beside_it(server, tmp_path):  # noqa: F811
    words = [word for word in flags(only_text(server), tmp_path) if word != "--no-compare"]
    words[words.index(BUDGET)] = 4
    done = culteval(*words)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["scores"]
    assert {row["aligner"] for row in rows} >= {"naive", "icl", "evo_prompt"}
    assert not any(path.name.startswith("vsm13_text-SA-random") for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("task", "scoring", "code", "message"),
    [
        ("vsm13", (), 4, "no option probabilities.*vsm13_text.*--scoring text"),
        ("vsm13_text", (), 4, "no option probabilities.*--scoring text"),
        ("vsm13", ("--scoring", "text"), 2, "--fit vsm13: no answers by --scoring text.*vsm13_text"),
    ],
)
def test_without_probabilities_the_remedy_is_named(task, scoring, code, message, server, tmp_path):  # noqa: F811
    done = culteval(*flags(only_text(server), tmp_path, task, scoring=scoring))
    assert done.returncode == code and re.search(message, done.stderr), done.stderr
    assert not list(tmp_path.glob("*/submission"))


def test_answers_that_nobody_can_read_end_the_run(server, tmp_path):  # noqa: F811
    only_text(server).says = lambda text: "As an assistant I have no opinion."
    done = culteval(*flags(server, tmp_path))
    assert done.returncode == 5 and "no answer of 4 texts to vsm13_text can be read" in done.stderr, done.stderr
    _, found = texts_of(tmp_path)
    assert [row["unread"] for row in found] == [48] * KEPT
    assert not list(Path(tmp_path).glob("*/submission"))
