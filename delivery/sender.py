"""One POST to one destination, and what came of it.

The caller signs and sets the contract's headers; the sender frames the request, and keeps of the
answer what an operator may see. Nothing that a receiver does is raised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import cast
from urllib.parse import unquote_plus

import httpx

from config.clock import SECOND, Clock
from delivery.egress import Destination
from delivery.errors import DestinationDenied
from delivery.outcomes import (
    MAX_ANSWER_KEPT,
    Denied,
    Exchange,
    Outcome,
    Unreachable,
    classify,
)
from delivery.transport import AiohttpTransport, Answer, TransportFailed

_MAY_HINT = 400  # the lowest status with which a Retry-After means something here


class Sender:
    """Sends bytes over a transport, which it does not own."""

    def __init__(self, transport: AiohttpTransport, clock: Clock) -> None:
        """Send over `transport`; `clock` measures, and dates a Retry-After."""
        self._transport = transport
        self._clock = clock

    async def send(
        self, destination: Destination, headers: Mapping[str, str], body: bytes
    ) -> Exchange:
        """POST `body` with `headers`; `host` and `content-length` are added.

        Raises:
            asyncio.CancelledError: only that; everything else is an outcome.
        """
        started = self._clock.monotonic()
        request = _request(destination, headers, body)
        try:
            response = await self._transport.handle_async_request(request)
        except DestinationDenied:
            return self._unanswered(Denied(), started)
        except TransportFailed as failure:
            return self._unanswered(Unreachable(code=failure.code), started)
        return self._answered(response, destination, headers, started)

    def _answered(
        self,
        response: httpx.Response,
        destination: Destination,
        headers: Mapping[str, str],
        started: float,
    ) -> Exchange:
        answer = cast(Answer, response.stream)
        kept, cut = redact(answer.body, headers, destination.target.partition("?")[2])
        status = response.status_code
        hint = response.headers.get("retry-after") if status >= _MAY_HINT else None
        return Exchange(
            outcome=classify(status, hint, self._clock.now()),
            answer=kept,
            answer_truncated=cut or answer.truncated,
            duration=self._since(started),
            connect=response.extensions["connect"],
            first_byte=response.extensions["first_byte"],
        )

    def _unanswered(self, outcome: Outcome, started: float) -> Exchange:
        return Exchange(
            outcome=outcome,
            answer=b"",
            answer_truncated=False,
            duration=self._since(started),
            connect=None,
            first_byte=None,
        )

    def _since(self, started: float) -> int:
        return round((self._clock.monotonic() - started) * SECOND)


def _request(destination: Destination, headers: Mapping[str, str], body: bytes) -> httpx.Request:
    """Frame the request here: what httpx does for every kind of caller takes four times as long.

    The target never passes through httpx, which would normalise it.
    """
    url = _parsed(destination.origin)
    framed = [
        (b"host", url.netloc),
        *((name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()),
        (b"content-length", b"%d" % len(body)),
    ]
    target = destination.target.encode("ascii")
    return httpx.Request(
        "POST", url, headers=framed, stream=httpx.ByteStream(body), extensions={"target": target}
    )


@lru_cache(maxsize=4_096)
def _parsed(origin: str) -> httpx.URL:
    return httpx.URL(origin)


_MASK = "***"

# Headers whose values an echo may repeat: everybody may know them.
_PUBLIC_HEADERS = frozenset(
    {
        "content-type",
        "gateway-attempt",
        "gateway-trigger",
        "traceparent",
        "user-agent",
        "webhook-id",
        "webhook-timestamp",
    }
)
_SHORTEST_SECRET = 6
_LOOKAHEAD = 2 * MAX_ANSWER_KEPT

_SECRETS = re.compile(
    r"""
    (?P<cookie> \b(?:set-)?cookie ["']? \s*:\s* ["']? ) [^\r\n"']+
  | (?P<named>
        \b(?:Bearer|Basic)\s+
      | \b(?:(?:proxy-)?authorization | x-api-key | api[_-]?key | (?:access|refresh)[_-]?token
            | client[_-]?secret | secret | password | passwd | token)
        ["']? \s*[:=]\s* ["']? (?:(?:Bearer|Basic)\s+)?
    )
    (?: (?<=") [^"]+ | (?<=') [^']+ | [^\s"',;&<>]+ )
  | \b(?:whsec|whsk|xsig|gwk)_[A-Za-z0-9+/=_-]+
  | \beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?
    """,
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)
# All but tab and line ends; and what would reorder or break the line in a terminal or a log.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|\r(?!\n)")


def _mask(match: re.Match[str]) -> str:
    return (match["cookie"] or match["named"] or "") + _MASK


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def redact(body: bytes, headers: Mapping[str, str], query: str = "") -> tuple[bytes, bool]:
    """Return what may be kept of an answer's `body`, and whether it is less than all of it.

    Text is decoded as UTF-8 with replacement, control characters are written as escapes, and
    credentials are masked: values of `headers` and of `query` that the receiver echoes, tokens, and
    what follows words such as `password=`.
    """
    if not body:
        return b"", False
    # A secret that begins inside what is kept is masked although its end lies beyond.
    text = body[:_LOOKAHEAD].decode("utf-8", "replace")
    for value in (*_private_values(headers), *_query_values(query)):
        text = text.replace(value, _MASK)
    text = _CONTROL.sub(_escape, _SECRETS.sub(_mask, text))
    kept = text.encode()
    if len(kept) <= MAX_ANSWER_KEPT:
        return kept, len(body) > _LOOKAHEAD
    return kept[:MAX_ANSWER_KEPT].decode("utf-8", "ignore").encode(), True


def _private_values(headers: Mapping[str, str]) -> list[str]:
    return [
        value
        for name, value in headers.items()
        if len(value) >= _SHORTEST_SECRET and name.lower() not in _PUBLIC_HEADERS
    ]


def _query_values(query: str) -> list[str]:
    """Return what an echo of a URL could repeat of its query, the longest first."""
    values = {query, *(part.partition("=")[2] or part for part in query.split("&"))}
    decoded = {unquote_plus(value) for value in values}
    return sorted(
        (value for value in values | decoded if len(value) >= _SHORTEST_SECRET),
        key=len,
        reverse=True,
    )
