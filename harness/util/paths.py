"""The folder in which culteval caches models and answers."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder culteval caches in: ``CULTEVAL_CACHE``, else the user's cache folder (absolute either way)."""
    if chosen := os.environ.get("CULTEVAL_CACHE"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("culteval")).absolute()
