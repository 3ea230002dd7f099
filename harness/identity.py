"""What decides a model's answers, as recorded in a submission."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ModelIdentity(BaseModel):
    """What decides a model's answers. Of a model behind an API not all is known; ``adapter_sha256``
    is that of an adapter that it carries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    revision: str
    dtype: str
    device: str
    threads: int
    chat_template: str | None
    forward: str
    adapter_sha256: str | None = None
