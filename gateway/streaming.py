"""Kept bytes over HTTP: streamed, whole or in one range, never run by a browser."""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.artifacts import ArtifactStore
from gateway.models import StoredFile
from gateway.problems import Problem
from gateway.ranges import Range, RangeUnsatisfiable, parse_range
from gateway.resource import matches

_CONTENT_TYPE = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)
_PLAIN_NAME = re.compile(r"[\w !#$&'()+,.@^`{}~-]{1,255}", re.ASCII)


async def stream_file(request: Request, file: StoredFile, artifacts: ArtifactStore) -> Response:
    """Return the answer to a GET or HEAD of `file`: the bytes, or one range of them.

    Raises:
        Problem: `range_not_satisfiable`.
        ArtifactError: the bytes are not to be had.
    """
    etag = f'"{file.sha256}"'
    headers = _headers(file, etag)
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    wanted = _wanted_range(request, file, etag)
    length = wanted.length if wanted else file.size
    headers["Content-Length"] = str(length)
    if wanted:
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.end - 1}/{file.size}"
    status = 206 if wanted else 200
    if request.method == "HEAD" or not length:
        return Response(status_code=status, headers=headers)
    if wanted:
        stream = await artifacts.open(file.path, start=wanted.start, end=wanted.end)
    else:
        stream = await artifacts.open(file.path)
    return StreamingResponse(stream, status, headers)


def _headers(file: StoredFile, etag: str) -> dict[str, str]:
    known = _CONTENT_TYPE.fullmatch(file.content_type)
    return {
        "Content-Type": file.content_type if known else "application/octet-stream",
        "Content-Disposition": _disposition(file.name),
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization, Origin",
    }


def _disposition(name: str) -> str:
    """Return what makes a browser save the bytes under `name` (RFC 6266, RFC 8187)."""
    if _PLAIN_NAME.fullmatch(name):
        return f'attachment; filename="{name}"'
    return f"attachment; filename*=utf-8''{quote(name, safe='', errors='replace')}"


def _wanted_range(request: Request, file: StoredFile, etag: str) -> Range | None:
    if request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return None
    try:
        return parse_range(request.headers.get("range"), file.size)
    except RangeUnsatisfiable as error:
        raise Problem(
            "range_not_satisfiable",
            f"the file has {file.size} bytes",
            headers={"Content-Range": f"bytes */{file.size}"},
        ) from error
