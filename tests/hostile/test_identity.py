"""The rows of identity, keys and idempotency: every address there is, walked by others."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from config.clock import SECOND
from gateway import tickets
from gateway.auth import SCOPES, Scope, make_key
from gateway.keys import KeyStore
from tests.gateway.conftest import Gateway
from tests.gateway.jobs import ECHO, assert_problem, finish, save, submit

_BODIES: dict[str, Any] = {
    "/v1/endpoints": {"url": "https://h.example/"},
    "/v1/admin/keys": {"scopes": ["read"]},
    "/v1/admin/tenants": {"id": "third"},
    "/v1/replays": {"all": True, "dryRun": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one address of the description."""

    method: str
    path: str
    is_open: bool

    @property
    def names_an_object(self) -> bool:
        """Whether it is about one thing that somebody owns."""
        return "{" in self.path and not self.path.startswith("/problems")


async def operations(gateway: Gateway) -> list[Operation]:
    """Return every operation that the description has."""
    async with gateway.anyone() as anyone:
        document = (await anyone.get("/openapi.json")).json()
    return [
        Operation(method=method.upper(), path=path, is_open=operation.get("security") == [])
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in {"get", "post", "put", "patch", "delete"}
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """One of each thing that acme owns, by the name of the parameter that names it."""

    ids: dict[str, str]

    def path(self, operation: Operation) -> str:
        """Return the address with acme's things in it."""
        return re.sub(
            r"\{(\w+)\}", lambda found: self.ids[found[1].lower().replace("_", "")], operation.path
        )


@pytest.fixture
async def owned(gateway: Gateway, client: httpx.AsyncClient) -> Owned:
    """Have acme own one of everything."""
    job = await submit(client)
    kept = await save(gateway.services, job, "report.pdf", b"secret of acme")
    await finish(
        gateway.services, job, results={"a": "secret of acme"}, artifacts={kept.name: kept}
    )
    called = await submit(client, callbackUrl="https://h.example/hook")
    await client.post(f"/v1/jobs/{called}/cancel")
    deliveries = (await client.get(f"/v1/jobs/{called}/deliveries")).json()["items"]
    endpoints = (await client.get("/v1/endpoints")).json()["items"]
    file = await client.post("/v1/files", content=b"secret of acme")
    _, key = make_key("acme", frozenset({"read"}), 0, name="secret of acme")
    await KeyStore(gateway.services.store).put(key)
    return Owned(
        ids={
            "jobid": job,
            "name": kept.name,
            "deliveryid": deliveries[0]["id"],
            "endpointid": endpoints[0]["id"],
            "fileid": file.json()["fileId"],
            "keyid": key.id,
            "replayid": "rpl_00" + "0" * 22,
        }
    )


ADMIN_OF_ALL = re.compile(r"/v1/admin/|/v1/dead-letters|/v1/replays|/v1/audit")
"""Where the scope admin is over all tenants, or a list says whose it is."""


async def _ask(
    client: httpx.AsyncClient, operation: Operation, path: str, **more: Any
) -> httpx.Response:
    body = _BODIES.get(operation.path, {}) if operation.method in {"POST", "PATCH", "PUT"} else None
    return await client.request(operation.method, path, json=body, **more)


async def test_identity_nothing_of_another_tenant_is_there(
    gateway: Gateway, client: httpx.AsyncClient, owned: Owned
) -> None:
    no_admin: frozenset[Scope] = frozenset({"submit", "read", "operate"})
    walked = 0
    async with (
        await gateway.client("other") as other,
        await gateway.client("other", no_admin) as nobody,
    ):
        for operation in await operations(gateway):
            if operation.is_open:
                continue
            over_all = ADMIN_OF_ALL.match(operation.path) is not None
            answer = await _ask(nobody if over_all else other, operation, owned.path(operation))
            walked += 1
            assert "secret of acme" not in answer.text, operation
            if over_all:
                assert answer.status_code in {200, 202, 403, 404}, operation
            elif operation.names_an_object:
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), operation
            elif operation.method == "GET" and "items" in answer.json():
                own = [each for each in answer.json()["items"] if "schema" not in str(each)]
                assert operation.path == "/v1/job-types" or own == [], operation
    assert walked > 20
    job = await client.get(f"/v1/jobs/{owned.ids['jobid']}", params={"onComplete": "inline"})
    assert job.json()["status"] == "completed"  # nobody erased or changed it


async def test_identity_a_ticket_opens_its_own_job_and_is_no_key(
    gateway: Gateway, client: httpx.AsyncClient, owned: Owned
) -> None:
    foreign = await submit(client)
    services = gateway.services
    until = services.clock.now() + 60 * SECOND
    ticket = tickets.mint(foreign, until, services.ring.derive(tickets.PURPOSE))
    async with gateway.anyone() as anyone:
        for operation in await operations(gateway):
            if operation.is_open:
                continue
            answer = await _ask(anyone, operation, owned.path(operation), params={"ticket": ticket})
            assert answer.status_code in {401, 403}, operation
            assert "secret of acme" not in answer.text
        own = await anyone.get(f"/v1/jobs/{foreign}", params={"ticket": ticket})
        assert own.status_code == 200
        for method, path in (("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
            answer = await anyone.request(
                method, f"/v1/jobs/{foreign}{path}", params={"ticket": ticket}
            )
            assert_problem(answer, "unauthorized")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        pytest.param(None, 401, id="missing"),
        pytest.param("", 401, id="empty"),
        pytest.param("Basic dTpw", 401, id="another scheme"),
        pytest.param("Bearer", 401, id="no token"),
        pytest.param("Bearer short", 401, id="malformed"),
        pytest.param("Bearer gwk_" + "0" * 40, 401, id="unknown"),
        pytest.param("Bearer gwk_" + "0" * 1_000, 401, id="long"),
        pytest.param("Bearer a b", 401, id="two words"),
        pytest.param("Bearer \xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9", 401, id="not ASCII"),
    ],
)
async def test_keys_that_are_none_are_refused_everywhere(
    gateway: Gateway, owned: Owned, header: str | None, status: int
) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    async with gateway.anyone() as anyone:
        for operation in await operations(gateway):
            if operation.is_open:
                continue
            answer = await _ask(anyone, operation, owned.path(operation), headers=headers)
            assert answer.status_code == status, operation
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_keys_revoked_are_refused(gateway: Gateway, client: httpx.AsyncClient) -> None:
    token, key = make_key("acme", SCOPES, 0)
    store = KeyStore(gateway.services.store)
    await store.put(key)
    async with gateway.anyone({"Authorization": f"Bearer {token}"}) as holder:
        answer = await client.delete(f"/v1/admin/keys/{key.id}")
        assert answer.status_code == 204
        assert_problem(await holder.get("/v1/jobs"), "unauthorized")


async def test_keys_without_a_scope_get_nowhere(gateway: Gateway, owned: Owned) -> None:
    async with await gateway.client("acme", frozenset()) as nobody:
        for operation in await operations(gateway):
            if operation.is_open or operation.path == "/v1/job-types":
                continue
            answer = await _ask(nobody, operation, owned.path(operation))
            assert answer.status_code == 403, operation
            assert "secret of acme" not in answer.text


async def test_idempotency_keys_are_a_tenants_own_and_make_one_job(gateway: Gateway) -> None:
    keyed = {"Idempotency-Key": "order-1"}
    async with await gateway.client("acme") as acme, await gateway.client("other") as other:
        same = await asyncio.gather(
            *(acme.post("/v1/jobs", json=ECHO, headers=keyed) for _ in range(10))
        )
        made = {each.json()["jobId"] for each in same if each.status_code == 202}
        assert len(made) == 1
        assert {each.status_code for each in same} <= {202, 409}
        different = {**ECHO, "input": {"payload": 2}}
        answer = await acme.post("/v1/jobs", json=different, headers=keyed)
        assert_problem(answer, "idempotency_key_reused")
        answer = await other.post("/v1/jobs", json=different, headers=keyed)
        assert answer.status_code == 202
        assert answer.json()["jobId"] not in made
