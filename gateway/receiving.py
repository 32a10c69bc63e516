"""The receiver's side of a callback: whether it is genuine and recent, and what it says.

    event = verify(body, headers, secret)

Standard Webhooks 1.0; for receivers that check `X-Signature` alone, `verify_x_signature`, which
proves less. This file needs Python alone, and `cryptography` where a secret is an Ed25519
key; nothing of this project: it may be copied into a receiver, whose own packages may be named as
ours are.

A receiver reads the raw bytes first, verifies them, takes in each `Event.id` once, answers 2xx
within seconds, works later, and relies on no order. 410 stops the callbacks to a URL.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

TOLERANCE = 300
"""Seconds that a timestamp may be from now, either way."""

Part = Literal["webhook-id", "webhook-timestamp", "webhook-signature", "x-signature", "body"]
Fault = Literal["missing", "malformed", "too_old", "too_new", "unknown_version", "no_match"]

_HEX = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_TIMESTAMP = re.compile(r"\d{1,12}", re.ASCII)
_MAX_HEADER = 8_192
_HMAC_SIZES = range(24, 65)
_KEY_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A callback that verified.

    Attributes:
        id: the same however often it is sent: take it in once.
        type: such as `job.completed`; empty where the body has none.
        timestamp: when it happened, RFC 3339; empty where the body has none.
        data: the job document, whichever of the two payloads carried it.
    """

    id: str
    type: str
    timestamp: str
    data: Mapping[str, Any]

    @property
    def challenge(self) -> str | None:
        """What a URL that wants callbacks answers, in 2xx with `{"challenge": "…"}`; mostly None.

        The gateway may ask so before the first callback, by an event `endpoint.verification`.
        """
        asked = self.data.get("challenge") if self.type == "endpoint.verification" else None
        return asked if isinstance(asked, str) else None


class VerificationFailed(Exception):
    """A request is not a callback to act on; the message says which part failed and how.

    Attributes:
        part: the header at fault, or `body`.
        fault: what is wrong with it. `unknown_version`: no signature is of a version that the
            secrets are for. `no_match`: none was made with one of them over these bytes.
        seconds: how far the timestamp is from now, where it is too far.
    """

    def __init__(self, part: Part, fault: Fault, detail: str, seconds: int | None = None) -> None:
        super().__init__(f"{part} {detail}")
        self.part: Part = part
        self.fault: Fault = fault
        self.seconds = seconds


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> Event:
    """Return the event in `body`, once it is known to be genuine and recent.

    Args:
        body: the bytes as they were received.
        headers: of the request, names in any case.
        secrets: `whsec_…` or, for Ed25519, `whpk_…` or `whsk_…`; several during a rotation.
        tolerance: seconds that the timestamp may be from now, either way.
        now: seconds since the Unix epoch; None for the system's clock.

    Raises:
        VerificationFailed: naming the part at fault.
        ValueError: a secret is malformed; it is not shown.
        ImportError: an Ed25519 key without the package `cryptography`.
    """
    keys = _keys([secrets] if isinstance(secrets, str) else secrets)
    received = {name.lower(): value for name, value in headers.items()}
    message_id = _header(received, "webhook-id")
    # The one place that reads a clock, and one that has no package of ours to read it from.
    moment = time.time() if now is None else now  # noqa: TID251
    timestamp = _timestamp(_header(received, "webhook-timestamp"), moment, tolerance)
    signatures = _signatures(_header(received, "webhook-signature"))
    content = b"%b.%b.%b" % (message_id.encode("utf-8", "surrogatepass"), timestamp, body)
    _check(signatures, keys, content)
    return _event(message_id, body)


def verify_x_signature(
    body: bytes, headers: Mapping[str, str], secrets: str | Sequence[str]
) -> Event:
    """Return the event in `body`, once its `X-Signature` is known to be genuine.

    That signature covers the body and nothing else. Whoever saw a callback can send it again at any
    time, under another `webhook-id`: take in each job's `sequence` once, not each `Event.id`. The
    same requests carry a `webhook-signature`, which `verify` checks without this weakness.

    Args:
        body: the bytes as they were received.
        headers: of the request, names in any case.
        secrets: texts, whose bytes are the keys; in a rotation both, since each attempt is signed
            with one of them.

    Raises:
        VerificationFailed: naming the part at fault.
        ValueError: a secret is empty or not ASCII; it is not shown.
    """
    keys = [_text_key(text) for text in ([secrets] if isinstance(secrets, str) else secrets)]
    received = {name.lower(): value for name, value in headers.items()}
    value = _header(received, "x-signature")
    if not _HEX.fullmatch(value):
        raise VerificationFailed("x-signature", "malformed", "is not 64 hexadecimal digits")
    signature = bytes.fromhex(value)
    # No short cut on success, as in `_check`.
    results = [key(body)(signature) for key in keys]
    if not any(results):
        detail = "matches none of the secrets over these bytes"
        raise VerificationFailed("x-signature", "no_match", detail)
    return _event(received.get("webhook-id", ""), body)


Key = Callable[[bytes], Callable[[bytes], bool]]
"""Content to signature to whether the one is of the other; the costly half is done once."""


def _keys(secrets: Iterable[str]) -> list[tuple[str, Key]]:
    """Return (version, check) of each secret."""
    return [_key(secret) for secret in secrets]


def _key(secret: str) -> tuple[str, Key]:
    prefix, _, encoded = secret.partition("_")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a secret is its prefix and base64") from None
    match prefix:
        case "whsec" if len(raw) in _HMAC_SIZES:
            return "v1", _hmac(raw)
        case "whpk" if len(raw) == _KEY_SIZE:
            return "v1a", _ed25519(raw)
        case "whsk" if len(raw) == 2 * _KEY_SIZE:
            return "v1a", _ed25519(raw[_KEY_SIZE:])
        case "whsec" | "whpk" | "whsk":
            raise ValueError(f"a {prefix}_ secret cannot be of {len(raw)} bytes")
        case _:
            raise ValueError("a secret starts with whsec_, whpk_ or whsk_")


def _text_key(text: str) -> Key:
    if not text or not text.isascii():
        raise ValueError("a secret for X-Signature is a text in ASCII")
    if text.startswith(("whsec_", "whsk_", "whpk_")):
        raise ValueError("this secret is for webhook-signature: see verify")
    return _hmac(text.encode())


def _hmac(raw: bytes) -> Key:
    def key(content: bytes) -> Callable[[bytes], bool]:
        return partial(hmac.compare_digest, hmac.digest(raw, content, hashlib.sha256))

    return key


def _ed25519(raw: bytes) -> Key:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  needed for these keys only
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    public = Ed25519PublicKey.from_public_bytes(raw)

    def key(content: bytes) -> Callable[[bytes], bool]:
        def matches(signature: bytes) -> bool:
            try:
                public.verify(signature, content)
            except InvalidSignature:
                return False
            return True

        return matches

    return key


def _header(received: Mapping[str, str], name: Part) -> str:
    value = received.get(name)
    if not value:
        raise VerificationFailed(name, "missing", "is missing")
    if len(value) > _MAX_HEADER:
        raise VerificationFailed(name, "malformed", f"is longer than {_MAX_HEADER} characters")
    return value


def _timestamp(value: str, now: float, tolerance: float) -> bytes:
    """Return what was signed, the digits as the sender's integer writes them."""
    if not _TIMESTAMP.fullmatch(value):
        detail = "is not an integer number of seconds"
        raise VerificationFailed("webhook-timestamp", "malformed", detail)
    timestamp = int(value)
    age = now - timestamp
    if age > tolerance:
        raise _too_far("too_old", age, tolerance)
    if age < -tolerance:
        raise _too_far("too_new", age, tolerance)
    return b"%d" % timestamp


def _too_far(fault: Fault, age: float, tolerance: float) -> VerificationFailed:
    seconds = round(abs(age))
    where = "in the past" if age > 0 else "in the future"
    detail = f"is {seconds} s {where}; {tolerance:g} s are tolerated"
    return VerificationFailed("webhook-timestamp", fault, detail, seconds)


def _signatures(value: str) -> list[tuple[str, bytes]]:
    """Return (version, signature) of every entry that can be read; other entries are skipped."""
    found: list[tuple[str, bytes]] = []
    for entry in value.split(" "):
        version, _, encoded = entry.partition(",")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        if raw:
            found.append((version, raw))
    if not found:
        detail = "holds no version and base64 with a comma between"
        raise VerificationFailed("webhook-signature", "malformed", detail)
    return found


def _check(
    signatures: Sequence[tuple[str, bytes]], keys: Sequence[tuple[str, Key]], content: bytes
) -> None:
    checks = [(version, key(content)) for version, key in keys]
    # No short cut on success: the time taken says nothing about which pair matched.
    results = [
        matches(signature)
        for version, signature in signatures
        for known, matches in checks
        if known == version
    ]
    if any(results):
        return
    if results or not keys:
        detail = "matches none of the secrets over these bytes"
        raise VerificationFailed("webhook-signature", "no_match", detail)
    wanted = " or ".join(sorted({version for version, _ in keys}))
    detail = f"has no signature of version {wanted}, which the secrets are for"
    raise VerificationFailed("webhook-signature", "unknown_version", detail)


def _event(message_id: str, body: bytes) -> Event:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise VerificationFailed("body", "malformed", "is not JSON") from None
    if not isinstance(document, dict):
        raise VerificationFailed("body", "malformed", "is not a JSON object")
    type_, timestamp, data = (document.pop(name, None) for name in ("type", "timestamp", "data"))
    if "jobType" in document:
        # Flat: the job's own type made room for the event's.
        document["type"] = document.pop("jobType")
    return Event(
        id=message_id,
        type=type_ if isinstance(type_, str) else "",
        timestamp=timestamp if isinstance(timestamp, str) else "",
        data=data if isinstance(data, dict) else document,
    )
