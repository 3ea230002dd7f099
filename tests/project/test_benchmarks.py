"""Every benchmark runs, on a tiny model and less work, and its figures are sound; how large they are is not tested."""

import importlib
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]
FIELDS = ["name", "dtype", "seconds", "seconds_peer", "ratio", "floor_share", "max_abs_diff", "note"]


@pytest.fixture
def bench(tiny, monkeypatch):
    """``bench(name, *flags, chat=..., **less)``: rows of ``python -m benchmarks``, ``less`` given to ``measure``."""
    from benchmarks.__main__ import main

    def run(name, *flags, chat=True, **less):
        module = importlib.import_module(f"benchmarks.{name}")
        with monkeypatch.context() as patch:
            patch.setattr(module, "measure", partial(module.measure, **less))
            model = str(tiny("llama", chat))
            common = ("--json", "--model", model, "--dtype", "float32", "--repeats", "1", "--threads", "1")
            result = CliRunner().invoke(main, [name, *common, *flags], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        rows = json.loads(result.stdout)
        assert rows and all(list(row) == FIELDS for row in rows)
        for row in rows:
            positive = [row[key] for key in ("seconds", "seconds_peer", "ratio", "floor_share") if row[key] is not None]
            assert row["name"] and all(value > 0 for value in positive)
            assert row["max_abs_diff"] is None or row["max_abs_diff"] < 1e-4
        return {row["name"]: row for row in rows}

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize("chat", [True, False])
def test_packing(bench, monkeypatch, chat):
    if not chat:  # processes of their own take seconds each; once is enough
        monkeypatch.setattr("benchmarks.packing.peak_of", lambda *_: 1 << 20)
    rows = bench("packing", chat=chat, population=2)
    for name in ("population 1", "population 2"):
        row = rows[name]
        assert row["max_abs_diff"] is not None and row["floor_share"] and row["seconds_peer"]
        assert row["dtype"] == "float32" and "peer batch size" in row["note"]
    assert "MiB" in rows["peak memory"]["note"] and rows["peak memory"]["seconds"] is None


def test_rounds_end_with_the_time(bench, monkeypatch):
    from benchmarks import common

    now = [0.0]
    monkeypatch.setattr(common.time, "perf_counter", lambda: now[0])

    def work():
        now[0] += 10

    # A warm-up and three rounds are 40 s; a fourth would end at 50.
    assert len(common.alternate({"work": work}, 9, seconds=45)["work"]) == 3
    assert len(common.alternate({"work": work}, 9, seconds=1)["work"]) == 1
    assert common.alternate({"work": work}, 2)["work"] == [10, 10]


def test_the_peer_reads_as_many_prompts_as_time_allows(bench, monkeypatch):
    from benchmarks import peer

    monkeypatch.setattr(peer, "loglikelihoods", lambda lm, requests: None)
    monkeypatch.setattr(peer, "wall", lambda work: 4.0)  # of two prompts
    prompts = [[object()]] * 48
    assert peer.some_prompts(None, prompts, 20) == [0, 5, 10, 15, 20, 26, 31, 36, 41, 47]
    assert len(peer.some_prompts(None, prompts, 1)) == peer.LEAST
    assert peer.some_prompts(None, prompts, float("inf")) == list(range(48))


def test_llama_cpp_is_given_each_token_once_with_its_prompts(bench):
    from culteval.harness.engine.prefix_tree import build_trees
    from culteval.harness.engine.tokenize import Encoded

    from benchmarks.llama_peer import _as_asked

    encoded = Encoded([[1, 2, 3], [1, 2, 4, 5], [1, 6]], [[[7], [8]], [[7], [8]], [[9]]])
    (tree,) = build_trees(encoded, 100)
    asked = _as_asked(tree, encoded)
    by_token = dict(zip(asked["tokens"], zip(asked["depth"], asked["prompts"], strict=True), strict=True))
    assert by_token == {1: (0, [0, 1, 2]), 2: (1, [0, 1]), 3: (2, [0]), 4: (2, [1]), 5: (3, [1]), 6: (1, [2])}
    assert [asked["tokens"][leaf] for leaf in asked["leaves"]] == [3, 5, 6]
    assert asked["options"] == [[7, 8], [7, 8], [9]]


def test_fewshot(bench):
    (row,) = bench("fewshot", chat=False, questions=6).values()
    assert row["max_abs_diff"] is not None and row["seconds_peer"]


def test_fewshot_questions_are_like_one_another_and_seeded(bench):
    from benchmarks.fewshot import contexts

    made = contexts(30)
    assert made == contexts(30) and len(set(made)) == 30
    assert len({text.rpartition("\n\n")[0] for text in made}) == 1  # the shots
    assert all(text.count("Answer:") == 6 and text.endswith("Answer:") for text in made)


def test_racing(bench):
    rows = bench("racing", evaluations=24, population=4)
    assert list(rows) == ["raced", "not raced"]
    assert all(row["seconds_peer"] and "candidates with" in row["note"] for row in rows.values())
    assert "read 100% of their items" in rows["not raced"]["note"]


def test_dialogues(bench):
    rows = bench("dialogues", scenarios=2, alone=1, turns=2, words=4)
    assert list(rows) == ["clock", "processors", "reading"]
    assert all(row["seconds_peer"] and "together" in row["note"] for row in rows.values())
    assert "4 dialogues" in rows["clock"]["note"] and "read as a whole" in rows["reading"]["note"]
    rows = bench("dialogues", "--minutes", "0.1", scenarios=2, alone=1, turns=2, words=4)
    assert rows["clock"]["seconds_peer"]


def test_dialogues_are_as_many_as_the_time_allows():
    from benchmarks.dialogues import fitting

    assert fitting(1, 40, 1000, alone=3) == 40
    assert fitting(6, 40, 198, alone=3) == 15  # 18 s alone, 90 together, 90 with chats read as a whole
    assert fitting(6, 40, 1, alone=3) == 2


@pytest.mark.slow
def test_engines(bench):
    rows = bench("engines", budget=4, countries=("SA",))
    assert list(rows) == ["clock", "processors"]
    assert all(row["seconds_peer"] and row["ratio"] for row in rows.values())
    assert "2 runs, 2 workers; answers equal" in rows["processors"]["note"]
    assert "ray starts and ends in" in rows["clock"]["note"]


def test_gpu_runs_where_there_is_none(bench, tiny):
    from transformers import AutoConfig, AutoTokenizer

    def make(settings, dtype):
        from benchmarks.gpu import from_config

        folder = tiny("llama", True)
        return from_config(AutoConfig.from_pretrained(folder), settings, dtype), AutoTokenizer.from_pretrained(folder)

    rows = bench("gpu", models={"tiny": make}, virtual=(3,), populations=(1, 2))
    assert list(rows) == ["tiny, T 3, population 1", "tiny, T 3, population 2"]
    assert all(row["max_abs_diff"] is not None and "operations/s" in row["note"] for row in rows.values())


def test_gpu_needs_one_for_its_own_models(bench):
    from culteval.errors import UsageError

    from benchmarks.common import Settings
    from benchmarks.gpu import measure

    with pytest.raises(UsageError, match=r"device.* cuda"):
        measure(Settings())


def test_scaling(bench, tmp_path):
    sizes = {"items": (3, 6), "paraphrases": (1, 2), "personas": (1, 2), "population": (1, 2)}
    sizes |= {"soft tokens": (0, 1, 10), "width": (32, 64)}
    rows = bench("scaling", "--out", str(tmp_path / "scaling.svg"), sizes=sizes)
    for factor, values in sizes.items():
        assert all(rows[f"{factor} {value}"]["seconds"] for value in values)
        float(rows[f"{factor} exponent"]["note"])
    assert "</svg>" in (tmp_path / "scaling.svg").read_text(encoding="utf-8")


def test_exponent(bench):
    from benchmarks.scaling import exponent

    assert exponent({0: 9.0, 1: 3.0, 2: 12.0, 4: 48.0}) == pytest.approx(2)


def test_startup(bench):
    rows = bench("startup", commands=("--help", "ls aligners"))
    assert [row["note"] for row in rows.values()] == ["torch is not loaded"] * 2
    assert all(row["floor_share"] < 1 for row in rows.values())


def test_map(bench):
    rows = bench("map")
    assert list(rows) == ["map.png", "map.svg"] and all(row["seconds"] > 0 for row in rows.values())


def test_memory_is_that_of_the_call_alone(bench):
    """Not what this process holds, which the operating system's own counter would start from."""
    from benchmarks.common import peak_of

    here = bytearray(b"1") * (1 << 30)
    assert peak_of(bytearray, 1) < len(here)
    assert peak_of(bytearray, 1) + (200 << 20) < peak_of(bytes.__mul__, b"1", 300 << 20)


def test_wrong_usage_is_told(bench):
    from benchmarks.__main__ import main

    for flags, text in (
        (["nosuch"], "packing"),
        (["startup", "--out", "x.svg"], "--out goes with scaling"),
        (["packing", "--gguf", __file__], "--llama and --gguf go together"),
        (["racing", "--gguf", __file__, "--llama", __file__], "with packing"),
    ):
        result = CliRunner().invoke(main, flags)
        assert result.exit_code == 2 and text in result.output
    result = CliRunner().invoke(main, ["packing", "--model", "/no/such/folder", "--dtype", "float32"])
    assert result.exit_code == 4 and "/no/such/folder" in result.output


def test_arms_of_the_study_are_told_apart_by_their_settings():
    from culteval.harness.runs.config import aligner_settings
    from culteval.harness.submissions.manifest import UsedAligner

    from benchmarks.aligners import label_of

    def label(*given):
        settings = aligner_settings("de", given).model_dump(mode="json")
        return label_of(UsedAligner(name="de", settings=settings, adapter_sha256=None))

    assert label() == label("population=20") == "de"
    assert label("space=full", "sigma=1") == "de (space=full, sigma=1.0)"
