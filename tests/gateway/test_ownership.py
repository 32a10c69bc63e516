"""Whose an endpoint is: asked when it is registered, or when somebody wants to know."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from delivery.models import Bury, Claimed, Deliver
from gateway.app import create_app
from gateway.auth import SCOPES
from gateway.ownership import VERIFICATION
from tests.delivery.replaying import dead_letters
from tests.delivery.test_store import claim, over, wanted
from tests.gateway.conftest import PUBLIC_URL, Gateway, MakeServices
from tests.gateway.jobs import ECHO, assert_problem, finish, submit

ORIGIN = "https://client.example"
URL = f"{ORIGIN}/hook?key=1"
JOB = {**ECHO, "callbackUrl": URL}


def gateway_with(make_services: MakeServices, **environ: str) -> Gateway:
    """Return an application with settings of its own."""
    services = make_services(**{f"GATEWAY_DELIVERY_{name}": v for name, v in environ.items()})
    return Gateway(services, create_app(services))


@pytest.fixture
def refusing(make_services: MakeServices) -> Gateway:
    """Return a gateway that calls nobody who has not answered."""
    return gateway_with(make_services, VERIFY_ENDPOINTS="refuse")


async def register(client: httpx.AsyncClient, url: str = URL) -> dict[str, Any]:
    """Register an endpoint and return its document."""
    answer = await client.post("/v1/endpoints", json={"url": url})
    assert answer.is_success, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def asked(gateway: Gateway, sequence: int = 1) -> list[Claimed]:
    """Return what a delivery process is given."""
    return await claim(gateway.services.deliveries, wanted(sequence))


async def answered(gateway: Gateway, challenge: Claimed) -> None:
    """Have a challenge answered."""
    assert await gateway.services.deliveries.record([over(challenge, Deliver())]) == []


async def test_who_is_registered_is_asked(refusing: Gateway) -> None:
    async with await refusing.client() as client:
        made = await register(client)
        assert (made["verified"], made["verifiedAt"]) == (False, None)
        [challenge] = await asked(refusing)
        ring = refusing.services.ring
        assert ring.open(challenge.url, row=challenge.id).decode() == URL
        body = json.loads(challenge.body)
        assert body == {
            "type": VERIFICATION,
            "timestamp": body["timestamp"],
            "data": {"endpointId": made["id"], "challenge": challenge.challenge},
        }
        assert len(challenge.challenge) == 32
        assert (challenge.trigger, set(challenge.secrets)) == ("test", {"v1"})
        await answered(refusing, challenge)
        shown = (await client.get(f"/v1/endpoints/{made['id']}")).json()
        assert shown["verified"] is True
        assert shown["verifiedAt"] is not None
        await register(client)
        assert await asked(refusing, 2) == []


async def test_jobs_wait_for_the_answer(refusing: Gateway) -> None:
    async with await refusing.client() as client:
        headers = {"Idempotency-Key": "k"}
        for _ in range(2):
            answer = await client.post("/v1/jobs", json=JOB, headers=headers)
            problem = assert_problem(answer, "endpoint_unverified")
            assert [each["pointer"] for each in problem["errors"]] == ["/callbackUrl"]
        assert (await client.get("/v1/jobs")).json()["items"] == []
        assert (await client.get("/v1/endpoints")).json()["items"] == []
        assert (await client.post("/v1/jobs", json=ECHO)).status_code == 202
        await register(client)
        assert_problem(await client.post("/v1/jobs", json=JOB), "endpoint_unverified")
        [challenge] = await asked(refusing)
        await answered(refusing, challenge)
        assert (await client.post("/v1/jobs", json=JOB, headers=headers)).status_code == 202
        other = {**JOB, "callbackUrl": "https://other.example/hook"}
        assert_problem(await client.post("/v1/jobs", json=other), "endpoint_unverified")
        files = {"job": (None, json.dumps(other), "application/json")}
        assert_problem(await client.post("/v1/jobs", files=files), "endpoint_unverified")
        routed = {"text": "a river", "callbackUrl": "https://other.example/hook"}
        assert_problem(await client.post("/api/documents", json=routed), "endpoint_unverified")


async def test_an_answer_for_one_tenant_is_none_for_another(refusing: Gateway) -> None:
    async with await refusing.client("acme") as acme, await refusing.client("globex") as globex:
        await register(acme)
        [challenge] = await asked(refusing)
        await answered(refusing, challenge)
        assert (await acme.post("/v1/jobs", json=JOB)).status_code == 202
        assert_problem(await globex.post("/v1/jobs", json=JOB), "endpoint_unverified")


async def test_a_job_from_before_is_not_run_again(
    refusing: Gateway, make_services: MakeServices
) -> None:
    before = gateway_with(make_services)
    async with await before.client() as client:
        job_id = await submit(client, callbackUrl=URL)
        plain = await submit(client)
        for each in (job_id, plain):
            await finish(before.services, each, status="failed", error="No.", error_code="no")
    async with await refusing.client() as client:
        assert_problem(await client.post(f"/v1/jobs/{job_id}/retry"), "endpoint_unverified")
        assert (await client.post(f"/v1/jobs/{plain}/retry")).status_code == 202


@pytest.mark.parametrize(
    ("usual", "special", "acme", "globex"),
    [
        ("off", '{acme = "refuse"}', 422, 202),
        ("refuse", '{acme = "off"}', 202, 422),
        ("refuse", '{acme = "low_rate"}', 202, 422),
        ("low_rate", "{}", 202, 202),
    ],
)
async def test_each_tenant_may_have_a_way_of_its_own(
    make_services: MakeServices, usual: str, special: str, acme: int, globex: int
) -> None:
    gateway = gateway_with(make_services, VERIFY_ENDPOINTS=usual, VERIFY_ENDPOINTS_OF=special)
    for tenant, status in (("acme", acme), ("globex", globex)):
        async with await gateway.client(tenant) as client:
            assert (await client.post("/v1/jobs", json=JOB)).status_code == status


async def test_a_low_rate_holds_callbacks_back_until_the_answer(
    make_services: MakeServices,
) -> None:
    gateway = gateway_with(
        make_services, VERIFY_ENDPOINTS="low_rate", UNVERIFIED_RATE_PER_SECOND="0.001"
    )
    async with await gateway.client() as client:
        for _ in range(3):
            job_id = await submit(client, callbackUrl=URL)
            assert (await client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
        [only] = await asked(gateway)
        assert only.challenge == ""
        [endpoint] = (await client.get("/v1/endpoints")).json()["items"]
        await gateway.services.deliveries.record([over(only, Deliver())])
        assert await asked(gateway, 2) == []
        # In time it would get one more; a rate that is not waited for stands in here.
        faster = gateway_with(make_services, VERIFY_ENDPOINTS="low_rate")
        async with await faster.client() as other:
            await submit(other, callbackUrl=URL)
            asking = await other.post(f"/v1/endpoints/{endpoint['id']}/verify", json={"url": URL})
        [challenge] = await asked(gateway, 3)
        assert challenge.id == asking.json()["id"]
        await answered(gateway, challenge)
        assert len(await asked(gateway, 4)) == 2


async def test_nobody_is_asked_where_it_is_off(gateway: Gateway, client: httpx.AsyncClient) -> None:
    made = await register(client)
    assert await asked(gateway) == []
    assert made["verified"] is False


async def test_asking_again(gateway: Gateway, client: httpx.AsyncClient) -> None:
    made = await register(client)
    path = f"/v1/endpoints/{made['id']}/verify"
    answer = await client.post(path)
    assert answer.status_code == 202
    found = answer.json()
    assert answer.headers["location"] == f"{PUBLIC_URL}/v1/deliveries/{found['id']}"
    assert (found["event"], found["url"], found["jobId"]) == (VERIFICATION, f"{ORIGIN}/", None)
    [first] = await asked(gateway)
    await gateway.services.deliveries.record([over(first, Bury(reason="exhausted"))])
    again = (await client.post(path, json={"url": URL})).json()
    assert again["url"] == URL.replace("key=1", "***")
    [second] = await asked(gateway, 2)
    assert second.challenge != first.challenge
    await answered(gateway, second)
    assert (await client.get(f"/v1/endpoints/{made['id']}")).json()["verified"] is True
    shown = await client.get(f"/v1/deliveries/{again['id']}")
    assert second.challenge not in shown.text
    dead = [each async for each in _dead(gateway)]
    assert dead == []


async def _dead(gateway: Gateway) -> Any:
    deliveries = gateway.services.deliveries
    for partition in range(deliveries.partitions):
        for each in await dead_letters(deliveries, partition):
            yield each.letter.id


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "https://other.example/"}, "invalid_callback_url"),
        ({"url": "ftp://client.example/"}, "invalid_callback_url"),
        ({"url": 1}, "invalid_request"),
        ({"event": "job.failed"}, "unknown_member"),
    ],
)
async def test_what_cannot_be_asked(
    client: httpx.AsyncClient, body: dict[str, Any], code: str
) -> None:
    made = await register(client)
    assert_problem(await client.post(f"/v1/endpoints/{made['id']}/verify", json=body), code)


async def test_who_may_ask(gateway: Gateway, client: httpx.AsyncClient) -> None:
    made = await register(client)
    async with await gateway.client(scopes=SCOPES - {"operate"}) as other:
        answer = await other.post(f"/v1/endpoints/{made['id']}/verify")
        assert_problem(answer, "insufficient_scope")
