"""The command that a submission's page names makes the same run again, whatever its settings say."""

import shlex

import pytest
from culteval.harness.cli.main import cli
from culteval.harness.cli.run import request_of
from culteval.harness.registry import spec_of, table
from culteval.harness.runs.config import assignments, budget_of
from culteval.harness.runs.plan import plan
from culteval.harness.submissions.manifest import AskedTask, Manifest
from culteval.leaderboards.submission_page import command
from culteval.tasks.reading import parse_yaml


def test_a_strangers_words_stay_words_in_the_command():
    manifest = fake_manifest(aligner="gd; rm -rf /", settings={"tokens": 10, "start": "a b"})
    words = shlex.split(command(manifest))
    assert words[:4] == ["culteval", "run", "--aligner", "gd; rm -rf /"] and "start=a b" in words
    assert words[words.index("--budget") + 1] == "10"
    cli.get_command(None, "run").make_context("run", words[2:])
    huge = {"item_forwards": 1, "survey_evaluations": 1e308}
    assert command(manifest.model_copy(update={"budget": manifest.budget.model_copy(update=huge)}))


def planned(*words):
    """The configuration of ``culteval run``, given its words."""
    return plan(request_of(cli.get_command(None, "run").make_context("run", list(words)).params))


def manifest_of(config, **model):
    """The manifest that a run of a configuration would write, all of its budget spent."""
    budget = budget_of(config)
    tasks = [AskedTask.of(spec_of(name), config.country, config.protocol(), config.options) for name in config.tasks]
    used = {"name": config.model, "revision": "r", "dtype": config.dtype, "device": config.device,
            "threads": config.threads or 0, "chat_template": None, "forward": "f"}  # fmt: skip
    return Manifest(
        tasks=tasks, model=used | model,
        aligner={"name": config.aligner, "settings": config.settings, "adapter_sha256": None},
        fitted={"tasks": config.fit, "country": config.fit_country, "scoring": config.scoring,
                "norm": config.options.norm},
        country=config.country, seed=config.seed, versions={}, command="", answers={"sha256": "0" * 64, "rows": 1},
        budget={"item_forwards_allowed": budget.total, "item_forwards": budget.total,
                "survey_evaluations": config.budget, "tokens": 0, "seconds": 0},
    )  # fmt: skip


BOARD = ["vsm13", "wvs", "culture_core", "probes", "general"]  # of leaderboards/results.yaml


@pytest.mark.parametrize("tasks", [["vsm13"], BOARD], ids=["one", "board"])
@pytest.mark.parametrize("aligner", table("aligners"))
def test_the_command_makes_the_same_run(aligner, tasks):
    asked = [word for name in tasks for word in ("--task", name)]
    config = planned(
        "--aligner", aligner, *asked, "--country", "US", "--budget", "300", "--seed", "3", "--threads", "1"
    )
    assert planned(*shlex.split(command(manifest_of(config)))[2:]) == config


@pytest.mark.parametrize(
    "words",
    [
        [
            "--task",
            "vsm13",
            "--task",
            "culture_core",
            "--country",
            "US",
            "--edition",
            "2015",
            "--device",
            "cuda:0",
            "--dtype",
            "float16",
        ],
        ["--task", "general", "--fit", "vsm13:US", "--edition", "2015"],
        ["--task", "vsm13", "--task", "general", "--edition", "extended", "--norm", "l1", "--constants", "zero"],
        ["--task", "vsm13", "--personas", "3", "--limit", "1", "--calibrate"],
        ["--task", "vsm13", "--set", "rate=0.00001", "--set", "start=noise", "--budget", "7"],
        ["--task", "vsm13", "--aligner", "icl", "--model", "openai-chat:some", "--base-url", "http://127.0.0.1:1/v1"],
    ],
)
def test_the_command_has_every_flag_of_the_run(words):
    config = planned("--aligner", "gd", *words)
    again = planned(
        *shlex.split(command(manifest_of(config)))[2:],
        *(["--base-url", config.endpoint.base_url] if config.endpoint else []),
    )
    assert again == config


@pytest.mark.parametrize(
    "value",
    [None, "None", "null", True, "yes", 1e-05, "1e-5", [], ["a, b", None, 1e-7, "c\nd"], " x ", "a\n\u2028b", ""],
)
def test_settings_are_read_back_the_same(value):
    (line,) = assignments({"key": value})
    found = parse_yaml(line.partition("=")[2], "here")
    assert found == value and type(found) is type(value) and "\n" not in line


def test_the_command_names_a_commit_and_an_adapter():
    config = planned("--aligner", "naive", "--task", "vsm13")
    words = shlex.split(command(manifest_of(config, revision="ab" * 20, adapter_sha256="cd" * 32)))
    assert words[words.index("--revision") + 1] == "ab" * 20
    assert words[words.index("--adapter") + 1] == "adapter-" + "cd" * 5
    assert not {"--revision", "--adapter"} & set(shlex.split(command(manifest_of(config))))


def fake_manifest(aligner, settings):
    return Manifest(
        tasks=[{"name": "vsm13", "hash": "0" * 64, "country": "SA", "edition": "extended"}],
        model={"name": "m", "revision": "r", "dtype": "auto", "device": "cpu", "threads": 1, "chat_template": None,
               "forward": "f"},
        aligner={"name": aligner, "settings": settings, "adapter_sha256": None},
        fitted={"tasks": ["vsm13"], "country": "SA", "scoring": "expected", "norm": "sse"}, country="SA", seed=3,
        versions={}, command="", answers={"sha256": "0" * 64, "rows": 1},
        budget={"item_forwards_allowed": 480, "item_forwards": 432, "survey_evaluations": 9, "tokens": 1, "seconds": 1},
    )  # fmt: skip
