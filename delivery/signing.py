"""Standard Webhooks 1.0 signatures: what a secret's prefix says, the headers carry.

| prefix | scheme | holds |
|---|---|---|
| `whsec_` | `v1`, HMAC-SHA256 | 24 to 64 random bytes, known to both sides |
| `whsk_` | `v1a`, Ed25519 | 64 bytes: seed and public key; signs and verifies |
| `whpk_` | `v1a`, Ed25519 | 32 bytes: public key; verifies only |

Signed is `id.timestamp.body`: the body's bytes exactly as they are sent. What a receiver does with
them is `gateway.receiving`, which shares nothing with this module: neither can hide a fault of the
other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from config import ids
from delivery.errors import SecretError

_HMAC_SIZES = range(24, 65)
_NEW_SECRET_SIZE = 32
_SEED_SIZE = 32


def generate_secret() -> str:
    """Return a new `whsec_` secret of 32 random bytes."""
    return "whsec_" + base64.b64encode(ids.random_bytes(_NEW_SECRET_SIZE)).decode()


def sign(secrets: Sequence[str], *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` header: one signature per secret, single spaces between.

    Args:
        secrets: `whsec_` or `whsk_`, at least one; several during a rotation.
        message_id: the `webhook-id` header.
        timestamp: the `webhook-timestamp` header, seconds since the epoch.
        body: the bytes that are sent.

    Raises:
        SecretError: no secret, or one that cannot sign.
    """
    if not secrets:
        raise SecretError("signing needs at least one secret")
    content = _signed_content(message_id, timestamp, body)
    return " ".join(_signature(secret, content) for secret in secrets)


def _signed_content(message_id: str, timestamp: int, body: bytes) -> bytes:
    return b"%b.%d.%b" % (message_id.encode("utf-8", "surrogatepass"), timestamp, body)


def _signature(secret: str, content: bytes) -> str:
    kind, key = _decode(secret)
    match kind:
        case "whsec_":
            scheme, raw = "v1", _hmac(key, content)
        case "whsk_":
            scheme, raw = "v1a", _private_key(key).sign(content)
        case _:
            raise SecretError("a public key (whpk_) cannot sign")
    return f"{scheme},{base64.b64encode(raw).decode()}"


def _hmac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, hashlib.sha256)


@lru_cache(maxsize=256)
def _private_key(key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(key[:_SEED_SIZE])


def _decode(secret: str) -> tuple[Literal["whsec_", "whsk_", "whpk_"], bytes]:
    prefix, underscore, encoded = secret.partition("_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SecretError("a secret is its prefix and base64") from error
    match prefix + underscore:
        case "whsec_":
            if len(key) not in _HMAC_SIZES:
                raise SecretError(f"a whsec_ secret is 24 to 64 bytes, not {len(key)}")
            return "whsec_", key
        case "whsk_":
            _check_key_pair(key)
            return "whsk_", key
        case "whpk_":
            if len(key) != _SEED_SIZE:
                raise SecretError(f"a whpk_ key is 32 bytes, not {len(key)}")
            return "whpk_", key
        case _:
            raise SecretError("a secret starts with whsec_, whsk_ or whpk_")


def _check_key_pair(key: bytes) -> None:
    if len(key) != 2 * _SEED_SIZE:
        raise SecretError(f"a whsk_ key is 64 bytes, seed and public key, not {len(key)}")
    # A public half of another key would make signatures that no receiver can verify.
    if _private_key(key).public_key().public_bytes_raw() != key[_SEED_SIZE:]:
        raise SecretError("a whsk_ key's public half does not belong to its seed")
