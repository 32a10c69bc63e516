"""What the API says of itself, at any address, and when its store is in trouble."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from config.store import Store, connect
from delivery.store import DeliveryStore
from gateway.app import create_app
from gateway.auth import SCOPES, make_key
from gateway.services import Services
from gateway.store import JobStore
from tests.gateway.conftest import Gateway
from tests.gateway.jobs import assert_problem, finish_report, submit


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


async def test_head_is_get_without_the_body(client: httpx.AsyncClient, services: Services) -> None:
    pending, report = await submit(client), await finish_report(client, services)
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
