"""The audit log: written before what it tells of, in the store and in the log, bounded, read back
newest first by whom it concerns."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from config.clock import SECOND
from config.errors import StoreUnavailable
from config.log import JsonFormatter, Subjects
from config.scripts import META_PREFIX, Call, load_script
from config.store import Store
from gateway.app import create_app
from gateway.audit import BESIDE_THE_STORE
from gateway.auth import DEFAULT_TENANT, SCOPES
from gateway.services import Services
from tests.gateway.conftest import FullStore, Gateway, MakeServices
from tests.gateway.jobs import assert_problem
from tests.gateway.test_api_deliveries import owe

AUDIT = "/v1/admin/audit"
HOOK = {"url": "https://client.example/hook"}


async def records(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Return the first page of what the client's tenant did."""
    answer = await client.get(AUDIT)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_who_did_what_to_what_when_from_where(
    gateway: Gateway, client: httpx.AsyncClient, services: Services
) -> None:
    endpoint = (await client.post("/v1/endpoints", json=HOOK)).json()["id"]
    began = services.clock.now()
    answer = await client.get(
        f"/v1/endpoints/{endpoint}/secret", headers={"X-Request-Id": "a-request"}
    )
    [record] = await records(client)
    keys = (await client.get("/v1/admin/keys")).json()["items"]
    assert record == {
        "id": record["id"],
        "at": record["at"],
        "action": "endpoint.secret_read",
        "target": endpoint,
        "tenant": "acme",
        "keyId": keys[0]["id"],
        "keyTenant": "acme",
        "client": "127.0.0.1",
        "requestId": "a-request",
        "details": {},
    }
    [kept], _ = await services.audit.read("acme", after=None, limit=9)
    assert began <= kept.at <= services.clock.now()
    assert answer.json()["secret"] not in json.dumps(record)


async def test_it_is_in_the_log_too(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    _, delivery = await owe(client)
    caplog.handler.addFilter(Subjects())
    with caplog.at_level(logging.INFO, logger="audit"):
        await client.post(f"/v1/deliveries/{delivery}/redeliver", headers={"X-Request-Id": "again"})
    [line] = [each for each in caplog.records if each.name == "audit"]
    written = json.loads(JsonFormatter("api").format(line))
    [record] = await records(client)
    assert written["event"] == "audit.delivery.redeliver"
    assert written["request"] == written["requestId"] == "again"
    assert written["audit"] == record["id"]
    for name in ("action", "target", "tenant", "keyId", "keyTenant", "client", "details"):
        assert written[name] == record[name]
    assert record["details"] == {"state": "pending"}


async def test_what_is_done_to_another_tenant_is_in_both_logs(gateway: Gateway) -> None:
    async with (
        await gateway.client("operators") as operator,
        await gateway.client("acme") as acme,
        await gateway.client("globex") as globex,
    ):
        await operator.post("/v1/admin/keys", json={"tenant": "acme", "scopes": ["read"]})
        [record] = await records(operator)
        assert (record["tenant"], record["keyTenant"]) == ("acme", "operators")
        assert await records(acme) == [record]
        assert await records(globex) == []


async def test_only_admins_read_it(gateway: Gateway) -> None:
    async with await gateway.client(scopes=SCOPES - {"admin"}) as other:
        assert_problem(await other.get(AUDIT), "insufficient_scope")


@asynccontextmanager
async def without_writes(store: Store) -> AsyncIterator[None]:
    """Let the store answer what is read and refuse what is written, as a replica does."""
    await store.client.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        await store.client.config_set("min-replicas-to-write", 0)


async def test_nothing_is_shown_or_done_without_a_record(
    client: httpx.AsyncClient, store: Store
) -> None:
    endpoint = (await client.post("/v1/endpoints", json=HOOK)).json()["id"]
    made = (await client.post("/v1/admin/keys", json={"scopes": ["read"]})).json()["id"]
    before = await records(client)
    async with without_writes(store):
        for method, path in (
            ("GET", f"/v1/endpoints/{endpoint}/secret"),
            ("DELETE", f"/v1/admin/keys/{made}"),
        ):
            answer = await client.request(method, path)
            assert answer.status_code == 503, answer.text
            assert "whsec_" not in answer.text
    assert await records(client) == before
    assert (await client.get(f"/v1/admin/keys/{made}")).status_code == 200


async def test_a_full_store_still_takes_records(
    client: httpx.AsyncClient, full_store: FullStore
) -> None:
    endpoint = (await client.post("/v1/endpoints", json=HOOK)).json()["id"]
    async with full_store():
        assert (await client.get(f"/v1/endpoints/{endpoint}/secret")).status_code == 200
    assert [each["action"] for each in await records(client)] == ["endpoint.secret_read"]


async def test_pages_newest_first(client: httpx.AsyncClient, services: Services) -> None:
    for number in range(7):
        await services.audit.record_local("sealing.rewrap", f"target-{number}")
    seen: list[str] = []
    after = None
    for _ in range(9):
        found, after = await services.audit.read(DEFAULT_TENANT, after=after, limit=2)
        seen += [each.target for each in found]
        if after is None:
            break
    assert seen == [f"target-{number}" for number in reversed(range(7))]
    [newest], _ = await services.audit.read(DEFAULT_TENANT, after=None, limit=1)
    assert (newest.key_id, newest.client, newest.request_id) == (BESIDE_THE_STORE, None, None)


async def test_pages_over_http(gateway: Gateway, services: Services) -> None:
    async with await gateway.client("acme") as client:
        for _ in range(5):
            await client.post("/v1/admin/tenants", json={"id": "acme"})
        whole = await records(client)
        url, seen = f"{AUDIT}?limit=2", []
        for _ in range(9):
            answer = await client.get(url)
            seen += answer.json()["items"]
            if answer.json()["nextCursor"] is None:
                break
            url = answer.headers["link"][1:].partition(">")[0]
        assert seen == whole
        assert len(seen) == 5
        for query in ("limit=0", "cursor=x", "action=key.create", "limit=1&limit=2"):
            assert_problem(await client.get(f"{AUDIT}?{query}"), "invalid_parameter")


async def at_once(store: Store, at: int) -> None:
    """Have every record of the default tenant written at one instant."""
    name = f"{META_PREFIX}audit:{DEFAULT_TENANT}"
    for member in await store.client.zrange(name, 0, -1):
        assert isinstance(member, bytes)
        await store.client.zadd(name, {member: at})


async def test_records_of_one_instant_are_neither_doubled_nor_skipped(
    services: Services, store: Store
) -> None:
    audit = services.audit
    for number in range(6):
        await audit.record_local("sealing.rewrap", f"target-{number}")
    await at_once(store, services.clock.now())
    seen: list[str] = []
    after = None
    for _ in range(9):
        found, after = await audit.read(DEFAULT_TENANT, after=after, limit=2)
        seen += [each.target for each in found]
        if after is None:
            break
    assert sorted(seen) == [f"target-{number}" for number in range(6)]


async def test_a_record_whose_reply_was_lost_is_written_once(
    services: Services, store: Store
) -> None:
    script = load_script("gateway", "put_audit")
    for _ in range(2):
        await store.run(Call(script, META_PREFIX, ("aud_1", "{}", 100, 10 * SECOND, "acme")))
    assert await store.client.zcard(f"{META_PREFIX}audit:acme") == 1


async def test_the_oldest_make_room(make_services: MakeServices, store: Store) -> None:
    services = make_services(GATEWAY_API_AUDIT_MAX_RECORDS="100")
    for number in range(103):
        await services.audit.record_local("sealing.rewrap", str(number))
    found, _ = await services.audit.read(DEFAULT_TENANT, after=None, limit=200)
    assert [each.target for each in found] == [str(number) for number in range(102, 2, -1)]


async def test_what_is_too_old_is_gone(services: Services, store: Store) -> None:
    name = f"{META_PREFIX}audit:{DEFAULT_TENANT}"
    await services.audit.record_local("sealing.rewrap", "old")
    await at_once(store, services.clock.now() - 400 * 86_400 * SECOND)
    assert await services.audit.read(DEFAULT_TENANT, after=None, limit=9) == ([], None)
    await services.audit.record_local("sealing.rewrap", "new")
    assert await store.client.zcard(name) == 1
    assert await store.client.pttl(name) > 364 * 86_400 * 1000


async def test_what_is_said_is_bounded(services: Services) -> None:
    await services.audit.record_local(
        "sealing.rewrap", "t" * 5_000, text="x" * 5_000, list=["y" * 5_000] * 50, n=7, none=None
    )
    [record], _ = await services.audit.read(DEFAULT_TENANT, after=None, limit=1)
    assert record.target == "t" * 199 + "…"
    assert record.details == {
        "text": "x" * 199 + "…",
        "list": ["y" * 199 + "…"] * 20,
        "n": 7,
        "none": None,
    }


async def test_who_asked_is_whom_trusted_proxies_name(make_services: MakeServices) -> None:
    services = make_services(GATEWAY_API_TRUSTED_PROXIES='["127.0.0.0/8"]')
    gateway = Gateway(services, create_app(services))
    async with await gateway.client() as client:
        await client.post(
            "/v1/admin/tenants",
            json={"id": "globex"},
            headers={"X-Forwarded-For": "198.51.100.7"},
        )
        [record] = await records(client)
    assert record["client"] == "198.51.100.7"


async def test_a_store_that_is_gone_is_said(services: Services, store: Store) -> None:
    async with without_writes(store):
        with pytest.raises(StoreUnavailable):
            await services.audit.record_local("sealing.rewrap", "all")
    assert await services.audit.read(DEFAULT_TENANT, after=None, limit=1) == ([], None)
