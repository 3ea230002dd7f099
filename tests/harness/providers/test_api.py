"""Models behind an API: their addresses and keys, the probabilities and texts they give, what is counted and stored."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import RunError, UnavailableError, UsageError
from culteval.harness.providers.model import ApiModel
from culteval.harness.providers.response_log import Ask
from culteval.harness.providers.settings import EndpointSettings, address_of, endpoint_of, key_for

from ... import api_client, api_server
from ...api_client import KEY, PROMPTS, model_at, run, some
from ...api_server import shares_of, status
from ...harness.runs.test_run import culteval
from ...submission_files import rows_of, unpacked

quick, server = api_client.quick, api_client.server

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
    address = address_of("openai-chat:some/model:free", EndpointSettings(base_url=url))
    assert (address.url, address.model, address.chat) == (found, "some/model:free", True)


def test_ollama_is_on_this_machine_and_gets_no_key_of_openai(server, tmp_path, monkeypatch):
    address = address_of("ollama:qwen2.5:0.5b", EndpointSettings())
    assert (address.url, address.model) == ("http://localhost:11434/v1/chat/completions", "qwen2.5:0.5b")
    assert address.chat and key_for(address, EndpointSettings()) == ""
    monkeypatch.setenv("PROXY_KEY", "k" * 20)
    assert key_for(address, EndpointSettings(key_env="PROXY_KEY")) == "k" * 20
    done = run(server, tmp_path / "runs", kind="ollama")
    assert done.returncode == 0, done.stderr
    assert "Authorization" not in server.headers[0] and "messages" in server.bodies[0]
    model = json.loads((Path(json.loads(done.stdout)["submission"]) / "manifest.json").read_text())["model"]
    assert model["name"].startswith("ollama:tiny@") and model["forward"] == "first token, 20 likeliest"


def test_a_model_that_ollama_lacks_is_to_be_fetched(server, tmp_path):
    server.always = status(404, {"error": {"message": "model 'tiny' not found"}})
    done = run(server, tmp_path / "runs", kind="ollama")
    assert done.returncode == 4 and "ollama pull tiny" in done.stderr and done.stderr.count("\n") <= 2
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(UnavailableError, match=r"cannot be reached .*ollama serve"):
            ApiModel("ollama:tiny", EndpointSettings(base_url=address), print).answer(some())


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://host/v1", "http://", "http://host:99999999/v1", "http://host /v1", "http://h\nost/v1",
     "http://user:sesame@host/v1", "http://sesame@host/v1", "http://host/v1?key=sesame", "http://host/v1#sesame",
     "http://host/" + "v" * 100],
)  # fmt: skip
def test_bad_addresses_are_refused_and_secrets_in_them_not_repeated(url):
    with pytest.raises(UsageError, match="base_url") as refused:
        address_of("openai:m", EndpointSettings(base_url=url))
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["openai:", "openai-chat: ", "lm-eval:", "lm-eval:../x", "openai:" + "n" * 91, "openai:a\nb"]
)
def test_bad_names(name):
    with pytest.raises(UsageError, match="expected"):
        address_of(name, EndpointSettings())


@pytest.mark.parametrize("secret", ["api_key=sesame", "x=1,auth_token=sesame", "base_url=http://me:sesame@host/v1"])
def test_secrets_among_lm_eval_arguments_are_refused(secret):
    with pytest.raises(UsageError, match="environment") as refused:
        address_of(f"lm-eval:local-completions,{secret}", EndpointSettings())
    assert "sesame" not in str(refused.value)
    assert (
        address_of("lm-eval:local-completions,tokenizer=t,tokenized_requests=False", EndpointSettings()).host
        == "lm-eval"
    )


def test_openai_s_own_endpoint_wants_a_key_before_anything_is_asked(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UnavailableError, match="Set OPENAI_API_KEY"):
        endpoint_of(None, ["openai-chat:gpt"])
    monkeypatch.setenv("OTHER", "k" * 20)
    api = endpoint_of(EndpointSettings(key_env="OTHER"), ["openai-chat:gpt"])
    assert key_for(address_of("openai-chat:gpt", api), api) == "k" * 20
    monkeypatch.setenv("OTHER", "two words\n")
    with pytest.raises(UsageError, match="OTHER"):
        endpoint_of(EndpointSettings(key_env="OTHER"), ["openai-chat:gpt"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--aligner", "gd"], "gd: needs a model's weights"),
        (["--aligner", "clca"], "clca: needs a model's weights"),
        (["--aligner", "naive", "--dtype", "float32"], "--dtype"),
        (["--aligner", "naive", "--device", "cuda"], "--device"),
        (["--aligner", "naive", "--endpoint", "concurrency=0"], "--endpoint concurrency"),
        (["--aligner", "naive", "--endpoint", "price_in=-1"], "--endpoint price_in"),
        (["--aligner", "naive", "--endpoint", "timeout=nan"], "--endpoint timeout"),
        (["--aligner", "naive", "--endpoint", "key_env=a b"], "--endpoint key_env"),
        (["--aligner", "naive", "--model", "smollm2"], "--endpoint base_url: no model is behind an endpoint"),
        (["--aligner", "naive", "--model", "openaichat:x"], "Did you mean 'openai-chat'"),
    ],
)
def test_usage_errors_ask_nothing(server, tmp_path, flags, said):
    model = [] if "--model" in flags else ["--model", "openai-chat:tiny"]
    done = culteval("run", "--task", "vsm13", "--base-url", server.url, *model, *flags, "--out", tmp_path / "runs")
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert done.stderr.strip().count("\n") <= 1 and not server.bodies and not (tmp_path / "runs").exists()


# answer scorings


@pytest.mark.parametrize(("kind", "echo"), [("openai-chat", False), ("openai", True), ("openai", False)])
def test_probabilities_are_those_of_the_server(server, kind, echo):
    server.echo = echo
    prompts = some()
    answers = model_at(server, kind=kind).answer(prompts)
    wanted = [
        [shares_of(text)[choice] for choice in row] for text, row in zip(prompts.texts, prompts.choices, strict=True)
    ]
    np.testing.assert_allclose(answers.probs[0], np.array(wanted) / 0.9, atol=1e-12)
    np.testing.assert_allclose(answers.off_options[0], 0.1, atol=1e-12)


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
    assert {row["scoring"] for row in result["scores"] if row["aligner"] == "naive"} == {"text"}
    folder = Path(result["submission"])
    lines = rows_of(unpacked(folder))
    assert all(line["probs"] == [] and line["off_options"] == 1 and line["parsed"] > 0 for line in lines)
    assert json.loads((folder / "manifest.json").read_text())["model"]["forward"] == "text"
    again = culteval("score", folder, "--json")
    assert {row["scoring"] for row in json.loads(again.stdout)["scores"]} == {"text"}


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
    np.testing.assert_allclose(answers.off_options[0], [1, 1, *[0.1] * 4], atol=1e-9)
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
    assert model.info.forward.startswith("first token, 20 likeliest without ")
    assert set(model.info.forward.split("without ")[1].split(", ")) == {"max_tokens", "temperature", "seed"}
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


SILENT = {
    "empty": {"message": {"content": ""}, "finish_reason": "stop"},
    "refused": {"message": {"content": None, "refusal": "I cannot say."}},
    "filtered": {"message": {"content": "I"}, "finish_reason": "content_filter"},
    "no text": {"text": "", "logprobs": None},
}


@pytest.mark.parametrize("name", SILENT)
def test_a_reply_without_an_answer_tells_nothing_of_its_options(server, name):
    prompts, notes, kind = some(4), [], "openai" if "text" in SILENT[name] else "openai-chat"
    server.plan = [None, api_server.raw(json.dumps({"choices": [SILENT[name]]}).encode())]
    answers = model_at(server, kind=kind, notes=notes, concurrency=1).answer(prompts)
    np.testing.assert_allclose(answers.off_options[0], [0.1, 1, 0.1, 0.1], atol=1e-9)
    np.testing.assert_allclose(answers.probs[0, 1], 0.2)
    assert any("1 of 4 prompts" in note for note in notes)


def test_an_endpoint_that_gives_no_probabilities_with_its_answers_is_told(server):
    bare = api_server.raw(json.dumps({"choices": [{"message": {"content": "1"}}]}).encode())
    server.plan = [None, bare]
    with pytest.raises(RunError, match="a reply lacks the probabilities"):
        model_at(server, concurrency=1).answer(some(4))
    server.always = api_server.raw(json.dumps({"choices": [SILENT["empty"]]}).encode())
    with pytest.raises(UnavailableError, match="returns no option probabilities"):
        model_at(server).answer(some(4))


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
    lines = spoil(rows_of(unpacked(folder)))
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (folder / "answers.jsonl").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["answers"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = culteval("score", folder)
    assert done.returncode == 3 and said in done.stderr, done.stderr


# What is counted, shown and kept secret


def test_tokens_and_costs_are_counted_shown_and_stored(server, tmp_path):
    flags = ["--endpoint", "price_in=2", "--endpoint", "price_out=10"]
    result = json.loads(run(server, tmp_path, *flags).stdout)
    used = result["usage"]["naive"]
    assert used["tokens_in"] == PROMPTS * 100 and used["tokens_out"] == PROMPTS * 2 and used["uncounted"] == 0
    assert used["cost"] == pytest.approx(PROMPTS * (100 * 2 + 2 * 10) / 1e6)
    assert used["models"] == {"tiny-1 fp_7": PROMPTS}
    assert json.loads((Path(result["run"]) / "usage.json").read_text()) == used
    shown = run(server, tmp_path, *flags, "--endpoint", "price_in=2")
    again = culteval(*[w for w in ("run", "--aligner", "naive", "--task", "vsm13", "--limit", 1, "--out", tmp_path,
                                   "--model", "openai-chat:tiny", "--base-url", server.url)])  # fmt: skip
    assert shown.returncode == 0 and "72 replies, 7,200 tokens in, 144 out, cost 0.0158" in again.stdout
    dear = run(server, tmp_path, "--endpoint", "price_in=20")
    assert json.loads(dear.stdout)["usage"]["naive"]["cost"] == pytest.approx(PROMPTS * 100 * 20 / 1e6)
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
        "adapter_sha256": None, "content_sha256": None, "chat": None, "generation_ignored": {},
    }  # fmt: skip
    assert manifest["budget"]["item_forwards"] == 0
    assert all("Saudi Arabia" in body["messages"][0]["content"] for body in server.bodies)


def test_the_key_is_sent_and_written_nowhere(server, tmp_path, monkeypatch):
    server.name = server.says = None
    server.name, server.says = f"{KEY}-model", lambda text: f"1 {KEY}"
    monkeypatch.setenv("OTHER_API_KEY", "another-secret-of-the-environment")
    flags = ["--endpoint", "concurrency=2", "--endpoint", "retries=0"]
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
