"""A real service on loopback, which is an upstream of `http.request`."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from config.settings import current_settings
from gateway.handlers_.breaker import Breakers
from gateway.handlers_.http import request
from gateway.jobcontext import Artifact, FileInfo, FileRef, JobCancelled, JobError
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
