"""Signatures: what proves to a receiver that a body is ours, by the scheme it was promised.

| scheme | headers | secret |
|---|---|---|
| `v1` | `webhook-signature: v1,…`, HMAC-SHA256 | `whsec_` + base64 of 24 to 64 bytes |
| `v1a` | `webhook-signature: v1a,…`, Ed25519 | `whsk_` + base64 of seed and public key |
| `x-signature` | `x-signature: <hex>`, HMAC-SHA256; and that of `v1` | its bytes are the key |

Both sides know a secret, but for `v1a`: there receivers know `whpk_` + base64 of the public key.

The first two are Standard Webhooks 1.0: signed is `id.timestamp.body`, the body's bytes exactly as
they are sent, once with each secret in force. `x-signature` covers the body alone and has room for
one secret: see `signature_headers`. What a receiver does with all this is `gateway.receiving`,
which shares nothing with this module: neither can hide a fault of the other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, assert_never

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from config import ids
from delivery.errors import SecretError
from delivery.models import Scheme

SECRETS_OF: Mapping[Scheme, tuple[Scheme, ...]] = {
    "v1": ("v1",),
    "v1a": ("v1a",),
    "x-signature": ("v1", "x-signature"),
}
"""Of which schemes an endpoint needs secrets to sign by one."""

_HMAC_SIZES = range(24, 65)
_NEW_SECRET_SIZE = 32
_SEED_SIZE = 32

_SHARED_TEXT = re.compile(r"(?!wh(?:sec|sk|pk)_)[!-~][ -~]{22,126}[!-~]", re.ASCII)
_NEW_TEXT_LENGTH = 43
"""Base-62 characters, of 256 bits and a little."""


def generate_secret(scheme: Scheme = "v1") -> str:
    """Return a new random secret for `scheme`, of 256 bits."""
    match scheme:
        case "v1":
            return "whsec_" + _base64(ids.random_bytes(_NEW_SECRET_SIZE))
        case "v1a":
            # Not by way of the cache: most of what is made is of no use, as the secret is there.
            pair = Ed25519PrivateKey.generate()
            public = pair.public_key().public_bytes_raw()
            return "whsk_" + _base64(pair.private_bytes_raw() + public)
        case "x-signature":
            return f"xsig_{ids.random_text(_NEW_TEXT_LENGTH)}"
        case _:
            assert_never(scheme)


def check_secret(scheme: Scheme, secret: str) -> None:
    """Return when `secret` can sign by `scheme`.

    Raises:
        SecretError: saying what it must be; the secret is not shown.
    """
    match scheme:
        case "v1" if not secret.startswith("whsec_"):
            raise SecretError("a secret for v1 starts with whsec_")
        case "v1a" if not secret.startswith("whsk_"):
            raise SecretError("a secret for v1a starts with whsk_")
        case "v1" | "v1a":
            _decode(secret)
        case "x-signature":
            if not _SHARED_TEXT.fullmatch(secret):
                raise SecretError(
                    "a secret for x-signature is 24 to 128 printable ASCII characters without"
                    " spaces around them, and not one of another scheme"
                )
        case _:
            assert_never(scheme)


def public_key(secret: str) -> str:
    """Return the `whpk_` key that verifies what the `whsk_` key `secret` signs.

    Raises:
        SecretError: it is no such key.
    """
    kind, key = _decode(secret)
    if kind != "whsk_":
        raise SecretError("only a whsk_ key has a public key")
    return "whpk_" + _base64(key[_SEED_SIZE:])


def signature_headers(
    scheme: Scheme,
    secrets: Mapping[Scheme, Sequence[str]],
    *,
    message_id: str,
    timestamp: int,
    number: int,
    body: bytes,
) -> dict[str, str]:
    """Return the headers that sign an attempt.

    `x-signature` can hold one signature, and in a rotation nobody can tell which secret the
    receiver knows. So attempts take turns, the newest secret first: a receiver that knows any of
    them takes the delivery at one of the first attempts.

    Args:
        scheme: what the receiver was promised.
        secrets: in force, newest first, of the schemes that `SECRETS_OF` names.
        message_id: the `webhook-id` header.
        timestamp: the `webhook-timestamp` header, seconds since the epoch.
        number: of the attempt, from 1.
        body: the bytes that are sent.

    Raises:
        SecretError: a scheme has no secret, or one that cannot sign.
    """

    def webhook_signature(by: Scheme) -> str:
        return sign(secrets.get(by, ()), message_id=message_id, timestamp=timestamp, body=body)

    match scheme:
        case "v1" | "v1a":
            return {"webhook-signature": webhook_signature(scheme)}
        case "x-signature":
            texts = secrets.get("x-signature", ())
            if not texts:
                raise SecretError("signing needs at least one secret")
            turn = texts[(number - 1) % len(texts)]
            return {
                "webhook-signature": webhook_signature("v1"),
                "x-signature": sign_body(turn, body),
            }
        case _:
            assert_never(scheme)


def sign_body(secret: str, body: bytes) -> str:
    """Return the `x-signature` header: lower-case hex of HMAC-SHA256 over the body alone.

    Raises:
        SecretError: the secret is not one for that.
    """
    check_secret("x-signature", secret)
    return _hmac(secret.encode(), body).hex()


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
            return f"v1,{_base64(_hmac(key, content))}"
        case "whsk_":
            return f"v1a,{_base64(_private_key(key[:_SEED_SIZE]).sign(content))}"
        case _:
            raise SecretError("a public key (whpk_) cannot sign")


def _hmac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, hashlib.sha256)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@lru_cache(maxsize=256)
def _private_key(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)


def _public_half(seed: bytes) -> bytes:
    return _private_key(seed).public_key().public_bytes_raw()


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
    if _public_half(key[:_SEED_SIZE]) != key[_SEED_SIZE:]:
        raise SecretError("a whsk_ key's public half does not belong to its seed")
