"""One worker process: what its threads do with a job, with the real store and without a broker."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from config.clock import SECOND
from config.ids import derived_id, new_id
from config.scripts import partition_prefix
from config.settings import load_settings
from delivery.egress import Policy, parse_destination
from delivery.endpoints import Registration, register
from gateway.models import Callback, Job, Tombstone, View
from gateway.run import end_overtime, run_job
from gateway.work import End, Ended
from gateway.worker import Worker
from tests.conftest import RunningStores
from tests.faults.records import Record
from tests.processes import eventually

LEASE = 30 * SECOND


MakeWorker = Callable[..., Worker]


@pytest.fixture
def make_worker(stores: RunningStores, tmp_path: Path) -> Iterator[MakeWorker]:
    """Return what starts workers on an empty store."""
    with Redis.from_url(stores.durable_url) as client:
        client.flushall()
    started: list[Worker] = []

    def make(**environ: str) -> Worker:
        settings = load_settings(
            {
                "GATEWAY_PROFILE": "development",
                "GATEWAY_PUBLIC_URL": "https://gateway.example",
                "GATEWAY_STORE_URL": stores.durable_url,
                "GATEWAY_STORE_PARTITIONS": "2",
                "GATEWAY_BROKER_URL": stores.soft_url,
                "GATEWAY_ARTIFACTS_URL": f"file://{tmp_path}/artifacts",
                "GATEWAY_SEALING_KEYS": "one:" + base64.b64encode(bytes(32)).decode(),
                "GATEWAY_JOBS_MODULES": '["gateway.handlers_.echo", "tests.faults.faulty_types"]',
                "GATEWAY_JOBS_RETRY_GAPS_SECONDS": "[3600]",
                **environ,
            }
        )
        made = Worker(settings, lambda held: end_overtime(held, made))
        made.start()
        started.append(made)
        return made

    yield make
    for each in started:
        each.stop()


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    return make_worker()


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "record")


def submit(
    worker: Worker,
    kind: str,
    given: dict[str, Any],
    registration: Registration | None = None,
    **members: Any,
) -> str:
    services = worker.services
    wanted: dict[str, Any] = {"timeout": 60.0, "max_attempts": 2, "result_ttl": 3600 * SECOND}
    job = Job(
        id=members.pop("job_id", None) or new_id("job", 1, services.clock.now()),
        tenant="t1",
        type=kind,
        status="pending",
        rev=0,
        input=given,
        **(wanted | members),
    )
    worker.call(services.jobs.submit(job, registration))
    return job.id


def subscribe(worker: Worker, kind: str, given: dict[str, Any], *events: str) -> tuple[str, str]:
    """Submit a job that tells `events`; return it and its endpoint."""
    ring, now = worker.services.ring, worker.services.clock.now()
    destination = parse_destination("https://receiver.example/hook", Policy())
    registered = register("t1", destination, ring, 1)
    endpoint = replace(registered, id=derived_id("ep", 1, "t1"))
    job_id = new_id("job", 1, now)
    callback = Callback(
        endpoint=endpoint.id,
        url=ring.seal(destination.url.encode(), row=f"callback:{job_id}"),
        url_hash="h",
        events=events,
    )
    submit(worker, kind, given, registration=endpoint, job_id=job_id, callback=callback)
    return job_id, endpoint.id


def told(worker: Worker, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Return what the job's callbacks tell: the event, and the job with it."""
    services = worker.services
    owed = worker.call(services.jobs.deliveries_of(job_id))
    bodies = [json.loads(worker.call(services.deliveries.read_body(each)) or b"") for each in owed]
    return [(body["type"], body["data"]) for body in bodies]


def read(worker: Worker, job_id: str) -> Job:
    view = worker.call(worker.services.jobs.read(job_id))
    assert isinstance(view, View)
    return view.job


def take_away(worker: Worker, stores: RunningStores, job_id: str) -> None:
    """Let the lease of a job run out and be swept, as if its process were gone."""
    with Redis.from_url(stores.durable_url) as client:
        client.zadd(f"{partition_prefix(1)}leases", {job_id: 1})
    sweep = worker.services.outbox.sweep([], lease=LEASE, at_most=10)
    assert worker.call(sweep) == (1, [])


def beside(work: Callable[[], None]) -> threading.Thread:
    """Run `work` in a thread, as Dramatiq does."""
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_an_attempt_ends_the_job(worker: Worker) -> None:
    job_id = submit(worker, "demo.echo", {"payload": {"a": 1}})
    run_job(job_id, worker)
    job = read(worker, job_id)
    assert (job.status, job.attempt, job.progress) == ("completed", 1, 100)
    assert job.results == {"payload": {"a": 1}}
    assert job.claim is None
    [attempt] = job.attempts
    assert (attempt["outcome"], attempt["worker"]) == ("returned", worker.leases.process)


def test_who_asked_is_told_that_the_job_begins(worker: Worker) -> None:
    job_id, _ = subscribe(worker, "demo.echo", {"payload": 1}, "job.started", "job.completed")
    run_job(job_id, worker)
    [(end, _), (beginning, data)] = told(worker, job_id)
    assert (end, beginning) == ("job.completed", "job.started")
    assert (data["status"], data["attempt"], data["progress"]) == ("processing", 1, 0)


def test_it_is_told_once_however_many_attempts_there_are(worker: Worker, record: Record) -> None:
    given = {"record": str(record), "failures": 1}
    job_id, _ = subscribe(worker, "faulty.count", given, "job.started")
    run_job(job_id, worker)
    first = told(worker, job_id)
    with Redis.from_url(worker.services.settings.store.url) as client:
        client.zadd(f"{partition_prefix(1)}later", {job_id: 1})
    worker.call(worker.services.outbox.ring({1: 1}, again=LEASE, again_at_most=LEASE, overdue=True))
    run_job(job_id, worker)
    assert read(worker, job_id).status == "completed"
    assert told(worker, job_id) == first
    assert [(event, data["attempt"]) for event, data in first] == [("job.started", 1)]


def test_an_attempt_goes_on_although_its_beginning_cannot_be_told(
    worker: Worker, stores: RunningStores, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"record": str(record), "failures": 1}
    job_id, endpoint = subscribe(worker, "faulty.count", given, "job.started")
    queue = f"{partition_prefix(1)}ep:{endpoint}:live"
    with Redis.from_url(stores.durable_url) as client:
        client.set(queue, "in the way")
        run_job(job_id, worker)
        assert record.executions() == {job_id: 1}
        assert read(worker, job_id).attempts[0]["outcome"] == "raised"
        assert "job.beginning_not_told" in caplog.text
        client.delete(queue)
        client.zadd(f"{partition_prefix(1)}later", {job_id: 1})
    worker.call(worker.services.outbox.ring({1: 1}, again=LEASE, again_at_most=LEASE, overdue=True))
    run_job(job_id, worker)
    assert read(worker, job_id).status == "completed"


def test_a_job_is_run_once_however_often_it_is_told_of(worker: Worker, record: Record) -> None:
    job_id = submit(worker, "faulty.count", {"record": str(record)})
    for _ in range(3):
        run_job(job_id, worker)
    assert record.executions() == {job_id: 1}


def test_a_job_that_another_holds_is_left_alone(worker: Worker, record: Record) -> None:
    job_id = submit(worker, "faulty.count", {"record": str(record)})
    assert worker.call(worker.services.work.claim(job_id, "wp-other:1", lease=LEASE)) is not None
    run_job(job_id, worker)
    assert record.executions() == {}
    assert read(worker, job_id).claim == "wp-other:1"


def test_a_job_that_is_unknown_is_left_alone(worker: Worker) -> None:
    run_job(new_id("job", 1, worker.services.clock.now()), worker)


def test_what_nobody_foresaw_is_tried_again_and_not_told(worker: Worker) -> None:
    job_id = submit(worker, "faulty.broken", {})
    run_job(job_id, worker)
    waiting = read(worker, job_id)
    assert (waiting.status, waiting.attempt) == ("pending", 1)
    assert waiting.next_run_at is not None
    assert "ZeroDivisionError" in waiting.attempts[0]["error"]
    assert "secret" not in str(waiting.attempts)
    # Told of before its time, it waits on.
    run_job(job_id, worker)
    assert read(worker, job_id) == waiting


def test_the_last_attempt_fails_the_job(worker: Worker) -> None:
    job_id = submit(worker, "faulty.broken", {}, max_attempts=1)
    run_job(job_id, worker)
    job = read(worker, job_id)
    assert (job.status, job.error_code) == ("failed", "handler_error")
    assert "secret" not in (job.error or "")


def test_a_process_that_stops_takes_no_further_job(worker: Worker, record: Record) -> None:
    job_id = submit(worker, "faulty.count", {"record": str(record)})
    worker.wind_down()
    run_job(job_id, worker)
    assert read(worker, job_id).status == "pending"
    assert record.executions() == {}


def test_a_process_that_stops_hands_back_what_it_holds(
    make_worker: MakeWorker, record: Record
) -> None:
    worker = make_worker(GATEWAY_WORKER_GRACE_SECONDS="0")
    length = {"seconds": 60, "steps": 1000}
    job_id = submit(worker, "faulty.count", {"record": str(record), **length}, max_attempts=1)
    thread = beside(lambda: run_job(job_id, worker))
    assert eventually(lambda: record.executions() == {job_id: 1})
    worker.wind_down()
    thread.join()
    job = read(worker, job_id)
    assert (job.status, job.attempt, job.claim) == ("pending", 0, None)


def test_a_cancel_reaches_the_handler(worker: Worker, record: Record) -> None:
    length = {"seconds": 60, "steps": 1000}
    job_id = submit(worker, "faulty.count", {"record": str(record), **length})
    thread = beside(lambda: run_job(job_id, worker))
    assert eventually(lambda: record.executions() == {job_id: 1})
    worker.call(worker.services.jobs.cancel(job_id))
    thread.join()
    assert read(worker, job_id).status == "cancelled"


def test_an_attempt_that_comes_back_late_changes_nothing(
    worker: Worker, stores: RunningStores, record: Record, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    job_id = submit(worker, "faulty.held", {"record": str(record), "until": str(go_on)})
    thread = beside(lambda: run_job(job_id, worker))
    assert eventually(lambda: record.executions() == {job_id: 1})
    take_away(worker, stores, job_id)
    assert worker.call(worker.services.work.claim(job_id, "wp-other:1", lease=LEASE)) is not None
    before = read(worker, job_id)
    go_on.touch()
    thread.join()
    assert read(worker, job_id) == before
    assert (before.status, before.attempt) == ("processing", 2)


def test_an_attempt_that_comes_back_after_its_job_is_gone_changes_nothing(
    worker: Worker, stores: RunningStores, record: Record, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    job_id = submit(worker, "faulty.held", {"record": str(record), "until": str(go_on)})
    faults: list[BaseException] = []

    def run() -> None:
        try:
            run_job(job_id, worker)
        except BaseException as error:  # noqa: BLE001
            faults.append(error)

    thread = beside(run)
    assert eventually(lambda: record.executions() == {job_id: 1})
    take_away(worker, stores, job_id)
    services = worker.services
    view = worker.call(services.jobs.read(job_id))
    assert isinstance(view, View)
    end = End(
        claim="",
        by="cancel",
        rev=view.job.rev,
        status="cancelled",
        completed_at=view.now,
        expires_at=view.now,
        message=None,
    )
    assert isinstance(worker.call(services.work.finish(job_id, end)), Ended)
    assert worker.call(services.jobs.erase(job_id, tombstone_life=LEASE)) == "cancelled"
    go_on.touch()
    thread.join()
    assert faults == []
    assert isinstance(worker.call(services.jobs.read(job_id)), Tombstone)


def test_a_lost_claim_stops_the_handler(
    worker: Worker, stores: RunningStores, record: Record
) -> None:
    length = {"seconds": 60, "steps": 1000}
    job_id = submit(worker, "faulty.count", {"record": str(record), **length})
    thread = beside(lambda: run_job(job_id, worker))
    assert eventually(lambda: record.executions() == {job_id: 1})
    take_away(worker, stores, job_id)
    thread.join()
    assert (read(worker, job_id).status, read(worker, job_id).attempt) == ("pending", 1)


def test_a_process_is_on_the_muster_while_it_lives(make_worker: MakeWorker) -> None:
    first, second = make_worker(), make_worker(GATEWAY_WORKER_THREADS="3")
    assert first.call(first.services.outbox.muster()) == {
        first.leases.process: 8,
        second.leases.process: 3,
    }
