"""What `http.request` sends, and what it keeps of the answer."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from werkzeug import Response

from tests.gateway.http_request.conftest import SECRET, Service


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
