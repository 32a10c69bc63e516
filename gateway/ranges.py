"""Byte ranges of a representation (RFC 9110 section 14). No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Bytes from `start` up to, not including, `end`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return self.end - self.start


class RangeUnsatisfiable(ValueError):
    """The range lies outside of the representation."""


def parse_range(header: str | None, size: int) -> Range | None:
    """Return the one range that a `Range` header asks for of `size` bytes.

    None means the whole: without a header, and for what a server may ignore (another unit, several
    ranges, bad syntax).

    Raises:
        RangeUnsatisfiable: no byte of it exists.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start = int(found[1])
        last = int(found[2]) if found[2] else size - 1
        if found[2] and last < start:
            return None
        end = min(last + 1, size)
    if start >= end:
        raise RangeUnsatisfiable
    return Range(start=start, end=end)
