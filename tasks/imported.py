"""Where data that users import lie: answer shares and survey forms that this project may not ship."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir() -> Path:
    """``CULTEVAL_DATA``, else the user's data folder; absolute either way, and made only when something is imported."""
    if chosen := os.environ.get("CULTEVAL_DATA"):
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_data_path

    return user_data_path("culteval", appauthor=False)


def imported(family: str, suffix: str = ".csv") -> dict[str, Path]:
    """Imported files of a task family by name, such as the editions of its reference."""
    return {path.stem: path for path in sorted((data_dir() / family).glob(f"*{suffix}"))}
