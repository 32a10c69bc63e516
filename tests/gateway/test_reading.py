"""Results count as read once a client was sent them, and not before."""

from __future__ import annotations

import httpx
import pytest

from config.store import Store
from gateway import tickets
from gateway.models import View
from gateway.services import Services
from tests.gateway.conftest import Gateway
from tests.gateway.jobs import finish, submit


async def read_at(services: Services, job_id: str) -> int | None:
    """Return when the job's results were first read."""
    view = await services.jobs.read(job_id)
    assert isinstance(view, View)
    return view.job.read_at


async def marks(store: Store) -> int:
    """Return how often the store was told of a reading, as far as its own count goes."""
    counted = await store.client.info("commandstats")
    return int(counted["cmdstat_hsetnx"]["calls"])


@pytest.mark.parametrize("path", ["", "?onComplete=inline", "/result"])
async def test_an_answer_with_results_is_a_reading(
    client: httpx.AsyncClient, services: Services, store: Store, path: str
) -> None:
    job_id = await submit(client)
    await finish(services, job_id, results={"payload": 1})
    assert await read_at(services, job_id) is None
    await client.head(f"/v1/jobs/{job_id}{path}")
    assert await read_at(services, job_id) is None
    await client.get(f"/v1/jobs/{job_id}{path}")
    first = await read_at(services, job_id)
    assert first is not None
    before = await marks(store)
    await client.get(f"/v1/jobs/{job_id}{path}")
    assert await read_at(services, job_id) == first
    assert await marks(store) == before


async def test_a_ticket_reads_too(
    gateway: Gateway, client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(client)
    ended = await finish(services, job_id, results={"payload": 1})
    key = services.ring.derive(tickets.PURPOSE)
    ticket = tickets.mint(job_id, ended.now + 60_000_000, key)
    async with gateway.anyone() as anyone:
        assert (await anyone.get(f"/v1/jobs/{job_id}/result?ticket={ticket}")).status_code == 200
    assert await read_at(services, job_id) is not None


async def test_what_carries_no_results_is_none(
    gateway: Gateway, client: httpx.AsyncClient, services: Services
) -> None:
    waiting, done = await submit(client), await submit(client)
    await client.get(f"/v1/jobs/{waiting}")
    await finish(services, waiting, "failed", error="It broke.")
    await client.get(f"/v1/jobs/{waiting}")
    await client.get(f"/v1/jobs/{waiting}/result")
    assert await read_at(services, waiting) is None
    await finish(services, done, results={"payload": 1})
    url = f"/v1/jobs/{done}?onComplete=inline"
    etag = (await client.head(url)).headers["etag"]
    known = await client.get(url, headers={"If-None-Match": etag})
    assert known.status_code == 304
    async with await gateway.client(tenant="other") as other:
        assert (await other.get(f"/v1/jobs/{done}")).status_code == 404
    assert await read_at(services, done) is None


async def test_a_reading_that_cannot_be_noted_is_answered_all_the_same(
    client: httpx.AsyncClient, services: Services, store: Store
) -> None:
    job_id = await submit(client)
    await finish(services, job_id, results={"payload": 1})
    # A key of another kind where the script looks makes it fail.
    await store.client.set(f"gw:{{p{int(job_id[4:6]):02d}}}:notices", "in the way")
    answer = await client.get(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()["results"]) == (303, {"payload": 1})
    assert await read_at(services, job_id) is None
