"""Sealing: opens for its row and key only, and a ring rotates."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import ids
from delivery.errors import SealError
from delivery.sealing import KeyRing

OLD = "2025:" + base64.b64encode(bytes(range(32))).decode()
NEW = "2026:" + base64.b64encode(bytes(range(32, 64))).decode()


@given(plaintext=st.binary(max_size=4_096), row=st.text(max_size=64))
def test_opens_what_it_sealed(plaintext: bytes, row: str) -> None:
    ring = KeyRing.parse(NEW)
    assert ring.open(ring.seal(plaintext, row=row), row=row) == plaintext


@given(plaintext=st.binary(max_size=64), position=st.integers(0), flip=st.integers(1, 255))
def test_no_changed_byte_opens(plaintext: bytes, position: int, flip: int) -> None:
    ring = KeyRing.parse(NEW)
    sealed = bytearray(ring.seal(plaintext, row="job_1"))
    sealed[position % len(sealed)] ^= flip
    with pytest.raises(SealError):
        ring.open(bytes(sealed), row="job_1")


@given(st.binary(max_size=64))
def test_no_garbage_opens(sealed: bytes) -> None:
    with pytest.raises(SealError):
        KeyRing.parse(NEW).open(sealed, row="job_1")


def test_a_value_moved_to_another_row_does_not_open() -> None:
    ring = KeyRing.parse(NEW)
    with pytest.raises(SealError, match="another row"):
        ring.open(ring.seal(b"secret", row="a"), row="b")


def test_the_layout_is_key_id_nonce_ciphertext_and_tag() -> None:
    sealed = KeyRing.parse(NEW).seal(b"12345", row="a")
    assert sealed.startswith(b"2026.")
    assert len(sealed) == len(b"2026.") + 12 + 5 + 16


def test_the_same_plaintext_never_seals_to_the_same_bytes() -> None:
    ring = KeyRing.parse(NEW)
    assert ring.seal(b"x", row="a") != ring.seal(b"x", row="a")


def test_rotation_opens_the_old_and_seals_with_the_new() -> None:
    sealed = KeyRing.parse(OLD).seal(b"secret", row="a")
    ring = KeyRing.parse(f"# newest first\n{NEW}\n\n  {OLD}  \n")
    assert ring.open(sealed, row="a") == b"secret"
    assert ring.seal(b"x", row="a").startswith(b"2026.")
    with pytest.raises(SealError, match="not in the ring"):
        KeyRing.parse(NEW).open(sealed, row="a")


def test_commas_separate_as_lines_do() -> None:
    sealed = KeyRing.parse(OLD).seal(b"secret", row="a")
    assert KeyRing.parse(f"{NEW},{OLD}").open(sealed, row="a") == b"secret"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one"),
        (" \n# only a comment\n", "at least one"),
        ("nocolon", "entry 1"),
        (f"{NEW},k:!!!", "entry 2 is not base64"),
        ("k:" + base64.b64encode(b"short").decode(), "k: a key is 32 bytes, not 5"),
        ("bad.id:" + base64.b64encode(bytes(32)).decode(), "an id is"),
        (f"{NEW}\n{NEW}", "repeats"),
    ],
)
def test_a_bad_ring_is_refused_with_the_entry(text: str, message: str) -> None:
    with pytest.raises(SealError, match=message):
        KeyRing.parse(text)


def test_an_error_never_shows_a_key() -> None:
    encoded = base64.b64encode(ids.random_bytes(16)).decode()
    with pytest.raises(SealError) as caught:
        KeyRing.parse(f"k:{encoded}")
    assert encoded not in str(caught.value)


def test_derivation_is_hkdf_sha256() -> None:
    # RFC 5869 with no salt, one block: written out from section 2.
    extracted = hmac.digest(bytes(32), bytes(range(32)), hashlib.sha256)
    expanded = hmac.digest(extracted, b"tickets\x01", hashlib.sha256)
    assert KeyRing.parse(OLD).derive("tickets") == expanded


def test_derived_keys_differ_by_purpose_and_key() -> None:
    ring = KeyRing.parse(f"{NEW},{OLD}")
    assert ring.derive("a") != ring.derive("b")
    assert ring.derive_all("a") == (
        KeyRing.parse(NEW).derive("a"),
        KeyRing.parse(OLD).derive("a"),
    )
    assert ring.derive_all("a")[0] == ring.derive("a")
