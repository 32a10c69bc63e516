"""What came of one attempt: a closed set of outcomes, and the rule that picks one of them.

The table is the webhook contract's ("Outcome of an attempt").
"""

from __future__ import annotations

import re
from calendar import timegm
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from config.clock import SECOND

MAX_RETRY_AFTER = 24 * 3600 * SECOND
"""The longest hint that is followed, in microseconds."""

MAX_ANSWER_KEPT = 1_024
"""How much of an answer's body is kept, in bytes."""

UnreachableCode = Literal["dns", "connect", "tls", "timeout", "reset", "malformed"]
"""The step that failed.

dns: no address within the look-up's deadline. connect: no connection (refused, unreachable, or not
made in time, TLS handshake included). tls: the handshake failed. timeout: asked, but no complete
answer in time. reset: the connection ended before the answer did. malformed: not HTTP/1.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The receiver has it: any 2xx."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """The receiver asks for patience: the attempt budget is not used.

    Attributes:
        retry_after: µs to wait at least, at most 24 h; None leaves it to the schedule.
    """

    status: int
    retry_after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The receiver answered, and did not take it: 3xx (never followed), other 4xx and 5xx."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """The receiver took a challenge with 2xx, and did not answer it."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The receiver wants no more of it: 410."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """No complete answer came."""

    code: UnreachableCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The destination's address may not be dialled; no packet was sent to it."""


Outcome = Delivered | Throttled | Rejected | Unanswered | Gone | Unreachable | Denied


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and what came back.

    Attributes:
        answer: the start of the answer's body, redacted UTF-8, at most `MAX_ANSWER_KEPT` bytes.
        answer_truncated: whether the receiver said more than `answer` holds.
        duration: µs from the call to the outcome.
        connect: µs until the connection was there, look-up and TLS included; None when one was
            reused or none was made.
        first_byte: µs until the answer's head was there; None when it never came.
    """

    outcome: Outcome
    answer: bytes
    answer_truncated: bool
    duration: int
    connect: int | None
    first_byte: int | None


_GONE = 410
_ALWAYS_THROTTLING = frozenset({429, 502, 503, 504})


def classify(status: int, retry_after: str | None, now: int) -> Outcome:
    """Return what an answer means.

    Args:
        status: the final status code.
        retry_after: the Retry-After header as received; None when there was none.
        now: µs since the epoch, for the header's date form.
    """
    if 200 <= status <= 299:
        return Delivered(status=status)
    if status == _GONE:
        return Gone(status=status)
    hint = parse_retry_after(retry_after, now) if status >= 400 else None
    if status in _ALWAYS_THROTTLING or hint is not None:
        return Throttled(status=status, retry_after=hint or None)
    return Rejected(status=status)


_DELTA = re.compile(r"0*(\d{1,6})", re.ASCII)
_LONG_DELTA = re.compile(r"\d+", re.ASCII)


def parse_retry_after(value: str | None, now: int) -> int | None:
    """Return the wait that a Retry-After header asks for, in µs from `now` (µs), at most 24 h.

    Both forms of RFC 9110, section 10.2.3: seconds, or one of the three HTTP-dates. A date in the
    past gives 0. None for no header and for anything else, such as `-1` or `nan`.
    """
    if value is None:
        return None
    text = value.strip(" \t")
    if match := _DELTA.fullmatch(text):
        return min(int(match[1]) * SECOND, MAX_RETRY_AFTER)
    if _LONG_DELTA.fullmatch(text):
        return MAX_RETRY_AFTER
    moment = _parse_http_date(text, now)
    if moment is None:
        return None
    return min(max(moment - now, 0), MAX_RETRY_AFTER)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_WEEKDAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_HTTP_DATES = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",
        rf"{_WEEKDAY}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} GMT",
        rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)
_LEAP_SECOND = 60


def _parse_http_date(text: str, now: int) -> int | None:
    """Return an HTTP-date (RFC 9110, section 5.6.7; also its obsolete forms) in µs, or None."""
    for pattern in _HTTP_DATES:
        if match := pattern.fullmatch(text):
            break
    else:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:  # the obsolete form
        year = _century(year, now)
    second = int(match["second"])
    try:
        moment = datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            second - 1 if second == _LEAP_SECOND else second,
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return timegm(moment.utctimetuple()) * SECOND


def _century(two_digits: int, now: int) -> int:
    """Return the full year: one that seems over 50 years ahead is the past one (RFC 9110)."""
    this_year = 1970 + now // (31_556_952 * SECOND)  # the mean Gregorian year
    year = this_year - this_year % 100 + two_digits
    return year - 100 if year > this_year + 50 else year
