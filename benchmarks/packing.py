"""A candidate's answers to VSM13.

One packed forward pass against stock lm-eval with the soft prompt as a PEFT adapter.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from culteval.harness.engine.chat import Chat
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.models.load import load_model
from culteval.harness.models.local import LanguageModel
from culteval.harness.registry import spec_of
from culteval.tasks.prompts import Prompts, render

from .common import Row, Settings, alternate, peak_of, ratio, say
from .floor import floors
from .peer import loglikelihoods, requests_of, stock, use_best_batch

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

VIRTUAL = 10


def measure(settings: Settings, population: int = 8) -> list[Row]:
    """Measure rows of each dtype: one candidate, a population, and the peak memory."""
    return [row for dtype in settings.dtypes for row in _measure(settings, dtype, population)]


def fit_prompts() -> Prompts:
    """Return the prompts of a candidate while VSM13 is fitted."""
    spec = spec_of("vsm13")
    return render(spec, "fit")


def soft_prompts(model: LanguageModel, population: int, virtual: int = VIRTUAL) -> np.ndarray:
    """Draw soft prompts (population, virtual, dim) of random ordinary tokens' embeddings."""
    ids = np.random.default_rng(0).choice(model.ordinary_tokens(), (population, virtual))
    return model.token_vectors(ids)


def loaded(settings: Settings, dtype: str) -> LanguageModel:
    """Load the model in culteval."""
    return load_model(settings.model, dtype=dtype, device=settings.device, threads=settings.threads, notify=say)


def as_requests(tokenizer: Any, prompts: Prompts) -> list[Instance]:
    """Convert the prompts to stock lm-eval's form: chat template if there is one, else a space before each option."""
    space = "" if tokenizer.chat_template else " "
    contexts = [Chat(tokenizer).render_prompt(text) for text in prompts.texts]
    return requests_of(contexts, [[space + option for option in row] for row in prompts.choices])


def _measure(settings: Settings, dtype: str, population: int) -> list[Row]:
    say(f"packing, {dtype}: loading")
    model, prompts = loaded(settings, dtype), fit_prompts()
    soft, requests = soft_prompts(model, population), as_requests(model.tokenizer, prompts)
    with TemporaryDirectory() as temporary:
        adapter = Path(temporary) / "adapter"
        AlignedModel(model, soft[:1]).save(adapter)
        peer = stock(settings, dtype, adapter)
        batch = use_best_batch(peer, requests, len(prompts.choices[0]))
        rows = [
            row
            for size in sorted({1, population})
            for row in compare(model, peer, prompts, requests, soft[:size], settings.repeats)
        ]
        say(f"packing, {dtype}: memory")
        ours = peak_of(_ours_once, settings, dtype)
        peer_peak = peak_of(_peer_once, settings, dtype, adapter, batch)
    note = f"ours {ours / 2**20:,.0f} MiB, peer {peer_peak / 2**20:,.0f} MiB at batch size {batch}"
    return [*rows, Row(name="peak memory", dtype=dtype, ratio=peer_peak / ours, note=note)]


def compare(
    model: LanguageModel, peer: HFLM, prompts: Prompts, requests: list[Instance], soft: np.ndarray, repeats: int
) -> list[Row]:
    """Measure rows of one population, in seconds per candidate; one row per lower bound."""
    size, tokens = len(soft), model.cost(prompts, soft.shape[1])
    dtype = model.info.dtype
    say(f"packing, {dtype}: population {size}")
    bare = floors(peer.model.get_base_model(), tokens * size, len(prompts) * size)
    works = {"ours": lambda: model.answer(prompts, soft), "peer": lambda: loglikelihoods(peer, requests)}
    times = alternate(works | bare, repeats)
    seconds = statistics.median(times["ours"]) / size
    common = {
        "dtype": dtype,
        "seconds": seconds,
        "seconds_peer": statistics.median(times["peer"]),
        "ratio": size * ratio(times["peer"], times["ours"]),
        "max_abs_diff": largest_difference(model, peer, prompts, requests, soft[0]),
    }
    facts = f"{tokens:,} tokens, {tokens / seconds:,.0f} tokens/s; peer batch size {peer.batch_size}"
    shares = {name: ratio(times[name], times["ours"]) for name in bare}
    rows = [Row(name=f"population {size}", floor_share=shares.get("linear"), note=facts, **common)]
    if len(bare) > 1:
        fastest = min(bare, key=lambda name: statistics.median(times[name]))
        name, note = f"population {size}, best floor", f"floor multiplied by {fastest}"
        rows.append(Row(name=name, floor_share=shares[fastest], note=note, **common))
    return rows


def largest_difference(
    model: LanguageModel, peer: HFLM, prompts: Prompts, requests: list[Instance], soft: np.ndarray
) -> float:
    """Compute the largest difference in log-likelihood, with the options of a prompt normalised.

    Normalised because lm-eval adds white space at the context's end, such as a chat template's line break, to every
    option of a prompt, where it cancels.
    """
    with torch.inference_mode():
        tensor = torch.from_numpy(soft)[None].to(model.model.device)
        ours = model.logprobs(prompts, tensor)[0].double().log_softmax(-1).cpu().numpy()
    theirs = np.full(ours.shape, -np.inf)
    theirs[np.isfinite(ours)] = loglikelihoods(peer, requests)
    theirs -= np.logaddexp.reduce(theirs, axis=-1, keepdims=True)
    asked = np.isfinite(ours)
    return float(np.abs(ours[asked] - theirs[asked]).max())


def _ours_once(settings: Settings, dtype: str) -> None:
    model = loaded(settings, dtype)
    model.answer(fit_prompts(), soft_prompts(model, 1))


def _peer_once(settings: Settings, dtype: str, adapter: Path, batch: int) -> None:
    peer = stock(settings, dtype, adapter, batch)
    loglikelihoods(peer, as_requests(peer.tokenizer, fit_prompts()))
