"""A multipart body is read part by part, however it is cut into chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.multipart import MAX_PARTS, Multipart, Part
from gateway.problems import Problem

BOUNDARY = b"frontier"


def encode(*parts: tuple[str, bytes]) -> bytes:
    """Return a body of `parts`: head fields and content."""
    body = b""
    for fields, content in parts:
        body += b"--frontier\r\n" + fields.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + b"--frontier--\r\n"


def head(name: str, filename: str | None = None, content_type: str | None = None) -> str:
    """Return the head fields of a part."""
    fields = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        fields += f'; filename="{filename}"'
    if content_type is not None:
        fields += f"\r\nContent-Type: {content_type}"
    return fields


async def cut(body: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield `body` in chunks of `size`."""
    for at in range(0, len(body), size):
        yield body[at : at + size]


async def read(body: bytes, size: int = 1 << 16) -> list[tuple[Part, bytes]]:
    """Return every part of `body` with its content."""
    form = Multipart(cut(body, size), BOUNDARY)
    found: list[tuple[Part, bytes]] = []
    while (part := await form.next_part()) is not None:
        found.append((part, b"".join([chunk async for chunk in form.chunks()])))
    return found


@given(
    st.lists(
        st.binary() | st.sampled_from([b"", b"\r\n", b"\r\n--front", b"--frontier"]), max_size=4
    ),
    st.integers(1, 70),
)
async def test_any_content_in_any_chunks(contents: list[bytes], size: int) -> None:
    body = encode(*((head(f"part{at}"), content) for at, content in enumerate(contents)))
    found = await read(body, size)
    assert [content for _, content in found] == contents
    assert [part.name for part, _ in found] == [f"part{at}" for at in range(len(contents))]


async def test_what_a_head_says() -> None:
    fields = head("file", "../../é\x1b[31m.pdf", "application/pdf")
    [(part, _)] = await read(encode((fields, b"x")))
    assert part == Part(name="file", filename="../../é\x1b[31m.pdf", content_type="application/pdf")


async def test_unread_parts_are_skipped() -> None:
    form = Multipart(cut(encode((head("a"), b"x" * 100), (head("b"), b"y")), 7), BOUNDARY)
    names = []
    while (part := await form.next_part()) is not None:
        names.append(part.name)
    assert names == ["a", "b"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary at all",
        b"--other\r\n\r\n\r\n--other--\r\n",
        encode((head("a"), b"x"))[:-6],
        b"--frontier\r\n" + head("a").encode() + b"\r\n\r\nhalf a fi",
        encode(("Content-Type: text/plain", b"x")),
        encode(('Content-Disposition: attachment; name="a"', b"x")),
        encode(("Content-Disposition: form-data", b"x")),
        encode((head("a") + "\r\nX-Long: " + "x" * 10_000, b"x")),
        encode((head("a") + "\r\nX-Many: 1" * 20, b"x")),
        encode(*[(head(f"p{at}"), b"") for at in range(MAX_PARTS + 1)]),
    ],
)
async def test_malformed(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        await read(body)
    assert caught.value.code == "malformed_body"


@given(st.binary(max_size=300))
async def test_no_bytes_bring_another_error(body: bytes) -> None:
    codes: list[str] = []
    try:
        await read(b"--frontier\r\n" + body, 11)
    except Problem as problem:
        codes.append(problem.code)
    assert codes in ([], ["malformed_body"])
