"""Leases: attempts kept apart, stops passed on, and one place for a suspect."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from config.clock import StoreClock, SystemClock
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import Retention
from gateway.leases import Held, Leases
from gateway.models import Job
from gateway.outbox import Outbox
from gateway.run import run_job
from gateway.store import JobStore
from gateway.work import Renewal, WorkStore
from gateway.worker import Worker
from tests.conftest import RunningStores
from tests.faults.records import Record
from tests.gateway import test_store, test_worker
from tests.gateway.test_store import a_job, lapse
from tests.processes import PATIENCE, eventually

NO_DEADLINE = float("inf")

deliveries, scripts = test_store.deliveries, test_store.scripts
jobs, work, outbox = test_store.jobs, test_store.work, test_store.outbox
make_worker, worker, record = test_worker.make_worker, test_worker.worker, test_worker.record


@pytest.fixture
def leases(work: WorkStore, store: Store) -> Leases:
    return Leases(work, store, StoreClock(SystemClock()), 30.0)


async def attempt(leases: Leases, work: WorkStore, job: Job) -> Held:
    """Claim the job for one more attempt of this process."""
    claim = leases.new_claim()
    view = await work.claim(job.id, claim, lease=leases.length)
    assert view is not None
    return Held(view.job, claim, NO_DEADLINE)


async def swept(leases: Leases, outbox: Outbox) -> int:
    """Sweep; return how many jobs came back although their process lives."""
    back, _ = await outbox.sweep([leases.process], lease=leases.length, at_most=10)
    return back


async def test_a_job_that_comes_back_to_its_process_is_held_apart_from_the_lost_attempt(
    leases: Leases, jobs: JobStore, work: WorkStore, outbox: Outbox, store: Store
) -> None:
    job = a_job(jobs, callback=False, max_attempts=5)
    await jobs.submit(job, None)
    first = await attempt(leases, work, job)
    with ExitStack() as later:
        with leases.holding(first):
            await lapse(store, jobs)
            assert await swept(leases, outbox) == 1
            second = await attempt(leases, work, job)
            later.enter_context(leases.holding(second))
            await leases.renew()
            assert (first.is_lost, first.stop.is_set()) == (True, True)
            assert (second.is_lost, second.stop.is_set()) == (False, False)
        # The first has ended; the second is renewed none the less.
        assert leases.all() == [second]
        await lapse(store, jobs)
        await leases.renew()
        assert await swept(leases, outbox) == 0
        assert not second.is_lost
    assert leases.all() == []


async def test_an_attempt_that_ends_during_a_renewal_is_not_lost(
    scripts: tuple[Store, int, StoreClock, Retention], store: Store, jobs: JobStore
) -> None:
    holding = ExitStack()

    class Ending(WorkStore):
        """Here the attempt is over by the time that its renewal arrives."""

        async def renew(
            self, held: Mapping[int, Sequence[tuple[str, str]]], *, lease: int
        ) -> dict[str, Renewal]:
            [[(job_id, claim)]] = held.values()
            assert await self.release(job_id, claim, attempt_record="{}") == "waiting"
            holding.close()
            return await super().renew(held, lease=lease)

    work = Ending(*scripts)
    leases = Leases(work, store, StoreClock(SystemClock()), 30.0)
    job = a_job(jobs, callback=False)
    await jobs.submit(job, None)
    held = await attempt(leases, work, job)
    holding.enter_context(leases.holding(held))
    await leases.renew()
    assert (held.is_lost, held.stop.is_set()) == (False, False)


async def test_a_cancel_is_passed_on_by_a_renewal(
    leases: Leases, jobs: JobStore, work: WorkStore
) -> None:
    job = a_job(jobs, callback=False)
    await jobs.submit(job, None)
    held = await attempt(leases, work, job)
    with leases.holding(held):
        await leases.renew()
        assert not held.stop.is_set()
        await jobs.cancel(job.id)
        await leases.renew()
    assert (held.is_cancelled, held.stop.is_set(), held.is_lost) == (True, True, False)


# The suspect's place


def test_there_is_one_place_for_a_suspect(leases: Leases) -> None:
    with leases.suspect_place() as first:
        with leases.suspect_place() as second:
            assert (first.is_ours, second.is_ours) == (True, False)
        with leases.suspect_place() as third:
            assert not third.is_ours
    with leases.suspect_place() as fourth:
        assert fourth.is_ours


def test_a_place_is_given_back_once(leases: Leases) -> None:
    with leases.suspect_place() as first:
        first.give_back()
        with leases.suspect_place() as second:
            assert second.is_ours
            first.give_back()
            with leases.suspect_place() as third:
                assert not third.is_ours


def make_suspect(stores: RunningStores, job_id: str) -> None:
    """Have two processes died of the job, as far as the store knows."""
    with Redis.from_url(stores.durable_url) as client:
        client.hset(f"{partition_prefix(1)}j:{job_id}", "lost", 2)


@pytest.mark.parametrize(
    ("first_is_suspect", "second_is_suspect", "second_ends_as"),
    [
        (False, True, "completed"),
        (True, False, "completed"),
        (True, True, "pending"),
        (False, False, "completed"),
    ],
)
def test_only_a_suspect_keeps_a_suspect_waiting(
    worker: Worker,
    stores: RunningStores,
    record: Record,
    tmp_path: Path,
    first_is_suspect: bool,
    second_is_suspect: bool,
    second_ends_as: str,
) -> None:
    go_on = tmp_path / "go-on"
    held = {"record": str(record), "until": str(go_on)}
    first = test_worker.submit(worker, "faulty.held", held, max_attempts=9)
    second = test_worker.submit(worker, "demo.echo", {"payload": 1}, max_attempts=9)
    for job_id, is_suspect in ((first, first_is_suspect), (second, second_is_suspect)):
        if is_suspect:
            make_suspect(stores, job_id)
    thread = threading.Thread(target=run_job, args=(first, worker))
    thread.start()
    try:
        assert eventually(lambda: record.executions() == {first: 1})
        run_job(second, worker)
        assert test_worker.read(worker, second).status == second_ends_as
    finally:
        go_on.touch()
        thread.join(PATIENCE)
    run_job(second, worker)
    assert test_worker.read(worker, first).status == "completed"
    assert test_worker.read(worker, second).status == "completed"
