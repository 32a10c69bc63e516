"""Samples over HTTP: one attempt at a receiver, which is none of the dead letters if it fails."""

from __future__ import annotations

import json
from typing import Any, get_args

import httpx
import pytest

from config.clock import SECOND, parse_rfc3339
from config.ids import partition_of
from delivery.models import Bury, Claimed, Deliver
from delivery.sealing import KeyRing
from gateway.auth import SCOPES
from gateway.models import Payload
from gateway.schemas.jobs import Event
from gateway.services import Services
from tests.delivery.replaying import dead_letters
from tests.delivery.test_store import claim, over, wanted
from tests.gateway.conftest import PUBLIC_URL, Gateway
from tests.gateway.jobs import assert_problem, submit

URL = "http://127.0.0.1:9/hook?key=1"
SHOWN = "http://127.0.0.1:9/hook?***"


@pytest.fixture
async def endpoint(client: httpx.AsyncClient) -> str:
    """Return the address of an endpoint."""
    made = await client.post("/v1/endpoints", json={"url": URL})
    return f"/v1/endpoints/{made.json()['id']}"


async def test_a_sample(client: httpx.AsyncClient, services: Services, endpoint: str) -> None:
    answer = await client.post(f"{endpoint}/test", json={"url": URL, "event": "job.failed"})
    assert answer.status_code == 202
    found = answer.json()
    assert answer.headers["location"] == f"{PUBLIC_URL}/v1/deliveries/{found['id']}"
    assert (found["event"], found["jobId"], found["url"]) == ("job.failed", None, SHOWN)
    assert (found["state"], found["attempts"]) == ("pending", [])
    assert (await client.get(f"/v1/deliveries/{found['id']}")).json() == found
    [claimed] = await claim(services.deliveries, wanted(1))
    assert (claimed.id, claimed.trigger, claimed.scheme) == (found["id"], "test", "v1")
    body = json.loads(claimed.body)
    assert (body["type"], body["data"]["metadata"]) == ("job.failed", {"sample": True})


@pytest.mark.parametrize("event", get_args(Event))
@pytest.mark.parametrize("payload", [None, *get_args(Payload)])
@pytest.mark.parametrize("scheme", ["v1", "v1a", "x-signature"])
async def test_a_sample_is_what_a_callback_would_be(
    client: httpx.AsyncClient,
    services: Services,
    endpoint: str,
    event: Event,
    payload: Payload | None,
    scheme: str,
) -> None:
    more = {"signature": scheme, "payload": payload}
    await client.post(f"{endpoint}/test", json={"event": event, **more})
    [claimed] = await claim(services.deliveries, wanted(1))
    assert claimed.scheme == scheme
    assert set(claimed.secrets) == {"v1", scheme}
    body = json.loads(claimed.body)
    is_flat = (payload or ("flat" if scheme == "x-signature" else "standard")) == "flat"
    assert body["type"] == event
    assert ("data" in body, body.get("jobType")) == (
        (False, "document.analyze") if is_flat else (True, None)
    )


async def test_without_a_url_it_goes_to_the_root(
    client: httpx.AsyncClient, services: Services, endpoint: str
) -> None:
    found = (await client.post(f"{endpoint}/test")).json()
    assert found["url"] == "http://127.0.0.1:9/"
    [claimed] = await claim(services.deliveries, wanted(1))
    ring: KeyRing = services.ring
    assert ring.open(claimed.url, row=claimed.id) == b"http://127.0.0.1:9/"
    assert json.loads(claimed.body)["type"] == "job.completed"


async def attempted(services: Services, verdict: Deliver | Bury, sequence: int = 1) -> Claimed:
    [claimed] = await claim(services.deliveries, wanted(sequence))
    assert await services.deliveries.record([over(claimed, verdict)]) == []
    return claimed


@pytest.mark.parametrize(
    ("verdict", "state"),
    [(Deliver(), "delivered"), (Bury(reason="exhausted"), "dead"), (Bury(reason="gone"), "dead")],
)
async def test_it_is_one_attempt_and_no_dead_letter(
    client: httpx.AsyncClient, services: Services, endpoint: str, verdict: Any, state: str
) -> None:
    found = (await client.post(f"{endpoint}/test")).json()
    await attempted(services, verdict)
    assert (await client.get(f"/v1/deliveries/{found['id']}")).json()["state"] == state
    partition = partition_of(found["id"])
    assert await dead_letters(services.deliveries, partition) == []
    # It goes when delivered ones go, whatever came of it.
    prefix = f"gw:{{p{partition:02d}}}:"
    key = f"{prefix}d:{found['id']}"
    shelved = await services.store.client.hget(key, "shelved")
    assert "delivered:" in str(shelved)
    assert await claim(services.deliveries, wanted(2)) == []


async def test_a_url_that_is_disabled_can_be_tried(
    client: httpx.AsyncClient, services: Services, endpoint: str
) -> None:
    await client.post(f"{endpoint}/test", json={"url": URL})
    await attempted(services, Bury(reason="gone"))
    job = await submit(client, callbackUrl=URL)
    assert (await client.get(f"/v1/jobs/{job}")).json()["callback"]["status"] == "disabled"
    again = (await client.post(f"{endpoint}/test", json={"url": URL})).json()
    assert again["state"] == "pending"
    assert (await attempted(services, Deliver(), sequence=2)).id == again["id"]


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"url": "http://127.0.0.1:10/hook"}, "invalid_callback_url", "/url"),
        ({"url": "https://127.0.0.1:9/hook"}, "invalid_callback_url", "/url"),
        ({"url": "http://user@127.0.0.1:9/"}, "invalid_callback_url", "/url"),
        ({"url": "/hook"}, "invalid_callback_url", "/url"),
        ({"url": ""}, "invalid_callback_url", "/url"),
        ({"event": "job.exploded"}, "invalid_request", "/event"),
        ({"signature": "v2"}, "invalid_request", "/signature"),
        ({"payload": "xml"}, "invalid_request", "/payload"),
        ({"more": 1}, "unknown_member", "/more"),
    ],
)
async def test_what_is_refused(
    client: httpx.AsyncClient,
    services: Services,
    endpoint: str,
    body: Any,
    code: str,
    pointer: str,
) -> None:
    problem = assert_problem(await client.post(f"{endpoint}/test", json=body), code)
    assert [each["pointer"] for each in problem["errors"]] == [pointer]
    assert await claim(services.deliveries, wanted(1)) == []


async def test_who_may(gateway: Gateway, services: Services, endpoint: str) -> None:
    path = f"{endpoint}/test"
    async with gateway.anyone() as anyone:
        assert_problem(await anyone.post(path), "unauthorized")
    async with await gateway.client(scopes=SCOPES - {"operate"}) as other:
        assert_problem(await other.post(path), "insufficient_scope")
    async with await gateway.client("globex") as other:
        assert_problem(await other.post(path), "not_found")
        assert_problem(await other.post("/v1/endpoints/x/test"), "not_found")
    assert await claim(services.deliveries, wanted(1)) == []
    async with await gateway.client(scopes=frozenset({"operate"})) as operator:
        assert (await operator.post(path)).status_code == 202


async def test_a_sample_happened_a_moment_ago(
    client: httpx.AsyncClient, services: Services, endpoint: str
) -> None:
    await client.post(f"{endpoint}/test")
    [claimed] = await claim(services.deliveries, wanted(1))
    data = json.loads(claimed.body)["data"]
    assert abs(parse_rfc3339(data["completedAt"]) - services.clock.now()) < 60 * SECOND
