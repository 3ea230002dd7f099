"""Request log-likelihoods and text from any model of lm-eval, which is configured by lm-eval's own arguments.

lm-eval returns a batch only when it is complete, so batches are small, and their replies are stored at once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from ...errors import RunError, UnavailableError
from .openai import Dialect, begun_in_words, opened, transcript
from .response_log import Ask, Reply
from .settings import Address, EndpointSettings, one_line, redacted

# Kinds of lm-eval that pass on a seed among a request's arguments; others reject it.
_SEEDED = (
    "local-completions", "local-chat-completions", "openai-completions", "openai-chat-completions",
    "azure-openai-chat-completions", "litellm", "litellm-chat", "litellm-chat-completions", "vllm",
)  # fmt: skip


class _NoLikelihoods(RunError):
    """A model that never returns log-likelihoods, as many behind an endpoint."""


class LmEvalSource:
    """Source of replies from one model of lm-eval, loaded at the first request."""

    def __init__(self, address: Address, api: EndpointSettings, say: Callable[[str], None]) -> None:
        self.address, self.batch = address, 8 * api.concurrency
        self.kind, _, self.arguments = address.model.partition(",")

    @cached_property
    def _model(self) -> Any:
        import lm_eval.models  # noqa: F401  (registers lm-eval's own models)
        from lm_eval.api.registry import get_model

        with self._quiet("cannot be loaded", lambda error: UnavailableError):
            return get_model(self.kind).create_from_arg_string(self.arguments, {})

    @contextlib.contextmanager
    def _quiet(self, failed: str, kind_of: Callable[[Exception], type[Exception]]) -> Iterator[None]:
        """Silence lm-eval, which may log secrets in a server's reply; raise its error as ``kind_of`` the error."""
        log = logging.getLogger("lm_eval")
        before, log.disabled = log.disabled, True
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield
        except Exception as error:  # a model of lm-eval may fail in any way
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise kind_of(error)(f"lm-eval {self.kind}: {failed} ({one_line(redacted(text[0]))}).") from None
        finally:
            logging.disable(level)
            log.disabled = before

    def contact(self, ask: Ask, dialect: Dialect) -> tuple[Dialect, Reply]:
        """Determine with one request whether the model returns log-likelihoods.

        Raises:
            UnavailableError: the model cannot be loaded. RunError: it fails.
        """
        got: list[Reply] = []
        known = {"met": True} | ({"echo": True, "likeliest": 0} if ask.options else {})
        dialect = dialect.model_copy(update=known)
        try:
            self.ask([ask], dialect, lambda _, reply: got.append(reply))
        except _NoLikelihoods:
            dialect = dialect.model_copy(update={"echo": False})
            self.ask([ask], dialect, lambda _, reply: got.append(reply))
        return dialect, got[0]

    def ask(self, asks: Sequence[Ask], dialect: Dialect, got: Callable[[int, Reply], None]) -> None:
        """Send all requests, batch by batch; call ``got(number, reply)`` with each reply.

        Raises:
            RunError: the model fails.
        """
        likelihoods = [i for i, ask in enumerate(asks) if ask.options and dialect.echo]
        texts = sorted(set(range(len(asks))) - set(likelihoods))
        for numbers, read in ((likelihoods, self._likelihoods), (texts, self._texts)):
            for at in range(0, len(numbers), self.batch):
                batch = numbers[at : at + self.batch]
                for number, reply in zip(batch, read([asks[i] for i in batch]), strict=True):
                    got(number, reply)

    def _context(self, ask: Ask) -> Any:
        if self.address.chat:
            return self._model.apply_chat_template([dict(message) for message in begun_in_words(ask.chat, ask.begun)])
        return transcript(ask.chat, ask.begun)

    def _likelihoods(self, asks: Sequence[Ask]) -> list[Reply]:
        space = "" if self.address.chat else " "
        pairs = [(self._context(ask), space + option) for ask in asks for option in ask.options]
        logs = iter(self._requested("loglikelihood", pairs))
        return [Reply(logs=tuple(min(float(next(logs)[0]), 0.0) for _ in ask.options)) for ask in asks]

    def _texts(self, asks: Sequence[Ask]) -> list[Reply]:
        requests = []
        for ask, seed in zip(asks, _seeds(asks), strict=True):
            drawn: dict[str, Any] = {"do_sample": False}
            if ask.top_p:
                drawn = {"do_sample": True, "temperature": 1.0, "top_p": ask.top_p}
                drawn |= {"seed": seed} if self.kind in _SEEDED else {}
            requests.append((self._context(ask), {"until": [], "max_gen_toks": ask.most, **drawn}))
        texts = [str(text)[: 1 << 17] for text in self._requested("generate_until", requests)]
        return [Reply(text=opened(redacted(text), ask.begun)) for ask, text in zip(asks, texts, strict=True)]

    def _requested(self, method: str, arguments: Sequence[tuple[Any, Any]]) -> list[Any]:
        from lm_eval.api.instance import Instance

        model = self._model
        lacking = method == "loglikelihood"
        with self._quiet("failed", lambda error: _NoLikelihoods if lacking and _never(error) else RunError):
            return getattr(model, method)([Instance(method, {}, pair, i) for i, pair in enumerate(arguments)])


def _never(error: Exception) -> bool:
    """Return whether an error of lm-eval means that a model never returns log-likelihoods.

    Its classes raise NotImplementedError, or fail to parse a reply without them; Watsonx has a message of its own. A
    server that cannot repeat prompts rejects the request. Other errors, such as a time-out, say nothing of the model.
    """
    last = traceback.extract_tb(error.__traceback__)[-1].name
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return (
        isinstance(error, NotImplementedError)
        or (isinstance(error, KeyError | TypeError) and last == "parse_logprobs")
        or "does not return logprobs" in str(error)
        or status in (400, 422)
    )


def _seeds(asks: Sequence[Ask]) -> Iterator[int]:
    """Yield a seed per request: the first request's seed, incremented for each repetition of a chat.

    lm-eval batches only requests with the same arguments.
    """
    seen: Counter[str] = Counter()
    for ask in asks:
        key = transcript(ask.chat, ask.begun)
        yield asks[0].seed + seen[key]
        seen[key] += 1
