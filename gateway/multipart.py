"""A multipart/form-data body (RFC 7578) as a stream of parts, each a stream of bytes.

The library's parser is pushed; this turns it round, so that whoever reads a part decides when the
next bytes are taken from the client. Nothing is held but what one chunk of the body gave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.problems import Problem

MAX_PARTS = 32
"""How many parts a body may have."""

_SHOWN_NAME = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The head of one part.

    Attributes:
        name: of the form field.
        filename: as the client named the file; for display only.
        content_type: as declared.
    """

    name: str
    filename: str | None
    content_type: str


@dataclass(slots=True)
class _Head:
    fields: dict[bytes, bytes] = field(default_factory=dict)
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)


class _PartEnd:
    """Marks the end of a part among the events."""


_PART_END = _PartEnd()


class Multipart:
    """Reads a multipart body part by part, in order.

    Args:
        stream: the body.
        boundary: what parts its parts.
    """

    def __init__(self, stream: AsyncIterator[bytes], boundary: bytes) -> None:
        self._stream = stream
        self._events: deque[Part | bytes | _PartEnd] = deque()
        self._head = _Head()
        self._parts = 0
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    async def next_part(self) -> Part | None:
        """Return the head of the next part, skipping what is unread of this one; None at the end.

        Raises:
            Problem: `malformed_body`; or what the stream raises.
        """
        while (event := await self._next()) is not None:
            if isinstance(event, Part):
                return event
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the part whose head came last.

        Raises:
            Problem: `malformed_body`; or what the stream raises.
        """
        while isinstance(event := await self._next(), bytes):
            yield event

    async def _next(self) -> Part | bytes | _PartEnd | None:
        while not self._events:
            chunk = await anext(self._stream, None)
            if chunk is None:
                if not self._complete:
                    raise Problem("malformed_body", "the body ends before its last boundary")
                return None
            self._feed(chunk)
        return self._events.popleft()

    def _feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            detail = "the body is not well-formed multipart/form-data"
            raise Problem("malformed_body", detail) from error

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Problem("malformed_body", f"the body may have at most {MAX_PARTS} parts")
        self._head = _Head()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._head.name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._head.value += data[start:end]

    def _on_header_end(self) -> None:
        head = self._head
        head.fields[bytes(head.name).lower()] = bytes(head.value)
        head.name.clear()
        head.value.clear()

    def _on_headers_finished(self) -> None:
        self._events.append(_part(self._head.fields))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _on_part_end(self) -> None:
        self._events.append(_PART_END)

    def _on_end(self) -> None:
        self._complete = True


def _part(fields: dict[bytes, bytes]) -> Part:
    disposition, options = parse_options_header(fields.get(b"content-disposition"))
    if disposition != b"form-data" or b"name" not in options:
        raise Problem("malformed_body", "a part lacks Content-Disposition: form-data with a name")
    filename = options.get(b"filename")
    return Part(
        name=_text(options[b"name"]),
        filename=None if filename is None else _text(filename),
        content_type=_text(fields.get(b"content-type", b"application/octet-stream")),
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace")[:_SHOWN_NAME]
