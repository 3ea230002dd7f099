"""Load the model of a run's configuration, local or behind an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ...errors import InputError, UnavailableError, UsageError
from ...tasks.chat_options import DEFAULT_CHAT
from ..adapters.peft_files import is_soft_prompt, own_tokenizer_files
from ..models.base import Model
from ..providers.settings import EndpointSettings, is_remote
from .checks import require_effect_of_adapter
from .config import RunConfig, objective_of


def load(config: RunConfig, say: Callable[[str], None]) -> Model:
    """Load the model of a configuration.

    Args:
        say: receives messages on the model and its adapter.

    Returns:
        An ``ApiModel`` for an endpoint, a ``PromptedModel`` for a local model with a soft prompt, else a
        ``LanguageModel``.

    Raises:
        InputError: the adapter does not fit or has changed. RunError: it has no effect. Others as ``load_model`` and
            ``ApiModel``.
    """
    say(f"asking {config.model}" if is_remote(config.model) else f"loading {config.model}")
    if is_remote(config.model):
        if config.adapter:
            raise UsageError("`adapter`: a model behind an endpoint takes no adapter. Leave it out.")
        from ..providers.model import ApiModel

        return ApiModel(config.model, config.endpoint or EndpointSettings(), say)
    if missing := [name for name in ("torch", "transformers", "peft") if find_spec(name) is None]:
        raise UnavailableError(
            f"`model` {config.model}: {missing[0]} is not installed. `pip install 'culteval[local]'` adds it."
        )
    from ..models.load import load_model
    from ..models.prompted import PromptedModel

    chat = config.chat or DEFAULT_CHAT
    model = load_model(
        config.model,
        dtype=config.dtype,
        device=config.device,
        revision=config.revision,
        threads=config.threads,
        notify=say,
        chat=chat,
    )
    if not config.adapter:
        return model
    folder = Path(config.adapter)
    if files := own_tokenizer_files(folder):
        say(f"adapter {folder}: its own tokenizer or chat template is used ({', '.join(files)})")
    adapted = PromptedModel(model, folder) if is_soft_prompt(folder) else model.adapted(folder, carried=True)
    if adapted.info.adapter_sha256 != config.adapter_sha256:
        raise InputError(f"`adapter` {folder}: not the adapter that this run began with. Run it anew.")
    require_effect_of_adapter(adapted, model, folder, objective_of(config), say)
    return adapted


def load_other(config: RunConfig, name: str, dtype: str | None, say: Callable[[str], None]) -> Model:
    """Load another model under the same options, without the revision, adapter and chat of the run's own model.

    ``dtype`` is another one than the run's, if given.

    Raises:
        UsageError: as ``load``; names the model.
    """
    own = dict.fromkeys(("revision", "adapter", "adapter_sha256", "chat"))
    try:
        return load(config.model_copy(update={"model": name, "dtype": dtype or config.dtype, **own}), say)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
