"""The cost of starting a command: processor time of a whole process, against bare Python and stock lm-eval's help."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .common import Row, Settings, alternate, ratio, say

COMMANDS = ("--help", "ls tasks", "ls aligners", "score --help", "run --help", "leaderboard --help")
BARE, PEER = ("-c", "pass"), ("-m", "lm_eval", "--help")
LOADED = """
import atexit, runpy, sys
atexit.register(lambda: sys.stderr.write("@@" + str("torch" in sys.modules)))
runpy.run_module("culteval", run_name="__main__", alter_sys=True)
"""


def measure(settings: Settings, commands: Sequence[str] = COMMANDS) -> list[Row]:
    """Measure one row per command; ``seconds_peer`` is ``python -m lm_eval --help``, the floor ``python -c pass``."""
    works = {name: starting("-m", "culteval", *name.split()) for name in commands}
    say(f"startup: {len(works) + 2} commands, {settings.repeats + 1} times each")
    times = alternate({"bare": starting(*BARE), "peer": starting(*PEER)} | works, settings.repeats, processor)
    return [
        Row(
            name=f"culteval {name}",
            seconds=statistics.median(times[name]),
            seconds_peer=statistics.median(times["peer"]),
            ratio=ratio(times["peer"], times[name]),
            floor_share=ratio(times["bare"], times[name]),
            note=f"torch {'is' if loads_torch(name) else 'is not'} loaded",
        )
        for name in works
    ]


def starting(*arguments: str) -> Callable[[], Any]:
    """Run a Python process with these arguments to its end; it must succeed."""
    return lambda: subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True, cwd="/")


def processor(work: Callable[[], Any]) -> float:
    """Measure the user and system seconds of a work's child processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def loads_torch(command: str) -> bool:
    """Return whether torch is loaded when a command ends."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *command.split()], capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stderr.endswith("@@True")
