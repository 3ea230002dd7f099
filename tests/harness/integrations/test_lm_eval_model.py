"""The lm-eval model ``culteval`` gives the numbers of ``hf``, packed; soft prompts are right in batches too."""

import configparser
import json
import logging
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.registry import spec_path

from ...architectures import make

ROOT = Path(__file__).parents[3]
VIRTUAL = 5
STORY = "The manager asks the employee to work on Sunday. "
QUESTIONS = [
    ("How many people?", ["1", "10", "100 people", "1 person"], 0),
    ("How important is family?", ["very important", "very", "of no importance at all", "important"], 1),
    ("Is it so?", ["yes", "no"], 1),
    ("Sunday.", ["Monday", "employee", "e", "em", "employ"], 2),
    ("", ["yes", "no"], 0),
    (STORY * 9, ["yes", "yes, always", "no"], 0),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads only get into each other's way in models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with two ordinary lm-eval tasks: ``quiz`` with few-shot examples, ``quiz_bare`` without shared text."""
    folder = tmp_path_factory.mktemp("tasks")
    data = {"test": QUESTIONS, "train": [(f"Question {i}?", ["yes", "no"], i % 2) for i in range(4)]}
    for split, rows in data.items():
        lines = [json.dumps(dict(zip(("question", "choices", "answer"), row, strict=True))) for row in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    spec = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {split: str(folder / f"{split}.jsonl") for split in data},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "fewshot_split": "train",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    shot = {"task": "quiz", "doc_to_text": "Question: {{question}}\nAnswer:", "num_fewshot": 2}
    bare = {"task": "quiz_bare", "doc_to_text": "{{question}}", "num_fewshot": 0}
    for one in (shot, bare):
        (folder / f"{one['task']}.yaml").write_text(yaml.safe_dump(spec | one))
    return folder


@pytest.fixture(scope="module")
def adapter(tiny, load, tmp_path_factory):
    """``adapter(kind, shape, chat)``: the folder of a soft prompt, a LoRA or a prefix; None without a kind."""
    made = {}

    def make(kind, shape="llama", chat=False):
        if kind and (kind, shape, chat) not in made:
            folder = tmp_path_factory.mktemp(kind)
            if kind == "soft":
                model = load(shape, chat)
                torch.set_num_threads(1)
                soft = np.random.default_rng(1).normal(0, 0.5, (1, VIRTUAL, model.dim)).astype(np.float32)
                AlignedModel(model, soft).save(folder / "adapter")
            else:
                save_peft(kind, shape, tiny(shape, chat), folder / "adapter")
            made[kind, shape, chat] = str(folder / "adapter")
        return made.get((kind, shape, chat))

    return make


def save_peft(kind, shape, source, folder):
    import peft
    from transformers import AutoModelForCausalLM

    if kind == "lora":
        targets = ["c_attn"] if shape == "gpt2" else ["q_proj", "v_proj", "down_proj"]
        # Not initialised as usual, which would be no change at all.
        config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=targets, init_lora_weights=False)
    else:
        config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL)
    torch.manual_seed(1)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(source), config).save_pretrained(folder)


@pytest.fixture(scope="module")
def lm(tiny, adapter):
    """``lm(name, shape, chat, kind, **arguments)``: a model of lm-eval in float32; hf's batches are of four."""
    from culteval.harness.integrations.lm_eval_model import CultevalLM
    from lm_eval.models.huggingface import HFLM

    def make(name, shape="llama", chat=False, kind=None, **arguments):
        sort = {"hf": HFLM, "culteval": CultevalLM}[name]
        fixed = {"dtype": "float32", "device": "cpu", "peft": adapter(kind, shape, chat)}
        return sort(pretrained=str(tiny(shape, chat)), **({"batch_size": 4} | fixed | arguments))

    return make


def evaluate(model, task, folder, **arguments):
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    fixed = {"tasks": [task], "task_manager": manager, "bootstrap_iters": 0}
    return lm_eval.simple_evaluate(model=model, **fixed, **arguments)


def answers_of(results, task):
    """Log-likelihoods and greedy flags of all options of all samples, in order."""
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    pairs = [pair for sample in samples for pair in sample["filtered_resps"]]
    return [float(logs) for logs, _ in pairs], [bool(greedy) for _, greedy in pairs]


def no_plain_forward(monkeypatch, model):
    def called(*_):
        raise AssertionError("went lm-eval's way")

    monkeypatch.setattr(model, "_model_call", called)


def texts(*pairs, kind="loglikelihood"):
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)]


def same(mine, theirs):
    assert [logs for logs, _ in mine] == pytest.approx([logs for logs, _ in theirs], abs=1e-4)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in theirs]


# ---------------------------------------------------------------- log-likelihoods


@pytest.mark.parametrize(
    ("shape", "chat", "kind", "task"),
    [
        ("llama", False, None, "quiz"),
        ("llama", True, "soft", "quiz"),
        ("llama", False, "lora", "quiz_bare"),
        ("gemma3", True, None, "quiz_bare"),
        ("gemma3", False, "soft", "quiz"),
        ("gemma3", True, "lora", "quiz"),
        ("gpt2", True, None, "quiz"),
        ("gpt2", False, "soft", "quiz_bare"),
        ("gpt2", False, "lora", "quiz"),
    ],
)
def test_a_stock_task_gives_the_numbers_of_hf(lm, tasks, monkeypatch, shape, chat, kind, task):
    mine, theirs = lm("culteval", shape, chat, kind), lm("hf", shape, chat, kind)
    no_plain_forward(monkeypatch, mine)
    ours, hf = (evaluate(model, task, tasks, apply_chat_template=chat) for model in (mine, theirs))
    (logs, greedy), (expected, expected_greedy) = answers_of(ours, task), answers_of(hf, task)
    assert len(logs) == sum(len(choices) for _, choices, _ in QUESTIONS)
    assert logs == pytest.approx(expected, abs=1e-4) and greedy == expected_greedy
    assert {k: v for k, v in ours["results"][task].items() if "acc" in k} == {
        k: v for k, v in hf["results"][task].items() if "acc" in k
    }
    if kind:
        request = texts((STORY, " yes"))
        assert abs(mine.loglikelihood(request)[0][0] - lm("hf", shape, chat).loglikelihood(request)[0][0]) > 0.1


def greedy_tokens(model, context, count):
    ids = list(context)
    for _ in range(count):
        ids.append(int(model._model_call(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(context) :]


@pytest.mark.parametrize("kind", [None, "soft"])
def test_greedy_options_prefixes_duplicates_and_strangers(lm, monkeypatch, kind):
    """Token by token, so that some options are what greedy decoding writes."""
    mine, hf = lm("culteval", kind=kind), lm("hf", kind=kind)
    rng = np.random.default_rng(0)
    common = rng.integers(3, 600, 30).tolist()
    contexts = [common + rng.integers(3, 600, 4).tolist() for _ in range(3)] + [[7], common, [600, 8, 9]]
    requests = []
    for context in contexts:
        best = greedy_tokens(hf, context, 4)
        options = [best[:1], best, best[:2], [*best[:2], 5], [5], rng.integers(3, 600, 3).tolist(), best]
        requests += [(("context", str(option)), context, option) for option in options]
    order = rng.permutation(len(requests))
    requests = [requests[i] for i in order]
    theirs = hf._loglikelihood_tokens(requests, disable_tqdm=True)
    no_plain_forward(monkeypatch, mine)
    same(mine._loglikelihood_tokens(requests, disable_tqdm=True), theirs)
    assert 0 < sum(greedy for _, greedy in theirs) < len(theirs)


def test_one_text_split_at_two_places(lm):
    """``hf`` with its cache of logits reads the shorter continuation at the wrong place."""
    requests = [(("a", "b"), [10, 11], [12, 13]), (("a", "c"), [10, 11, 12], [13]), (("a", "d"), [10], [11, 12, 13])]
    mine, hf = lm("culteval"), lm("hf", logits_cache=False)
    same(mine._loglikelihood_tokens(requests, True), hf._loglikelihood_tokens(requests, True))


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_chunks_of_any_size_change_nothing(lm, monkeypatch, shape):
    from culteval.harness.integrations import lm_eval_model

    mine = lm("culteval", shape)
    pairs = texts(*((f"{STORY * (i % 3)}Item {i % 7}.", f" {o}") for i in range(15) for o in ("yes", "no one", "no")))
    whole = mine.loglikelihood(pairs, disable_tqdm=True)
    for few, most, logits in ((1, 40, 1 << 27), (64, 64, 1 << 27), (1024, 4096, 2500)):
        monkeypatch.setattr(lm_eval_model, "FEW_NODES", few)
        monkeypatch.setattr(lm_eval_model, "MOST_NODES", most)
        monkeypatch.setattr(lm_eval_model, "MOST_LOGITS", logits)
        same(mine.loglikelihood(pairs, disable_tqdm=True), whole)


def test_chunks_are_bounded_and_whole():
    from culteval.harness.integrations.lm_eval_model import FEW_NODES, MOST_NODES, chunks

    rng = np.random.default_rng(0)
    shot = rng.integers(0, 99, 900).tolist()
    shared = [(i, shot + rng.integers(0, 99, 20).tolist(), [1, 2]) for i in range(300)]
    apart = [(i, rng.integers(0, 99, 100).tolist(), [1]) for i in range(100)]

    def nodes(requests, chunk):
        paths = {tuple((c + o)[: n + 1]) for _, c, o in (requests[i] for i in chunk) for n in range(len(c + o) - 1)}
        return len(paths)

    for requests, most in ((shared, MOST_NODES), (apart, FEW_NODES)):
        found = list(chunks(requests, 1 << 20))
        assert sorted(i for chunk in found for i in chunk) == list(range(len(requests)))
        sizes = [nodes(requests, chunk) for chunk in found]
        assert max(sizes) <= most and min(sizes[:-1]) > most * 0.8
    assert {len(chunk) for chunk in chunks(shared, 10)} == {5}


def test_empty_contexts_and_trailing_spaces_as_hf_reads_them(lm, monkeypatch):
    mine, hf = lm("culteval"), lm("hf")
    requests = texts(("", "yes no"), ("", "<|end|>yes"), ("Is it? ", "yes"), ("Is it?", " yes"), ("Is it?  ", "no"))
    no_plain_forward(monkeypatch, mine)
    same(mine.loglikelihood(requests), hf.loglikelihood(requests))


@pytest.mark.parametrize(("kind", "room"), [(None, 40), ("soft", 40), (None, None), ("soft", None)])
def test_what_is_too_long_is_cut_as_hf_cuts_it(lm, kind, room):
    """``hf`` does not count virtual tokens; it is told of them here."""
    full = room or 2048
    mine = lm("culteval", "gpt2", kind=kind, max_length=room)
    hf = lm("hf", "gpt2", kind=kind, max_length=full - (VIRTUAL if kind else 0))
    assert mine.max_length == hf.max_length
    context = mine.tok_encode("x" * 2 * full)[: mine.max_length]
    lengths = (mine.max_length + 1, mine.max_length, mine.max_length - 1, 3)
    requests = [(("c", f"{n} {o}"), context[:n], o) for n in lengths for o in ([11], [12, 13])]
    same(mine._loglikelihood_tokens(requests, True), hf._loglikelihood_tokens(requests, True))


def test_an_empty_option_is_refused_as_hf_refuses_it(lm):
    for name in ("hf", "culteval"):
        with pytest.raises(AssertionError):
            lm(name)._loglikelihood_tokens([(("a", ""), [5, 6], [])], True)


def test_a_soft_prompt_that_fills_the_context_is_refused(lm):
    with pytest.raises(ValueError, match="5 virtual tokens"):
        lm("culteval", kind="soft", max_length=VIRTUAL)


class Hook:
    def __init__(self):
        self.seen = []

    def add_partial(self, kind, key, answer):
        self.seen.append((kind, key, answer))


def test_every_answer_is_given_to_the_cache(lm):
    mine = lm("culteval", max_length=30)
    mine.set_cache_hook(Hook())
    pairs = [("Is it?", " yes"), ("Is it?", " no"), (STORY * 9, " no"), ("Is it?", " yes")]
    answers = mine.loglikelihood(texts(*pairs), disable_tqdm=True)
    assert sorted(mine.cache_hook.seen) == sorted(
        ("loglikelihood", pair, answer) for pair, answer in zip(pairs, answers, strict=True)
    )


def test_rolling_counts_every_token_once_behind_the_soft_prompt(lm, adapter):
    mine = lm("culteval", kind="soft")
    text = STORY * 3
    ids = [mine.prefix_token_id, *mine.tok_encode(text)]
    logits = behind_soft(mine, ids)[VIRTUAL:-1].log_softmax(-1)
    expected = float(logits.gather(1, torch.tensor(ids[1:])[:, None]).sum())
    (value,) = mine.loglikelihood_rolling(texts((text,), kind="loglikelihood_rolling"))
    assert value == pytest.approx(expected, abs=1e-3)
    short, hf = lm("culteval", kind="soft", max_length=25), lm("hf", kind="soft", max_length=25 - VIRTUAL)
    windows = [model.loglikelihood_rolling(texts((text,), (STORY,))) for model in (short, hf)]
    assert windows[0] == pytest.approx(windows[1], abs=1e-3) and abs(windows[0][0] - value) > 1e-2


# ---------------------------------------------------------------- generation


def behind_soft(model, ids):
    """Logits (virtual + tokens, vocabulary) of the bare model behind the adapter's own numbers."""
    from safetensors.numpy import load_file

    soft = load_file(Path(model.peft) / "adapter_model.safetensors")["prompt_embeddings"]
    embeds = torch.cat([torch.from_numpy(soft), model._base.get_input_embeddings()(torch.tensor(ids))])
    with torch.no_grad():
        return model._base(inputs_embeds=embeds[None]).logits[0]


def by_hand(model, text, most, penalty=1.0):
    ids = model.tok_encode(text)
    start = len(ids)
    while len(ids) < start + most and model.eot_token_id not in ids[start:]:
        logits = behind_soft(model, ids)[-1]
        seen = logits[ids]
        logits[ids] = torch.where(seen > 0, seen / penalty, seen * penalty)
        ids.append(int(logits.argmax()))
    return model.tok_decode(ids[start:])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", ["llama", "gemma3", "gpt2"])
def test_a_generated_batch_is_what_each_prompt_alone_gives(lm, tiny, shape, side):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny(shape, False), padding_side=side)
    mine = lm("culteval", shape, kind="soft", tokenizer=tokenizer)
    prompts = ["Is it?", STORY * 2 + "How important is family?", "Sunday", STORY]
    options = {"until": [], "max_gen_toks": 10}
    batch = mine.generate_until(texts(*((p, options) for p in prompts), kind="generate_until"), disable_tqdm=True)
    alone = [mine.generate_until(texts((p, options), kind="generate_until"), disable_tqdm=True)[0] for p in prompts]
    assert batch == alone == [by_hand(mine, p, 10) for p in prompts]
    assert len(set(batch)) == len(prompts)


def test_stop_sequences_sampling_and_penalties_stay_lm_evals(lm):
    mine = lm("culteval", kind="soft")
    whole = by_hand(mine, "Is it?", 12)
    stop = whole[4:6]
    requests = texts(("Is it?", {"until": [stop], "max_gen_toks": 12}), (STORY, {"until": [], "max_gen_toks": 3}))
    first, second = mine.generate_until([*requests], disable_tqdm=True)
    assert first == whole[: whole.index(stop)] and second == by_hand(mine, STORY, 3)
    penalised = {"until": [], "max_gen_toks": 20, "repetition_penalty": 3.0}
    (text,) = mine.generate_until(texts((STORY, penalised)), disable_tqdm=True)
    assert text == by_hand(mine, STORY, 20, 3.0) != by_hand(mine, STORY, 20)
    torch.manual_seed(0)
    sampled = {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 50.0}
    drawn = [mine.generate_until(texts((STORY, sampled)), disable_tqdm=True)[0] for _ in range(2)]
    assert drawn[0] != drawn[1]


def test_generation_without_a_soft_prompt_is_hfs(lm):
    requests = texts(*((p, {"until": [], "max_gen_toks": 6}) for p in ("Is it?", STORY)), kind="generate_until")
    for kind in (None, "lora"):
        mine, hf = (lm(name, kind=kind).generate_until(requests, disable_tqdm=True) for name in ("culteval", "hf"))
        assert mine == hf and all(mine)


# ---------------------------------------------------------------- what cannot be packed; ways in


@pytest.fixture
def said():
    """What lm-eval's logger says."""
    lines, logger = [], logging.getLogger("lm_eval")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_other_adapters_go_lm_evals_way_and_it_is_said_once(lm, said):
    mine, hf = lm("culteval", kind="prefix"), lm("hf", kind="prefix")
    requests = texts(*((STORY, f" {option}") for option in ("yes", "no", "no one")))
    same(mine.loglikelihood(requests), hf.loglikelihood(requests))
    same(mine.loglikelihood(requests), hf.loglikelihood(requests))
    assert mine.max_length == hf.max_length - VIRTUAL
    (line,) = [line for line in said if "packing is off" in line]
    assert "PREFIX_TUNING" in line and "lm-eval's own" in line


def test_a_model_the_engine_cannot_pack_goes_lm_evals_way(lm, tiny, said, tmp_path):
    """A window that takes no mask of ours: packed numbers would be wrong beyond it."""
    from transformers import AutoTokenizer

    make("gpt_neo", AutoTokenizer.from_pretrained(tiny("llama", False)), tmp_path)
    from culteval.harness.integrations.lm_eval_model import CultevalLM
    from lm_eval.models.huggingface import HFLM

    requests = texts(*((STORY, f" {option}") for option in ("yes", "no", "no one")))
    mine, hf = (sort(pretrained=str(tmp_path), dtype="float32", device="cpu") for sort in (CultevalLM, HFLM))
    same(mine.loglikelihood(requests), hf.loglikelihood(requests))
    assert sum("packing is off" in line for line in said) == 1


def test_a_model_with_hooks_goes_lm_evals_way(tiny, said):
    """The fused layers would not run them, which no check would see in bfloat16 where they change little."""
    from culteval.harness.integrations.lm_eval_model import CultevalLM
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny("llama", False))
    model = AutoModelForCausalLM.from_pretrained(tiny("llama", False), dtype=torch.bfloat16)
    model.model.layers[0].mlp.register_forward_hook(lambda _, args, out: out + 0.02)
    mine, hf = (sort(pretrained=model, tokenizer=tokenizer, batch_size=1) for sort in (CultevalLM, HFLM))
    requests = texts(*((STORY, f" {option}") for option in ("yes", "no", "no one")))
    same(mine.loglikelihood(requests), hf.loglikelihood(requests))
    assert mine._engine is None and any("model.layers.0.mlp has a hook" in line for line in said)


@pytest.mark.parametrize("name", ["gemma3_images", "mistral_window", "phi3_window", "phi3_longrope", "cohere2"])
def test_windows_and_scales_are_those_of_hf(name, tiny, tmp_path):
    """Prompts longer than every window, and than the length at which LongRoPE changes."""
    from culteval.harness.integrations.lm_eval_model import CultevalLM
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    folder = make(name, AutoTokenizer.from_pretrained(tiny("llama", False)), tmp_path)
    requests = texts(*((STORY * 20, f" {option}") for option in ("yes", "no", "no one")))
    mine, hf = (sort(pretrained=str(folder), dtype="float32", device="cpu") for sort in (CultevalLM, HFLM))
    assert len(hf.tok_encode(STORY * 20)) > 150 and mine._engine.kind == "packed"
    same(mine.loglikelihood(requests), hf.loglikelihood(requests))


LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4,
            "long_factor": [3.0, 6.0, 9.0, 12.0], "original_max_position_embeddings": 64}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}


@pytest.mark.parametrize("rope, room, virtual", [(LONGROPE, 256, 0), (LONGROPE, 256, 10), (DYNAMIC, 64, 0)])
def test_a_long_request_does_not_change_the_positions_of_others(tiny, rope, room, virtual):
    """LongRoPE counts virtual tokens; dynamic scaling begins within the context that lm-eval is told of."""
    from culteval.harness.integrations.lm_eval_model import CultevalLM
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(tiny("llama", False))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.3, max_position_embeddings=room, rope_parameters=rope,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    if virtual:
        model = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=virtual)).eval()
    mine = CultevalLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=200)
    assert mine._engine is not None
    ids = np.random.default_rng(1).integers(5, 600, 120).tolist()
    requests = [((str(size), "b"), ids[:size], ids[-1:]) for size in (20, 62, 100)]
    alone = [mine._loglikelihood_tokens([request], True)[0] for request in requests]
    same(mine._loglikelihood_tokens(requests, True), alone)
    mine._engine = None
    same(mine._loglikelihood_tokens(requests, True), alone)


def test_vsm13_gives_the_metrics_of_hf(lm, tiny, adapter):
    """By the registered name, with the arguments of ``hf``."""
    import culteval.harness.integrations.lm_eval_model  # noqa: F401

    folder = spec_path("vsm13").parent
    arguments = f"pretrained={tiny('llama', True)},dtype=float32,peft={adapter('soft', 'llama', True)}"
    common = {"model_args": arguments, "apply_chat_template": True, "batch_size": 16, "device": "cpu"}
    ours, hf = (evaluate(name, "vsm13", folder, **common)["results"]["vsm13"] for name in ("culteval", "hf"))
    numbers = {key for key, value in hf.items() if isinstance(value, float)}
    assert len(numbers) > 6
    for key in numbers:
        assert ours[key] == pytest.approx(hf[key], rel=1e-5, abs=1e-2, nan_ok=True), key


def test_lm_evals_command_line_knows_the_model(tiny, tasks, tmp_path):
    words = ["--model", "culteval", "--model_args", f"pretrained={tiny('llama', False)},dtype=float32"]
    words += ["--tasks", str(tasks / "quiz.yaml"), "--device", "cpu", "--output_path", str(tmp_path / "results.json")]
    command = [sys.executable, "-m", "culteval.harness.integrations.lm_eval_model", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "culteval (" in done.stdout and "|acc_norm" in done.stdout
    (results,) = tmp_path.rglob("results*.json")
    assert json.loads(results.read_text())["results"]["quiz"]["acc,none"] >= 0


def documented():
    lines = (ROOT / "docs" / "lm-eval.md").read_text(encoding="utf-8").splitlines()
    return [line.split()[1:] for line in lines if line.startswith("    python -m ")]


def test_documented_commands_parse():
    from culteval.harness.integrations.lm_eval_model import CultevalLM
    from lm_eval._cli import HarnessCLI

    assert len(documented()) == 2
    for _, module, *words in documented():
        assert module == CultevalLM.__module__
        asked = HarnessCLI()._parser.parse_args(words)
        assert asked.model == "culteval" and set(asked.model_args) <= {"pretrained", "peft", "dtype"}


def test_the_entry_point_is_the_class():
    from culteval.harness.integrations.lm_eval_model import CultevalLM
    from lm_eval.api.registry import get_model

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    name, _, value = config["options.entry_points"]["lm_eval.models"].strip().partition(" = ")
    assert EntryPoint(name, value, "lm_eval.models").load() is CultevalLM is get_model(name)
