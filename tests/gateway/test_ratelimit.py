"""Limits of polls and submissions, counted in a real soft store whose clock the tests turn back."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from config.clock import SECOND, SystemClock
from config.store import Store, connect
from gateway.app import create_app
from gateway.ratelimit import Limit, RateLimiter, Standing
from tests.conftest import RunningStores
from tests.gateway.conftest import Gateway, MakeServices
from tests.gateway.jobs import ECHO, assert_problem, finish, submit

POLL = Limit(name="poll", quota=60, apart=SECOND * 9 // 10)
SUBMIT = Limit(name="submit", quota=60)


@pytest.fixture
async def soft(stores: RunningStores) -> AsyncIterator[Store]:
    """Return the soft store, empty."""
    connected = connect(stores.soft_url, max_connections=4, socket_timeout=5)
    await connected.client.flushall()
    yield connected
    await connected.close()


@pytest.fixture
def limiter(soft: Store) -> RateLimiter:
    """Return what counts in it."""
    return RateLimiter(soft, SystemClock())


async def pass_time(soft: Store, seconds: float) -> None:
    """Let so much time pass for everybody who was counted."""
    async for name in soft.client.scan_iter("gw:rate:*"):
        kept = await soft.client.hgetall(name)
        moved = {field: int(float(value)) - int(seconds * SECOND) for field, value in kept.items()}
        await soft.client.hset(name, mapping=moved)  # type: ignore[arg-type]


async def count(limiter: RateLimiter, limit: Limit, *who: str) -> Standing:
    """Count a request that must be counted."""
    standing = await limiter.count(limit, *who)
    assert standing is not None
    return standing


@pytest.mark.parametrize("limit", [POLL, SUBMIT], ids=["poll", "submit"])
async def test_a_burst_and_no_more(limiter: RateLimiter, soft: Store, limit: Limit) -> None:
    first = await count(limiter, limit, "key", "job")
    assert first.fields == {
        "RateLimit-Policy": f'"{limit.name}";q=60;w=60',
        "RateLimit": f'"{limit.name}";r=59;t=1',
    }
    passed, refused = 1, await count(limiter, limit, "key", "job")
    while refused.allowed and passed < 1_000:
        passed, refused = passed + 1, await count(limiter, limit, "key", "job")
    assert passed >= 60
    assert not refused.allowed
    assert refused.left == 0
    assert 0 < refused.wait <= SECOND
    assert 55 * SECOND < refused.reset <= 60 * SECOND
    assert (await count(limiter, limit, "key", "another job")).allowed
    assert (await count(limiter, limit, "another key", "job")).allowed
    await pass_time(soft, 60)
    assert (await count(limiter, limit, "key", "job")).left >= 58


async def test_polls_a_second_apart_are_never_refused(limiter: RateLimiter, soft: Store) -> None:
    for _ in range(200):
        await count(limiter, POLL, "key", "job")
    for _ in range(100):
        await pass_time(soft, 0.95)
        standing = await count(limiter, POLL, "key", "job")
        assert standing.allowed
        assert standing.left >= 0


async def test_counters_go_by_themselves(limiter: RateLimiter, soft: Store) -> None:
    await count(limiter, POLL, "key", "job")
    [name] = [name async for name in soft.client.scan_iter("gw:rate:*")]
    assert b"key" not in name
    assert 0 < await soft.client.pttl(name) <= 61_000


async def test_nobody_is_refused_while_the_store_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = connect(f"unix://{tmp_path}/none", max_connections=4, socket_timeout=0.1)
    limiter = RateLimiter(gone, SystemClock())
    with caplog.at_level(logging.WARNING, logger="gateway.ratelimit"):
        for _ in range(100):
            assert await limiter.count(SUBMIT, "key") is None
    assert [each.getMessage() for each in caplog.records] == ["ratelimit.unavailable"]
    await gone.close()


@pytest.fixture
async def limited(make_services: MakeServices, limiter: RateLimiter) -> Gateway:
    """Return an application with limits that a test can reach."""
    services = make_services(
        GATEWAY_API_RATE_LIMITS="true",
        GATEWAY_API_POLLS_PER_MINUTE="3",
        GATEWAY_API_SUBMITS_PER_MINUTE="4",
    )
    return Gateway(services, create_app(services, limiter=limiter))


async def poll(client: httpx.AsyncClient, url: str) -> tuple[list[int], httpx.Response]:
    """Poll until it is too much; return the statuses before that, and the refusal."""
    statuses: list[int] = []
    for _ in range(100):
        answer = await client.get(url)
        if answer.status_code == 429:
            return statuses, answer
        statuses.append(answer.status_code)
    pytest.fail("never refused")


async def test_polls_beyond_the_limit(limited: Gateway) -> None:
    async with await limited.client() as client, await limited.client() as another:
        job_id = await submit(client)
        answer = await client.get(f"/v1/jobs/{job_id}")
        assert answer.headers["ratelimit-policy"] == '"poll";q=3;w=60'
        assert answer.headers["ratelimit"] == '"poll";r=2;t=20'
        statuses, refused = await poll(client, f"/v1/jobs/{job_id}")
        assert statuses[:2] == [200, 200]
        assert_problem(refused, "rate_limited")
        assert refused.headers["ratelimit"].startswith('"poll";r=0;t=')
        assert refused.headers["retry-after"] == "1"
        assert (await another.get(f"/v1/jobs/{job_id}")).status_code == 200
        assert (await client.get(f"/v1/jobs/{job_id}/result")).status_code == 409


async def test_submissions_beyond_the_limit(limited: Gateway) -> None:
    async with await limited.client() as client:
        for left in (3, 2, 1, 0):
            answer = await client.post("/v1/jobs", json=ECHO)
            assert answer.status_code == 202
            assert answer.headers["ratelimit"].startswith(f'"submit";r={left};t=')
        refused = await client.post("/v1/jobs", json=ECHO)
        assert_problem(refused, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 15
        assert (await client.get("/v1/jobs")).status_code == 200


async def test_the_end_carries_no_fields(limited: Gateway) -> None:
    async with await limited.client() as client:
        job_id = await submit(client)
        await finish(limited.services, job_id, results={"payload": 1})
        answer = await client.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 303
        assert not [name for name in answer.headers if name.startswith("ratelimit")]


async def test_a_ticket_is_counted_by_itself(limited: Gateway) -> None:
    async with await limited.client() as client, limited.anyone() as holder:
        job_id = await submit(client)
        ticket = (await client.post(f"/v1/jobs/{job_id}/ticket")).json()["ticket"]
        statuses, refused = await poll(holder, f"/v1/jobs/{job_id}?ticket={ticket}")
        assert statuses[:3] == [200, 200, 200]
        assert_problem(refused, "rate_limited")
        assert (await client.get(f"/v1/jobs/{job_id}")).status_code == 200


async def test_who_has_no_credentials_is_not_counted(limited: Gateway, soft: Store) -> None:
    async with limited.anyone() as anyone:
        for _ in range(9):
            assert_problem(await anyone.get("/v1/jobs/x"), "unauthorized")
            assert_problem(await anyone.post("/v1/jobs", json=ECHO), "unauthorized")
    assert [name async for name in soft.client.scan_iter("gw:rate:*")] == []


async def test_development_has_no_limits(
    make_services: MakeServices, limiter: RateLimiter, soft: Store
) -> None:
    services = make_services()
    gateway = Gateway(services, create_app(services, limiter=limiter))
    async with await gateway.client() as client:
        answer: httpx.Response = await client.get(f"/v1/jobs/{await submit(client)}")
    assert "ratelimit" not in answer.headers
    assert [name async for name in soft.client.scan_iter("gw:rate:*")] == []
