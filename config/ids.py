"""Identifiers: where an object lives, when it was made, and nothing anyone could guess.

An identifier is `<prefix>_` + 2 digits of partition + 4 base-36 digits of the hour of its making +
18 base-62 characters (107 bits). The partition says where to look; the hour finds the tombstone of
an object that is gone.
"""

from __future__ import annotations

import hashlib
import random
import re
import secrets

from config.clock import HOUR

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_TAIL = 18
_SHAPE = re.compile(r"[a-z]{2,8}_(\d{2})([0-9a-z]{4})[0-9A-Za-z]{18}", re.ASCII)

MAX_PARTITIONS = 100
"""Two digits of an identifier name the partition."""


def random_bytes(count: int) -> bytes:
    """Return `count` bytes from the operating system's generator."""
    return secrets.token_bytes(count)


def random_float() -> float:
    """Return a number in [0, 1) for jitter; never for secrets."""
    return random.random()


def random_text(length: int) -> str:
    """Return `length` unguessable base-62 characters."""
    return _base62(int.from_bytes(secrets.token_bytes(length)), length)


def new_id(prefix: str, partition: int, now: int) -> str:
    """Return a fresh identifier for an object made at `now` (µs) in `partition`."""
    return f"{prefix}_{partition:02d}{_base36(now // HOUR)}{random_text(_TAIL)}"


def derived_id(prefix: str, partition: int, *parts: str) -> str:
    """Return the identifier that `parts` always give: the same parts, the same object.

    The hour's place holds hash digits too; nothing looks up a tombstone by such an identifier.
    """
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    hour = _base36(int.from_bytes(digest[:3]))
    return f"{prefix}_{partition:02d}{hour}{_base62(int.from_bytes(digest[3:]), _TAIL)}"


def is_id(prefix: str, text: str) -> bool:
    """Tell whether `text` has the shape of an identifier with `prefix`."""
    return text.startswith(prefix + "_") and _SHAPE.fullmatch(text) is not None


def partition_of(identifier: str) -> int:
    """Return the partition that `identifier` names.

    Raises:
        ValueError: it does not have an identifier's shape.
    """
    return int(_match(identifier)[1])


def choose_partition(key: str, partitions: int) -> int:
    """Return the partition of `key`: the same on every host and in every release."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % partitions


def random_partition(partitions: int) -> int:
    """Return any partition, for objects that belong with no other."""
    return secrets.randbelow(partitions)


def _match(identifier: str) -> re.Match[str]:
    found = _SHAPE.fullmatch(identifier)
    if found is None:
        raise ValueError("not an identifier")
    return found


def _base36(number: int) -> str:
    digits = ""
    for _ in range(4):
        number, digit = divmod(number, 36)
        digits = _BASE36[digit] + digits
    return digits


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(digits)
