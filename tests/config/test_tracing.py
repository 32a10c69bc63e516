"""Trace context: what is taken over of a request's, and how an attempt goes on from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.tracing import (
    MAX_STATE,
    SPAN_SIZE,
    continue_trace,
    parse_trace,
    trace_headers,
)

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
    assert parse_trace([value]) == kept


def test_one_or_none() -> None:
    assert parse_trace([]) is None
    assert parse_trace([GOOD, GOOD]) is None


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        pytest.param(["rojo=00f067aa0ba902b7"], "rojo=00f067aa0ba902b7", id="one"),
        pytest.param(["rojo=1,congo=t61rcWkgMzE"], "rojo=1,congo=t61rcWkgMzE", id="two"),
        pytest.param(["b=1", "a=2"], "b=1,a=2", id="two-headers"),
        pytest.param([" b=1\t,\t, a=2 ,"], "b=1,a=2", id="spaces-and-empty-members"),
        pytest.param(["t/x-_*@v=a b"], "t/x-_*@v=a b", id="odd-characters"),
        pytest.param([], "", id="none"),
        pytest.param([""], "", id="empty"),
        pytest.param(["a=1,A=2"], "", id="upper-case-key"),
        pytest.param(["a=1,a=2"], "", id="a-key-twice"),
        pytest.param(["a=1,b"], "", id="no-value"),
        pytest.param(["a=1=2"], "", id="equals-sign-in-a-value"),
        pytest.param(["a=\x01"], "", id="control-character"),
        pytest.param(["a=ä"], "", id="not-ascii"),
        pytest.param([f"a={'x' * 257}"], "", id="long-value"),
        pytest.param([",".join(f"k{n}=v" for n in range(32))], None, id="32-members"),
        pytest.param([",".join(f"k{n}=v" for n in range(33))], "", id="33-members"),
        pytest.param([f"a=1,l={'x' * 200},m={'y' * 200},n={'z' * 100}"], None, id="just-not-more"),
        pytest.param(
            [f"a=1,l={'x' * 200},m={'y' * 256},n=3,o={'z' * 80}"],
            "a=1,n=3,o=" + "z" * 80,
            id="long-members-go-first",
        ),
        pytest.param(
            [",".join(f"k{n}={'x' * 96}" for n in range(6))],
            ",".join(f"k{n}={'x' * 96}" for n in range(5)),
            id="then-the-last",
        ),
    ],
)
def test_what_is_taken_over_of_others_state(values: list[str], kept: str | None) -> None:
    kept = values[0] if kept is None else kept
    assert len(kept) <= MAX_STATE
    assert parse_trace([GOOD], values) == (f"{GOOD} {kept}" if kept else GOOD)
    assert parse_trace([], values) is None


def test_headers_say_what_was_said() -> None:
    assert trace_headers("") == {}
    assert trace_headers(GOOD) == {"traceparent": GOOD}
    state = "t/x@v=a b,c=d"
    assert trace_headers(f"{GOOD} {state}") == {"traceparent": GOOD, "tracestate": state}


def test_others_state_is_passed_on() -> None:
    going_on = continue_trace(f"{GOOD} a=b c", bytes(7) + b"\x02")
    assert trace_headers(going_on) == {
        "traceparent": f"00-{TRACE}-0000000000000002-01",
        "tracestate": "a=b c",
    }


@given(span=st.binary(min_size=SPAN_SIZE, max_size=SPAN_SIZE))
def test_an_attempt_is_a_span_of_its_own_in_the_same_trace(span: bytes) -> None:
    going_on = continue_trace(GOOD, span)
    assert parse_trace([going_on]) == going_on
    version, trace, parent, flags = going_on.split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert parent == span.hex() or not any(span)


def test_zeros_are_no_span() -> None:
    assert continue_trace(GOOD, bytes(SPAN_SIZE)).split("-")[2] == "0000000000000001"


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"))
def test_nothing_that_is_sent_raises(value: str) -> None:
    kept = parse_trace([value])
    assert kept is None or parse_trace([kept]) == kept


@given(st.lists(st.text() | st.from_regex(r"([a-z]=[ -~]{0,300},){0,40}"), max_size=3))
def test_no_state_raises_or_grows(values: list[str]) -> None:
    kept = parse_trace([GOOD], values)
    assert kept is not None
    told = trace_headers(kept)
    assert parse_trace([told["traceparent"]], [told.get("tracestate", "")]) == kept
    assert len(told.get("tracestate", "")) <= MAX_STATE
