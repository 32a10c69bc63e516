"""`http.request` against a real service on loopback: what is sent, kept, repeated and refused."""

from __future__ import annotations

import gzip
import json
import posixpath
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from config.settings import current_settings
from gateway.handlers_.breaker import Breakers
from gateway.handlers_.http import request
from gateway.handlers_.upstream import check_path
from gateway.jobcontext import Artifact, FileInfo, FileRef, JobCancelled, JobError
from gateway.jobtypes import InputInvalid
from gateway.testing import HandlerRun, run_handler
from tests.gateway.in_force import put_in_force

ANYTHING = re.compile(".*")
SECRET = "Bearer c2VjcmV0"


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test breakers of its own, and leave no settings behind."""
    monkeypatch.setattr("gateway.handlers_.http._breakers", Breakers())
    yield
    current_settings.cache_clear()


class Service:
    """The upstream `reports`: answers what it is told to, and keeps what it was asked."""

    def __init__(self, server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer = Response("ok")
        self.asked: list[Request] = []
        self._monkeypatch = monkeypatch
        self.url = server.url_for("/api")
        server.expect_request(ANYTHING).respond_with_handler(self._respond)
        self.settings()

    def settings(self, upstream: str = "", **others: str) -> None:
        """Put in force the upstream's settings, as TOML, and others."""
        headers = f'headers = {{authorization = "{SECRET}"}}'
        given_settings = f'base_url = "{self.url}", {headers}{", " if upstream else ""}{upstream}'
        put_in_force(
            self._monkeypatch, GATEWAY_UPSTREAMS=f"{{reports = {{{given_settings}}}}}", **others
        )

    def call(self, **given_input: Any) -> HandlerRun:
        return run_handler(request, {"upstream": "reports"} | given_input)

    def fails(self, **given_input: Any) -> JobError:
        with pytest.raises(JobError) as caught:
            self.call(**given_input)
        return caught.value

    def _respond(self, asked: Request) -> Response:
        asked.get_data()
        self.asked.append(asked)
        return self.answer


@pytest.fixture
def service(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A running service, named in the settings."""
    return Service(httpserver, monkeypatch)


# What is sent


def test_a_request_goes_below_the_upstreams_address(service: Service) -> None:
    run = service.call(path="/reports/a%2Fb?year=2026&x=%20", headers={"X-Trace": "t-1"})
    (asked,) = service.asked
    assert asked.method == "GET"
    assert asked.environ["REQUEST_URI"] == "/api/reports/a%2Fb?year=2026&x=%20"
    assert asked.headers["authorization"] == SECRET
    assert asked.headers["x-trace"] == "t-1"
    assert asked.headers["idempotency-key"] == "job_00test"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["user-agent"].startswith("async-request-reply-gateway")
    assert run.result["body"] == "ok"
    assert run.progress[0].message == "Waiting for reports"
    assert run.progress[-1].percent == 100


def test_without_a_path_the_address_itself_is_called(service: Service) -> None:
    service.call()
    assert service.asked[0].environ["REQUEST_URI"] == "/api"


@pytest.mark.parametrize(
    ("body", "headers", "sent", "content_type"),
    [
        ({"a": [1, None]}, {}, b'{"a":[1,null]}', "application/json"),
        ([], {}, b"[]", "application/json"),
        (0, {}, b"0", "application/json"),
        (False, {}, b"false", "application/json"),
        ("grüß", {}, "grüß".encode(), "text/plain; charset=utf-8"),
        ("<a/>", {"Content-Type": "application/xml"}, b"<a/>", "application/xml"),
        ({"a": 1}, {"content-type": "application/x+json"}, b'{"a":1}', "application/x+json"),
        (None, {}, b"", None),
    ],
)
def test_a_body_is_sent_as_json_or_text(
    service: Service, body: Any, headers: dict[str, str], sent: bytes, content_type: str | None
) -> None:
    service.call(method="POST", body=body, headers=headers)
    (asked,) = service.asked
    assert asked.get_data() == sent
    assert asked.headers.get("content-type") == content_type


def test_no_cookie_is_kept_or_sent(service: Service) -> None:
    service.answer = Response("ok", headers={"Set-Cookie": "a=b", "X-Mine": "1"})
    results = [service.call().result["headers"] for _ in range(2)]
    assert all("set-cookie" not in headers and headers["x-mine"] == "1" for headers in results)
    assert all("cookie" not in asked.headers for asked in service.asked)


# What is kept


@pytest.mark.parametrize(
    ("answered", "content_type", "body"),
    [
        (b'{"a": 1.5}', "application/json", {"a": 1.5}),
        (b"[1]", "application/problem+json; charset=utf-8", [1]),
        (b"null", "application/json", None),
        (b'{"a": 1', "application/json", '{"a": 1'),
        (b'{"a":1,"a":2}', "application/json", '{"a":1,"a":2}'),
        (b"NaN", "application/json", "NaN"),
        (b"[" * 5000, "application/json", "[" * 5000),
        ("grüß\n".encode(), "text/plain", "grüß\n"),
        (b"<a/>", "application/xml", "<a/>"),
        (b"", "text/plain", None),
        (b"text", "nonsense", "text"),
    ],
)
def test_a_short_answer_is_part_of_the_results(
    service: Service, answered: bytes, content_type: str, body: Any
) -> None:
    service.answer = Response(answered, content_type=content_type)
    result = service.call().result
    assert result["body"] == body
    assert "artifact" not in result
    assert result["headers"]["content-type"] == content_type


LONG_JSON = json.dumps(["x" * 100] * 200).encode()


@pytest.mark.parametrize(
    ("answered", "headers", "name", "kept_type"),
    [
        (LONG_JSON, {"Content-Type": "application/json"}, "answer.json", "application/json"),
        (b"x" * 16_385, {"Content-Type": "text/plain"}, "answer.txt", "text/plain"),
        (b"\x89PNG\r\n\x1a\n", {"Content-Type": "image/png"}, "answer.png", "image/png"),
        (b"\xff\xfe", {"Content-Type": "a/b/../c"}, "answer.bin", "application/octet-stream"),
        (b"a\0b", {"Content-Type": "text/plain"}, "answer.txt", "text/plain"),
        (
            gzip.compress(b"{}"),
            {"Content-Type": "application/json", "Content-Encoding": "gzip"},
            "answer.bin",
            "application/octet-stream",
        ),
        (b"x" * 2_000_000, {}, "answer.txt", "text/plain"),
    ],
)
def test_a_long_answer_and_one_that_is_no_text_become_an_artifact(
    service: Service, answered: bytes, headers: dict[str, str], name: str, kept_type: str
) -> None:
    service.answer = Response(answered, headers=headers)
    run = service.call()
    assert "body" not in run.result
    assert run.result["artifact"]["name"] == name
    assert run.result["artifact"]["href"] == f"artifact:{name}"
    assert run.result["artifact"]["contentType"] == kept_type
    assert run.artifacts == {name: answered}


@pytest.mark.parametrize("status", [200, 201, 204, 301, 304, 400, 401, 404, 409, 422, 451])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_that_will_not_change_is_the_result(
    service: Service, status: int, method: str
) -> None:
    service.answer = Response(status=status, headers={"Location": "http://127.0.0.1:1/"})
    result = service.call(method=method).result
    assert result["status"] == status
    assert result["body"] is None
    assert result["headers"]["location"] == "http://127.0.0.1:1/"
    assert len(service.asked) == 1


def test_the_answer_to_head_is_its_headers(service: Service) -> None:
    service.answer = Response(b"x" * 50)
    result = service.call(method="HEAD").result
    assert result["headers"]["content-length"] == "50"
    assert result["body"] is None


# What is tried again


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize(
    ("method", "again"),
    [("GET", True), ("PUT", True), ("DELETE", True), ("POST", False), ("PATCH", False)],
)
def test_what_may_be_over_in_a_while_is_tried_again_if_the_method_allows(
    service: Service, status: int, method: str, again: bool
) -> None:
    service.answer = Response("secret detail", status=status)
    error = service.fails(method=method)
    assert (error.code, error.retry) == ("upstream_error", again)
    assert error.message == f"The upstream 'reports' answered with status {status}."


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("POST", False)])
def test_no_connection_is_tried_again_if_the_method_allows(
    service: Service, httpserver: HTTPServer, method: str, again: bool
) -> None:
    httpserver.stop()
    error = service.fails(method=method)
    assert (error.code, error.retry) == ("upstream_error", again)
    assert "no connection could be made" in error.message
    httpserver.start()


@pytest.mark.parametrize(
    ("given_input", "upstream"),
    [
        ({"timeoutSeconds": 0.2}, ""),
        ({}, "timeout_seconds = 0.2"),
        ({"timeoutSeconds": 3600}, "timeout_seconds = 0.2"),
    ],
)
def test_the_shorter_patience_counts(
    service: Service, httpserver: HTTPServer, given_input: dict[str, Any], upstream: str
) -> None:
    service.settings(upstream)
    release = threading.Event()

    def hang(_asked: Request) -> Response:
        release.wait(30)
        return Response()

    httpserver.expect_oneshot_request(ANYTHING).respond_with_handler(hang)
    error = service.fails(**given_input)
    release.set()
    assert (error.code, error.retry) == ("upstream_error", True)
    assert "in time" in error.message


def test_a_longer_answer_than_the_settings_allow_fails_the_job(service: Service) -> None:
    service.settings("max_answer_bytes = 1000")
    service.answer = Response(b"x" * 1001)
    error = service.fails()
    assert (error.code, error.retry) == ("answer_too_large", False)
    service.answer = Response(b"x" * 1000)
    assert service.call().result["body"] == "x" * 1000


def test_a_failing_upstream_is_left_alone_for_a_while(service: Service) -> None:
    service.settings("breaker_failures = 2, breaker_wait_seconds = 3600")
    service.answer = Response(status=503)
    service.fails()
    service.fails()
    error = service.fails(method="POST")
    assert (error.code, error.retry) == ("upstream_error", True)
    assert "not sent" in error.message
    assert len(service.asked) == 2


@pytest.mark.parametrize("status", [200, 404, 500])
def test_an_upstream_that_answers_is_not_left_alone(service: Service, status: int) -> None:
    service.settings("breaker_failures = 1")
    service.answer = Response(status=status)
    for _ in range(3):
        if status == 500:
            service.fails()
        else:
            service.call()
    assert len(service.asked) == 3


# What is refused


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


# Stopping


class Stopping:
    """A job that is cancelled as soon as `when` is set."""

    id = "job_00stopping"
    attempt = 1
    max_attempts = 3
    metadata: Mapping[str, object] = {}

    def __init__(self, when: threading.Event) -> None:
        self._when = when

    def progress(self, percent: int, message: str) -> None:  # noqa: ARG002
        self.sleep(0)

    def sleep(self, seconds: float) -> None:  # noqa: ARG002
        if self._when.is_set():
            raise JobCancelled

    def open(self, file: FileRef) -> BinaryIO:  # noqa: ARG002
        raise AssertionError("there are no files")

    def file_info(self, file: FileRef) -> FileInfo:  # noqa: ARG002
        raise AssertionError("there are no files")

    def save(self, name: str, data: bytes | BinaryIO, content_type: str) -> Artifact:  # noqa: ARG002
        raise AssertionError("nothing to save")


def test_cancelling_ends_the_request(service: Service, httpserver: HTTPServer) -> None:
    asked, release = threading.Event(), threading.Event()

    def hang(_asked: Request) -> Response:
        asked.set()
        release.wait(60)
        return Response()

    httpserver.expect_oneshot_request(ANYTHING).respond_with_handler(hang)
    with pytest.raises(JobCancelled):
        request.function(Stopping(asked), request.parse_input({"upstream": "reports"}))
    release.set()
