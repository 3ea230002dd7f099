"""Names, addresses and settings of models behind an endpoint, and the redaction of secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from ...errors import UnavailableError, UsageError, did_you_mean
from ...tasks.schema import Strict

OPENAI, OLLAMA = "https://api.openai.com/v1", "http://localhost:11434/v1"  # the latter is Ollama's default address
CHATS = "/chat/completions"
PATHS = {"openai": "/completions", "openai-chat": CHATS, "ollama": CHATS}
KINDS = (*PATHS, "lm-eval", "lm-eval-chat")
NOTES = {
    "openai-chat:NAME": "a chat model behind an OpenAI-compatible endpoint; base_url is its address",
    "openai:NAME": "a completions model behind such an endpoint",
    "ollama:NAME": "a model of Ollama on this machine; base_url is another address",
    "lm-eval:KIND,ARGS": "any model of lm-eval, with plain text prompts",
    "lm-eval-chat:KIND,ARGS": "any model of lm-eval, with chat prompts",
}
_SECRET_NAME = re.compile(
    r"api_?keys?$|(^|_)(key|access_key_id|token|auth|authorization|bearer|cookies?|credentials?|headers?|passwd|"
    r"passwords?|secrets?)$",
    re.I,
)
_VOCABULARY = re.compile(r"(^|_)(bos|eos|pad|unk|sep|cls|mask|start|end|prefix|image|stop)_token$", re.I)  # no secret
_ARGUMENT = re.compile(r"((?:^|[,?&])\s*-*([\w-]+)\s*=)([^,&?]*)")  # key=value, of lm-eval or in a URL
_PASSWORD = re.compile(r"://[^/,\s]*@")
_SECRET_VARIABLE = re.compile(r"(_|^)(KEY|TOKEN|SECRET|PASSWORD)$", re.I)
_LEAST_SECRET = 8  # characters; a shorter key, such as EMPTY, is not secret and may be a word of an answer


class EndpointSettings(Strict):
    """Settings of the requests to an endpoint.

    ``concurrency`` is the number of simultaneous requests, ``timeout`` their limit in seconds, ``retries`` the number
    of tries after the first. ``key_env`` names the environment variable with the key; prices are per million tokens, in
    any currency. Only ``base_url`` affects answers.
    """

    base_url: str | None = None
    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_]\w{0,99}$")] = "OPENAI_API_KEY"
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0
    retries: Annotated[int, Field(ge=0, le=100)] = 6
    price_in: Annotated[float, Field(ge=0, le=1e6)] | None = None
    price_out: Annotated[float, Field(ge=0, le=1e6)] | None = None


@dataclass(frozen=True)
class Address:
    """The address of a model behind an endpoint. ``url`` is empty for models of lm-eval."""

    kind: str
    model: str
    url: str

    @property
    def chat(self) -> bool:
        """Whether prompts are chats instead of text."""
        return self.kind.endswith("-chat") or PATHS.get(self.kind) == CHATS

    @property
    def remedy(self) -> str:
        """What to do if the server does not run, or does not know the model."""
        if self.kind == "ollama":
            return f"start Ollama (`ollama serve`) and fetch the model (`ollama pull {self.model}`)"
        return "check that the server runs"

    @property
    def host(self) -> str:
        """Host for messages to users."""
        return urlsplit(self.url).netloc or "lm-eval"

    @property
    def name(self) -> str:
        """Kind, model and URL, as recorded in submissions."""
        return f"{self.kind}:{self.model}" + (f"@{self.url}" if self.url else "")


def is_remote(name: object) -> bool:
    """Return whether a name denotes a model behind an endpoint."""
    return isinstance(name, str) and name.partition(":")[0] in KINDS and ":" in name


def is_local(url: str | None) -> bool:
    """Return whether an address is on this machine."""
    return bool(url) and urlsplit(str(url)).hostname in ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def endpoint_of(endpoint: EndpointSettings | None, models: Iterable[object]) -> EndpointSettings | None:
    """Validate the address of every model behind an endpoint; return the settings, None if not given.

    Args:
        models: values that may be names of models.

    Raises:
        UsageError: a name is malformed, or no model is behind an endpoint although settings are given.
        UnavailableError: a required key is missing.
    """
    models = list(models)
    remote = [str(name) for name in models if is_remote(name)]
    if not remote:
        for name in models:
            kind = str(name).partition(":")[0]
            if ":" in str(name) and (hint := did_you_mean(kind, KINDS)):
                raise UsageError(f"model {name!r}: unknown kind of endpoint.{hint} Known: {', '.join(KINDS)}.")
        if endpoint and (given := sorted(endpoint.model_fields_set)):
            raise UsageError(f"`endpoint` {given[0]}: no model is behind an endpoint. Use `model` openai-chat:NAME.")
        return None
    for name in remote:
        address = address_of(name, endpoint or EndpointSettings())
        key_for(address, endpoint or EndpointSettings())
    return endpoint


def address_of(name: str, api: EndpointSettings) -> Address:
    """Parse and validate the address of a model.

    Raises:
        UsageError: name or URL are malformed, or contain a secret, which the message does not repeat.
    """
    kind, _, model = name.partition(":")
    if kind not in PATHS:
        refuse_secrets(kind, model)
        if api.base_url:
            raise UsageError(f"`base_url`: pass it to lm-eval as an argument: {kind}:KIND,base_url=...")
        if not re.fullmatch(r"[\w.-]+(,.*)?", model) or len(name) > 200 or not name.isprintable():
            raise UsageError(f"model {name[:60]!r}: expected {kind}:KIND,key=value,... of at most 200 characters.")
        return Address(kind, model, "")
    if not model.strip() or not model.isprintable() or len(model) > 90:
        raise UsageError(f"model {name[:60]!r}: expected {kind}:NAME, with the endpoint's name of the model.")
    default = OLLAMA if kind == "ollama" else OPENAI
    return Address(kind, model, _checked(api.base_url or default) + PATHS[kind])


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https") or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError("`base_url`: expected http://HOST[:PORT]/v1 or https://HOST/v1.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"`base_url`: give scheme, host{':port' if port else ''} and path alone ({host}); keys come from `key_env`."
        )
    path = parts.path.rstrip("/")
    for ending in ("/chat/completions", "/completions"):
        path = path.removesuffix(ending)
    if len(url) > 80:
        raise UsageError(f"`base_url`: {len(url)} characters; 80 at most.")
    return f"{parts.scheme}://{parts.netloc}{path}"


def key_for(address: Address, api: EndpointSettings) -> str:
    """Read the key from the environment; empty if none is set and the endpoint may not need one.

    Raises:
        UnavailableError: OpenAI's own endpoint needs a key. UsageError: the value cannot be a key.
    """
    if not address.url or (address.kind == "ollama" and "key_env" not in api.model_fields_set):
        return ""  # lm-eval reads its keys itself; Ollama has none, and OpenAI's is not for it
    key = os.environ.get(api.key_env, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"${api.key_env}: not a key (it has spaces or other invalid characters).")
    if not key and address.url.startswith(f"{OPENAI}/"):
        raise UnavailableError(
            f"{address.host} needs a key. Set {api.key_env}, or use `base_url` for another endpoint."
        )
    return key


def is_secret(name: str) -> bool:
    """Return whether an argument or flag holds a key, token or password by its name."""
    name = name.lstrip("-").replace("-", "_")
    return bool(_SECRET_NAME.search(name)) and not _VOCABULARY.search(name)


def refuse_secrets(what: str, arguments: str) -> None:
    """Raise UsageError if ``key=value,...`` arguments hold a secret, which would be stored; it is not repeated."""
    if _PASSWORD.search(arguments) or any(is_secret(found[2]) for found in _ARGUMENT.finditer(arguments)):
        raise UsageError(f"{what}: a key or password does not belong on the command line. Set it in the environment.")


def without_secrets(words: Sequence[str]) -> list[str]:
    """Return the words of a command with ``[key]`` for secrets: values of flags and arguments, passwords of URLs."""
    cleaned = []
    for before, word in zip(("", *words), words, strict=False):
        name, sign, _ = word.partition("=")
        if before.startswith("--") and is_secret(before):
            word = "[key]"
        elif sign and is_secret(name):
            word = f"{name}=[key]"
        word = _ARGUMENT.sub(lambda found: f"{found[1]}[key]" if is_secret(found[2]) else found[0], word)
        cleaned.append(redacted(_PASSWORD.sub("://[key]@", word)))
    return cleaned


def redacted(text: str, key: str = "") -> str:
    """Remove the key, all secrets of the environment and unpaired surrogates from a text."""
    text = text.encode(errors="replace").decode()
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name) and len(value) >= 2 * _LEAST_SECRET and value in text:
            text = text.replace(value, "[key]")
    return text.replace(key, "[key]") if len(key) >= _LEAST_SECRET else text


def one_line(text: object, most: int = 200) -> str:
    """Convert an untrusted text to one short printable line."""
    line = " ".join(str(text).split())[:most]
    return "".join(char for char in line if char.isprintable())
