"""One byte range is honoured, the rest is the whole or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ranges import Range, RangeUnsatisfiable, parse_range


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=2-5", 2, 6),
        ("bytes=2-", 2, 10),
        ("bytes=2-99", 2, 10),
        ("bytes=-3", 7, 10),
        ("bytes=-99", 0, 10),
        ("Bytes=9-9", 9, 10),
    ],
)
def test_satisfiable(header: str, start: int, end: int) -> None:
    assert parse_range(header, 10) == Range(start=start, end=end)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=a-b",
        "items=0-1",
        "bytes=0-1,3-4",
    ],
)
def test_ignored(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=10-12", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_unsatisfiable(header: str, size: int) -> None:
    with pytest.raises(RangeUnsatisfiable):
        parse_range(header, size)


@given(st.text(alphabet="0123456789-,bytes= "), st.integers(0, 50))
def test_a_range_lies_within(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except RangeUnsatisfiable:
        return
    if found is not None:
        assert 0 <= found.start < found.end <= size
