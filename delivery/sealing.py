"""Sealing at rest: AES-256-GCM under a ring of keys, each value bound to its row.

A sealed value is `kid.` + 12 bytes of nonce + ciphertext and tag. The row is authenticated, not
stored: a value copied to another row does not open. Keys come from a file or the environment, never
from the store. Nonces are random, so one key is good for 2^32 values (NIST SP 800-38D, 8.3).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from types import MappingProxyType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config import ids
from delivery.errors import SealError

_KEY_SIZE = 32
_NONCE_SIZE = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


class KeyRing:
    """Named keys: the first one seals, every one opens what it sealed.

    To rotate, put a new key first and keep the old one until nothing is sealed under it.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take `keys` by id, in order; see `parse` for what is demanded of them."""
        if not keys:
            raise SealError("sealing keys: at least one is needed")
        for kid, key in keys.items():
            if not _KEY_ID.fullmatch(kid):
                raise SealError("sealing keys: an id is 1 to 32 letters, digits, '_' or '-'")
            if len(key) != _KEY_SIZE:
                raise SealError(f"sealing keys: {kid}: a key is {_KEY_SIZE} bytes, not {len(key)}")
        self._first = next(iter(keys))
        self._ciphers = MappingProxyType({kid: AESGCM(key) for kid, key in keys.items()})
        self._keys = tuple(keys.values())

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read `kid:base64 of 32 bytes`, one a line or separated by commas.

        Blank lines and lines that start with `#` are skipped.

        Raises:
            SealError: naming the entry at fault, never showing a key.
        """
        keys: dict[str, bytes] = {}
        lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
        entries = (entry.strip() for line in lines for entry in line.split(","))
        for number, entry in enumerate(filter(None, entries), start=1):
            kid, colon, encoded = entry.partition(":")
            if not colon:
                raise SealError(f"sealing keys: entry {number} is not 'kid:base64'")
            if kid in keys:
                raise SealError(f"sealing keys: entry {number} repeats the id of an earlier one")
            try:
                keys[kid] = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError) as error:
                raise SealError(f"sealing keys: entry {number} is not base64") from error
        return cls(keys)

    def seal(self, plaintext: bytes, *, row: str) -> bytes:
        """Return `plaintext` sealed with the first key, to be opened only for the same `row`."""
        nonce = ids.random_bytes(_NONCE_SIZE)
        ciphertext = self._ciphers[self._first].encrypt(nonce, plaintext, row.encode())
        return b"".join((self._first.encode(), b".", nonce, ciphertext))

    def open(self, sealed: bytes, *, row: str) -> bytes:
        """Return what `seal` was given.

        Raises:
            SealError: changed, of another row, or sealed by a key that is not in the ring.
        """
        kid, dot, rest = sealed.partition(b".")
        if not dot:
            raise SealError("not a sealed value")
        cipher = self._ciphers.get(kid.decode("ascii", "replace"))
        if cipher is None:
            raise SealError("sealed by a key that is not in the ring")
        try:
            return cipher.decrypt(rest[:_NONCE_SIZE], rest[_NONCE_SIZE:], row.encode())
        except (InvalidTag, ValueError) as error:
            raise SealError("changed since it was sealed, or of another row") from error

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes for `purpose` from the first key (HKDF-SHA256, RFC 5869)."""
        return _derive(self._keys[0], purpose)

    def derive_all(self, purpose: str) -> tuple[bytes, ...]:
        """Return what `derive` gives for each key, first one first: to accept what each minted."""
        return tuple(_derive(key, purpose) for key in self._keys)


def _derive(key: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=_KEY_SIZE, salt=None, info=purpose.encode()).derive(key)
