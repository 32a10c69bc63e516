"""Failed jobs of all partitions, in one order; and run again, whoever's they are."""

from __future__ import annotations

import httpx
import pytest

from config.ids import new_id
from delivery.configure import policy_of
from gateway.deadletters import run_again, walk
from gateway.models import View
from gateway.rerun import Rerunner
from gateway.services import Services
from tests.gateway.conftest import Gateway
from tests.gateway.jobs import finish, submit


@pytest.fixture
def rerunner(services: Services) -> Rerunner:
    """Return what runs jobs again."""
    return Rerunner(
        jobs=services.jobs,
        artifacts=services.artifacts,
        ring=services.ring,
        clock=services.clock,
        policy=policy_of(services.settings),
    )


async def fail(client: httpx.AsyncClient, services: Services, count: int) -> list[str]:
    """Submit jobs, have them failed, and return them in that order."""
    jobs = [await submit(client) for _ in range(count)]
    for job_id in jobs:
        await finish(services, job_id, "failed", error="It broke.")
    return jobs


@pytest.mark.parametrize("page", [1, 3, 200])
async def test_oldest_first_whatever_is_read_at_once(
    client: httpx.AsyncClient,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    page: int,
) -> None:
    for module in ("delivery.deadletters", "gateway.deadletters"):
        monkeypatch.setattr(f"{module}.PAGE", page)
    failed = await fail(client, services, 12)
    await finish(services, await submit(client), "cancelled")
    assert [view.job.id async for view in walk(services.jobs)] == failed


async def test_what_was_run_again_is_no_dead_letter(
    gateway: Gateway, client: httpx.AsyncClient, services: Services, rerunner: Rerunner
) -> None:
    async with await gateway.client(tenant="other") as other:
        mine, theirs = await fail(client, services, 2), await fail(other, services, 1)
    waiting = await submit(client)
    unknown = new_id("job", 0, services.clock.now())
    said = await run_again(rerunner, [mine[0], theirs[0], mine[0], waiting, unknown])
    assert said.jobs.keys() == {mine[0], theirs[0]}
    assert said.skipped == {
        waiting: "the job is pending",
        unknown: "no job of this identifier is known",
    }
    for old, new in said.jobs.items():
        view = await services.jobs.read(new)
        assert isinstance(view, View)
        assert (view.job.retry_of, view.job.tenant) == (old, "acme" if old == mine[0] else "other")
    assert [view.job.id async for view in walk(services.jobs)] == mine[1:]
    again = await run_again(rerunner, [mine[0]])
    assert again.jobs == {}
    assert again.skipped == {mine[0]: f"it runs again as {said.jobs[mine[0]]} already"}
