"""Log events as JSON lines in ``log.jsonl`` of a run's folder, and to the standard logger ``culteval``.

No event leaves the machine. An application that embeds the package can attach handlers to
``logging.getLogger("culteval")``.
"""

from __future__ import annotations

import json
import logging
import math
from datetime import datetime
from pathlib import Path
from typing import Any

LOG = "log.jsonl"
LOGGER = logging.getLogger("culteval")
LOGGER.addHandler(logging.NullHandler())  # a library logs nothing unless the application asks for it


class JsonLine(logging.Formatter):
    """Formatter of a record as a JSON object: time (ISO 8601 with zone), level, run, event, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, without a line break."""
        when = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        own = vars(record)  # includes the fields that were passed as ``extra``
        line = {"time": when, "level": record.levelname.lower(), "run": own["run"], "event": own["event"]}
        return json.dumps(line | {name: _plain(value) for name, value in own["fields"].items()}, ensure_ascii=False)


class RunLog:
    """The log of one run, named after its folder."""

    def __init__(self, folder: Path) -> None:
        self.path, self.run = folder / LOG, folder.name

    def event(self, name: str, /, **fields: Any) -> None:
        """Append one line to the file, and pass the event to the logger ``culteval``."""
        record = _record(self.run, name, fields)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(JsonLine().format(record) + "\n")
        _pass_on(record)


def tell(run: str, event: str, /, **fields: Any) -> None:
    """Log an event that belongs to no run folder, to the logger alone."""
    _pass_on(_record(run, event, fields))


def _pass_on(record: logging.LogRecord) -> None:
    if LOGGER.isEnabledFor(record.levelno):
        LOGGER.handle(record)


def _record(run: str, event: str, fields: dict[str, Any]) -> logging.LogRecord:
    text = " ".join([run, event, *(f"{name}={_plain(value)}" for name, value in fields.items())])
    level = logging.ERROR if event == "error" else logging.INFO
    record = logging.LogRecord(LOGGER.name, level, __file__, 0, text, None, None)
    record.run, record.event, record.fields = run, event, fields
    return record


def _plain(value: Any) -> Any:
    """Return NaN and infinities, which JSON lacks, as text; other values unchanged."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
