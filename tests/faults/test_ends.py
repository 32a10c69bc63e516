"""Jobs that are cancelled, wait too long or try again: document and callback say the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer

from config.clock import SECOND, SystemClock, rfc3339
from tests.faults import records
from tests.faults.records import FAULTY, Record, await_workers
from tests.processes import eventually
from tests.running import Gateway, Inbox, inbox, running

SETTINGS = {
    **FAULTY,
    "GATEWAY_STORE_PARTITIONS": "2",
    "GATEWAY_WORKER_PROCESSES": "2",
    "GATEWAY_WORKER_THREADS": "4",
    "GATEWAY_WORKER_GRACE_SECONDS": "2",
}
PATIENCE = 40.0
LONG = {"seconds": 60, "steps": 600}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with two worker processes."""
    with running(tmp_path_factory.mktemp("ends") / "data", SETTINGS) as started:
        await_workers(started, 2)
        yield started


@pytest.fixture
def box(httpserver: HTTPServer) -> Inbox:
    return inbox(httpserver, "/ends")


def count(gateway: Gateway, record: Record, box: Inbox, **members: Any) -> str:
    return records.count(gateway, record, callbackUrl=box.url, **members)


def cancel(gateway: Gateway, job: str) -> httpx.Response:
    return gateway.client.post(f"/v1/jobs/{job}/cancel")


def agreed(gateway: Gateway, box: Inbox, job: str) -> dict[str, Any]:
    """Return the document of an ended job, once its one callback has said just the same."""
    document = gateway.called_back(job, patience=PATIENCE)
    bodies = [json.loads(body) for _, body in box.received]
    [body] = [each for each in bodies if each["data"]["jobId"] == job]
    assert body["type"] == f"job.{document['status']}"
    told = {name: value for name, value in body["data"].items() if name != "sequence"}
    unsaid = {"callback", "estimatedCompletion"}
    assert told == {name: value for name, value in document.items() if name not in unsaid}
    return document


def test_a_job_that_waits_is_cancelled_at_once(
    gateway: Gateway, record: Record, box: Inbox
) -> None:
    with gateway.paused("worker"):
        job = count(gateway, record, box)
        answer = cancel(gateway, job)
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert agreed(gateway, box, job)["status"] == "cancelled"
    assert cancel(gateway, job).status_code == 200
    assert record.executions() == {}


def test_a_job_that_is_to_run_later_is_cancelled_at_once(
    gateway: Gateway, record: Record, box: Inbox
) -> None:
    later = rfc3339(SystemClock().now() + 3600 * SECOND)
    job = count(gateway, record, box, runAt=later)
    assert cancel(gateway, job).status_code == 200
    assert agreed(gateway, box, job)["status"] == "cancelled"
    assert record.executions() == {}


def test_a_job_between_two_attempts_is_cancelled_at_once(
    tmp_path: Path, record: Record, box: Inbox
) -> None:
    settings = SETTINGS | {"GATEWAY_JOBS_RETRY_GAPS_SECONDS": "[3600]"}
    with running(tmp_path / "data", settings) as gateway:
        job = count(gateway, record, box, input={"failures": 1})
        assert eventually(lambda: gateway.job(job)["nextRunAt"] is not None)
        assert gateway.job(job)["status"] == "pending"
        assert cancel(gateway, job).status_code == 200
        document = agreed(gateway, box, job)
        assert (document["status"], document["attempt"]) == ("cancelled", 1)
        assert record.executions() == {job: 1}


def test_a_job_at_work_is_told_and_stops(gateway: Gateway, record: Record, box: Inbox) -> None:
    job = count(gateway, record, box, input=LONG)
    assert eventually(lambda: gateway.job(job)["progress"] > 0)
    answer = cancel(gateway, job)
    assert (answer.status_code, answer.json()["cancelRequested"]) == (202, True)
    document = agreed(gateway, box, job)
    assert (document["status"], document["attempt"]) == ("cancelled", 1)
    assert cancel(gateway, job).status_code == 200
    assert record.executions() == {job: 1}


def test_a_cancel_outweighs_a_worker_that_stops(
    gateway: Gateway, record: Record, box: Inbox
) -> None:
    jobs = [count(gateway, record, box, input=LONG) for _ in range(4)]
    assert eventually(lambda: len(record.executions()) == len(jobs))
    with gateway.paused("worker"):
        assert {cancel(gateway, job).status_code for job in jobs} == {202}
        stopped = gateway.terminate("worker")
    assert {agreed(gateway, box, job)["status"] for job in jobs} == {"cancelled"}
    assert eventually(lambda: gateway.replaced("worker", stopped))
    assert record.executions() == Counter(jobs)


def test_a_job_that_ended_is_not_cancelled(gateway: Gateway, record: Record, box: Inbox) -> None:
    job = count(gateway, record, box)
    assert agreed(gateway, box, job)["status"] == "completed"
    assert cancel(gateway, job).status_code == 409


def test_cancels_that_race_with_the_end_leave_one_story(
    gateway: Gateway, record: Record, box: Inbox
) -> None:
    def race(number: int) -> tuple[str, int]:
        job = count(gateway, record, box, input={"seconds": 0.05, "steps": 5})
        if number % 2:
            assert eventually(lambda: job in record.executions())
        return job, cancel(gateway, job).status_code

    with ThreadPoolExecutor(4) as clients:
        races = list(clients.map(race, range(50)))
    stories: Counter[str] = Counter()
    for job, answer in races:
        document = agreed(gateway, box, job)
        stories[document["status"]] += 1
        # 200 is a promise; 202 is a wish.
        assert answer in {200, 202, 409}
        if answer == 200:
            assert document["status"] == "cancelled"
        if answer == 409:
            assert document["status"] == "completed"
    assert stories["cancelled"] > 0
    assert set(record.executions().values()) <= {1}


def test_a_job_that_waits_too_long_fails(gateway: Gateway, record: Record, box: Inbox) -> None:
    with gateway.paused("worker"):
        job = count(gateway, record, box, queueTimeoutSeconds=0.5)
        document = agreed(gateway, box, job)
    assert (document["status"], document["errorCode"]) == ("failed", "queue_timeout")
    # A worker that comes back finds nothing to do.
    other = count(gateway, record, box, queueTimeoutSeconds=30)
    assert agreed(gateway, box, other)["status"] == "completed"
    assert record.executions() == {other: 1}


def test_a_queue_timeout_is_over_once_the_job_began(
    gateway: Gateway, record: Record, box: Inbox
) -> None:
    length = {"seconds": 2, "steps": 20, "failures": 1}
    job = count(gateway, record, box, input=length, queueTimeoutSeconds=3)
    document = agreed(gateway, box, job)
    assert (document["status"], document["attempt"]) == ("completed", 2)


def test_a_job_that_fails_twice_succeeds_at_its_third_attempt(
    gateway: Gateway, record: Record, box: Inbox
) -> None:
    job = count(gateway, record, box, input={"failures": 2}, maxAttempts=3)
    document = agreed(gateway, box, job)
    assert (document["status"], document["attempt"]) == ("completed", 3)
    assert [attempt for _, attempt, _ in record.attempts()] == [1, 2, 3]


def test_a_job_that_fails_too_often_has_failed(
    gateway: Gateway, record: Record, box: Inbox
) -> None:
    job = count(gateway, record, box, input={"failures": 2}, maxAttempts=2)
    document = agreed(gateway, box, job)
    assert (document["status"], document["errorCode"]) == ("failed", "as_planned")
    assert record.executions() == {job: 2}


def test_the_urgent_come_first_and_nobody_starves(
    gateway: Gateway, record: Record, box: Inbox
) -> None:
    def wave(priority: str) -> list[str]:
        return [count(gateway, record, box, priority=priority) for _ in range(40)]

    with gateway.paused("relay"):
        waves = {priority: wave(priority) for priority in ("low", "normal", "high")}
    for jobs in waves.values():
        assert {gateway.ended(job, PATIENCE)["status"] for job in jobs} == {"completed"}
    order = [job for job, _, _ in record.attempts()]
    middle = {
        priority: sorted(order.index(job) for job in jobs)[20] for priority, jobs in waves.items()
    }
    assert middle["high"] < middle["normal"] < middle["low"]
    # One in nine, from the start.
    assert min(order.index(job) for job in waves["low"]) < 60
