"""Models behind an API, asked over the wire from a small server that answers, stumbles and lies as told."""

import json
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import CultevalError, RunError, UnavailableError, UsageError
from culteval.harness.api import Api, address_of, api_of, key_for
from culteval.harness.api_model import ApiModel
from culteval.harness.lm_eval_api import LmEvalSource
from culteval.harness.openai_api import Dialect
from culteval.harness.registry import spec_of
from culteval.harness.replies import REPLIES, Ask
from culteval.optimizers.clca.teacher import ApiWriter
from culteval.optimizers.clca.writer import Style
from culteval.tasks.prompts import Asking, render

from . import api_server
from .api_server import cut, dribble, hang, huge, raw, serving, shares_of, status
from .test_run import culteval

KEY = "sk-abcdefghijklmnopqrstuvwxyz0123456789"
PROMPTS = 72  # of vsm13 with --limit 1


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short waits, a key, no proxy."""
    from culteval.harness import endpoint

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
    made = ApiModel(f"{kind}:tiny", Api(base_url=server.url, **api), say)
    return made if folder is None else made.at(folder, lambda done, total: None)


def some(count=6, task="vsm13"):
    return render(spec_of(task), "fit", Asking(limit=1)).take(np.arange(count))


def run(server, out, *more, task="vsm13", aligner="naive", kind="openai-chat"):
    flags = ["--aligner", aligner, "--task", task, "--limit", 1, "--no-compare", "--json", "--out", out]
    return culteval("run", *flags, "--model", f"{kind}:tiny", "--base-url", server.url, *more)


# Names, addresses, keys


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions"),
        ("https://host/api/v1/", "https://host/api/v1/chat/completions"),
        ("https://host/v1/chat/completions", "https://host/v1/chat/completions"),
        (None, "https://api.openai.com/v1/chat/completions"),
    ],
)
def test_addresses(url, found):
    address = address_of("openai-chat:some/model:free", Api(base_url=url))
    assert (address.url, address.model, address.chat) == (found, "some/model:free", True)


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://host/v1", "http://", "http://host:99999999/v1", "http://host /v1", "http://h\nost/v1",
     "http://user:sesame@host/v1", "http://sesame@host/v1", "http://host/v1?key=sesame", "http://host/v1#sesame",
     "http://host/" + "v" * 100],
)  # fmt: skip
def test_bad_addresses_are_refused_and_secrets_in_them_not_repeated(url):
    with pytest.raises(UsageError, match="--base-url") as refused:
        address_of("openai:m", Api(base_url=url))
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["openai:", "openai-chat: ", "lm-eval:", "lm-eval:../x", "openai:" + "n" * 91, "openai:a\nb"]
)
def test_bad_names(name):
    with pytest.raises(UsageError, match="expected"):
        address_of(name, Api())


@pytest.mark.parametrize("secret", ["api_key=sesame", "x=1,auth_token=sesame", "base_url=http://me:sesame@host/v1"])
def test_secrets_among_lm_eval_arguments_are_refused(secret):
    with pytest.raises(UsageError, match="environment") as refused:
        address_of(f"lm-eval:local-completions,{secret}", Api())
    assert "sesame" not in str(refused.value)
    assert address_of("lm-eval:local-completions,tokenizer=t,tokenized_requests=False", Api()).host == "lm-eval"


def test_openai_s_own_endpoint_wants_a_key_before_anything_is_asked(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UnavailableError, match="Set OPENAI_API_KEY"):
        api_of({}, ["openai-chat:gpt"])
    monkeypatch.setenv("OTHER", "k" * 20)
    api = api_of({"key_env": "OTHER"}, ["openai-chat:gpt"])
    assert key_for(address_of("openai-chat:gpt", api), api) == "k" * 20
    monkeypatch.setenv("OTHER", "two words\n")
    with pytest.raises(UsageError, match="OTHER"):
        api_of({"key_env": "OTHER"}, ["openai-chat:gpt"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--aligner", "gd"], "gd: needs a model's weights"),
        (["--aligner", "clca"], "clca: needs a model's weights"),
        (["--aligner", "naive", "--dtype", "float32"], "--dtype"),
        (["--aligner", "naive", "--device", "cuda"], "--device"),
        (["--aligner", "naive", "--concurrency", "0"], "--concurrency"),
        (["--aligner", "naive", "--price-in", "-1"], "--price-in"),
        (["--aligner", "naive", "--timeout", "nan"], "--timeout"),
        (["--aligner", "naive", "--key-env", "a b"], "--key-env"),
        (["--aligner", "naive", "--model", "smollm2"], "--base-url: no model behind an API"),
        (["--aligner", "naive", "--model", "openaichat:x"], "Did you mean 'openai-chat'"),
    ],
)
def test_usage_errors_ask_nothing(server, tmp_path, flags, said):
    model = [] if "--model" in flags else ["--model", "openai-chat:tiny"]
    done = culteval("run", "--task", "vsm13", "--base-url", server.url, *model, *flags, "--out", tmp_path / "runs")
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert done.stderr.strip().count("\n") <= 1 and not server.bodies and not (tmp_path / "runs").exists()


# Read-outs


@pytest.mark.parametrize(("kind", "echo"), [("openai-chat", False), ("openai", True), ("openai", False)])
def test_probabilities_are_those_of_the_server(server, kind, echo):
    server.echo = echo
    prompts = some()
    answers = model_at(server, kind=kind).answer(prompts)
    wanted = [
        [shares_of(text)[choice] for choice in row] for text, row in zip(prompts.texts, prompts.choices, strict=True)
    ]
    np.testing.assert_allclose(answers.probs[0], np.array(wanted) / 0.9, atol=1e-12)
    np.testing.assert_allclose(answers.outside[0], 0.1, atol=1e-12)


@pytest.mark.parametrize("kind", ["openai-chat", "openai"])
def test_text_comes_beside_probabilities(server, tmp_path, kind):
    prompts = some(task="vsm13_text")
    model = model_at(server, tmp_path, kind=kind)
    answers = model.generate(prompts, preamble="You are from there.\n\n")
    assert set(answers.texts) <= {f"{i}. That is it." for i in range(1, 6)}
    np.testing.assert_array_equal(answers.parsed, answers.values("argmax")[0])
    # A chat's first token and text are one request; an echo has no text, and is asked beside it.
    assert len(server.bodies) == len(prompts) * (1 if kind == "openai-chat" else 2)
    assert "You are from there.\n\n" in json.dumps(server.bodies[0]).encode().decode("unicode_escape")


def test_without_probabilities_only_text_is_scored(server, tmp_path):
    server.logprobs = False
    done = run(server, tmp_path / "runs", task="vsm13_text")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {row["readout"] for row in result["scores"] if row["aligner"] == "naive"} == {"text"}
    folder = Path(result["submission"])
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert all(line["probs"] == [] and line["outside"] == 1 and line["parsed"] > 0 for line in lines)
    assert json.loads((folder / "manifest.json").read_text())["model"]["forward"] == "text"
    again = culteval("score", folder, "--json")
    assert {row["readout"] for row in json.loads(again.stdout)["scores"]} == {"text"}


def test_a_task_that_needs_probabilities_says_what_to_take_instead(server, tmp_path):
    server.logprobs = False
    done = run(server, tmp_path / "runs")
    assert done.returncode == 4 and "vsm13_text" in done.stderr and len(server.bodies) <= 3


def test_answers_in_prose_have_no_option_among_their_first_tokens(server, monkeypatch):
    prompts, notes = some(), []
    silent = prompts.texts[:2]
    real = api_server.shares_of
    monkeypatch.setattr(api_server, "shares_of", lambda text: {"Well": 0.8} if text in silent else real(text))
    answers = model_at(server, notes=notes).answer(prompts)
    np.testing.assert_allclose(answers.probs[0, :2], 0.2)
    np.testing.assert_allclose(answers.outside[0], [1, 1, *[0.1] * 4], atol=1e-9)
    assert any("2 of 6 prompts" in note for note in notes)
    monkeypatch.setattr(api_server, "shares_of", lambda text: {"Well": 0.8})
    with pytest.raises(RunError, match="answers in sentences"):
        model_at(server).answer(prompts)
    server.says = lambda text: "I would say 2."
    answers = model_at(server).generate(some(task="vsm13_text"))
    assert not answers.weighed and set(answers.parsed) == {2}


def test_a_first_token_cannot_tell_one_from_ten(server):
    from dataclasses import replace

    prompts = some(1)
    with pytest.raises(UnavailableError, match="'1' from '10'"):
        model_at(server).answer(replace(prompts, choices=(("1", "2", "3", "4", "10"),)))


def test_what_an_endpoint_refuses_is_left_out_and_recorded(server, tmp_path):
    server.refuses, notes = ("max_tokens", "temperature", "seed"), []
    model = model_at(server, tmp_path, notes=notes)
    model.answer(some())
    assert server.bodies[-1]["max_completion_tokens"] == 1 and "temperature" not in server.bodies[-1]
    assert model.identity.forward.startswith("first token, 20 likeliest without ")
    assert set(model.identity.forward.split("without ")[1].split(", ")) == {"max_tokens", "temperature", "seed"}
    assert len(notes) == 3
    before = len(server.bodies)
    model_at(server, tmp_path).answer(some())
    assert len(server.bodies) == before  # nothing is found out twice


def test_any_text_can_be_kept_and_read_back(server, tmp_path):
    texts = {"1": "\ud800 half a pair", "2": "\u2028\x00\x1b[31m", "3": "\U0001f600" * 50_000, "4": ""}
    server.says = texts.get
    asks = [Ask(({"role": "user", "content": each},), 4) for each in texts]
    first = model_at(server, tmp_path).ask(asks)
    assert [reply.text for reply in model_at(server, tmp_path).ask(asks)] == [reply.text for reply in first]
    assert len(server.bodies) == 4 and first[2].text == texts["3"]


def test_a_filtered_prompt_is_an_answer_without_words(server):
    error = {"error": {"code": "content_filter", "message": "filtered"}}
    server.plan = [None, None, status(400, error)]
    asks = [Ask(({"role": "user", "content": str(i)},), 4) for i in range(4)]
    assert [reply.text == "" for reply in model_at(server, concurrency=1).ask(asks)] == [False, False, True, False]


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
        (status(307, Location="http://127.0.0.1:1/"), 4, "sends elsewhere"),
        (status(400, {"error": {"message": "context too long"}}), 5, "refused (400): context too long"),
        (hang, 4, "no whole reply within 0.5 seconds"),
        (cut, 4, "connection broke"),
        (raw(b"Sure!"), 5, "no JSON"),
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
    assert f"6 of 12 replies are kept in {tmp_path / REPLIES}" in text
    asked = len(server.bodies)
    assert asked <= 6 + 4  # two requests under way, two tries each
    server.always = None
    found = model_at(server, tmp_path).answer(prompts).probs
    assert len(server.bodies) - asked == 6
    np.testing.assert_array_equal(found, model_at(server).answer(prompts).probs)


@pytest.mark.parametrize(("trick", "code"), [(status(429), 4), (raw(b"Sure!"), 5)])
def test_a_run_that_failed_is_resumed(server, tmp_path, trick, code):
    server.plan, server.always = [None] * 10, trick
    done = run(server, tmp_path / "runs", "--retries", 0, "--concurrency", 2)
    assert done.returncode == code and f"10 of {PROMPTS} replies are kept" in done.stderr
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
        ApiModel("openai-chat:m", Api(base_url=url), print).answer(some())
    assert time.monotonic() - started < 2


def test_a_wait_holds_back_every_request(server):
    server.plan = [None, status(429, Retry_After="1")]
    times, real = [], api_server.Handler.do_POST

    class Timed(api_server.Handler):
        def do_POST(self):
            times.append(time.monotonic())
            real(self)

    server.RequestHandlerClass = Timed
    model_at(server, concurrency=1).answer(some(4))
    gaps = np.diff(times)
    assert 0.9 < gaps[1] < 3 and max(gaps[0], *gaps[2:]) < 0.9


def test_requests_go_side_by_side_and_never_more_than_asked_for(server):
    server.wait = 0.02
    model_at(server, concurrency=4).answer(some(24))
    assert 2 <= server.busiest <= 4


# What is kept, counted and shown


def test_a_killed_run_asks_only_for_what_is_missing(server, tmp_path):
    server.wait = 0.05
    flags = ["--aligner", "naive", "--task", "vsm13", "--limit", "1", "--json", "--out", "runs", "--concurrency", "2"]
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
    answers = (Path(undisturbed["submission"]) / "answers.jsonl").read_bytes()
    assert (folder / "submission" / "answers.jsonl").read_bytes() == answers


def test_another_model_prompt_or_endpoint_is_another_reply(server, tmp_path):
    first, ask = model_at(server, tmp_path), Ask(({"role": "user", "content": "1"},), 4)
    first.ask([ask, ask._replace(seed=1), ask._replace(most=5), ask._replace(top_p=0.5), ask])
    assert len(server.bodies) == 4
    ApiModel("openai-chat:other", Api(base_url=server.url), print).at(tmp_path, lambda *_: None).ask([ask])
    model_at(server, tmp_path, kind="openai").ask([ask])
    assert len(server.bodies) == 6
    model_at(server, tmp_path).ask([ask])
    assert len(server.bodies) == 6 or server.bodies[-1]["model"] == "tiny"


@pytest.mark.parametrize("damage", [b"[]", b'{"model": 1}', b'{"model": "x", "understands": 3}', b"\xff", b""])
def test_damaged_records_are_asked_again(server, tmp_path, damage):
    wanted = model_at(server, tmp_path).answer(some()).probs
    (tmp_path / "endpoint.json").write_bytes(damage)
    lines = (tmp_path / REPLIES).read_bytes().splitlines()
    lines[2] = lines[2].replace(b"logs", b"lags")
    (tmp_path / REPLIES).write_bytes(b"\n".join(lines))
    np.testing.assert_array_equal(model_at(server, tmp_path).answer(some()).probs, wanted)
    assert len(server.bodies) <= 6 + 2


def test_tokens_and_costs_are_counted_shown_and_stored(server, tmp_path):
    flags = ["--price-in", 2, "--price-out", 10]
    result = json.loads(run(server, tmp_path, *flags).stdout)
    used = result["usage"]["naive"]
    assert used["tokens_in"] == PROMPTS * 100 and used["tokens_out"] == PROMPTS * 2 and used["uncounted"] == 0
    assert used["cost"] == pytest.approx(PROMPTS * (100 * 2 + 2 * 10) / 1e6)
    assert used["models"] == {"tiny-1 fp_7": PROMPTS}
    assert json.loads((Path(result["run"]) / "usage.json").read_text()) == used
    shown = run(server, tmp_path, *flags, "--price-in", 2)
    again = culteval(*[w for w in ("run", "--aligner", "naive", "--task", "vsm13", "--limit", 1, "--out", tmp_path,
                                   "--model", "openai-chat:tiny", "--base-url", server.url)])  # fmt: skip
    assert shown.returncode == 0 and "72 replies, 7,200 tokens in, 144 out, cost 0.0158" in again.stdout
    assert len(server.bodies) == PROMPTS  # neither prices nor speed make it another run


def test_an_endpoint_that_does_not_count(server, tmp_path):
    server.usage = False
    used = json.loads(run(server, tmp_path).stdout)["usage"]["naive"]
    assert (used["tokens_in"], used["uncounted"], used["cost"]) == (0, PROMPTS, None)


def test_the_manifest_says_where_the_answers_come_from(server, tmp_path):
    result = json.loads(run(server, tmp_path, aligner="icl").stdout)
    manifest = json.loads((Path(result["submission"]) / "manifest.json").read_text())
    assert manifest["model"] == {
        "name": f"openai-chat:tiny@{server.url}/chat/completions", "revision": "tiny-1 fp_7", "dtype": "unknown",
        "device": "api", "threads": 0, "chat_template": "of the endpoint", "forward": "first token, 20 likeliest",
        "adapter_sha256": None,
    }  # fmt: skip
    assert manifest["budget"]["item_forwards"] == 0
    assert all("Saudi Arabia" in body["messages"][0]["content"] for body in server.bodies)


def test_the_key_is_sent_and_written_nowhere(server, tmp_path, monkeypatch):
    server.name = server.says = None
    server.name, server.says = f"{KEY}-model", lambda text: f"1 {KEY}"
    monkeypatch.setenv("OTHER_API_KEY", "another-secret-of-the-environment")
    flags = ["--concurrency", 2, "--retries", 0]
    server.plan = [None] * 5 + [status(500, {"error": {"message": f"bad key {KEY} another-secret-of-the-environment"}})]
    failed = run(server, tmp_path, *flags, task="vsm13_text")
    assert failed.returncode == 4 and "[key]" in failed.stderr
    server.plan = [status(401, {"error": {"message": f"Incorrect key {KEY}"}})]
    refused = run(server, tmp_path, *flags, task="vsm13_text")
    server.plan = [status(400, f"plain {KEY}".encode())]
    plain = run(server, tmp_path, *flags, task="vsm13_text")
    done = run(server, tmp_path, *flags, task="vsm13_text")
    assert done.returncode == 0, done.stderr
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    told = [text for one in (failed, refused, plain, done) for text in (one.stdout, one.stderr)]
    written = [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 8 and any("[key]" in text for text in written)
    for text in (*told, *written):
        assert KEY not in text and "another-secret" not in text


def test_without_a_key_none_is_sent(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    model_at(server).answer(some(2))
    assert not any("Authorization" in headers for headers in server.headers)
    server.always = status(401)
    with pytest.raises(UnavailableError, match="it wants a key: set OPENAI_API_KEY"):
        model_at(server).answer(some(2))


# Submissions without probabilities


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [lines[0] | {"probs": [0.2] * 5}, *lines[1:]], "some have none"),
        (lambda lines: [{k: v for k, v in lines[0].items() if k != "text"}, *lines[1:]], "needs a text"),
    ],
)
def test_probabilities_are_in_all_answers_or_in_none(server, tmp_path, spoil, said):
    import hashlib

    server.logprobs = False
    folder = Path(json.loads(run(server, tmp_path, task="vsm13_text").stdout)["submission"])
    lines = spoil([json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()])
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (folder / "answers.jsonl").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["answers"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = culteval("score", folder)
    assert done.returncode == 3 and said in done.stderr, done.stderr


# lm-eval's models


@pytest.mark.slow
def test_lm_eval_s_model_gives_what_the_local_one_gives(tiny, load, tmp_path):
    prompts = some(4)
    for chat in (False, True):
        kind = "lm-eval-chat" if chat else "lm-eval"
        name = f"{kind}:hf,pretrained={tiny(chat=chat)},dtype=float32,device=cpu"
        if len(name) > 200:
            pytest.skip("the temporary folder's name is too long")
        model = ApiModel(name, Api(), print).at(tmp_path / kind, lambda *_: None)
        answers, local = model.answer(prompts), load(chat=chat).answer(prompts)
        np.testing.assert_allclose(answers.probs, local.probs, atol=1e-5)
        if not chat:  # lm-eval counts the last line break of a template to the options
            np.testing.assert_allclose(answers.outside, local.outside, atol=1e-5)
        texts = load(chat=chat).generate(some(2, "vsm13_text"), most=4).texts
        assert model.generate(some(2, "vsm13_text"), most=4).texts == texts


def test_lm_eval_errors_are_one_line(tmp_path):
    for name, code, said in (("nothing,a=b", 4, "cannot be loaded"), ("local-completions,model=m", 4, "")):
        done = culteval("run", "--aligner", "naive", "--task", "vsm13", "--limit", 1, "--no-compare",
                        "--model", f"lm-eval:{name}", "--out", tmp_path)  # fmt: skip
        assert done.returncode == code and said in done.stderr and done.stderr.strip().count("\n") <= 1, done.stderr


def lm_eval_chat(server, folder, kind="local-chat-completions"):
    name = f"lm-eval-chat:{kind},model=tiny,base_url={server.url}/chat/completions"
    return ApiModel(name, Api(), print).at(folder, lambda *_: None)


def test_lm_eval_s_chat_models_are_told_how_to_begin(server, tmp_path):
    """As over the API itself: otherwise what a model says would be put after a beginning that it never heard of."""
    server.says = lambda text: "ACT: bows" if text.endswith("Begin your answer with: ACT:") else "SPEAK: Good day"
    chat = ({"role": "system", "content": "Play."}, {"role": "user", "content": "Your turn."})
    replies = lm_eval_chat(server, tmp_path).ask([Ask(chat, 8, (), 0.7, 1, begun) for begun in ("ACT:", "")])
    assert [reply.text for reply in replies] == ["ACT: bows", "SPEAK: Good day"]
    assert all(body["messages"][0] == chat[0] for body in server.bodies)


def test_lm_eval_s_models_draw_with_the_seed_of_a_request(server, tmp_path):
    """Tries differ, and so do equal chats; likeliest answers have none of it."""
    chats = [({"role": "user", "content": text},) for text in ("A", "B", "A")]
    model = lm_eval_chat(server, tmp_path)
    for seed, top_p in ((5, 0.7), (90, 0.7), (7, 0.0)):
        model.ask([Ask(chat, 8, (), top_p, seed + i) for i, chat in enumerate(chats)])
    asked = sorted((body["seed"], body["messages"][0]["content"]) for body in server.bodies if "top_p" in body)
    first = [(5, "A")]  # asked alone, to find out whom one talks to
    assert asked[:1] == first and len(set(asked)) == len(asked) == 6
    assert len({body["seed"] for body in server.bodies if "top_p" not in body}) == 1


def test_kinds_of_lm_eval_that_take_no_seed_are_given_none(tmp_path):
    source = LmEvalSource(address_of("lm-eval-chat:dummy,a=b", Api()), Api(), print)
    source._model = Taken()
    source.ask([Ask(({"role": "user", "content": "A"},), 8, (), 0.7, 5)], Dialect(met=True), lambda *_: None)
    assert source._model.taken == [
        {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0, "top_p": 0.7}
    ]


class Taken:
    """A model of lm-eval that notes what it is asked."""

    def apply_chat_template(self, chat):
        return str(chat)

    def generate_until(self, requests):
        self.taken = [request.args[1] for request in requests]
        return ["yes"] * len(requests)


# A teacher for CLCA

CLCA = ["--preset", "laptop", "--set", "scenarios=2", "--set", "turns=4"]


def speak(text):
    return "SPEAK: Good morning, how are you today? It is a fine day in town."


def stage(server, out, name, *more, as_json=True):
    flags = ["--set", "teacher=openai-chat:tiny", "--base-url", server.url, "--country", "US"]
    return culteval("clca", name, *CLCA, *flags, *(["--json"] if as_json else []), "--out", out, *more)


def test_a_teacher_behind_an_api_plays_judges_and_names_intents(server, tmp_path):
    server.says = speak
    done = stage(server, tmp_path, "intents")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["simulated"]["dialogues"] == 4
    folder = Path(report["folder"])
    assert "fine day" in (folder / "dialogues.jsonl").read_text()
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds)) > len(seeds) / 3 and all(body["model"] == "tiny" for body in server.bodies)
    assert any("Begin your answer with: SPEAK:" in body["messages"][-1]["content"] for body in server.bodies)
    assert "SPEAK: SPEAK" not in (folder / "replies" / "simulate" / REPLIES).read_text()
    used = report["usage"]["clca"]
    assert used["requests"] == len(server.bodies) and used["cost"] is None
    assert json.loads((folder / "usage.json").read_text()) == used
    before = len(server.bodies)
    for name in ("playing.jsonl", "dialogues.jsonl", "simulated.json", "decisions.jsonl", "intents.jsonl"):
        (folder / name).unlink()
    again = stage(server, tmp_path, "filter", "--price-in", 2, "--price-out", 10)
    assert again.returncode == 0, again.stderr
    cost = before * (100 * 2 + 2 * 10) / 1e6
    assert json.loads(again.stdout)["usage"]["clca"]["cost"] == pytest.approx(cost)
    shown = stage(server, tmp_path, "filter", "--price-in", 2, "--price-out", 10, as_json=False).stdout
    assert f"asked      clca: {before} replies" in shown and f"cost {cost:.4f}" in shown
    assert len(server.bodies) == before  # every reply was kept


@pytest.mark.slow
def test_a_model_here_learns_from_a_teacher_behind_an_api(server, tiny, tmp_path):
    server.says = speak
    sizes = ["--set", "scenarios=2", "--set", "turns=4", "--set", "checks=[]", "--set", "judge=false"]
    flags = ["--task", "vsm13", "--limit", 1, "--country", "US", "--no-compare", "--json", "--out", tmp_path]
    teacher = ["--set", "teacher=openai-chat:tiny", "--base-url", server.url, "--price-out", 1]
    done = culteval("run", "--aligner", "clca", "--model", tiny(), "--dtype", "float32", *sizes, *flags, *teacher)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["usage"]["clca"]["requests"] == len(server.bodies) > 16 and result["usage"]["clca"]["cost"] > 0
    manifest = json.loads((Path(result["submission"]) / "manifest.json").read_text())
    assert manifest["aligner"]["settings"]["teacher"] == "openai-chat:tiny" and manifest["model"]["device"] == "cpu"


def test_an_interrupted_round_asks_only_for_the_missing_turns(server, tmp_path):
    server.says, server.plan, server.always = speak, [None] * 6, status(500)
    done = stage(server, tmp_path, "simulate", "--retries", 0, "--concurrency", 1)
    assert done.returncode == 4 and "replies are kept in" in done.stderr
    server.always, before = None, len(server.bodies)
    assert stage(server, tmp_path, "simulate", "--concurrency", 1).returncode == 0
    assert (
        len({json.dumps(body) for body in server.bodies}) == len(server.bodies) - 1
    )  # the failed one alone came twice
    assert len(server.bodies) > before
    before = len(server.bodies)
    assert stage(server, tmp_path, "simulate", "--concurrency", 1, "--fresh").returncode == 0
    assert len(server.bodies) > before


def test_a_stage_done_anew_is_asked_anew_and_no_other(server, tmp_path):
    server.says, unchecked = speak, ("--set", "checks=[]")
    assert stage(server, tmp_path, "intents", *unchecked).returncode == 0
    whole = list(server.bodies)
    for name in ("intents", "filter"):
        server.bodies.clear()
        done = stage(server, tmp_path, name, "--fresh", *unchecked)
        assert done.returncode == 0, done.stderr
        assert server.bodies and all(body in whole for body in server.bodies)
        asked = "In one sentence" if name == "intents" else "VERDICT, CONFIDENCE"
        assert all(asked in body["messages"][-1]["content"] for body in server.bodies)
    folder = Path(json.loads(done.stdout)["folder"]) / "replies"
    assert {path.name for path in folder.iterdir()} == {"simulate", "filter"}
    server.bodies.clear()
    assert stage(server, tmp_path, "filter", *unchecked).returncode == 0 and not server.bodies


def test_a_retry_is_never_given_the_reply_of_a_first_try(server, tmp_path):
    """The same chat at the second place, asked again at the first: another request."""
    chat, writer = [{"role": "user", "content": "Your turn."}], ApiWriter(model_at(server, tmp_path))
    for attempt in range(3):
        writer.write([chat] * 4, Style(8, 0.7), 100 + attempt)
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds)) == len(seeds) == 12
    writer.write([chat] * 4, Style(8, 0.7), 100)
    assert len(server.bodies) == 12  # the same call is given what is kept


def test_a_teacher_s_address_is_checked_first(server, tmp_path):
    done = stage(server, tmp_path, "simulate", "--base-url", "http://me:sesame@host/v1")
    assert done.returncode == 2 and "sesame" not in done.stderr and not (tmp_path / "US").exists()
    done = culteval("clca", "simulate", "--base-url", server.url, "--out", tmp_path)
    assert done.returncode == 2 and "no model behind an API" in done.stderr


def test_another_local_model_may_teach(tiny, tmp_path):
    sizes = [*CLCA, "--set", "words=8", "--set", "checks=[]", "--set", "judge=false", "--country", "US", "--json"]
    written = []
    for teacher in ([], ["--set", f"teacher={tiny('gpt2')}"]):
        done = culteval(
            "clca", "simulate", *sizes, "--model", tiny(), *teacher, "--out", tmp_path, "--dtype", "float32"
        )
        assert done.returncode == 0, done.stderr
        written.append((Path(json.loads(done.stdout)["folder"]) / "dialogues.jsonl").read_text())
    assert written[0] != written[1]


# A real server


@pytest.mark.slow
def test_the_embedded_model_behind_transformers_serve(tmp_path):
    """Its texts are those of the model here; it tells no probabilities, which is found out and said."""
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason="pip install transformers[serving]")
    from culteval.harness.embedded import fetch
    from culteval.harness.models import load_model

    folder, port = str(fetch()), free_port()
    script = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", script, "serve", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        api, notes, prompts = Api(base_url=f"http://localhost:{port}/v1", concurrency=1), [], some(2, "vsm13_text")
        wait_for(port, process, tmp_path / "serve.log")
        model = ApiModel(f"openai-chat:{folder}", api, notes.append).at(tmp_path, lambda *_: None)
        answers = model.generate(prompts, most=4)
    finally:
        process.kill()
        process.wait()
    local = load_model("smollm2", "float32", "cpu", None, None, print).generate(prompts, most=4)
    assert answers.texts == local.texts and not answers.weighed
    assert any("read as text alone" in note for note in notes)
    assert model.identity.forward == "text" and folder in model.identity.revision
    kept = [json.loads(line)["reply"] for line in (tmp_path / REPLIES).read_text().splitlines()]
    assert all(reply["tokens_in"] > 30 and reply["tokens_out"] <= 4 for reply in kept)


def free_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def wait_for(port, process, log):
    import socket

    for _ in range(600):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            socket.create_connection(("localhost", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not start in two minutes")
