"""Read the suite: the tasks, by hash, that are ranked under one version number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..harness.registry import spec_of
from ..tasks.spec import TaskSpec

FILE = Path(__file__).parent / "suite.json"


@dataclass(frozen=True)
class Suite:
    """A version and the hash of each task, in the order of the boards."""

    version: str
    tasks: dict[str, str]

    def holds(self, spec: TaskSpec) -> bool:
        """Return whether a spec is a task of the suite with the same hash."""
        return self.tasks.get(spec.name) == spec.hash

    def place(self, task: str) -> int:
        """Return the position of a task in the suite; after the last for other tasks."""
        return list(self.tasks).index(task) if task in self.tasks else len(self.tasks)


def read_suite() -> Suite:
    """Read the shipped suite."""
    return Suite(**json.loads(FILE.read_text(encoding="utf-8")))


def current() -> Suite:
    """Return the shipped suite with the current hashes of its tasks."""
    shipped = read_suite()
    return Suite(shipped.version, {name: spec_of(name).hash for name in shipped.tasks})


if __name__ == "__main__":  # after a change of a task; then raise the version: python -m culteval.leaderboards.suite
    now = current()
    print(json.dumps({"version": now.version, "tasks": now.tasks}, indent=2))
