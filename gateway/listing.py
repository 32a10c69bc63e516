"""Listing jobs: what may be asked for, where a page ends, and the token that goes on from there.

Pure. A page is put together from what each partition found, newest first by (made at, identifier).
A partition looks at a bounded number of jobs, so with a filter a page may hold fewer than were
asked for, or none, and still lead on: `nextCursor` alone says whether there is more.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import merge
from itertools import islice
from typing import cast, get_args

from config.clock import parse_rfc3339
from config.ids import is_id
from gateway.models import Status, View
from gateway.problems import Problem

DEFAULT_LIMIT = 50
MAX_LIMIT = 100
"""How many jobs a page holds at the most."""

SCAN = 1_000
"""How many jobs one partition looks at for one page."""

Place = tuple[int, str]
"""Where a job stands in the order: when it was made, µs, and its identifier."""

_PARAMETERS = ("status", "type", "createdAfter", "createdBefore", "limit", "cursor")
_MAX_TYPE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which jobs are wanted.

    Attributes:
        created_after: made at or after this instant, µs.
        created_before: made before this instant, µs.
        place: go on after it; None begins with the newest.
    """

    status: Status | None = None
    type: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    limit: int = DEFAULT_LIMIT
    place: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one partition found.

    Attributes:
        rows: newest first.
        reached: the last place that was looked at; None when there is nothing beyond.
    """

    rows: Sequence[View]
    reached: Place | None


def parse_query(parameters: Iterable[tuple[str, str]]) -> Query:
    """Return what the query parameters ask for.

    Raises:
        Problem: `invalid_parameter`, naming it. Unknown ones are refused too: a filter with a
            mistyped name would silently list everything.
    """
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in _PARAMETERS:
            raise Problem("invalid_parameter", f"known parameters are {', '.join(_PARAMETERS)}")
        if name in given:
            raise Problem("invalid_parameter", f"{name} may be given once")
        given[name] = value
    return Query(
        status=_status(given.get("status")),
        type=_type(given.get("type")),
        created_after=parse_instant("createdAfter", given.get("createdAfter")),
        created_before=parse_instant("createdBefore", given.get("createdBefore")),
        limit=parse_limit(given.get("limit")),
        place=parse_cursor(given.get("cursor"), partial(is_id, "job")),
    )


def parse_parameters(parameters: Iterable[tuple[str, str]], *names: str) -> dict[str, str]:
    """Return the query parameters, each of which is one of `names` and given once.

    Raises:
        Problem: `invalid_parameter`.
    """
    given = list(parameters)
    found = dict(given)
    if len(found) < len(given) or not found.keys() <= set(names):
        raise Problem("invalid_parameter", f"known parameters, each once, are {', '.join(names)}")
    return found


def parse_limit(text: str | None) -> int:
    """Return how many are wanted.

    Raises:
        Problem: `invalid_parameter`.
    """
    if text is None:
        return DEFAULT_LIMIT
    is_number = text.isascii() and text.isdecimal() and len(text) <= 4
    if not is_number or not 1 <= int(text) <= MAX_LIMIT:
        raise Problem("invalid_parameter", f"limit is a number from 1 to {MAX_LIMIT}")
    return int(text)


def make_cursor(place: Place) -> str:
    """Return the token that goes on after `place`."""
    return base64.urlsafe_b64encode(f"{place[0]}.{place[1]}".encode()).decode().rstrip("=")


def parse_cursor(text: str | None, is_member: Callable[[str], bool]) -> Place | None:
    """Return the place that a cursor stands for; None without one.

    It is checked, not trusted: it says where to go on in the caller's own list, nothing else.

    Args:
        text: as the client sent it.
        is_member: tells whether an identifier can be in that list.

    Raises:
        Problem: `invalid_parameter`.
    """
    if text is None:
        return None
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        kept = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (UnicodeError, binascii.Error):
        kept = ""
    made_at, _, identifier = kept.partition(".")
    is_instant = made_at.isdecimal() and len(made_at) <= 17
    if not is_instant or not is_member(identifier):
        raise Problem("invalid_parameter", "cursor is none that this list gave")
    return int(made_at), identifier


def join(parts: Sequence[Part], limit: int) -> tuple[list[View], Place | None]:
    """Return the page that `parts` make, and the place to go on after; None at the end.

    What lies beyond the newest place that a partition stopped at is left for the next page: that
    partition may have something in between.
    """
    horizon = max((part.reached for part in parts if part.reached is not None), default=None)
    rows = merge(*(part.rows for part in parts), key=place_of, reverse=True)
    ready = (row for row in rows if horizon is None or place_of(row) >= horizon)
    page = list(islice(ready, limit))
    if len(page) < limit:
        return page, horizon
    is_all = horizon is None and sum(len(part.rows) for part in parts) == limit
    return page, None if is_all else place_of(page[-1])


def place_of(view: View) -> Place:
    """Return where the job stands."""
    return view.job.created_at, view.job.id


def _status(text: str | None) -> Status | None:
    if text is not None and text not in get_args(Status):
        raise Problem("invalid_parameter", f"status is one of {', '.join(get_args(Status))}")
    return cast("Status | None", text)


def _type(text: str | None) -> str | None:
    if text is not None and not 1 <= len(text) <= _MAX_TYPE:
        raise Problem("invalid_parameter", f"type is a name of 1 to {_MAX_TYPE} characters")
    return text


def parse_instant(name: str, text: str | None) -> int | None:
    """Return the instant that the parameter `name` gives, µs; None without one.

    Raises:
        Problem: `invalid_parameter`.
    """
    if text is None:
        return None
    try:
        return max(0, parse_rfc3339(text))
    except (ValueError, OverflowError):
        detail = f"{name} is a time in RFC 3339, such as 2030-01-31T12:00:00Z"
        raise Problem("invalid_parameter", detail) from None
