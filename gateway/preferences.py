"""What a client would rather have: the `Prefer` header (RFC 7240)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_WAIT = 30
"""Seconds that an answer is held back at the most."""

_MAX_LENGTH = 1024
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ITEM = re.compile(rf'(?:{_QUOTED}|[^",])+')
_PREFERENCE = re.compile(rf"\s*({_NAME})\s*(?:=\s*({_QUOTED}|{_NAME})\s*)?(?:;|$)", re.ASCII)
_SECONDS = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """The preferences that the gateway heeds.

    Attributes:
        wait: seconds that the answer may be held back, 0 to MAX_WAIT; None: not asked for.
    """

    wait: int | None = None

    @property
    def applied(self) -> dict[str, str]:
        """The header that tells the client what was heeded (section 3)."""
        return {} if self.wait is None else {"Preference-Applied": f"wait={self.wait}"}


def parse_preferences(headers: Iterable[str]) -> Preferences:
    """Return what the `Prefer` headers of a request ask for.

    A preference is a wish: one that is not known, or makes no sense, is passed over. Of one that is
    given twice the first counts (section 2).
    """
    found: dict[str, str] = {}
    for name, value in _preferences(", ".join(headers)[:_MAX_LENGTH]):
        found.setdefault(name.lower(), value)
    wait = found.get("wait", "")
    return Preferences(wait=min(int(wait), MAX_WAIT) if _SECONDS.fullmatch(wait) else None)


def _preferences(text: str) -> Iterator[tuple[str, str]]:
    for item in _ITEM.findall(text):
        if match := _PREFERENCE.match(item):
            yield match[1], _unquoted(match[2] or "")


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word
