"""Measure a model on this machine: seconds for a survey, and the most memory of the process that loads and answers.

Run as ``python -m culteval.harness.runs.measure MODEL``, in a process of its own, whose memory holds nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from ...errors import UnavailableError
from ..util.atomic_io import write_json
from ..util.environment import processor
from ..util.paths import cache_dir

TASK = "vsm13"  # of which the split `fit` is one survey evaluation: 24 items in two paraphrases


class Measured(BaseModel):
    """What was measured: ``seconds`` for the prompts of a survey evaluation, ``memory`` in bytes."""

    dtype: str
    threads: int
    processor: str
    seconds: float
    memory: int


def measure(model: str) -> Measured:
    """Measure a model with the settings that a run takes by default, and store the result in the cache.

    Raises:
        UnavailableError: the model cannot be loaded or answered with.
    """
    done = subprocess.run([sys.executable, "-P", "-m", __name__, model], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UnavailableError(f"`model` {model}: could not be measured; the reason is printed above.")
    result = Measured.model_validate_json(done.stdout.splitlines()[-1])
    known = {name: each.model_dump() for name, each in measured().items()}
    write_json(cache_dir() / "measured.json", known | {model: result.model_dump()})
    return result


def measured() -> dict[str, Measured]:
    """Return what was measured on this processor, by model; empty if nothing was, or the file is damaged."""
    try:
        text = (cache_dir() / "measured.json").read_bytes()
        known = TypeAdapter(dict[str, Measured]).validate_json(text)
    except (OSError, ValidationError):
        return {}
    here = processor()
    return {name: each for name, each in known.items() if each.processor == here}


def _measure(name: str) -> dict[str, Any]:
    """Load a model and answer a survey twice; the second time counts, as in a run that answers many."""
    import resource

    from ...tasks.prompts import ProtocolOptions, render
    from ..models.load import load_model
    from ..registry import spec_of

    model = load_model(name)
    prompts = render(spec_of(TASK), "fit", ProtocolOptions())
    model.answer(prompts)
    began = time.perf_counter()
    model.answer(prompts)
    seconds = time.perf_counter() - began
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    info = {"dtype": model.info.dtype, "threads": model.info.threads, "processor": processor()}
    return info | {"seconds": round(seconds, 3), "memory": memory}


if __name__ == "__main__":
    from ...errors import CultevalError

    try:
        print(json.dumps(_measure(sys.argv[1])))
    except CultevalError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
