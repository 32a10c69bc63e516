"""Idempotency keys: how they are written, and which requests are the same. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from gateway.models import StoredFile
from gateway.problems import Problem
from gateway.schemas.jobs import SubmitRequest
from gateway.strict_json import canonical

_BARE = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)
_QUOTED = re.compile(r'"(?:[^"\\]|\\["\\])*"', re.ASCII)
_ESCAPED = re.compile(r'\\(["\\])')


def parse_key(values: Sequence[str], *, required: bool) -> str | None:
    """Return the key in the `Idempotency-Key` headers of a request; None without one.

    A structured string (RFC 9651 section 3.3.3) and the bare text are the same key.

    Raises:
        Problem: `idempotency_key_required` or `invalid_idempotency_key`.
    """
    if not values:
        if required:
            raise Problem("idempotency_key_required", "this needs an Idempotency-Key header")
        return None
    if len(values) > 1:
        raise Problem("invalid_idempotency_key", "there is more than one Idempotency-Key header")
    text = values[0].strip(" \t")
    if _QUOTED.fullmatch(text):
        text = _ESCAPED.sub(r"\1", text[1:-1])
    if not _BARE.fullmatch(text):
        detail = "an Idempotency-Key has 1 to 255 printable ASCII characters"
        raise Problem("invalid_idempotency_key", detail)
    return text


def fingerprint(request: SubmitRequest, files: Mapping[str, StoredFile]) -> str:
    """Return what two requests share exactly when they ask for the same (SHA-256, hexadecimal)."""
    hashes = {name: file.sha256 for name, file in files.items()}
    parts = (request.type.encode(), request.canonical(), canonical(hashes))
    return hashlib.sha256(b"\n".join(parts)).hexdigest()
