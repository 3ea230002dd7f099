"""Strangers' submissions, records, adapters and checkpoints, mutated at random as in ``test_fuzz.py``."""

import hashlib
import io
import json
import random
import time
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.errors import CultevalError, InputError
from culteval.harness.alignment.budget import Budget
from culteval.harness.cli.main import cli
from culteval.harness.scoring.submission import load_submission
from culteval.harness.submissions.reader import read_submission
from culteval.harness.submissions.writer import write_submission
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from culteval.tasks.spec import load_spec

from ... import fuzzing
from ...fuzzing import MOST_SECONDS, counts, fuzz, mutated, peak_memory, replaced, small_submission, survives
from ...submission_files import unpacked

home = fuzzing.home

# ---------------------------------------------------------------- submissions


def seal(folder):
    """Make the manifest's hash and number of rows those of the answers, as a hostile writer would."""
    answers, path = (folder / "answers.jsonl").read_bytes(), folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["answers"] |= {"sha256": hashlib.sha256(answers).hexdigest(), "rows": answers.count(b"\n")}
    path.write_text(json.dumps(manifest))


@counts(200)
def test_submissions(home, inputs):
    """Read and scored, the answers sealed again after they were changed."""
    folder = home / "s"
    small_submission(folder)
    unpacked(folder)
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    manifest, answers = folder / "manifest.json", folder / "answers.jsonl"
    lines = whole[answers].splitlines()

    def change(rng):
        for path, data in whole.items():
            path.write_bytes(data)
        if rng.random() < 0.4:
            new = json.dumps(replaced(json.loads(whole[manifest]), rng)).encode()
            manifest.write_bytes(new if rng.random() < 0.7 else mutated(whole[manifest], rng))
            return
        at = rng.randrange(len(lines))
        line = json.dumps(replaced(json.loads(lines[at]), rng)).encode()
        line = line if rng.random() < 0.6 else mutated(lines[at], rng)
        answers.write_bytes(b"\n".join([*lines[:at], line, *lines[at + 1 :], b""]))
        seal(folder)

    fuzz(inputs, change, lambda: load_submission(folder).score())


@pytest.mark.parametrize("personas", [100_000, 20_000])
def test_what_is_built_does_not_outgrow_what_was_sent(home, personas):
    """A manifest that is right about itself, and asks for millions of answers that its small file cannot hold."""
    small_submission(home / "s")
    path = home / "s" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tasks"][0]["personas"] = personas
    manifest["answers"]["rows"] = personas * 6
    path.write_text(json.dumps(manifest))
    before = peak_memory(anew=True)
    with pytest.raises(InputError, match="too few"):
        read_submission(home / "s")
    assert peak_memory() - before < 20 << 10


@pytest.mark.parametrize(
    ("field", "value"), [("edition", "1815"), ("constants", "lunar"), ("country", "ZZ"), ("country", "EG")]
)
def test_what_a_manifest_asks_for_and_nobody_has_is_a_bad_file(tmp_path, field, value):
    from culteval.harness.registry import spec_path

    spec = load_spec(spec_path("vsm13"))
    layout = render_protocol(spec, ProtocolOptions()).layout
    from culteval.tasks.answers import Answers

    folder = tmp_path / "s"
    asked = {"name": "vsm13", "hash": spec.hash, "country": "SA", "edition": "extended"} | {field: value}
    model = {name: "x" for name in ("name", "revision", "dtype", "device", "forward")} | {
        "threads": 1,
        "chat_template": None,
    }
    spent = dict.fromkeys(("item_forwards_allowed", "item_forwards", "survey_evaluations", "tokens", "seconds"), 0)
    manifest = {"tasks": [asked], "model": model, "aligner": {"name": "a", "settings": {}, "adapter_sha256": None}}
    manifest |= {"fitted": None, "country": "SA", "seed": 0, "versions": {}, "command": "", "budget": spent}
    answers = Answers(layout, np.full((1, len(layout), 5), 0.2), np.zeros((1, len(layout))))
    write_submission(folder, manifest, {"vsm13": answers})
    with pytest.raises(InputError, match=r"tasks\.0: "):
        load_submission(folder).score()
    repair = {"edition": {"edition": "2015"}, "constants": {"constants": "zero"}, "country": {}}[field]
    assert load_submission(folder).score("US", **repair)
    done = CliRunner().invoke(cli, ["score", str(folder), "--country", ""])
    assert isinstance(done.exception, CultevalError)


def test_an_empty_country_is_not_the_default(home):
    small_submission(home / "s")
    done = CliRunner().invoke(cli, ["score", str(home / "s"), "--country", ""])
    assert isinstance(done.exception, CultevalError) and done.exception.exit_code == 2
    assert "--country ''" in str(done.exception)


# ---------------------------------------------------------------- dialogues, verdicts, run folders


def episode(number):
    return {
        "episode_id": f"e{number}", "scenario": "A shop.", "codename": "shop", "country": "SA", "intents": ["", ""],
        "agents_background": {"Ann": "Ann is old.", "Bo": "Bo is young."}, "social_goals": {"Ann": "buy", "Bo": "sell"},
        "social_interactions": 'Ann said: "Good day"\n\nBo [non-verbal communication] nods',
    }  # fmt: skip


@counts(300)
def test_dialogues(tmp_path, inputs):
    from culteval.optimizers.clca.dialogues.dialogue import read_dialogues

    path, rows = tmp_path / "d.jsonl", [episode(0), episode(1)]

    def change(rng):
        text = "\n".join(json.dumps(row) for row in rows).encode()
        if rng.random() < 0.5:
            text = "\n".join(json.dumps(row) for row in (rows[0], replaced(rows[1], rng))).encode()
            path.write_bytes(text)
        else:
            path.write_bytes(mutated(text, rng))

    fuzz(inputs, change, lambda: read_dialogues(path))


def record_readers(home):
    """Small JSON files of ours that a stranger may hand on: a valid one, and what reads it."""
    from culteval.harness.runs.cross_validation import read_folds
    from culteval.harness.runs.folder import read_config
    from culteval.harness.scoring.judge import read_verdicts

    small_submission(home / "s")
    manifest, _ = read_submission(home / "s")
    config = {"aligner": "naive", "settings": {}, "model": "smollm2", "fit": ["mytask"], "fit_country": "DE",
              "tasks": ["mytask"], "country": "DE", "options": {"edition": None}, "scoring": "expected"}  # fmt: skip
    fold = {"tokens": 3, "fold": 0, "train_loss": 1.0, "train_argmax": 1.0, "validation_loss": 1.0,
            "validation_argmax": 1.0, "seconds": 1.0}  # fmt: skip
    line = json.dumps({"task": "mytask", "row": 0, "prompt": "p", "reply": "A", "verdict": "high"}) + "\n"
    (home / "s" / "verdicts.jsonl").write_text(line)
    judge = {"model": "m", "model_args": "", "answers_sha256": manifest.answers.sha256, "rows": 1,
             "verdicts_sha256": hashlib.sha256(line.encode()).hexdigest()}  # fmt: skip
    return {
        "config": (config, home / "r" / "config.json", lambda: read_config(home / "r")),
        "folds": ([fold], home / "folds.json", lambda: read_folds(home / "folds.json")),
        "judge": (judge, home / "s" / "judge.json", lambda: read_verdicts(home / "s", manifest)),
    }


@counts(150)
@pytest.mark.parametrize("kind", ["config", "folds", "judge"])
def test_records(home, kind, inputs):
    tree, path, read = record_readers(home)[kind]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(tree))
    assert read()

    def change(rng):
        data = json.dumps(tree).encode()
        path.write_bytes(mutated(data, rng) if rng.random() < 0.5 else json.dumps(replaced(tree, rng)).encode())

    fuzz(inputs, change, read)


# ---------------------------------------------------------------- adapters and checkpoints


@counts(300)
def test_soft_prompts(tmp_path, inputs):
    from culteval.harness.adapters.soft_prompt import KEY, read_soft_prompt
    from safetensors.numpy import save

    path = tmp_path / "adapter_model.safetensors"
    whole = save({KEY: np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)})
    head = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])

    def change(rng):
        if rng.random() < 0.5:
            path.write_bytes(mutated(whole, rng))
            return
        new = json.dumps(replaced(head, rng)).encode()
        path.write_bytes(len(new).to_bytes(8, "little") + new + whole[-96:])

    fuzz(inputs, change, lambda: read_soft_prompt(path, 8))


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64"])
def test_soft_prompts_of_other_types(tmp_path, dtype):
    from culteval.harness.adapters.soft_prompt import KEY, read_soft_prompt

    width = {"F64": 8, "F16": 2, "BF16": 2, "I64": 8, "C64": 8}.get(dtype, 1)
    head = json.dumps({KEY: {"dtype": dtype, "shape": [3, 8], "data_offsets": [0, 24 * width]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(24 * width))
    survives(lambda: read_soft_prompt(path, 8))


LORA = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "all",
    "modules_to_save": ["lm_head"], "lora_dropout": 0.1, "use_rslora": False, "fan_in_fan_out": False, "use_dora": True,
    "exclude_modules": ".*a", "layers_to_transform": [1], "layers_pattern": "h", "rank_pattern": {"a.*": 2},
    "alpha_pattern": {"a": 0.5}, "trainable_token_indices": {"a": [1]}, "target_parameters": ["a.b"],
    "layer_replication": [[0, 2]], "init_lora_weights": "pissa", "lora_bias": False, "ensure_weight_tying": False,
}  # fmt: skip
SOFT = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 3, "token_dim": 8,
        "num_transformer_submodules": 1, "prompt_tuning_init": "RANDOM", "modules_to_save": None}  # fmt: skip


@counts(300)
@pytest.mark.parametrize("tree", [LORA, SOFT], ids=["lora", "soft prompt"])
def test_configurations_of_adapters(tmp_path, inputs, tree):
    from culteval.harness.adapters.peft_files import CONFIG, is_soft_prompt, patterns, read_lora_config

    path = tmp_path / CONFIG

    def change(rng):
        data = json.dumps(tree).encode()
        path.write_bytes(mutated(data, rng) if rng.random() < 0.4 else json.dumps(replaced(tree, rng)).encode())

    def read():
        if not is_soft_prompt(tmp_path):
            assert all(isinstance(one, str) for one in patterns(read_lora_config(tmp_path)))

    fuzz(inputs, change, read)


def searches():
    from culteval.optimizers.search.cma import CovarianceAdaptation
    from culteval.optimizers.search.de import DifferentialEvolution
    from culteval.optimizers.search.pso import ParticleSwarm

    rng = np.random.default_rng(0)
    start = rng.uniform(-1, 1, (5, 3))
    return {
        "de": DifferentialEvolution(start, rng=rng),
        "pso": ParticleSwarm(start, rng=rng),
        "cma": CovarianceAdaptation(start[0], sigma=1.0, seed=0, population=5),
    }


class Silent:
    def advance(self, *told):
        pass


@counts(200)
def test_checkpoints(tmp_path, inputs):
    """Damaged anywhere; sums of the archive tell."""
    from culteval.harness.alignment.checkpoint import RunCheckpoint

    search = searches()["de"]
    search.tell((search.ask() ** 2).sum(1))
    RunCheckpoint(tmp_path, Budget(24, 24), Silent(), "de").save(search.state(), 0.0)
    whole = (tmp_path / "checkpoint.npz").read_bytes()

    def load():
        state = RunCheckpoint(tmp_path, Budget(24, 24), Silent(), "de").load()
        again = type(search).from_state(state).state()
        assert all(np.array_equal(value, again[name]) for name, value in search.state().items())

    fuzz(inputs, lambda rng: (tmp_path / "checkpoint.npz").write_bytes(mutated(whole, rng)), load)


@pytest.mark.parametrize("kind", ["de", "pso", "cma"])
def test_a_forged_state_ends_a_search_soon(tmp_path, kind):
    """What no search has written, with a digest that fits: an ordinary error at once, nothing worse."""
    search, rng = searches()[kind], random.Random(0)
    for _ in range(3):
        search.tell((search.ask() ** 2).sum(1))
    whole = search.state()
    odd = (np.zeros(0), np.zeros((2, 2)), np.array(-1), np.array(1e300), np.full(7, np.nan), np.array("x"),
           np.frombuffer(b'{"bit_generator": "test"}', np.uint8), np.frombuffer(b"{}", np.uint8))  # fmt: skip
    for _ in range(200):
        state = whole | {rng.choice(list(whole)): rng.choice(odd)}
        started = time.process_time()
        try:
            again = type(search).from_state(state)
            again.tell((again.ask() ** 2).sum(1))
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError):
            pass
        assert time.process_time() - started < MOST_SECONDS


def test_a_name_in_a_checkpoint_calls_nothing(monkeypatch):
    from culteval.optimizers.search.interface import unpack_rng

    monkeypatch.setattr(np.random, "seed", lambda: pytest.fail("called"))
    with pytest.raises(ValueError, match="unknown generator 'seed'"):
        unpack_rng(np.frombuffer(b'{"bit_generator": "seed"}', np.uint8))


def test_a_compressed_checkpoint_is_refused(tmp_path):
    """A megabyte of zeros may unpack to gigabytes; ours are not compressed."""
    from culteval.harness.alignment.checkpoint import RunCheckpoint

    np.savez_compressed(tmp_path / "checkpoint.npz", big=np.zeros(1 << 22))
    with pytest.raises(InputError, match="compressed"):
        RunCheckpoint(tmp_path, Budget(24, 24), None, "de").load()
    with zipfile.ZipFile(tmp_path / "checkpoint.npz", "w") as archive:  # a header that promises what is not there
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 33,)})
        archive.writestr("big.npy", header.getvalue())
    survives(lambda: RunCheckpoint(tmp_path, Budget(24, 24), None, "de").load())
