"""Server-Sent Events as they come in, a piece of the stream at a time (HTML, 9.2.6)."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

MAX_EVENT = 16 * 2**20
"""Characters an event may have."""


class StreamTooLong(Exception):
    """An event is longer than MAX_EVENT characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One event of a stream; `id` is the last one that the stream named so far."""

    event: str
    data: str
    id: str | None


class StreamParser:
    """Turns the pieces of one connection into messages.

    Attributes:
        retry: seconds until the next connection, as the server asked; None unless it did.
    """

    def __init__(self) -> None:
        self.retry: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line: list[str] = []
        self._skip_newline = False
        self._event = ""
        self._data: list[str] = []
        self._size = self._length = 0
        self._id: str | None = None

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that `data` completes.

        Raises:
            StreamTooLong: what came so far is too long for one.
        """
        for line in self._lines(self._decoder.decode(data)):
            message = self._take(line)
            if message is not None:
                yield message

    def _lines(self, text: str) -> Iterator[str]:
        # A carriage return ends a line at once; a line feed after it belongs to it.
        if self._skip_newline and text:
            text = text.removeprefix("\n")
            self._skip_newline = False
        if text.endswith("\r"):
            self._skip_newline = True
        first, *others = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._line.append(first)
        self._length += len(first)
        for other in others:
            yield "".join(self._line)
            self._line = [other]
            self._length = len(other)
        if self._size + self._length > MAX_EVENT:
            raise StreamTooLong

    def _take(self, line: str) -> Message | None:
        if not line:
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._size += len(value)
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdecimal() and len(value) < 10:
                self.retry = int(value) / 1000
            case _:
                pass
        return None

    def _complete(self) -> Message | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._size = "", [], 0
        return Message(event=event, data="\n".join(data), id=self._id) if data else None
