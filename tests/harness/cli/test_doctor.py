"""Operations: what the doctor says of a machine, what a run's log holds, and how much a command says."""

import json
import logging
from datetime import datetime
from pathlib import Path
from urllib.error import URLError

import pytest
from click.testing import CliRunner
from culteval.errors import CultevalError, RunError
from culteval.harness.cli.main import cli
from culteval.harness.models import converted, embedded
from culteval.harness.runs import machine_checks
from culteval.harness.util.event_log import JsonLine, RunLog


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """An empty cache: no model is there."""
    monkeypatch.setenv("CULTEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def checks(*flags):
    done = CliRunner().invoke(cli, ["doctor", "--json", *flags])
    if done.exception and not isinstance(done.exception, SystemExit | RunError):
        raise done.exception
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert (isinstance(done.exception, RunError)) == any(row["state"] == "bad" for row in rows.values())
    return rows


def test_every_check_says_what_it_found_and_nothing_is_asked_or_made(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_checks.request, "urlopen", lambda *given, **more: pytest.fail("the network was asked"))
    rows = checks()
    names = ["versions", "processor", "threads", "graphics card", "memory", "cache", "disk", "ray", "network"]
    models = [f"model {name}" for name in embedded.EMBEDDED]
    assert list(rows) == names + models and all(row["found"] for row in rows.values())
    assert all(row["remedy"] for row in rows.values() if row["state"] != "ok")
    assert all(rows[name]["found"] == "not fetched yet" for name in models)
    assert "HF_HUB_OFFLINE is set" in rows["network"]["found"]
    assert not (tmp_path / "cache").exists()


def test_a_table_for_people():
    done = CliRunner().invoke(cli, ["doctor"])
    assert "versions" in done.stdout and "python 3" in done.stdout and "{" not in done.stdout


def test_what_is_wrong_is_named_and_the_exit_code_is_5(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    asked = ["numpy<1", "nosuchpackage>=2", "ray; extra == 'ray'", "rich"]
    monkeypatch.setattr(machine_checks, "requires", lambda name: asked)
    monkeypatch.setattr(machine_checks, "LEAST_DISK", 1 << 62)
    monkeypatch.setattr(machine_checks, "LEAST_MEMORY", 1 << 62)
    monkeypatch.setattr(machine_checks, "_cores", lambda: 0)
    rows = checks()
    bad = [name for name, row in rows.items() if row["state"] == "bad"]
    assert bad == ["versions", "threads", "memory", "cache", "disk"]
    assert all(rows[name]["remedy"] for name in bad)
    assert "nosuchpackage missing, not >=2" in rows["versions"]["found"] and "rich" not in rows["versions"]["found"]
    with pytest.raises(RunError, match=r"versions, threads, memory, cache, disk") as caught:
        CliRunner().invoke(cli, ["doctor"], catch_exceptions=False)
    assert caught.value.exit_code == 5


def test_the_network_is_tried_only_when_asked(monkeypatch):
    def unreachable(asked, timeout):
        assert asked.method == "HEAD" and timeout <= 10
        raise URLError("no route")

    monkeypatch.setattr(machine_checks.request, "urlopen", unreachable)
    row = checks("--network")["network"]
    assert row["state"] == "note" and "no route" in row["found"] and "HF_HUB_OFFLINE=1" in row["remedy"]


def test_a_model_that_changed_in_the_cache_is_found(tmp_path):
    parts = embedded.EMBEDDED["smollm2"].parts
    folder = tmp_path / "cache" / "models" / f"smollm2-{parts.version}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    converted.write_manifest(folder, parts.sha256, {"name": "SmolLM2"})
    assert checks()["model smollm2"]["state"] == "ok"
    (folder / "model.safetensors").write_bytes(b"wEights")
    row = checks()["model smollm2"]
    assert row["state"] == "bad" and "model.safetensors has changed" in row["found"] and "cache drop" in row["remedy"]
    (folder / "model.safetensors").write_bytes(b"weight")
    assert "is incomplete" in checks()["model smollm2"]["found"]


def test_without_torch_the_remedy_is_the_extra(monkeypatch):
    """What scores and boards need is installed: that models cannot run here is a note, not a failure."""
    monkeypatch.setattr(machine_checks.importlib.util, "find_spec", lambda name: None)
    rows = checks()
    assert "threads" not in rows and rows["torch"]["state"] == "note" and "culteval[local]" in rows["torch"]["remedy"]


# ---------------------------------------------------------------- the log


def naive(model, *more, folder="runs"):
    flags = ["run", "--aligner", "naive", "--task", "general", "--model", str(model), "--limit", "1"]
    return CliRunner().invoke(cli, [*flags, "--no-compare", "--dtype", "float32", "--out", folder, *more])


def lines(folder):
    return [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_s_log_has_its_stages_times_and_end(tiny):
    result = json.loads(naive(tiny(), "--json").stdout)
    rows = lines(result["run"])
    assert [row["event"] for row in rows] == ["started", "stage", "aligned", "stage", "stage", "finished"]
    assert [row["stage"] for row in rows if row["event"] == "stage"] == ["align", "answer", "score"]
    assert {row["run"] for row in rows} == {Path(result["run"]).name} and {row["level"] for row in rows} == {"info"}
    times = [datetime.fromisoformat(row["time"]) for row in rows]
    assert times == sorted(times) and all(time.tzinfo for time in times)
    assert {"command", "host", "pid"} <= set(rows[0]) and rows[-1]["seconds"] > 0


def test_why_a_run_ended_is_in_its_log(tiny, monkeypatch):
    from culteval.harness.runs import execute as run

    def breaks(*given):
        raise ZeroDivisionError("a line\nand another")

    with monkeypatch.context() as patch:
        patch.setattr(run, "_score", breaks)
        assert isinstance(naive(tiny()).exception, ZeroDivisionError)
    (folder,) = Path("runs").iterdir()
    *_, last = lines(folder)
    assert (last["event"], last["level"], last["kind"]) == ("error", "error", "ZeroDivisionError")
    assert last["reason"] == "a line\nand another"
    assert naive(tiny()).exit_code == 0
    assert [row["event"] for row in lines(folder)][-3:] == ["started", "stage", "finished"]


def test_lines_are_json_whatever_is_in_them(tmp_path, caplog):
    folder = tmp_path / "run \u202e\n"
    folder.mkdir()
    with caplog.at_level(logging.INFO, "culteval"):
        RunLog(folder).event("generation", best=float("nan"), spent=float("inf"), text="\u2028\n\x1b[31m")
    (text,) = (folder / "log.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    row = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert (row["best"], row["spent"], row["text"]) == ("nan", "inf", "\u2028\n\x1b[31m")
    (record,) = caplog.records  # whoever embeds the package hears of it too
    assert record.event == "generation" and json.loads(JsonLine().format(record)) == row


# ---------------------------------------------------------------- how much is said


@pytest.mark.parametrize("flag", [None, "--quiet", "--verbose"])
def test_quiet_and_verbose(tiny, flag):
    done = naive(tiny(), *([flag] if flag else []))
    assert done.exit_code == 0 and "naive" in done.stdout
    said, event = "answering general", " stage stage=answer"
    assert (said in done.stderr, event in done.stderr) == (flag != "--quiet", flag == "--verbose")
    assert flag != "--quiet" or not done.stderr
    (folder,) = Path("runs").iterdir()
    for command in (["resume", str(folder)], ["score", str(folder)]):
        again = CliRunner().invoke(cli, [*command, *([flag] if flag else [])])
        assert again.exit_code == 0 and again.stdout
        assert flag != "--quiet" or not again.stderr
        assert (" scored " in again.stderr) == (flag == "--verbose" and command[0] == "score")
    assert not logging.getLogger("culteval").isEnabledFor(logging.INFO)


def test_quiet_keeps_errors(tiny):
    done = naive(tiny() / "nosuch", "-q")
    assert isinstance(done.exception, CultevalError) and done.exception.exit_code == 4
