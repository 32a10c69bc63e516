"""What the two stores may do to jobs: say everything twice, forget, stall, die, be full."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from dramatiq.brokers.redis import RedisBroker
from pytest_httpserver import HTTPServer

from config.settings import load_settings
from gateway.broker import QUEUE, make_broker, queue_length, ring
from tests.faults.records import FAULTY, Record, await_workers, count
from tests.processes import eventually
from tests.running import Gateway, inbox, running

LEASE = 3.0
SETTINGS = {
    **FAULTY,
    "GATEWAY_JOBS_LEASE_SECONDS": str(LEASE),
    "GATEWAY_STORE_PARTITIONS": "2",
    "GATEWAY_STORE_SOCKET_TIMEOUT_SECONDS": "1",
    "GATEWAY_WORKER_PROCESSES": "2",
    "GATEWAY_WORKER_THREADS": "4",
}
PATIENCE = 60.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with two worker processes, both at work."""
    with running(tmp_path_factory.mktemp("stores") / "data", SETTINGS) as started:
        await_workers(started, 2)
        yield started


@pytest.fixture
def broker(gateway: Gateway) -> Iterator[RedisBroker]:
    """The broker, as the relay has it."""
    urls = gateway.record()
    settings = load_settings(
        {
            "GATEWAY_PROFILE": "development",
            "GATEWAY_PUBLIC_URL": urls["apiUrl"],
            "GATEWAY_STORE_URL": urls["storeUrl"],
            "GATEWAY_BROKER_URL": urls["brokerUrl"],
            "GATEWAY_ARTIFACTS_URL": f"file://{urls['dataDir']}/artifacts",
            "GATEWAY_SEALING_KEYS": "one:" + base64.b64encode(bytes(32)).decode(),
        }
    )
    made = make_broker(settings, [])
    yield made
    made.client.close()


def is_idle(broker: RedisBroker) -> bool:
    """Whether no message waits, and none is being worked on."""
    acks = broker.client.keys(f"{broker.namespace}:__acks__.*.{QUEUE}")
    return queue_length(broker) == 0 and not any(broker.client.scard(each) for each in acks)


def test_a_job_that_is_rung_many_times_runs_once(
    gateway: Gateway, broker: RedisBroker, record: Record
) -> None:
    job = count(gateway, record, input={"seconds": 0.5, "steps": 5})
    ring(broker, [job] * 50)
    assert gateway.ended(job)["attempt"] == 1
    ring(broker, [job] * 50)
    assert eventually(lambda: is_idle(broker))
    assert record.executions() == {job: 1}


def test_processes_that_race_for_jobs_run_each_once(
    gateway: Gateway, broker: RedisBroker, record: Record
) -> None:
    jobs = [count(gateway, record, input={"seconds": 0.05}) for _ in range(60)]
    ring(broker, jobs)
    ring(broker, jobs[::-1])
    assert {gateway.ended(job)["attempt"] for job in jobs} == {1}
    assert eventually(lambda: is_idle(broker))
    assert record.executions() == Counter(jobs)
    assert len({process for _, _, process in record.attempts()}) == 2


def test_jobs_outlive_all_that_the_broker_knows(
    gateway: Gateway, broker: RedisBroker, record: Record
) -> None:
    with gateway.paused("worker"):
        jobs = [count(gateway, record) for _ in range(40)]
        assert eventually(lambda: queue_length(broker) > 0)
        broker.client.flushall()
    assert {gateway.ended(job, PATIENCE)["attempt"] for job in jobs} == {1}
    assert record.executions() == Counter(jobs)


def test_running_jobs_do_not_notice_that_the_broker_dies(
    gateway: Gateway, record: Record, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/broker-dies")
    length = {"seconds": 2, "steps": 20}
    jobs = [count(gateway, record, input=length, callbackUrl=box.url) for _ in range(12)]
    assert eventually(lambda: len(record.executions()) >= 8)
    gateway.kill("broker")
    ended = [gateway.called_back(job, patience=PATIENCE) for job in jobs]
    assert {(each["status"], each["attempt"]) for each in ended} == {("completed", 1)}
    assert record.executions() == Counter(jobs)


@contextmanager
def stalled(gateway: Gateway) -> Iterator[None]:
    with gateway.paused("store"):
        yield


@contextmanager
def dead(gateway: Gateway) -> Iterator[None]:
    """The store is killed, and who would start it again does nothing inside the block."""
    up = gateway.process.pid
    os.kill(up, signal.SIGSTOP)
    try:
        with gateway.paused("store"):
            os.kill(gateway.pid("store"), signal.SIGKILL)
            yield
    finally:
        os.kill(up, signal.SIGCONT)


Away = Callable[[Gateway], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("away", "seconds"),
    [
        pytest.param(stalled, LEASE + 0.5, id="stalled-for-a-lease"),
        pytest.param(stalled, 2 * LEASE + 1, id="stalled-for-two"),
        pytest.param(dead, LEASE + 2, id="dead-for-longer-than-a-lease"),
    ],
)
def test_healthy_jobs_run_once_while_the_store_is_away_for_longer_than_a_lease(
    gateway: Gateway, record: Record, httpserver: HTTPServer, away: Away, seconds: float
) -> None:
    box = inbox(httpserver, "/away")
    length = {"seconds": seconds + 2, "steps": 50}
    jobs = [count(gateway, record, input=length, callbackUrl=box.url) for _ in range(4)]
    assert eventually(lambda: len(record.executions()) == 4)
    with away(gateway):
        # The fault itself takes time: leases run out during it.
        threading.Event().wait(seconds)
    assert eventually(lambda: gateway.client.get("/readyz").status_code == 200)
    ended = [gateway.called_back(job, patience=PATIENCE) for job in jobs]
    assert {(each["status"], each["attempt"]) for each in ended} == {("completed", 1)}
    assert record.executions() == Counter(jobs)
    heard = Counter(json.loads(body)["data"]["jobId"] for _, body in box.received)
    assert heard == Counter(jobs)


def test_a_full_store_refuses_jobs_and_drains(
    gateway: Gateway, record: Record, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/full")
    length = {"seconds": 0.5, "steps": 5}
    jobs = [count(gateway, record, input=length, callbackUrl=box.url) for _ in range(24)]
    with gateway.connection("store") as store:
        limit = str(store.config_get("maxmemory")["maxmemory"])
        store.config_set("maxmemory", 1)
        try:
            members = {"type": "faulty.count", "input": {"record": str(record)}}
            for headers in ({}, {"Idempotency-Key": "for-a-full-store"}):
                refused = gateway.client.post("/v1/jobs", json=members, headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (503, "store_full")
                assert int(refused.headers["retry-after"]) > 0
            ended = [gateway.called_back(job, patience=PATIENCE) for job in jobs]
        finally:
            store.config_set("maxmemory", limit)
    assert {(each["status"], each["attempt"]) for each in ended} == {("completed", 1)}
    headers = {"Idempotency-Key": "for-a-full-store"}
    kept = gateway.client.post("/v1/jobs", json=members, headers=headers)
    assert kept.status_code == 202
    assert gateway.ended(kept.json()["jobId"])["status"] == "completed"
