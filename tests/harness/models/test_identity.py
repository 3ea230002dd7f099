"""Which model answered: commits of the hub, hashes of files, what is no model, what is published."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from culteval.errors import UnavailableError, UsageError
from culteval.harness.model_info import ModelInfo
from culteval.harness.models.load import load_model
from culteval.harness.runs.config import RunConfig
from culteval.leaderboards.publish import without_places
from culteval.leaderboards.submission_page import _model_flags
from culteval.tasks.chat_options import ChatOptions

from ...leaderboards.test_check import culteval

COMMIT = "a" * 40
BASE = ["run", "--task", "vsm13", "--country", "US", "--dtype", "float32", "--threads", 1, "--no-compare", "--limit", 1]


def loaded(place, notes=None):
    return load_model(str(place), dtype="float32", threads=1, notify=[].append if notes is None else notes.append)


@pytest.fixture(scope="module")
def hub(tiny, tmp_path_factory):
    """A hub's cache with a tiny model as me/base; main is one commit further than ``COMMIT``."""
    home = tmp_path_factory.mktemp("hub")
    base = home / "hub" / "models--me--base"
    for commit, end in ((COMMIT, ""), ("b" * 40, "\n")):
        shutil.copytree(tiny(), base / "snapshots" / commit)
        config = base / "snapshots" / commit / "config.json"
        config.write_text(config.read_text() + end)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("b" * 40)
    return home


def on_the_hub(hub, *arguments):
    """A command in a process of its own: the hub's folder is read from the environment once."""
    program = "import sys; from culteval.harness.cli.main import main; sys.exit(main())"
    kept = {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1", "CULTEVAL_CACHE": str(hub / "cache"), "CULTEVAL_NO_CACHE": ""}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_hub_model_s_commit_is_recorded_and_its_answers_are_known_again(hub, tmp_path):
    flags = [*BASE, "--model", "me/base", "--aligner", "naive", "--json"]
    found = []
    for number, revision in enumerate([["--revision", COMMIT], ["--revision", COMMIT], []]):
        told = on_the_hub(hub, *flags, *revision, "--out", tmp_path / str(number))
        manifest = json.loads((Path(told["submission"]) / "manifest.json").read_text())
        found.append((manifest["model"]["revision"], told["cached"]))
    assert found == [(COMMIT, []), (COMMIT, ["vsm13"]), ("b" * 40, [])]
    flags = _model_flags(ModelInfo.model_validate(manifest["model"]))
    assert flags[flags.index("--revision") + 1] == "b" * 40


def test_weights_of_torch_count(tiny, tmp_path):
    from transformers import AutoModelForCausalLM

    revisions = []
    for seed in (0, 1):
        folder = shutil.copytree(tiny(), tmp_path / str(seed))
        torch.manual_seed(seed)
        state = {
            k: v + torch.randn_like(v) for k, v in AutoModelForCausalLM.from_pretrained(folder).state_dict().items()
        }
        torch.save(state, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        model = loaded(folder)
        revisions.append((model.info.revision, model.info.content_sha256))
    assert revisions[0][0] != revisions[1][0] and revisions[0][1] != revisions[1][1]


def test_revision_is_a_hash_of_configuration_and_weights_and_content_of_all(tiny, tmp_path):
    folder = shutil.copytree(tiny(), tmp_path / "model")
    first = loaded(folder).info
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update(name.encode() + hashlib.sha256((folder / name).read_bytes()).digest())
    assert first.revision == digest.hexdigest()[:16]
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "!")
    second = loaded(folder).info
    assert second.revision == first.revision and second.content_sha256 != first.content_sha256


# ---------------------------------------------------------------- what is no model


def refusal(place):
    with pytest.raises(UnavailableError) as raised:
        loaded(place)
    return str(raised.value)


def test_a_gguf_file_is_named_with_a_way_to_use_it(tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF" + bytes(20))
    said = refusal(tmp_path / "small.gguf")
    assert "a GGUF file" in said and "llama-server -m small.gguf" in said and "`base_url`" in said


def test_names_that_no_submission_could_hold_are_refused_at_once(tiny, tmp_path):
    folder = tmp_path / ("a" * 150) / ("b" * 100)
    shutil.copytree(tiny(), folder)
    with pytest.raises(UsageError, match="200 printable characters at most"):
        loaded(folder)


def test_a_folder_has_no_revisions(tiny):
    with pytest.raises(UsageError, match=r"`revision` v1: .* is a folder"):
        load_model(str(tiny()), dtype="float32", revision="v1", threads=1, notify=print)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_a_model_is_told_its_folder(tiny, name):
    assert f"`model` {tiny()}" in refusal(tiny() / name)


def test_any_other_file_is_not_a_model(tmp_path):
    (tmp_path / "model.zip").write_bytes(b"PK\3\4")
    assert "a file, not a model's folder" in refusal(tmp_path / "model.zip")


@pytest.mark.parametrize(
    "method, package, fields",
    [
        ("bitsandbytes", "bitsandbytes", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
        ("gptq", "gptqmodel", {"bits": 4, "group_size": 128, "desc_act": False}),
        ("awq", "gptqmodel", {"bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}),
        ("compressed-tensors", "compressed-tensors", {"format": "pack-quantized", "config_groups": {}}),
        ("hqq", "hqq", {"quant_config": {}}),
    ],
)
def test_a_quantised_folder_names_the_package_that_it_needs(tiny, tmp_path, method, package, fields):
    folder = shutil.copytree(tiny(), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": method, **fields}})
    )
    said = refusal(folder)
    assert f"quantised by {method}" in said and f"pip install {package}" in said


def test_a_configuration_that_transformers_cannot_read_is_one_message(tiny, tmp_path):
    folder = shutil.copytree(tiny(), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for change in ({"hidden_size": "many"}, {"model_type": "nothing_known"}, {"num_attention_heads": 0}):
        (folder / "config.json").write_text(json.dumps(config | change))
        assert "folder holds no usable model" in refusal(folder)


def test_a_model_without_fused_attention_takes_eager_and_says_so(tmp_path):
    from ...architectures import make
    from ...conftest import _tokenizer

    notes = []
    assert loaded(make("gemma2", _tokenizer(True), tmp_path), notes).info.forward == "packed"
    assert any("eager attention" in note for note in notes)


def test_layers_with_embeddings_of_their_own_take_no_soft_prompt(tmp_path):
    from ...architectures import make
    from ...conftest import _tokenizer

    make("gemma4_text", _tokenizer(True), tmp_path / "model")
    flags = [*BASE, "--model", tmp_path / "model", "--out", tmp_path / "runs", "--aligner"]
    code, _, error = culteval(*flags, "de", "--budget", 6)
    assert code == 2 and "a soft prompt has no tokens" in error and not (tmp_path / "runs").exists()
    assert culteval(*flags, "icl")[0] == 0


# ---------------------------------------------------------------- a run's chat


def config_of(**chat):
    base = {"aligner": "naive", "settings": {}, "model": "smollm2", "fit": ("vsm13",), "fit_country": "US",
            "tasks": ("vsm13",), "country": "US", "options": {}, "scoring": "expected"}  # fmt: skip
    return RunConfig.model_validate(base | ({"chat": chat} if chat else {}))


def test_what_is_said_around_prompts_is_part_of_a_run_s_name():
    names = {
        config_of(**chat).digest for chat in ({}, {"system": "Be brief."}, {"arguments": {"a": 1}}, {"template": ""})
    }
    assert len(names) == 4


def test_the_flags_of_a_chat_reach_the_model_and_the_page(tiny, tmp_path):
    template = tmp_path / "own.jinja"
    template.write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {{ mood }}\n{% endfor %}assistant:")
    flags = ["--chat", "system=Be brief.", "--chat", f"template={template}", "--chat", "mood=calm"]
    run = [*BASE, "--aligner", "naive", "--model", tiny(), "--out", tmp_path / "runs", "--json"]
    code, out, error = culteval(*run, *flags)
    assert code == 0, error
    manifest = json.loads((Path(json.loads(out)["submission"]) / "manifest.json").read_text())
    expected = {"system": "Be brief.", "template": template.read_text(), "arguments": {"mood": "calm"}}
    assert manifest["model"]["chat"] == ChatOptions(**expected).model_dump(mode="json")
    shown = _model_flags(ModelInfo.model_validate(manifest["model"]))
    assert shown[shown.index("--chat") :] == [
        "--chat", "system=Be brief.", "--chat", "template=template.jinja", "--chat", "mood=calm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--chat", "mood"], "expected key=value"),
        (["--chat", "moood=1"], "does not read it"),
        (["--chat", "template=nowhere.jinja"], "nowhere.jinja"),
        (["--chat", "template=none", "--chat", "system=Be brief."], "no chat template"),
    ],
)
def test_flags_of_a_chat_that_cannot_be_followed(tiny, tmp_path, flags, said):
    run = [*BASE, "--aligner", "naive", "--model", tiny(), "--out", tmp_path / "runs"]
    code, _, error = culteval(*run, *flags)
    assert code in (2, 3) and said in error and not (tmp_path / "runs").exists()


def test_an_endpoint_takes_no_flags_of_a_chat(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    run = [*BASE[:5], "--aligner", "naive", "--model", "openai-chat:m", "--out", tmp_path / "runs"]
    code, _, error = culteval(*run, "--chat", "system=Be brief.")
    assert code == 2 and "--chat" in error


# ---------------------------------------------------------------- what is published


def test_a_published_entry_names_no_folder_of_this_machine(tiny, tmp_path):
    dialogues = tmp_path / "private" / "dialogues.jsonl"
    flags = [*BASE, "--model", tiny(), "--aligner", "random", "--set", "tokens=2", "--budget", 6]
    assert culteval(*flags, "--out", tmp_path / "runs")[0] == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert culteval("leaderboard", "add", run, "--to", tmp_path / "board")[0] == 0
    (entry,) = (path for path in (tmp_path / "board").iterdir() if path.is_dir())
    for path in entry.rglob("*.json"):
        assert str(tiny().parent) not in path.read_text() and str(tmp_path) not in path.read_text(), path.name
    assert json.loads((entry / "manifest.json").read_text())["model"]["name"] == tiny().name
    assert culteval("leaderboard", "check", tmp_path / "board")[0] == 0
    manifest = json.loads((entry / "manifest.json").read_text())
    manifest["aligner"]["settings"] = {"dialogues": str(dialogues), "texts": ["../a/b.txt", "Yes/no"]}
    manifest["command"] = f"culteval run --model /data/{COMMIT} --set dialogues={dialogues} --model Qwen/Qwen3-4B"
    from culteval.harness.submissions.manifest import Manifest

    clean = without_places(Manifest.model_validate(manifest))
    assert clean.aligner.settings == {"dialogues": "dialogues.jsonl", "texts": ["b.txt", "Yes/no"]}
    assert clean.command == f"culteval run --model {COMMIT} --set dialogues=dialogues.jsonl --model Qwen/Qwen3-4B"
    (entry / "manifest.json").write_text(json.dumps(manifest))
    code, out, _ = culteval("leaderboard", "check", tmp_path / "board")
    assert code == 3 and "contains local paths" in out


def test_a_model_of_which_nobody_knows_the_revision_is_not_asked_again(tiny, tmp_path):
    assert culteval(*BASE, "--aligner", "naive", "--model", tiny(), "--out", tmp_path / "runs")[0] == 0
    (run,) = (tmp_path / "runs").iterdir()
    culteval("leaderboard", "add", run, "--to", tmp_path / "board")
    (entry,) = (path for path in (tmp_path / "board").iterdir() if path.is_dir())
    manifest = json.loads((entry / "manifest.json").read_text())
    manifest["model"]["revision"] = "unknown"
    (entry / "manifest.json").write_text(json.dumps(manifest))
    _, _, error = culteval("leaderboard", "verify", tmp_path / "board", "--model", tiny())
    assert "has no revision of" in error


def test_verify_says_the_date_that_the_template_was_told(tiny, tmp_path):
    """The template tells the date; the entry was made under another one than the usual."""
    folder = shutil.copytree(tiny(), tmp_path / "model")
    template = folder / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %B %Y') }}\n" + template.read_text())
    outs = []
    for out in ("one", "two"):
        assert culteval(*BASE, "--aligner", "naive", "--model", folder, "--out", tmp_path / out)[0] == 0
        (run,) = (tmp_path / out).iterdir()
        outs.append((run / "submission" / "answers.jsonl.zst").read_bytes())
    assert outs[0] == outs[1]
    manifest = json.loads((run / "submission" / "manifest.json").read_text())
    assert manifest["model"]["chat"]["date"] == "2025-01-01"
    culteval("leaderboard", "add", run, "--to", tmp_path / "board")
    code, out, error = culteval("leaderboard", "verify", tmp_path / "board", "--model", folder)
    assert code == 0 and "matches" in out and "error 0.0000" in out, error
