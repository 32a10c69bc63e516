"""The transitions of jobs, against a real store."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from config.clock import SECOND, StoreClock, SystemClock
from config.errors import StoreFull
from config.ids import choose_partition, derived_id, new_id, partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import Retention
from delivery.egress import Policy, parse_destination
from delivery.endpoints import Registration, register, url_hash
from delivery.models import Bury, Deliver, Message
from delivery.sealing import KeyRing
from delivery.store import DeliveryStore
from gateway.models import Callback, Job, StoredFile, Tombstone, View
from gateway.outbox import Outbox
from gateway.store import JobStore
from gateway.work import Changed, End, Ended, Lost, Progress, Report, WorkStore
from tests.delivery.packing import pack
from tests.delivery.test_store import claim, over, wanted

RING = KeyRing({"k1": bytes(32)})
LEASE = 30 * SECOND
HOUR = 3600 * SECOND
HOST = "receiver.example"


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    return DeliveryStore(store, partitions)


@pytest.fixture
def scripts(
    store: Store, deliveries: DeliveryStore, partitions: int
) -> tuple[Store, int, StoreClock, Retention]:
    return store, partitions, StoreClock(SystemClock()), deliveries.retention


@pytest.fixture
def jobs(scripts: tuple[Store, int, StoreClock, Retention]) -> JobStore:
    return JobStore(*scripts)


@pytest.fixture
def work(scripts: tuple[Store, int, StoreClock, Retention]) -> WorkStore:
    return WorkStore(*scripts)


@pytest.fixture
def outbox(scripts: tuple[Store, int, StoreClock, Retention]) -> Outbox:
    return Outbox(*scripts)


async def report(
    work: WorkStore, job: Job, claim: str, percent: int, message: str
) -> Progress | None:
    given = Report(job_id=job.id, claim=claim, percent=percent, message=message)
    [said] = await work.progress([given])
    return said


def registration(jobs: JobStore) -> Registration:
    destination = parse_destination(f"https://{HOST}/hook", Policy())
    return register("t1", destination, RING, jobs.partitions)


def a_job(jobs: JobStore, *, callback: bool = True, **members: Any) -> Job:
    partition = choose_partition(HOST, jobs.partitions)
    job_id = new_id("job", partition, SystemClock().now())
    url = f"https://{HOST}/hook"
    wanted = Callback(
        endpoint=registration(jobs).id,
        url=RING.seal(url.encode(), row=f"callback:{job_id}"),
        url_hash=url_hash(url),
        events=("job.completed", "job.failed"),
    )
    given: dict[str, Any] = {
        "id": job_id,
        "tenant": "t1",
        "type": "demo.echo",
        "status": "pending",
        "rev": 0,
        "input": {"payload": "é"},
        "metadata": {"order": 7},
        "max_attempts": 2,
        "timeout": 60.0,
        "result_ttl": 3600 * SECOND,
        "callback": wanted if callback else None,
    }
    return Job(**(given | members))


async def submit(jobs: JobStore, job: Job) -> View:
    return await jobs.submit(job, registration(jobs) if job.callback else None)


def an_end(view: View, **members: Any) -> End:
    job = view.job
    assert job.claim is not None
    given: dict[str, Any] = {
        "claim": job.claim,
        "by": job.claim,
        "rev": job.rev,
        "status": "completed",
        "completed_at": view.now,
        "expires_at": view.now + job.result_ttl,
        "message": None,
        "attempt_record": "{}",
        "results": {"payload": 1},
        "progress": 100,
    }
    return End(**(given | members))


def owed(job: Job) -> Message:
    assert job.callback is not None
    identifier = derived_id("msg", partition_of(job.id), job.id, "job.completed")
    return Message(
        id=identifier,
        endpoint=job.callback.endpoint,
        tenant=job.tenant,
        url=RING.seal(b"https://receiver.example/hook", row=identifier),
        url_hash=job.callback.url_hash,
        body=b"{}",
    )


async def ring(outbox: Outbox, window: int, *, overdue: bool = False) -> list[str]:
    rung = await outbox.ring(
        dict.fromkeys(range(outbox.partitions), window),
        again=2 * SECOND,
        again_at_most=60 * SECOND,
        overdue=overdue,
    )
    return [job for each in rung.values() for job in each.jobs]


async def claimed(work: WorkStore, job: Job, claim: str = "wp-1:a") -> View:
    view = await work.claim(job.id, claim, lease=LEASE)
    assert view is not None
    return view


async def read(jobs: JobStore, job: Job) -> View:
    view = await jobs.read(job.id)
    assert isinstance(view, View)
    return view


async def test_a_job_is_kept_as_it_was_given(jobs: JobStore) -> None:
    file = StoredFile(path="jobs/x/in/0", name="a.pdf", size=3, sha256="00", content_type="a/b")
    job = a_job(jobs, files={"document": file}, priority="high", on_complete="inline")
    view = await submit(jobs, job)
    expected = replace(job, rev=1, created_at=view.now, updated_at=view.now)
    assert view.job == expected
    assert (await read(jobs, job)).job == expected
    assert view.callback is not None
    assert view.callback.status == "pending"


async def test_submitting_twice_makes_one_job(jobs: JobStore, outbox: Outbox) -> None:
    job = a_job(jobs)
    first = await submit(jobs, job)
    again = await submit(jobs, replace(job, input={"payload": "other"}))
    assert again.job == first.job
    assert await ring(outbox, 10) == [job.id]


async def test_an_unknown_job_is_none(jobs: JobStore, work: WorkStore) -> None:
    assert await jobs.read(new_id("job", 0, 0)) is None
    assert await work.claim(new_id("job", 0, 0), "wp-1:a", lease=LEASE) is None


async def test_one_of_two_claims_wins(jobs: JobStore, work: WorkStore) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    view = await claimed(work, job)
    assert (view.job.status, view.job.attempt, view.job.claim) == ("processing", 1, "wp-1:a")
    assert view.job.started_at == view.now
    assert await work.claim(job.id, "wp-2:b", lease=LEASE) is None
    again = await claimed(work, job)
    assert again.job == view.job


async def test_a_claimed_job_is_not_rung_again(
    jobs: JobStore, work: WorkStore, outbox: Outbox
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    assert await ring(outbox, 10) == [job.id]
    assert await ring(outbox, 10) == []
    await claimed(work, job)
    assert await ring(outbox, 10, overdue=True) == []


async def test_the_window_bounds_what_is_rung(
    jobs: JobStore, work: WorkStore, outbox: Outbox
) -> None:
    made = [a_job(jobs) for _ in range(5)]
    for job in made:
        await submit(jobs, job)
    first = await ring(outbox, 2)
    assert len(first) == 2
    assert await ring(outbox, 2) == []
    await work.claim(first[0], "wp-1:a", lease=LEASE)
    assert len(await ring(outbox, 2)) == 1


async def test_priorities_go_by_weight_and_low_is_not_starved(
    jobs: JobStore, outbox: Outbox
) -> None:
    for priority in ("low", "normal", "high"):
        for _ in range(30):
            await submit(jobs, a_job(jobs, priority=priority))
    rung = [await ring(outbox, number) for number in range(1, 28)]
    first = [(await read_id(jobs, job)).job.priority for batch in rung for job in batch]
    counted = Counter(first)
    assert counted["high"] > counted["normal"] > counted["low"] > 0


async def read_id(jobs: JobStore, job_id: str) -> View:
    view = await jobs.read(job_id)
    assert isinstance(view, View)
    return view


async def test_tenants_take_turns(jobs: JobStore, outbox: Outbox) -> None:
    for _ in range(20):
        await submit(jobs, a_job(jobs, tenant="bulk", callback=False))
    small = a_job(jobs, tenant="small", callback=False)
    await submit(jobs, small)
    assert small.id in await ring(outbox, 2)


async def test_a_scheduled_job_waits_for_its_time(
    jobs: JobStore, work: WorkStore, outbox: Outbox
) -> None:
    later = a_job(jobs, run_at=SystemClock().now() + 3600 * SECOND)
    past = a_job(jobs, run_at=SystemClock().now() - 3600 * SECOND)
    await submit(jobs, later)
    await submit(jobs, past)
    assert await ring(outbox, 10) == [past.id]
    assert await work.claim(later.id, "wp-1:a", lease=LEASE) is None


async def test_progress_is_for_the_holder_alone(jobs: JobStore, work: WorkStore) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    view = await claimed(work, job)
    said = await report(work, job, "wp-1:a", 50, "Half")
    assert said is not None
    assert said.rev == view.job.rev + 1
    same = await report(work, job, "wp-1:a", 50, "Half")
    assert same == said
    assert await report(work, job, "wp-2:b", 99, "Mine") is None
    kept = (await read(jobs, job)).job
    assert (kept.progress, kept.message) == (50, "Half")


async def test_an_end_is_written_with_the_delivery_it_owes(
    jobs: JobStore, work: WorkStore, deliveries: DeliveryStore
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    view = await claimed(work, job)
    message = owed(job)
    result = await work.finish(job.id, an_end(view, message=message))
    assert isinstance(result, Ended)
    ended = result.view
    assert (ended.job.status, ended.job.results, ended.job.progress) == (
        "completed",
        {"payload": 1},
        100,
    )
    assert ended.callback is not None
    assert (ended.callback.status, ended.callback.attempts) == ("pending", 0)
    delivery = await deliveries.read(message.id)
    assert delivery is not None
    assert delivery.state == "pending"


async def test_an_end_written_twice_is_one_end(jobs: JobStore, work: WorkStore) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    end = an_end(await claimed(work, job), message=owed(job))
    first = await work.finish(job.id, end)
    again = await work.finish(job.id, end)
    assert isinstance(first, Ended)
    assert isinstance(again, Ended)
    assert again.view.job == first.view.job


async def test_an_end_rendered_from_an_older_revision_is_not_written(
    jobs: JobStore, work: WorkStore
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    end = an_end(await claimed(work, job))
    await report(work, job, "wp-1:a", 75, "Later")
    changed = await work.finish(job.id, end)
    assert isinstance(changed, Changed)
    assert changed.view.job.progress == 75
    assert isinstance(await work.finish(job.id, an_end(changed.view)), Ended)


async def test_terminal_states_absorb(jobs: JobStore, work: WorkStore) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    view = await claimed(work, job)
    await work.finish(job.id, an_end(view))
    before = await read(jobs, job)
    other = an_end(view, by="somebody", status="failed", error="x", error_code="y")
    assert isinstance(await work.finish(job.id, other), Lost)
    assert await report(work, job, "wp-1:a", 1, "late") is None
    assert await work.retry(job.id, "wp-1:a", delay=0, attempt_record="{}") == "lost"
    assert await work.claim(job.id, "wp-2:b", lease=LEASE) is None
    assert (await read(jobs, job)).job == before.job


async def test_a_failed_attempt_waits_for_its_next(
    jobs: JobStore, work: WorkStore, outbox: Outbox
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    await claimed(work, job)
    for _ in range(2):
        again = await work.retry(job.id, "wp-1:a", delay=3600 * SECOND, attempt_record="{}")
        assert again == "waiting"
    view = await read(jobs, job)
    assert (view.job.status, view.job.attempt) == ("pending", 1)
    assert view.job.next_run_at is not None
    assert await ring(outbox, 10) == []


async def test_a_retry_without_delay_is_rung_at_once(
    jobs: JobStore, work: WorkStore, outbox: Outbox
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    await claimed(work, job)
    await work.retry(job.id, "wp-1:a", delay=0, attempt_record="{}")
    assert await ring(outbox, 10) == [job.id]
    view = await claimed(work, job, "wp-1:b")
    assert (view.job.attempt, view.job.next_run_at) == (2, None)


async def lapse(store: Store, jobs: JobStore) -> None:
    for partition in range(jobs.partitions):
        leases = f"gw:{{p{partition:02d}}}:leases"
        members: list[bytes] = await store.client.zrange(leases, 0, -1)  # type: ignore[assignment]
        for member in members:
            await store.client.zadd(leases, {member: 1})


async def test_a_lapsed_lease_gives_the_job_back_while_attempts_are_left(
    jobs: JobStore, work: WorkStore, outbox: Outbox, store: Store
) -> None:
    job = a_job(jobs, max_attempts=2)
    await submit(jobs, job)
    first = await claimed(work, job)
    await lapse(store, jobs)
    assert await outbox.sweep([], lease=LEASE, at_most=10) == (1, [])
    assert await ring(outbox, 10) == [job.id]
    second = await claimed(work, job, "wp-2:b")
    assert isinstance(await work.finish(job.id, an_end(first)), Lost)
    await lapse(store, jobs)
    back, overdue = await outbox.sweep([], lease=LEASE, at_most=10)
    assert back == 0
    assert [each.view.job.id for each in overdue] == [second.job.id]
    assert overdue[0].reason == "orphaned"


async def test_renewed_leases_are_not_swept(
    jobs: JobStore, work: WorkStore, outbox: Outbox, store: Store
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    await claimed(work, job)
    await lapse(store, jobs)
    held = {partition_of(job.id): [(job.id, "wp-1:a")]}
    assert await work.renew(held, lease=LEASE) == {"wp-1:a": "held"}
    assert await outbox.sweep([], lease=LEASE, at_most=10) == (0, [])
    foreign = {partition_of(job.id): [(job.id, "wp-2:b")]}
    assert await work.renew(foreign, lease=LEASE) == {"wp-2:b": "lost"}


async def test_nothing_is_swept_after_a_time_without_sweeps(
    jobs: JobStore, work: WorkStore, outbox: Outbox, store: Store
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    await claimed(work, job)
    await lapse(store, jobs)
    for partition in range(jobs.partitions):
        await store.client.set(f"gw:{{p{partition:02d}}}:swept:jobs", 1)
    assert await outbox.sweep([], lease=LEASE, at_most=10) == (0, [])
    assert await outbox.sweep([], lease=LEASE, at_most=10) == (0, [])


async def test_an_expired_job_leaves_a_tombstone(
    jobs: JobStore, work: WorkStore, outbox: Outbox
) -> None:
    file = StoredFile(path="jobs/x/in/0", name="a", size=1, sha256="00", content_type="a/b")
    job = a_job(jobs, files={"document": file})
    await submit(jobs, job)
    view = await claimed(work, job)
    await work.finish(job.id, an_end(view, expires_at=view.now - 1))
    life = {"tombstone_life": 3600 * SECOND, "after_callback": 3600 * SECOND, "at_most": 10}
    assert await outbox.expire(**life) == (False, [job.id])
    assert await outbox.expire(**life) == (False, [job.id])
    await outbox.forget_files(job.id)
    assert await outbox.expire(**life) == (False, [])
    left = await jobs.read(job.id)
    assert isinstance(left, Tombstone)
    assert (left.job_id, left.tenant, left.status) == (job.id, "t1", "completed")
    assert left.expired_at >= view.now


async def test_results_outlive_a_callback_that_is_still_owed(
    jobs: JobStore, work: WorkStore, outbox: Outbox
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    view = await claimed(work, job)
    await work.finish(job.id, an_end(view, message=owed(job), expires_at=view.now - 1))
    life = {"tombstone_life": 3600 * SECOND, "after_callback": 3600 * SECOND, "at_most": 10}
    assert await outbox.expire(**life) == (False, [])
    assert (await read(jobs, job)).job.status == "completed"


async def test_results_outlive_a_callback_that_can_be_sent_no_more(
    jobs: JobStore, work: WorkStore, outbox: Outbox, deliveries: DeliveryStore, store: Store
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    view = await claimed(work, job)
    await work.finish(job.id, an_end(view, message=owed(job), expires_at=view.now - 1))
    [given] = await claim(deliveries, wanted(1))
    await deliveries.record([over(given, Deliver())])
    name = f"{partition_prefix(partition_of(job.id))}notices"
    await store.client.zadd(name, {job.id: 1})
    await pack(deliveries)
    # Its results came with it, so they are not about to go unread.
    assert await outbox.notices(at_most=10) == []
    assert await store.client.zcard(name) == 0
    sent = await deliveries.read(given.id)
    assert sent is not None
    life = {"tombstone_life": HOUR, "at_most": 10}
    assert await outbox.expire(**life, after_callback=HOUR) == (False, [])
    assert (await read(jobs, job)).job.expires_at == (sent.ended_at or 0) + HOUR


@pytest.mark.parametrize(
    ("verdict", "status"), [(Deliver(), "delivered"), (Bury(reason="exhausted"), "dead")]
)
@pytest.mark.parametrize("late", [False, True])
async def test_results_outlive_a_callback_of_which_nothing_is_kept(
    jobs: JobStore,
    work: WorkStore,
    outbox: Outbox,
    deliveries: DeliveryStore,
    store: Store,
    *,
    verdict: Deliver | Bury,
    status: str,
    late: bool,
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    view = await claimed(work, job)
    completed = view.now - 2 * HOUR if late else view.now
    await work.finish(
        job.id,
        an_end(view, message=owed(job), completed_at=completed, expires_at=view.now - 1),
    )
    [given] = await claim(deliveries, wanted(1))
    if late:
        name = f"{partition_prefix(partition_of(given.id))}d:{given.id}"
        await store.client.hset(name, "createdAt", str(completed))
    await deliveries.record([over(given, verdict)])
    none = replace(deliveries.retention, dead_count=0, delivered_count=0)
    await DeliveryStore(store, deliveries.partitions, none).retire(10)
    assert await deliveries.read(given.id) is None
    shown = (await read(jobs, job)).callback
    assert shown is not None
    assert shown.status == status
    # An hour after the callback's end, whenever that was.
    life = {"tombstone_life": HOUR, "at_most": 10}
    assert await outbox.expire(**life, after_callback=HOUR) == (False, [])
    found = (await read(jobs, job)).job
    assert found.expires_at is not None
    assert 0 <= found.expires_at - view.now - HOUR < 5 * 60 * SECOND


async def test_an_idempotency_key_makes_one_job(jobs: JobStore) -> None:
    life = 3600 * SECOND

    async def claim(job_id: str, fingerprint: str = "f") -> tuple[str, str]:
        made = await jobs.claim_key("t1", "k", fingerprint=fingerprint, job_id=job_id, life=life)
        return made.state, made.job_id

    assert await claim("job_a") == ("claimed", "job_a")
    assert await claim("job_a") == ("claimed", "job_a")
    assert await claim("job_b") == ("writing", "job_a")
    assert await claim("job_b", "g") == ("conflict", "job_a")
    await jobs.settle_key("t1", "k", "job_a")
    assert await claim("job_b") == ("created", "job_a")
    await jobs.release_key("t1", "k", "job_a")
    assert await claim("job_b") == ("created", "job_a")
    other = await jobs.claim_key("t2", "k", fingerprint="f", job_id="job_c", life=life)
    assert other.state == "claimed"


async def test_a_refused_request_gives_its_key_back(jobs: JobStore) -> None:
    life = 3600 * SECOND
    await jobs.claim_key("t1", "k", fingerprint="f", job_id="job_a", life=life)
    await jobs.release_key("t1", "k", "job_b")
    await jobs.release_key("t1", "k", "job_a")
    again = await jobs.claim_key("t1", "k", fingerprint="g", job_id="job_b", life=life)
    assert (again.state, again.job_id) == ("claimed", "job_b")


async def test_the_muster_counts_live_threads(outbox: Outbox) -> None:
    await outbox.enlist("wp-1", 8)
    await outbox.enlist("wp-2", 4)
    assert await outbox.muster() == {"wp-1": 8, "wp-2": 4}
    await outbox.enlist("wp-1", 0)
    assert await outbox.muster() == {"wp-2": 4}


async def test_at_the_memory_limit_submits_are_refused_and_the_rest_drains(
    jobs: JobStore, work: WorkStore, store: Store
) -> None:
    job = a_job(jobs)
    await submit(jobs, job)
    limit = str((await store.client.config_get("maxmemory"))["maxmemory"])
    await store.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreFull):
            await submit(jobs, a_job(jobs))
        view = await claimed(work, job)
        ended = await work.finish(job.id, an_end(view, message=owed(job)))
        assert isinstance(ended, Ended)
    finally:
        await store.client.config_set("maxmemory", limit)
