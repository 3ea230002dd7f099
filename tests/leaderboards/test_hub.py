"""``culteval publish``: model-index metadata, the folder of a hub repository, and an upload to no real hub."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml
from click.testing import CliRunner
from culteval.errors import InputError, UsageError
from culteval.harness.scoring.submission import load_submission
from culteval.leaderboards.hub import publish
from culteval.tasks.score import find

from ..board_files import EVIL, write


def told(*words):
    done = CliRunner().invoke(publish, list(map(str, words)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


@pytest.fixture
def runs(tmp_path):
    return [
        write(tmp_path, "one", model="org/tiny-8B", command="culteval run --out /home/me/secret/runs"),
        write(tmp_path, "two", task="wvs", country="DE", model="org/tiny-8B", aligner="icl"),
    ]


def results_of(text):
    from huggingface_hub import ModelCardData

    return ModelCardData(**yaml.safe_load(text), ignore_metadata_errors=False).eval_results


def test_metadata_reads_back_as_the_scores(runs):
    text = told(*runs)
    results = {(r.dataset_type, r.metric_type): r for r in results_of(text)}
    scores = [score for run in runs for score in load_submission(run).score()]
    loss = find([s for s in scores if s.task == "vsm13"], ("loss", "expected", "heldout"))
    result = results["culteval-vsm13", "loss"]
    assert (result.metric_value, result.dataset_config, result.dataset_split) == (loss.value, "SA", "heldout")
    assert "lower is better" in result.metric_name and result.metric_args["edition"] == "extended"
    assert result.dataset_revision == load_submission(runs[0]).manifest.tasks[0].hash
    w1 = find([s for s in scores if s.task == "wvs"], ("w1", "expected", "heldout"))
    assert results["culteval-wvs", "w1"].metric_value == w1.value
    assert yaml.safe_load(text)["base_model"] == "org/tiny-8B"
    assert {"culteval", "culteval-de", "culteval-icl"} <= set(yaml.safe_load(text)["tags"])
    assert {metric for task, metric in results if task == "culteval-vsm13"} >= {"loss", "skill", "pdi", "ivr"}


def test_a_prepared_folder_has_card_and_submissions_without_places(runs, tmp_path):
    out = tmp_path / "made"
    assert f"next       hf upload me/mine {out}" in told(*runs, "--hub", "me/mine", "--out", out)
    card = (out / "README.md").read_text()
    head = card.split("---\n")[1]
    assert results_of(head) and yaml.safe_load(head)["model-index"][0]["name"] == "mine"
    entries = sorted(path.name for path in (out / "submissions").iterdir())
    assert len(entries) == 2 and all(f"culteval score submissions/{name}" in card for name in entries)
    for name, run in zip(entries, runs, strict=True):
        assert [*load_submission(out / "submissions" / name).score()] == [*load_submission(run).score()]
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"/home/me" not in everything and str(tmp_path).encode() not in everything
    with pytest.raises(UsageError, match="there already"):
        told(*runs, "--hub", "me/mine", "--out", out)


def test_what_a_submission_says_is_text(tmp_path):
    run = write(tmp_path, "evil", model=EVIL, aligner="a|b")
    told(run, "--hub", "me/mine", "--out", tmp_path / "made")
    card = (tmp_path / "made" / "README.md").read_text().split("---\n", 2)[2]
    assert "<img" not in card and "a\\|b" in card


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--hub", "mine"], UsageError, "OWNER/NAME"),
        (["--hub", "../x/y"], UsageError, "OWNER/NAME"),
        (["--upload"], UsageError, "--upload: needs --hub"),
        (["--out", "x"], UsageError, "--out: needs --hub"),
    ],
)
def test_what_cannot_be_published_is_refused(runs, tmp_path, monkeypatch, words, error, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        told(*runs, *words)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_submission_leaves_no_folder(runs, tmp_path):
    (runs[1] / "manifest.json").write_text("{}")
    with pytest.raises(InputError):
        told(*runs, "--hub", "me/mine", "--out", tmp_path / "made")
    assert not (tmp_path / "made").exists()


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as an upload of small files asks for; what it got is kept."""

    refuses = False

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, body, self.headers.get("Authorization")))
        if self.refuses:
            return self.reply(403, {"error": "no"})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.reply(200, {"files": files})
        if "/commit/" in self.path:
            return self.reply(200, {"commitUrl": f"{self.server.url}/me/mine/commit/1", "commitOid": "1" * 40})
        return self.reply(200, {"url": f"{self.server.url}/me/mine", "id": "me/mine"})

    def do_GET(self):
        self.server.asked.append((self.path, b"", None))
        self.reply(200, {"id": "me/mine", "sha": "0" * 40, "siblings": []})

    def reply(self, code, data):
        body = json.dumps(data).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = HTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {}))
    server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def uploaded(hub, tmp_path, *words):
    """Run the command in a process of its own: huggingface_hub reads its address when it is imported."""
    code = "import sys; from culteval.leaderboards.hub import publish; publish(sys.argv[1:], standalone_mode=False)"
    more = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_" + "x" * 30,
        "HF_HOME": str(tmp_path / "hf"),
    }
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, env=os.environ | more, capture_output=True, text=True, timeout=120)


def test_upload_sends_the_folder_and_only_when_asked(runs, hub, tmp_path):
    out = tmp_path / "made"
    done = uploaded(hub, tmp_path, *runs, "--hub", "me/mine", "--out", out)
    assert done.returncode == 0, done.stderr
    assert hub.asked == []
    done = uploaded(hub, tmp_path, *runs, "--hub", "me/mine", "--out", tmp_path / "again", "--upload")
    assert done.returncode == 0, done.stderr
    assert f"uploaded   {hub.url}/me/mine" in done.stdout
    created = next(json.loads(body) for path, body, _ in hub.asked if path == "/api/repos/create")
    assert (created["name"], created["organization"]) == ("mine", "me")
    assert created.get("private") is True or created.get("visibility") == "private"
    lines = next(body for path, body, _ in hub.asked if "/commit/" in path).splitlines()
    sent = {
        row["value"]["path"]: base64.b64decode(row["value"]["content"])
        for row in map(json.loads, lines)
        if row["key"] == "file"
    }
    assert sent == {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {key for _, body, key in hub.asked if body} <= {"Bearer hf_" + "x" * 30, None}


def test_a_refusal_is_one_line_without_the_token(runs, hub, tmp_path):
    hub.RequestHandlerClass.refuses = True
    done = uploaded(hub, tmp_path, *runs, "--hub", "me/mine", "--out", tmp_path / "made", "--upload")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0 and "UnavailableError: --upload me/mine: " in last and "403" in last
    assert "hf_xxx" not in done.stderr and (tmp_path / "made").is_dir()
