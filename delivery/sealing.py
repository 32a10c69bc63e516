"""Sealing at rest: AES-256-GCM under a ring of keys, each value bound to its row.

A sealed value is `kid.` + 12 bytes of nonce + ciphertext and tag. The row is authenticated, not
stored: a value copied to another row does not open. Keys come from a file or the environment, never
from the store. Nonces are random, so one key is good for 2^32 values (NIST SP 800-38D, 8.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config import ids
from config.keys import KEY_SIZE, check_keys, parse_keys
from delivery.errors import SealError

_NONCE_SIZE = 12


class KeyRing:
    """Named keys: the first one seals, every one opens what it sealed.

    To rotate, put a new key first and keep the old one until nothing is sealed under it (`rewrap`).

    Attributes:
        first: identifier of the key that seals.
        ids: identifiers of all of them.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take `keys` by id, in order; see `config.keys` for what is demanded of them."""
        try:
            check_keys(keys)
        except ValueError as error:
            raise SealError(f"sealing keys: {error}") from error
        self.ids = tuple(keys)
        self.first = self.ids[0]
        self._ciphers = MappingProxyType({kid: AESGCM(key) for kid, key in keys.items()})
        self._keys = tuple(keys.values())

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read keys as `config.keys.parse_keys` does.

        Raises:
            SealError: naming the entry at fault, never showing a key.
        """
        try:
            return cls(parse_keys(text))
        except ValueError as error:
            raise SealError(f"sealing keys: {error}") from error

    def seal(self, plaintext: bytes, *, row: str) -> bytes:
        """Return `plaintext` sealed with the first key, to be opened only for the same `row`."""
        nonce = ids.random_bytes(_NONCE_SIZE)
        ciphertext = self._ciphers[self.first].encrypt(nonce, plaintext, row.encode())
        return b"".join((self.first.encode(), b".", nonce, ciphertext))

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
    return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=None, info=purpose.encode()).derive(key)
