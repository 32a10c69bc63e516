"""Endpoints' secrets over HTTP: shown to who may see them, and changed without a gap."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import httpx
import pytest

from config.clock import SECOND, parse_rfc3339
from delivery.models import Scheme
from delivery.secrets import MAX_RETIRED
from delivery.signing import check_secret, generate_secret, public_key
from gateway.auth import SCOPES
from gateway.services import Services
from tests.gateway.conftest import Gateway
from tests.gateway.jobs import assert_problem, submit
from tests.vectors import PUBLIC_KEY, V1, V1A, X_SIGNATURE

URL = "https://receiver.example/hook"
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
MEMBERS = {"v1": "secret", "v1a": "publicKey", "x-signature": "xSignatureSecret"}


@pytest.fixture
async def endpoint(client: httpx.AsyncClient) -> str:
    """Return the address of an endpoint."""
    made = await client.post("/v1/endpoints", json={"url": URL})
    return f"/v1/endpoints/{made.json()['id']}"


async def rotate(
    client: httpx.AsyncClient, endpoint: str, key: str | None = None, **members: Any
) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = await client.post(f"{endpoint}/rotate", json=members, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


async def shown(client: httpx.AsyncClient, endpoint: str) -> dict[str, Any]:
    answer = await client.get(f"{endpoint}/secret")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_new_endpoint_has_a_secret_for_v1(client: httpx.AsyncClient, endpoint: str) -> None:
    found = await shown(client, endpoint)
    check_secret("v1", found.pop("secret"))
    assert found == {"publicKey": None, "xSignatureSecret": None, "retiring": []}


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_job_makes_the_secrets_that_its_callback_needs(
    client: httpx.AsyncClient, endpoint: str, scheme: Scheme
) -> None:
    before = await shown(client, endpoint)
    await submit(client, callbackUrl=URL, callback={"signature": scheme})
    first = await shown(client, endpoint)
    await submit(client, callbackUrl=URL, callback={"signature": scheme})
    assert await shown(client, endpoint) == first
    assert first["secret"] == before["secret"]
    made = {name for name in ("publicKey", "xSignatureSecret") if first[name] is not None}
    assert made == {MEMBERS[scheme]} - {"secret"}


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_the_new_one_and_the_old_one_until_the_overlap_ends(
    client: httpx.AsyncClient, services: Services, endpoint: str, scheme: Scheme
) -> None:
    first = await rotate(client, endpoint, scheme=scheme, overlapSeconds=0)
    assert first["retiring"] == []
    second = await rotate(client, endpoint, scheme=scheme, overlapSeconds=3600)
    name = MEMBERS[scheme]
    assert second[name] != first[name]
    [retiring] = second["retiring"]
    until = parse_rfc3339(retiring["until"])
    assert abs(until - services.clock.now() - 3600 * SECOND) < 60 * SECOND
    where, other = ("publicKey", "secret") if scheme == "v1a" else ("secret", "publicKey")
    assert (retiring["scheme"], retiring[where], retiring[other]) == (scheme, first[name], None)
    assert await shown(client, endpoint) == second
    ended = await rotate(client, endpoint, scheme=scheme, retire=True)
    assert ended == {**second, "retiring": []}


async def test_without_a_body_it_is_v1_for_a_day(
    client: httpx.AsyncClient, services: Services, endpoint: str
) -> None:
    answer = await client.post(f"{endpoint}/rotate")
    [retiring] = answer.json()["retiring"]
    until = parse_rfc3339(retiring["until"])
    assert abs(until - services.clock.now() - 86_400 * SECOND) < 60 * SECOND
    assert retiring["scheme"] == "v1"


@pytest.mark.parametrize(
    ("vector", "member", "shows"),
    [
        (V1, "secret", V1.secret),
        (V1A, "publicKey", PUBLIC_KEY),
        (X_SIGNATURE, "xSignatureSecret", X_SIGNATURE.secret),
    ],
    ids=SCHEMES,
)
async def test_ones_own(
    client: httpx.AsyncClient, endpoint: str, vector: Any, member: str, shows: str
) -> None:
    wish = {"scheme": vector.scheme, "secret": vector.secret}
    found = await rotate(client, endpoint, **wish)
    assert found[member] == shows
    assert await rotate(client, endpoint, **wish) == found


async def test_no_private_key_is_ever_shown(client: httpx.AsyncClient, endpoint: str) -> None:
    pairs = [generate_secret("v1a") for _ in range(3)]
    for pair in pairs:
        answer = await client.post(
            f"{endpoint}/rotate", json={"scheme": "v1a", "secret": pair, "overlapSeconds": 60}
        )
        assert "whsk_" not in answer.text
    found = await client.get(f"{endpoint}/secret")
    assert "whsk_" not in found.text
    assert [each["publicKey"] for each in found.json()["retiring"]] == [
        public_key(pair) for pair in (pairs[1], pairs[0])
    ]


async def test_only_so_many_are_kept(client: httpx.AsyncClient, endpoint: str) -> None:
    first = await shown(client, endpoint)
    rotated = [await rotate(client, endpoint) for _ in range(MAX_RETIRED + 2)]
    texts = [each["secret"] for each in (first, *rotated)]
    retiring = [each["secret"] for each in (await shown(client, endpoint))["retiring"]]
    assert retiring == texts[-2 : -MAX_RETIRED - 2 : -1]


async def test_a_rotation_whose_answer_was_lost_is_repeated(
    client: httpx.AsyncClient, endpoint: str
) -> None:
    first = await rotate(client, endpoint, "once", overlapSeconds=60)
    again = await client.post(
        f"{endpoint}/rotate", json={"overlapSeconds": 60}, headers={"Idempotency-Key": '"once"'}
    )
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first
    other = await client.post(f"{endpoint}/rotate", json={}, headers={"Idempotency-Key": "once"})
    assert_problem(other, "idempotency_key_reused")
    later = await rotate(client, endpoint, "twice")
    assert later["secret"] != first["secret"]
    # The secret that the first one brought still signs: nothing is brought anew.
    assert await rotate(client, endpoint, "once", overlapSeconds=60) == later


async def test_rotations_at_once_lose_no_secret(client: httpx.AsyncClient, endpoint: str) -> None:
    answers = await asyncio.gather(*(rotate(client, endpoint) for _ in range(3)))
    found = await shown(client, endpoint)
    known = {found["secret"], *(each["secret"] for each in found["retiring"])}
    assert {answer["secret"] for answer in answers} <= known


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"scheme": "v2"}, "invalid_request", "/scheme"),
        ({"secret": "short"}, "invalid_request", "/secret"),
        ({"secret": V1A.secret}, "invalid_request", "/secret"),
        ({"scheme": "v1a", "secret": V1.secret}, "invalid_request", "/secret"),
        ({"scheme": "v1a", "secret": PUBLIC_KEY}, "invalid_request", "/secret"),
        ({"scheme": "x-signature", "secret": "é" * 30}, "invalid_request", "/secret"),
        ({"scheme": "x-signature", "secret": V1.secret}, "invalid_request", "/secret"),
        ({"overlapSeconds": -1}, "invalid_request", "/overlapSeconds"),
        ({"overlapSeconds": 30 * 86_400 + 1}, "invalid_request", "/overlapSeconds"),
        ({"overlapSeconds": "1"}, "invalid_request", "/overlapSeconds"),
        ({"retire": True, "secret": V1.secret}, "invalid_request", "/secret"),
        ({"retire": True, "overlapSeconds": 0}, "invalid_request", "/overlapSeconds"),
        ({"retire": 1}, "invalid_request", "/retire"),
        ({"more": 1}, "unknown_member", "/more"),
        ([], "invalid_request", ""),
    ],
)
async def test_what_is_refused_names_the_member_and_no_secret(
    client: httpx.AsyncClient, endpoint: str, body: Any, code: str, pointer: str
) -> None:
    before = await shown(client, endpoint)
    answer = await client.post(f"{endpoint}/rotate", json=body)
    problem = assert_problem(answer, code)
    assert [each["pointer"] for each in problem["errors"]] == [pointer]
    if isinstance(body, dict) and len(str(body.get("secret", ""))) > 10:
        assert body["secret"] not in answer.text
    assert await shown(client, endpoint) == before


async def test_who_may(gateway: Gateway, endpoint: str) -> None:
    requests = (("GET", "secret"), ("POST", "rotate"))
    async with gateway.anyone() as anyone:
        for method, path in requests:
            assert_problem(await anyone.request(method, f"{endpoint}/{path}"), "unauthorized")
    async with await gateway.client(scopes=SCOPES - {"admin"}) as other:
        for method, path in requests:
            answer = await other.request(method, f"{endpoint}/{path}")
            assert_problem(answer, "insufficient_scope")
    async with await gateway.client("globex") as other:
        for method, path in requests:
            assert_problem(await other.request(method, f"{endpoint}/{path}"), "not_found")


@pytest.mark.parametrize("endpoint_id", ["x", "ep_99" + "0" * 22, "ep_00" + "0" * 22])
async def test_unknown_ones(client: httpx.AsyncClient, endpoint_id: str) -> None:
    assert_problem(await client.get(f"/v1/endpoints/{endpoint_id}/secret"), "not_found")
    assert_problem(await client.post(f"/v1/endpoints/{endpoint_id}/rotate"), "not_found")


async def test_whoever_sees_or_changes_a_secret_is_recorded(
    client: httpx.AsyncClient, endpoint: str
) -> None:
    texts = [(await shown(client, endpoint))["secret"]]
    texts.append((await rotate(client, endpoint, "k"))["secret"])
    await rotate(client, endpoint, "k")
    await rotate(client, endpoint, retire=True)
    answer = await client.get("/v1/admin/audit")
    items = answer.json()["items"]
    assert [each["action"] for each in items] == [
        "endpoint.secret_retire",
        "endpoint.secret_rotate",
        "endpoint.secret_rotate",
        "endpoint.secret_read",
    ]
    assert {each["target"] for each in items} == {endpoint.rpartition("/")[2]}
    for text in texts:
        assert text not in answer.text
