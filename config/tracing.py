"""W3C Trace Context: where work stands in a trace, and how what it leads to goes on from there.

A *trace*, wherever one is kept or handed on, is one text: a `traceparent`, and after a space the
`tracestate` if there is one. A `traceparent` is `version-traceid-parentid-flags`. Whoever goes on
from it is a span of its own: same trace, same flags, a fresh identifier. The `tracestate` belongs
to others, and is passed on as it came.

Spans are recorded, and traces begun that no client began, only where the settings name a collector:
see `open_tracer`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

from config.sections import TracingSettings
from config.values import Role

if TYPE_CHECKING:
    from config.spans import Tracer

SPAN_SIZE = 8
"""Bytes of a span's identifier."""

MAX_STATE = 512
"""The longest `tracestate` that is passed on, in characters: as much as has to be (3.3.1.5)."""

_SHAPE = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.ASCII,
)
_KNOWN_FLAGS = 0b11
"""Sampled, and that the trace's identifier is random; what is not known yet is sent as 0."""

_MEMBER = re.compile(
    r"(?P<key>[a-z0-9][a-z0-9_*/@-]{0,255})=(?P<value>[ -+\--<>-~]{0,255}[!-+\--<>-~])", re.ASCII
)
_MAX_MEMBERS = 32
_LONG_MEMBER = 128
_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


def parse_trace(parents: Sequence[str], states: Sequence[str] = ()) -> str | None:
    """Return the trace that a request's `traceparent` and `tracestate` headers tell of.

    None stands for no valid `traceparent`: none, several, or one that the specification (section
    3.2.2 and 4.3) has ignored. A later version is read for what version 00 knows. An invalid
    `tracestate` is left out, and so is what makes one too long.
    """
    parent = _parse_parent(parents)
    if parent is None:
        return None
    state = _parse_state(states)
    return f"{parent} {state}" if state else parent


def continue_trace(trace: str, span: bytes) -> str:
    """Return the trace of what goes on from `trace` as `span`.

    Args:
        trace: as `parse_trace` returned it.
        span: random, `SPAN_SIZE` bytes.
    """
    parent, space, state = trace.partition(" ")
    version, trace_id, _, flags = parent.split("-")
    # All zeros would be no identifier at all.
    return f"{version}-{trace_id}-{int.from_bytes(span) or 1:016x}-{flags}{space}{state}"


def trace_headers(trace: str) -> dict[str, str]:
    """Return the headers that tell a receiver of `trace`; none of an empty one."""
    parent, _, state = trace.partition(" ")
    headers = {"traceparent": parent, "tracestate": state}
    return {name: value for name, value in headers.items() if value}


def can_record() -> bool:
    """Tell whether the packages are here that spans are recorded and sent with."""
    try:
        return all(find_spec(name) is not None for name in _NEEDED)
    except ModuleNotFoundError:
        return False


def open_tracer(settings: TracingSettings, role: Role) -> Tracer | None:
    """Return what records the spans of this process, None where no collector is named.

    To be called after any fork: it has a thread. Close it in the end.
    """
    if not settings.endpoint:
        return None
    from config.spans import Tracer  # noqa: PLC0415  nothing is loaded where it is off

    return Tracer(settings, role)


def within(trace: str | None) -> AbstractContextManager[None]:
    """Return a block in which `trace` is current for OpenTelemetry; nothing happens for None."""
    if trace is None:
        return nullcontext()
    from config.spans import current  # noqa: PLC0415  nothing is loaded where it is off

    return current(trace)


def _parse_parent(values: Sequence[str]) -> str | None:
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


def _parse_state(values: Sequence[str]) -> str:
    """Return the `tracestate` of several headers (section 3.3) as one; empty for none or no valid.

    Of one that is too long, long members go first, then those at the end.
    """
    found = [_MEMBER.fullmatch(text) for text in _listed(values)]
    members = [(each["key"], each[0]) for each in found if each is not None]
    if len(members) != len(found) or len(members) > _MAX_MEMBERS:
        return ""
    if len(dict(members)) != len(members):
        return ""
    texts = [text for _, text in members]
    if len(",".join(texts)) > MAX_STATE:
        texts = [text for text in texts if len(text) <= _LONG_MEMBER]
    while len(",".join(texts)) > MAX_STATE:
        texts.pop()
    return ",".join(texts)


def _listed(values: Sequence[str]) -> Iterator[str]:
    for value in values:
        yield from (text for part in value.split(",") if (text := part.strip(" \t")))
