"""A model behind an endpoint: answers prompts like a ``LanguageModel``, with probabilities if it returns them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np

from ...errors import CultevalError, UnavailableError, UnreadableError, UsageError
from ...tasks.answers import Answers, shares, unweighed
from ...tasks.prompts import Prompts
from ...tasks.verbalized import stated_answers
from ..model_info import ModelInfo
from ..util.atomic_io import write_json
from ..util.display import Done
from .openai import Dialect, OpenAISource
from .response_log import REPLIES, Ask, Replies, Reply, key_of
from .settings import OPENAI, Address, EndpointSettings, address_of

ENDPOINT = "endpoint.json"
_TEXT_TASKS = "Use a task scored by text, such as vsm13_text or wvs_text, and `scoring` text for a search."
Tell = Callable[[int, int], None]
"""Called with the number of completed requests and of all requests."""


class Source(Protocol):
    """The connection to one kind of endpoint."""

    def contact(self, ask: Ask, dialect: Dialect) -> tuple[Dialect, Reply]:
        """Determine the endpoint's capabilities with one request."""

    def ask(self, asks: Sequence[Ask], dialect: Dialect, got: Callable[[int, Reply], None]) -> None:
        """Send all requests; call ``got(number, reply)`` as each reply arrives."""


class ApiModel:
    """A model behind an endpoint. ``at`` binds it to a run's folder, in which replies are stored as they arrive.

    ``tokens`` is the number of tokens of the replies used in this process, stored ones included, so that a resumed run
    counts what an uninterrupted one does.
    """

    has_weights = False
    context_length: int | None = None

    def __init__(self, name: str, api: EndpointSettings, say: Callable[[str], None]) -> None:
        """Validate name and settings; no request is sent.

        Raises:
            UsageError, UnavailableError: as ``address_of`` and ``key_for``.
        """
        self.address, self.api, self.say = address_of(name, api), api, say
        self.source = _source(self.address, api, say)
        self.tokens = 0
        self._dialect = Dialect()
        self._replies = Replies(None)
        self._tell: Tell = lambda done, total: None

    def at(self, folder: Path, tell: Tell) -> ApiModel:
        """Return the same model, with replies stored in a folder and progress passed to ``tell``."""
        bound = copy.copy(self)
        bound._replies, bound._tell, bound._dialect = Replies(folder), tell, Dialect()
        return bound

    @property
    def info(self) -> ModelInfo:
        """Known metadata; ``revision`` and ``forward`` are known only after a reply."""
        known = self._dialect
        without = f" without {', '.join(known.left_out)}" if known.left_out else ""
        return ModelInfo(
            name=self.address.name,
            revision=" ".join(filter(None, (known.model, known.fingerprint))) or "unknown",
            dtype="unknown",
            device="api",
            threads=0,
            chat_template="of the endpoint" if self.address.chat else None,
            forward="api" if known.likeliest is None else f"{known.way}{without}",
        )

    def longest(self, prompts: Prompts, preamble: str = "", most: int = 0) -> int:
        """Raise UnavailableError: the tokenizer of an endpoint is unknown."""
        raise UnavailableError(f"{self.address.name}: the number of tokens of a prompt is unknown for an endpoint.")

    def watched(self, done: Done) -> AbstractContextManager[None]:
        """Return an empty context: ``tell`` of ``at`` is told of replies."""
        return nullcontext()

    def answer(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "") -> Answers:
        """Compute option probabilities of all prompts.

        Raises:
            UsageError: soft prompts are given.
            UnavailableError: the endpoint returns no probabilities, or as ``Endpoint.post``.
            UnreadableError: no answer begins with an option.
        """
        self._refuse(soft)
        logs, _ = self._read(prompts, preamble, 0)
        if logs is None:
            raise UnavailableError(
                f"{self.address.name}: returns no option probabilities, which {prompts.task} needs here. {_TEXT_TASKS}"
            )
        return Answers(prompts.layout, *self._weighed(logs, prompts))

    def generate(
        self,
        prompts: Prompts,
        soft: np.ndarray | None = None,
        preamble: str = "",
        most: int = 8,
        *,
        weighed: bool = True,
    ) -> Answers:
        """Generate texts up to the first line break, with option probabilities if ``weighed`` and it returns them.

        Those of ``verbalized`` prompts are whole, and state the probabilities.
        """
        self._refuse(soft)
        logs, texts = self._read(prompts, preamble, most, weighed)
        if prompts.verbalized:
            return stated_answers(prompts.layout, [text.lstrip() for text in texts])
        if logs is None or (prompts.layout.widths.any() and not np.isfinite(logs).any()):
            if weighed:
                self.say(f"{self.address.host} returns no option probabilities: {prompts.task} is scored by text only")
            probs, outside = unweighed(prompts.layout)
        else:
            probs, outside = self._weighed(logs, prompts)
        texts = [text.lstrip().partition("\n")[0] for text in texts]
        return Answers(prompts.layout, probs, outside, tuple(texts), prompts.parse(texts))

    def _refuse(self, soft: np.ndarray | None) -> None:
        if soft is not None:
            raise UsageError(f"{self.address.name}: an endpoint takes no soft prompts. Use an aligner that needs none.")

    def _read(
        self, prompts: Prompts, preamble: str, most: int, weighed: bool = True
    ) -> tuple[np.ndarray | None, list[str]]:
        """Return log-probabilities (prompts, options) or None, and texts if ``most`` is not 0.

        Missing log-probabilities are -inf, and all of them without ``weighed``. If the first token of an answer is
        read, one request gives both.
        """
        chats = [({"role": "user", "content": f"{preamble}{text}"},) for text in prompts.texts]
        closed = [] if prompts.verbalized or not weighed else np.flatnonzero(prompts.layout.widths > 0).tolist()
        if closed:
            self._contact(Ask(chats[closed[0]], max(most, 1), prompts.choices[closed[0]]))
        scored, echo = bool(closed) and self._dialect.probabilities, self._dialect.echo
        if scored and not echo:
            _require_first_tokens(self.address, prompts)
        asks = {row: Ask(chats[row], max(most, 1), prompts.choices[row]) for row in (closed if scored else ())}
        generated = {row: Ask(chat, most) for row, chat in enumerate(chats)} if most else {}
        if not echo:
            generated |= asks if most else {}
        replies = self.ask([*asks.values(), *generated.values()])
        logs = np.full(prompts.layout.codes.shape, -np.inf)
        for row, reply in zip(asks, replies, strict=False):
            logs[row, : prompts.layout.widths[row]] = [-np.inf if log is None else log for log in reply.logs or [None]]
        texts = [reply.text for reply in replies[len(asks) :]]
        return (None if closed and not scored else logs), texts

    def _weighed(self, logs: np.ndarray, prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
        """Compute probabilities (1, prompts, options) and the probability off the options (1, prompts).

        Open questions have no options: their rows are zero, and the probability off the options is 1. An answer that
        begins with no option carries no information: all options are equally probable, and that probability is 1 too.
        """
        inside, mass = prompts.layout.inside, np.exp(prompts.read_logs(logs))
        closed, silent = inside.any(1), inside.any(1) & ~mass.any(1)
        if silent.any() and silent.sum() == closed.sum():
            raise UnreadableError(
                f"{self.address.name}: no option of {prompts.task} is among the likeliest first tokens of any answer; "
                f"it answers in sentences. {_TEXT_TASKS}"
            )
        if silent.any():
            self.say(
                f"{silent.sum()} of {closed.sum()} prompts of {prompts.task}: no option among the likeliest first "
                "tokens; counted as answers without information, all mass outside"
            )
        even = inside / np.maximum(inside.sum(1, keepdims=True), 1)
        probs, outside = shares(mass)
        return np.where(mass.any(1, keepdims=True), probs, even)[None], outside[None]

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Return a reply to every request: stored ones, and new ones, each stored as it arrives.

        Raises:
            UnavailableError, RunError: as ``Endpoint.post``, with the number of stored replies and their file.
        """
        if not asks:
            return []
        self._contact(asks[0])
        keys = [self._key(ask) for ask in asks]
        replies = {key: reply for key in keys if (reply := self._replies.get(key)) is not None}
        missing = list({key: ask for key, ask in zip(keys, asks, strict=True) if key not in replies}.items())
        total = len(set(keys))

        def got(number: int, reply: Reply) -> None:
            key = missing[number][0]
            self._replies.add(key, reply)
            replies[key] = reply
            self._tell(len(replies), total)

        try:
            if missing:
                self.source.ask([ask for _, ask in missing], self._dialect, got)
        except CultevalError as error:
            raise type(error)(f"{error}\n{self._storage_note(len(replies), total)}") from None
        self.tokens += sum((reply.tokens_in or 0) + (reply.tokens_out or 0) for reply in replies.values())
        return [replies[key] for key in keys]

    def _storage_note(self, stored: int, total: int) -> str:
        where = self._replies.folder / REPLIES if self._replies.folder else "memory"
        return f"{stored} of {total} replies are stored in {where}; the same command requests the rest."

    def _contact(self, ask: Ask) -> None:
        """Determine the endpoint's capabilities, from the folder or with a first request, whose reply is stored."""
        if not self._dialect.met:
            self._dialect = self._known() or Dialect()
        if self._dialect.met and (self._dialect.likeliest is not None or not ask.options):
            return
        self._dialect, reply = self.source.contact(ask, self._dialect)
        self._replies.add(self._key(ask), reply)
        self._note_other_model()
        if self._replies.folder:
            record = {"model": self.address.name, "understands": self._dialect.model_dump(mode="json")}
            write_json(self._replies.folder / ENDPOINT, record)

    def _known(self) -> Dialect | None:
        """Read the capabilities of this endpoint from the folder; None if there are no valid ones."""
        if self._replies.folder is None:
            return None
        try:
            record = json.loads((self._replies.folder / ENDPOINT).read_bytes())
            return Dialect.model_validate(record["understands"]) if record["model"] == self.address.name else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _key(self, ask: Ask) -> str:
        if ask.options and self._dialect.echo:
            ask = ask._replace(most=1)  # the reply has no text, whatever its limit
        return key_of(self.address.name, ask, self._dialect.way if ask.options else "text")

    def _note_other_model(self) -> None:
        """Say so where a server answers with another model than the one asked for; OpenAI's reports a dated name."""
        asked, found = self.address.model.lower(), self._dialect.model.lower()
        if found and asked not in found and found not in asked and not self.address.url.startswith(f"{OPENAI}/"):
            self.say(f"{self.address.host}: asked for {self.address.model}, answers as {self._dialect.model}")


def _source(address: Address, api: EndpointSettings, say: Callable[[str], None]) -> Source:
    if address.url:
        return OpenAISource(address, api, say)
    from .lm_eval import LmEvalSource

    return LmEvalSource(address, api, say)


def _require_first_tokens(address: Address, prompts: Prompts) -> None:
    """Raise UnavailableError if the first token is not enough: for whole texts, or to tell options such as 1 and 10."""
    if prompts.cloze:
        raise UnavailableError(
            f"{address.name}: returns first tokens only, but {prompts.task} needs log-likelihoods of whole options. "
            "Use a completions endpoint that echoes prompts with log-probabilities, or a model in memory."
        )
    for row in set(prompts.choices):
        for one in row:
            if longer := next((other for other in row if other != one and other.startswith(one)), None):
                raise UnavailableError(
                    f"{address.name}: returns first tokens only, which cannot distinguish {one!r} from {longer!r} in "
                    f"{prompts.task}. {_TEXT_TASKS}"
                )
