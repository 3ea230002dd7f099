"""``culteval reproduce clca`` on a tiny model: its tables against stored answers and dialogues, and refusals."""

import json
from subprocess import CompletedProcess

import pytest
from click.testing import CliRunner
from culteval.errors import RunError, UsageError
from culteval.leaderboards.reproduction import clca_study
from culteval.leaderboards.reproduction.clca_published import metrics_table
from culteval.leaderboards.reproduction.clca_study import ARMS, NAIVE, PUBLISHED, WHOLE
from culteval.leaderboards.reproduction.commands import reproduce
from culteval.optimizers.clca.commands import planned

from ..optimizers.clca.test_command import flags


def reproduced(*words):
    done = CliRunner().invoke(reproduce, ["clca", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A study of one country trained much harder than published, without the embeddings: words, folder, JSON."""
    out = tmp_path_factory.mktemp("clca") / "study"
    words = [*flags(tiny(), out), "--set", "scenarios=1", "--set", "turns=2", "--personas", 2]
    words += [part for arm in ARMS[2:-1] for part in ("--arm", arm.name)]
    return words, out, json.loads(reproduced(*words, "--json").stdout)


def test_arms_verdicts_and_settings_are_kept(made):
    _, out, told = made
    found = json.loads((out / "clca.json").read_text())
    assert told["rows"] == found["rows"] and told["personas"] == found["personas"] == 2
    own = {"alpha": 8.0, "rate": 0.01, "epochs": 2, "batch": 2, "scenarios": 1, "turns": 2}
    assert found["settings"] | own == found["settings"]
    assert [row["arm"] for row in found["rows"]] == ["naive", *(arm.name for arm in ARMS[:-1])]
    assert all(("adapter size" in row) == (row["arm"] != "naive") for row in found["rows"])
    text = (out / "clca.md").read_text()
    assert text.startswith("# Liu et al.") and all(f"| {arm.name} |" in text for arm in ARMS[:-1])
    assert "- Settings: preset laptop" in text and "rate 0.01" in text and "US: kl\\_probs: the whole " in text


def test_published_lora_is_the_whole_with_its_rate_and_alpha(made):
    _, out, _ = made
    folders = [out / "US" / name for name in ("whole", "published-LoRA")]
    whole, own = (json.loads((folder / "lora" / "adapter_config.json").read_text()) for folder in folders)
    assert (whole["lora_alpha"], own["lora_alpha"]) == (8, 0.1) and whole["r"] == own["r"] == 4
    assert len({(folder / "dialogues.jsonl").read_bytes() for folder in folders}) == 1


def test_the_dialogues_table_counts_the_files(made):
    _, out, told = made
    (found,) = [each for each in told["tables"] if each["table"] == "dialogues"]
    whole = [json.loads(line) for line in (out / "US" / "whole" / "dialogues.jsonl").read_text().splitlines()]
    decisions = [json.loads(line) for line in (out / "US" / "whole" / "decisions.jsonl").read_text().splitlines()]
    names = {each["id"] for each in decisions if each["kept"]}
    kept = [each for each in whole if each["episode_id"] in names]
    row, published = found["rows"]
    assert (row["country"], row["dialogues"], row["kept"]) == ("US", len(whole), len(kept))
    turns = [each["social_interactions"].split("\n\n") for each in kept]
    assert row["turns"] == pytest.approx(sum(map(len, turns)) / len(turns))
    lines = [line.partition('said: "')[2].removesuffix('"') for each in turns for line in each if 'said: "' in line]
    assert row["words a turn"] == pytest.approx(sum(len(line.split()) for line in lines) / len(lines))
    assert published["kept"] == "69 to 143" and published["turns"] == "5.4 to 7.0"


def test_the_quality_table_counts_the_files(made):
    _, out, told = made
    (found,) = [each for each in told["tables"] if each["table"] == "quality"]
    (row,) = found["rows"]
    folder = out / "US" / "whole"
    played = [json.loads(line) for line in (folder / "playing.jsonl").read_text().splitlines()]
    again, turns = sum(each["malformed"] for each in played), [turn for each in played for turn in each["turns"]]
    asked = [turn for turn in turns if turn["kind"] != "leave"]  # departures are drawn
    assert row["answers"] == again + len(asked) and row["malformed"] == again / row["answers"]
    whole = [each for each in played if each["ended"] != "malformed"]
    spoken = [[turn for turn in each["turns"] if turn["kind"] == "speak"] for each in whole]
    assert row["spoken turns"] == sum(map(len, spoken)) / sum(len(each["turns"]) for each in whole)
    assert row["both speak"] == sum(len({turn["speaker"] for turn in each}) == 2 for each in spoken) / len(whole)
    assert 0 <= row["repeated words"] < 1 and 0 <= row["country named"] <= 1 and 0 <= row["other language"] <= 1
    assert "## Quality of the dialogues" in (out / "clca.md").read_text()


def test_a_page_shows_dialogues_and_what_the_filter_said(made):
    out = made[1]
    text = (out / "dialogues.md").read_text()
    whole = [json.loads(line) for line in (out / "US" / "whole" / "dialogues.jsonl").read_text().splitlines()]
    shown = [each for each in whole if f"### {each['episode_id']}".replace("_", "\\_") in text]
    assert text.startswith("# Dialogues") and "## United States" in text
    assert len(shown) == min(len(whole), 3) == text.count("\nThe filter: ")
    assert all("<" not in line.replace("&lt;", "") for line in text.splitlines())


def test_the_metrics_table_has_the_published_figures_beside_the_study_s(made):
    told = made[2]
    (found,) = [each for each in told["tables"] if each["table"] == "metrics"]
    metrics = {row["arm"]: row["metrics"] for row in told["rows"]}
    cell = {(row["metric"], row["method"]): row for row in found["rows"]}
    released = cell["KL as released", "no training"], cell["KL as released", "CLCA, LoRA as published"]
    assert [row["US"] for row in released] == [metrics[arm]["kl_clca"] for arm in (NAIVE, PUBLISHED)]
    assert [row["Qwen2.5-0.5B, published"] for row in released] == [0.5748, 0.5317]
    assert [row["Llama-3.1-8B, published"] for row in released] == [0.6011, 0.5112]
    assert cell["accuracy", "CLCA, LoRA as published"]["Llama-3.1-8B, published"] == 0.3973
    assert cell["JS", "no training"]["Llama-3.1-8B, published"] == 0.5134
    ours = cell["KL as released", "CLCA, LoRA that learns"]
    assert ours["US"] == metrics[WHOLE]["kl_clca"] and ours["Qwen2.5-0.5B, published"] is None, "other settings"
    assert cell["KL", "CLCA, LoRA as published"]["Qwen2.5-0.5B, published"] is None


def test_means_and_countries_clearly_below_the_control():
    def row(arm, code, value, difference=0.0, error=0.0):
        change = [{"metric": "kl", "difference": difference, "standard_error": error}]
        names = ("kl_clca", "kl", "js", "accuracy", "general")
        return {"arm": arm, "country": code, "metrics": dict.fromkeys(names, value), "from_control": change}

    rows = [row(NAIVE, "US", 1.0), row(NAIVE, "CN", 3.0)]
    rows += [row(WHOLE, "US", 0.5, -0.2, 0.1), row(WHOLE, "CN", 0.5, -0.19, 0.1), row(WHOLE, "DE", 0.8, 0.3, 0.1)]
    found = metrics_table(rows, ("US", "CN", "DE"))
    naive, _, whole = found.rows[:3]
    assert (naive["US"], naive["CN"], naive["DE"], naive["mean"]) == (1.0, 3.0, None, None)
    assert whole["mean"] == pytest.approx((0.5 + 0.5 + 0.8) / 3)
    assert found.notes[1].endswith("in kl or js: US; 1 of 3.")


def test_the_same_command_resumes_and_other_settings_are_refused(made):
    words, out, _ = made
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    shown = reproduced(*words)
    assert shown.returncode == 0 and shown.stdout.startswith((out / "clca.md").read_text())
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    with pytest.raises(RunError, match=r"\(setting rate differ\)"):
        reproduced(*words, "--set", "rate=0.0002")


def test_other_settings_in_its_folder_are_refused(tiny, tmp_path):
    base = ["--country", "US", "--model", tiny(), "--out", tmp_path / "study"]
    (tmp_path / "study").mkdir()
    given = {"country": "US", "model": str(tiny()), "assignments": ("scenarios=64", "rate=0.004", "alpha=16")}
    config = planned(given).model_dump(mode="json")
    clca_study.require_same_study(tmp_path / "study" / "config.json", {"personas": 6} | config)
    with pytest.raises(RunError, match=r"\(personas, setting turns differ\)"):
        reproduced(*base, "--personas", 7, "--set", "turns=3")
    with pytest.raises(UsageError, match="not in wave 7"):
        reproduced("--country", "SA", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_study_takes_other_prices_and_no_other_endpoint(tmp_path, monkeypatch):
    def dumped(**api):
        given = {"country": "US", "assignments": ("teacher=openai-chat:tiny",)}
        return planned(given | api).model_dump(mode="json")

    monkeypatch.setenv("OPENAI_API_KEY", "sk-abcdefghijklmnop")
    clca_study.require_same_study(tmp_path / "config.json", dumped())
    clca_study.require_same_study(tmp_path / "config.json", dumped(endpoint=("price_in=2.0", "concurrency=3")))
    with pytest.raises(RunError, match=r"\(base_url differ\)"):
        clca_study.require_same_study(tmp_path / "config.json", dumped(base_url="http://localhost:8000/v1"))


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["parts=[dialogue]"], "--set parts: then the arm 'dialogue only' is the whole"),
        (["unrelated=true"], "--set unrelated: then the arm 'unrelated text' is the whole"),
        (["checks=[]", "judge=false"], "--set checks: then the arm 'no filter' is the whole"),
        (["rate=1e-4", "alpha=0.1"], "--set rate: then the arm 'published LoRA' is the whole"),
    ],
)
def test_what_an_arm_sets_itself_is_refused(tmp_path, sets, told):
    given = [part for one in sets for part in ("--set", one)]
    with pytest.raises(UsageError) as caught:
        reproduced("--country", "US", *given, "--out", tmp_path / "new")
    assert told in str(caught.value) and not (tmp_path / "new").exists()


def test_the_teacher_is_a_setting(tmp_path, tiny):
    (tmp_path / "study").mkdir()
    given = {"country": "US", "model": str(tiny())}
    given["assignments"] = ("scenarios=64", "rate=0.004", "alpha=16", f"teacher={tiny()}")
    config = planned(given).model_dump(mode="json") | {"personas": 200}
    clca_study.require_same_study(tmp_path / "study" / "config.json", config)
    with pytest.raises(RunError, match=r"\(setting teacher differ\)"):
        reproduced("--country", "US", "--model", tiny(), "--out", tmp_path / "study", "--teacher", "qwen2.5-coder-1.5b")
