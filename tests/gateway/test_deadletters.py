"""Failed jobs as dead letters: listed in one order, run again and purged by replays."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from config.ids import new_id, partition_of
from delivery.letters import START, Filter
from delivery.replay_steps import Batch
from delivery.replays import Definition, Progress, Replay, total
from delivery.runner import ReplayRunner
from gateway.artifacts import ArtifactError
from gateway.deadletters import DeadLetters, Query
from gateway.jobmover import JobMover
from gateway.models import View
from gateway.problems import Problem
from gateway.rerun import Rerun, Rerunner
from gateway.services import Services
from tests.gateway.conftest import Gateway, MakeServices
from tests.gateway.jobs import finish, submit

ALL = Definition(filter=Filter())
ROUNDS = 100


async def fail(client: httpx.AsyncClient, services: Services, count: int) -> list[str]:
    """Submit jobs, have them failed, and return them in that order."""
    jobs = [await submit(client) for _ in range(count)]
    for job_id in jobs:
        await finish(services, job_id, "failed", error="It broke.", error_code="broken")
    return jobs


async def listed(services: Services, tenant: str = "acme") -> list[str]:
    query = Query(kind="job", filter=Filter(), tenant=None, limit=1_000)
    found, place = await DeadLetters(services).page(query, tenant)
    assert place is None
    return [row.letter.id for row in found]


class Side:
    """Replays of jobs, and a relay that runs them."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.runner = ReplayRunner(
            store=services.store,
            replays=services.replays,
            mover=JobMover(services),
            clock=services.clock,
        )

    async def create(self, definition: Definition = ALL, *named: str) -> Replay:
        if named:
            definition = replace(definition, filter=None, named=len(named))
        made = await self.services.replays.create(
            new_id("rpl", 0, 0), "acme", "job", definition, named=named
        )
        assert made is not None
        return made

    async def carry_out(self, replay: Replay) -> Progress:
        for _ in range(ROUNDS):
            await self.services.store.client.zadd("gw:{p00}:replaying:job", {replay.id: 1}, xx=True)
            await self.runner.round()
            found = await self.services.replays.read(replay.id)
            if found is not None and found.state == "completed":
                parts = await self.services.replays.progress(replay.id)
                return total(parts.values())
        pytest.fail("still running")

    async def jobs_of(self, old_ids: list[str]) -> list[View]:
        """Return the new jobs of those that were run again."""
        views = [await self.services.jobs.read(each) for each in old_ids]
        news = [
            await self.services.jobs.read(view.job.retried_as)
            for view in views
            if isinstance(view, View) and view.job.retried_as
        ]
        return [view for view in news if isinstance(view, View)]


@pytest.fixture
def side(services: Services) -> Side:
    return Side(services)


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
    assert await listed(services) == failed
    assert await services.failed.count_failed("acme") == 12


async def test_all_are_run_again_once(
    gateway: Gateway, client: httpx.AsyncClient, services: Services, side: Side
) -> None:
    async with await gateway.client(tenant="other") as other:
        theirs = await fail(other, services, 1)
    mine = await fail(client, services, 25)
    progress = await side.carry_out(await side.create())
    assert (progress.looked, progress.matched, progress.moved) == (25, 25, 25)
    assert progress.reasons == {"broken": 25}
    new = await side.jobs_of(mine)
    assert [view.job.retry_of for view in new] == mine
    assert {view.job.tenant for view in new} == {"acme"}
    assert await listed(services) == []
    assert await listed(services, "other") == theirs


async def test_of_those_named_the_others_are_left_alone(
    gateway: Gateway, client: httpx.AsyncClient, services: Services, side: Side
) -> None:
    async with await gateway.client(tenant="other") as other:
        [theirs] = await fail(other, services, 1)
    mine = await fail(client, services, 3)
    answer = await client.post(f"/v1/jobs/{mine[0]}/retry")
    assert answer.status_code == 202
    waiting = await submit(client)
    unknown = new_id("job", 0, services.clock.now())
    progress = await side.carry_out(await side.create(ALL, *mine, theirs, waiting, unknown))
    assert (progress.looked, progress.matched, progress.moved) == (6, 2, 2)
    assert progress.skipped == {"pending": 1, "retried": 1, "unknown": 2}
    assert len(await side.jobs_of(mine)) == 3


async def test_a_dry_run_runs_none(
    client: httpx.AsyncClient, services: Services, side: Side
) -> None:
    mine = await fail(client, services, 3)
    progress = await side.carry_out(await side.create(replace(ALL, dry_run=True)))
    assert (progress.matched, progress.moved) == (3, 0)
    assert await listed(services) == mine


async def test_purged_ones_leave_the_list_and_stay_jobs(
    client: httpx.AsyncClient, services: Services, side: Side
) -> None:
    mine = await fail(client, services, 4)
    purge = replace(ALL, action="purge", filter=Filter(tags={"jobId": mine[0]}))
    progress = await side.carry_out(await side.create(purge))
    assert (progress.looked, progress.moved) == (4, 1)
    assert await listed(services) == mine[1:]
    job = (await client.get(f"/v1/jobs/{mine[0]}")).json()
    assert (job["status"], job["retriedAs"]) == ("failed", None)
    named = await side.carry_out(await side.create(ALL, mine[0]))
    assert named.skipped == {"purged": 1}


async def test_a_batch_is_purged_once(
    client: httpx.AsyncClient, services: Services, side: Side
) -> None:
    [job] = await fail(client, services, 1)
    replay = await side.create(replace(ALL, action="purge"))
    batch = Batch(place=START, to=(1, job), done=False, chosen=(job,), counts={"looked": 1})
    purge = services.failed.purge
    assert await purge(replay.id, partition_of(job), batch) == 1
    assert await purge(replay.id, partition_of(job), batch) == 2
    assert await purge(replay.id, partition_of(job), replace(batch, to=(2, job))) == 0
    parts = await services.replays.progress(replay.id)
    assert total(parts.values()).moved == 1


@pytest.mark.parametrize("survives", [0, 1, 2])
async def test_what_a_dead_relay_left_half_way_is_brought_to_its_end(
    client: httpx.AsyncClient,
    services: Services,
    side: Side,
    monkeypatch: pytest.MonkeyPatch,
    survives: int,
) -> None:
    """A job that was only marked as run again is no dead letter any more: the plan remembers it."""
    mine = await fail(client, services, 6)
    replay = await side.create()
    run_again, runs = Rerunner.run_again, 0

    async def dies(rerunner: Rerunner, job_id: str, *, tenant: str | None) -> Rerun:
        nonlocal runs
        runs += 1
        if runs > survives:
            await services.jobs.reserve_retry(job_id, new_id("job", partition_of(job_id), 0))
            raise ArtifactError("gone")
        return await run_again(rerunner, job_id, tenant=tenant)

    with monkeypatch.context() as patched:
        patched.setattr(Rerunner, "run_again", dies)
        for _ in range(3):
            await services.store.client.zadd("gw:{p00}:replaying:job", {replay.id: 1}, xx=True)
            await side.runner.round()
    side.runner = Side(services).runner
    progress = await side.carry_out(replay)
    assert (progress.matched, progress.moved) == (6, 6)
    assert [view.job.retry_of for view in await side.jobs_of(mine)] == mine
    pending, _ = await services.jobs.backlog([])
    assert pending == 6


async def test_one_that_cannot_be_run_again_is_skipped(
    client: httpx.AsyncClient,
    services: Services,
    side: Side,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = await fail(client, services, 3)
    run_again = Rerunner.run_again

    async def refuses(rerunner: Rerunner, job_id: str, *, tenant: str | None) -> Rerun:
        if job_id == mine[1]:
            raise Problem("invalid_callback_url", "not any more")
        return await run_again(rerunner, job_id, tenant=tenant)

    monkeypatch.setattr(Rerunner, "run_again", refuses)
    progress = await side.carry_out(await side.create())
    assert (progress.matched, progress.moved) == (3, 2)
    assert progress.skipped == {"invalid_callback_url": 1}
    assert await listed(services) == [mine[1]]


async def test_no_more_wait_than_may(
    client: httpx.AsyncClient, make_services: MakeServices
) -> None:
    services = make_services(GATEWAY_JOBS_MAX_PENDING_PER_TENANT="13")
    side = Side(services)
    mine = await fail(client, services, 25)
    replay = await side.create()
    for _ in range(20):
        await services.store.client.zadd("gw:{p00}:replaying:job", {replay.id: 1}, xx=True)
        await side.runner.round()
    pending, _ = await services.jobs.backlog([])
    assert pending == 13
    for view in await side.jobs_of(mine):
        await finish(services, view.job.id)
    progress = await side.carry_out(replay)
    assert progress.moved == 25
