"""The name of a run: files that decide its result without being part of its configuration are in its digest."""

import json
import shutil

import pytest
from culteval.harness import registry
from culteval.harness.registry import spec_path
from culteval.harness.runs import config as configs
from culteval.harness.runs.config import PERSONAS, RunConfig


def config_of(task="vsm13", **given):
    base = {"aligner": "naive", "settings": {}, "model": "smollm2", "fit": (task,), "fit_country": "US",
            "tasks": (task,), "country": "US", "options": {}, "scoring": "expected"}  # fmt: skip
    return RunConfig.model_validate(base | given)


def test_merged_options_are_part_of_a_run(tmp_path, monkeypatch):
    """What the file says besides, of imports, is not."""
    folder = shutil.copytree(spec_path("wvs").parent, tmp_path / "wvs")
    monkeypatch.setattr(registry, "spec_path", lambda name: folder / f"{name}.yaml")
    variants = folder / "variants.yaml"
    before, text = config_of("wvs").digest, variants.read_text()
    variants.write_text(f"{text}# a remark\n")
    assert config_of("wvs").digest == before
    variants.write_text(text.replace("  US: [Q33, ", "  US: ["))
    assert variants.read_text() != text and config_of("wvs").digest != before
    variants.unlink()
    assert config_of("wvs").digest != before


def test_the_shares_of_personas_are_part_of_a_run_that_asks_personas(tmp_path, monkeypatch):
    before = {personas: config_of(personas=personas).digest for personas in (0, 3)}
    own = tmp_path / "personas.yaml"
    own.write_text(PERSONAS.read_text() + "\n# other shares\n")
    monkeypatch.setattr(configs, "PERSONAS", own)
    assert config_of(personas=0).digest == before[0] and config_of(personas=3).digest != before[3]


@pytest.mark.parametrize(
    "fields",
    [
        {"settings": {"teacher": "{folder}"}},
        {"settings": {"writer": "lm-eval:hf,pretrained={folder}"}},
        {"model": "lm-eval:hf,dtype=float32,pretrained={folder}"},
        {"model": "lm-eval:hf,pretrained=gpt2,peft={folder}"},
    ],
)
def test_the_files_of_every_model_are_part_of_a_run(fields, tiny, tmp_path):
    folder = shutil.copytree(tiny(), tmp_path / "model")
    config = config_of(**json.loads(json.dumps(fields).replace("{folder}", str(folder))))
    before = config.digest
    (folder / "README.md").write_text("nothing that a model reads")
    assert config.digest == before
    (folder / "tokenizer_config.json").write_text("{}")
    assert config.digest != before


def test_a_gguf_file_of_a_setting_is_part_of_a_run(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF one")
    config = config_of(settings={"teacher": str(path)})
    before = config.digest
    path.write_bytes(b"GGUF two")
    assert config.digest != before


def test_a_folder_of_other_things_is_no_model_of_a_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of(settings={"name": "plain", "empty": ""})
    before = config.digest
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "notes.txt").write_text("not of a model")
    (tmp_path / "config.json").write_text("{}")
    assert config.digest == before
