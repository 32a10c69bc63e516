"""`GET /v1/jobs` on a real store: filters, pages, other tenants, a bounded look."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from config.clock import SECOND
from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from gateway import store as gateway_store
from gateway.models import Status
from gateway.services import Services
from tests.gateway.conftest import PUBLIC_URL, Gateway
from tests.gateway.jobs import ECHO, assert_problem, finish, submit

TEXT = {"type": "document.analyze", "input": {"text": "one two"}}


async def walk(client: httpx.AsyncClient, **query: Any) -> list[list[str]]:
    """Follow `nextCursor` to the end; return the identifiers of each page."""
    pages: list[list[str]] = []
    url = httpx.URL("/v1/jobs", params=query)
    for _ in range(200):
        answer = await client.get(url)
        assert answer.status_code == 200
        body = answer.json()
        pages.append([item["jobId"] for item in body["items"]])
        if body["nextCursor"] is None:
            assert "link" not in answer.headers
            return pages
        link = answer.headers["link"]
        assert link.startswith(f"<{PUBLIC_URL}/v1/jobs?")
        assert link.endswith('>; rel="next"')
        url = httpx.URL(link[1:].partition(">")[0])
        assert url.params["cursor"] == body["nextCursor"]
    pytest.fail("the list never ends")


async def every(client: httpx.AsyncClient, **query: Any) -> list[str]:
    """Return the identifiers of all pages."""
    return [job_id for page in await walk(client, **query) for job_id in page]


async def test_there_is_nothing_at_first(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/jobs")
    assert answer.json() == {"items": [], "nextCursor": None}
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content.endswith(b"\n")


async def test_newest_first_page_by_page(client: httpx.AsyncClient) -> None:
    made = [await submit(client) for _ in range(11)]
    pages = await walk(client, limit=4)
    assert [len(page) for page in pages] == [4, 4, 3]
    assert [job_id for page in pages for job_id in page] == made[::-1]
    assert await walk(client, limit=11) == [made[::-1]]


async def test_an_item_is_the_job_document_without_results(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(
        client,
        callbackUrl="http://127.0.0.1:9/hook?key=1",
        callback={"headers": {"X-Key": "1"}},
        metadata={"a": [1]},
        priority="high",
        onComplete="inline",
    )
    await finish(services, job_id, results={"payload": "x"})
    [item] = (await client.get("/v1/jobs")).json()["items"]
    document = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert document.pop("results") == {"payload": "x"}
    assert item == document


async def test_an_item_under_way_and_failed(client: httpx.AsyncClient, services: Services) -> None:
    for status in ("failed", None):
        job_id = await submit(client, queueTimeoutSeconds=60, runAt=None)
        if status is None:
            await services.work.claim(job_id, "claim", lease=30 * SECOND)
        else:
            await finish(services, job_id, "failed", error="It broke.", error_code="x")
        item = (await client.get("/v1/jobs")).json()["items"][0]
        document = (await client.get(f"/v1/jobs/{job_id}")).json()
        del document["results"]
        for each in (item, document):
            each.pop("estimatedCompletion")
        assert item == document


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "failed", "cancelled"])
async def test_by_status(client: httpx.AsyncClient, services: Services, status: Status) -> None:
    by_status: dict[str, list[str]] = {"pending": [await submit(client) for _ in range(2)]}
    by_status["processing"] = [await submit(client) for _ in range(2)]
    for job_id in by_status["processing"]:
        await services.work.claim(job_id, "claim", lease=30 * SECOND)
    ends: tuple[Status, ...] = ("completed", "failed", "cancelled")
    for end in ends:
        by_status[end] = [await submit(client) for _ in range(2)]
        for job_id in by_status[end]:
            await finish(services, job_id, end)
    assert await every(client, status=status) == by_status[status][::-1]
    assert await every(client, status=status, limit=1) == by_status[status][::-1]


async def test_by_type(client: httpx.AsyncClient) -> None:
    texts = []
    for _ in range(4):
        await submit(client)
        texts.append((await client.post("/v1/jobs", json=TEXT)).json()["jobId"])
    assert await every(client, type="document.analyze", limit=3) == texts[::-1]
    assert await every(client, type="document.analyze", status="failed") == []
    assert await every(client, type="nobody.knows") == []


async def test_a_filter_looks_at_so_many_and_leads_on(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_store, "SCAN", 3)
    [first] = [(await client.post("/v1/jobs", json=TEXT)).json()["jobId"]]
    for _ in range(20):
        await submit(client)
    pages = await walk(client, type="document.analyze", limit=5)
    assert len(pages) > 2
    assert [job_id for page in pages for job_id in page] == [first]


async def test_by_time(client: httpx.AsyncClient, services: Services, store: Store) -> None:
    made = [await submit(client) for _ in range(6)]
    for number, job_id in enumerate(made):
        await date(store, job_id, (1_000 + number) * SECOND)
    second, fifth = "1970-01-01T00:16:41Z", "1970-01-01T00:16:44.000Z"
    assert await every(client, createdAfter=second, createdBefore=fifth) == made[1:4][::-1]
    assert await every(client, createdAfter=fifth) == made[4:][::-1]
    assert await every(client, createdBefore=second, limit=1) == made[:1]
    assert (
        await every(client, createdAfter=second, createdBefore=fifth, limit=1) == (made[1:4][::-1])
    )


async def test_made_at_one_instant(client: httpx.AsyncClient, store: Store) -> None:
    made = [await submit(client) for _ in range(9)]
    for job_id in made:
        await date(store, job_id, 5 * SECOND)
    assert await every(client, limit=2) == sorted(made, reverse=True)


async def date(store: Store, job_id: str, made_at: int) -> None:
    """Have the job made at another instant."""
    prefix = partition_prefix(partition_of(job_id))
    await store.client.hset(f"{prefix}j:{job_id}", "createdAt", str(made_at))
    for index in ("jobs:acme", "jobs:acme:pending"):
        await store.client.zadd(f"{prefix}{index}", {job_id: made_at}, xx=True)


async def test_what_changes_during_a_walk_neither_doubles_nor_hides(
    client: httpx.AsyncClient, services: Services
) -> None:
    made = [await submit(client) for _ in range(6)]
    first = (await client.get("/v1/jobs", params={"limit": 3})).json()
    await submit(client)
    await finish(services, made[3])
    assert (await client.delete(f"/v1/jobs/{made[3]}")).status_code == 204
    rest = await every(client, cursor=first["nextCursor"])
    assert [item["jobId"] for item in first["items"]] + rest == made[::-1]


async def test_tenants_see_their_own(gateway: Gateway, client: httpx.AsyncClient) -> None:
    mine = await submit(client)
    async with await gateway.client("acme2") as other:
        theirs = await submit(other)
        assert await every(other) == [theirs]
        assert await every(other, status="pending") == [theirs]
    assert await every(client) == [mine]


async def test_who_may_list(gateway: Gateway) -> None:
    async with gateway.anyone() as anyone:
        assert_problem(await anyone.get("/v1/jobs"), "unauthorized")
    async with await gateway.client(scopes=frozenset({"submit"})) as writer:
        assert_problem(await writer.get("/v1/jobs"), "insufficient_scope")
    async with await gateway.client(scopes=frozenset({"read"})) as reader:
        assert (await reader.get("/v1/jobs")).status_code == 200
        assert (await reader.head("/v1/jobs")).content == b""
        assert_problem(await reader.post("/v1/jobs", json=ECHO), "insufficient_scope")


async def test_bad_parameters(client: httpx.AsyncClient) -> None:
    for query in ("status=done", "limit=0", "cursor=x", "state=failed", "limit=1&limit=2"):
        assert_problem(await client.get(f"/v1/jobs?{query}"), "invalid_parameter")
