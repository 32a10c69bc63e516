"""Trace context: what is taken over of a request's, and how an attempt goes on from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.tracing import SPAN_SIZE, continue_trace, parse_traceparent

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        pytest.param(GOOD, GOOD, id="sampled"),
        pytest.param(f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-00", id="not-sampled"),
        pytest.param(f"00-{TRACE}-{PARENT}-03", f"00-{TRACE}-{PARENT}-03", id="random"),
        pytest.param(f"00-{TRACE}-{PARENT}-ff", f"00-{TRACE}-{PARENT}-03", id="unknown-flags"),
        pytest.param(f" {GOOD}\t", GOOD, id="space-around"),
        pytest.param(f"cc{GOOD[2:]}", GOOD, id="later-version"),
        pytest.param(f"cc{GOOD[2:]}-what-the-future-holds", GOOD, id="later-and-longer"),
        pytest.param(f"ff{GOOD[2:]}", None, id="forbidden-version"),
        pytest.param(f"{GOOD}-more", None, id="more-than-version-00-has"),
        pytest.param(f"{GOOD}-", None, id="a-dash-more"),
        pytest.param(f"cc{GOOD[2:]}.more", None, id="later-and-no-dash"),
        pytest.param(f"00-{'0' * 32}-{PARENT}-01", None, id="no-trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", None, id="no-parent"),
        pytest.param(GOOD.upper(), None, id="upper-case"),
        pytest.param(GOOD[:-1], None, id="short"),
        pytest.param(GOOD.replace("-", "_"), None, id="underscores"),
        pytest.param("٠٠" + GOOD[2:], None, id="other-digits"),
        pytest.param("", None, id="empty"),
    ],
)
def test_what_is_taken_over(value: str, kept: str | None) -> None:
    assert parse_traceparent([value]) == kept


def test_one_or_none() -> None:
    assert parse_traceparent([]) is None
    assert parse_traceparent([GOOD, GOOD]) is None


@given(span=st.binary(min_size=SPAN_SIZE, max_size=SPAN_SIZE))
def test_an_attempt_is_a_span_of_its_own_in_the_same_trace(span: bytes) -> None:
    going_on = continue_trace(GOOD, span)
    assert parse_traceparent([going_on]) == going_on
    version, trace, parent, flags = going_on.split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert parent == span.hex() or not any(span)


def test_zeros_are_no_span() -> None:
    assert continue_trace(GOOD, bytes(SPAN_SIZE)).split("-")[2] == "0000000000000001"


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"))
def test_nothing_that_is_sent_raises(value: str) -> None:
    kept = parse_traceparent([value])
    assert kept is None or parse_traceparent([kept]) == kept
