"""An untrained model: the embedded model's shape and tokenizer, with random weights."""

from pathlib import Path

from culteval.harness.models.embedded import fetch
from culteval.harness.util.atomic_io import replacing
from culteval.harness.util.paths import cache_dir

SEED = 0


def folder() -> Path:
    """Return the model's folder, created once (540 MB); a model plug-in needs nothing else."""
    target = cache_dir() / "models" / f"untaught-{SEED}"
    if not target.exists():
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        source = fetch("smollm2")
        with torch.random.fork_rng(devices=()), replacing(target) as temporary:
            torch.manual_seed(SEED)
            AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source)).save_pretrained(temporary)
            AutoTokenizer.from_pretrained(source).save_pretrained(temporary)
    return target
