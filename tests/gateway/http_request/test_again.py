"""What `http.request` tries again, leaves alone for a while, and ends."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gateway.handlers_.http import request
from gateway.jobcontext import JobCancelled
from tests.gateway.http_request.conftest import ANYTHING, Service, Stopping


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
