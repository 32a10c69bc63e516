"""Submitting over HTTP, on a real store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.models import View
from gateway.services import Services
from tests.gateway.conftest import PUBLIC_URL, FullStore, Gateway, MakeServices
from tests.gateway.jobs import ECHO, assert_problem

JSON = {"Content-Type": "application/json"}


async def test_submit(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/jobs", json={**ECHO, "callbackUrl": "http://127.0.0.1:9/hook"})
    assert answer.status_code == 202
    job = answer.json()
    url = f"{PUBLIC_URL}/v1/jobs/{job['jobId']}"
    assert answer.headers["location"] == url == job["statusUrl"]
    assert answer.headers["link"] == f'<{url}>; rel="status"'
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/json"
    assert "idempotent-replayed" not in answer.headers
    assert job["status"] == "pending"
    assert job["callback"] == {
        "url": "http://127.0.0.1:9/hook",
        "status": "pending",
        "attempts": 0,
        "lastStatusCode": None,
        "nextAttemptAt": None,
    }


async def test_submit_a_file(client: httpx.AsyncClient, services: Services) -> None:
    request = {"type": "document.analyze", "input": {"document": {"part": "doc"}}}
    answer = await client.post(
        "/v1/jobs",
        files=[
            ("job", (None, json.dumps(request), "application/json")),
            ("doc", ("../../x.txt", b"some text", "text/plain")),
        ],
    )
    assert answer.status_code == 202
    view = await services.jobs.read(answer.json()["jobId"])
    assert isinstance(view, View)
    kept = view.job.files["doc"]
    assert (kept.name, kept.size, kept.content_type) == ("../../x.txt", 9, "text/plain")
    assert await services.artifacts.read(kept.path, 100) == b"some text"


async def test_the_same_key_is_the_same_job(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/jobs", json=ECHO, headers={"Idempotency-Key": "abc"})
    again = await client.post("/v1/jobs", json=ECHO, headers={"Idempotency-Key": '"abc"'})
    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["jobId"] == first.json()["jobId"]
    other = await client.post(
        "/v1/jobs", json={**ECHO, "priority": "low"}, headers={"Idempotency-Key": "abc"}
    )
    assert_problem(other, "idempotency_key_reused")


async def test_a_refused_request_does_not_use_up_its_key(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "abc"}
    refused = await client.post("/v1/jobs", json={**ECHO, "type": "no.such"}, headers=headers)
    assert_problem(refused, "unknown_job_type")
    accepted = await client.post("/v1/jobs", json=ECHO, headers=headers)
    assert accepted.status_code == 202


async def test_a_key_may_be_required(make_services: MakeServices) -> None:
    services = make_services(GATEWAY_API_REQUIRE_IDEMPOTENCY_KEY="true")
    gateway = Gateway(services, create_app(services))
    async with await gateway.client() as client:
        answer = await client.post("/v1/jobs", json=ECHO)
    assert_problem(answer, "idempotency_key_required")


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        (JSON, b"{", "malformed_json"),
        (JSON, b"", "malformed_json"),
        (JSON, b'{"type": "demo.echo", "type": "demo.echo"}', "malformed_json"),
        (JSON, b"[" * 100_000, "malformed_json"),
        (JSON, b"[]", "invalid_request"),
        (JSON, b'{"input": {}}', "invalid_request"),
        (JSON, b'{"type": "demo.echo", "input": {}, "x": 1}', "unknown_member"),
        (JSON, b'{"type": "no.such", "input": {}}', "unknown_job_type"),
        (JSON, b'{"type": "demo.echo", "input": {}}', "invalid_input"),
        (
            JSON,
            b'{"type": "demo.echo", "input": {"payload": 1}, "callbackUrl": "https://h.example:22/\\u0000"}',
            "invalid_callback_url",
        ),
        (JSON, b" " * (1_048_576 + 1), "body_too_large"),
        ({"Content-Type": "application/json; charset=utf-16"}, b"{}", "unsupported_media_type"),
        ({**JSON, "Content-Encoding": "gzip"}, b"{}", "unsupported_media_type"),
        ({"Content-Type": "text/plain"}, b"{}", "unsupported_media_type"),
        ({}, b"{}", "unsupported_media_type"),
        ({**JSON, "Idempotency-Key": ""}, b"{}", "invalid_idempotency_key"),
        ({"Content-Type": "multipart/form-data"}, b"", "malformed_body"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n", "malformed_body"),
    ],
)
async def test_bodies_that_are_refused(
    client: httpx.AsyncClient, headers: dict[str, str], body: bytes, code: str
) -> None:
    assert_problem(await client.post("/v1/jobs", content=body, headers=headers), code)


async def test_a_body_without_a_length_is_cut_off_at_the_limit(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * 65_536:
            sent += 65_536
            yield b" " * 65_536

    answer = await client.post("/v1/jobs", content=endless(), headers=JSON)
    assert_problem(answer, "body_too_large")
    assert sent <= 1_048_576 + 2 * 65_536


async def test_faults_are_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/jobs", json={**ECHO, "a/b": 1})
    body = assert_problem(answer, "unknown_member")
    assert body["errors"] == [{"pointer": "/a~1b", "detail": "is not a member of this object"}]


@pytest.mark.parametrize("kind", ["json", "multipart", "route"])
@pytest.mark.parametrize("tail", ["-01", "-01-more"])
async def test_a_job_is_of_the_trace_that_its_submission_is_of(
    client: httpx.AsyncClient, services: Services, kind: str, tail: str
) -> None:
    trace = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331{tail}"
    requests: dict[str, tuple[str, dict[str, Any]]] = {
        "json": ("/v1/jobs", {"json": ECHO}),
        "multipart": (
            "/v1/jobs",
            {"files": [("job", (None, json.dumps(ECHO), "application/json"))]},
        ),
        "route": ("/api/documents", {"json": {"text": "The river runs."}}),
    }
    path, request = requests[kind]
    made = await client.post(path, headers={"traceparent": trace}, **request)
    assert made.status_code == 202, made.text
    view = await services.jobs.read(made.json()["jobId"])
    assert isinstance(view, View)
    assert view.job.trace == (trace if tail == "-01" else None)


async def test_a_full_store(client: httpx.AsyncClient, full_store: FullStore) -> None:
    async with full_store():
        answer = await client.post("/v1/jobs", json=ECHO)
    assert_problem(answer, "store_full")
    assert int(answer.headers["retry-after"]) >= 1
