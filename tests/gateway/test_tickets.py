"""A ticket opens its own job until it expires, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.clock import SECOND
from gateway.tickets import check, mint

KEY, OLD, OTHER = b"k" * 32, b"o" * 32, b"x" * 32
JOB = "job_00abcd000000000000000000"
EXPIRY = 1_800_000_000 * SECOND


def test_opens_its_job_until_it_expires() -> None:
    ticket = mint(JOB, EXPIRY, KEY)
    assert check(ticket, JOB, EXPIRY - 1, [KEY])
    assert not check(ticket, JOB, EXPIRY, [KEY])
    assert not check(ticket, JOB + "x", 0, [KEY])


def test_an_older_key_still_opens() -> None:
    ticket = mint(JOB, EXPIRY, OLD)
    assert check(ticket, JOB, 0, [KEY, OLD])
    assert not check(ticket, JOB, 0, [KEY, OTHER])
    assert not check(ticket, JOB, 0, [])


@pytest.mark.parametrize(
    "ticket",
    ["", ".", "1..", "1.zz.", "2" + mint(JOB, EXPIRY, KEY)[1:], mint(JOB, EXPIRY, KEY) + "A", "é"],
)
def test_malformed(ticket: str) -> None:
    assert not check(ticket, JOB, 0, [KEY])


def test_a_longer_life_needs_the_key() -> None:
    version, expiry, mac = mint(JOB, EXPIRY, KEY).split(".")
    later = f"{int(expiry, 16) + 1:x}"
    assert not check(f"{version}.{later}.{mac}", JOB, 0, [KEY])


@given(st.text())
def test_no_text_is_a_ticket_or_an_error(text: str) -> None:
    assert not check(text, JOB, 0, [KEY])


@given(st.integers(1, 2**40), st.binary(min_size=32, max_size=32))
def test_only_url_safe_characters(seconds: int, key: bytes) -> None:
    ticket = mint(JOB, seconds * SECOND, key)
    assert ticket.replace(".", "").replace("-", "").replace("_", "").isalnum()
    assert ticket.isascii()
    assert check(ticket, JOB, seconds * SECOND - 1, [key])
