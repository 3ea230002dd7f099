"""Models behind an API that refuse parameters, fail with status 200, answer as another model, or lack likelihoods."""

import asyncio
import json

import numpy as np
import pytest
from culteval.errors import RunError, UnavailableError, UsageError
from culteval.harness.providers.http import RequestRejected
from culteval.harness.providers.model import ENDPOINT, ApiModel
from culteval.harness.providers.openai import _rejected
from culteval.harness.providers.response_log import REPLIES, Ask
from culteval.harness.providers.settings import EndpointSettings, address_of
from culteval.harness.runs.plan import RunRequest, plan

from ... import api_client
from ...api_client import model_at, some
from ...api_server import raw, status

quick, server = api_client.quick, api_client.server

# What an endpoint refuses

SENT = {"model": "tiny", "max_tokens": 1, "seed": 0, "temperature": 0.0, "top_logprobs": 20}
REPEATED = f"top_logprobs is at most 5: {json.dumps(SENT)}"
OTHERWISE = {
    "FastAPI repeats the body": {"detail": [{"loc": ["body", "top_logprobs"], "msg": "at most 5", "input": SENT}]},
    "vLLM repeats the body": {"message": f"[{{'loc': ('body', 'top_logprobs'), 'input': {SENT}}}]"},
    "a message repeats the body": {"error": {"message": REPEATED}},
    "another parameter": {"error": {"message": "top_logprobs with 'seed'", "param": "top_logprobs"}},
    "a model's name": {"error": {"message": "seed-oss-36b: at most 5 top_logprobs"}},
    "a host": {"error": {"message": "http://seed.example.com: unsupported top_logprobs"}},
    "an aside": {"error": {"message": "top_logprobs is not supported with a seed"}},
}
BY_NAME = {
    "OpenAI": {"error": {"message": "no", "param": "seed"}},
    "FastAPI": {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 0}]},
    "vLLM": {"message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'input': 0}]"},
    "Azure": {"error": {"message": "Unrecognized request argument supplied: seed", "param": None}},
    "Mistral": {"message": "seed: Extra inputs are not permitted"},
    "prose": {"error": "This model does not support the seed parameter."},
    "quoted": {"error": {"message": 'json: unknown field "seed"'}},
}


@pytest.mark.parametrize("name", OTHERWISE)
@pytest.mark.parametrize("code", [400, 422])
def test_a_parameter_that_is_not_refused_is_sent_further(server, name, code):
    server.plan, notes = [status(code, OTHERWISE[name])], []
    model_at(server, notes=notes).answer(some())
    assert not notes and SENT.keys() <= server.bodies[-1].keys() and server.bodies[-1]["top_logprobs"] == 5


@pytest.mark.parametrize("name", BY_NAME)
def test_a_parameter_that_is_refused_by_name_is_left_out(server, name):
    server.plan, notes = [status(422, BY_NAME[name])], []
    model_at(server, notes=notes).answer(some())
    assert len(notes) == 1 and "rejects seed" in notes[0]
    assert server.bodies[-1].keys() == {*SENT, "messages", "logprobs"} - {"seed"}
    assert server.bodies[-1]["top_logprobs"] == 20


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("Argument not supported on this model: stop", "stop"),
        ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', "seed"),
        ("bedrock does not support parameters: {'seed': 0}, for model=x", "seed"),
        ("stop sequences are not supported by this model", "stop"),
        ("Setting 'temperature': only the default (1) value is supported", "temperature"),
        ("Only temperature=1 is allowed for this model", "temperature"),
        ("seed-oss-36b: at most 5 top_logprobs", None),
    ],
)
def test_refusals_in_other_words(message, name):
    sent = dict.fromkeys(("max_tokens", "temperature", "seed", "stop"), 0)
    assert _rejected(RequestRejected("x", message=message), sent) == name


def test_a_parameter_whose_absence_does_not_help_is_sent_again(server):
    server.plan, notes = [status(400, BY_NAME["OpenAI"]), status(400)], []
    model_at(server, notes=notes).answer(some())
    assert ["seed" in body for body in server.bodies[:3]] == [True, False, True]
    assert not notes and server.bodies[-1]["top_logprobs"] == 5


def test_the_problems_of_a_request_are_told_without_the_request(server):
    server.always = status(422, OTHERWISE["FastAPI repeats the body"])
    with pytest.raises(RunError, match=r"rejected \(422\): top_logprobs: at most 5\.$"):
        model_at(server).answer(some())


# Failures with status 200

FAILED = {reason: {"finish_reason": reason} for reason in ("error", "abort", "cancelled")}
FAILED["an error"] = {"finish_reason": None, "error": {"code": 502, "message": "Provider returned error"}}


@pytest.mark.parametrize("name", FAILED)
def test_a_reply_that_the_server_could_not_finish_is_asked_for_again(server, tmp_path, name):
    failed = raw(json.dumps({"choices": [{"message": {"content": "2"}} | FAILED[name]]}).encode())
    asks = [Ask(({"role": "user", "content": str(i)},), 4) for i in range(3)]
    server.plan = [None, failed]
    replies = model_at(server, tmp_path, concurrency=1).ask(asks)
    assert len(server.bodies) == 4 and all(reply.finish == "stop" for reply in replies)
    server.always = failed
    with pytest.raises(RunError, match="the server could not finish"):
        model_at(server, tmp_path, retries=0).ask([asks[0]._replace(seed=1)])
    assert len((tmp_path / REPLIES).read_bytes().splitlines()) == 3


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", None])
def test_a_reply_that_ended_otherwise_is_kept(server, reason):
    server.always = raw(json.dumps({"choices": [{"message": {"content": "2"}, "finish_reason": reason}]}).encode())
    (reply,) = model_at(server).ask([Ask(({"role": "user", "content": "1"},), 4)])
    assert (reply.text, reply.finish, len(server.bodies)) == ("2", reason or "", 1)


# Other models


def test_a_server_that_answers_as_another_model_is_told_of_once(server, tmp_path):
    server.name, notes = "llama-8b", []
    model = model_at(server, tmp_path, notes=notes)
    model.answer(some(2))
    model.answer(some(4))
    assert [note.partition(": ")[2] for note in notes] == ["asked for tiny, answers as llama-8b"]


@pytest.mark.parametrize(
    ("model", "writer", "refused"),
    [
        ("openai-chat:any", "openai-chat:gpt-4o", True),
        ("openai-chat:any", "ollama:any", True),
        ("openai-chat:any", "openai-chat:any", False),
        ("openai-chat:any", "smollm2", False),
        ("smollm2", "openai-chat:gpt-4o", False),
        ("ollama:one", "ollama:other", False),
    ],
)
def test_an_address_is_that_of_one_model(model, writer, refused):
    def planned(**endpoint):
        given = {"model": model, "settings": {"writer": writer}, "endpoint": EndpointSettings(**endpoint)}
        return plan(RunRequest.of(aligner="evo_prompt", tasks="vsm13", country="US", **given))

    assert planned(concurrency=2).settings["writer"] == writer
    if not refused:
        assert planned(base_url="http://localhost:1/v1").settings["writer"] == writer
        return
    for url in ("http://localhost:1/v1", "http://127.0.0.1:8080/v1"):
        with pytest.raises(UsageError, match=f"writer={writer}: openai-chat:any is at this `base_url`"):
            planned(base_url=url)
    assert planned(base_url="https://router.example/v1").settings["writer"] == writer  # which knows models by name


# Notebooks


def test_a_model_answers_within_a_running_event_loop(server, tmp_path):
    async def cell():
        return model_at(server).answer(some()).probs

    np.testing.assert_array_equal(asyncio.run(cell()), model_at(server).answer(some()).probs)
    server.always = status(401)

    async def refused():
        model_at(server).answer(some())

    with pytest.raises(UnavailableError, match="was refused"):
        asyncio.run(refused())


# Models of lm-eval


class Fake:
    """A model of lm-eval whose log-likelihoods fail, as ``error`` says."""

    def __init__(self, error):
        self.error = error

    def loglikelihood(self, requests):
        self.error()

    def generate_until(self, requests):
        return ["2" for _ in requests]


def parse_logprobs():
    """As lm-eval's function of this name does with a reply that has none."""
    reply = {"logprobs": None}
    return reply["logprobs"]["token_logprobs"]


def fails(error):
    def fail():
        raise error

    return fail


def rejected(code):
    error = OSError(f"{code} Client Error")
    error.response = type("Response", (), {"status_code": code})
    return fails(error)


def asked(folder, error):
    model = ApiModel("lm-eval:dummy", EndpointSettings(), print).at(folder, lambda *_: None)
    model.source.__dict__["_model"] = Fake(error)
    return model.generate(some(2, "vsm13_text"))


@pytest.mark.parametrize(
    "error",
    [fails(NotImplementedError("Loglikelihood is not supported.")), parse_logprobs, rejected(400),
     fails(RuntimeError("Model x is not supported: does not return logprobs for input tokens"))],
)  # fmt: skip
def test_a_model_of_lm_eval_without_likelihoods_answers_in_text(tmp_path, error):
    assert set(asked(tmp_path, error).parsed) == {2}
    assert json.loads((tmp_path / ENDPOINT).read_text())["understands"]["echo"] is False


@pytest.mark.parametrize(
    "error", [fails(TimeoutError("timed out")), fails(RuntimeError("CUDA out of memory")), rejected(503)]
)
def test_a_failure_of_lm_eval_says_nothing_of_the_model(tmp_path, error):
    with pytest.raises(RunError, match="lm-eval dummy: failed"):
        asked(tmp_path, error)
    assert not (tmp_path / ENDPOINT).exists() and not (tmp_path / REPLIES).exists()


# Secrets


@pytest.mark.parametrize("name", ["token", "hf_token", "Access_Token", "api_key", "header", "client_secret", "key"])
def test_arguments_with_secrets_are_refused(name):
    with pytest.raises(UsageError, match="environment") as refused:
        address_of(f"lm-eval:local-completions,model=m,{name}=sesame", EndpointSettings())
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("name", ["add_bos_token", "think_end_token", "prefix_token_id", "eos_token", "max_tokens"])
def test_arguments_on_tokens_of_a_vocabulary_are_none(name):
    assert address_of(f"lm-eval:local-completions,{name}=1", EndpointSettings()).model.endswith(f"{name}=1")
