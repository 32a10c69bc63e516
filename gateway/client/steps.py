"""What a call of the client takes: steps for a driver, and the answers it comes back with.

A flow is a generator. It yields what is to be done next (`Step`), is sent what came of it, and
returns the outcome of the call. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias, TypeVar

from gateway.client.files import Body
from gateway.client.models import (
    GatewayClientError,
    JobEvent,
    JobExpired,
    NoAnswer,
    ProblemError,
    UnexpectedAnswer,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Send a request; comes back as `Reply` or `NoReply`.

    Attributes:
        read: seconds of patience for each piece of the answer.
        stream: leave the body of a 200 or 206 to `Read`.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    read: float
    body: Body | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """The next piece of the streamed body: bytes, None at its end, or `NoReply`."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Do:
    """Call what may block on a file."""

    action: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Emit:
    """Give the caller an event."""

    event: JobEvent


Step: TypeAlias = Ask | Read | Pause | Do | Emit
T = TypeVar("T")
Flow: TypeAlias = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer; header names are lower-case, and a streamed body is not in it."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """Return the decoded body.

        Raises:
            UnexpectedAnswer: it is not JSON.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError) as error:
            raise UnexpectedAnswer(f"an answer with status {self.status} is not JSON") from error

    @property
    def is_json(self) -> bool:
        """Whether it says that it is JSON, and not empty."""
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return bool(self.content) and media_type.endswith(("/json", "+json"))

    @property
    def retry_after(self) -> float | None:
        """Seconds until asking again makes sense, if it says so (RFC 9110, 10.2.3)."""
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdecimal() and len(value) < 10:
            return float(value)
        then, now = _http_date(value), _http_date(self.headers.get("date", ""))
        # Both are the sender's: its clock may be wrong.
        return max(0.0, (then - now).total_seconds()) if then and now else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoReply:
    """No answer, or not all of it; `repeatable` unless another try would end as this one did."""

    error: Exception
    repeatable: bool


def failure_of(reply: Reply | NoReply) -> GatewayClientError:
    """Return what a `reply` that does not say yes raises."""
    if isinstance(reply, NoReply):
        return NoAnswer(f"no answer: {reason_of(reply.error)}")
    return problem_of(reply)


def problem_of(reply: Reply) -> ProblemError:
    """Return the problem that `reply` tells, whether the gateway or a proxy wrote it."""
    try:
        members = reply.json() if reply.is_json else {}
    except UnexpectedAnswer:
        members = {}
    members = members if isinstance(members, dict) else {}
    code, detail, errors = (members.get(name) for name in ("code", "detail", "errors"))
    kind = JobExpired if reply.status == 410 else ProblemError
    return kind(
        code if isinstance(code, str) else f"http_{reply.status}",
        reply.status,
        detail if isinstance(detail, str) else "the answer says no more",
        errors=tuple(each for each in errors if isinstance(each, dict))
        if isinstance(errors, list)
        else (),
        retry_after=reply.retry_after,
        members=members,
    )


def reason_of(error: Exception) -> str:
    """Return what `error` says, or its name where it says nothing."""
    return str(error) or type(error).__name__


def _http_date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
