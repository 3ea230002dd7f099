"""The shipped tasks whose data are imported by users, because they may not be shipped."""

from pathlib import Path

from culteval.tasks.spec import read_yaml

_SPECS = sorted((Path(__file__).parents[1] / "tasks").glob("*/*.yaml"))
IMPORTED = tuple(path.stem for path in _SPECS if "imported" in read_yaml(path).get("metadata", {}))
