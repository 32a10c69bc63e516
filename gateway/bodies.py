"""Request bodies: what they may be labelled as, and how much of them is read.

Limits count bytes as they arrive, so a missing or lying Content-Length changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any, Literal

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.requests import Request

from config.sections import ApiSettings
from gateway.problems import Problem
from gateway.strict_json import StrictJsonError, loads

Kind = Literal["json", "multipart"]

JSON = "application/json"
MULTIPART = "multipart/form-data"

_MANY_DIGITS = 19


def body_kind(headers: Headers) -> Kind:
    """Return what the body is, by its label.

    Raises:
        Problem: `unsupported_media_type`.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Problem("unsupported_media_type", "send the body without Content-Encoding")
    media_type, parameters = parse_options_header(headers.get("content-type"))
    charset = parameters.get(b"charset", b"utf-8").lower()
    if media_type == JSON.encode() and charset in {b"utf-8", b"utf8"}:
        return "json"
    if media_type == MULTIPART.encode():
        return "multipart"
    detail = f"send {JSON} in UTF-8, or {MULTIPART} where files go along"
    raise Problem("unsupported_media_type", detail)


def boundary_of(headers: Headers) -> bytes:
    """Return the boundary between the parts of a multipart body (RFC 2046 section 5.1.1).

    Raises:
        Problem: `malformed_body`, when there is none.
    """
    boundary = parse_options_header(headers.get("content-type"))[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise Problem("malformed_body", "the Content-Type has no boundary of 1 to 70 characters")
    return boundary


async def limited(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yield the body as it comes in, at most `limit` bytes of it.

    Raises:
        Problem: `body_too_large`, before anything is read where Content-Length says so already.
        ClientDisconnect: the client went away half-way.
    """
    if _announced(request.headers) > limit:
        raise _too_large(limit)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        if chunk:
            yield chunk


async def read_json(request: Request, limits: ApiSettings) -> Any:
    """Return the value in a JSON body.

    Raises:
        Problem: `unsupported_media_type`, `body_too_large` or `malformed_json`.
        ClientDisconnect: the client went away half-way.
    """
    if body_kind(request.headers) != "json":
        raise Problem("unsupported_media_type", f"this address takes {JSON}")
    data = bytearray()
    async for chunk in limited(request, limits.body_limit_bytes):
        data += chunk
    return parse_json(bytes(data), depth=limits.json_depth)


async def read_optional_json(request: Request, limits: ApiSettings) -> Any:
    """Return the value in a JSON body; an empty object where there is no body at all.

    Raises:
        Problem, ClientDisconnect: as `read_json` does.
    """
    headers = request.headers
    # Without either header a request has no body (RFC 9112, section 6.3).
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return {}
    return await read_json(request, limits)


def parse_json(data: bytes, *, depth: int) -> Any:
    """Return the value that `data` holds.

    Raises:
        Problem: `malformed_json`.
    """
    try:
        return loads(data, depth=depth)
    except StrictJsonError as error:
        raise Problem("malformed_json", error.detail) from error


def _announced(headers: Headers) -> int:
    """Return how long the body says it is; 0 when it does not."""
    text = headers.get("content-length", "")
    if not text.isdecimal():
        return 0
    # Servers let through any number of leading zeros, and int() does not.
    digits = text.lstrip("0")
    return int(digits or "0") if len(digits) < _MANY_DIGITS else sys.maxsize


def _too_large(limit: int) -> Problem:
    return Problem("body_too_large", f"the body may be at most {limit} bytes")
