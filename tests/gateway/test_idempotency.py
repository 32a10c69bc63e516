"""Keys are read in both spellings; the same request has the same fingerprint."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.idempotency import fingerprint, parse_key
from gateway.models import StoredFile
from gateway.problems import Problem
from gateway.schemas.jobs import parse_submit


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        ('  "abc"\t', "abc"),
        (r'"a\"b\\c"', r'a"b\c'),
        ('"', '"'),
        ('a"b', 'a"b'),
        ("x" * 255, "x" * 255),
        ('"' + "x" * 255 + '"', "x" * 255),
    ],
)
def test_keys(value: str, key: str) -> None:
    assert parse_key([value], required=True) == key


@pytest.mark.parametrize(
    "values", [[""], ['""'], ["x" * 256], ["tab\there"], ["é"], ["nul\0"], ["a", "a"]]
)
def test_no_keys(values: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        parse_key(values, required=False)
    assert caught.value.code == "invalid_idempotency_key"


def test_a_missing_key() -> None:
    assert parse_key([], required=False) is None
    with pytest.raises(Problem) as caught:
        parse_key([], required=True)
    assert caught.value.code == "idempotency_key_required"


def _print(sha256: str = "", name: str = "file", **members: Any) -> str:
    request = parse_submit({"type": "t", "input": {}, **members}, metadata_limit=1000)
    if not sha256:
        return fingerprint(request, {})
    file = StoredFile(path="p", name="n", size=1, sha256=sha256, content_type="text/plain")
    return fingerprint(request, {name: file})


def test_fingerprints() -> None:
    assert _print() == _print()
    assert _print(input={"a": 1, "b": 2}) == _print(input={"b": 2, "a": 1})
    different = [
        _print(),
        _print(type="u"),
        _print(input={"a": 1}),
        _print(callbackUrl="https://h.example/"),
        _print(sha256="aa"),
        _print(sha256="bb"),
        _print(sha256="aa", name="other"),
    ]
    assert len(set(different)) == len(different)
