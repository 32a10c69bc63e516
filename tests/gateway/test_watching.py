"""Watching jobs over a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from config.clock import SECOND
from config.ids import new_id
from config.store import Store
from gateway.models import Job, Tombstone, View
from gateway.problems import Problem
from gateway.services import Services
from gateway.watching import Watchers, WatchersClosed
from gateway.work import Report

State = View | Tombstone | None


@asynccontextmanager
async def listening(
    services: Services, limit: int = 100
) -> AsyncIterator[tuple[Watchers[State], list[str]]]:
    """Watchers at work, and the jobs they read, in order."""
    reads: list[str] = []

    async def read(job_id: str) -> State:
        reads.append(job_id)
        return await services.jobs.read(job_id)

    watchers = Watchers(services.store, read, limit)
    task = asyncio.create_task(watchers.run())
    try:
        yield watchers, reads
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def processing(services: Services) -> View:
    """A job that is being worked on, under the claim `wp-1:a`."""
    job = Job(
        id=new_id("job", 0, services.clock.now()),
        tenant="default",
        type="demo.echo",
        status="pending",
        rev=0,
        input={"payload": 1},
        timeout=60,
        result_ttl=3600 * SECOND,
    )
    await services.jobs.submit(job, None)
    view = await services.work.claim(job.id, "wp-1:a", lease=30 * SECOND)
    assert view is not None
    return view


async def report(services: Services, job: Job, percent: int) -> None:
    said = await services.work.progress(
        [Report(job_id=job.id, claim="wp-1:a", percent=percent, message="on it")]
    )
    assert said != [None]


def percent(state: State) -> int:
    assert isinstance(state, View)
    return state.job.progress


async def test_a_watcher_has_the_present_state_and_then_each_change(services: Services) -> None:
    job = (await processing(services)).job
    async with listening(services) as (watchers, _), watchers.watch(job.id) as watch:
        assert percent(await watch.next(10)) == 0
        await report(services, job, 40)
        while percent(await watch.next(10)) != 40:
            pass


async def test_many_watchers_cost_one_read_per_change(services: Services) -> None:
    job = (await processing(services)).job
    async with listening(services) as (watchers, reads):

        async def see() -> int:
            async with watchers.watch(job.id) as watch:
                while (seen := percent(await watch.next(10))) != 40:
                    if len(watchers) == 50 and not told.is_set():
                        told.set()
                        await report(services, job, 40)
                return seen

        told = asyncio.Event()
        assert await asyncio.gather(*(see() for _ in range(50))) == [40] * 50
        assert len(reads) <= 5
        assert len(watchers) == 0


async def test_a_slow_watcher_gets_the_newest_state_alone(services: Services) -> None:
    job = (await processing(services)).job
    async with listening(services) as (watchers, _), watchers.watch(job.id) as slow:
        await slow.next(10)
        async with watchers.watch(job.id) as quick:
            for step in (10, 20, 30):
                await report(services, job, step)
                while percent(await quick.next(10)) != step:
                    pass
        assert percent(await slow.next(10)) == 30
        with pytest.raises(TimeoutError):
            await slow.next(0.01)


async def test_a_lost_connection_loses_no_change(services: Services, store: Store) -> None:
    job = (await processing(services)).job
    async with listening(services) as (watchers, _), watchers.watch(job.id) as watch:
        await watch.next(10)
        await store.client.client_kill_filter(_type="pubsub", skipme=True)
        await report(services, job, 70)
        while percent(await watch.next(10)) != 70:
            pass


async def test_watching_the_unknown_gives_nothing(
    services: Services,
) -> None:
    async with listening(services) as (watchers, _):
        async with watchers.watch(new_id("job", 0, 0)) as watch:
            assert await watch.next(10) is None
        job = (await processing(services)).job
        async with watchers.watch(job.id) as watch:
            await watch.next(10)
            await services.work.retry(job.id, "wp-1:a", delay=0, attempt_record="{}")
            state = await watch.next(10)
            assert isinstance(state, View)
            assert state.job.status == "pending"


async def test_lost_connections_lose_nothing_however_often(
    services: Services, store: Store
) -> None:
    job = (await processing(services)).job
    async with listening(services) as (watchers, _), watchers.watch(job.id) as watch:
        await watch.next(10)
        for step in range(1, 20):
            await store.client.client_kill_filter(_type="pubsub", skipme=True)
            await report(services, job, step)
            while percent(await watch.next(10)) != step:
                pass


async def test_a_job_is_watched_again_after_its_last_watcher_left(services: Services) -> None:
    job = (await processing(services)).job
    async with listening(services) as (watchers, _):
        for step in range(1, 10):
            async with watchers.watch(job.id) as watch:
                await watch.next(10)
                await report(services, job, step)
                while percent(await watch.next(10)) != step:
                    pass


async def test_until_gives_what_holds_or_the_last_there_was(services: Services) -> None:
    job = (await processing(services)).job
    async with listening(services) as (watchers, _), watchers.watch(job.id) as watch:
        assert percent(await watch.until(lambda state: percent(state) == 0, 10)) == 0
        waiting = asyncio.create_task(watch.until(lambda state: percent(state) == 20, 10))
        await report(services, job, 10)
        await report(services, job, 20)
        assert percent(await waiting) == 20
        async with watchers.watch(job.id) as other:
            assert percent(await other.until(lambda _: False, 0.3)) == 20


async def test_no_more_than_the_limit_may_watch(services: Services) -> None:
    job = (await processing(services)).job
    async with listening(services, limit=1) as (watchers, _):
        async with watchers.watch(job.id):
            with pytest.raises(Problem) as refused:
                async with watchers.watch(job.id):
                    pass
            assert refused.value.code == "too_many_watchers"
            assert refused.value.headers["Retry-After"] == "5"
        async with watchers.watch(job.id):
            assert len(watchers) == 1


async def test_closing_lets_everyone_go(services: Services) -> None:
    job = (await processing(services)).job
    async with listening(services) as (watchers, _), watchers.watch(job.id) as watch:
        await watch.next(10)
        waiting = asyncio.create_task(watch.next())
        watchers.close()
        with pytest.raises(WatchersClosed):
            await waiting
        async with watchers.watch(new_id("job", 0, 0)) as late:
            with pytest.raises(WatchersClosed):
                await late.next()
