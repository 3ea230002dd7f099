"""Build requests and read replies of the two endpoints of the OpenAI API, in the form that many servers support.

Option probabilities come from a completions endpoint that repeats the prompt with its log-probabilities (``echo``), as
exact as those of a local model, or from the most probable first tokens (``logprobs``, ``top_logprobs``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ...errors import RunError
from ...tasks.schema import Strict
from ...tasks.spec import first_problem
from .http import Endpoint, InvalidResponse, RequestRejected
from .response_log import Ask, Message, Reply
from .settings import Address, EndpointSettings, one_line

_LADDER = {
    False: ("echo", 20, 5, 0),
    True: (20, 5, 0),
}  # by whether prompts are chats; servers differ in how many tokens they return
_FILTERED = ("content_filter", "content_policy_violation")
_FAILED = ("error", "abort", "cancelled", "canceled")  # reasons to finish that are failures of the server
# A message rejects a parameter if it quotes the name, but not as a key of a repeated body, or has a refusal beside the
# name. A name within a longer one, such as a model's or a host's, is none.
_NAME = r"(?<![\w./@-])%s(?![\w/@-]|[.:]\w)"
_QUOTED = r"""(['"`])%s\1(?!\s*[:=])"""
_REFUSAL = (
    r"\b(?:un(?:supported|known|recogni[sz]ed|expected)|invalid|forbidden|deprecated|does(?: not|n't) support|"
    r"not (?:yet |currently )?(?:supported|permitted|allowed|recogni[sz]ed|implemented|available))\b"
)
_BETWEEN = (
    r"(?:[\s:=,.\d'\"`(){}]|\b(?:the|is|are|for|on|this|model|name|request|input|inputs|body|extra|keyword|supplied|"
    r"provided|value|field|(?:argument|parameter|option|property|sequence)s?)\b)*"
)
_LIMITED = (_NAME + r"""['"`:\s]* (?:must|should|cannot|only)\b""", r"\bonly " + _NAME)
_REJECTIONS = (_QUOTED, _REFUSAL + _BETWEEN + _NAME, _NAME + _BETWEEN + _REFUSAL, *_LIMITED)
Parameter = Literal["max_tokens", "temperature", "top_p", "seed", "stop"]
_MAY_GO: tuple[Parameter, ...] = get_args(Parameter)


class Dialect(Strict):
    """The capabilities of an endpoint, stored in the run's folder so that they are determined once.

    ``met``: it has replied. ``echo``: it repeats prompts with their log-probabilities; otherwise ``likeliest`` is the
    number of most probable first tokens it returns, None if unknown. ``left_out`` are parameters that it rejected
    (instead of ``max_tokens`` it accepts ``max_completion_tokens``). ``model`` and ``fingerprint`` are self-reported.
    """

    met: bool = False
    echo: bool = False
    likeliest: Annotated[int, Field(ge=0, le=100)] | None = None
    left_out: tuple[Parameter, ...] = ()
    model: Annotated[str, Field(max_length=200)] = ""
    fingerprint: Annotated[str, Field(max_length=200)] = ""

    @property
    def probabilities(self) -> bool:
        """Whether it is known to return option probabilities."""
        return self.echo or bool(self.likeliest)

    @property
    def way(self) -> str:
        """Description of how option probabilities are read."""
        return "echo" if self.echo else f"first token, {self.likeliest} likeliest" if self.likeliest else "text"


class _Loose(BaseModel):
    """Part of a reply; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Token(_Loose):
    token: str
    logprob: float
    top_logprobs: tuple[_Token, ...] = ()


class _Logprobs(_Loose):
    """Log-probabilities of either endpoint: ``content`` by token, or parallel lists."""

    content: tuple[_Token, ...] | None = None
    tokens: tuple[str, ...] | None = None
    token_logprobs: tuple[float | None, ...] | None = None
    top_logprobs: tuple[dict[str, float] | None, ...] | None = None

    def first(self) -> list[tuple[str, float]]:
        """Return the most probable first tokens with their log-probabilities; empty if there are none."""
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
    error: Any = None


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
    """Source of replies from one model behind one of the two endpoints."""

    def __init__(self, address: Address, api: EndpointSettings, say: Callable[[str], None]) -> None:
        self.address, self.endpoint, self.say = address, Endpoint(address, api, say), say

    def contact(self, ask: Ask, dialect: Dialect) -> tuple[Dialect, Reply]:
        """Determine the endpoint's capabilities with one request, trying the most informative method first.

        Raises:
            UnavailableError, RunError: as ``Endpoint.post``.
        """
        for step in _LADDER[self.address.chat] if ask.options else (None,):
            if step is not None:
                dialect = dialect.model_copy(
                    update={"echo": step == "echo", "likeliest": 0 if step == "echo" else step}
                )
            dialect, reply = self._on_step(ask, dialect, last=not step)
            if reply is not None:
                reported = {
                    "met": True,
                    "model": one_line(reply.model, 100),
                    "fingerprint": one_line(reply.fingerprint, 60),
                }
                return dialect.model_copy(update=reported), reply
        raise AssertionError("the last step returns a reply or raises")

    def _on_step(self, ask: Ask, dialect: Dialect, last: bool) -> tuple[Dialect, Reply | None]:
        """Send a request, dropping parameters that the endpoint rejects by name; no reply if it lacks probabilities.

        Parameters stay dropped only if the request without them is accepted.
        """
        got: list[Reply] = []
        tried = dialect
        while True:
            try:
                self._post([ask], tried, lambda _, reply: got.append(reply), known=False)
            except RequestRejected as error:
                if parameter := _rejected(error, body_of(self.address, ask, tried)):
                    tried = tried.model_copy(update={"left_out": (*tried.left_out, parameter)})
                    continue
                if last:
                    raise
                return dialect, None
            except _NoProbabilities:
                pass
            for parameter in tried.left_out[len(dialect.left_out) :]:
                self.say(f"{self.address.host}: rejects {parameter}; requests are sent without it")
            return tried, next(iter(got), None)

    def ask(self, asks: Sequence[Ask], dialect: Dialect, got: Callable[[int, Reply], None]) -> None:
        """Send all requests; call ``got(number, reply)`` as each reply arrives.

        Raises:
            UnavailableError, RunError: as ``Endpoint.post``.
        """
        self._post(asks, dialect, got, known=True)

    def _post(self, asks: Sequence[Ask], dialect: Dialect, got: Callable[[int, Reply], None], *, known: bool) -> None:
        """Send requests as ``ask``; ``known``: the endpoint has given probabilities, if the dialect says so."""

        def read(number: int, reply: Any) -> None:
            got(number, reply_of(reply, asks[number], dialect, self.address, known))

        def filtered(number: int, error: RequestRejected) -> bool:
            if error.code in _FILTERED:
                got(number, Reply(finish="content_filter"))
            return error.code in _FILTERED

        self.endpoint.post([body_of(self.address, ask, dialect) for ask in asks], read, filtered)


class _NoProbabilities(RunError):
    """A reply without the requested probabilities."""


def _rejected(error: RequestRejected, sent: Mapping[str, Any]) -> Parameter | None:
    """Return a parameter of a request that an error names: in its fields if it has any, else in its message."""
    for name in _MAY_GO:
        named = (re.search(pattern % name, error.message, re.I) for pattern in _REJECTIONS)
        if name in sent and (name in error.fields if error.fields else any(named)):
            return name
    return None


def body_of(address: Address, ask: Ask, dialect: Dialect) -> dict[str, Any]:
    """Build the JSON body of a request."""
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
    """Add the required beginning of the answer to the last message; chat endpoints cannot continue an answer."""
    if not begun:
        return list(chat)
    return [*chat[:-1], {**chat[-1], "content": f"{chat[-1]['content']}\n\nBegin your answer with: {begun}"}]


def transcript(chat: Sequence[Message], begun: str = "") -> str:
    """Convert a chat to plain text: the text of a single message, else one line per message."""
    text = chat[0]["content"]
    if len(chat) > 1:
        text = "".join(f"{message['role']}: {message['content']}\n" for message in chat) + "assistant:"
    return f"{text} {begun}" if begun else text


def reply_of(given: Any, ask: Ask, dialect: Dialect, address: Address, known: bool) -> Reply:
    """Parse and validate a reply.

    Args:
        known: the endpoint has given probabilities before: an empty, refused or filtered reply without them has no
            information on the options, like a filtered prompt.

    Raises:
        InvalidResponse: it is not a completion, or the server could not finish it. RunError: it lacks the requested
            probabilities.
    """
    try:
        completion = _COMPLETION.validate_python(given)
    except ValidationError as error:
        raise InvalidResponse(f"a reply that is not a completion ({first_problem(error)[:150]})") from None
    used, choice = completion.usage or _Used(), completion.choices[0]
    if failed := next((one for one in completion.choices if one.error or one.finish_reason in _FAILED), None):
        reason = one_line(failed.error or failed.finish_reason, 100)
        raise InvalidResponse(f"a reply that the server could not finish ({reason})")
    if choice.message is None and choice.text is None:
        raise InvalidResponse("a reply that is not a completion (choices.0: neither text nor message)")
    logs = None
    if ask.options and dialect.probabilities:
        logs = _echoed(completion, ask) if dialect.echo else _first_token_logs(choice, ask.options)
        if logs is None and not (known and any(map(_is_silent, completion.choices))):
            raise _NoProbabilities(f"{address.host}: a reply lacks the probabilities that earlier ones had.")
    content = choice.message.content or choice.message.refusal if choice.message else choice.text
    text = "" if ask.options and dialect.echo else (content or "")[: 1 << 17]
    return Reply(
        text=opened(text, ask.begun),
        logs=logs,
        finish=one_line(choice.finish_reason or ""),
        model=one_line(completion.model or ""),
        fingerprint=one_line(completion.system_fingerprint or ""),
        tokens_in=used.prompt_tokens,
        tokens_out=used.completion_tokens,
    )


def _is_silent(choice: _Choice) -> bool:
    """Return whether a model gave no answer: nothing, a refusal, or one that was filtered."""
    content = choice.message.content if choice.message else choice.text
    return choice.finish_reason in _FILTERED or not (content or "").strip()


def opened(text: str, begun: str) -> str:
    """Return a text with its required beginning, whether the model repeated it or not."""
    return f"{begun} {re.sub(rf'^{re.escape(begun)}', '', text.strip(), flags=re.I).strip()}" if begun else text


def _first_token_logs(choice: _Choice, options: Sequence[str]) -> tuple[float | None, ...] | None:
    """Return log-probabilities of options among the first tokens, ignoring spaces; None if there are no tokens."""
    likeliest = choice.logprobs.first() if choice.logprobs else []
    if not likeliest:
        return None
    by_token: dict[str, list[float]] = {}
    for token, log in likeliest:
        by_token.setdefault(token.strip(" \t▁Ġ"), []).append(min(log, 0.0))
    return tuple(_log_sum(by_token[option]) if option in by_token else None for option in options)


def _log_sum(logs: Sequence[float]) -> float | None:
    top = max(logs)
    return min(0.0, top + math.log(sum(math.exp(log - top) for log in logs)))


def _echoed(completion: _Completion, ask: Ask) -> tuple[float, ...] | None:
    """Return the log-probability of each option over all its tokens; None if the prompts are not repeated."""
    by_index: Mapping[int, _Choice] = {choice.index: choice for choice in completion.choices}
    tails = (_tail(by_index[i], option) for i, option in enumerate(ask.options) if i in by_index)
    logs = tuple(log for log in tails if log is not None)
    return logs if len(logs) == len(ask.options) else None


_SPACES = str.maketrans("▁Ġ", "  ")  # as vocabularies write a space


def _tail(choice: _Choice, option: str) -> float | None:
    """Return the log-probability of an option at the end of a repeated prompt, before the generated token."""
    given = choice.logprobs
    if not given or not given.tokens or not given.token_logprobs or len(given.tokens) != len(given.token_logprobs):
        return None
    text, total = "", 0.0
    for token, log in _backwards(given.tokens[:-1], given.token_logprobs[:-1]):
        if log is None or not math.isfinite(log):
            return None
        text, total = token.translate(_SPACES) + text, total + min(log, 0.0)
        if text.strip(" ") == option:
            return total
        if len(text.strip(" ")) > len(option):
            return None
    return None


def _backwards(tokens: Sequence[str], logs: Sequence[float | None]) -> Iterator[tuple[str, float | None]]:
    return zip(reversed(tokens), reversed(logs), strict=True)
