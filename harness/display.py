"""What a person sees while a run is under way: everything on standard error, so that results stay clean."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .log import LOGGER


class TerminalDisplay:
    """A progress bar with the best loss, the evaluations left and the time left; lines where there is no terminal.

    With ``verbose``, every event of the log is a line too.
    """

    def __init__(self, console: Console, verbose: bool = False) -> None:
        self.console = console
        self._log = _Lines(console) if verbose else None
        self._bars: dict[str, TaskID] = {}
        self._said = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
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
        """One line."""
        self._progress.console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """Move the bar of one search."""
        status = f"{spent:.0f} of {allowed:.0f}"
        if best is not None:
            status = f"best loss {_short(best)} | {allowed - spent:.0f} evaluations left"
        if not self.console.is_terminal:
            if time.monotonic() - self._said > 10 or spent >= allowed:
                self._said = time.monotonic()
                self.say(f"{label}: {status}")
            return
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(label, total=allowed, status="")
        self._progress.update(self._bars[label], completed=spent, status=status)


class _Lines(logging.Handler):
    """Events of the log as lines above the progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """One line: time, run, event, fields."""
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{when} {record.getMessage()}"
        self._console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--quiet`` and ``--verbose``, of which the last one counts, as its parameter ``talk``."""
    quiet = click.option("-q", "--quiet", "talk", flag_value="quiet", help="Only results and errors.")
    verbose = click.option("-v", "--verbose", "talk", flag_value="verbose", help="Every event as a line.")
    return quiet(verbose(command))


def _short(loss: float) -> str:
    return f"{loss:,.0f}" if abs(loss) >= 100 else f"{loss:.4g}"
