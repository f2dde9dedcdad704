"""One log for all rooms: text for people, one JSON object a line for machines.

Rooms ask for ``get(__name__)`` and pass facts as ``extra={...}``; only an entry point (the CLI) calls
`configure`.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from openautoglm.core.errors import TaskError

ROOT = "openautoglm"
Format = Literal["text", "json"]
LEVELS = ("debug", "info", "warning", "error")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def get(name: str = ROOT) -> logging.Logger:
    """Return the logger of a module; names outside the package are put under ``openautoglm``."""
    inside = name == ROOT or name.startswith(ROOT + ".")
    return logging.getLogger(name if inside else f"{ROOT}.{name}")


def configure(fmt: Format = "text", level: str = "info") -> None:
    """Send our records to standard error in `fmt`; calling it again replaces the former set-up.

    Above level ``info`` progress is silent too (`openautoglm.core.progress`).

    Raises:
        TaskError: an unknown format or level.
    """
    if fmt not in get_args(Format):
        raise TaskError(f"unknown log format {fmt!r}", where="--log-format", remedy="use text or json")
    if level.lower() not in LEVELS:
        raise TaskError(f"unknown log level {level!r}", where="--log-level",
                        remedy=f"use one of {', '.join(LEVELS)}")
    logger = get()
    for handler in [h for h in logger.handlers if isinstance(h, StderrHandler)]:
        logger.removeHandler(handler)
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter() if fmt == "json" else TextFormatter())
    logger.addHandler(handler)
    logger.setLevel(level.upper())


class StderrHandler(logging.Handler):
    """Writes each record to whatever ``sys.stderr`` is at that moment, so that a live bar stays below.

    A closed or absent standard error loses the record and nothing else.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line (or more, where it carries a traceback)."""
        write_line(self.format(record))


def write_line(line: str) -> bool:
    """Write a line to standard error; return False where it is closed, broken or absent."""
    stream = sys.stderr
    if stream is None:
        return False
    try:
        stream.write(line + "\n")
        stream.flush()
    except (OSError, ValueError):  # a closed pipe or file: there is nobody left to tell
        return False
    return True


class TextFormatter(logging.Formatter):
    """``12:30:05 INFO    data.clean: message  rows=120 file="a b.csv"``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text; extras follow the message as ``key=value``."""
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        room = record.name.removeprefix(ROOT).removeprefix(".")
        head = f"{clock} {record.levelname:<7} " + (f"{room}: " if room else "")
        facts = " ".join(f"{key}={_text(value)}" for key, value in extras(record).items())
        line = head + record.getMessage() + (f"  {facts}" if facts else "")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, the extras, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON; an extra which JSON cannot hold is written as text."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in extras(record).items() if key not in entry}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(_plain(entry), ensure_ascii=False, default=str)


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return what the caller passed as ``extra={...}``."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    bare = text.isprintable() and not any(letter in ' "=' for letter in text)
    return text if text and bare else json.dumps(text, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Replace what JSON does not know (NaN, infinities) by text, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value
