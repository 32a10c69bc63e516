"""Logs: one JSON object a line on standard error, the same for our code and for the libraries.

`log.info("delivery.attempt", extra={"status": 200})` becomes
`{"ts": "…Z", "level": "info", "role": "delivery", "event": "delivery.attempt", "status": 200}`.
The encoding is pure ASCII: a control or escape character in a name cannot forge a line or reach a
terminal. What is a secret wherever it stands is masked: queries and passwords of URLs, our keys and
signing secrets. Nobody should log them; an error of a library may, by what it says.

What a line is about, a request, a job or a delivery, stands on every line that is written within
`about`, whoever writes it.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final, TextIO

from config.clock import rfc3339

MAX_TEXT: Final = 8192
"""Characters kept of one value; what is cut off is counted at its end."""

MAX_DEPTH: Final = 4
"""Levels of lists and objects kept in one value."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "color_message",
}
_SECRETS: Final = tuple(
    (re.compile(pattern, re.ASCII | re.IGNORECASE), mask)
    for pattern, mask in (
        (r"(://)[^\s/?#@\"'<>\\]{1,500}@", r"\1…@"),
        (r"((?:://|/v1/)[^\s?\"'<>\\]{0,2048})\?[^\s\"'<>\\]+", r"\1?…"),
        (r"(gwk|whsec|whsk)_[A-Za-z0-9+/=_-]+", r"\1_…"),
    )
)
_QUIET: Final = ("uvicorn.access", "uvicorn.sockets", "httpx", "httpcore")
"""Loggers that print whole URLs: a query may hold a ticket."""


_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False)

_subjects: ContextVar[Mapping[str, str]] = ContextVar("subjects", default=MappingProxyType({}))


@contextmanager
def about(**subjects: str) -> Iterator[None]:
    """Have what is written within name its `subjects`, in tasks that begin within as well.

    Args:
        subjects: fields of the line, such as `job`, and what they say; beside those around it.
    """
    token = _subjects.set({**_subjects.get(), **subjects})
    try:
        yield
    finally:
        _subjects.reset(token)


def subject(name: str) -> str | None:
    """Return what `about` said of the field `name`; None outside of it."""
    return _subjects.get().get(name)


class Subjects(logging.Filter):
    """Puts on each record what it is about, unless the record itself says."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add it, and let every record pass."""
        for name, value in _subjects.get().items():
            vars(record).setdefault(name, value)
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON. Fields of `extra` follow the fixed ones."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end. Never raises for what a record holds."""
        line: dict[str, object] = {
            "ts": rfc3339(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "role": self._role,
            "event": _cut(_message(record)),
        }
        if record.name != self._role:
            line["logger"] = record.name
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line.setdefault(name, _cut(value) if type(value) is str else _plain(value))
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _cut(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
            line["trace"] = _cut(self.formatException(record.exc_info))
        return _ENCODER.encode(line)


class _StandardError(logging.Handler):
    """Writes to what `sys.stderr` is at that moment: Dramatiq replaces it in its children."""

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO | None = sys.stderr
        if stream is None:
            return
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except (OSError, ValueError):
            # Nobody reads the log any more; the work goes on without it.
            return


def configure(role: str, level: str = "info") -> None:
    """Send every logger's records to standard error as JSON lines, replacing earlier handlers.

    Args:
        role: what this process is: api, relay, worker, delivery.
        level: debug, info, warning or error.

    Raises:
        ValueError: `level` is none of them.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no such log level: {level}")
    handler = _StandardError()
    handler.setFormatter(JsonFormatter(role))
    handler.addFilter(Subjects())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in {"uvicorn", "dramatiq"}:
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # No line shows them, and they are asked for with each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(capture=True)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args!r}"


def _plain(value: object, depth: int = MAX_DEPTH) -> object:
    """`value` as JSON can hold it, bounded."""
    match value:
        case str():
            return _cut(value)
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case dict() if depth:
            return {_cut(str(key)): _plain(item, depth - 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset() if depth:
            return [_plain(item, depth - 1) for item in value]
        case _:
            return _cut(str(value))


def _cut(text: str) -> str:
    # Masked before it is cut, which could take away what a secret is told by.
    kept = _masked(text[: 2 * MAX_TEXT])
    if len(text) <= MAX_TEXT:
        return kept
    return f"{kept[:MAX_TEXT]}… {len(text) - MAX_TEXT} more"


def _masked(text: str) -> str:
    # Written out: this is asked for every text of every line, and a loop takes four times as long.
    if "?" not in text and "@" not in text and "gwk_" not in text and "whs" not in text:
        return text
    for pattern, mask in _SECRETS:
        text = pattern.sub(mask, text)
    return text
