"""The rows of identity, keys and idempotency: who may reach what.

Walked over every operation of /openapi.json, so that a new one is covered by being there. Objects
are really made, by one tenant; another one, or nobody, then asks for them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from config.clock import SECOND
from config.ids import derived_id
from gateway import tickets
from gateway.auth import SCOPES, Scope, make_key
from gateway.keys import KeyStore
from gateway.openapi.examples import CALLBACK_URL
from gateway.services import Services
from tests.gateway.conftest import Gateway
from tests.gateway.jobs import ECHO, assert_problem, finish, save, submit

OPERATORS = {"listKeys", "createKey", "getKey", "revokeKey", "listTenants", "createTenant"}
"""Operations on API keys and tenants: those who run the gateway see everybody's."""

PUBLIC = {"code": "not_found", "asset": "docs.css"}
"""Parameters of addresses that belong to nobody."""

ARTIFACT = "report of acme.pdf"
HOOK = "https://acme.example/hook?key=1"

BODIES: dict[str, Any] = {}
"""Bodies for operations whose example names something that acme has not got."""

UNKNOWN = {
    "jobId": derived_id("job", 0, "unknown"),
    "name": "nothing.pdf",
    "deliveryId": derived_id("msg", 0, "unknown"),
    "endpointId": derived_id("ep", 0, "unknown"),
    "fileId": derived_id("file", 0, "unknown"),
    "keyId": derived_id("key", 0, "unknown"),
    "replayId": derived_id("rpl", 0, "unknown"),
}
"""Well-formed values of every parameter that nothing stands behind. A parameter that is new is to
be added here and in `made`."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation, as it is described."""

    method: str
    path: str
    described: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Its name."""
        return str(self.described["operationId"])

    @property
    def scope(self) -> Scope | None:
        """What the key must allow; None where any does, or none is needed."""
        for each in self.described["security"]:
            for scope in each.get("apiKey", []):
                return scope  # type: ignore[no-any-return]
        return None

    @property
    def is_public(self) -> bool:
        """Whether nobody is asked who they are."""
        return not self.described["security"]

    @property
    def takes_tickets(self) -> bool:
        """Whether a ticket for the job does as well."""
        return any("ticket" in each for each in self.described["security"])

    @property
    def parameters(self) -> list[str]:
        """Those of the path."""
        return re.findall(r"\{(\w+)\}", self.path)

    def at(self, values: Mapping[str, str]) -> str:
        """Return the path with its parameters filled in."""
        return self.path.format_map({**PUBLIC, **values})

    def body(self) -> dict[str, Any]:
        """Return a good body, as keyword arguments of a request."""
        contents = self.described.get("requestBody", {}).get("content", {})
        if self.id in BODIES:
            return {"json": BODIES[self.id]}
        if "application/json" in contents:
            [example, *_] = contents["application/json"]["examples"].values()
            return {"json": example["value"]}
        return {"content": b"bytes"} if contents else {}


@dataclass(slots=True)
class World:
    """The gateway, its operations, and what the tenant acme has in it.

    Attributes:
        sets: values of the path's parameters, by what state the job is in.
        marks: what is acme's alone and must be told to nobody else.
    """

    gateway: Gateway
    calls: list[Call]
    sets: dict[str, dict[str, str]]
    marks: set[str] = field(default_factory=set)

    def private(self) -> Iterator[Call]:
        """Yield the operations that ask who somebody is."""
        yield from (call for call in self.calls if not call.is_public)

    def of_objects(self) -> Iterator[tuple[Call, dict[str, str]]]:
        """Yield the operations on a tenant's objects, with the values that name them."""
        for call in self.private():
            if call.parameters and call.id not in OPERATORS:
                for values in self.sets.values():
                    yield call, values


async def made(gateway: Gateway) -> dict[str, dict[str, str]]:
    """Make one of everything for acme; return it by the state of the job."""
    services = gateway.services
    async with await gateway.client("acme") as client:
        pending = await submit(client, metadata={"mark": "metadata-of-acme"})
        done = await submit(client)
        file = await save(services, done, ARTIFACT, b"bytes of acme")
        await finish(services, done, results={"payload": 1}, artifacts={ARTIFACT: file})
        erased = await submit(client)
        await client.post(f"/v1/jobs/{erased}/cancel")
        assert (await client.delete(f"/v1/jobs/{erased}")).status_code == 204
        called = await submit(
            client, callbackUrl=HOOK, callback={"headers": {"x-route": "secret-route"}}
        )
        assert (await client.post(f"/v1/jobs/{called}/cancel")).status_code == 200
        [owed] = (await client.get(f"/v1/jobs/{called}/deliveries")).json()["items"]
        uploaded = (await client.post("/v1/files", content=b"file of acme")).json()["fileId"]
        key = (await client.post("/v1/admin/keys", json={"scopes": ["read"]})).json()["id"]
        replay = (await client.post("/v1/replays", json={"all": True})).json()["id"]
    common = {
        "name": ARTIFACT,
        "deliveryId": owed["id"],
        "endpointId": owed["endpointId"],
        "fileId": uploaded,
        "keyId": key,
        "replayId": replay,
    }
    jobs = {"pending": pending, "completed": done, "erased": erased, "cancelled": called}
    return {state: {**common, "jobId": job_id} for state, job_id in jobs.items()}


@pytest.fixture
async def calls(gateway: Gateway) -> list[Call]:
    """Return every operation."""
    async with gateway.anyone() as client:
        document = (await client.get("/openapi.json")).json()
    return [
        Call(method, path, described)
        for path, item in document["paths"].items()
        for method, described in item.items()
    ]


@pytest.fixture
async def world(gateway: Gateway, calls: list[Call]) -> World:
    """Return the gateway with acme's objects in it."""
    sets = await made(gateway)
    marks = {value for values in sets.values() for value in values.values()}
    return World(gateway, calls, sets, marks | {"metadata-of-acme", "secret-route", "key=1"})


@pytest.fixture
async def stranger(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of another tenant that may do everything there."""
    async with await world.gateway.client("globex") as client:
        yield client


def told(answer: httpx.Response) -> dict[str, Any]:
    """Return what a problem says, but for what was asked."""
    return {name: value for name, value in answer.json().items() if name != "instance"}


async def snapshot(world: World) -> list[tuple[str, int, str]]:
    """Return all that acme can read of its objects."""
    seen = []
    async with await world.gateway.client("acme", frozenset({"read", "operate"})) as client:
        for call, values in world.of_objects():
            if call.method == "get" and call.scope == "read" and not call.path.endswith("/events"):
                answer = await client.get(call.at(values))
                seen.append((call.at(values), answer.status_code, answer.text))
    # Tickets and estimates are new each time.
    return [(path, status, re.sub(r"ticket=[\w.-]+", "", text)) for path, status, text in seen]


def test_every_parameter_is_known(calls: list[Call]) -> None:
    named = {name for call in calls for name in call.parameters}
    assert named == UNKNOWN.keys() | PUBLIC.keys()


def test_everything_but_what_is_public_names_a_scope(calls: list[Call]) -> None:
    assert {call.id for call in calls if not call.is_public and call.scope is None} == {
        "listJobTypes"
    }
    assert not [call for call in calls if call.is_public and call.method != "get"]


async def test_another_tenants_objects_do_not_exist(
    world: World, stranger: httpx.AsyncClient
) -> None:
    before = await snapshot(world)
    walked = 0
    for call, values in world.of_objects():
        answer = await stranger.request(call.method, call.at(values), **call.body())
        assert_problem(answer, "not_found")
        unknown = await stranger.request(call.method, call.at(UNKNOWN), **call.body())
        assert told(answer) == told(unknown), call.id
        walked += 1
    assert walked > 40
    assert await snapshot(world) == before
    assert {status for _, status, _ in before} == {200, 303, 409, 410, 404}


async def test_heads_tell_of_no_more(world: World, stranger: httpx.AsyncClient) -> None:
    for call, values in world.of_objects():
        if call.method == "get":
            answer = await stranger.head(call.at(values))
            assert (answer.status_code, answer.content) == (404, b""), call.id
    async with world.gateway.anyone() as anyone:
        for call in world.private():
            if call.method == "get":
                answer = await anyone.head(call.at(UNKNOWN))
                assert (answer.status_code, answer.content) == (401, b""), call.id


async def test_options_ask_nobody_and_tell_nothing(world: World) -> None:
    async with world.gateway.anyone() as anyone:
        for call in world.calls:
            answers = [
                await anyone.options(call.at(values)) for values in (*world.sets.values(), UNKNOWN)
            ]
            assert {(each.status_code, each.content) for each in answers} == {(204, b"")}
            [allowed] = {each.headers["allow"] for each in answers}
            assert call.method.upper() in allowed


async def test_lists_hold_the_own_tenants_only(world: World, stranger: httpx.AsyncClient) -> None:
    listed = 0
    async with await world.gateway.client("acme") as owner:
        for call in world.private():
            if call.method == "get" and not call.parameters and call.id not in OPERATORS:
                answer = await stranger.get(call.path)
                assert answer.status_code == 200, answer.text
                assert not [mark for mark in world.marks if mark in answer.text], call.id
                own = (await owner.get(call.path)).text
                listed += any(mark in own for mark in world.marks)
    assert listed >= 3


async def bad_credentials(gateway: Gateway) -> dict[str, dict[str, str]]:
    """Return headers that let nobody in, by what is wrong with them."""
    now = gateway.services.clock.now()
    keys = KeyStore(gateway.services.store)
    unknown, _ = make_key("acme", SCOPES, now)
    revoked, key = make_key("acme", SCOPES, now)
    await keys.put(key)
    assert await keys.revoke(key.id)
    expired, key = make_key("acme", SCOPES, now - 2 * SECOND, expires_at=now - SECOND)
    await keys.put(key)
    good, key = make_key("acme", SCOPES, now)
    await keys.put(key)
    bearer = {
        "unknown": unknown,
        "revoked": revoked,
        "expired": expired,
        "mistyped": good[:-1] + ("0" if good[-1] != "0" else "1"),
        "its digest": key.digest,
        "its identifier": key.id,
        "cut off": good[:-1],
        "longer": good + "0",
        "empty": "",
        "short": "short",
        "long": f"gwk_{'0' * 1_000}",
        "two words": "two words12",
        "a colon": f"{good}:",
    }
    return {
        "missing": {},
        "another scheme": {"Authorization": f"Basic {good}"},
        "no scheme": {"Authorization": good},
        "another header": {"X-Api-Key": good},
        "a cookie": {"Cookie": f"Authorization=Bearer {good}"},
        **{name: {"Authorization": f"Bearer {each}"} for name, each in bearer.items()},
    }


async def test_without_good_credentials_nothing_is_to_be_had(world: World) -> None:
    for headers in (await bad_credentials(world.gateway)).values():
        async with world.gateway.anyone(headers) as client:
            for call in world.private():
                for values in (*world.sets.values(), UNKNOWN):
                    answer = await client.request(call.method, call.at(values), **call.body())
                    assert_problem(answer, "unauthorized")
                    assert answer.headers["www-authenticate"] == "Bearer"


async def test_without_the_scope_nothing_is_to_be_had(world: World) -> None:
    clients = {
        scope: await world.gateway.client("acme", SCOPES - {scope}) for scope in sorted(SCOPES)
    }
    for call in world.private():
        if call.scope is None:
            continue
        for values in (*world.sets.values(), UNKNOWN):
            answer = await clients[call.scope].request(call.method, call.at(values), **call.body())
            problem = assert_problem(answer, "insufficient_scope")
            assert call.scope in problem["detail"]
    for client in clients.values():
        await client.aclose()


async def test_the_scope_is_enough(world: World) -> None:
    clients = {
        scope: await world.gateway.client("acme", frozenset({scope})) for scope in sorted(SCOPES)
    }
    for call in world.private():
        client = clients[call.scope or "read"]
        answer = await client.request(call.method, call.at(UNKNOWN), **call.body())
        assert answer.status_code not in {401, 403}, (call.id, answer.text)
    for client in clients.values():
        await client.aclose()


async def test_tickets_open_what_belongs_to_their_job_and_nothing_else(
    world: World, stranger: httpx.AsyncClient
) -> None:
    services = world.gateway.services
    clock, key = services.clock, services.ring.derive(tickets.PURPOSE)
    own = await submit(stranger)
    foreign = tickets.mint(own, clock.now() + 60 * SECOND, key)
    async with world.gateway.anyone() as anyone:
        for call in world.private():
            for values in world.sets.values():
                path, job_id = call.at(values), values["jobId"]
                ticket = tickets.mint(job_id, clock.now() + 60 * SECOND, key)
                for bad in (foreign, tickets.mint(job_id, clock.now() - SECOND, key), "1.", "x"):
                    asked = {"params": {"ticket": bad}, **call.body()}
                    assert_problem(await anyone.request(call.method, path, **asked), "unauthorized")
                    if call.parameters and call.id not in OPERATORS:
                        assert_problem(
                            await stranger.request(call.method, path, **asked), "not_found"
                        )
                if not call.takes_tickets:
                    asked = {"params": {"ticket": ticket}, **call.body()}
                    assert_problem(await anyone.request(call.method, path, **asked), "unauthorized")
        for call in world.private():
            if call.takes_tickets and not call.path.endswith("/events"):
                values = world.sets["completed"]
                ticket = tickets.mint(values["jobId"], clock.now() + 60 * SECOND, key)
                answer = await anyone.get(call.at(values), params={"ticket": ticket})
                assert answer.status_code in {200, 303}, call.id


async def test_what_is_public_looks_at_no_credentials(world: World) -> None:
    answers: dict[str, set[int]] = {}
    for headers in (await bad_credentials(world.gateway)).values():
        async with world.gateway.anyone(headers) as client:
            for call in world.calls:
                if call.is_public:
                    answer = await client.get(call.at({}))
                    answers.setdefault(call.id, set()).add(answer.status_code)
    assert all(seen == {200} for seen in answers.values()), answers


async def test_a_submission_cannot_name_another_tenants_file(
    world: World, stranger: httpx.AsyncClient
) -> None:
    file_id = world.sets["pending"]["fileId"]
    wanted = {"type": "document.analyze", "input": {"document": {"fileId": file_id}}}
    problem = assert_problem(await stranger.post("/v1/jobs", json=wanted), "invalid_input")
    wanted["input"] = {"document": {"fileId": UNKNOWN["fileId"]}}
    unknown = assert_problem(await stranger.post("/v1/jobs", json=wanted), "invalid_input")
    assert str(problem).replace(file_id, UNKNOWN["fileId"]) == str(unknown)


async def test_idempotency_keys_are_each_tenants_own_and_make_one_job(
    world: World, stranger: httpx.AsyncClient
) -> None:
    headers = {"Idempotency-Key": "the-same"}
    other = {**ECHO, "input": {"payload": 2}}

    async def listed(client: httpx.AsyncClient) -> int:
        return len((await client.get("/v1/jobs?limit=100")).json()["items"])

    async with await world.gateway.client("acme") as owner:
        before = await listed(owner)
        same = await asyncio.gather(
            *(owner.post("/v1/jobs", json=ECHO, headers=headers) for _ in range(10))
        )
        assert {each.status_code for each in same} <= {202, 409}
        [first] = {each.json()["jobId"] for each in same if each.status_code == 202}
        assert_problem(
            await owner.post("/v1/jobs", json=other, headers=headers), "idempotency_key_reused"
        )
        again = await owner.post("/v1/jobs", json=ECHO, headers=headers)
        assert (again.status_code, again.json()["jobId"]) == (202, first)
        assert await listed(owner) == before + 1
        second = await stranger.post("/v1/jobs", json=other, headers=headers)
        assert second.status_code == 202
        assert "idempotent-replayed" not in second.headers
        assert second.json()["jobId"] != first
        assert (await listed(owner), await listed(stranger)) == (before + 1, 1)


async def test_an_origin_is_an_endpoint_of_each_tenants_own(
    world: World, stranger: httpx.AsyncClient
) -> None:
    async with await world.gateway.client("acme") as owner:
        [mine] = (await owner.get("/v1/endpoints")).json()["items"]
        theirs = (await stranger.post("/v1/endpoints", json={"url": mine["origin"] + "/"})).json()
        assert theirs["origin"] == mine["origin"]
        assert theirs["id"] != mine["id"]
        secrets = {
            (await client.get(f"/v1/endpoints/{endpoint['id']}/secret")).json()["secret"]
            for client, endpoint in ((owner, mine), (stranger, theirs))
        }
    assert len(secrets) == 2


async def test_what_admins_and_operators_do_is_recorded(
    gateway: Gateway, calls: list[Call], services: Services
) -> None:
    recorded = set()
    for call in calls:
        if call.scope not in {"operate", "admin"}:
            continue
        if call.method == "get" and call.id != "getEndpointSecret":
            continue
        values = (await made(gateway))["cancelled"]
        before, _ = await services.audit.read("acme", after=None, limit=100)
        async with await gateway.client("acme") as client:
            # One for which nothing waits.
            idle = await client.post("/v1/endpoints", json={"url": CALLBACK_URL})
            values = {**values, "endpointId": idle.json()["id"]}
            answer = await client.request(call.method, call.at(values), **call.body())
        assert answer.is_success, (call.id, answer.text)
        after, _ = await services.audit.read("acme", after=None, limit=100)
        fresh = [each for each in after if each.id not in {old.id for old in before}]
        assert fresh, f"{call.id} leaves no audit record"
        recorded.add(call.id)
    assert len(recorded) >= 12
