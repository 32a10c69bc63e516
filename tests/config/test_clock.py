"""Instants on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.clock import MILLISECOND, SECOND, parse_rfc3339, rfc3339

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = -62_135_596_800 * SECOND
"""The beginning of the year 1."""

LAST = 253_402_300_800 * SECOND - 1
"""The end of the year 9999."""


@given(us=st.integers(FIRST, LAST))
def test_an_instant_is_written_as_the_library_would_and_read_back(us: int) -> None:
    text = rfc3339(us)
    written = (EPOCH + timedelta(microseconds=us)).isoformat(timespec="milliseconds")
    assert text == written.removesuffix("+00:00") + "Z"
    assert parse_rfc3339(text) == us - us % MILLISECOND


@pytest.mark.parametrize("us", [FIRST - 1, LAST + 1, 10**30])
def test_an_instant_outside_of_the_years_has_no_text(us: int) -> None:
    with pytest.raises(OverflowError):
        rfc3339(us)
