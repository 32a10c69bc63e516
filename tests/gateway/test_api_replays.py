"""Replays over HTTP: what one may ask for, how far it is, and who may do what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from config.ids import new_id, partition_of
from config.scripts import partition_prefix
from delivery.models import Bury
from gateway.app import create_app
from gateway.auth import SCOPES
from gateway.services import Services
from tests.delivery.test_store import claim, over, wanted
from tests.gateway.burying import RECORD, bury, run_replays
from tests.gateway.conftest import PUBLIC_URL, Gateway, MakeServices
from tests.gateway.jobs import assert_problem


async def create(client: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    answer = await client.post("/v1/replays", json=asked)
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{PUBLIC_URL}/v1/replays/{made['id']}"
    return made


async def read(client: httpx.AsyncClient, replay: dict[str, Any]) -> dict[str, Any]:
    answer = await client.get(f"/v1/replays/{replay['id']}")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_a_replay_tells_what_was_asked_for_and_how_far_it_is(
    client: httpx.AsyncClient, services: Services
) -> None:
    for _ in range(3):
        await bury(client, services)
    made = await create(client, filter={"reason": "exhausted", "diedAfter": None}, rate=50)
    assert made == {
        "id": made["id"],
        "kind": "delivery",
        "action": "replay",
        "state": "running",
        "reason": None,
        "ids": None,
        "filter": {
            "reason": "exhausted",
            "endpoint": None,
            "type": None,
            "job": None,
            "diedAfter": None,
            "diedBefore": None,
        },
        "all": False,
        "toUrl": None,
        "rate": 50,
        "max": None,
        "dryRun": False,
        "stopAtFailureRate": None,
        "createdAt": made["createdAt"],
        "createdBy": made["createdBy"],
        "updatedAt": made["createdAt"],
        "diedBefore": made["createdAt"],
        "progress": {
            "total": 3,
            "examined": 0,
            "matched": 0,
            "replayed": 0,
            "purged": 0,
            "skipped": {},
            "attempted": 0,
            "delivered": 0,
            "failed": 0,
            "pending": 0,
            "dead": 0,
        },
        "byReason": {},
        "failures": [],
        "_links": {
            name: f"{PUBLIC_URL}/v1/replays/{made['id']}{path}"
            for name, path in {"self": "", "cancel": "/cancel", "resume": "/resume"}.items()
        },
    }
    await run_replays(services)
    done = await read(client, made)
    assert done["state"] == "completed"
    assert (done["progress"]["replayed"], done["progress"]["pending"]) == (3, 3)
    assert done["byReason"] == {"exhausted": 3}
    [claimed, *_] = await claim(services.deliveries, wanted(1, process="dp-last"))
    await services.deliveries.record(
        [replace(over(claimed, Bury(reason="gone")), record=json.dumps(RECORD), status=410)]
    )
    failed = await read(client, made)
    assert (failed["progress"]["failed"], failed["progress"]["dead"]) == (1, 1)
    told = {each["reason"]: each for each in failed["failures"]}
    assert told["gone"]["id"] == claimed.id
    listed = (await client.get("/v1/replays")).json()
    assert listed == {"items": [failed]}


async def test_to_another_url(client: httpx.AsyncClient, services: Services) -> None:
    _, delivery_id = await bury(client, services)
    made = await create(client, ids=[delivery_id], toUrl="http://127.0.0.7:9/other?secret=1")
    shown = "http://127.0.0.7:9/other?***"
    assert (made["toUrl"], made["ids"], made["all"]) == (shown, 1, False)
    await run_replays(services)
    found = (await client.get(f"/v1/deliveries/{delivery_id}")).json()
    assert (found["url"], found["state"]) == (shown, "pending")
    key = f"{partition_prefix(partition_of(made['id']))}rp:{made['id']}"
    kept = await services.store.client.hgetall(key)
    assert kept
    assert "secret" not in repr(kept)


@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/", "ftp://client.example/", "https://u:p@client.example/"]
)
async def test_another_url_that_may_not_be_used(client: httpx.AsyncClient, url: str) -> None:
    answer = await client.post("/v1/replays", json={"all": True, "toUrl": url})
    problem = assert_problem(answer, "invalid_callback_url")
    assert problem["errors"][0]["pointer"] == "/toUrl"
    assert (await client.get("/v1/replays")).json() == {"items": []}


MSG, JOB = new_id("msg", 0, 0), new_id("job", 0, 0)


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, ""),
        ({"all": True, "ids": [MSG]}, ""),
        ({"all": True, "filter": {"reason": "gone"}}, ""),
        ({"all": False}, "/all"),
        ({"ids": []}, "/ids"),
        ({"ids": [MSG, MSG]}, "/ids"),
        ({"ids": [MSG, JOB]}, "/ids/1"),
        ({"ids": ["msg_99" + "0" * 22]}, "/ids/0"),
        ({"kind": "job", "ids": [MSG]}, "/ids/0"),
        ({"ids": [MSG] * 10_001}, "/ids"),
        ({"filter": {}}, "/filter"),
        ({"filter": {"reason": ""}}, "/filter/reason"),
        ({"filter": {"diedAfter": "yesterday"}}, "/filter/diedAfter"),
        ({"all": True, "rate": 0}, "/rate"),
        ({"all": True, "max": 0}, "/max"),
        ({"all": True, "max": 1.5}, "/max"),
        ({"all": True, "stopAtFailureRate": 0}, "/stopAtFailureRate"),
        ({"all": True, "stopAtFailureRate": 1.1}, "/stopAtFailureRate"),
        ({"all": True, "kind": "job", "stopAtFailureRate": 0.5}, "/stopAtFailureRate"),
        ({"all": True, "action": "purge", "toUrl": "https://a.example/"}, "/toUrl"),
        ({"all": True, "action": "erase"}, "/action"),
    ],
)
async def test_wishes_that_cannot_be(
    client: httpx.AsyncClient, asked: Mapping[str, Any], pointer: str
) -> None:
    problem = assert_problem(await client.post("/v1/replays", json=asked), "invalid_request")
    assert problem["errors"][0]["pointer"] == pointer


async def test_members_that_nobody_knows(client: httpx.AsyncClient) -> None:
    for asked in ({"all": True, "more": 1}, {"filter": {"state": "dead"}}):
        assert_problem(await client.post("/v1/replays", json=asked), "unknown_member")


async def test_cancelled_and_resumed(client: httpx.AsyncClient, services: Services) -> None:
    await bury(client, services)
    made = await create(client, all=True)
    path = f"/v1/replays/{made['id']}"
    for _ in range(2):
        answer = await client.post(f"{path}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    await run_replays(services)
    assert (await read(client, made))["progress"]["replayed"] == 0
    for _ in range(2):
        answer = await client.post(f"{path}/resume")
        assert (answer.status_code, answer.json()["state"]) == (202, "running")
        assert answer.headers["location"] == f"{PUBLIC_URL}{path}"
    await run_replays(services)
    assert (await read(client, made))["state"] == "completed"
    assert_problem(await client.post(f"{path}/cancel"), "replay_not_running")
    assert_problem(await client.post(f"{path}/resume"), "replay_completed")


async def test_other_tenants(
    gateway: Gateway, client: httpx.AsyncClient, services: Services
) -> None:
    _, delivery_id = await bury(client, services)
    made = await create(client, all=True, dryRun=True)
    async with await gateway.client("globex") as other:
        for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/resume")):
            answer = await other.request(method, f"/v1/replays/{made['id']}{path}")
            assert_problem(answer, "not_found")
        assert (await other.get("/v1/replays")).json() == {"items": []}
        assert (await other.get("/v1/dead-letters")).json()["items"] == []
        theirs = await create(other, all=True)
        named = await create(other, ids=[delivery_id])
        await run_replays(services)
        assert (await read(other, theirs))["progress"]["examined"] == 0
        assert (await read(other, named))["progress"]["skipped"] == {"unknown": 1}
    found = (await client.get(f"/v1/deliveries/{delivery_id}")).json()
    assert found["state"] == "dead"


@pytest.mark.parametrize(
    "replay_id", ["x", "rpl_99" + "0" * 22, "job_00" + "0" * 22, new_id("rpl", 0, 0)]
)
async def test_unknown_ones(client: httpx.AsyncClient, replay_id: str) -> None:
    assert_problem(await client.get(f"/v1/replays/{replay_id}"), "not_found")
    for step in ("cancel", "resume"):
        assert_problem(await client.post(f"/v1/replays/{replay_id}/{step}"), "not_found")
    assert_problem(await client.get("/v1/replays?limit=0"), "invalid_parameter")
    assert_problem(await client.get("/v1/replays?kind=job"), "invalid_parameter")


async def test_who_may_do_what(gateway: Gateway, client: httpx.AsyncClient) -> None:
    made = await create(client, all=True, dryRun=True)
    path = f"/v1/replays/{made['id']}"
    asked = [
        ("GET", "/v1/dead-letters", "read"),
        ("GET", "/v1/dead-letters/stats", "read"),
        ("GET", "/v1/dead-letters?tenant=globex", "admin"),
        ("GET", "/v1/dead-letters/stats?tenant=globex", "admin"),
        ("POST", "/v1/replays", "operate"),
        ("GET", "/v1/replays", "read"),
        ("GET", path, "read"),
        ("POST", f"{path}/cancel", "operate"),
        ("POST", f"{path}/resume", "operate"),
    ]
    for method, address, scope in asked:
        async with gateway.anyone() as anyone:
            assert_problem(await anyone.request(method, address), "unauthorized")
        async with await gateway.client(scopes=SCOPES - {scope}) as other:
            assert_problem(await other.request(method, address), "insufficient_scope")


@pytest.mark.parametrize(
    ("action", "recorded"), [("replay", "replay.create"), ("purge", "dead_letters.purge")]
)
async def test_what_is_done_is_in_the_audit_log(
    client: httpx.AsyncClient, action: str, recorded: str
) -> None:
    made = await create(client, all=True, action=action, dryRun=True)
    for step in ("cancel", "resume"):
        await client.post(f"/v1/replays/{made['id']}/{step}")
    records = (await client.get("/v1/admin/audit")).json()["items"]
    assert [each["action"] for each in records] == ["replay.resume", "replay.cancel", recorded]
    for each in records:
        assert (each["target"], each["keyId"]) == (made["id"], made["createdBy"])
    assert records[-1]["details"] == {
        "kind": "delivery",
        "scope": "all",
        "letters": 0,
        "dryRun": True,
        "elsewhere": None,
    }


async def test_another_url_is_bound_as_any_endpoint_is(
    client: httpx.AsyncClient, services: Services, make_services: MakeServices
) -> None:
    _, delivery_id = await bury(client, services)
    refusing = make_services(GATEWAY_DELIVERY_VERIFY_ENDPOINTS="refuse")
    few = make_services(GATEWAY_DELIVERY_MAX_ENDPOINTS_PER_TENANT="1")
    for strict, code in ((refusing, "endpoint_unverified"), (few, "too_many_endpoints")):
        gateway = Gateway(strict, create_app(strict))
        async with gateway.anyone(dict(client.headers)) as asking:
            url = f"http://{services.settings.profile}.example:9{len(code)}/hook"
            for _ in range(services.settings.store.partitions + 1):
                answer = await asking.post("/v1/replays", json={"ids": [delivery_id], "toUrl": url})
                assert_problem(answer, code)
                if code == "endpoint_unverified":
                    break
    assert (await client.get("/v1/replays")).json() == {"items": []}


async def test_a_mirrors_identifier_stands_for_the_endpoint_that_it_is_like(
    gateway: Gateway, client: httpx.AsyncClient, services: Services
) -> None:
    ids = [(await bury(client, services, f"http://127.0.0.{at}:9/x"))[1] for at in range(1, 5)]
    await create(client, ids=ids, toUrl="http://127.0.0.9:9/elsewhere")
    await run_replays(services)
    claimed = await claim(services.deliveries, wanted(1, process="dp-sent-on"))
    [own] = [
        each["id"]
        for each in (await client.get("/v1/endpoints")).json()["items"]
        if each["origin"] == "http://127.0.0.9:9"
    ]
    addresses = {f"/v1/endpoints/{each.endpoint}" for each in claimed}
    for address in addresses:
        secret = (await client.post(f"{address}/rotate", json={"overlapSeconds": 0})).json()
        assert secret == (await client.get(f"/v1/endpoints/{own}/secret")).json()
        assert secret == (await client.get(f"{address}/secret")).json()
        changed = await client.patch(address, json={"ratePerSecond": 7})
        assert (changed.json()["id"], changed.json()["ratePerSecond"]) == (own, 7)
        for action in ("test", "verify"):
            sent = await client.post(f"{address}/{action}", json={})
            assert (sent.status_code, sent.json()["endpointId"]) == (202, own)
    async with await gateway.client(tenant="other") as other:
        for address in addresses:
            for method, path in (
                ("GET", ""),
                ("PATCH", ""),
                ("DELETE", ""),
                ("POST", "/pause"),
                ("GET", "/secret"),
                ("POST", "/rotate"),
                ("POST", "/test"),
                ("POST", "/verify"),
            ):
                refused = await other.request(method, f"{address}{path}", json={})
                assert_problem(refused, "not_found")
    await services.deliveries.record([over(each, Bury(reason="exhausted")) for each in claimed])
    shown = [(await client.get(f"/v1/deliveries/{each}")).json() for each in ids]
    assert {each["endpointId"] for each in shown} == {own}
    found = (await client.get("/v1/dead-letters", params={"endpoint": own})).json()["items"]
    assert sorted(each["id"] for each in found) == sorted(ids)
    for each in await claim(services.deliveries, wanted(2, process="dp-samples")):
        await services.deliveries.record([over(each, Bury(reason="exhausted"))])
    assert (await client.delete(min(addresses))).status_code == 204
    for address in (*addresses, f"/v1/endpoints/{own}"):
        assert_problem(await client.get(address), "not_found")


async def test_mirrors_follow_what_operators_say(
    client: httpx.AsyncClient, services: Services
) -> None:
    ids = [(await bury(client, services, f"http://127.0.0.{at}:9/x"))[1] for at in range(1, 5)]
    await create(client, ids=ids, toUrl="http://127.0.0.9:9/elsewhere")
    await run_replays(services)
    [own] = [
        each["id"]
        for each in (await client.get("/v1/endpoints")).json()["items"]
        if each["origin"] == "http://127.0.0.9:9"
    ]
    assert (await client.post(f"/v1/endpoints/{own}/pause")).status_code == 200
    assert await claim(services.deliveries, wanted(1, process="dp-paused")) == []
    assert (await client.post(f"/v1/endpoints/{own}/resume")).status_code == 200
    claimed = await claim(services.deliveries, wanted(1, process="dp-resumed"))
    assert sorted(each.id for each in claimed) == sorted(ids)
    for mirror in {each.endpoint for each in claimed}:
        shown = await client.get(f"/v1/endpoints/{mirror}")
        assert (shown.status_code, shown.json()["id"]) == (200, own)
    answer = await client.delete(f"/v1/endpoints/{own}")
    assert_problem(answer, "endpoint_in_use")
    await services.deliveries.record([over(each, Bury(reason="exhausted")) for each in claimed])
    assert (await client.delete(f"/v1/endpoints/{own}")).status_code == 204
    left = [await services.deliveries.read_endpoint(each.endpoint) for each in claimed]
    assert left == [None] * len(ids)
