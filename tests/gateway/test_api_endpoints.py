"""What operators do to callback endpoints over HTTP."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import httpx
import pytest

from config.ids import choose_partition
from delivery.models import Bury, Deliver
from gateway.app import create_app
from gateway.auth import Scope
from gateway.services import Services
from tests.delivery.test_store import claim, over, wanted
from tests.gateway.conftest import PUBLIC_URL, Gateway, MakeServices
from tests.gateway.jobs import ECHO, assert_problem, submit

CALLBACK = "https://receiver.example/hook"
CHANGES = ("PATCH", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")


async def register(client: httpx.AsyncClient, url: str = CALLBACK) -> str:
    """Register the endpoint of `url`; return its address."""
    made = await client.post("/v1/endpoints", json={"url": url})
    assert made.status_code in {200, 201}, made.text
    return f"/v1/endpoints/{made.json()['id']}"


async def owe(client: httpx.AsyncClient, url: str = CALLBACK) -> str:
    """Return a job that was cancelled and owes a callback."""
    job_id = await submit(client, callbackUrl=url)
    assert (await client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
    return job_id


async def test_an_endpoint_as_it_is_registered(client: httpx.AsyncClient) -> None:
    address = await register(client)
    found = (await client.get(address)).json()
    assert found == {
        "id": found["id"],
        "origin": "https://receiver.example",
        "createdAt": found["createdAt"],
        "paused": False,
        "pausedSince": None,
        "limit": 8,
        "maxConcurrency": None,
        "ratePerSecond": None,
        "inflight": 0,
        "waiting": 0,
        "breaker": "closed",
        "consecutiveFailures": 0,
        "openUntil": None,
        "lastFailure": None,
        "succeededAt": None,
        "verified": False,
        "verifiedAt": None,
        "disabledUrls": [],
        "_links": {"self": f"https://gateway.example{address}"},
    }


async def test_pausing_and_resuming(client: httpx.AsyncClient, services: Services) -> None:
    address = await register(client)
    paused = await client.post(f"{address}/pause")
    assert paused.status_code == 200
    assert paused.headers["cache-control"] == "no-store"
    assert paused.json()["paused"]
    assert paused.json()["pausedSince"] is not None
    assert (await client.post(f"{address}/pause")).json() == paused.json()
    assert (await client.get(address)).json() == paused.json()
    await owe(client)
    assert (await client.get(address)).json()["waiting"] == 1
    assert await claim(services.deliveries, wanted(1)) == []
    resumed = await client.post(f"{address}/resume")
    assert resumed.status_code == 200
    assert (resumed.json()["paused"], resumed.json()["pausedSince"]) == (False, None)
    assert (await client.post(f"{address}/resume")).json() == resumed.json()
    assert len(await claim(services.deliveries, wanted(2))) == 1


async def test_health_is_shown(client: httpx.AsyncClient, services: Services) -> None:
    await owe(client)
    address = await register(client)
    [claimed] = await claim(services.deliveries, wanted(1))
    attempted = over(claimed, Bury(reason="gone"), breaker="bad")
    await services.deliveries.record([replace(attempted, outcome="gone")])
    found = (await client.get(address)).json()
    assert (found["breaker"], found["consecutiveFailures"]) == ("closed", 1)
    last = found["lastFailure"]
    assert (last["outcome"], last["statusCode"]) == ("gone", 200)
    [disabled] = found["disabledUrls"]
    assert disabled == {"url": CALLBACK, "since": last["at"], "reason": "gone"}


async def test_changes_say_what_is_to_be_and_leave_the_rest(client: httpx.AsyncClient) -> None:
    address = await register(client)

    async def change(**members: Any) -> dict[str, Any]:
        answer = await client.patch(address, json=members)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert (await client.get(address)).json() == found
        return found

    found = await change(ratePerSecond=2.5, maxConcurrency=4)
    assert (found["ratePerSecond"], found["maxConcurrency"], found["limit"]) == (2.5, 4, 4)
    found = await change(ratePerSecond=None)
    assert (found["ratePerSecond"], found["maxConcurrency"]) == (None, 4)
    found = await change(disabledUrls=[CALLBACK, "https://RECEIVER.example:443/hook"])
    assert [(each["url"], each["reason"]) for each in found["disabledUrls"]] == [
        (CALLBACK, "operator")
    ]
    assert await change() == found
    found = await change(maxConcurrency=None, disabledUrls=[])
    assert (found["maxConcurrency"], found["disabledUrls"]) == (None, [])


async def test_a_url_that_was_disabled_by_a_410_is_enabled_again(
    client: httpx.AsyncClient, services: Services
) -> None:
    await owe(client)
    [claimed] = await claim(services.deliveries, wanted(1))
    await services.deliveries.record([over(claimed, Bury(reason="gone"))])
    refused = await submit(client, callbackUrl=CALLBACK)
    shown = (await client.get(f"/v1/jobs/{refused}")).json()
    assert shown["callback"]["status"] == "disabled"
    address = await register(client)
    await client.patch(address, json={"disabledUrls": []})
    taken = await submit(client, callbackUrl=CALLBACK)
    shown = (await client.get(f"/v1/jobs/{taken}")).json()
    assert shown["callback"]["status"] == "pending"


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"rate": 1}, "unknown_member", "/rate"),
        ({"limit": 1}, "unknown_member", "/limit"),
        ({"ratePerSecond": 0}, "invalid_request", "/ratePerSecond"),
        ({"ratePerSecond": -1}, "invalid_request", "/ratePerSecond"),
        ({"ratePerSecond": 1e300}, "invalid_request", "/ratePerSecond"),
        ({"ratePerSecond": "1"}, "invalid_request", "/ratePerSecond"),
        ({"maxConcurrency": 0}, "invalid_request", "/maxConcurrency"),
        ({"maxConcurrency": 1.5}, "invalid_request", "/maxConcurrency"),
        ({"disabledUrls": None}, "invalid_request", "/disabledUrls"),
        ({"disabledUrls": [1]}, "invalid_request", "/disabledUrls/0"),
        ({"disabledUrls": [CALLBACK] * 101}, "invalid_request", "/disabledUrls"),
        ({"disabledUrls": [CALLBACK, "ftp://h/"]}, "invalid_callback_url", "/disabledUrls/1"),
        ({"disabledUrls": ["https://o.example/"]}, "invalid_callback_url", "/disabledUrls/0"),
        ([], "invalid_request", ""),
    ],
)
async def test_changes_that_are_refused(
    client: httpx.AsyncClient, body: object, code: str, pointer: str
) -> None:
    address = await register(client)
    before = (await client.get(address)).json()
    answer = await client.patch(address, json=body)
    assert_problem(answer, code)
    assert pointer in {each["pointer"] for each in answer.json()["errors"]}
    assert (await client.get(address)).json() == before


async def test_deleting(client: httpx.AsyncClient, services: Services) -> None:
    await owe(client)
    address = await register(client)
    secret = (await client.get(f"{address}/secret")).json()
    assert_problem(await client.delete(address), "endpoint_in_use")
    [claimed] = await claim(services.deliveries, wanted(1))
    assert_problem(await client.delete(address), "endpoint_in_use")
    await services.deliveries.record([over(claimed, Deliver())])
    deleted = await client.delete(address)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for method, path in (*CHANGES, ("GET", "")):
        answer = await client.request(method, f"{address}{path}", json={})
        assert_problem(answer, "not_found")
    # The next job makes it anew, and with it a secret.
    await submit(client, callbackUrl=CALLBACK)
    assert (await client.get(f"{address}/secret")).json() != secret


async def test_what_is_owed_to_a_deleted_endpoint_is_a_dead_letter(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(client, callbackUrl=CALLBACK)
    address = await register(client)
    assert (await client.delete(address)).status_code == 204
    assert (await client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
    [delivery] = (await client.get(f"/v1/jobs/{job_id}/deliveries")).json()["items"]
    assert (delivery["state"], delivery["reason"]) == ("dead", "disabled")
    assert (await client.get("/v1/endpoints")).json() == {"items": []}
    assert await claim(services.deliveries, wanted(1)) == []


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_who_may(gateway: Gateway, method: str, path: str) -> None:
    async with await gateway.client() as owner:
        address = await register(owner)
    others: tuple[Scope, ...] = ("read", "submit", "admin")
    async with await gateway.client(scopes=frozenset(others)) as client:
        refused = await client.request(method, f"{address}{path}", json={})
        assert_problem(refused, "insufficient_scope")
    async with await gateway.client(tenant="other") as client:
        assert_problem(await client.request(method, f"{address}{path}", json={}), "not_found")
    async with await gateway.client(scopes=frozenset({"operate"})) as client:
        assert (await client.request(method, f"{address}{path}", json={})).is_success


@pytest.mark.parametrize(
    ("method", "path", "body", "action", "details"),
    [
        ("POST", "/pause", {}, "endpoint.pause", {}),
        ("POST", "/resume", {}, "endpoint.resume", {}),
        (
            "PATCH",
            "",
            {"ratePerSecond": None, "disabledUrls": ["https://receiver.example/?key=1"]},
            "endpoint.update",
            {"ratePerSecond": None, "disabledUrls": 1},
        ),
        ("DELETE", "", {}, "endpoint.delete", {"origin": "https://receiver.example"}),
    ],
)
async def test_who_did_it_is_recorded(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    body: dict[str, Any],
    action: str,
    details: dict[str, Any],
) -> None:
    address = await register(client)
    assert (await client.request(method, f"{address}{path}", json=body)).is_success
    [record] = (await client.get("/v1/admin/audit")).json()["items"]
    assert (record["action"], record["target"]) == (action, address.rsplit("/", 1)[-1])
    assert record["details"] == details


# How many


@pytest.fixture
def one_endpoint(make_services: MakeServices) -> Services:
    """Return services that keep track of one endpoint of a tenant in a partition."""
    return make_services(GATEWAY_DELIVERY_MAX_ENDPOINTS_PER_TENANT="1")


def beside(host: str, services: Services) -> str:
    """Return another host whose endpoints are in the same partition."""
    partitions = services.settings.store.partitions
    others = (f"h{number}.example" for number in count())
    home = choose_partition(host, partitions)
    return next(each for each in others if choose_partition(each, partitions) == home)


async def test_a_job_with_one_endpoint_too_many_is_refused(
    one_endpoint: Services,
) -> None:
    gateway = Gateway(one_endpoint, create_app(one_endpoint))
    async with await gateway.client() as client:
        await register(client)
        url = f"https://{beside('receiver.example', one_endpoint)}/hook"
        keyed = {"Idempotency-Key": "order-1"}
        job = {**ECHO, "callbackUrl": url}
        for _ in range(2):
            refused = await client.post("/v1/jobs", json=job, headers=keyed)
            assert_problem(refused, "too_many_endpoints")
        assert_problem(await client.post("/v1/endpoints", json={"url": url}), "too_many_endpoints")
        assert (await client.get("/v1/jobs")).json()["items"] == []
        # The key was not used up, and what is known already goes on.
        known = {**ECHO, "callbackUrl": CALLBACK}
        taken = await client.post("/v1/jobs", json=known, headers=keyed)
        assert taken.status_code == 202
        async with await gateway.client(tenant="other") as other:
            assert (await other.post("/v1/jobs", json=job)).status_code == 202


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
