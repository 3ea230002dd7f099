"""The board as pages: what a build refuses and reads anew, data that stay data, what it hands on to download."""

import json
import os
import shutil

import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_of
from culteval.harness.scoring.score import TaskCache
from culteval.harness.scoring.submission import load_submission
from culteval.harness.submissions.manifest import AskedTask
from culteval.leaderboards import entries as collect
from culteval.leaderboards.render import site

from ..board_files import adapter, data_of, write
from ..submission_files import unpacked


def test_stored_scores_are_not_believed(tmp_path):
    for name, seed in (("honest", 1), ("liar", 2)):
        scores = load_submission(write(tmp_path, name, seed=seed)).score()
        rows = [score.model_dump(mode="json") for score in scores]
        for row in rows:
            row["value"] = 0.0 if name == "liar" else row["value"]
        (tmp_path / name / "scores.json").write_text(json.dumps(rows))
    warned = []
    found = {entry.name: entry for entry in collect.entries(tmp_path, warned.append)}
    assert (found["honest"].differs, found["liar"].differs) == (
        False,
        True,
    ) and "1: submitted scores differ from recomputed ones" in warned[0]
    assert all(score.value > 0 for score in found["liar"].scores if score.metric == "loss")


BAD = {
    "nan": lambda home: (home / "scores.json").write_text('[{"task": NaN}]'),
    "not a list": lambda home: (home / "scores.json").write_text("{}"),
    "scores link": lambda home: (home / "scores.json").symlink_to("/etc/passwd"),
    "answers link": lambda home: (
        (home / "answers.jsonl.zst").unlink(), (home / "answers.jsonl.zst").symlink_to("/etc/hosts")),
    "folder link": lambda home: home.rename(home.parent.parent / "away") and home.symlink_to("/etc"),
    "infinite answer": lambda home: (unpacked(home) / "answers.jsonl").write_text(
        (unpacked(home) / "answers.jsonl").read_text().replace("0.25", "Infinity", 1)),
    "an answer too many": lambda home: (unpacked(home) / "answers.jsonl").open("a").write("{}\n"),
    "huge field": lambda home: (home / "manifest.json").write_text(
        (home / "manifest.json").read_text().replace('"command": "culteval run"', f'"command": "{"x" * 5000}"')),
    "huge manifest": lambda home: (home / "manifest.json").write_text("[" * (2 << 20)),
    "other task": lambda home: (home / "manifest.json").write_text(
        (home / "manifest.json").read_text().replace('"vsm13"', '"../../etc/passwd"')),
    "unknown hash": lambda home: (home / "manifest.json").write_text(
        (home / "manifest.json").read_text().replace(spec_of("vsm13").hash, "0" * 64)),
    "name": lambda home: home.rename(home.with_name("bad <name>")),
    "device": lambda home: ((home / "answers.jsonl.zst").unlink(), os.mkfifo(home / "answers.jsonl.zst")),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_submission_is_refused_in_a_line_and_the_rest_is_built(tmp_path, kind):
    write(tmp_path / "in", "good")
    BAD[kind](write(tmp_path / "in", "bad", seed=1))
    warned = []
    made = site.build(tmp_path / "in", tmp_path / "out", warned.append)
    assert made.submissions == 1 and len(warned) == 1, warned
    assert warned[0].startswith("left out: ") and "bad" in warned[0] and "\n" not in warned[0]
    assert {path.name for path in (tmp_path / "out" / "files").iterdir()} == {"good"}


def test_only_bad_ones_are_an_error(tmp_path):
    BAD["an answer too many"](write(tmp_path / "in", "bad"))
    with pytest.raises(InputError, match="more lines than"):
        site.build(tmp_path / "in", tmp_path / "out", print)
    with pytest.raises(InputError, match="no finished runs"):
        (tmp_path / "empty").mkdir()
        site.build(tmp_path / "empty", tmp_path / "out", print)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_written_into(tmp_path, board_folder):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not a board"):
        site.build(board_folder, tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def bytes_of(out):
    return {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_built_again_only_what_changed_is_read(tmp_path):
    """Whatever the times of files say: content decides."""
    home, out = tmp_path / "in", tmp_path / "out"
    for seed in range(3):
        write(home, f"s{seed}", seed=seed)
    assert site.build(home, out, print).renewed == 3
    before = bytes_of(out)
    os.utime(home / "s0" / "answers.jsonl.zst")
    assert site.build(home, out, print).renewed == 0 and bytes_of(out) == before
    stamp = (home / "s1" / "answers.jsonl.zst").stat()
    shutil.rmtree(home / "s1")
    write(home, "s1", seed=77)  # other answers, of the same time
    os.utime(home / "s1" / "answers.jsonl.zst", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    write(home, "s3", seed=3)
    assert site.build(home, out, print).renewed == 2
    shutil.rmtree(home / "s2")
    site.build(home, out, print)
    fresh = tmp_path / "fresh"
    site.build(home, fresh, print)
    assert bytes_of(out) == bytes_of(fresh) and not (out / "pages" / "s2.js").exists()


def test_data_in_scripts_cannot_end_them(board_pages):
    assert (
        site.script("x", ["</script>", "\u2028", "é", "&"])
        == 'culteval.x=["\\u003c/script\\u003e","\\u2028","\\u00e9","\\u0026"];\n'
    )
    with pytest.raises(ValueError):
        site.script("x", [float("nan")])
    for path in [*board_pages.glob("data/*.js"), *board_pages.glob("pages/*.js")]:
        text = path.read_bytes()
        assert text.isascii() and b"<" not in text and b"\n" not in text[:-1]
    page = data_of(board_pages / "pages" / "hostile.js", "page")
    assert "\\u202e" in page["manifest"]["command"]  # what turns the reading direction is written out


def test_nothing_points_outside(board_pages):
    for path in [*board_pages.glob("*.html"), board_pages / "assets" / "site.css"]:
        text = path.read_text(encoding="utf-8")
        assert "http" not in text.replace("http-equiv", "") and "//" not in text


def test_files_to_download_are_those_that_came(board_folder, board_pages):
    for name in ("manifest.json", "answers.jsonl.zst"):
        assert (board_pages / "files" / "hostile" / name).read_bytes() == (board_folder / "hostile" / name).read_bytes()


def test_adapters_to_download_are_what_aligners_save(board_folder, board_pages):
    names = {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/lora/adapter_model.safetensors",
    }
    there = {
        str(path.relative_to(board_pages / "files" / "de-0")) for path in (board_pages / "files" / "de-0").rglob("*.*")
    }
    assert there == names | {"manifest.json", "answers.jsonl.zst"}
    assert set(data_of(board_pages / "pages" / "de-0.js", "page")["adapter"]) == names
    assert all(
        (board_pages / "files" / "de-0" / name).read_bytes() == (board_folder / "de-0" / name).read_bytes()
        for name in names
    )
    assert data_of(board_pages / "pages" / "de-1.js", "page")["adapter"] == []


@pytest.mark.parametrize("odd", ["large", "file a link", "folder a link", "lora a link", "a folder"])
def test_adapters_of_another_kind_are_not_handed_on(tmp_path, odd):
    made = write(tmp_path / "board", "de") / "adapter"
    adapter(made.parent, "adapter_model.safetensors")
    if odd == "large":
        with (made / "adapter_model.safetensors").open("r+b") as file:
            file.truncate(collect.MOST_ADAPTER + 1)
    elif odd == "a folder":
        (made / "adapter_config.json").mkdir()
    else:
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret" / "adapter_config.json").write_text("mine")
        if odd == "folder a link":
            shutil.rmtree(made)
        link, to = {"file a link": ("adapter_config.json", "secret/adapter_config.json"),
                    "lora a link": ("lora", "secret"), "folder a link": ("", "secret")}[odd]  # fmt: skip
        (made / link).symlink_to(tmp_path / to)
    site.build(tmp_path / "board", tmp_path / "out", print)
    there = {path.name for path in (tmp_path / "out" / "files" / "de").iterdir()}
    assert there == {"manifest.json", "answers.jsonl.zst"}


def test_a_run_hands_on_its_adapter_and_another_one_when_it_changes(tmp_path):
    run = tmp_path / "runs" / "run"
    write(run, "submission")
    (run / "scores.json").write_text("[]")
    for text in ("one", "another"):
        adapter(run, "lora/adapter_config.json")
        (run / "adapter" / "lora" / "adapter_config.json").write_text(text)
        assert site.build(run.parent, tmp_path / "out", print).renewed == 1
        there = tmp_path / "out" / "files" / "run" / "adapter" / "lora" / "adapter_config.json"
        assert there.read_text() == text


def test_imported_texts_and_figures_are_not_handed_on():
    from dataclasses import replace

    from culteval.leaderboards import submission_page as detail

    shelf, spec = TaskCache(), spec_of("wvs")
    asked = AskedTask(name="wvs", hash=spec.hash, country="US")
    assert "people" in detail.items(spec, asked, shelf)[0]
    own = replace(spec, metadata=spec.metadata.model_copy(update={"imported": "official"}))
    assert detail.items(own, asked, shelf)[0]["text"] == "Q1"
    reference = spec.metadata.reference.model_copy(update={"editions": ("other",)})
    other = replace(spec, metadata=spec.metadata.model_copy(update={"reference": reference}))
    assert "people" not in detail.items(other, asked, shelf)[0]
