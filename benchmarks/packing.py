"""A candidate's answers to VSM13: one packed pass against stock lm-eval with the soft prompt as a PEFT adapter."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from culteval.harness.engine.chat import Chat
from culteval.harness.engine.tokenize import encode
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.models.load import load_model
from culteval.harness.models.local import LanguageModel
from culteval.harness.registry import spec_of
from culteval.tasks.prompts import Prompts, render

from .common import Row, Settings, alternate, peak_of, ratio, say, wall
from .floor import floors
from .llama_peer import LlamaCpp
from .peer import loglikelihoods, requests_of, some_prompts, stock, use_best_batch

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

VIRTUAL = 10
POPULATION_SHARE = 60  # a population is measured if it takes this part of the time, or less
PEER_SHARE = 30  # the peer reads as many prompts as it does in this part of the time


def measure(settings: Settings, population: int = 4) -> list[Row]:
    """Measure rows of each dtype: one candidate, a population, llama.cpp, and the peak memory.

    Works are as large, and as often repeated, as ``settings.minutes`` allow.
    """
    start, rows = time.perf_counter(), []
    for done, dtype in enumerate(settings.dtypes):
        left = 60 * settings.minutes - (time.perf_counter() - start)
        rows += _measure(settings, dtype, population, left / (len(settings.dtypes) - done))
    return rows


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


def as_rows(requests: list[Instance], prompts: Prompts) -> list[list[Instance]]:
    """Group requests by prompt."""
    left = iter(requests)
    return [[next(left) for _ in row] for row in prompts.choices]


def _measure(settings: Settings, dtype: str, population: int, seconds: float) -> list[Row]:
    """Measure one dtype in about ``seconds``: loading and memory included, but at least one round of everything."""
    start = time.perf_counter()
    say(f"packing, {dtype}: memory, loading")
    # Before this process maps the files too: shared pages are not given back.
    ours = peak_of(_ours_once, settings, dtype)
    model, prompts = loaded(settings, dtype), fit_prompts()
    soft = soft_prompts(model, population)
    loading = time.perf_counter() - start
    model.answer(prompts, soft[:1])
    once = wall(lambda: model.answer(prompts, soft[:1]))
    sizes = sorted({1, population if population * once < seconds / POPULATION_SHARE else 1})
    with TemporaryDirectory() as temporary:
        adapter = Path(temporary) / "adapter"
        AlignedModel(model, soft[:1]).save(adapter)
        peer = Peer.of(stock(settings, dtype, adapter), model.tokenizer, prompts, seconds / PEER_SHARE)
        llama, populations = _llama(settings, model, prompts), {f"population {size}": soft[:size] for size in sizes}
        left = seconds - (time.perf_counter() - start) - loading  # the peer's memory is measured after that
        rows = compare(model, peer, prompts, populations, settings, left, llama)
        say(f"packing, {dtype}: memory of the peer")
        peer_peak = peak_of(_peer_once, settings, dtype, adapter, peer.batch)
    note = f"ours {ours / 2**20:,.0f} MiB, peer {peer_peak / 2**20:,.0f} MiB at batch size {peer.batch}"
    if llama:
        note += f", llama.cpp {llama.answer['peak'] / 2**20:,.0f} MiB"
        llama.close()
    return [*rows, Row(name="peak memory", dtype=dtype, ratio=peer_peak / ours, note=note)]


def _llama(settings: Settings, model: LanguageModel, prompts: Prompts) -> LlamaCpp | None:
    if not (settings.llama and settings.gguf):
        return None
    return LlamaCpp(settings.llama, settings.gguf, encode(model.chat, prompts), model.info.threads)


@dataclass(frozen=True)
class Peer:
    """Stock lm-eval at its best batch size, and the requests of some of the prompts, ``chosen`` of ``total``."""

    lm: HFLM
    requests: list[Instance]
    chosen: list[int]
    total: int

    @classmethod
    def of(cls, lm: HFLM, tokenizer: Any, prompts: Prompts, seconds: float = math.inf) -> Peer:
        """Choose prompts for an lm-eval model and set its best batch size."""
        rows = as_rows(as_requests(tokenizer, prompts), prompts)
        chosen = some_prompts(lm, rows, seconds)
        requests = [request for at in chosen for request in rows[at]]
        use_best_batch(lm, requests, len(prompts.choices[0]))
        return cls(lm, requests, chosen, len(rows))

    @property
    def batch(self) -> int:
        """The batch size."""
        return int(self.lm.batch_size_per_gpu)

    @property
    def share(self) -> float:
        """The share of the prompts that is read in a pass."""
        return len(self.chosen) / self.total

    def ask(self) -> list[float]:
        """Compute the log-likelihoods of the requests."""
        return loglikelihoods(self.lm, self.requests)


def compare(
    model: LanguageModel,
    peer: Peer,
    prompts: Prompts,
    populations: Mapping[str, np.ndarray],
    settings: Settings,
    seconds: float = math.inf,
    llama: LlamaCpp | None = None,
) -> list[Row]:
    """Measure populations, and llama.cpp if it is there, in the same rounds; ``seconds`` of a row are per candidate.

    ``ratio`` and ``seconds_peer`` are for all prompts, also if the peer read some of them.
    """
    first = next(iter(populations.values()))
    tokens, dtype = model.cost(prompts, first.shape[1]), model.info.dtype
    works: dict[str, Callable[[], Any]] = {
        name: partial(model.answer, prompts, soft) for name, soft in populations.items()
    }
    bare = floors(model.model, tokens, len(prompts))
    works |= {"peer": peer.ask} | bare
    if llama:
        works |= {"bare": lambda: model.answer(prompts), "llama.cpp": llama.ask}
    say(f"packing, {dtype}: {', '.join(works)}; {len(peer.chosen)} of {peer.total} prompts by the peer")
    times = alternate(works, settings.repeats, seconds=seconds)
    rounds, difference = len(times["peer"]), largest_difference(model, peer, prompts, first[0])
    rows = []
    for name, soft in populations.items():
        each = [value / len(soft) for value in times[name]]
        theirs = [value / peer.share for value in times["peer"]]
        shares = {kernel: ratio(times[kernel], each) for kernel in bare}
        best = min(bare, key=lambda kernel: statistics.median(times[kernel]), default=None)
        facts = [f"{tokens:,} tokens, {tokens / statistics.median(each):,.0f} tokens/s", f"{rounds} rounds"]
        facts += [f"peer batch size {peer.batch}, {len(peer.chosen)} of {peer.total} prompts"]
        facts += [f"{kernel} floor {share:.0%}" for kernel, share in shares.items()]
        rows.append(
            Row(
                name=name,
                dtype=dtype,
                seconds=statistics.median(each),
                seconds_peer=statistics.median(theirs),
                ratio=ratio(theirs, each),
                floor_share=shares[best] if best else None,
                max_abs_diff=difference,
                note="; ".join(facts),
            )
        )
    return [*rows, *([_llama_row(model, prompts, llama, times)] if llama else [])]


def _llama_row(model: LanguageModel, prompts: Prompts, llama: LlamaCpp, times: dict[str, list[float]]) -> Row:
    ours = model.logprobs(prompts)[0].detach().double().log_softmax(-1).numpy()
    theirs = np.array(llama.answer["logs"])
    theirs -= np.logaddexp.reduce(theirs, axis=-1, keepdims=True)
    seconds = {name: statistics.median(times[name]) for name in ("bare", "llama.cpp")}
    changed = np.abs(np.exp(theirs) - np.exp(ours))
    note = (
        f"no soft prompt; {llama.tokens / seconds['bare']:,.0f} tokens/s, llama.cpp "
        f"{llama.tokens / seconds['llama.cpp']:,.0f}; option probabilities differ by {changed.max():.2g} at most; "
        f"{(ours.argmax(-1) == theirs.argmax(-1)).mean():.0%} of argmax codes equal"
    )
    return Row(
        name="llama.cpp",
        dtype=model.info.dtype,
        seconds=seconds["bare"],
        seconds_peer=seconds["llama.cpp"],
        ratio=ratio(times["llama.cpp"], times["bare"]),
        note=note,
    )


def largest_difference(model: LanguageModel, peer: Peer, prompts: Prompts, soft: np.ndarray) -> float:
    """Compute the largest difference in log-likelihood on the peer's prompts, with the options of a prompt normalised.

    Normalised because lm-eval adds white space at the context's end, such as a chat template's line break, to every
    option of a prompt, where it cancels.
    """
    with torch.inference_mode():
        tensor = torch.from_numpy(soft)[None].to(model.model.device)
        ours = model.logprobs(prompts, tensor)[0, peer.chosen].double().log_softmax(-1).cpu().numpy()
    theirs = np.full(ours.shape, -np.inf)
    theirs[np.isfinite(ours)] = peer.ask()
    theirs -= np.logaddexp.reduce(theirs, axis=-1, keepdims=True)
    asked = np.isfinite(ours)
    return float(np.abs(ours[asked] - theirs[asked]).max())


def _ours_once(settings: Settings, dtype: str) -> None:
    model = loaded(settings, dtype)
    model.answer(fit_prompts(), soft_prompts(model, 1))


def _peer_once(settings: Settings, dtype: str, adapter: Path, batch: int) -> None:
    peer = stock(settings, dtype, adapter, batch)
    prompts = fit_prompts()
    requests = as_requests(peer.tokenizer, prompts)
    loglikelihoods(peer, requests[: batch * len(prompts.choices[0])])
