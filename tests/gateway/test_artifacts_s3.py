"""The artifact store on a bucket: a server that speaks S3, as a process of its own."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from config.settings import environment
from gateway.artifacts import (
    ArtifactError,
    ArtifactNotFound,
    ArtifactStore,
    ArtifactTooLarge,
    Stored,
    input_path,
    job_prefix,
    output_path,
)
from tests.processes import eventually

JOB, OTHER = "job_07abcd0123456789ABCDEFghij", "job_07abcd0123456789ABCDEFghijk"
MIB = 1024 * 1024
PLENTY = 64 * MIB
SIZES = [0, 10, 5 * MIB, 12 * MIB + 3]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server with one empty bucket."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    said = tmp_path_factory.mktemp("s3") / "log"

    def has_bucket() -> bool:
        try:
            return httpx.put(f"{url}/bucket").status_code == 200
        except httpx.TransportError:
            assert server.poll() is None, said.read_text()
            return False

    with said.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
            env=environment(),
        )
        try:
            assert eventually(has_bucket), said.read_text()
            yield url
        finally:
            server.terminate()
            server.wait(10)


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """The store in that bucket, configured as S3 clients are."""
    variables = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return ArtifactStore("s3://bucket/some/prefix")


@pytest.fixture(autouse=True)
async def _empty(store: ArtifactStore) -> AsyncIterator[None]:
    yield
    for prefix in ("jobs", "files"):
        await store.delete_prefix(prefix)


async def blocks(data: bytes) -> AsyncIterator[bytes]:
    """Yield `data` as a socket would."""
    for at in range(0, len(data), 65_536):
        yield data[at : at + 65_536]


async def everything(stream: AsyncIterator[bytes]) -> bytes:
    """Return all of `stream`."""
    return b"".join([block async for block in stream])


def content(name: str) -> bytes | None:
    """Return what another program sees in the file; None when there is none."""
    path = Path(name)
    return path.read_bytes() if path.exists() else None


def bytes_of(size: int) -> bytes:
    """Return `size` bytes that are not all the same."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
async def test_a_stream_is_kept_as_it_was(store: ArtifactStore, size: int) -> None:
    path, data = input_path(JOB, 0), bytes_of(size)
    expected = Stored(size=size, sha256=hashlib.sha256(data).hexdigest())
    assert await store.put(path, blocks(data), limit=PLENTY) == expected
    assert await everything(await store.open(path)) == data
    assert await store.read(path, size) == data
    with store.local_copy(path) as copy:
        assert content(copy.name) == copy.read() == data
        assert copy.seek(0) == 0
    assert content(copy.name) is None


@pytest.mark.parametrize("size", SIZES)
async def test_a_handler_saves_bytes_and_files_alike(store: ArtifactStore, size: int) -> None:
    data = bytes_of(size)
    first, second = output_path(JOB, "first.bin"), output_path(JOB, "second.bin")
    kept = [
        store.save(first, data, limit=PLENTY),
        store.save(second, io.BytesIO(data), limit=PLENTY),
    ]
    assert kept == [Stored(size=size, sha256=hashlib.sha256(data).hexdigest())] * 2
    assert await store.read(first, PLENTY) == await store.read(second, PLENTY) == data


@pytest.mark.parametrize(
    ("start", "end", "slice_"),
    [(0, 4, "0123"), (3, 5, "34"), (6, None, "6789"), (0, None, "0123456789"), (8, 99, "89")],
)
async def test_ranges(store: ArtifactStore, start: int, end: int | None, slice_: str) -> None:
    path = input_path(JOB, 1)
    await store.put(path, blocks(b"0123456789"), limit=PLENTY)
    assert await everything(await store.open(path, start=start, end=end)) == slice_.encode()


@pytest.mark.parametrize("size", [11, 12 * MIB])
async def test_too_much_leaves_nothing(store: ArtifactStore, size: int) -> None:
    path, data = input_path(JOB, 0), bytes_of(size)
    with pytest.raises(ArtifactTooLarge):
        await store.put(path, blocks(data), limit=size - 1)
    with pytest.raises(ArtifactTooLarge):
        store.save(path, io.BytesIO(data), limit=size - 1)
    with pytest.raises(ArtifactNotFound):
        await store.open(path)


@pytest.mark.parametrize("size", SIZES)
async def test_a_copy_lives_by_itself(store: ArtifactStore, size: int) -> None:
    source, target = input_path(JOB, 0), input_path(OTHER, 0)
    data = bytes_of(size)
    await store.put(source, blocks(data), limit=PLENTY)
    await store.put(target, blocks(b"what was there"), limit=PLENTY)
    await store.copy(source, target)
    await store.delete_prefix(job_prefix(JOB))
    assert await store.read(target, PLENTY) == data


async def test_what_is_missing(store: ArtifactStore) -> None:
    path = output_path(JOB, "absent")
    with pytest.raises(ArtifactNotFound):
        await store.open(path)
    with pytest.raises(ArtifactNotFound):
        await store.read(path, 1)
    with pytest.raises(ArtifactNotFound):
        store.local_copy(path)
    with pytest.raises(ArtifactNotFound):
        await store.copy(path, output_path(JOB, "copy"))
    await store.delete_prefix(job_prefix(JOB))


async def test_deleting_a_job_spares_its_neighbours(store: ArtifactStore) -> None:
    for number in range(3):
        await store.put(input_path(JOB, number), blocks(b"gone"), limit=PLENTY)
    await store.put(input_path(OTHER, 0), blocks(b"kept"), limit=PLENTY)
    await store.delete_prefix(job_prefix(JOB))
    for number in range(3):
        with pytest.raises(ArtifactNotFound):
            await store.open(input_path(JOB, number))
    assert await store.read(input_path(OTHER, 0), PLENTY) == b"kept"


def test_a_bucket_that_is_not_there(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError):
        ArtifactStore("s3://nowhere").save(output_path(JOB, "a"), b"x", limit=PLENTY)
