"""Artifacts: the bytes that are too large for the store (claim check), streamed in bounded memory.

One interface over a local directory (`file://`) and an S3-compatible bucket (`s3://`), by obstore.
The async methods serve the HTTP API; `save` and `local_copy` are for handlers, whose threads have
no loop.

What holds once `put` or `save` has returned:

- Atomic: a reader sees the whole object or none. A failed, cancelled or killed write leaves nothing
  under the path.
- Durable: a bucket answers only for what it has kept. obstore does not sync local files, so this
  module syncs the file and every directory above it, up to the root of the store.

Errors:

ArtifactError(GatewayError): the root; also any failure of the storage itself.
    ArtifactNotFound: nothing is kept under the path.
    ArtifactTooLarge: the stream is longer than its limit; nothing was kept.
    ArtifactNameInvalid: a handler chose a name that cannot be served.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from gateway.errors import GatewayError

# The least that S3 takes as a part of a multipart upload, except for the last one.
_PART = 5 * 1024 * 1024
_PARTS_IN_FLIGHT = 2
_BLOCK = 256 * 1024
# The most that S3 copies in one request.
_COPY_LIMIT = 5 * 1024**3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ArtifactError(GatewayError):
    """The artifact storage failed or refused."""


class ArtifactNotFound(ArtifactError):
    """Nothing is kept under the path."""


class ArtifactTooLarge(ArtifactError):
    """The stream is longer than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"larger than the limit of {limit} bytes")
        self.limit = limit


class ArtifactNameInvalid(ArtifactError):
    """The name is not `[A-Za-z0-9][A-Za-z0-9._-]{0,99}`."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"artifact name {name!r}: use letters, digits, '.', '_' and '-', start with a letter or"
            " digit, at most 100 characters"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What was kept.

    Attributes:
        size: bytes.
        sha256: lower-case hexadecimal.
    """

    size: int
    sha256: str


def job_prefix(job_id: str) -> str:
    """Return the prefix of everything kept for a job."""
    return f"jobs/{check_name(job_id)}"


def input_path(job_id: str, index: int) -> str:
    """Return where the job's upload number `index` is kept; clients' file names are no paths."""
    return f"{job_prefix(job_id)}/in/{index}"


def file_prefix(file_id: str) -> str:
    """Return the prefix of everything kept for a file that belongs to no job."""
    return f"files/{check_name(file_id)}"


def file_path(file_id: str) -> str:
    """Return where the bytes of such a file are kept."""
    return f"{file_prefix(file_id)}/0"


def output_path(job_id: str, name: str) -> str:
    """Return where the job's artifact `name` is kept.

    Raises:
        ArtifactNameInvalid: the name cannot be part of a path or an address.
    """
    return f"{job_prefix(job_id)}/out/{check_name(name)}"


def check_name(name: str) -> str:
    """Return `name` if it is safe as one step of a path and of an address.

    Raises:
        ArtifactNameInvalid: it is not.
    """
    if not _NAME.fullmatch(name):
        raise ArtifactNameInvalid(name)
    return name


class ArtifactStore:
    """Objects by path.

    obstore starts threads at its first use, and a child forked after that waits for ever: use a
    store only in processes that fork no more.

    Args:
        url: `file:///directory` (made when missing) or `s3://bucket/prefix`; for S3 the region,
            endpoint and credentials come from the standard `AWS_*` variables, read by obstore.

    Raises:
        ArtifactError: another scheme, or the directory cannot be made.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        local = parts.scheme == "file"
        if parts.scheme not in {"file", "s3"} or (local and parts.netloc):
            raise ArtifactError(f"artifacts are kept under file:///… or s3://…, not {url!r}")
        self._root = Path(unquote(parts.path)) if local else None
        with _translated(url):
            self._store: ObjectStore = from_url(url, mkdir=True) if local else from_url(url)

    async def put(self, path: str, stream: AsyncIterator[bytes], *, limit: int) -> Stored:
        """Keep all of `stream` under `path`, replacing what was there.

        At most about 20 MiB are held, however long the stream is. An error raised by the stream
        aborts the write, and nothing is kept.

        Raises:
            ArtifactTooLarge: the stream is longer than `limit` bytes.
            ArtifactError: the storage failed.
        """
        meter = _Meter(limit)
        head = bytearray()
        async for block in stream:
            head += meter.count(block)
            if len(head) >= _PART:
                break
        with _translated(path):
            if len(head) < _PART:
                await obstore.put_async(self._store, path, bytes(head))
            else:
                await obstore.put_async(
                    self._store,
                    path,
                    _rest(head, stream, meter),
                    chunk_size=_PART,
                    max_concurrency=_PARTS_IN_FLIGHT,
                )
            if self._root is not None:
                await asyncio.to_thread(_sync, self._root, path)
        return meter.stored()

    def save(self, path: str, data: bytes | BinaryIO, *, limit: int) -> Stored:
        """Keep `data`, or all that is left to read of it, under `path`; `put` without a loop.

        Raises:
            ArtifactTooLarge: there are more than `limit` bytes.
            ArtifactError: the storage failed.
        """
        meter = _Meter(limit)
        with _translated(path):
            if isinstance(data, bytes):
                obstore.put(self._store, path, meter.count(data))
            else:
                self._save_file(path, data, meter)
            if self._root is not None:
                _sync(self._root, path)
        return meter.stored()

    def _save_file(self, path: str, data: BinaryIO, meter: _Meter) -> None:
        with obstore.open_writer(
            self._store, path, buffer_size=_PART, max_concurrency=_PARTS_IN_FLIGHT
        ) as writer:
            while block := data.read(_BLOCK):
                writer.write(meter.count(block))

    async def open(
        self, path: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """Return the bytes from `start` up to, not including, `end`, as a stream of blocks.

        The object is found before this returns: a missing one can still be answered as missing.

        Args:
            start: the first byte, before the end of the object unless it is 0.
            end: one past the last byte; None for all the rest. Past the object means its end.

        Raises:
            ArtifactNotFound: nothing is kept under the path.
            ArtifactError: the storage failed, or the range starts past the object.
        """
        with _translated(path):
            if end is not None:
                found = await obstore.get_async(self._store, path, options={"range": (start, end)})
            elif start:
                found = await obstore.get_async(
                    self._store, path, options={"range": {"offset": start}}
                )
            else:
                found = await obstore.get_async(self._store, path)
        return _blocks(path, found.stream(_BLOCK))

    async def read(self, path: str, limit: int) -> bytes:
        """Return the whole object.

        Raises:
            ArtifactNotFound: nothing is kept under the path.
            ArtifactTooLarge: it has more than `limit` bytes.
            ArtifactError: the storage failed.
        """
        with _translated(path):
            found = await obstore.get_async(self._store, path)
            if found.meta["size"] > limit:
                raise ArtifactTooLarge(limit)
            return bytes(await found.bytes_async())

    def local_copy(self, path: str) -> BinaryIO:
        """Return the object as an open, seekable file, whose `name` other programs can open too.

        In a local store it is the object itself, opened for reading; from a bucket it is a copy in
        the temporary directory that goes when the file is closed.

        Raises:
            ArtifactNotFound: nothing is kept under the path.
            ArtifactError: the storage failed.
        """
        with _translated(path):
            if self._root is not None:
                return (self._root / path).open("rb")
            copy = tempfile.NamedTemporaryFile(prefix="artifact-")  # noqa: SIM115 - the caller's
            try:
                for block in obstore.get(self._store, path).stream(_BLOCK):
                    copy.write(block)
                copy.seek(0)
            except BaseException:
                copy.close()
                raise
        return copy  # type: ignore[return-value]  # a wrapper, with all that BinaryIO has

    async def copy(self, source: str, target: str) -> None:
        """Keep under `target` what is kept under `source`, replacing what was there.

        The storage copies by itself, except for what is larger than a bucket copies in one step.
        Either of the two may be deleted or replaced without the other.

        Raises:
            ArtifactNotFound: nothing is kept under `source`.
            ArtifactError: the storage failed.
        """
        with _translated(source):
            if self._root is not None:
                await obstore.copy_async(self._store, source, target)
                await asyncio.to_thread(_sync, self._root, target)
                return
            size = (await obstore.head_async(self._store, source))["size"]
            if size <= _COPY_LIMIT:
                await obstore.copy_async(self._store, source, target)
                return
        await self.put(target, await self.open(source), limit=size)

    async def delete_prefix(self, prefix: str) -> None:
        """Delete everything under `prefix`, whole path steps only; what is gone already is fine.

        Raises:
            ArtifactError: the storage failed; calling again goes on where it stopped.
        """
        with _translated(prefix):
            if self._root is not None:
                await asyncio.to_thread(_remove_tree, self._root / prefix)
                return
            async for page in obstore.list(self._store, prefix):
                await obstore.delete_async(self._store, [found["path"] for found in page])


class _Meter:
    """Counts and hashes what passes, and stops it at the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._hash = hashlib.sha256()

    def count(self, block: bytes) -> bytes:
        self._size += len(block)
        if self._size > self._limit:
            raise ArtifactTooLarge(self._limit)
        self._hash.update(block)
        return block

    def stored(self) -> Stored:
        return Stored(size=self._size, sha256=self._hash.hexdigest())


async def _rest(
    head: bytearray, stream: AsyncIterator[bytes], meter: _Meter
) -> AsyncIterator[bytes]:
    yield bytes(head)
    head.clear()
    async for block in stream:
        yield meter.count(block)


async def _blocks(path: str, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    with _translated(path):
        async for block in stream:
            yield block


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn what obstore and the file system raise into errors of this module."""
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactNotFound(f"nothing is kept under {what}") from error
    except (BaseError, OSError) as error:
        # obstore puts a page of debugging after the first line.
        reason = str(error).partition("\n")[0]
        raise ArtifactError(f"{what}: {reason}") from error


def _sync(root: Path, path: str) -> None:
    """Make the file and the directory entries that lead to it durable."""
    target = root / path
    for place in (target, *target.parents):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if place == root:
            return


def _remove_tree(path: Path) -> None:
    # The tree also holds the temporary files of killed writes, which obstore does not list.
    shutil.rmtree(path, onerror=_ignore_missing)


def _ignore_missing(
    _function: object, _path: object, failure: tuple[object, object, object]
) -> None:
    error = failure[1]
    if isinstance(error, BaseException) and not isinstance(error, FileNotFoundError):
        raise error
