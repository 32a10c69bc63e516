"""Files reach the artifact store under numbers, or nothing of them stays."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.artifacts import ArtifactStore
from gateway.models import StoredFile
from gateway.multipart import Multipart
from gateway.problems import Problem
from gateway.uploads import read_request, store_files

JOB_ID = "job_00abcd000000000000000000"
WANTED = {"a": "/input/first", "b": "/input/second/0"}
LARGE = 6 * 1024 * 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where the artifacts are."""
    return tmp_path / "artifacts"


@pytest.fixture
def artifacts(folder: Path) -> ArtifactStore:
    """Return a store of files."""
    return ArtifactStore(f"file://{folder}")


def files_in(folder: Path) -> list[str]:
    """Return every file below `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def part(
    name: str, content: bytes, *, filename: str = "f", content_type: str = "text/plain"
) -> bytes:
    """Return one part, without the boundary that ends it."""
    head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
    head += f"Content-Type: {content_type}\r\n\r\n"
    return b"--x\r\n" + head.encode() + content + b"\r\n"


REQUEST = part("job", b'{"type": "t"}', content_type="application/json")
END = b"--x--\r\n"


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    """Yield `body` as a socket would."""
    for at in range(0, len(body), 65_536):
        yield body[at : at + 65_536]


def form_of(*parts: bytes) -> Multipart:
    """Return a body of `parts`."""
    return Multipart(chunks(b"".join(parts)), b"x")


async def store(
    form: Multipart, artifacts: ArtifactStore, *, limit: int = 2 * LARGE
) -> dict[str, StoredFile]:
    """Read the request, then store the files."""
    await read_request(form, limit=100)
    return await store_files(form, WANTED, artifacts=artifacts, job_id=JOB_ID, limit=limit)


@pytest.mark.parametrize("size", [0, 1, 70_000, LARGE])
async def test_stored_under_numbers(artifacts: ArtifactStore, folder: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    form = form_of(
        REQUEST,
        part("a", content, filename="../../etc/passwd"),
        part("b", b"two", filename="", content_type="text/html\x1b"),
        END,
    )
    stored = await store(form, artifacts)
    assert stored["a"] == StoredFile(
        path=f"jobs/{JOB_ID}/in/0",
        name="../../etc/passwd",
        size=size,
        sha256=hashlib.sha256(content).hexdigest(),
        content_type="text/plain",
    )
    assert stored["b"].name == "b"
    assert stored["b"].content_type == "application/octet-stream"
    assert files_in(folder) == [f"jobs/{JOB_ID}/in/0", f"jobs/{JOB_ID}/in/1"]
    assert (folder / stored["a"].path).read_bytes() == content


@pytest.mark.parametrize(
    ("parts", "code", "where"),
    [
        ([part("a", b"1"), END], "invalid_input", ["/input/second/0"]),
        ([END], "invalid_input", ["/input/first", "/input/second/0"]),
        ([part("a", b"1"), part("c", b"2"), END], "invalid_input", ["/input"]),
        ([part("a", b"1"), part("a", b"2"), END], "malformed_body", []),
        ([part("a", b"1"), part("b", b"2")], "malformed_body", []),
        ([part("a", b"1"), part("b", b"2" * LARGE)], "malformed_body", []),
        ([part("a", b"1"), part("b", b"2" * 3 * LARGE), END], "body_too_large", []),
    ],
)
async def test_refused(
    artifacts: ArtifactStore, folder: Path, parts: list[bytes], code: str, where: list[str]
) -> None:
    with pytest.raises(Problem) as caught:
        await store(form_of(REQUEST, *parts), artifacts)
    assert caught.value.code == code
    assert [fault.pointer for fault in caught.value.faults] == where
    assert files_in(folder) == []


@pytest.mark.parametrize("size", [100_000, LARGE])
async def test_nothing_stays_of_an_upload_that_is_called_off(
    artifacts: ArtifactStore, folder: Path, size: int
) -> None:
    waiting = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield REQUEST + part("a", b"1") + part("b", b"2" * size)[:-2]
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store(Multipart(stalls(), b"x"), artifacts))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files_in(folder) == []


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([part("a", b"1"), REQUEST, END], "malformed_body"),
        ([END], "malformed_body"),
        ([part("job", b"x" * 101), END], "body_too_large"),
    ],
)
async def test_the_request_comes_first(parts: list[bytes], code: str) -> None:
    with pytest.raises(Problem) as caught:
        await read_request(form_of(*parts), limit=100)
    assert caught.value.code == code
