"""Custom headers of a callback: which a client may add, and in what shape. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping

from delivery.errors import HeaderRefused

MAX_HEADERS = 20
MAX_NAME = 128
MAX_VALUE = 4_096
MAX_TOTAL = 8_192
"""Names and values together, in characters."""

# What delivery sets itself, what frames the message, what is only for the next hop (RFC 9110,
# section 7.6.1), what says for whom a proxy speaks, and what has a receiver read another method or
# path than is sent: from a client, each would let it speak in our name, split the request, or ask
# for what the URL does not name.
_RESERVED = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-real-ip",
        "x-rewrite-url",
        "x-signature",
    }
)
_RESERVED_PREFIXES = ("gateway-", "proxy-", "webhook-", "x-forwarded-")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?", re.ASCII)


def validate_custom_headers(headers: Mapping[str, str]) -> None:
    """Return when `headers` may be sent along with every attempt.

    Values are printable ASCII without outer spaces, so that no client, proxy or receiver reads
    another value than was given.

    Raises:
        HeaderRefused: naming the header and the rule; values are never repeated.
    """
    if len(headers) > MAX_HEADERS:
        raise HeaderRefused("", f"There may be at most {MAX_HEADERS} custom headers.")
    seen: set[str] = set()
    for name, value in headers.items():
        _check_name(name, seen)
        _check_value(name, value)
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_TOTAL:
        raise HeaderRefused("", f"Custom headers may be {MAX_TOTAL} characters in all.")


def _check_name(name: str, seen: set[str]) -> None:
    shown = name[:MAX_NAME]
    if len(name) > MAX_NAME or not _TOKEN.fullmatch(name):
        raise HeaderRefused(
            shown, f"A header's name must be an HTTP token of 1 to {MAX_NAME} characters."
        )
    folded = name.lower()
    if folded in _RESERVED or folded.startswith(_RESERVED_PREFIXES):
        raise HeaderRefused(shown, f"The header {folded} is not for clients to set.")
    if folded in seen:
        raise HeaderRefused(shown, f"The header {folded} is given twice.")
    seen.add(folded)


def _check_value(name: str, value: str) -> None:
    if len(value) > MAX_VALUE:
        raise HeaderRefused(name, f"The header {name} is longer than {MAX_VALUE} characters.")
    if not _VALUE.fullmatch(value):
        raise HeaderRefused(
            name, f"The header {name} must be printable ASCII without spaces around it."
        )
