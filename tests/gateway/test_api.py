"""The HTTP API on a real store: what each address answers, and with which headers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from config.clock import SECOND
from config.ids import new_id
from config.store import Store, connect
from delivery.store import DeliveryStore
from gateway import tickets
from gateway.app import create_app
from gateway.auth import SCOPES, make_key
from gateway.models import View
from gateway.services import Services
from gateway.store import JobStore
from gateway.work import End
from tests.gateway.conftest import PUBLIC_URL, FullStore, Gateway, MakeServices
from tests.gateway.jobs import ECHO, assert_problem, finish, save, submit

REPORT = b"%PDF-1.7 " + bytes(range(256))


# Submitting


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


JSON = {"Content-Type": "application/json"}


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


# Credentials


@pytest.mark.parametrize(
    "path", ["/v1/jobs/x", "/v1/jobs/x/result", "/v1/jobs/x/artifacts/y", "/v1/endpoints"]
)
@pytest.mark.parametrize("header", [None, "Basic x", "Bearer short", "Bearer gwk_" + "0" * 32])
async def test_no_credentials(gateway: Gateway, path: str, header: str | None) -> None:
    async with gateway.anyone({"Authorization": header} if header else None) as anyone:
        answer = await anyone.get(path)
    assert_problem(answer, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/jobs", "submit"),
        ("GET", "/v1/jobs/x", "read"),
        ("DELETE", "/v1/jobs/x", "submit"),
        ("POST", "/v1/jobs/x/cancel", "submit"),
        ("POST", "/v1/jobs/x/retry", "submit"),
        ("POST", "/v1/files", "submit"),
        ("GET", "/v1/files/x", "read"),
        ("POST", "/v1/endpoints", "submit"),
        ("GET", "/v1/endpoints", "read"),
        ("GET", "/v1/endpoints/x/secret", "admin"),
    ],
)
async def test_the_scope_is_needed(gateway: Gateway, method: str, path: str, scope: str) -> None:
    without = frozenset(each for each in SCOPES if each != scope)
    async with await gateway.client(scopes=without) as client:
        answer = await client.request(method, path, json={})
    body = assert_problem(answer, "insufficient_scope")
    assert scope in body["detail"]


async def test_the_bootstrap_key(make_services: MakeServices) -> None:
    services = make_services(GATEWAY_BOOTSTRAP_API_KEY="local-development-key")
    gateway = Gateway(services, create_app(services))
    async with gateway.anyone({"Authorization": "Bearer local-development-key"}) as client:
        job_id = await submit(client)
    view = await services.jobs.read(job_id)
    assert isinstance(view, View)
    assert view.job.tenant == "default"


async def test_another_tenants_job_is_not_there(
    gateway: Gateway, client: httpx.AsyncClient
) -> None:
    job_id = await submit(client)
    async with await gateway.client(tenant="other") as other:
        for path in ("", "/result", "/artifacts/x"):
            assert_problem(await other.get(f"/v1/jobs/{job_id}{path}"), "not_found")
        for path in ("/cancel", "/retry"):
            assert_problem(await other.post(f"/v1/jobs/{job_id}{path}"), "not_found")
        assert_problem(await other.delete(f"/v1/jobs/{job_id}"), "not_found")


async def test_a_ticket_reads_its_job_and_no_other(
    gateway: Gateway, services: Services, client: httpx.AsyncClient
) -> None:
    mine, other = await submit(client), await submit(client)
    key = services.ring.derive(tickets.PURPOSE)
    now = services.clock.now()
    good, late = (tickets.mint(mine, now + at * SECOND, key) for at in (60, -60))
    async with gateway.anyone({"Authorization": "Basic c29tZWJvZHk6ZWxzZQ=="}) as anyone:
        answer = await anyone.get(f"/v1/jobs/{mine}?ticket={good}")
        assert answer.json()["jobId"] == mine
        assert_problem(await anyone.get(f"/v1/jobs/{other}?ticket={good}"), "unauthorized")
        assert_problem(await anyone.get(f"/v1/jobs/{mine}?ticket={late}"), "unauthorized")
        assert_problem(await anyone.get(f"/v1/endpoints?ticket={good}"), "unauthorized")


# Status


async def test_status_of_a_pending_job(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    answer = await client.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["vary"] == "Authorization, Prefer, Origin"
    assert answer.json()["status"] == "pending"


async def test_a_version_that_is_known_is_not_sent_again(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(client)
    url = f"/v1/jobs/{job_id}"
    etag = (await client.get(url)).headers["etag"]
    assert etag.startswith('W/"')
    for value in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        answer = await client.get(url, headers={"If-None-Match": value})
        assert answer.status_code == 304
        assert answer.content == b""
        assert answer.headers["etag"] == etag
    await services.work.claim(job_id, "claim", lease=30 * SECOND)
    answer = await client.get(url, headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer.json()["status"] == "processing"


async def test_a_completed_job_leads_to_its_result(
    gateway: Gateway, client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(client)
    await finish(services, job_id, results={"payload": 1})
    answer = await client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": "*"})
    assert answer.status_code == 303
    assert answer.json()["results"] == {"payload": 1}
    location = answer.headers["location"]
    assert location.startswith(f"{PUBLIC_URL}/v1/jobs/{job_id}/result?ticket=")
    for name in ("etag", "retry-after", "ratelimit"):
        assert name not in answer.headers
    async with gateway.anyone() as anyone:
        followed = await anyone.get(location)
        assert followed.status_code == 200
        assert followed.json() == answer.json()
        ticket = location.partition("?ticket=")[2]
        by_ticket = await anyone.get(f"/v1/jobs/{job_id}?ticket={ticket}")
        assert by_ticket.headers["location"] == location


@pytest.mark.parametrize(
    ("asked", "query", "status"),
    [
        ("inline", "", 200),
        ("inline", "?onComplete=redirect", 303),
        ("redirect", "", 303),
        ("redirect", "?onComplete=inline", 200),
    ],
)
async def test_where_the_result_is_read(
    client: httpx.AsyncClient, services: Services, asked: str, query: str, status: int
) -> None:
    job_id = await submit(client, onComplete=asked)
    await finish(services, job_id, results={"payload": 1})
    answer = await client.get(f"/v1/jobs/{job_id}{query}")
    assert answer.status_code == status
    assert answer.json()["results"] == {"payload": 1}


async def test_a_query_that_cannot_be_used(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    assert_problem(await client.get(f"/v1/jobs/{job_id}?onComplete=push"), "invalid_parameter")


async def test_a_failed_job_tells_why(client: httpx.AsyncClient, services: Services) -> None:
    job_id = await submit(client)
    await finish(services, job_id, "failed", error="It broke.", error_code="handler_error")
    answer = await client.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200
    assert "retry-after" not in answer.headers
    job = answer.json()
    assert (job["status"], job["error"], job["errorCode"]) == (
        "failed",
        "It broke.",
        "handler_error",
    )


@pytest.mark.parametrize("job_id", ["x", "job_", "job_99" + "0" * 22, "ep_00" + "0" * 22, "%00"])
async def test_unknown_jobs(client: httpx.AsyncClient, job_id: str) -> None:
    assert_problem(await client.get(f"/v1/jobs/{job_id}"), "not_found")


async def test_a_well_formed_identifier_of_no_job(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id = new_id("job", 0, services.clock.now())
    assert_problem(await client.get(f"/v1/jobs/{job_id}"), "not_found")


async def test_an_expired_job_is_gone(client: httpx.AsyncClient, services: Services) -> None:
    job_id = await submit(client)
    view = await services.work.claim(job_id, "claim", lease=30 * SECOND)
    assert view is not None
    end = End(
        claim="claim",
        by="test",
        rev=view.job.rev,
        status="completed",
        completed_at=view.now,
        expires_at=view.now - 1,
        message=None,
        attempt_record="{}",
    )
    await services.work.finish(job_id, end)
    await services.outbox.expire(tombstone_life=60 * SECOND, after_callback=0, at_most=10)
    for path in ("", "/result", "/artifacts/x"):
        body = assert_problem(await client.get(f"/v1/jobs/{job_id}{path}"), "job_expired")
        assert body["jobId"] == job_id
        assert body["jobStatus"] == "completed"
        assert body["expiredAt"].endswith("Z")


# Results and artifacts


async def test_results_that_are_not_there(client: httpx.AsyncClient, services: Services) -> None:
    pending, failed, cancelled = [await submit(client) for _ in range(3)]
    answer = await client.get(f"/v1/jobs/{pending}/result")
    assert_problem(answer, "result_not_ready")
    assert answer.headers["retry-after"] == "1"
    await finish(services, failed, "failed", error="It broke.")
    body = assert_problem(await client.get(f"/v1/jobs/{failed}/result"), "job_failed")
    assert body["detail"] == "It broke."
    await finish(services, cancelled, "cancelled")
    assert_problem(await client.get(f"/v1/jobs/{cancelled}/result"), "job_cancelled")


async def test_large_results_are_read_back(client: httpx.AsyncClient, services: Services) -> None:
    job_id = await submit(client)
    results = {"text": "ü" * 20_000}
    file = await save(services, job_id, "results.json", json.dumps(results).encode())
    await finish(services, job_id, results_file=file)
    answer = await client.get(f"/v1/jobs/{job_id}/result")
    assert answer.json()["results"] == results
    assert answer.headers["cache-control"] == "private, no-cache"


@pytest.fixture
async def report(client: httpx.AsyncClient, services: Services) -> str:
    """Return the URL of a finished job's report."""
    job_id = await submit(client)
    file = await save(services, job_id, "report.pdf", REPORT)
    results = {"resultUrl": "artifact:report.pdf"}
    await finish(services, job_id, results=results, artifacts={"report.pdf": file})
    answer = await client.get(f"/v1/jobs/{job_id}/result")
    url: str = answer.json()["results"]["resultUrl"]
    return url


async def test_an_artifact(client: httpx.AsyncClient, report: str) -> None:
    answer = await client.get(report)
    assert answer.status_code == 200
    assert answer.content == REPORT
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-length"] == str(len(REPORT))
    assert answer.headers["content-disposition"] == 'attachment; filename="report.pdf"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["accept-ranges"] == "bytes"
    again = await client.get(report, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("header", "start", "end"), [("bytes=0-3", 0, 4), ("bytes=9-", 9, 265), ("bytes=-6", 259, 265)]
)
async def test_a_range(
    client: httpx.AsyncClient, report: str, header: str, start: int, end: int
) -> None:
    answer = await client.get(report, headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == REPORT[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(REPORT)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "headers", [{"Range": "bytes=0-1,3-4"}, {"Range": "bytes=0-3", "If-Range": '"other"'}]
)
async def test_ranges_that_get_the_whole(
    client: httpx.AsyncClient, report: str, headers: dict[str, str]
) -> None:
    answer = await client.get(report, headers=headers)
    assert (answer.status_code, answer.content) == (200, REPORT)


async def test_a_range_outside(client: httpx.AsyncClient, report: str) -> None:
    answer = await client.get(report, headers={"Range": f"bytes={len(REPORT)}-"})
    assert_problem(answer, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(REPORT)}"


async def test_no_such_artifact(client: httpx.AsyncClient, report: str) -> None:
    for name in ("other.pdf", "..%2f..%2fetc%2fpasswd"):
        answer = await client.get(report.replace("report.pdf", name))
        assert_problem(answer, "not_found")


async def test_bytes_that_are_lost(
    client: httpx.AsyncClient, services: Services, report: str
) -> None:
    job_id = report.split("/")[-3]
    await services.artifacts.delete_prefix(f"jobs/{job_id}")
    assert_problem(await client.get(report), "artifacts_unavailable")


# Endpoints


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
    assert view.job.traceparent == (trace if tail == "-01" else None)


async def test_endpoints(gateway: Gateway, client: httpx.AsyncClient) -> None:
    url = {"url": "https://receiver.example/hook"}
    made = await client.post("/v1/endpoints", json=url)
    assert made.status_code == 201
    endpoint = made.json()
    assert endpoint["origin"] == "https://receiver.example"
    assert made.headers["location"] == f"{PUBLIC_URL}/v1/endpoints/{endpoint['id']}"
    again = await client.post("/v1/endpoints", json={"url": "https://receiver.example/other"})
    assert (again.status_code, again.json()) == (200, endpoint)
    assert (await client.get(f"/v1/endpoints/{endpoint['id']}")).json() == endpoint
    assert (await client.get("/v1/endpoints")).json() == {"items": [endpoint]}
    secret = await client.get(f"/v1/endpoints/{endpoint['id']}/secret")
    assert secret.json()["secret"].startswith("whsec_")
    assert secret.headers["cache-control"] == "no-store"
    async with await gateway.client(tenant="other") as other:
        assert_problem(await other.get(f"/v1/endpoints/{endpoint['id']}"), "not_found")
        assert_problem(await other.get(f"/v1/endpoints/{endpoint['id']}/secret"), "not_found")
        assert (await other.get("/v1/endpoints")).json() == {"items": []}


async def test_a_job_registers_its_endpoint(client: httpx.AsyncClient) -> None:
    await submit(client, callbackUrl="http://127.0.0.1:9000/hook")
    [endpoint] = (await client.get("/v1/endpoints")).json()["items"]
    assert endpoint["origin"] == "http://127.0.0.1:9000"
    same = await client.post("/v1/endpoints", json={"url": "http://127.0.0.1:9000/"})
    assert same.status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "https://169.254.169.254/"}, "invalid_callback_url"),
        ({"url": "redis"}, "invalid_callback_url"),
        ({}, "invalid_request"),
        ({"url": "https://h.example/", "x": 1}, "unknown_member"),
    ],
)
async def test_endpoints_that_are_refused(
    client: httpx.AsyncClient, body: dict[str, object], code: str
) -> None:
    assert_problem(await client.post("/v1/endpoints", json=body), code)


@pytest.mark.parametrize("endpoint_id", ["x", "ep_99" + "0" * 22, "ep_00" + "0" * 22])
async def test_unknown_endpoints(client: httpx.AsyncClient, endpoint_id: str) -> None:
    assert_problem(await client.get(f"/v1/endpoints/{endpoint_id}"), "not_found")


# Everything else


async def test_job_types(gateway: Gateway) -> None:
    async with await gateway.client(scopes=frozenset()) as client:
        items = (await client.get("/v1/job-types")).json()["items"]
    by_name = {item["type"]: item for item in items}
    echo = by_name["demo.echo"]
    assert "document.analyze" in by_name
    assert "payload" in echo["input"]["properties"]
    assert "payload" in echo["result"]["properties"]
    assert echo["limits"] == {
        "timeoutSeconds": 7200,
        "queueTimeoutSeconds": None,
        "maxAttempts": 3,
        "isolation": "thread",
        "memoryBytes": None,
    }
    assert echo["example"]


async def test_problem_pages_need_no_key(gateway: Gateway) -> None:
    async with gateway.anyone() as anyone:
        page = await anyone.get("/problems/not_found")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert_problem(await anyone.get("/problems/nothing"), "not_found")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/jobs/", "/v2/jobs", "/v1/%2e%2e", "/v1/jobs/a/b"]
)
async def test_unknown_addresses(gateway: Gateway, path: str) -> None:
    async with gateway.anyone() as anyone:
        assert_problem(await anyone.get(path), "not_found")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/v1/jobs/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/jobs/x/cancel", "OPTIONS, POST"),
        ("/v1/jobs/x/retry", "OPTIONS, POST"),
        ("/v1/files", "OPTIONS, POST"),
        ("/v1/files/x", "GET, HEAD, OPTIONS"),
        ("/v1/endpoints", "GET, HEAD, OPTIONS, POST"),
        ("/livez", "GET, HEAD, OPTIONS"),
    ],
)
async def test_methods(gateway: Gateway, path: str, allow: str) -> None:
    async with gateway.anyone() as anyone:
        options = await anyone.options(path)
        assert (options.status_code, options.headers["allow"]) == (204, allow)
        refused = await anyone.patch(path)
        assert_problem(refused, "method_not_allowed")
        assert refused.headers["allow"] == allow


async def test_head_is_get_without_the_body(
    client: httpx.AsyncClient, services: Services, report: str
) -> None:
    pending = await submit(client)
    client.headers["X-Request-Id"] = "one-of-two"
    for url in (f"/v1/jobs/{pending}", "/v1/job-types", "/v1/endpoints", "/livez", report):
        get, head = await client.get(url), await client.head(url)
        assert head.status_code == get.status_code
        assert head.content == b""
        assert head.headers == get.headers


async def test_alive_and_ready(gateway: Gateway) -> None:
    async with gateway.anyone() as anyone:
        assert (await anyone.get("/livez")).status_code == 200
        assert (await anyone.get("/readyz")).status_code == 200


async def test_a_store_that_is_gone(services: Services, tmp_path: Any, partitions: int) -> None:
    gone: Store = connect(f"unix://{tmp_path}/none", max_connections=4, socket_timeout=0.2)
    deliveries = DeliveryStore(gone, partitions)
    jobs = JobStore(gone, partitions, services.clock, deliveries.retention)
    broken = replace(services, store=gone, jobs=jobs, deliveries=deliveries)
    gateway = Gateway(broken, create_app(broken))
    token, _ = make_key("acme", SCOPES, 0)
    async with gateway.anyone({"Authorization": f"Bearer {token}"}) as client:
        assert (await client.get("/livez")).status_code == 200
        assert_problem(await client.get("/readyz"), "unhealthy")
        answer = await client.get("/v1/jobs/x")
        assert_problem(answer, "store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_full_store(client: httpx.AsyncClient, full_store: FullStore) -> None:
    async with full_store():
        answer = await client.post("/v1/jobs", json=ECHO)
    assert_problem(answer, "store_full")
    assert int(answer.headers["retry-after"]) >= 1


async def test_what_goes_wrong_inside_stays_inside(
    client: httpx.AsyncClient, store: Store, services: Services
) -> None:
    job_id = await submit(client)
    async for key in store.client.scan_iter(f"*{job_id}*"):
        await store.client.delete(key)
        await store.client.set(key, "not a hash")
    answer = await client.get(f"/v1/jobs/{job_id}")
    body = assert_problem(answer, "internal_error")
    assert "hash" not in json.dumps(body)
