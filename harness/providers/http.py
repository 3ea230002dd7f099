"""Send JSON requests to an HTTP endpoint concurrently, with retries, until all have a reply.

Temporary failures are retried: broken connections, time-outs, 408, 409, 425, 429, 5xx, truncated and invalid replies.
``Retry-After`` delays all requests. The size of replies is bounded, and no secret leaves this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import tenacity

from ...errors import RunError, UnavailableError
from .settings import Address, EndpointSettings, key_for, one_line, redacted

MOST_BODY = 4 << 20
LONGEST_WAIT = 300.0  # seconds; a server that asks for more is an error
FIRST_WAIT, LAST_WAIT = 0.5, 60.0  # seconds between tries, doubling
MOST_MESSAGE = 4000  # characters of an error that are looked at
_PASSING = {408, 409, 425, 429}

Read = Callable[[int, Any], None]


class RetryableError(Exception):
    """A temporary failure; ``reached`` is whether the server was there."""

    def __init__(self, what: str, reached: bool = True) -> None:
        super().__init__(what)
        self.reached = reached


class InvalidResponse(RetryableError):
    """A reply that is not a valid response."""


class RequestRejected(RunError):
    """A request that the endpoint rejects (400, 413, 422).

    ``code`` is the error code of the endpoint, ``message`` its text alone, and ``fields`` are the parameters of the
    request that the error points to.
    """

    def __init__(self, what: str, code: str = "", message: str = "", fields: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.code, self.message, self.fields = code, message, fields


Spared = Callable[[int, RequestRejected], bool]


class Endpoint:
    """The endpoint of a model; ``say`` receives notes about long waits."""

    def __init__(self, address: Address, api: EndpointSettings, say: Callable[[str], None]) -> None:
        self.address, self.api, self.say = address, api, say
        self._key = key_for(address, api)
        self._reached = False

    def post(self, bodies: Sequence[dict[str, Any]], read: Read, spared: Spared = lambda number, error: False) -> None:
        """Send every body. After a permanent failure, running requests are completed and no new one is started.

        Args:
            read: called with number and reply as each reply arrives; raises InvalidResponse for an invalid one.
            spared: called with number and error of a rejected request; returns whether to accept the rejection.

        Raises:
            UnavailableError: the endpoint cannot be reached, denies access, or fails in every retry.
            RunError: replies are invalid. RequestRejected: a request is rejected.
        """
        _complete(self._post_all(bodies, read, spared))

    async def _post_all(self, bodies: Sequence[dict[str, Any]], read: Read, spared: Spared) -> None:
        failures: list[Exception] = []
        self._over, self._open_at = asyncio.Event(), 0.0
        work = iter(enumerate(bodies))
        timeout = aiohttp.ClientTimeout(total=self.api.timeout)
        connector = aiohttp.TCPConnector(limit=self.api.concurrency)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:

            async def worker(work: Iterator[tuple[int, dict[str, Any]]]) -> None:
                for number, body in work:
                    if self._over.is_set():
                        return
                    try:
                        await self._tried(session, body, partial(read, number))
                    except RequestRejected as error:
                        if not spared(number, error):
                            failures.append(error)
                            self._over.set()
                    except Exception as error:  # of any kind; the replies of running requests are stored first
                        failures.append(error)
                        self._over.set()

            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.api.concurrency, len(bodies))):
                    group.create_task(worker(work))
        if failures:
            raise failures[0]

    async def _tried(self, session: aiohttp.ClientSession, body: dict[str, Any], read: Callable[[Any], None]) -> None:
        tries = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._worth_another_try),
            stop=tenacity.stop_after_attempt(1 + self.api.retries),
            wait=tenacity.wait_exponential_jitter(initial=FIRST_WAIT, max=LAST_WAIT, jitter=FIRST_WAIT),
            sleep=self._pause,
            reraise=True,
        )
        count = 0
        try:
            async for attempt in tries:
                with attempt:
                    count += 1
                    await self._once(session, body, read)
        except RetryableError as problem:
            times = f" ({count} times)" if count > 1 else ""
            text = f"{self.address.host}: {problem}{times}."
            raise (RunError if isinstance(problem, InvalidResponse) else UnavailableError)(text) from None

    def _worth_another_try(self, error: BaseException) -> bool:
        # A server that was never reached is not retried.
        return isinstance(error, RetryableError) and (error.reached or self._reached) and not self._over.is_set()

    async def _pause(self, seconds: float) -> None:
        """Wait, but stop when a request has failed permanently."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    async def _once(self, session: aiohttp.ClientSession, body: dict[str, Any], read: Callable[[Any], None]) -> None:
        while (wait := self._open_at - time.monotonic()) > 0 and not self._over.is_set():
            await self._pause(wait)
        if self._over.is_set():
            raise RetryableError("stopped, as another request failed permanently")
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        options: dict[str, Any] = {"headers": headers, "allow_redirects": False, "proxy": _proxy(self.address.url)}
        try:
            async with session.post(self.address.url, json=body, **options) as response:
                self._reached = True
                data = await _bounded(response)
                status, after = response.status, _retry_after(response.headers)
        except TimeoutError:
            raise RetryableError(f"no complete reply within {self.api.timeout:g} seconds") from None
        except aiohttp.ClientConnectorError as error:
            reason = (
                os.strerror(error.errno) if error.errno else one_line(error.strerror or type(error.os_error).__name__)
            )
            raise RetryableError(f"cannot be reached ({reason}); {self.address.remedy}", False) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RetryableError(f"the connection broke ({type(error).__name__})") from None
        reply = self._parsed(data)
        if 200 <= status < 300:
            if reply is None:
                raise InvalidResponse("a reply that is not JSON")
            read(reply)
        else:
            self._refuse(status, reply, after)

    def _parsed(self, data: bytes) -> Any:
        """Parse JSON and redact secrets in it; None if it is not JSON."""
        try:
            return _cleaned(json.loads(data), lambda text: redacted(text, self._key))
        except (ValueError, RecursionError):
            return None

    def _refuse(self, status: int, reply: Any, after: float | None) -> NoReturn:
        """Raise the error of a status and the body of its reply."""
        host, (message, code) = self.address.host, _message(reply)
        shown = one_line(message).rstrip(".")
        detail = f": {shown}" if shown else ""
        if status in (401, 403):
            key = (
                f"the key in {self.api.key_env} was refused" if self._key else f"it wants a key: set {self.api.key_env}"
            )
            raise UnavailableError(f"{host}: {key} ({status}).")
        if status == 402 or code in ("insufficient_quota", "billing_hard_limit_reached"):
            raise UnavailableError(f"{host}: the account has no credit left ({status}){detail}.")
        if status in _PASSING or status >= 500:
            if after is not None and after > LONGEST_WAIT:
                raise UnavailableError(f"{host}: asks to wait {after:,.0f} seconds ({status}). Try again later.")
            if after:
                self._hold(after, status)
            raise RetryableError(f"status {status}{detail}")
        if status in (400, 413, 422):
            what = f"{host}: a request was rejected ({status}){detail}."
            raise RequestRejected(what, code, message, _fields(reply))
        if 300 <= status < 400:
            raise UnavailableError(f"{host}: redirects ({status}). Set `base_url` to its new address.")
        if self.address.kind == "ollama":
            raise UnavailableError(
                f"{host}: no such address or model ({status}){detail}. Please {self.address.remedy}."
            )
        other = {"openai": "openai-chat", "openai-chat": "openai"}[self.address.kind]
        raise UnavailableError(
            f"{host}: no such address or model ({status}){detail}. Check `base_url` and the name; `model` "
            f"{other}:NAME uses {'chats' if other == 'openai-chat' else 'completions'} instead."
        )

    def _hold(self, seconds: float, status: int) -> None:
        until = time.monotonic() + seconds
        if until > self._open_at + 1 and seconds >= 5:
            self.say(f"{self.address.host}: status {status}, waiting {seconds:.0f} seconds as it requests")
        self._open_at = max(self._open_at, until)


def _complete(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, in a thread of its own where this one runs an event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with contextlib.closing(asyncio.new_event_loop()) as loop, ThreadPoolExecutor(1) as pool:
        task = loop.create_task(work)
        try:
            pool.submit(loop.run_until_complete, task).result()
        except KeyboardInterrupt:
            loop.call_soon_threadsafe(task.cancel)
            raise


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    data = b""
    async for part in response.content.iter_chunked(1 << 16):
        data += part
        if len(data) > MOST_BODY:
            raise InvalidResponse(f"a reply of more than {MOST_BODY >> 20} MiB")
    return data


def _retry_after(headers: Any) -> float | None:
    """Return the seconds that a server asks to wait, given as a number or a date; None if not given."""
    header = headers.get("Retry-After", "")[:100]
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def _message(reply: Any) -> tuple[str, str]:
    """Return message and code of an error's body, in the formats of OpenAI, vLLM and FastAPI.

    FastAPI repeats the request in its list of problems; the message has their texts only.
    """
    value, code = _error(reply), ""
    if isinstance(value, dict):
        code, value = value.get("code") or value.get("type") or "", value.get("message", "")
    elif isinstance(value, list) and all(isinstance(part, dict) for part in value):
        value = "; ".join(": ".join([*map(str, _path(part)), str(part.get("msg", ""))]) for part in value)
    return str(value)[:MOST_MESSAGE], code if isinstance(code, str) else ""


def _fields(reply: Any) -> tuple[str, ...]:
    """Return the parameters that an error's body points to: ``param`` of OpenAI, ``loc`` of FastAPI."""
    value = _error(reply)
    found = [part.get("param") for part in (reply, value) if isinstance(part, dict)]
    for part in value if isinstance(value, list) else ():
        found += _path(part) if isinstance(part, dict) else ()
    return tuple(name for name in found if isinstance(name, str) and name)


def _error(reply: Any) -> Any:
    return reply.get("error", reply.get("detail", reply.get("message", ""))) if isinstance(reply, dict) else ""


def _path(problem: dict[str, Any]) -> list[Any]:
    """Return the place of one of FastAPI's problems within the body of the request."""
    place = problem.get("loc")
    return [step for step in place if step != "body"] if isinstance(place, list) else []


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    """Apply ``clean`` to every text of a JSON value."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(element, clean) for element in value]
    if isinstance(value, dict):
        return {clean(key): _cleaned(item, clean) for key, item in value.items()}
    return value


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
