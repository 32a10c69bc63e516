"""What `http.request` refuses: inputs, headers, paths and addresses."""

from __future__ import annotations

import posixpath
import threading
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.handlers_.http import request
from gateway.handlers_.upstream import check_path
from gateway.jobcontext import JobError
from gateway.jobtypes import InputInvalid
from gateway.testing import run_handler
from tests.gateway.http_request.conftest import Service, Stopping
from tests.gateway.in_force import put_in_force


@pytest.mark.parametrize(
    ("given_input", "pointer"),
    [
        ({}, "/upstream"),
        ({"upstream": ""}, "/upstream"),
        ({"upstream": "Reports"}, "/upstream"),
        ({"upstream": "//h"}, "/upstream"),
        ({"upstream": "https://example.com/"}, "/upstream"),
        ({"upstream": "reports", "method": "get"}, "/method"),
        ({"upstream": "reports", "method": "TRACE"}, "/method"),
        ({"upstream": "reports", "method": "CONNECT"}, "/method"),
        ({"upstream": "reports", "timeoutSeconds": 0}, "/timeoutSeconds"),
        ({"upstream": "reports", "timeoutSeconds": 3601}, "/timeoutSeconds"),
        ({"upstream": "reports", "headers": {"X": "a\r\nY: b"}}, "/headers"),
        ({"upstream": "reports", "headers": {"Content-Type": "a/b\r\nY: b"}}, "/headers"),
        ({"upstream": "reports", "headers": {"X": "1", "x": "2"}}, "/headers"),
        ({"upstream": "reports", "headers": {f"X-{n}": "" for n in range(21)}}, "/headers"),
        ({"upstream": "reports", "url": "x"}, "/url"),
    ],
)
def test_inputs_have_limits(
    monkeypatch: pytest.MonkeyPatch, given_input: dict[str, Any], pointer: str
) -> None:
    put_in_force(monkeypatch)
    with pytest.raises(InputInvalid) as caught:
        request.parse_input(given_input)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


@pytest.mark.parametrize(
    "name",
    [
        # what says who asks, and for whom
        "User-Agent", "Idempotency-Key", "Traceparent", "Forwarded", "Via", "X-Forwarded-For",
        "X-Forwarded-Host", "X-Real-IP", "Gateway-Attempt", "Webhook-Signature",
        # what frames the message, or is for the next hop
        "Host", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Accept-Encoding", "TE",
        "Trailer", "Connection", "Keep-Alive", "Upgrade", "HTTP2-Settings", "Expect",
        "Proxy-Authorization", "Proxy-Connection", "Proxy-Anything",
        # what makes it another request
        "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL",
        "X-Rewrite-URL",
    ],
)  # fmt: skip
def test_headers_that_no_client_may_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    put_in_force(monkeypatch)
    for spelling in (name, name.lower(), name.upper()):
        with pytest.raises(InputInvalid) as caught:
            request.parse_input({"upstream": "reports", "headers": {spelling: "1"}})
        [fault] = caught.value.faults
        assert fault.pointer == "/headers"
        assert name.lower() in fault.detail


def test_headers_that_are_the_clients_own(service: Service) -> None:
    own = {"Cookie": "a=b", "Accept": "text/csv", "If-None-Match": '"1"', "Range": "bytes=0-1"}
    service.settings()
    service.call(headers=own)
    (asked,) = service.asked
    assert {name: asked.headers[name] for name in own} == own
    assert asked.headers["user-agent"].startswith("async-request-reply-gateway")
    assert len(asked.headers.getlist("user-agent")) == 1


def test_authorization_is_the_clients_where_the_operator_has_none(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_force(monkeypatch, GATEWAY_UPSTREAMS=f'{{open = {{base_url = "{service.url}"}}}}')
    service.call(upstream="open", headers={"Authorization": "Bearer mine"})
    assert service.asked[0].headers["authorization"] == "Bearer mine"


@pytest.mark.parametrize(
    "path",
    [
        "", "x", "?q", "//h/", "http://h/", "/../x", "/a/..", "/a/./b", "/.", "/%2e%2e/x",
        "/a/%2E%2e", "/%252e%252e/x", "/..%2fx", "/..%5cx", "/..;a=b/x", "/a#b", "/a b", "/a\tb",
        "/a\nb", "/a\\..\\b", "/ü", "/%", "/%zz", "/a\0b", "/" + "x" * 8_192,
    ],
)  # fmt: skip
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        request.parse_input({"upstream": "reports", "path": path})
    assert [fault.pointer for fault in caught.value.faults] == ["/path"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a/b",
        "/a//b",
        "/a%20b",
        "/%0d%0a",
        "/a?next=../../b",
        "/...",
        "/.well-known/x",
        "/a..b",
    ],
)
def test_paths_that_are_sent(path: str) -> None:
    check_path(path)


@given(st.lists(st.sampled_from(["/", "a", ".", "%2e", "%2F", "%5c", ";", "%25", "2e", "?"])))
def test_no_path_leaves_what_it_is_appended_to(pieces: list[str]) -> None:
    path = "/" + "".join(pieces)
    try:
        check_path(path)
    except ValueError:
        return
    read = path.partition("?")[0]
    for _ in range(3):
        for reading in (read, read.replace("\\", "/")):
            assert (posixpath.normpath("/api" + reading) + "/").startswith("/api/")
        read = unquote(read)


def test_an_unknown_upstream_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_force(monkeypatch)
    with pytest.raises(JobError, match="no upstream named 'nobody'") as caught:
        run_handler(request, {"upstream": "nobody"})
    assert (caught.value.code, caught.value.retry) == ("upstream_unknown", False)


def test_the_settings_have_the_last_word(service: Service) -> None:
    service.settings('methods = ["GET"]')
    assert service.fails(method="DELETE").code == "method_not_allowed"
    error = service.fails(headers={"Authorization": "Bearer mine"})
    assert error.code == "header_not_allowed"
    assert "mine" not in error.message
    assert service.asked == []


ANY_URL = {"GATEWAY_HTTP_REQUEST_ALLOW_ANY_URL": "true"}


def test_any_url_can_be_allowed(service: Service) -> None:
    service.settings(**ANY_URL)
    result = service.call(upstream=f"{service.url}/x?q=1").result
    assert result["body"] == "ok"
    (asked,) = service.asked
    assert asked.environ["REQUEST_URI"] == "/api/x?q=1"
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:7f00:1]/",
        "https://user:password@example.com/",
        "https://redis/",
        "gopher://127.0.0.1:6379/_x",
        "https://example.com/#x",
        "https://2130706433/",
    ],
)
def test_any_url_is_still_no_private_one(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    put_in_force(monkeypatch, **ANY_URL)
    with pytest.raises(InputInvalid) as caught:
        request.parse_input({"upstream": url})
    assert [fault.pointer for fault in caught.value.faults] == ["/upstream"]
    assert "password" not in caught.value.faults[0].detail.replace("user name or password", "")


def test_a_url_has_its_own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_force(monkeypatch, **ANY_URL)
    with pytest.raises(InputInvalid, match="a URL has its own"):
        request.parse_input({"upstream": "https://example.com/", "path": "/x"})


def test_a_url_allowed_once_and_no_more_fails_the_job(service: Service) -> None:
    service.settings(**ANY_URL)
    accepted = request.parse_input({"upstream": service.url})
    service.settings()
    with pytest.raises(JobError, match="URLs are not allowed") as caught:
        request.function(Stopping(threading.Event()), accepted)
    assert caught.value.code == "destination_not_allowed"
