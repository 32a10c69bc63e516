"""API keys and tenants over HTTP: made once, shown once, found, revoked; and a line for each."""

from __future__ import annotations

import httpx
import pytest

from config.clock import SECOND, rfc3339
from config.ids import new_id
from config.store import Store
from gateway import auth
from gateway.auth import SCOPES, is_made_here, make_key
from gateway.keys import START, KeyStore
from gateway.services import Services
from tests.gateway.conftest import PUBLIC_URL, FullStore, Gateway
from tests.gateway.jobs import ECHO, assert_problem

LONG_AGO = "2001-01-01T00:00:00Z"
KEYS, TENANTS = "/v1/admin/keys", "/v1/admin/tenants"


@pytest.fixture
def keys(store: Store) -> KeyStore:
    """Return the keys of an empty store."""
    return KeyStore(store)


async def test_a_key_is_shown_once_and_works(
    gateway: Gateway, client: httpx.AsyncClient, store: Store
) -> None:
    asked = {"tenant": "globex", "scopes": ["submit", "read"], "name": "Globex's site"}
    answer = await client.post(KEYS, json=asked)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    token = made.pop("key")
    assert is_made_here(token)
    assert answer.headers["location"] == f"{PUBLIC_URL}{KEYS}/{made['id']}"
    assert made == {
        "id": made["id"],
        "name": "Globex's site",
        "tenant": "globex",
        "scopes": ["read", "submit"],
        "createdAt": made["createdAt"],
        "expiresAt": None,
        "_links": {"self": f"{PUBLIC_URL}{KEYS}/{made['id']}"},
    }
    shown = await client.get(f"{KEYS}/{made['id']}")
    assert shown.json() == made
    assert token not in await everything(store)

    async with gateway.anyone({"Authorization": f"Bearer {token}"}) as holder:
        assert (await holder.post("/v1/jobs", json=ECHO)).status_code == 202
        assert_problem(await holder.get(KEYS), "insufficient_scope")


async def everything(store: Store) -> str:
    """Return all that the store has of keys, as text."""
    found = []
    async for name in store.client.scan_iter("gw:{meta}:apikey*"):
        kind = await store.client.type(name)
        read = store.client.hgetall if kind == b"hash" else None
        found.append(repr((name, await read(name) if read else None)))
    return "".join(found)


async def test_a_key_is_the_asking_tenants_unless_it_says_otherwise(
    client: httpx.AsyncClient,
) -> None:
    made = (await client.post(KEYS, json={"scopes": ["read"]})).json()
    assert (made["tenant"], made["name"], made["expiresAt"]) == ("acme", None, None)


async def test_a_revoked_key_is_refused(
    gateway: Gateway, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_CACHE_SECONDS", 0)
    made = (await client.post(KEYS, json={"scopes": ["read"]})).json()
    async with gateway.anyone({"Authorization": f"Bearer {made['key']}"}) as holder:
        assert (await holder.get("/v1/jobs")).status_code == 200
        answer = await client.delete(f"{KEYS}/{made['id']}")
        assert (answer.status_code, answer.content) == (204, b"")
        refused = await holder.get("/v1/jobs")
        assert_problem(refused, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
    for method in ("GET", "DELETE"):
        assert_problem(await client.request(method, f"{KEYS}/{made['id']}"), "not_found")


async def test_an_expired_key_is_refused(gateway: Gateway, keys: KeyStore) -> None:
    now = gateway.services.clock.now()
    for expires_at, status in ((now - SECOND, 401), (now + 3600 * SECOND, 200)):
        token, key = make_key("acme", {"read"}, now, expires_at=expires_at)
        await keys.put(key)
        async with gateway.anyone({"Authorization": f"Bearer {token}"}) as holder:
            assert (await holder.get("/v1/jobs")).status_code == status


async def test_when_a_key_expires_is_said(client: httpx.AsyncClient, services: Services) -> None:
    later = rfc3339(services.clock.now() + 60 * SECOND)
    answer = await client.post(KEYS, json={"scopes": ["read"], "expiresAt": later})
    assert answer.json()["expiresAt"] == later


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({}, "invalid_request", "/scopes"),
        ({"scopes": []}, "invalid_request", "/scopes"),
        ({"scopes": ["everything"]}, "invalid_request", "/scopes/0"),
        ({"scopes": ["read", "read"]}, "invalid_request", "/scopes"),
        ({"scopes": ["read"], "tenant": "Acme"}, "invalid_request", "/tenant"),
        ({"scopes": ["read"], "tenant": "acme:failed"}, "invalid_request", "/tenant"),
        ({"scopes": ["read"], "name": "x" * 101}, "invalid_request", "/name"),
        ({"scopes": ["read"], "expiresAt": "soon"}, "invalid_request", "/expiresAt"),
        (
            {"scopes": ["read"], "expiresAt": LONG_AGO},
            "invalid_request",
            "/expiresAt",
        ),
        ({"scopes": ["read"], "key": "mine"}, "unknown_member", "/key"),
    ],
)
async def test_keys_that_are_not_made(
    client: httpx.AsyncClient, body: dict[str, object], code: str, pointer: str
) -> None:
    problem = assert_problem(await client.post(KEYS, json=body), code)
    assert [each["pointer"] for each in problem["errors"]] == [pointer]


async def test_pages_of_keys(gateway: Gateway, keys: KeyStore) -> None:
    made = []
    for number in range(7):
        _, key = make_key("acme" if number % 2 else "globex", {"read"}, 1_000 + number // 3)
        await keys.put(key)
        made.append(key)
    made.sort(key=lambda key: (key.created_at, key.id))
    async with await gateway.client("default", SCOPES) as client:
        asking = (await client.get(f"{KEYS}?tenant=default")).json()["items"]
        for query, wanted in (
            ("limit=3", [key.id for key in made]),
            ("limit=2&tenant=acme", [key.id for key in made if key.tenant == "acme"]),
        ):
            url = f"{PUBLIC_URL}{KEYS}?{query}"
            seen: list[str] = []
            for _ in range(9):
                answer = await client.get(url)
                seen += [item["id"] for item in answer.json()["items"]]
                if answer.json()["nextCursor"] is None:
                    break
                url = answer.headers["link"][1:].partition(">")[0]
            assert [each for each in seen if each != asking[0]["id"]] == wanted


@pytest.mark.parametrize(
    "query", ["limit=0", "cursor=x", "tenant=a:b", "state=x", "limit=1&limit=2"]
)
async def test_bad_parameters(client: httpx.AsyncClient, query: str) -> None:
    assert_problem(await client.get(f"{KEYS}?{query}"), "invalid_parameter")


@pytest.mark.parametrize("key_id", ["x", "job_00" + "0" * 22, new_id("key", 0, 0)])
async def test_unknown_keys(client: httpx.AsyncClient, key_id: str) -> None:
    for method in ("GET", "DELETE"):
        assert_problem(await client.request(method, f"{KEYS}/{key_id}"), "not_found")


async def test_tenants_are_made_by_name_or_by_their_first_key(client: httpx.AsyncClient) -> None:
    answer = await client.post(TENANTS, json={"id": "globex", "name": "Globex Ltd"})
    assert answer.status_code == 201
    made = answer.json()
    assert made == {
        "id": "globex",
        "name": "Globex Ltd",
        "createdAt": made["createdAt"],
        "_links": {"keys": f"{PUBLIC_URL}{KEYS}?tenant=globex"},
    }
    again = await client.post(TENANTS, json={"id": "globex", "name": "Another"})
    assert (again.status_code, again.json()) == (200, made)
    await client.post(KEYS, json={"tenant": "initech", "scopes": ["read"]})
    listed = (await client.get(TENANTS)).json()
    assert [each["id"] for each in listed["items"]] == ["acme", "globex", "initech"]
    first = (await client.get(f"{TENANTS}?limit=2")).json()
    rest = (await client.get(f"{TENANTS}?limit=2&cursor={first['nextCursor']}")).json()
    assert first["items"] + rest["items"] == listed["items"]
    assert rest["nextCursor"] is None


@pytest.mark.parametrize("tenant", ["", "A", "a:b", "a b", "-a", "x" * 64, 5])
async def test_tenants_that_cannot_be(client: httpx.AsyncClient, tenant: object) -> None:
    assert_problem(await client.post(TENANTS, json={"id": tenant}), "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", KEYS),
        ("POST", KEYS),
        ("GET", f"{KEYS}/key_1"),
        ("DELETE", f"{KEYS}/key_1"),
        ("GET", TENANTS),
        ("POST", TENANTS),
    ],
)
async def test_only_admins(gateway: Gateway, method: str, path: str) -> None:
    async with gateway.anyone() as anyone:
        assert_problem(await anyone.request(method, path), "unauthorized")
    async with await gateway.client(scopes=SCOPES - {"admin"}) as other:
        assert_problem(await other.request(method, path), "insufficient_scope")


async def test_every_change_is_audited(client: httpx.AsyncClient) -> None:
    await client.post(TENANTS, json={"id": "globex"})
    wanted = {"tenant": "globex", "scopes": ["submit", "read"], "name": "site"}
    made = (await client.post(KEYS, json=wanted)).json()
    await client.delete(f"{KEYS}/{made['id']}")
    assert_problem(await client.delete(f"{KEYS}/{made['id']}"), "not_found")
    answer = await client.get("/v1/admin/audit")
    assert made["key"] not in answer.text
    found = [(each["action"], each["target"], each["details"]) for each in answer.json()["items"]]
    assert found == [
        ("key.revoke", made["id"], {}),
        (
            "key.create",
            made["id"],
            {"name": "site", "scopes": ["read", "submit"], "expiresAt": None},
        ),
        ("tenant.create", "globex", {"name": None}),
    ]
    assert {each["tenant"] for each in answer.json()["items"]} == {"globex"}


async def test_a_full_store_makes_no_keys_and_revokes(
    client: httpx.AsyncClient, full_store: FullStore
) -> None:
    made = (await client.post(KEYS, json={"scopes": ["read"]})).json()
    async with full_store():
        assert_problem(await client.post(KEYS, json={"scopes": ["read"]}), "store_full")
        assert_problem(await client.post(TENANTS, json={"id": "new"}), "store_full")
        assert (await client.delete(f"{KEYS}/{made['id']}")).status_code == 204


async def test_what_is_kept_is_found(keys: KeyStore) -> None:
    token, key = make_key("acme", {"submit"}, 5, name="n", expires_at=9)
    for _ in range(2):
        await keys.put(key)
    assert token not in repr(key)
    assert await keys.find(key.digest) == await keys.read(key.id) == key
    assert await keys.list_keys(None, after=START, limit=5) == ([key], None)
    assert await keys.list_keys("other", after=START, limit=5) == ([], None)
    assert await keys.revoke(key.id)
    assert not await keys.revoke(key.id)
    assert await keys.find(key.digest) is None
    assert await keys.list_keys("acme", after=START, limit=5) == ([], None)
