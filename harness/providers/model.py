"""A model behind an API: answers prompts as a ``LanguageModel`` does, with probabilities where it tells them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ...errors import CultevalError, RunError, UnavailableError, UsageError
from ...tasks.answers import Answers, shares
from ...tasks.prompts import Prompts
from ..model_info import ModelInfo
from ..util.atomic_io import write_json
from .openai import Dialect, OpenAISource
from .response_log import REPLIES, Ask, Replies, Reply, key_of
from .settings import Address, EndpointSettings, address_of

ENDPOINT = "endpoint.json"
_TEXT_TASKS = "Take a task that is read as text, such as vsm13_text or wvs_text."
Tell = Callable[[int, int], None]
"""Told how many of how many requests are done."""


class Source(Protocol):
    """What carries requests to one kind of API."""

    def contact(self, ask: Ask, dialect: Dialect) -> tuple[Dialect, Reply]:
        """Find out with one request what is understood."""

    def ask(self, asks: Sequence[Ask], dialect: Dialect, got: Callable[[int, Reply], None]) -> None:
        """Ask all; ``got(number, reply)`` takes each reply as it arrives."""


class ApiModel:
    """A model behind an API. ``at`` binds it to a run's folder, in which its replies are kept as they arrive.

    ``tokens`` counts what it has read and written in this process.
    """

    has_weights = False
    context_length: int | None = None

    def __init__(self, name: str, api: EndpointSettings, say: Callable[[str], None]) -> None:
        """Nothing is asked yet.

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
        """The same model, keeping its replies in a folder and telling how far it is."""
        bound = copy.copy(self)
        bound._replies, bound._tell, bound._dialect = Replies(folder), tell, Dialect()
        return bound

    @property
    def info(self) -> ModelInfo:
        """What is known of it; ``revision`` and ``forward`` only once it has answered."""
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

    def longest(self, prompts: Prompts, preamble: str = "") -> int:
        """Raise UnavailableError: nobody here knows how an endpoint tokenises."""
        raise UnavailableError(f"{self.address.name}: an endpoint tells no tokens of a prompt before it is asked.")

    def answer(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "") -> Answers:
        """Option probabilities of all prompts.

        Raises:
            UsageError: soft prompts are given. UnavailableError: the API gives none, or as ``Endpoint.post``.
            RunError: no answer begins with an option.
        """
        self._refuse(soft)
        logs, _ = self._read(prompts, preamble, 0)
        if logs is None:
            raise UnavailableError(
                f"{self.address.name}: gives no option probabilities, which {prompts.task} needs. {_TEXT_TASKS}"
            )
        return Answers(prompts.layout, *self._weighed(logs, prompts))

    def generate(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "", most: int = 8) -> Answers:
        """Generated texts, ending at the first line break, beside the probabilities where there are any."""
        self._refuse(soft)
        logs, texts = self._read(prompts, preamble, most)
        if logs is None or (prompts.layout.widths.any() and not np.isfinite(logs).any()):
            self.say(f"{self.address.host} tells no option probabilities: {prompts.task} is read as text alone")
            probs, outside = np.zeros((1, *prompts.layout.codes.shape)), np.ones((1, len(prompts)))
        else:
            probs, outside = self._weighed(logs, prompts)
        texts = [text.lstrip().partition("\n")[0] for text in texts]
        return Answers(prompts.layout, probs, outside, tuple(texts), prompts.parse(texts))

    def _refuse(self, soft: np.ndarray | None) -> None:
        if soft is not None:
            raise UsageError(f"{self.address.name}: an endpoint takes no soft prompts. Use an aligner that needs none.")

    def _read(self, prompts: Prompts, preamble: str, most: int) -> tuple[np.ndarray | None, list[str]]:
        """Log-probabilities (prompts, options), -inf where none is told, or None; and texts, if ``most`` is not 0.

        Where an answer's first token is read, one request gives both.
        """
        chats = [({"role": "user", "content": f"{preamble}{text}"},) for text in prompts.texts]
        closed = np.flatnonzero(prompts.layout.widths > 0).tolist()
        if closed:
            self._contact(Ask(chats[closed[0]], max(most, 1), prompts.choices[closed[0]]))
        told, echo = bool(closed) and self._dialect.probabilities, self._dialect.echo
        if told and not echo:
            _require_apart(self.address, prompts)
        weighed = {row: Ask(chats[row], max(most, 1), prompts.choices[row]) for row in (closed if told else ())}
        spoken = {row: Ask(chat, most) for row, chat in enumerate(chats)} if most else {}
        if not echo:
            spoken |= weighed if most else {}
        replies = self.ask([*weighed.values(), *spoken.values()])
        logs = np.full(prompts.layout.codes.shape, -np.inf)
        for row, reply in zip(weighed, replies, strict=False):
            logs[row, : prompts.layout.widths[row]] = [-np.inf if log is None else log for log in reply.logs or [None]]
        texts = [reply.text for reply in replies[len(weighed) :]]
        return (None if closed and not told else logs), texts

    def _weighed(self, logs: np.ndarray, prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (1, prompts, options) and the mass outside (1, prompts).

        Open questions have no options: their rows stay zero, and all mass lies outside. An answer that begins with no
        option says nothing of them: all are as probable, and all mass lies outside too.
        """
        inside, mass = prompts.layout.inside, np.exp(logs)
        closed, silent = inside.any(1), inside.any(1) & ~mass.any(1)
        if silent.any() and silent.sum() == closed.sum():
            raise RunError(
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
        """A reply to every request: kept ones, and the others asked, each kept as it arrives.

        Raises:
            UnavailableError, RunError: as ``Endpoint.post``, with how many replies are kept and where.
        """
        if not asks:
            return []
        self._contact(asks[0])
        keys = [self._key(ask) for ask in asks]
        found = {key: reply for key in keys if (reply := self._replies.get(key)) is not None}
        missing = list({key: ask for key, ask in zip(keys, asks, strict=True) if key not in found}.items())
        total = len(set(keys))

        def got(number: int, reply: Reply) -> None:
            key = missing[number][0]
            self._keep(key, reply)
            found[key] = reply
            self._tell(len(found), total)

        try:
            if missing:
                self.source.ask([ask for _, ask in missing], self._dialect, got)
        except CultevalError as error:
            raise type(error)(f"{error}\n{self._told_kept(len(found), total)}") from None
        return [found[key] for key in keys]

    def _told_kept(self, kept: int, total: int) -> str:
        where = self._replies.folder / REPLIES if self._replies.folder else "memory"
        return f"{kept} of {total} replies are kept in {where}; the same command asks for the rest."

    def _contact(self, ask: Ask) -> None:
        """Learn what the endpoint understands, from the folder or with a first request, whose reply is kept."""
        if not self._dialect.met:
            self._dialect = self._known() or Dialect()
        if self._dialect.met and (self._dialect.likeliest is not None or not ask.options):
            return
        self._dialect, reply = self.source.contact(ask, self._dialect)
        self._keep(self._key(ask), reply)
        if self._replies.folder:
            record = {"model": self.address.name, "understands": self._dialect.model_dump(mode="json")}
            write_json(self._replies.folder / ENDPOINT, record)

    def _known(self) -> Dialect | None:
        """What the folder says of this endpoint; None where it says nothing that can be used."""
        if self._replies.folder is None:
            return None
        try:
            found = json.loads((self._replies.folder / ENDPOINT).read_bytes())
            return Dialect.model_validate(found["understands"]) if found["model"] == self.address.name else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _key(self, ask: Ask) -> str:
        if ask.options and self._dialect.echo:
            ask = ask._replace(most=1)  # no text comes of it, however much was asked for
        return key_of(self.address.name, ask, self._dialect.way if ask.options else "text")

    def _keep(self, key: str, reply: Reply) -> None:
        self.tokens += (reply.tokens_in or 0) + (reply.tokens_out or 0)
        self._replies.add(key, reply)


def _source(address: Address, api: EndpointSettings, say: Callable[[str], None]) -> Source:
    if address.url:
        return OpenAISource(address, api, say)
    from .lm_eval import LmEvalSource

    return LmEvalSource(address, api, say)


def _require_apart(address: Address, prompts: Prompts) -> None:
    """Raise UnavailableError where the first token cannot tell two options apart, such as 1 and 10."""
    for row in set(prompts.choices):
        for one in row:
            if longer := next((other for other in row if other != one and other.startswith(one)), None):
                raise UnavailableError(
                    f"{address.name}: tells first tokens alone, which cannot tell {one!r} from {longer!r} in "
                    f"{prompts.task}. {_TEXT_TASKS}"
                )
