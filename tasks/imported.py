"""The location of data that users import: answer shares and survey forms that this project may not distribute."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir() -> Path:
    """Return ``CULTEVAL_DATA``, else the user's data folder, as an absolute path.

    The folder is created on import only.
    """
    if chosen := os.environ.get("CULTEVAL_DATA"):
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_data_path

    return user_data_path("culteval", appauthor=False)


def imported(family: str, suffix: str = ".csv") -> dict[str, Path]:
    """Return the imported files of a task family by name, such as the editions of its reference."""
    return {path.stem: path for path in sorted((data_dir() / family).glob(f"*{suffix}"))}
