"""Any model of lm-eval, asked for log-likelihoods and text; its own arguments say how it is reached.

lm-eval hands back a batch when all of it is there, so batches are small, and what a batch gave is kept at once.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from ...errors import RunError, UnavailableError
from .openai import Dialect, begun_in_words, opened, transcript
from .response_log import Ask, Reply
from .settings import Address, EndpointSettings, one_line, redacted

# Kinds of lm-eval that hand a seed among a request's arguments on; others refuse it.
_SEEDED = (
    "local-completions", "local-chat-completions", "openai-completions", "openai-chat-completions",
    "azure-openai-chat-completions", "litellm", "litellm-chat", "litellm-chat-completions", "vllm",
)  # fmt: skip


class _NoLikelihoods(RunError):
    """A model that gave no log-likelihoods; many of those behind an API never do."""


class LmEvalSource:
    """Asks one model of lm-eval, loaded when first asked."""

    def __init__(self, address: Address, api: EndpointSettings, say: Callable[[str], None]) -> None:
        self.address, self.batch = address, 8 * api.concurrency
        self.kind, _, self.arguments = address.model.partition(",")

    @cached_property
    def _model(self) -> Any:
        import lm_eval.models  # noqa: F401  (registers lm-eval's own models)
        from lm_eval.api.registry import get_model

        with self._quiet("cannot be loaded", UnavailableError):
            return get_model(self.kind).create_from_arg_string(self.arguments, {})

    @contextlib.contextmanager
    def _quiet(self, failed: str, kind: type[Exception]) -> Iterator[None]:
        """lm-eval logs and prints as it likes, secrets in a server's reply included; its last error says enough."""
        log = logging.getLogger("lm_eval")
        before, log.disabled = log.disabled, True
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield
        except Exception as error:  # a model of lm-eval may fail in any way
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise kind(f"lm-eval {self.kind}: {failed} ({one_line(redacted(text[0]))}).") from None
        finally:
            logging.disable(level)
            log.disabled = before

    def contact(self, ask: Ask, dialect: Dialect) -> tuple[Dialect, Reply]:
        """Whether the model gives log-likelihoods, found out with one question.

        Raises:
            UnavailableError: it cannot be loaded. RunError: it fails.
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
        """Ask all, batch by batch; ``got(number, reply)`` takes each reply.

        Raises:
            RunError: the model fails.
        """
        likelihoods = [i for i, ask in enumerate(asks) if ask.options and dialect.echo]
        texts = sorted(set(range(len(asks))) - set(likelihoods))
        for numbers, read in ((likelihoods, self._likelihoods), (texts, self._texts)):
            for at in range(0, len(numbers), self.batch):
                some = numbers[at : at + self.batch]
                for number, reply in zip(some, read([asks[i] for i in some]), strict=True):
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
        found = []
        for ask, seed in zip(asks, _seeds(asks), strict=True):
            drawn: dict[str, Any] = {"do_sample": False}
            if ask.top_p:
                drawn = {"do_sample": True, "temperature": 1.0, "top_p": ask.top_p}
                drawn |= {"seed": seed} if self.kind in _SEEDED else {}
            found.append((self._context(ask), {"until": [], "max_gen_toks": ask.most, **drawn}))
        texts = [str(text)[: 1 << 17] for text in self._requested("generate_until", found)]
        return [Reply(text=opened(redacted(text), ask.begun)) for ask, text in zip(asks, texts, strict=True)]

    def _requested(self, method: str, arguments: Sequence[tuple[Any, Any]]) -> list[Any]:
        from lm_eval.api.instance import Instance

        model = self._model
        with self._quiet("failed", _NoLikelihoods if method == "loglikelihood" else RunError):
            return getattr(model, method)([Instance(method, {}, pair, i) for i, pair in enumerate(arguments)])


def _seeds(asks: Sequence[Ask]) -> Iterator[int]:
    """A seed each: the first one's, and where a chat comes again, the next.

    lm-eval asks side by side only what has the same arguments.
    """
    seen: Counter[str] = Counter()
    for ask in asks:
        key = transcript(ask.chat, ask.begun)
        yield asks[0].seed + seen[key]
        seen[key] += 1
