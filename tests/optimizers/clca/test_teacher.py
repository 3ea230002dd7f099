"""Models of lm-eval, teachers of CLCA and a real server, where an API is asked as they ask it."""

import json
import re
import subprocess
import sys
import time
import weakref
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from culteval.harness.providers.lm_eval import LmEvalSource
from culteval.harness.providers.model import ApiModel
from culteval.harness.providers.openai import Dialect
from culteval.harness.providers.response_log import REPLIES, Ask
from culteval.harness.providers.settings import EndpointSettings, address_of
from culteval.optimizers.writing.teacher import ApiWriter, Teacher
from culteval.optimizers.writing.writer import LocalWriter, Style

from ... import api_client
from ...api_client import model_at, some
from ...api_server import status
from ...clca_course import course
from ...harness.runs.test_run import culteval

quick, server = api_client.quick, api_client.server

# lm-eval's models


@pytest.mark.slow
def test_lm_eval_s_model_gives_what_the_local_one_gives(tiny, load, tmp_path):
    prompts = some(4)
    for chat in (False, True):
        kind = "lm-eval-chat" if chat else "lm-eval"
        name = f"{kind}:hf,pretrained={tiny(chat=chat)},dtype=float32,device=cpu"
        if len(name) > 200:
            pytest.skip("the temporary folder's name is too long")
        model = ApiModel(name, EndpointSettings(), print).at(tmp_path / kind, lambda *_: None)
        answers, local = model.answer(prompts), load(chat=chat).answer(prompts)
        np.testing.assert_allclose(answers.probs, local.probs, atol=1e-5)
        if not chat:  # lm-eval counts the last line break of a template to the options
            np.testing.assert_allclose(answers.off_options, local.off_options, atol=1e-5)
        texts = load(chat=chat).generate(some(2, "vsm13_text"), most=4).texts
        assert model.generate(some(2, "vsm13_text"), most=4).texts == texts


def test_lm_eval_errors_are_one_line(tmp_path):
    for name, code, said in (("nothing,a=b", 4, "cannot be loaded"), ("local-completions,model=m", 4, "")):
        done = culteval("run", "--aligner", "naive", "--task", "vsm13", "--limit", 1, "--no-compare",
                        "--model", f"lm-eval:{name}", "--out", tmp_path)  # fmt: skip
        assert done.returncode == code and said in done.stderr and done.stderr.strip().count("\n") <= 1, done.stderr


def lm_eval_chat(server, folder, kind="local-chat-completions"):
    name = f"lm-eval-chat:{kind},model=tiny,base_url={server.url}/chat/completions"
    return ApiModel(name, EndpointSettings(), print).at(folder, lambda *_: None)


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
    source = LmEvalSource(address_of("lm-eval-chat:dummy,a=b", EndpointSettings()), EndpointSettings(), print)
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

CLCA = ["--set", "scenarios=2", "--set", "turns=4"]


def speak(text):
    return f"Good morning, how are you today? It is a fine day in town, {zlib.crc32(text.encode())}."


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
    asked = [body["messages"][-1]["content"] for body in server.bodies]
    assert any(re.search(r'Begin your answer with: [^\n]+: "$', text) for text in asked)
    used = report["usage"]["clca"]
    assert used["requests"] == len(server.bodies) and used["cost"] is None
    assert json.loads((folder / "usage.json").read_text()) == used
    before = len(server.bodies)
    for name in ("playing.jsonl", "dialogues.jsonl", "simulated.json", "decisions.jsonl", "intents.jsonl"):
        (folder / name).unlink()
    again = stage(server, tmp_path, "filter", "--endpoint", "price_in=2", "--endpoint", "price_out=10")
    assert again.returncode == 0, again.stderr
    cost = before * (100 * 2 + 2 * 10) / 1e6
    assert json.loads(again.stdout)["usage"]["clca"]["cost"] == pytest.approx(cost)
    shown = stage(
        server, tmp_path, "filter", "--endpoint", "price_in=2", "--endpoint", "price_out=10", as_json=False
    ).stdout
    assert f"asked      clca: {before} replies" in shown and f"cost {cost:.4f}" in shown
    assert len(server.bodies) == before  # every reply was kept


@pytest.mark.slow
def test_a_model_here_learns_from_a_teacher_behind_an_api(server, tiny, tmp_path):
    server.says = speak
    sizes = ["--set", "scenarios=2", "--set", "turns=4", "--set", "checks=[]", "--set", "judge=false"]
    flags = ["--task", "vsm13", "--limit", 1, "--country", "US", "--no-compare", "--json", "--out", tmp_path]
    teacher = ["--set", "teacher=openai-chat:tiny", "--base-url", server.url, "--endpoint", "price_out=1"]
    done = culteval("run", "--aligner", "clca", "--model", tiny(), "--dtype", "float32", *sizes, *flags, *teacher)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["usage"]["clca"]["requests"] == len(server.bodies) > 16 and result["usage"]["clca"]["cost"] > 0
    manifest = json.loads((Path(result["submission"]) / "manifest.json").read_text())
    assert manifest["aligner"]["settings"]["teacher"] == "openai-chat:tiny" and manifest["model"]["device"] == "cpu"


def test_an_interrupted_round_asks_only_for_the_missing_turns(server, tmp_path):
    server.says, server.plan, server.always = speak, [None] * 6, status(500)
    done = stage(server, tmp_path, "simulate", "--endpoint", "retries=0", "--endpoint", "concurrency=1")
    assert done.returncode == 4 and "replies are stored in" in done.stderr
    server.always, before = None, len(server.bodies)
    assert stage(server, tmp_path, "simulate", "--endpoint", "concurrency=1").returncode == 0
    assert (
        len({json.dumps(body) for body in server.bodies}) == len(server.bodies) - 1
    )  # the failed one alone came twice
    assert len(server.bodies) > before
    before = len(server.bodies)
    assert stage(server, tmp_path, "simulate", "--endpoint", "concurrency=1", "--fresh").returncode == 0
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
    assert done.returncode == 2 and "no model is behind an endpoint" in done.stderr


def test_another_local_model_may_teach(tiny, tmp_path):
    sizes = [*CLCA, "--set", "words=8", "--set", "checks=[]", "--set", "judge=false", "--country", "US", "--json"]
    written = []
    rounded = ["--set", f"teacher={tiny()}", "--set", "teacher_dtype=int8"]
    for teacher in ([], ["--set", f"teacher={tiny('gpt2')}"], rounded):
        done = culteval(
            "clca", "simulate", *sizes, "--model", tiny(), *teacher, "--out", tmp_path, "--dtype", "float32"
        )
        assert done.returncode == 0, done.stderr
        written.append((Path(json.loads(done.stdout)["folder"]) / "dialogues.jsonl").read_text())
    assert len(set(written)) == 3
    for wrong in (["--set", "teacher=openai-chat:tiny"], []):
        done = culteval("clca", "simulate", *CLCA, *wrong, "--set", "teacher_dtype=int8", "--out", tmp_path)
        assert done.returncode == 2 and "teacher_dtype: only for a `teacher` on this machine" in done.stderr


def test_a_teacher_is_let_go_before_the_model_is_trained(load, tmp_path):
    one, released = course(tmp_path, load), []
    replace(one, release=lambda: released.append((one.done("intents"), one.done("train")))).run()
    assert released == [(True, False)]


def test_a_released_teacher_leaves_memory(tiny):
    from culteval.harness.models.load import load_model

    teacher = Teacher(lambda: load_model(str(tiny()), dtype="float32"))
    assert teacher() is teacher()
    LocalWriter(teacher()).write([[{"role": "user", "content": "Good day."}]], Style(4, 0), 0)
    former = weakref.ref(teacher())
    teacher.release()
    assert former() is None and teacher() is not None


# A real server


@pytest.mark.slow
def test_the_embedded_model_behind_transformers_serve(tmp_path):
    """Its texts are those of the model here; it tells no probabilities, which is found out and said."""
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason="pip install transformers[serving]")
    from culteval.harness.models.embedded import fetch
    from culteval.harness.models.load import load_model

    folder, port = str(fetch("smollm2")), free_port()
    script = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", script, "serve", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        api, notes, prompts = (
            EndpointSettings(base_url=f"http://localhost:{port}/v1", concurrency=1),
            [],
            some(2, "vsm13_text"),
        )
        wait_for(port, process, tmp_path / "serve.log")
        model = ApiModel(f"openai-chat:{folder}", api, notes.append).at(tmp_path, lambda *_: None)
        answers = model.generate(prompts, most=4)
    finally:
        process.kill()
        process.wait()
    local = load_model("smollm2", dtype="float32", notify=print).generate(prompts, most=4)
    assert answers.texts == local.texts and not answers.weighed
    assert any("scored by text only" in note for note in notes)
    assert model.info.forward == "text" and folder in model.info.revision
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
