from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.artifacts import (
    ArtifactError,
    ArtifactNameInvalid,
    ArtifactNotFound,
    ArtifactStore,
    ArtifactTooLarge,
    Stored,
    check_name,
    input_path,
    job_prefix,
    output_path,
)

JOB = "job_07abcd0123456789ABCDEFghij"
MIB = 1024 * 1024
PLENTY = 64 * MIB


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "some where" / "artifacts"


@pytest.fixture
def store(root: Path) -> ArtifactStore:
    return ArtifactStore(root.as_uri())


async def blocks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def everything(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([block async for block in stream])


def expected(data: bytes) -> Stored:
    return Stored(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def kept_files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"",),
        (b"a", b"", b"bc"),
        (b"x" * (5 * MIB),),
        (b"x" * (5 * MIB - 1), b"y", b"z"),
        (b"x" * (3 * MIB), b"y" * (3 * MIB), b"z" * (6 * MIB)),
    ],
    ids=["nothing", "empty block", "small", "one part", "a part and more", "many parts"],
)
async def test_a_stream_is_kept_as_it_was(store: ArtifactStore, pieces: tuple[bytes, ...]) -> None:
    path = input_path(JOB, 0)
    data = b"".join(pieces)
    assert await store.put(path, blocks(*pieces), limit=PLENTY) == expected(data)
    assert await everything(await store.open(path)) == data
    assert await store.read(path, len(data)) == data
    with store.local_copy(path) as copy:
        assert copy.read() == data
        assert copy.seek(0) == 0


@pytest.mark.parametrize("size", [0, 10, 12 * MIB])
async def test_a_handler_saves_bytes_and_files_alike(store: ArtifactStore, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"\xff" * (size % 256)
    rest = io.BytesIO(b"skipped" + data)
    rest.seek(len(b"skipped"))
    first, second = output_path(JOB, "first.bin"), output_path(JOB, "second.bin")
    assert store.save(first, data, limit=PLENTY) == expected(data)
    assert store.save(second, rest, limit=PLENTY) == expected(data)
    assert await store.read(first, PLENTY) == data
    assert await store.read(second, PLENTY) == data


async def test_a_later_write_replaces_an_earlier_one(store: ArtifactStore) -> None:
    path = output_path(JOB, "report.json")
    await store.put(path, blocks(b"a longer one"), limit=PLENTY)
    store.save(path, b"short", limit=PLENTY)
    assert await store.read(path, PLENTY) == b"short"


@pytest.mark.parametrize(
    ("start", "end", "slice_"),
    [(0, 4, "0123"), (3, 5, "34"), (6, None, "6789"), (0, None, "0123456789"), (8, 99, "89")],
)
async def test_ranges(store: ArtifactStore, start: int, end: int | None, slice_: str) -> None:
    path = input_path(JOB, 1)
    await store.put(path, blocks(b"0123456789"), limit=PLENTY)
    assert await everything(await store.open(path, start=start, end=end)) == slice_.encode()


async def test_a_range_past_the_object_is_an_error(store: ArtifactStore) -> None:
    path = input_path(JOB, 1)
    await store.put(path, blocks(b"0123456789"), limit=PLENTY)
    with pytest.raises(ArtifactError) as caught:
        await store.open(path, start=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [11, 12 * MIB])
async def test_too_much_leaves_nothing(store: ArtifactStore, root: Path, size: int) -> None:
    path = input_path(JOB, 0)
    pieces = (b"x" * (size - 1), b"y")
    with pytest.raises(ArtifactTooLarge, match=rf"limit of {size - 1} bytes"):
        await store.put(path, blocks(*pieces), limit=size - 1)
    with pytest.raises(ArtifactTooLarge):
        store.save(path, io.BytesIO(b"".join(pieces)), limit=size - 1)
    with pytest.raises(ArtifactTooLarge):
        store.save(path, b"".join(pieces), limit=size - 1)
    assert kept_files(root) == []


async def test_reading_is_bounded(store: ArtifactStore) -> None:
    path = output_path(JOB, "results.json")
    store.save(path, b"12345", limit=PLENTY)
    with pytest.raises(ArtifactTooLarge):
        await store.read(path, 4)


async def test_a_stream_that_breaks_leaves_what_was_there(store: ArtifactStore, root: Path) -> None:
    class Disconnected(Exception):
        pass

    async def broken(size: int) -> AsyncIterator[bytes]:
        yield b"x" * size
        raise Disconnected

    path = input_path(JOB, 0)
    await store.put(path, blocks(b"before"), limit=PLENTY)
    for size in (10, 12 * MIB):
        with pytest.raises(Disconnected):
            await store.put(path, broken(size), limit=PLENTY)
    assert await store.read(path, PLENTY) == b"before"
    assert len(kept_files(root)) == 1


async def test_nothing_is_seen_before_the_last_byte(store: ArtifactStore) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def halting() -> AsyncIterator[bytes]:
        yield b"x" * (12 * MIB)
        arrived.set()
        await go_on.wait()
        yield b"end"

    path = input_path(JOB, 0)
    writing = asyncio.create_task(store.put(path, halting(), limit=PLENTY))
    await arrived.wait()
    with pytest.raises(ArtifactNotFound):
        await store.open(path)
    go_on.set()
    assert (await writing).size == 12 * MIB + 3
    assert (await store.read(path, PLENTY)).endswith(b"end")


async def test_a_cancelled_write_is_as_if_never_begun(store: ArtifactStore, root: Path) -> None:
    arrived = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * (12 * MIB)
        arrived.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(store.put(input_path(JOB, 0), endless(), limit=PLENTY))
    await arrived.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    with pytest.raises(ArtifactNotFound):
        await store.open(input_path(JOB, 0))
    await store.delete_prefix(job_prefix(JOB))
    assert kept_files(root) == []


async def test_what_is_missing_is_told_before_the_first_byte(store: ArtifactStore) -> None:
    path = output_path(JOB, "absent")
    with pytest.raises(ArtifactNotFound):
        await store.open(path)
    with pytest.raises(ArtifactNotFound):
        await store.read(path, 1)
    with pytest.raises(ArtifactNotFound):
        store.local_copy(path)


async def test_deleting_a_job_spares_its_neighbours(store: ArtifactStore, root: Path) -> None:
    for job in ("job_1", "job_11"):
        for path in (input_path(job, 0), output_path(job, "report.pdf")):
            await store.put(path, blocks(b"kept"), limit=PLENTY)
    # What a write leaves when its process is killed: a temporary file that no listing shows.
    (root / "jobs" / "job_1" / "in" / "1#1").write_bytes(b"half")
    await store.delete_prefix(job_prefix("job_1"))
    await store.delete_prefix(job_prefix("job_1"))
    assert not (root / "jobs" / "job_1").exists()
    assert await store.read(input_path("job_11", 0), PLENTY) == b"kept"
    assert await store.read(output_path("job_11", "report.pdf"), PLENTY) == b"kept"


async def test_a_second_store_sees_what_the_first_kept(store: ArtifactStore, root: Path) -> None:
    await store.put(input_path(JOB, 0), blocks(b"kept"), limit=PLENTY)
    assert await ArtifactStore(root.as_uri()).read(input_path(JOB, 0), PLENTY) == b"kept"


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "file://host/x", "/tmp/x", "memory:///", "https://h/x", ""]
)
def test_other_places_are_refused(url: str) -> None:
    with pytest.raises(ArtifactError):
        ArtifactStore(url)


@pytest.mark.parametrize("name", ["a", "report.pdf", "0", "a_b-c.d.tar.gz", "x" * 100])
def test_names_that_can_be_served(name: str) -> None:
    assert output_path(JOB, name) == f"jobs/{JOB}/out/{name}"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-f", "a/b", "../x", "a b", "a\n", "a#1", "é", "a%2fb", "x" * 101],
)
def test_names_that_cannot(name: str) -> None:
    with pytest.raises(ArtifactNameInvalid):
        output_path(JOB, name)
    with pytest.raises(ArtifactNameInvalid):
        input_path(name, 0)


@given(st.text())
def test_a_name_is_one_plain_path_step_or_refused(name: str) -> None:
    try:
        check_name(name)
    except ArtifactNameInvalid:
        return
    assert Path(name).name == name
    assert name.isascii()
    assert name.isprintable()


@pytest.mark.parametrize("size", [0, 10, 12 * MIB])
async def test_a_copy_lives_by_itself(store: ArtifactStore, size: int) -> None:
    source, target = input_path("job_1", 0), input_path("job_2", 0)
    data = b"x" * size
    await store.put(source, blocks(data), limit=PLENTY)
    await store.put(target, blocks(b"what was there"), limit=PLENTY)
    await store.copy(source, target)
    await store.copy(source, target)
    await store.put(source, blocks(b"changed"), limit=PLENTY)
    assert await store.read(target, PLENTY) == data
    await store.delete_prefix(job_prefix("job_1"))
    assert await store.read(target, PLENTY) == data


async def test_nothing_is_copied_from_nothing(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactNotFound):
        await store.copy(input_path(JOB, 0), input_path(JOB, 1))
    with pytest.raises(ArtifactNotFound):
        await store.open(input_path(JOB, 1))
