"""Bytes that the client sends and keeps: files in requests, downloads on disk.

Everything here blocks on files, never on the network; an asynchronous driver calls it in a thread.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

CHUNK = 64 * 1024

FileSource: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO"
"""A path, the bytes themselves, or a file opened for reading that can seek."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file to send, where its name or its content type are not those to be guessed."""

    source: FileSource
    name: str | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file as it is sent, as often as it has to be.

    Attributes:
        name: as the gateway shows it.
        content_type: as declared.
        size: bytes.
        origin: where the bytes are.
        start: where in an open file they begin.
    """

    name: str
    content_type: str
    size: int
    origin: Path | bytes | BinaryIO
    start: int = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes, from the beginning each time."""
        match self.origin:
            case bytes():
                yield self.origin
            case Path():
                with self.origin.open("rb") as opened:
                    yield from _chunks(opened)
            case _:
                self.origin.seek(self.start)
                yield from _chunks(self.origin)


def source_of(upload: Upload | FileSource, name: str = "file") -> Source:
    """Return what sends `upload`, under `name` unless it has one.

    Raises:
        OSError: there is no such file.
        ValueError: an open file that cannot seek, so that it could not be sent again.
    """
    if not isinstance(upload, Upload):
        return source_of(Upload(source=upload), name)
    match upload.source:
        case bytes() as data:
            return _source(upload, name, data, len(data))
        case str() | os.PathLike() as path:
            place = Path(path)
            return _source(upload, place.name, place, place.stat().st_size)
        case opened:
            return _opened(upload, name, opened)


def _opened(upload: Upload, name: str, opened: BinaryIO) -> Source:
    if not opened.seekable():
        raise ValueError("a file to upload must be able to seek; pass its bytes instead")
    start = opened.tell()
    size = opened.seek(0, os.SEEK_END) - start
    named = getattr(opened, "name", None)
    shown = Path(named).name if isinstance(named, str) else name
    return _source(upload, shown, opened, size, start)


def _source(
    upload: Upload, name: str, origin: Path | bytes | BinaryIO, size: int, start: int = 0
) -> Source:
    shown = upload.name or name
    guessed = mimetypes.guess_type(shown)[0] or "application/octet-stream"
    return Source(
        name=shown,
        content_type=upload.content_type or guessed,
        size=size,
        origin=origin,
        start=start,
    )


def _chunks(opened: BinaryIO) -> Iterator[bytes]:
    while chunk := opened.read(CHUNK):
        yield chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The body of a request, which can be sent more than once."""

    content_type: str
    segments: Sequence[bytes | Source]

    @property
    def length(self) -> int:
        """Bytes."""
        return sum(len(each) if isinstance(each, bytes) else each.size for each in self.segments)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes, none of them empty, from the beginning each time."""
        for segment in self.segments:
            pieces = (segment,) if isinstance(segment, bytes) else segment.chunks()
            yield from filter(None, pieces)


def form(request: bytes, files: Mapping[str, Source], boundary: str) -> Body:
    """Return a multipart/form-data body (RFC 7578): the request first, as part `job`."""
    segments: list[bytes | Source] = [
        _head(boundary, "job", "application/json"),
        request,
    ]
    for name, source in files.items():
        segments += [
            b"\r\n",
            _head(boundary, name, source.content_type, source.name),
            source,
        ]
    segments.append(f"\r\n--{boundary}--\r\n".encode())
    return Body(content_type=f"multipart/form-data; boundary={boundary}", segments=segments)


def _head(boundary: str, name: str, content_type: str, filename: str | None = None) -> bytes:
    named = "" if filename is None else f'; filename="{quoted(filename)}"'
    disposition = f'Content-Disposition: form-data; name="{quoted(name)}"{named}'
    head = f"--{boundary}\r\n{disposition}\r\nContent-Type: {content_type}\r\n\r\n"
    return head.encode("utf-8", "replace")


def quoted(text: str) -> str:
    """Return `text` as it stands between quotes in a part's head (HTML, multipart/form-data)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


class Sink(Protocol):
    """Where a download goes."""

    def open(self) -> None:
        """Begin."""

    def restart(self) -> None:
        """Forget what was written.

        Raises:
            OSError: that is not possible.
        """

    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def commit(self) -> None:
        """Keep what was written: it is what was wanted."""

    def discard(self) -> None:
        """Leave nothing behind, unless it was committed."""


@dataclass(slots=True)
class PathSink:
    """A file that appears at `path`, complete, or not at all."""

    path: Path
    suffix: str
    _file: BinaryIO | None = field(default=None, init=False)

    @property
    def _part(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{self.suffix}.part")

    def open(self) -> None:
        """Begin, beside the place, so that the file can be moved there in one step."""
        self._file = self._part.open("xb")

    def restart(self) -> None:
        """Forget what was written."""
        self._opened().seek(0)
        self._opened().truncate()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._opened().write(data)

    def commit(self) -> None:
        """Put the file in its place, and on the disk before."""
        opened = self._opened()
        opened.flush()
        os.fsync(opened.fileno())
        opened.close()
        self._part.replace(self.path)
        self._file = None

    def discard(self) -> None:
        """Delete what was written, unless it was committed."""
        if self._file is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)
            self._file = None

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the download is not open")
        return self._file


@dataclass(slots=True)
class FileSink:
    """An open file of the caller, written as the bytes come."""

    file: BinaryIO
    _start: int | None = field(default=None, init=False)

    def open(self) -> None:
        """Remember where the download begins."""
        self._start = self.file.tell() if self.file.seekable() else None

    def restart(self) -> None:
        """Forget what was written."""
        if self._start is None:
            raise OSError("the download broke off, and this file cannot go back to its beginning")
        self.file.seek(self._start)
        self.file.truncate()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self.file.write(data)

    def commit(self) -> None:
        """Leave the file to the caller."""

    def discard(self) -> None:
        """Leave the file to the caller."""


def sink_of(target: str | os.PathLike[str] | BinaryIO, suffix: str) -> Sink:
    """Return what keeps a download: a path, or a file opened for writing.

    Args:
        target: where it goes.
        suffix: makes the name of what is not complete yet unlike any other.
    """
    match target:
        case str() | os.PathLike():
            return PathSink(Path(target), suffix)
        case _:
            return FileSink(target)
