"""JSON that has one reading is read; everything else is refused with a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.strict_json import StrictJsonError, canonical, loads

DEPTH = 32

REFUSED = {
    "empty": b"",
    "white space": b" \n",
    "duplicate key": b'{"a": 1, "a": 2}',
    "duplicate key by escape": b'{"a": 1, "\\u0061": 2}',
    "duplicate key inside": b'[{"x": {"a": 1, "a": 1}}]',
    "NaN": b"[NaN]",
    "Infinity": b"[-Infinity]",
    "too large": b"1e400",
    "too small": b"1e-400",
    "65 bits": b"18446744073709551616",
    "negative 64 bits": b"-9223372036854775809",
    "5,000 digits": b"9" * 5000,
    "depth 33": b"[" * 33 + b"]" * 33,
    "depth 33 mixed": b'{"a":[' * 17 + b"]}" * 17,
    "100,000 open": b"[" * 100_000,
    "100,000 open objects": b'{"a":' * 100_000,
    "100,000 closed": b"]" * 100_000,
    "a million quotes": b'"' + b'\\"' * 500_000,
    "lone surrogate": b'"\\ud800"',
    "lone low surrogate": b'{"\\udc00": 1}',
    "reversed pair": b'"\\ude00\\ud83d"',
    "raw surrogate": b'"\xed\xa0\x80"',
    "invalid UTF-8": b'"\xff"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-16 without mark": '{"a": 1}'.encode("utf-16-le"),
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "trailing text": b'{"a": 1} x',
    "two values": b"{}{}",
    "trailing comma": b"[1,]",
    "comment": b"[1] // one",
    "single quotes": b"{'a': 1}",
    "control character": b'"a\nb"',
    "leading zero": b"01",
    "unbalanced": b"[[]",
    "mismatched": b"[}",
    "unterminated": b'"abc',
}

ACCEPTED: dict[str, tuple[bytes, Any]] = {
    "depth 32": (b"[" * 32 + b"]" * 32, None),
    "brackets in strings": (b'"' + b"[" * 100 + b'"', "[" * 100),
    "escaped quotes": (b'"\\"[[["', '"[[['),
    "many siblings": (b"[" + b",".join([b"{}"] * 1000) + b"]", [{}] * 1000),
    "a pair": (b'"\\ud83d\\ude00"', "😀"),
    "64 bits": (b"[18446744073709551615, -9223372036854775808]", [2**64 - 1, -(2**63)]),
    "zeros": (b"[0, -0, 0.0, 0e10, -0.000e-5]", [0, 0, 0.0, 0.0, 0.0]),
    "same key apart": (b'[{"a":1},{"a":2}]', [{"a": 1}, {"a": 2}]),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_refused(data: bytes) -> None:
    with pytest.raises(StrictJsonError) as caught:
        loads(data, depth=DEPTH)
    assert caught.value.detail
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(("data", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(data: bytes, value: Any) -> None:
    expected = json.loads(data) if value is None else value
    assert loads(data, depth=DEPTH) == expected


def test_detail_names_the_member_and_the_place() -> None:
    with pytest.raises(StrictJsonError, match='the member "twice" appears twice'):
        loads(b'{"twice": 1, "twice": 1}', depth=DEPTH)
    with pytest.raises(StrictJsonError, match="line 2, column 3"):
        loads(b"[1,\n  oops]", depth=DEPTH)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_reads_what_json_writes(value: Any, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert loads(data, depth=100) == value


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_nothing_but_its_own_error_comes_out(data: bytes) -> None:
    try:
        value = loads(data, depth=4)
    except StrictJsonError:
        return
    assert loads(canonical(value), depth=4) == value


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), SCALARS))
def test_canonical_ignores_order(members: dict[str, Any]) -> None:
    turned = dict(reversed(members.items()))
    assert canonical(members) == canonical(turned)


def test_canonical_spelling() -> None:
    value = {"b": [1.0, 1.5, 1e300, -0.0], "a": {"é": None, "A": True}}
    assert canonical(value) == '{"a":{"A":true,"é":null},"b":[1,1.5,1e+300,0]}'.encode()
