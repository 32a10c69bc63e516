"""What both drivers of the client share: turning steps into requests, and answers into replies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx

from gateway.client.core import Calls, chance
from gateway.client.exchange import Exchange, Patience
from gateway.client.models import UnexpectedAnswer
from gateway.client.steps import Ask, NoReply, Reply

MAX_ANSWER = 64 * 2**20
"""Bytes that an answer may have which is no download and no event stream."""

LONG = 3600.0
"""Seconds that waiting for a job takes at most, unless the caller says otherwise."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A flow is at its end."""

    value: T


def make_calls(base_url: str, api_key: str | None, patience: Patience | None) -> Calls:
    """Return what a client of that gateway can do."""
    exchange = Exchange(
        base_url, api_key, patience=patience or Patience(), clock=time.monotonic, chance=chance
    )
    return Calls(exchange)


def build_request(
    http: httpx.Client | httpx.AsyncClient, ask: Ask, content: Any, patience: Patience
) -> httpx.Request:
    """Return the request that `ask` stands for."""
    length = {} if ask.body is None else {"Content-Length": str(ask.body.length)}
    return http.build_request(
        ask.method,
        ask.url,
        headers={**ask.headers, **length},
        content=content,
        timeout=httpx.Timeout(
            connect=patience.connect, read=ask.read, write=patience.read, pool=patience.read
        ),
    )


def is_streamed(ask: Ask, response: httpx.Response) -> bool:
    """Whether the body is taken piece by piece."""
    return ask.stream and response.status_code in {200, 206}


def reply_of(response: httpx.Response, content: bytes) -> Reply:
    """Return the answer as flows see it."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(status=response.status_code, headers=headers, content=content)


def check_answer(content: bytearray, in_time: bool) -> None:
    """Raise when an answer is too long, or too long in coming."""
    if len(content) > MAX_ANSWER:
        raise UnexpectedAnswer(f"an answer has more than {MAX_ANSWER} bytes")
    if not in_time:
        raise httpx.ReadTimeout("the answer took too long")


def no_reply(error: Exception) -> NoReply:
    """Return why no answer came, and whether to ask again."""
    futile = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
    repeatable = isinstance(error, httpx.TransportError) and not isinstance(error, futile)
    return NoReply(error=error, repeatable=repeatable)
