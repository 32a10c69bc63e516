"""What a job keeps of an HTTP answer: the headers that mean something to it, and the body."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from typing import BinaryIO

from pydantic import JsonValue

from delivery.fetch import Fetched
from gateway.handlers import Artifact, JobContext
from gateway.strict_json import StrictJsonError, loads

INLINE_BYTES = 16 * 1024
"""The longest body that becomes part of the results; longer ones become an artifact."""

# For the connection and not for the job (RFC 9110, section 7.6.1), or the state of a browser.
_DROPPED = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-connection",
        "set-cookie",
        "set-cookie2",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_JSON_DEPTH = 32
_JSON = re.compile(r"application/(?:[a-z0-9!#$&^_.+-]+\+)?json", re.ASCII)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}", re.ASCII)
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return `headers`, named in lower case, less those that concern one connection only."""
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return {
        name: value for name, value in headers.items() if name not in _DROPPED and name not in named
    }


def media_type(headers: Mapping[str, str]) -> str:
    """Return the type that the answer says it has, without parameters; or that of mere bytes."""
    said = headers.get("content-type", "").partition(";")[0].strip().lower()
    return said if _MEDIA_TYPE.fullmatch(said) else "application/octet-stream"


def inline_body(data: bytes, headers: Mapping[str, str]) -> tuple[bool, JsonValue]:
    """Return whether `data` can be part of a JSON document, and as what value: JSON, else text."""
    if not data:
        return True, None
    if _is_coded(headers):
        return False, None
    if _JSON.fullmatch(media_type(headers)):
        try:
            return True, loads(data, depth=_JSON_DEPTH)
        except StrictJsonError:
            pass  # what calls itself JSON and is not is worth seeing as it came
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False, None
    return not _NOT_TEXT.search(text), text


def save_body(job: JobContext, body: BinaryIO, answer: Fetched) -> Artifact:
    """Keep a body that is too large or not text, named by its type."""
    headers = answer.headers
    kind = "application/octet-stream" if _is_coded(headers) else media_type(headers)
    body.seek(0)
    return job.save(f"answer{mimetypes.guess_extension(kind) or '.bin'}", body, kind)


def _is_coded(headers: Mapping[str, str]) -> bool:
    return headers.get("content-encoding", "identity").strip().lower() != "identity"
