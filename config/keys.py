"""The text that sealing keys are given in: `kid:base64 of 32 bytes`, one a line or by commas."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

KEY_SIZE = 32
"""Bytes of a key: AES-256."""

_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


def parse_keys(text: str) -> dict[str, bytes]:
    """Return the keys in `text` by their identifiers, in order.

    Blank lines and lines that start with `#` are skipped.

    Raises:
        ValueError: naming the entry at fault, never showing a key.
    """
    keys: dict[str, bytes] = {}
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    entries = (entry.strip() for line in lines for entry in line.split(","))
    for number, entry in enumerate(filter(None, entries), start=1):
        kid, colon, encoded = entry.partition(":")
        if not colon:
            raise ValueError(f"entry {number} is not 'kid:base64'")
        if kid in keys:
            raise ValueError(f"entry {number} repeats the id of an earlier one")
        try:
            keys[kid] = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"entry {number} is not base64") from error
    check_keys(keys)
    return keys


def check_keys(keys: Mapping[str, bytes]) -> None:
    """Return when `keys` can be a ring: at least one, each well named and of the right size.

    Raises:
        ValueError: naming the key at fault, never showing it.
    """
    if not keys:
        raise ValueError("at least one is needed")
    for kid, key in keys.items():
        if not _KEY_ID.fullmatch(kid):
            raise ValueError("an id is 1 to 32 letters, digits, '_' or '-'")
        if len(key) != KEY_SIZE:
            raise ValueError(f"{kid}: a key is {KEY_SIZE} bytes, not {len(key)}")
