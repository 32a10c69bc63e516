"""How many jobs may wait: counted by the store, refused without asking it."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from config.clock import SECOND
from gateway.admission import Admission
from gateway.app import create_app
from gateway.problems import Problem
from gateway.services import Services
from tests.gateway.conftest import Gateway, MakeServices
from tests.gateway.jobs import ECHO, assert_problem, finish, submit
from tests.processes import eventually


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        """Return µs."""
        return int(self.seconds * SECOND)

    def monotonic(self) -> float:
        """Return seconds."""
        return self.seconds


def code_of(admission: Admission, tenant: str) -> str | None:
    """Return the code of the refusal of one more job, None when it may wait."""
    try:
        admission.check(tenant)
    except Problem as problem:
        return problem.code
    return None


@pytest.fixture
def tight(make_services: MakeServices) -> Services:
    """Return services that let five jobs wait, and three of one tenant."""
    return make_services(GATEWAY_JOBS_MAX_PENDING="5", GATEWAY_JOBS_MAX_PENDING_PER_TENANT="3")


@pytest.fixture
def admission(tight: Services) -> Admission:
    """Return the gauge of those."""
    return Admission(tight.jobs, tight.settings, tight.clock)


async def test_what_was_accepted_counts_at_once(admission: Admission) -> None:
    for _ in range(3):
        assert code_of(admission, "acme") is None
        admission.accepted("acme")
    assert code_of(admission, "acme") == "too_many_pending"
    for _ in range(2):
        assert code_of(admission, "other") is None
        admission.accepted("other")
    assert code_of(admission, "other") == "queue_full"
    assert code_of(admission, "third") == "queue_full"


async def test_a_count_replaces_what_was_added_to_the_last(
    client: httpx.AsyncClient, services: Services, admission: Admission
) -> None:
    jobs = [await submit(client) for _ in range(3)]
    assert code_of(admission, "acme") is None  # never seen before, so not counted yet
    for _ in range(2):
        await admission.poll()
        assert code_of(admission, "acme") == "too_many_pending"
        assert code_of(admission, "other") is None
    await finish(services, jobs[0])
    await admission.poll()
    assert code_of(admission, "acme") is None
    admission.accepted("acme")
    assert code_of(admission, "acme") == "too_many_pending"
    for _ in range(5):
        await admission.poll()
        assert code_of(admission, "acme") is None
        admission.accepted("acme")
    await admission.poll()
    assert code_of(admission, "other") is None


async def test_what_is_accepted_during_a_count_is_not_forgotten(admission: Admission) -> None:
    admission.check("acme")
    counting = asyncio.create_task(admission.poll())
    await asyncio.sleep(0)
    for tenant in ("acme", "acme", "acme", "other", "other"):
        admission.accepted(tenant)
    await counting
    assert code_of(admission, "third") == "queue_full"


async def test_nor_what_is_accepted_of_one_tenant(admission: Admission) -> None:
    admission.check("acme")
    counting = asyncio.create_task(admission.poll())
    await asyncio.sleep(0)
    for _ in range(3):
        admission.accepted("acme")
    await counting
    assert code_of(admission, "acme") == "too_many_pending"


async def test_tenants_that_fell_silent_are_not_counted(
    client: httpx.AsyncClient, tight: Services
) -> None:
    clock = Hand()
    admission = Admission(tight.jobs, tight.settings, clock)
    for _ in range(3):
        await submit(client)
    admission.check("acme")
    await admission.poll()
    assert code_of(admission, "acme") == "too_many_pending"
    clock.seconds += 61
    await admission.poll()
    assert code_of(admission, "acme") is None


async def test_the_tenants_remembered_are_bounded(admission: Admission) -> None:
    for _ in range(3):
        admission.accepted("first")
    for number in range(1_000):
        code_of(admission, str(number))
    assert code_of(admission, "first") is None


async def test_refusals_over_http(tight: Services) -> None:
    admission = Admission(tight.jobs, tight.settings, tight.clock)
    gateway = Gateway(tight, create_app(tight, admission))
    async with await gateway.client() as client, await gateway.client("other") as other:
        keyed = {"Idempotency-Key": "one"}
        for _ in range(3):
            await client.post("/v1/jobs", json=ECHO, headers=keyed)  # one job, however often
        failed = await submit(client)
        await finish(tight, failed, "failed")
        await submit(client)
        refused = await client.post("/v1/jobs", json=ECHO)
        assert_problem(refused, "too_many_pending")
        assert refused.headers["retry-after"] == "5"
        assert_problem(await client.post(f"/v1/jobs/{failed}/retry"), "too_many_pending")
        await admission.poll()
        assert (await client.post(f"/v1/jobs/{failed}/retry")).status_code == 202
        for _ in range(2):
            await submit(other)
        refused = await other.post("/v1/jobs", json=ECHO)
        assert_problem(refused, "queue_full")
        assert refused.headers["retry-after"] == "5"


async def test_it_counts_by_itself(
    client: httpx.AsyncClient, services: Services, admission: Admission
) -> None:
    for _ in range(5):
        await submit(client)
    counting = asyncio.create_task(admission.run())
    try:
        assert await asyncio.to_thread(
            eventually, lambda: code_of(admission, "other") == "queue_full"
        )
    finally:
        counting.cancel()
