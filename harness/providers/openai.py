"""The OpenAI API's two endpoints, as far as many servers speak it: what is sent, and how replies are read.

Option probabilities come from a completions endpoint that repeats the prompt with its log-probabilities (``echo``), as
exact as a local model's, or from the likeliest first tokens that an endpoint tells (``logprobs``, ``top_logprobs``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ...errors import RunError
from ...tasks.schema import Strict
from ...tasks.spec import first_problem
from .http import Endpoint, InvalidResponse, RequestRejected
from .response_log import Ask, Message, Reply
from .settings import Address, EndpointSettings, one_line

_LADDER = {"openai": ("echo", 20, 5, 0), "openai-chat": (20, 5, 0)}  # how many likeliest tokens servers tell varies
_MAY_GO = ("max_tokens", "temperature", "top_p", "seed", "stop")
_FILTERED = ("content_filter", "content_policy_violation")
Parameter = Literal["max_tokens", "temperature", "top_p", "seed", "stop"]


class Dialect(Strict):
    """What an endpoint turned out to understand; kept in the run's folder, so that it is found out once.

    ``met``: it has answered. ``echo``: it repeats prompts with their log-probabilities; otherwise it tells so many
    ``likeliest`` first tokens, None where nobody has asked yet. ``left_out`` are parameters it refused (for
    ``max_tokens`` it takes ``max_completion_tokens``). ``model`` and ``fingerprint`` are what it says of itself.
    """

    met: bool = False
    echo: bool = False
    likeliest: Annotated[int, Field(ge=0, le=100)] | None = None
    left_out: tuple[Parameter, ...] = ()
    model: Annotated[str, Field(max_length=200)] = ""
    fingerprint: Annotated[str, Field(max_length=200)] = ""

    @property
    def probabilities(self) -> bool:
        """Whether it tells option probabilities, as far as is known."""
        return self.echo or bool(self.likeliest)

    @property
    def way(self) -> str:
        """How option probabilities are read, in words."""
        return "echo" if self.echo else f"first token, {self.likeliest} likeliest" if self.likeliest else "text"


class _Loose(BaseModel):
    """Part of a reply: fields that others add are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Token(_Loose):
    token: str
    logprob: float
    top_logprobs: tuple[_Token, ...] = ()


class _Logprobs(_Loose):
    """Of either endpoint: ``content`` by token, or lists side by side."""

    content: tuple[_Token, ...] | None = None
    tokens: tuple[str, ...] | None = None
    token_logprobs: tuple[float | None, ...] | None = None
    top_logprobs: tuple[dict[str, float] | None, ...] | None = None

    def first(self) -> list[tuple[str, float]]:
        """The likeliest first tokens; none where nothing is told."""
        if self.content:
            return [(one.token, one.logprob) for one in self.content[0].top_logprobs]
        return list((self.top_logprobs[0] or {}).items()) if self.top_logprobs else []


class _Said(_Loose):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Loose):
    index: int = 0
    text: str | None = None
    message: _Said | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Used(_Loose):
    prompt_tokens: Annotated[int, Field(ge=0, le=1 << 40)] | None = None
    completion_tokens: Annotated[int, Field(ge=0, le=1 << 40)] | None = None


class _Completion(_Loose):
    choices: Annotated[tuple[_Choice, ...], Field(min_length=1)]
    model: str | None = None
    system_fingerprint: str | None = None
    usage: _Used | None = None


_COMPLETION = TypeAdapter(_Completion)


class OpenAISource:
    """Asks one model behind one of the two endpoints."""

    def __init__(self, address: Address, api: EndpointSettings, say: Callable[[str], None]) -> None:
        self.address, self.endpoint, self.say = address, Endpoint(address, api, say), say

    def contact(self, ask: Ask, dialect: Dialect) -> tuple[Dialect, Reply]:
        """Find out with one question what the endpoint understands, the most telling way first.

        Raises:
            UnavailableError, RunError: as ``Endpoint.post``.
        """
        for step in _LADDER[self.address.kind] if ask.options else (None,):
            if step is not None:
                dialect = dialect.model_copy(
                    update={"echo": step == "echo", "likeliest": 0 if step == "echo" else step}
                )
            dialect, reply = self._on_step(ask, dialect, last=not step)
            if reply is not None:
                said = {
                    "met": True,
                    "model": one_line(reply.model, 100),
                    "fingerprint": one_line(reply.fingerprint, 60),
                }
                return dialect.model_copy(update=said), reply
        raise AssertionError("the last step gives a reply or raises")

    def _on_step(self, ask: Ask, dialect: Dialect, last: bool) -> tuple[Dialect, Reply | None]:
        """A reply in this dialect, less what is refused by name; None where it lacks what was wanted."""
        got: list[Reply] = []
        while True:
            try:
                self.ask([ask], dialect, lambda _, reply: got.append(reply))
            except RequestRejected as error:
                sent = body_of(self.address, ask, dialect)
                named = (name for name in _MAY_GO if name in sent and re.search(rf"\b{name}\b", str(error)))
                if odd := next(named, None):
                    self.say(f"{self.address.host}: refuses {odd}; asked without it")
                    dialect = dialect.model_copy(update={"left_out": (*dialect.left_out, odd)})
                    continue
                if last:
                    raise
                return dialect, None
            except _NoProbabilities:
                return dialect, None
            return dialect, got[0]

    def ask(self, asks: Sequence[Ask], dialect: Dialect, got: Callable[[int, Reply], None]) -> None:
        """Ask all; ``got(number, reply)`` takes each reply as it arrives.

        Raises:
            UnavailableError, RunError: as ``Endpoint.post``.
        """

        def read(number: int, reply: Any) -> None:
            got(number, reply_of(reply, asks[number], dialect, self.address))

        def filtered(number: int, error: RequestRejected) -> bool:
            if error.code in _FILTERED:
                got(number, Reply(finish="content_filter"))
            return error.code in _FILTERED

        self.endpoint.post([body_of(self.address, ask, dialect) for ask in asks], read, filtered)


class _NoProbabilities(RunError):
    """A reply without the probabilities that were asked for."""


def body_of(address: Address, ask: Ask, dialect: Dialect) -> dict[str, Any]:
    """The JSON that is sent."""
    body: dict[str, Any] = {"model": address.model, "max_tokens": ask.most, "seed": ask.seed}
    body |= {"temperature": 1.0, "top_p": ask.top_p} if ask.top_p else {"temperature": 0.0}
    if address.chat:
        body["messages"] = begun_in_words(ask.chat, ask.begun)
        if ask.options and dialect.likeliest:
            body |= {"logprobs": True, "top_logprobs": dialect.likeliest}
    else:
        text = transcript(ask.chat, ask.begun)
        body["prompt"] = text
        if len(ask.chat) > 1:
            body["stop"] = ["\nuser:", "\nassistant:", "\nsystem:"]
        if ask.options and dialect.echo:
            body |= {"prompt": [f"{text} {o}" for o in ask.options], "max_tokens": 1, "echo": True, "logprobs": 1}
        elif ask.options and dialect.likeliest:
            body["logprobs"] = dialect.likeliest
    kept = {name: value for name, value in body.items() if name not in dialect.left_out}
    return kept | ({"max_completion_tokens": body["max_tokens"]} if "max_tokens" in dialect.left_out else {})


def begun_in_words(chat: Sequence[Message], begun: str) -> list[Message]:
    """A chat whose last message asks for an answer that begins so; chat endpoints have no way to begin it for them."""
    if not begun:
        return list(chat)
    return [*chat[:-1], {**chat[-1], "content": f"{chat[-1]['content']}\n\nBegin your answer with: {begun}"}]


def transcript(chat: Sequence[Message], begun: str = "") -> str:
    """A chat as plain text: a single message is its text, a longer chat has a line a message."""
    text = chat[0]["content"]
    if len(chat) > 1:
        text = "".join(f"{each['role']}: {each['content']}\n" for each in chat) + "assistant:"
    return f"{text} {begun}" if begun else text


def reply_of(given: Any, ask: Ask, dialect: Dialect, address: Address) -> Reply:
    """A reply from what an endpoint sent.

    Raises:
        InvalidResponse: it is none. RunError: the probabilities asked for are not in it.
    """
    try:
        completion = _COMPLETION.validate_python(given)
    except ValidationError as error:
        raise InvalidResponse(f"a reply that is no completion ({first_problem(error)[:150]})") from None
    used, choice = completion.usage or _Used(), completion.choices[0]
    if choice.message is None and choice.text is None:
        raise InvalidResponse("a reply that is no completion (choices.0: neither text nor message)")
    logs = None
    if ask.options and dialect.probabilities:
        logs = _echoed(completion, ask) if dialect.echo else _told(choice, ask.options)
        if logs is None:
            raise _NoProbabilities(f"{address.host}: a reply without the probabilities that earlier ones had.")
    said = choice.message.content or choice.message.refusal if choice.message else choice.text
    text = "" if ask.options and dialect.echo else (said or "")[: 1 << 17]
    return Reply(
        text=opened(text, ask.begun),
        logs=logs,
        finish=one_line(choice.finish_reason or ""),
        model=one_line(completion.model or ""),
        fingerprint=one_line(completion.system_fingerprint or ""),
        tokens_in=used.prompt_tokens,
        tokens_out=used.completion_tokens,
    )


def opened(text: str, begun: str) -> str:
    """A text with its beginning, whether the model repeated it or not."""
    return f"{begun} {re.sub(rf'^{re.escape(begun)}', '', text.strip(), flags=re.I).strip()}" if begun else text


def _told(choice: _Choice, options: Sequence[str]) -> tuple[float | None, ...] | None:
    """Log-probabilities of options among the likeliest first tokens, spaces aside; None where no token is told."""
    likeliest = choice.logprobs.first() if choice.logprobs else []
    if not likeliest:
        return None
    found: dict[str, list[float]] = {}
    for token, log in likeliest:
        found.setdefault(token.strip(" \t▁Ġ"), []).append(min(log, 0.0))
    return tuple(_log_sum(found[option]) if option in found else None for option in options)


def _log_sum(logs: Sequence[float]) -> float | None:
    top = max(logs)
    return min(0.0, top + math.log(sum(math.exp(log - top) for log in logs)))


def _echoed(completion: _Completion, ask: Ask) -> tuple[float, ...] | None:
    """Log-probability of each option after the prompt, over all its tokens; None where prompts are not repeated."""
    by_index: Mapping[int, _Choice] = {choice.index: choice for choice in completion.choices}
    tails = (_tail(by_index[i], option) for i, option in enumerate(ask.options) if i in by_index)
    found = tuple(log for log in tails if log is not None)
    return found if len(found) == len(ask.options) else None


def _tail(choice: _Choice, option: str) -> float | None:
    """The option's share of a repeated prompt: the last tokens but for the one that was generated."""
    told = choice.logprobs
    if not told or not told.tokens or not told.token_logprobs or len(told.tokens) != len(told.token_logprobs):
        return None
    text, total = "", 0.0
    for token, log in _backwards(told.tokens[:-1], told.token_logprobs[:-1]):
        if log is None or not math.isfinite(log):
            return None
        text, total = token + text, total + min(log, 0.0)
        if text.strip(" ▁Ġ") == option:
            return total
        if len(text.strip(" ▁Ġ")) > len(option):
            return None
    return None


def _backwards(tokens: Sequence[str], logs: Sequence[float | None]) -> Iterator[tuple[str, float | None]]:
    return zip(reversed(tokens), reversed(logs), strict=True)
