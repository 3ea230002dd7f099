"""Answers kept between runs: keyed on all that decides them, never believed when damaged, safe for many processes."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from culteval.errors import CultevalError
from culteval.harness.models import fingerprint as hashes
from culteval.harness.models.aligned import AlignedModel, adapter_hash
from culteval.harness.registry import spec_of
from culteval.harness.runs import answer_cache, execute
from culteval.harness.runs.answer_cache import AnswerCache, key_of
from culteval.tasks.answers import Answers
from culteval.tasks.prompts import ProtocolOptions, render_protocol

from ...command import invoked


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The cache folder of this test; and caching, which other tests switch off."""
    monkeypatch.setenv("CULTEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CULTEVAL_NO_CACHE")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "answers"


@pytest.fixture(scope="module")
def prompts():
    return render_protocol(spec_of("general"), ProtocolOptions(limit=1))


def culteval(*words):
    done = invoked(*words)
    return done


def run(model, out, *more, aligner="naive", tasks=("general",)):
    flags = [flag for task in tasks for flag in ("--task", task)]
    flags += ["--aligner", aligner, "--model", model, "--dtype", "float32", "--threads", 1, "--limit", 1]
    flags += ["--budget", 4, "--no-compare", "--json", "--out", out]
    return json.loads(culteval("run", *flags, *more).stdout)


def answers_in(result):
    return (Path(result["submission"]) / "answers.jsonl.zst").read_bytes()


def some(layout, seed=0, texts=False):
    """Answers made up, of the right shape."""
    rng = np.random.default_rng(seed)
    probs = rng.random((1, *layout.codes.shape))
    said = tuple(f"é {i}\n" for i in range(len(layout))) if texts else None
    return Answers(layout, probs, rng.random((1, len(layout))), said, np.arange(len(layout)) if texts else None)


def same(one, other):
    return (
        one.probs.tobytes() == other.probs.tobytes()
        and one.off_options.tobytes() == other.off_options.tobytes()
        and one.texts == other.texts
        and (one.parsed is None) == (other.parsed is None)
        and (one.parsed is None or one.parsed.tolist() == other.parsed.tolist())
    )


# ---------------------------------------------------------------- who shares with whom


def test_runs_share_answers_but_two_aligners_never_do(tiny, place):
    """The same bytes with and without, for the bare model, a text and a soft prompt."""
    model, bytes_of = tiny(), {}
    for aligner in ("naive", "icl", "random"):
        fresh = run(model, "never", "--no-cache", aligner=aligner)
        assert fresh["cached"] == []
        bytes_of[aligner] = answers_in(fresh)
    assert not place.exists() and len(set(bytes_of.values())) == 3
    for folder, known in (("first", []), ("second", ["general"])):
        for aligner, expected in bytes_of.items():
            result = run(model, folder, aligner=aligner)
            assert result["cached"] == known and not result["reused"]
            assert answers_in(result) == expected
    assert len(list(place.glob("*.answers"))) == 3
    log = [json.loads(line) for line in (Path(result["run"]) / "log.jsonl").read_text().splitlines()]
    assert log[-1]["event"] == "finished" and log[-1]["cached"] == ["general"]
    again = run(model, "third", "--country", "DE")
    assert again["cached"] == ["general"] and answers_in(again) == bytes_of["naive"]  # the bare model has no country
    assert run(model, "third", "--country", "DE", "--fresh")["cached"] == []


def test_generated_answers_are_kept_too_and_it_is_said(tiny):
    flags = ("--aligner", "naive", "--task", "probes", "--model", tiny(), "--dtype", "float32", "--no-compare")
    for folder, known in (("a", False), ("b", True)):
        told = culteval("run", *flags, "--out", folder).stderr
        assert ("answers to probes were known from another run" in told) == known
    files = [next(Path(folder).glob("*/submission/answers.jsonl.zst")) for folder in "ab"]
    one, other = (pyarrow.input_stream(str(file), compression="zstd").read() for file in files)
    assert one == other and b'"text"' in one


def lora(folder, alpha):
    """A folder as an adapter has it; only its hash matters here."""
    (folder / "lora").mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": alpha, "target_modules": ["q_proj"]}
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(config))
    (folder / "lora" / "adapter_model.safetensors").write_bytes(b"same")
    return folder


def test_everything_that_decides_an_answer_is_in_its_key(load, prompts, tmp_path, monkeypatch):
    model = load()
    soft = np.zeros((1, 2, model.dim), dtype=np.float32)
    nudged = soft.copy()
    nudged[0, 1, 3] = np.float32(1e-45)  # the smallest there is
    adapters = [None]
    for number, aligned in enumerate(
        [AlignedModel(model, soft), AlignedModel(model, nudged), AlignedModel(model, soft[:, :1]),
         AlignedModel(model, preamble="a"), AlignedModel(model, preamble="b"), AlignedModel(model, soft, "a")]
    ):  # fmt: skip
        aligned.save(tmp_path / str(number))
        adapters.append(adapter_hash(tmp_path / str(number)))
    adapters += [adapter_hash(lora(tmp_path / f"alpha {alpha}", alpha)) for alpha in (1, 2)]
    bare = AlignedModel(model)

    def key(adapter=None, asked=prompts, most=0):
        return key_of(bare, adapter, asked, most)

    keys = [key(adapter) for adapter in adapters]
    keys += [key(most=8), key(most=9), key(asked=prompts.take(np.arange(len(prompts))[::-1]))]
    keys += [key(asked=prompts.take(np.arange(len(prompts) - 1)))]
    for name in ("dtype", "device", "threads", "revision", "chat_template", "forward"):
        other = 7 if name == "threads" else "other"
        with monkeypatch.context() as patch:
            patch.setattr(answer_cache, "_machine", lambda device: ["this"])
            base = key()
            patch.setattr(model, "info", model.info.model_copy(update={name: other}))
            assert key() != base
            keys.append(key())
    for target, name, value in (
        (model, "info", model.info.model_copy(update={"content_sha256": "other"})),
        (answer_cache, "_machine", lambda device: ["another processor"]),
        (answer_cache, "software", lambda: (answer_cache.versions(), "another commit")),
        (answer_cache, "software", lambda: ({"torch": "0"}, answer_cache._code())),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            keys.append(key())
    assert len(set(keys)) == len(keys) == 23 and keys[0] == key()
    with monkeypatch.context() as patch:  # a name decides nothing: the same folder elsewhere
        patch.setattr(model, "info", model.info.model_copy(update={"name": "moved"}))
        assert key() == keys[0]
        patch.setattr(model, "info", model.info.model_copy(update={"content_sha256": None}))
        assert key() is None


def test_what_is_upgraded_during_a_run_is_not_in_its_key(tiny, place, monkeypatch):
    """Answers come from what was loaded when the run began."""
    run(tiny(), "a")
    answer_cache.software.cache_clear()
    align = execute._align

    def with_an_upgrade(*given):
        monkeypatch.setattr(answer_cache, "versions", lambda: {"torch": "0"})
        monkeypatch.setattr(answer_cache, "_code", lambda: "another commit")
        align(*given)

    monkeypatch.setattr(execute, "_align", with_an_upgrade)
    assert run(tiny(), "b")["cached"] == ["general"]


def test_a_model_that_nobody_can_tell_from_another_is_asked_each_time(load, prompts, place, monkeypatch):
    model = load()
    monkeypatch.setattr(model, "info", model.info.model_copy(update={"content_sha256": None}))
    cache = AnswerCache(place, pytest.fail)
    for _ in range(2):
        assert not cache.answer(AlignedModel(model), None, prompts, 0)[1]
    assert not place.exists()


# ---------------------------------------------------------------- damage, bounds, processes


@pytest.mark.parametrize("texts", [False, True])
def test_what_is_kept_comes_back_and_damage_is_seen(prompts, place, texts):
    notes, layout = [], prompts.layout
    cache, given = AnswerCache(place, notes.append), some(prompts.layout, texts=texts)
    cache.put("a" * 64, given)
    assert same(cache.get("a" * 64, layout), given) and not notes
    (path,) = cache.entries()
    data = path.read_bytes()
    moments = random.Random(0)
    for cut in (0, 1, 31, 32, 40, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        assert cache.get("a" * 64, layout) is None and "damaged" in notes.pop()
    for at in (0, 31, 32, 40, len(data) - 1, *(moments.randrange(len(data)) for _ in range(50))):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << moments.randrange(8)]) + data[at + 1 :])
        assert cache.get("a" * 64, layout) is None and "damaged" in notes.pop()
    path.write_bytes(data + b"\0")
    assert cache.get("a" * 64, layout) is None and notes.pop()
    path.with_name(f"{'b' * 64}.answers").write_bytes(data)  # another model's answers under this name
    assert cache.get("b" * 64, layout) is None and notes.pop()


def test_a_damaged_entry_is_said_answered_anew_and_replaced(tiny, tmp_path, place):
    first = run(tiny(), "a")
    (path,) = place.glob("*.answers")
    whole = path.read_bytes()
    path.write_bytes(whole[:-7] + bytes([whole[-7] ^ 4]) + whole[-6:])
    second = run(tiny(), "b")
    assert second["cached"] == [] and answers_in(second) == answers_in(first)
    assert '"note"' in (Path(second["run"]) / "log.jsonl").read_text() and path.read_bytes() == whole


def test_a_cache_that_cannot_be_used_stops_nothing(tiny, tmp_path, place):
    place.parent.mkdir()
    place.write_text("a file where the folder should be")
    result = run(tiny(), "a")
    assert result["cached"] == []
    notes = [json.loads(line) for line in (Path(result["run"]) / "log.jsonl").read_text().splitlines()]
    assert any("not cached" in line["text"] for line in notes if line["event"] == "note")


def test_what_was_not_used_for_longest_goes_first(prompts, place):
    layout, answers = prompts.layout, some(prompts.layout)
    probe = AnswerCache(place, pytest.fail)
    probe.put("a", answers)
    cache = AnswerCache(place, pytest.fail, most=3 * probe.size())
    for name in "bc":
        cache.put(name, answers)
    for moment, name in enumerate("abc"):
        os.utime(place / f"{name}.answers", ns=(moment, moment))
    assert cache.get("a", layout)
    (place / f".x.{os.getpid()}.tmp").write_bytes(b"left by a killed process")
    cache.put("d", answers)
    assert [path.stem for path in cache.entries()] == ["c", "a", "d"]
    assert cache.size() <= cache.most and not list(place.glob(".*.tmp"))
    AnswerCache(place, pytest.fail, most=1).put("e", answers)
    assert cache.entries() == []


WORKER = """
import sys
from pathlib import Path
import numpy as np
from culteval.harness.runs.answer_cache import AnswerCache
from culteval.tasks.answers import Answers
problems = []
cache = AnswerCache(Path(sys.argv[1]), problems.append, most=int(sys.argv[2]))
rng, hits = np.random.default_rng(int(sys.argv[3])), 0
for _ in range(150):
    key = int(rng.integers(6))
    true = np.full((1, 50, 5 + key), float(key))
    found = cache.get(str(key), None)
    hits += found is not None
    assert found is None or (found.probs.shape == true.shape and (found.probs == true).all())
    if found is None or rng.random() < 0.2:
        cache.put(str(key), Answers(None, true, true[..., 0]))
assert not problems, problems
print(hits)
"""


def test_eight_processes_on_one_cache(place):
    """They read, write and drop the same few entries; the bound holds half of them, so that some are always dropped."""
    command = [sys.executable, "-c", WORKER, str(place), "12000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([*command, str(seed)], **pipes) for seed in range(8)]
    done = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 8, done
    assert sum(int(out) for out, _ in done) > 50
    cache = AnswerCache(place, pytest.fail, most=12000)
    assert 1 <= len(cache.entries()) <= 5 and cache.size() <= 12000
    assert all(cache.get(path.stem, None) for path in cache.entries()) and not list(place.glob(".*.tmp"))


def test_the_commands(tiny, tmp_path, place):
    assert json.loads(culteval("cache", "info", "--json").stdout)["sets"] == 0
    assert "0 sets" in culteval("cache", "clear").stdout
    assert not place.exists()
    AnswerCache(place, pytest.fail).put("a", some(render_protocol(spec_of("general"), ProtocolOptions(limit=1)).layout))
    facts = json.loads(culteval("cache", "info", "--json").stdout)
    assert facts["sets"] == 1 and facts["bytes"] == (place / "a.answers").stat().st_size < facts["most_bytes"]
    assert "1 sets" in culteval("cache", "info").stdout
    assert "1 sets of answers deleted" in culteval("cache", "clear").stdout and not list(place.glob("*.answers"))


# ---------------------------------------------------------------- a model is what is in its folder


def test_a_model_folder_that_changed_is_another_run(tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny(), folder)
    first = run(folder, "a")
    assert run(folder, "a")["reused"]
    weights = folder / "model.safetensors"
    data, times = bytearray(weights.read_bytes()), weights.stat()
    data[-3] ^= 0x40
    weights.write_bytes(data)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time of change
    second = run(folder, "a")
    assert not second["reused"] and second["cached"] == [] and second["run"] != first["run"]
    assert answers_in(second) != answers_in(first)
    with pytest.raises(CultevalError, match="the model's files changed"):
        culteval("resume", first["run"])
    (folder / "README.md").write_text("nothing that a model reads")
    assert run(folder, "a")["reused"]
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | {"extra": 1}))
    assert not run(folder, "a")["reused"]


def test_large_files_are_read_once_until_they_change(tmp_path, monkeypatch):
    path, reads, read = tmp_path / "w.safetensors", [], hashes.sha256
    monkeypatch.setattr(hashes, "sha256", lambda path: reads.append(path) or read(path))
    monkeypatch.setattr(hashes, "_SETTLED", -1.0)
    path.write_bytes(bytes(hashes._LARGE))
    first = hashes.file_hash(path)
    assert hashes.file_hash(path) == first == hashes.sha256(path) and len(reads) == 2
    times = path.stat()
    path.write_bytes(bytes(hashes._LARGE - 1) + b"\1")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert hashes.file_hash(path) != first
    store = tmp_path / "cache" / "hashes.json"
    store.write_text(store.read_text().replace(hashes.file_hash(path), first))  # a hash that was never made
    assert hashes.file_hash(path) != first


def test_what_has_just_changed_is_not_remembered(tmp_path):
    """A second change within the clock's step would look like none."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(bytes(hashes._LARGE))
    hashes.file_hash(path)
    assert not (tmp_path / "cache" / "hashes.json").exists()
