"""Append-only log of an endpoint's replies, so that an interrupted run repeats no request."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from ...tasks.schema import Strict
from .settings import EndpointSettings

REPLIES = "responses.jsonl"
MOST_LINE = 1 << 20
Message = dict[str, str]
Tokens = Annotated[int, Field(ge=0, le=1 << 40)]


class Ask(NamedTuple):
    """One request: continue a chat by at most ``most`` tokens.

    ``options`` are the answers whose probabilities are requested. ``top_p`` of 0 is greedy decoding. ``begun`` is the
    required beginning of the text, and part of it.
    """

    chat: tuple[Message, ...]
    most: int
    options: tuple[str, ...] = ()
    top_p: float = 0.0
    seed: int = 0
    begun: str = ""


class Reply(Strict):
    """One reply: text, and log-probabilities of the requested options (None: not among the returned tokens).

    ``logs`` is None without probabilities; ``tokens_in`` and ``tokens_out`` are None if the endpoint does not count.
    """

    text: Annotated[str, Field(max_length=1 << 18)] = ""
    logs: tuple[Annotated[float, Field(le=1e-3, allow_inf_nan=False)] | None, ...] | None = None
    finish: Annotated[str, Field(max_length=200)] = ""
    model: Annotated[str, Field(max_length=200)] = ""
    fingerprint: Annotated[str, Field(max_length=200)] = ""
    tokens_in: Tokens | None = None
    tokens_out: Tokens | None = None


class _Line(Strict):
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    reply: Reply


_LINE = TypeAdapter(_Line)


class Usage(Strict):
    """Usage of an endpoint in a run; ``cost`` is None without prices, ``uncounted`` replies have no token counts."""

    requests: int
    tokens_in: int
    tokens_out: int
    uncounted: int
    cost: float | None
    models: dict[str, int]

    def summary(self) -> str:
        """Describe the usage in one line."""
        text = f"{self.requests:,} replies, {self.tokens_in:,} tokens in, {self.tokens_out:,} out"
        if self.uncounted:
            text += f" ({self.uncounted:,} replies without counts)"
        return text if self.cost is None else f"{text}, cost {self.cost:,.4f}"


def key_of(name: str, ask: Ask, way: str) -> str:
    """Compute the hash of model and endpoint, the request, and the method by which probabilities are read."""
    return hashlib.sha256(json.dumps([name, way, *ask], sort_keys=True).encode()).hexdigest()


class Replies:
    """Replies by key, in memory and, if a folder is given, in its file.

    Invalid lines are ignored, so that their requests are sent again.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._kept = dict(_lines(folder / REPLIES)) if folder else {}
        self._torn = folder is not None and _torn(folder / REPLIES)

    def get(self, key: str) -> Reply | None:
        """Return the stored reply of a key, if any."""
        return self._kept.get(key)

    def add(self, key: str, reply: Reply) -> None:
        """Store a reply and append it to the file at once."""
        self._kept[key] = reply
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        line = _Line(key=key, reply=reply).model_dump_json(exclude_defaults=True).encode() + b"\n"
        with (self.folder / REPLIES).open("ab") as file:
            file.write(b"\n" + line if self._torn else line)
        self._torn = False


def _torn(path: Path) -> bool:
    """Return whether the last line of a file is truncated."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() != b"\n"


def _lines(path: Path) -> Iterator[tuple[str, Reply]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        while line := file.readline(MOST_LINE):
            try:
                entry = _LINE.validate_json(line)
            except ValidationError:
                continue
            yield entry.key, entry.reply


def usage_of(folder: Path, api: EndpointSettings | None) -> Usage | None:
    """Compute the usage of all replies stored in a folder and its subfolders; None if there are none."""
    replies = [reply for path in sorted(folder.rglob(REPLIES)) for _, reply in _lines(path)]
    if not replies:
        return None
    tokens_in, tokens_out = _sum(r.tokens_in for r in replies), _sum(r.tokens_out for r in replies)
    prices = (api.price_in, api.price_out) if api else (None, None)
    cost = None
    if prices != (None, None):
        cost = (tokens_in * (prices[0] or 0) + tokens_out * (prices[1] or 0)) / 1e6
    models = Counter(" ".join(filter(None, (r.model, r.fingerprint))) or "unknown" for r in replies)
    return Usage(
        requests=len(replies),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        uncounted=sum(r.tokens_in is None for r in replies),
        cost=cost,
        models=dict(models.most_common(100)),
    )


def _sum(values: Iterable[Any]) -> int:
    return sum(value or 0 for value in values)
