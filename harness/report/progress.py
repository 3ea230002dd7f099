"""Progress of a run on standard error, so that standard output has results only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..util.command_help import option
from ..util.event_log import LOGGER

MOMENT = 2  # seconds of work that needs no line
PAUSE = 10  # least seconds between two lines of one search or stage, without a terminal


class TerminalDisplay:
    """A progress bar with the best loss, the evaluations left and the time left; lines without a terminal.

    Args:
        verbose: show every event of the log as a line too.
        clock: returns the time in seconds.
    """

    def __init__(self, console: Console, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self._clock = console, clock
        self._log = _Lines(console) if verbose else None
        self._bars: dict[str, TaskID] = {}
        self._paces: dict[str, _Pace] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            _TimeLeft(clock),
            console=console,
            get_time=clock,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        if self._log:
            LOGGER.addHandler(self._log)
            LOGGER.setLevel(logging.INFO)
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._log:
            LOGGER.removeHandler(self._log)
            LOGGER.setLevel(logging.NOTSET)

    def say(self, text: str) -> None:
        """Show one line."""
        self._progress.console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """Move the bar of one search or stage; a smaller ``spent`` or another ``allowed`` means a new start."""
        status = f"{spent:.0f} of {allowed:.0f}"
        if best is not None:
            status = f"best loss {_short(best)} | {allowed - spent:.0f} evaluations left"
        now, pace = self._clock(), self._paces.get(label)
        anew = pace is None or spent < pace.spent or allowed != pace.allowed
        if pace is None or anew:
            pace = self._paces[label] = _Pace(spent, allowed, now)
        pace.spent, pace.at = spent, now
        if self.console.is_terminal:
            self._move(label, pace, status, anew)
        elif pace.is_due(anew):
            pace.last_line = now
            left = pace.left(now)
            self.say(f"{label}: {status}" + (f" | {_clock_time(left)} left" if left else ""))

    def _move(self, label: str, pace: _Pace, status: str, anew: bool) -> None:
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(label, total=pace.allowed, status="", pace=pace)
        elif anew:
            self._progress.reset(self._bars[label], total=pace.allowed, status="", pace=pace)
        self._progress.update(self._bars[label], completed=pace.spent, status=status)


class _Pace:
    """Speed of one search or stage, over all of its observed steps.

    The estimate of rich covers the last steps only, and gives none where a step takes a minute.
    """

    def __init__(self, spent: float, allowed: float, now: float) -> None:
        self.allowed, self.first, self.since = allowed, spent, now
        self.spent, self.at = spent, now
        self.last_line = now - PAUSE + MOMENT

    def is_due(self, anew: bool) -> bool:
        """Decide whether to show a line: at the start, the end and in between, except for work of a moment."""
        if anew:
            return not self.spent  # otherwise the first line follows the first step
        if self.spent >= self.allowed:
            return not self.first or self.at - self.since > MOMENT
        return self.at - self.last_line > PAUSE

    def left(self, now: float) -> float | None:
        """Estimate the seconds left, less those since the last step; None before the first step."""
        if self.spent >= self.allowed:
            return 0.0
        if self.spent <= self.first or self.at <= self.since:
            return None
        per_unit = (self.at - self.since) / (self.spent - self.first)
        return max(0.0, (self.allowed - self.spent) * per_unit - (now - self.at))


class _TimeLeft(ProgressColumn):
    """Column of the time left, by the task's ``pace``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        super().__init__()

    def render(self, task: Task) -> Text:
        """Format the time left as hours, minutes and seconds."""
        left = task.fields["pace"].left(self._clock())
        return Text("-:--:--" if left is None else _clock_time(left), style="progress.remaining")


class _Lines(logging.Handler):
    """Handler that shows events of the log as lines above the progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Show one line: time, run, event, fields."""
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{when} {record.getMessage()}"
        self._console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--quiet`` and ``--verbose`` to a command as its parameter ``talk``; the last one given counts."""
    quiet = option("-q", "--quiet", "talk", flag_value="quiet", group="Output", help="Only results and errors.")
    verbose = option("-v", "--verbose", "talk", flag_value="verbose", group="Output", help="Every event as a line.")
    return quiet(verbose(command))


def _short(loss: float) -> str:
    return f"{loss:,.0f}" if abs(loss) >= 100 else f"{loss:.4g}"


def _clock_time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
