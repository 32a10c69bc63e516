"""What strangers send, parsed: nothing but a parser's own refusal comes out of it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from collections.abc import AsyncIterator, Sequence
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

import h11
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from config.clock import SECOND
from delivery.errors import HeaderRefused
from delivery.headers import validate_custom_headers
from delivery.outcomes import MAX_RETRY_AFTER, parse_retry_after
from gateway.auth import ApiKeyError, bearer, bootstrap_key, is_made_here, make_key
from gateway.idempotency import parse_key
from gateway.multipart import Multipart
from gateway.preferences import MAX_WAIT, parse_preferences
from gateway.problems import Problem
from gateway.ranges import RangeUnsatisfiable, parse_range
from gateway.receiving import VerificationFailed, verify
from gateway.strict_json import StrictJsonError, loads
from gateway.tickets import check, mint

# JSON

DEPTH = 5
JSON_PIECES = st.sampled_from(
    [
        *('{"a":', '"a":', '"\\u0061":', '{"', '"', "{", "}", "[", "]", ",", ":", "null", "true"),
        *("NaN", "-Infinity", "1e400", "1e-400", "0e-999", "-0", "01", "1.", ".5", "1E+2", "-"),
        *("18446744073709551615", "18446744073709551616", "-9223372036854775809", "9" * 30),
        *("\\ud83d", "\\ude00", "\\ud83d\\ude00", "\\u0000", "\\x", "\\", "\u2028", "é", "\ufeff"),
        *(" ", "\t", "\n", "\x0b", "\x00", "//", "/**/", "'a'"),
    ]
)
JSON_TEXT = st.lists(JSON_PIECES, max_size=14).map("".join)
JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
).map(json.dumps)


class _Refused(ValueError):
    """The oracle's refusal."""


def _oracle(data: bytes) -> Any:
    """Return what `data` holds by the rules of I-JSON, told with the standard library alone."""
    if data[:3] == b"\xef\xbb\xbf":
        raise _Refused
    value = json.loads(
        data.decode("utf-8"),
        object_pairs_hook=_members,
        parse_int=_integer,
        parse_float=_double,
        parse_constant=_constant,
    )
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    if _depth(value) > DEPTH:
        raise _Refused
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Refused
    return dict(pairs)


def _integer(digits: str) -> int:
    if not -(2**63) <= int(digits) < 2**64:
        raise _Refused
    return int(digits)


def _double(digits: str) -> float:
    if math.isinf(float(digits)):
        raise _Refused
    mantissa = digits.lower().partition("e")[0]
    if float(digits) == 0 and any(digit in "123456789" for digit in mantissa):
        raise _Refused
    return float(digits)


def _constant(name: str) -> Any:
    raise _Refused(name)


def _depth(value: Any) -> int:
    match value:
        case dict():
            return 1 + max(map(_depth, value.values()), default=0)
        case list():
            return 1 + max(map(_depth, value), default=0)
        case _:
            return 0


@given(
    st.one_of(
        st.binary(max_size=30),
        JSON_TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
        JSON_VALUE.map(str.encode),
    )
)
@example(b'{"a":1,"\\u0061":2}')
@example(b"[[[[[[]]]]]]")
@example(b'"\\ud83d\\ude00"')
def test_json_is_taken_exactly_where_it_has_one_meaning(data: bytes) -> None:
    try:
        expected = _oracle(data)
    except (ValueError, RecursionError):
        with pytest.raises(StrictJsonError):
            loads(data, depth=DEPTH)
        return
    assert loads(data, depth=DEPTH) == expected


# multipart/form-data

FORM = (
    b'--b\r\nContent-Disposition: form-data; name="job"\r\n\r\n{}\r\n'
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n'
    b"Content-Type: text/plain\r\n\r\nsome bytes\r\n--b--\r\n"
)


@st.composite
def bent_form(draw: st.DrawFn) -> bytes:
    """A body with some pieces cut out, doubled, or put in."""
    body = FORM
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        until = draw(st.integers(at, min(len(body), at + 30)))
        piece = draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from([b"\r\n", b"--b", b"--b--", b'name="', b"\0", b": ", b"\r\n\r\n"]),
                st.just(body[at:until] * 2),
            )
        )
        body = body[:at] + piece + body[until:]
    return body


@given(bent_form(), st.integers(1, 60))
async def test_a_bent_form_is_read_or_refused(body: bytes, size: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    form, seen, code = Multipart(chunks(), b"b"), 0, "malformed_body"
    try:
        while (part := await form.next_part()) is not None:
            assert len(part.name) <= 255
            async for chunk in form.chunks():
                seen += len(chunk)
    except Problem as problem:
        code = problem.code
    assert code == "malformed_body"
    assert seen <= len(body)


# Headers of answers and requests


@given(
    st.one_of(
        st.text(max_size=40),
        st.integers(-(10**10), 10**30).map(str),
        st.floats().map(str),
        st.integers(0, 4 * 10**9).map(lambda second: formatdate(second, usegmt=True)),
    ),
    st.integers(0, 4 * 10**9),
)
def test_a_retry_after_is_within_a_day(value: str, second: int) -> None:
    now = second * SECOND
    wait = parse_retry_after(value, now)
    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER
    if value.isascii() and value.isdecimal():
        assert wait == min(int(value) * SECOND, MAX_RETRY_AFTER)
    elif value.endswith("GMT") and value == formatdate(_moment(value), usegmt=True):
        assert wait == min(max(0, _moment(value) - second) * SECOND, MAX_RETRY_AFTER)


def _moment(value: str) -> float:
    try:
        return parsedate_to_datetime(value).timestamp()
    except ValueError:
        return -1


NAMES = st.one_of(
    st.text(max_size=6),
    st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True),
    st.sampled_from(["Host", "webhook-id", "x-a", "X-A", "te", "content-length", "x\r\ny"]),
)


@given(st.dictionaries(NAMES, st.text(max_size=8), max_size=5))
def test_custom_headers_that_are_taken_go_through_as_they_are(headers: dict[str, str]) -> None:
    try:
        validate_custom_headers(headers)
    except HeaderRefused:
        return
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    server = h11.Connection(h11.SERVER)
    server.receive_data(f"POST / HTTP/1.1\r\nhost: h\r\n{fields}\r\n".encode("ascii"))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    received = {name.decode(): value.decode() for name, value in request.headers}
    assert received == {"host": "h", **{name.lower(): value for name, value in headers.items()}}
    assert isinstance(server.next_event(), h11.EndOfMessage)


@given(
    st.one_of(
        st.text(max_size=30),
        st.lists(st.sampled_from(["bytes=", "0", "-", "5", ",", " ", "9" * 20]), max_size=6).map(
            "".join
        ),
    ),
    st.integers(0, 20),
)
def test_a_range_is_of_what_is_there(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except RangeUnsatisfiable:
        return
    if found is not None:
        assert 0 <= found.start < found.end <= size


@given(
    st.lists(
        st.one_of(
            st.text(max_size=30),
            st.lists(
                st.sampled_from(["wait", "=", "10", '"', "\\", ",", ";", " ", "respond-async"]),
                max_size=10,
            ).map("".join),
            st.integers().map("wait={}".format),
        ),
        max_size=3,
    )
)
def test_no_preference_is_more_than_a_wish(headers: list[str]) -> None:
    wait = parse_preferences(headers).wait
    assert wait is None or 0 <= wait <= MAX_WAIT


@given(st.lists(st.text(max_size=300), max_size=2), st.booleans())
def test_an_idempotency_key_is_printable(values: Sequence[str], required: bool) -> None:
    key, status = None, 400
    try:
        key = parse_key(values, required=required)
    except Problem as problem:
        status = problem.status
    assert status == 400
    assert key is None or (1 <= len(key) <= 255 and key.isascii() and key.isprintable())


# Credentials

KEYS = [b"k" * 32, b"o" * 32]
JOB = "job_00abcd000000000000000000"
EXPIRY = 1_800_000_000
TICKET = mint(JOB, EXPIRY * SECOND, KEYS[0])


@st.composite
def bent_text(draw: st.DrawFn, text: str) -> str:
    """`text` with a piece cut out, doubled or put in somewhere."""
    at = draw(st.integers(0, len(text)))
    until = draw(st.integers(at, min(len(text), at + 5)))
    return text[:at] + draw(st.text(max_size=3)) + text[until:]


@given(st.one_of(bent_text(TICKET), st.text(max_size=60)), st.integers(0, 2 * EXPIRY))
def test_no_other_ticket_opens(ticket: str, second: int) -> None:
    opens = check(ticket, JOB, second * SECOND, KEYS)
    assert opens == (ticket == TICKET and second < EXPIRY)


TOKEN, RECORD = make_key("acme", frozenset({"read"}), 0)


@given(bent_text(TOKEN))
def test_a_mistyped_key_is_told_without_the_store(token: str) -> None:
    assert is_made_here(token) == (token == TOKEN)


@given(
    st.one_of(
        st.text(max_size=60),
        st.text(max_size=40).map("Bearer ".__add__),
        bent_text(f"Bearer {TOKEN}"),
    )
)
def test_an_authorization_header_holds_one_token(header: str) -> None:
    token, status = None, 401
    try:
        token = bearer(header)
    except Problem as problem:
        status = problem.status
    assert status == 401
    if token is None:
        return
    scheme, *rest = header.split()
    assert (scheme.lower(), rest) == ("bearer", [token])
    try:
        bootstrap_key(token)
    except ApiKeyError:
        pytest.fail("taken in a header and not in the settings")


SECRET = b"s" * 32
WHSEC = "whsec_" + base64.b64encode(SECRET).decode()
BODY = b'{"type":"job.completed","data":{}}'
SIGNED = "msg_1.1614265330."


def signature(content: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(SECRET, content, hashlib.sha256)).decode()


GENUINE = signature(SIGNED.encode() + BODY)


@st.composite
def bent_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with a piece cut out, doubled or put in somewhere."""
    at = draw(st.integers(0, len(data)))
    until = draw(st.integers(at, min(len(data), at + 5)))
    return data[:at] + draw(st.binary(max_size=3)) + data[until:]


@given(
    st.one_of(st.just(BODY), bent_bytes(BODY), st.binary(max_size=40)),
    st.one_of(st.just("1614265330"), bent_text("1614265330"), st.text(max_size=12)),
    st.one_of(st.just(GENUINE), bent_text(GENUINE), st.text(max_size=80)),
    st.one_of(st.just("msg_1"), bent_text("msg_1")),
)
def test_nothing_but_what_was_signed_verifies(
    body: bytes, timestamp: str, signed: str, message_id: str
) -> None:
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signed,
    }
    try:
        verify(body, headers, WHSEC, now=1_614_265_330)
    except VerificationFailed:
        assume((body, timestamp, signed, message_id) != (BODY, "1614265330", GENUINE, "msg_1"))
        return
    # The digits may come with zeros before them; what was signed is the number.
    assert (body, int(timestamp), message_id) == (BODY, 1_614_265_330, "msg_1")
    assert GENUINE in signed.split(" ")
