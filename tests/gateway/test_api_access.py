"""Who may ask the API for what: keys, scopes, tenants and tickets."""

from __future__ import annotations

import httpx
import pytest

from config.clock import SECOND
from gateway import tickets
from gateway.app import create_app
from gateway.auth import SCOPES
from gateway.models import View
from gateway.services import Services
from tests.gateway.conftest import Gateway, MakeServices
from tests.gateway.jobs import assert_problem, submit


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
