"""Tickets: read access to one job for whoever cannot send an API key.

A ticket is `1.<expiry>.<mac>`: a version, the expiry in seconds since the epoch as hexadecimal, and
the first 24 bytes of HMAC-SHA256 (RFC 2104, which allows cutting to half) over version, expiry and
job. Nothing is stored, so a ticket is reusable until it expires and cannot be revoked alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable

from config.clock import SECOND

_SHAPE = re.compile(r"1\.([0-9a-f]{1,12})\.([A-Za-z0-9_-]{32})", re.ASCII)
_MAC_BYTES = 24

PURPOSE = "ticket"
"""What the key is derived for: `KeyRing.derive(PURPOSE)`."""


def mint(job_id: str, expires_at: int, key: bytes) -> str:
    """Return a ticket for `job_id` good until `expires_at` (µs, rounded down to a second)."""
    expiry = f"{expires_at // SECOND:x}"
    return f"1.{expiry}.{_mac(job_id, expiry, key)}"


def check(ticket: str, job_id: str, now: int, keys: Iterable[bytes]) -> bool:
    """Tell whether `ticket` opens `job_id` at `now` (µs) under any of `keys`, in constant time."""
    shape = _SHAPE.fullmatch(ticket)
    if shape is None or int(shape[1], 16) * SECOND <= now:
        return False
    matches = [hmac.compare_digest(_mac(job_id, shape[1], key), shape[2]) for key in keys]
    return any(matches)


def _mac(job_id: str, expiry: str, key: bytes) -> str:
    digest = hmac.digest(key, f"1.{expiry}.{job_id}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:_MAC_BYTES]).decode()
