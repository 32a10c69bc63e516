"""URLs: any text is refused cleanly, and what is taken has one reading to five parsers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from delivery.egress import Destination, Policy, parse_destination
from delivery.errors import DestinationRefused
from tests.processes import program

PRODUCTION = Policy()
OPEN = Policy(allow_http=True, allow_loopback=True, ports=None)
POLICIES = st.sampled_from([PRODUCTION, OPEN])

Whatwg = Callable[[str], dict[str, str] | None]


@pytest.fixture(scope="module")
def whatwg() -> Iterator[Whatwg]:
    """Return Node's parser, in a process that is asked line by line."""
    node = program("node", "the WHATWG URL parser")
    with subprocess.Popen(
        [node, str(Path(__file__).parent / "whatwg.mjs")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="ascii",
    ) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None
        assert answers is not None

        def parse(url: str) -> dict[str, str] | None:
            asked.write(json.dumps(url) + "\n")
            asked.flush()
            found: dict[str, str] | None = json.loads(answers.readline())
            return found

        yield parse
        asked.close()


WORDS = st.sampled_from(
    [
        *("https://", "http://", "HTTPS://", "ftp://", "//", "/", "\\", "://", "https:", "https:/"),
        *("@", ":", ":443", ":8443", ":80", ":0443", ":65536", "?", "#", "%", "%41", "%2e", "%00"),
        *("[", "]", "::1", "[::1]", "2606:4700::1", "[2606:4700::1]", "%25eth0", "v1.x"),
        *("127.0.0.1", "8.8.8.8", "0x7f", "0x", "1e100", "2130706433", "1.1", ".1", "0"),
        *(
            "localhost",
            "h.example",
            "EXAMPLE.com",
            "xn--fa-hia.de",
            "xn--",
            "a.b",
            ".",
            "..",
            "a..b",
        ),
        *("/../", "/./", "//", "/%2e%2e/", ";", "=", "&", "'", '"', "|", "^", "`", "{", "}", "~"),
        *("\t", "\n", "\r", "\0", " ", "\u00ad", "\u200d", "\u3002", "\uff0e", "\u2488", "\ufeff"),
        *("ß", "ſ", "K", "①", "ⓔxample", "\ud800", "\U0001f4a9"),
    ]
)
SOUP = st.lists(st.one_of(WORDS, st.text(max_size=3)), max_size=12).map("".join)
LABEL = st.one_of(
    st.text("abcdefgxyz0123456789-", min_size=1, max_size=8),
    st.text("abcxyz0123456789", min_size=1, max_size=8),
    st.sampled_from(["xn--fa-hia", "xn--a", "xn--80ak6aa92e", "ab--c", "example", "com"]),
)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
HOST = st.one_of(
    NAME,
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.sampled_from(["h.example", "localhost", "8.8.8.8", "[2606:4700::1]"]),
)
PORT = st.one_of(st.just(""), st.integers(0, 70_000).map(lambda port: f":{port}"))
REST = st.one_of(
    st.text("/ab.%2eE;=?&'@:!$()*+,~_-", max_size=20).map("/".__add__),
    st.text(max_size=8),
    st.just(""),
)
SHAPED = st.tuples(st.sampled_from(["https://", "http://", "hTTps://"]), HOST, PORT, REST).map(
    "".join
)

GOOD_LABEL = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,8}[A-Za-z0-9])?", fullmatch=True)
GOOD_NAME = st.lists(GOOD_LABEL, min_size=1, max_size=4).map(lambda some: ".".join([*some, "org"]))
GOOD = st.tuples(
    st.sampled_from(["https://", "HTTPS://"]),
    st.one_of(GOOD_NAME, st.sampled_from(["8.8.8.8", "[2606:4700::1]", "[2606:4700:0::0:1]"])),
    st.sampled_from(["", ":443", ":8443"]),
    st.from_regex(r"(/([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?", fullmatch=True),
).map("".join)


@st.composite
def bent(draw: st.DrawFn) -> str:
    """A well-shaped URL with one piece cut out, doubled or put in somewhere."""
    url = draw(st.one_of(SHAPED, GOOD))
    at = draw(st.integers(0, len(url)))
    until = draw(st.integers(at, min(len(url), at + 4)))
    return url[:at] + draw(st.one_of(WORDS, st.text(max_size=2), st.just(""))) + url[until:]


URLS = st.one_of(SOUP, SOUP.map("https://".__add__), SHAPED, GOOD, bent())


def parse(url: str, policy: Policy) -> Destination | None:
    try:
        return parse_destination(url, policy)
    except DestinationRefused as refused:
        detail = refused.detail
    assert detail.endswith(".")
    assert len(detail) < 200
    return None


@given(URLS, POLICIES)
@settings(deadline=None)
@example("https://h.example/a/../b/%2e%2E/.;x?q='&%27", PRODUCTION)
@example("https://h.example?q", PRODUCTION)
@example("https://h.example:443", PRODUCTION)
def test_what_is_taken_has_one_reading(whatwg: Whatwg, url: str, policy: Policy) -> None:
    found = parse(url, policy)
    if found is None:
        return
    assert parse_destination(found.url, policy) == found
    for text in (url, found.url):
        assert _by_urlsplit(text) == _ours(found)
        assert _normal(_by_httpx(text)) == _normal(_ours(found))
        assert _by_yarl(text) == _ours(found)
        seen = whatwg(text)
        # It refuses punycode that decodes to nothing allowed; for us that is a name like others.
        assert seen is not None or "xn--" in found.host
        assert seen is None or _by_whatwg(text, seen) == _normal(_ours(found))


Reading = tuple[str, str, int, str]
"""Scheme, host, port, path and query."""


def _ours(found: Destination) -> Reading:
    return found.scheme, found.host, found.port, found.target


_PORTS = {"https": 443, "http": 80}


def _target(path: str, query: str, *, has_query: bool) -> str:
    return (path or "/") + (f"?{query}" if has_query else "")


def _by_urlsplit(text: str) -> Reading:
    parts = urlsplit(text)
    assert parts.username is None
    assert parts.fragment == ""
    target = _target(parts.path, parts.query, has_query="?" in text)
    port = parts.port or _PORTS[parts.scheme]
    return parts.scheme, _spelled(parts.hostname or ""), port, target


def _by_httpx(text: str) -> Reading:
    url = httpx.URL(text)
    assert url.userinfo == b""
    assert url.fragment == ""
    port = url.port or _PORTS[url.scheme]
    return url.scheme, _spelled(url.raw_host.decode()), port, url.raw_path.decode()


def _by_yarl(text: str) -> Reading:
    url = URL(text, encoded=True)
    assert url.raw_user is None
    assert url.raw_fragment == ""
    target = _target(url.raw_path, url.raw_query_string, has_query="?" in text)
    return url.scheme, _spelled(url.raw_host or ""), url.port or 0, target


def _by_whatwg(text: str, seen: dict[str, str]) -> Reading:
    assert (seen["username"], seen["password"], seen["hash"]) == ("", "", "")
    scheme = seen["protocol"].removesuffix(":")
    host = seen["hostname"].removeprefix("[").removesuffix("]")
    # `search` is empty for a query that is there and empty.
    search = seen["search"] or ("?" if "?" in text else "")
    return scheme, host, int(seen["port"] or _PORTS[scheme]), seen["pathname"] + search


def _spelled(host: str) -> str:
    """Return a host in lower case; an IPv6 address as it is usually written."""
    if ":" not in host:
        return host.lower()
    return str(httpx.URL(f"https://[{_shortest(host)}]").raw_host.decode())


def _shortest(host: str) -> str:
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host))


def _normal(reading: Reading) -> Reading:
    """Return the reading with quotes, `.` and `..` as the WHATWG parser rewrites them; httpx does
    some of it too. What is sent is what was given.
    """
    scheme, host, port, target = reading
    path, mark, query = target.partition("?")
    return scheme, host, port, _without_dots(path) + mark + query.replace("'", "%27")


_DOT = re.compile(r"(?:\.|%2[eE])")


def _without_dots(path: str) -> str:
    """Return a path without `.` and `..` (WHATWG URL, path state)."""
    kept: list[str] = []
    steps = path.split("/")[1:]
    for at, step in enumerate(steps):
        dots = _DOT.sub(".", step)
        is_last = at == len(steps) - 1
        if dots == "..":
            del kept[-1:]
        if dots not in {".", ".."}:
            kept.append(step)
        elif is_last:
            kept.append("")
    return "/" + "/".join(kept)
