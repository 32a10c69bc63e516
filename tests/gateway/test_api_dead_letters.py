"""Dead letters over HTTP: what is listed and counted, and of whom."""

from __future__ import annotations

import httpx
import pytest

from gateway.services import Services
from tests.gateway.burying import bury
from tests.gateway.conftest import PUBLIC_URL, Gateway
from tests.gateway.jobs import assert_problem, finish, submit


async def test_a_dead_letter_tells_why(client: httpx.AsyncClient, services: Services) -> None:
    job_id, delivery_id = await bury(client, services)
    answer = await client.get("/v1/dead-letters")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["nextCursor"] is None
    [found] = answer.json()["items"]
    attempt = found.pop("lastAttempt")
    assert found == {
        "kind": "delivery",
        "id": delivery_id,
        "tenant": "acme",
        "reason": "exhausted",
        "diedAt": found["diedAt"],
        "createdAt": found["createdAt"],
        "jobId": job_id,
        "jobType": "demo.echo",
        "event": "job.cancelled",
        "endpointId": found["endpointId"],
        "origin": "http://127.0.0.1:9",
        "url": "http://127.0.0.1:9/hook?***",
        "attemptCount": 1,
        "lastStatusCode": 401,
        "error": None,
        "_links": {
            "self": f"{PUBLIC_URL}/v1/deliveries/{delivery_id}",
            "endpoint": f"{PUBLIC_URL}/v1/endpoints/{found['endpointId']}",
            "job": f"{PUBLIC_URL}/v1/jobs/{job_id}",
        },
    }
    assert (attempt["outcome"], attempt["statusCode"]) == ("rejected", 401)
    assert "signature" in attempt["hint"]
    assert attempt["answer"] == "no such signature"


async def test_answers_are_shown_to_operators_only(
    gateway: Gateway, client: httpx.AsyncClient, services: Services
) -> None:
    await bury(client, services)
    async with await gateway.client(scopes=frozenset({"read"})) as reader:
        [found] = (await reader.get("/v1/dead-letters")).json()["items"]
    assert "answer" not in found["lastAttempt"]
    assert found["lastAttempt"]["hint"]


async def test_a_failed_job_is_a_dead_letter(client: httpx.AsyncClient, services: Services) -> None:
    job_id = await submit(client)
    await finish(services, job_id, "failed", error="No more paper.", error_code="no_paper")
    [found] = (await client.get("/v1/dead-letters", params={"kind": "job"})).json()["items"]
    assert (found["kind"], found["id"], found["jobId"]) == ("job", job_id, job_id)
    assert (found["reason"], found["error"]) == ("no_paper", "No more paper.")
    assert (found["jobType"], found["attemptCount"]) == ("demo.echo", 1)
    assert (found["origin"], found["url"], found["lastAttempt"]) == (None, None, None)
    assert found["_links"]["self"] == f"{PUBLIC_URL}/v1/jobs/{job_id}"
    stats = (await client.get("/v1/dead-letters/stats", params={"kind": "job"})).json()
    assert stats["reasons"] == [{"reason": "no_paper", "count": 1}]
    assert stats["endpoints"] == [{"endpointId": None, "origin": None, "count": 1}]


async def test_pages_go_through_all_of_them(client: httpx.AsyncClient, services: Services) -> None:
    dead = [
        (await bury(client, services, f"http://127.0.0.{number % 3 + 1}:9/hook"))[1]
        for number in range(7)
    ]
    found: list[str] = []
    url = "/v1/dead-letters?limit=2"
    for _ in range(9):
        answer = await client.get(url)
        page = answer.json()
        assert len(page["items"]) <= 2
        found += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            assert "link" not in answer.headers
            break
        url = answer.headers["link"].partition(">")[0].removeprefix("<")
        assert page["nextCursor"] in url
        assert "limit=2" in url
    assert found == dead


async def test_a_page_looks_at_so_many_and_leads_on(
    client: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.deadletters.SCAN", 2)
    for _ in range(4):
        await bury(client, services)
    _, last = await bury(client, services, reason="gone")
    found: list[str] = []
    query: dict[str, str] = {"reason": "gone"}
    for _ in range(9):
        page = (await client.get("/v1/dead-letters", params=query)).json()
        found += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            break
        query["cursor"] = page["nextCursor"]
    assert found == [last]


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ({}, 3),
        ({"reason": "gone"}, 1),
        ({"reason": "poison"}, 0),
        ({"type": "demo.echo"}, 3),
        ({"type": "document.analyze"}, 0),
        ({"endpoint": "http://127.0.0.2:9"}, 1),
        ({"endpoint": "http://127.0.0.1:9", "reason": "exhausted"}, 2),
        ({"diedAfter": "2026-01-01T00:00:00Z"}, 3),
        ({"diedBefore": "2026-01-01T00:00:00Z"}, 0),
        ({"tenant": "acme"}, 3),
        ({"tenant": "globex"}, 0),
        ({"kind": "job"}, 0),
    ],
)
async def test_filters(
    client: httpx.AsyncClient, services: Services, query: dict[str, str], number: int
) -> None:
    for url in ("http://127.0.0.1:9/a", "http://127.0.0.1:9/b"):
        await bury(client, services, url)
    await bury(client, services, "http://127.0.0.2:9/c", "gone")
    listed = (await client.get("/v1/dead-letters", params=query)).json()["items"]
    stats = (await client.get("/v1/dead-letters/stats", params=query)).json()
    assert (len(listed), stats["total"], stats["cut"]) == (number, number, False)
    for name in ("reasons", "endpoints", "types", "ages"):
        assert sum(each["count"] for each in stats[name]) == number


async def test_the_job_and_the_endpoint_are_filters_too(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id, delivery_id = await bury(client, services)
    await bury(client, services)
    [found] = (await client.get("/v1/dead-letters", params={"job": job_id})).json()["items"]
    assert found["id"] == delivery_id
    query = {"endpoint": found["endpointId"]}
    assert len((await client.get("/v1/dead-letters", params=query)).json()["items"]) == 2


async def test_a_count_that_was_cut_says_so(
    client: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.deadletters.COUNTED", 2)
    for _ in range(3):
        await bury(client, services)
    stats = (await client.get("/v1/dead-letters/stats")).json()
    assert (stats["total"], stats["cut"]) == (2, True)


@pytest.mark.parametrize(
    "query",
    [
        {"kind": "both"},
        {"reason": ""},
        {"limit": "0"},
        {"limit": "101"},
        {"cursor": "x"},
        {"diedAfter": "yesterday"},
        {"tenant": "A:b"},
        {"nobody": "knows"},
        {"endpoint": "x" * 2_049},
    ],
)
async def test_queries_that_cannot_be(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    problem = assert_problem(
        await client.get("/v1/dead-letters", params=query), "invalid_parameter"
    )
    assert next(iter(query)) in problem["detail"] or "known" in problem["detail"]
    twice = {name: [value, value] for name, value in query.items()}
    answer = await client.get("/v1/dead-letters", params=twice)
    assert_problem(answer, "invalid_parameter")
    if query.keys() & {"limit", "cursor"}:
        answer = await client.get("/v1/dead-letters/stats", params=query)
        assert_problem(answer, "invalid_parameter")
