"""The Prefer header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.preferences import MAX_WAIT, parse_preferences


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ([], None),
        (["wait=10"], 10),
        (["respond-async, wait=10"], 10),
        (["respond-async", "wait=10"], 10),
        (["wait=10,respond-async"], 10),
        (["respond-async"], None),
        (["WAIT = 7"], 7),
        (['wait="8"'], 8),
        (['wait="\\8"'], 8),
        (["wait=0"], 0),
        (["wait=30"], 30),
        (["wait=31"], 30),
        (["wait=999999999"], 30),
        (["wait=9999999999"], None),
        (["wait=5; strict=yes"], 5),
        (["wait=5; a; b=c, handling=lenient"], 5),
        (['note="a, wait=3", wait=4'], 4),
        (["wait=3, wait=4"], 3),
        (["wait=x, wait=4"], None),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=１"], None),
        (["wait=5 6"], None),
        (["=5, wait=6"], 6),
        ([",, wait=6,"], 6),
        (['"wait=5, wait=6'], 5),
    ],
)
def test_what_is_asked_for(headers: list[str], wait: int | None) -> None:
    assert parse_preferences(headers).wait == wait


def test_what_was_heeded() -> None:
    assert parse_preferences(["wait=99"]).applied == {"Preference-Applied": "wait=30"}
    assert parse_preferences(["respond-async"]).applied == {}


PIECES = st.sampled_from(["wait", "=", "5", '"', "\\", ",", ";", " ", "x", "respond-async"])


@given(st.lists(PIECES, max_size=2000).map("".join))
def test_no_header_is_too_odd(header: str) -> None:
    wait = parse_preferences([header]).wait
    assert wait is None or 0 <= wait <= MAX_WAIT
