"""JSON without its freedoms: what two parsers could read differently is refused.

Beyond RFC 8259's grammar it refuses what I-JSON (RFC 7493) does: duplicate member names, numbers
that no 64-bit integer or finite double holds, lone surrogates, anything but UTF-8 without a byte
order mark.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from gateway.errors import GatewayError

_BOM = b"\xef\xbb\xbf"
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_INT_DIGITS = 20
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_EXACT = 2**53


class StrictJsonError(GatewayError):
    """Not JSON as this module means it; `detail` is a sentence for the client."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def loads(data: bytes, *, depth: int) -> Any:
    """Return the value that `data` holds, nested at most `depth` arrays and objects deep.

    Raises:
        StrictJsonError: it holds none, or one that has more than one reading.
    """
    text = _decode(data)
    _check_depth(data, depth)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise StrictJsonError(f"not valid JSON at {where}: {error.msg.lower()}") from error
    if _SURROGATE_ESCAPE.search(text):
        _refuse_lone_surrogates(value)
    return value


def canonical(value: Any) -> bytes:
    """Return the one spelling of `value`, for hashing: sorted names, no white space, 1.0 as 1.

    It follows RFC 8785 except that names sort by code point and doubles are spelt as Python does.
    """
    plain = _plain_numbers(value)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def _decode(data: bytes) -> str:
    if data.startswith(_BOM):
        raise StrictJsonError("JSON must not begin with a byte order mark")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonError(f"not valid UTF-8 at byte {error.start}") from error


def _check_depth(data: bytes, depth: int) -> None:
    """Refuse deep nesting before a recursive parser meets it, in time linear in the data.

    With everything but brackets gone, each round removes exactly the innermost level. What then
    remains is either deeper, or not balanced, which is the parser's to tell.
    """
    rest = _STRING.sub(b"", data).translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(depth):
        if b"[]" not in rest:
            break
        rest = rest.replace(b"[]", b"")
    if b"[]" in rest or rest.count(b"[") > depth:
        raise StrictJsonError(f"nested more than {depth} levels deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise StrictJsonError(f"the member {_quoted(name)} appears twice in one object")
            seen.add(name)
    return members


def _quoted(name: str) -> str:
    shown = name if len(name) <= 40 else name[:40] + "…"
    return json.dumps(shown)


def _int(digits: str) -> int:
    number = int(digits) if len(digits) <= _INT_DIGITS + 1 else _INT_MAX + 1
    if not _INT_MIN <= number <= _INT_MAX:
        raise StrictJsonError("an integer is larger than 64 bits")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise StrictJsonError("a number is too large for a double")
    if number == 0 and re.split("[eE]", digits)[0].strip("-0."):
        raise StrictJsonError("a number is too small for a double")
    return number


def _refuse_constant(name: str) -> Any:
    raise StrictJsonError(f"{name} is not a JSON value")


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise StrictJsonError("a string holds half of a surrogate pair") from error


def _plain_numbers(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain_numbers(member) for name, member in value.items()}
        case list():
            return [_plain_numbers(item) for item in value]
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
        case _:
            return value
