"""Models behind an API that stumble: failures that pass or last, waits, and runs that ask only for what is missing."""

import json
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import CultevalError, UnavailableError
from culteval.harness.providers.model import ApiModel
from culteval.harness.providers.response_log import REPLIES, Ask
from culteval.harness.providers.settings import EndpointSettings

from ... import api_client, api_server
from ...api_client import PROMPTS, model_at, run, some
from ...api_server import cut, dribble, hang, huge, raw, serving, status
from ...harness.runs.test_run import culteval

quick, server = api_client.quick, api_client.server

# Trouble on the wire

WRONG = {"choices": "many"}
PASSING = {
    "429": status(429),
    "429 with seconds": status(429, Retry_After="0.05"),
    "429 with a date": lambda handler: status(429, Retry_After=formatdate(time.time() - 5, usegmt=True))(handler),
    "429 with nonsense": status(429, Retry_After="soon"),
    "500": status(500, b"<html>broken</html>"),
    "529": status(529),
    "hangs": hang,
    "dribbles": dribble,
    "cut": cut,
    "truncated": raw(b'{"choices": [{"message": {"content": "1'),
    "prose": raw(b"Sure! The answer is 1."),
    "null": raw(b"null"),
    "deep": raw(b"[" * 100_000),
    "wrong types": raw(json.dumps(WRONG).encode()),
    "no choices": raw(b'{"choices": []}'),
    "empty choice": raw(b'{"choices": [{}]}'),
    "not a number": raw(b'{"choices": [{"text": "1", "logprobs": {"content": [{"token": "1", "logprob": NaN}]}}]}'),
    "huge": huge,
}


@pytest.mark.parametrize("trick", PASSING)
def test_passing_trouble_ends_in_the_right_result(server, trick):
    prompts = some(4)
    wanted = model_at(server).answer(prompts).probs
    server.bodies.clear()
    server.plan = [None, PASSING[trick]]
    found = model_at(server, timeout=0.6, concurrency=1).answer(prompts).probs
    np.testing.assert_array_equal(found, wanted)
    assert len(server.bodies) == 5


@pytest.mark.parametrize(
    ("trick", "code", "said"),
    [
        (status(429), 4, "status 429: no (2 times)"),
        (status(429, Retry_After="86400"), 4, "asks to wait 86,400 seconds"),
        (status(429, {"error": {"code": "insufficient_quota", "message": "pay"}}), 4, "no credit left"),
        (status(500, b"<html>"), 4, "status 500"),
        (status(401), 4, "the key in OPENAI_API_KEY was refused"),
        (status(404, {"detail": "Not Found"}), 4, "no such address or model (404): Not Found"),
        (status(307, Location="http://127.0.0.1:1/"), 4, "redirects"),
        (status(400, {"error": {"message": "context too long"}}), 5, "rejected (400): context too long"),
        (hang, 4, "no complete reply within 0.5 seconds"),
        (cut, 4, "connection broke"),
        (raw(b"Sure!"), 5, "not JSON"),
        (raw(json.dumps(WRONG).encode()), 5, "choices: Input should be"),
        (huge, 5, "more than 4 MiB"),
    ],
)
def test_lasting_trouble_ends_in_one_line_and_what_was_kept_is_not_asked_again(server, tmp_path, trick, code, said):
    prompts = some(12)
    server.plan, server.always = [None] * 6, trick
    with pytest.raises(CultevalError) as failed:
        model_at(server, tmp_path, retries=1, timeout=0.5, concurrency=2).answer(prompts)
    text = str(failed.value)
    assert failed.value.exit_code == code and said in text and text.count("\n") == 1
    assert f"6 of 12 replies are stored in {tmp_path / REPLIES}" in text
    asked = len(server.bodies)
    assert asked <= 6 + 4  # two requests under way, two tries each
    server.always = None
    found = model_at(server, tmp_path).answer(prompts).probs
    assert len(server.bodies) - asked == 6
    np.testing.assert_array_equal(found, model_at(server).answer(prompts).probs)


@pytest.mark.parametrize(("trick", "code"), [(status(429), 4), (raw(b"Sure!"), 5)])
def test_a_run_that_failed_is_resumed(server, tmp_path, trick, code):
    server.plan, server.always = [None] * 10, trick
    done = run(server, tmp_path / "runs", "--endpoint", "retries=0", "--endpoint", "concurrency=2")
    assert done.returncode == code and f"10 of {PROMPTS} replies are stored" in done.stderr
    assert done.stderr.strip().count("\n") == 1
    asked, server.always = len(server.bodies), None
    resumed = culteval("resume", next((tmp_path / "runs").glob("vsm13-*")), "--json")
    assert resumed.returncode == 0 and len(server.bodies) - asked == PROMPTS - 10
    assert json.loads(resumed.stdout)["usage"]["naive"]["requests"] == PROMPTS


def test_nobody_there_is_said_at_once(tmp_path):
    with serving() as server:
        url = server.url
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        ApiModel("openai-chat:m", EndpointSettings(base_url=url), print).answer(some())
    assert time.monotonic() - started < 10  # retries would wait longer


def test_a_wait_holds_back_every_request(server):
    server.plan = [None, status(429, Retry_After="2")]
    times, real = [], api_server.Handler.do_POST

    class Timed(api_server.Handler):
        def do_POST(self):
            times.append(time.monotonic())
            real(self)

    server.RequestHandlerClass = Timed
    model_at(server, concurrency=1).answer(some(4))
    gaps = np.diff(times)
    assert 1.9 < gaps[1] < 10 and max(gaps[0], *gaps[2:]) < 1.9


def test_requests_go_side_by_side_and_never_more_than_asked_for(server):
    server.wait = 0.02
    model_at(server, concurrency=4).answer(some(24))
    assert 2 <= server.busiest <= 4


# What is kept


def test_a_killed_run_asks_only_for_what_is_missing(server, tmp_path):
    server.wait = 0.05
    flags = [
        "--aligner",
        "naive",
        "--task",
        "vsm13",
        "--limit",
        "1",
        "--json",
        "--out",
        "runs",
        "--endpoint",
        "concurrency=2",
    ]
    command = [sys.executable, "-m", "culteval", "run", *flags, "--model", "openai-chat:tiny", "--base-url", server.url]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for _ in range(600):
        if len(server.bodies) >= 12 or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    process.stderr.close()
    folder = next((tmp_path / "runs").glob("vsm13-*"))
    path = folder / REPLIES
    with path.open("ab") as file:
        file.write(b'{"key": "cut sho')
    kept = len(path.read_bytes().splitlines()) - 1
    server.wait, before = 0, len(server.bodies)
    assert 8 <= kept <= before <= kept + 2
    done = culteval("resume", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert len(server.bodies) - before == PROMPTS - kept
    undisturbed = json.loads(run(server, tmp_path / "other").stdout)
    answers = (Path(undisturbed["submission"]) / "answers.jsonl.zst").read_bytes()
    assert (folder / "submission" / "answers.jsonl.zst").read_bytes() == answers


def test_another_model_prompt_or_endpoint_is_another_reply(server, tmp_path):
    first, ask = model_at(server, tmp_path), Ask(({"role": "user", "content": "1"},), 4)
    first.ask([ask, ask._replace(seed=1), ask._replace(most=5), ask._replace(top_p=0.5), ask])
    assert len(server.bodies) == 4
    ApiModel("openai-chat:other", EndpointSettings(base_url=server.url), print).at(tmp_path, lambda *_: None).ask([ask])
    model_at(server, tmp_path, kind="openai").ask([ask])
    assert len(server.bodies) == 6
    model_at(server, tmp_path).ask([ask])
    assert len(server.bodies) == 6 or server.bodies[-1]["model"] == "tiny"


def test_the_tokens_of_a_fit_are_the_same_however_often_it_was_interrupted(server, tmp_path):
    """Evolution in words, of which both the answers and the writer's texts are interrupted."""
    server.says = lambda text: f"As people in Saudi Arabia do, {len(text)}." if "instruction" in text else "1"
    flags = ("--budget", 16, "--set", "population=4")
    whole = json.loads(run(server, tmp_path / "whole", *flags, aligner="evo_prompt").stdout)["budget"]
    server.plan = [None] * 30 + [status(401)]
    assert run(server, tmp_path / "runs", *flags, aligner="evo_prompt").returncode == 4
    server.plan = [None] * (4 * 48 - 30) + [None, status(401)]
    assert run(server, tmp_path / "runs", *flags, aligner="evo_prompt").returncode == 4
    server.plan = [None] * 60 + [status(401)]
    assert run(server, tmp_path / "runs", *flags, aligner="evo_prompt").returncode == 4
    found = json.loads(run(server, tmp_path / "runs", *flags, aligner="evo_prompt").stdout)["budget"]
    assert found["item_forwards"] == whole["item_forwards"] and found["tokens"] == whole["tokens"] > 0


@pytest.mark.parametrize("damage", [b"[]", b'{"model": 1}', b'{"model": "x", "understands": 3}', b"\xff", b""])
def test_damaged_records_are_asked_again(server, tmp_path, damage):
    wanted = model_at(server, tmp_path).answer(some()).probs
    (tmp_path / "endpoint.json").write_bytes(damage)
    lines = (tmp_path / REPLIES).read_bytes().splitlines()
    lines[2] = lines[2].replace(b"logs", b"lags")
    (tmp_path / REPLIES).write_bytes(b"\n".join(lines))
    np.testing.assert_array_equal(model_at(server, tmp_path).answer(some()).probs, wanted)
    assert len(server.bodies) <= 6 + 2
