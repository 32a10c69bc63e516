"""W3C Trace Context: where a request stands in a trace, and how the deliveries it led to go on.

A `traceparent` is `version-traceid-parentid-flags`. Each attempt is a span of its own: same trace,
same flags, a fresh identifier. Where there is no trace none is begun.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SPAN_SIZE = 8
"""Bytes of a span's identifier."""

_SHAPE = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.ASCII,
)
_KNOWN_FLAGS = 0b11
"""Sampled, and that the trace's identifier is random; what is not known yet is sent as 0."""


def parse_traceparent(values: Sequence[str]) -> str | None:
    """Return the `traceparent` in a request's headers of that name, as version 00.

    None stands for no valid one: none, several, or one that the specification (section 3.2.2 and
    4.3) has ignored. A later version is read for what version 00 knows.
    """
    if len(values) != 1:
        return None
    found = _SHAPE.fullmatch(values[0].strip(" \t"))
    if found is None or found["version"] == "ff":
        return None
    if found["version"] == "00" and found["more"]:
        return None
    if not int(found["trace"], 16) or not int(found["parent"], 16):
        return None
    flags = int(found["flags"], 16) & _KNOWN_FLAGS
    return f"00-{found['trace']}-{found['parent']}-{flags:02x}"


def continue_trace(traceparent: str, span: bytes) -> str:
    """Return the `traceparent` of an attempt that goes on from `traceparent` as `span`.

    Args:
        traceparent: as `parse_traceparent` returned it.
        span: random, `SPAN_SIZE` bytes.
    """
    version, trace, _, flags = traceparent.split("-")
    # All zeros would be no identifier at all.
    return f"{version}-{trace}-{int.from_bytes(span) or 1:016x}-{flags}"
