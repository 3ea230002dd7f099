"""The suite: which tasks, as they read today, are ranked together under one version number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..harness.registry import spec_of
from ..tasks.spec import TaskSpec

FILE = Path(__file__).parent / "suite.json"


@dataclass(frozen=True)
class Suite:
    """A version and the hash of each of its tasks, in the order in which boards list them."""

    version: str
    tasks: dict[str, str]

    def holds(self, spec: TaskSpec) -> bool:
        """Whether a spec is a task of the suite, word for word."""
        return self.tasks.get(spec.name) == spec.hash

    def place(self, task: str) -> int:
        """Where a task stands in the suite's order; behind all where it is none of it."""
        return list(self.tasks).index(task) if task in self.tasks else len(self.tasks)


def read_suite() -> Suite:
    """The suite that is shipped."""
    return Suite(**json.loads(FILE.read_text(encoding="utf-8")))


def current() -> Suite:
    """The shipped suite with the hashes that its tasks have now."""
    shipped = read_suite()
    return Suite(shipped.version, {name: spec_of(name).hash for name in shipped.tasks})


if __name__ == "__main__":  # after a task of it has changed, with a new version: python -m culteval.leaderboards.suite
    now = current()
    print(json.dumps({"version": now.version, "tasks": now.tasks}, indent=2))
