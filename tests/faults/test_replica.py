"""A store that a replica must follow: what a 202 and an end are worth when a server is lost."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer

from config.scripts import partition_prefix
from tests.faults.records import FAULTY, Record, await_workers, count
from tests.processes import eventually
from tests.replicas import Node, Pair, pair
from tests.running import Gateway, inbox, running

LEASE = 3.0
SETTINGS = {
    **FAULTY,
    "GATEWAY_JOBS_LEASE_SECONDS": str(LEASE),
    "GATEWAY_WORKER_THREADS": "8",
    "GATEWAY_STORE_ACK": "replica",
    "GATEWAY_STORE_REPLICA_WAIT_SECONDS": "0.2",
    "GATEWAY_SEALING_KEYS": "one:" + base64.b64encode(bytes(32)).decode(),
    "GATEWAY_DELIVERY_MAX_AGE_SECONDS": "600",
}
PATIENCE = 40.0


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("pair")) as both:
        yield both


@pytest.fixture(scope="module")
def gateway(servers: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway on the primary."""
    settings = SETTINGS | {"GATEWAY_STORE_URL": servers.primary.url}
    with running(tmp_path_factory.mktemp("replica") / "data", settings) as started:
        await_workers(started, 1)
        yield started


def has(node: Node, job: str) -> bool:
    with node.connection() as client:
        return bool(client.exists(f"{partition_prefix(0)}j:{job}"))


def asked(gateway: Gateway, record: Record, key: str, **members: Any) -> httpx.Response:
    body = {"type": "faulty.count", "input": {"record": str(record)}, **members}
    return gateway.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})


def test_a_job_is_on_the_replica_when_its_202_comes(
    gateway: Gateway, servers: Pair, record: Record
) -> None:
    with gateway.paused("relay"):
        jobs = [count(gateway, record) for _ in range(20)]
        assert all(has(servers.replica, job) for job in jobs)
    assert {gateway.ended(job)["status"] for job in jobs} == {"completed"}


def test_without_a_replica_there_is_no_202_and_one_job_comes_of_asking_again(
    gateway: Gateway, servers: Pair, record: Record, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/asked-again")
    members = {"callbackUrl": box.url, "metadata": {"test": "asked again"}}
    with servers.replica.paused():
        for _ in range(3):
            refused = asked(gateway, record, "again", **members)
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
            assert int(refused.headers["retry-after"]) > 0
        unnamed = gateway.client.post(
            "/v1/jobs", json={"type": "demo.echo", "input": {"payload": 1}}
        )
        assert unnamed.status_code == 503
        # The job may have been kept: it is named, and shown to whoever asks for it.
        assert gateway.client.get(f"/v1/jobs/{unnamed.json()['jobId']}").status_code == 200
        assert gateway.client.get("/readyz").status_code == 503
    assert eventually(lambda: gateway.client.get("/readyz").status_code == 200)
    # The key is held for a while by a request that nobody can tell from one still at work.
    answers: list[httpx.Response] = []

    def is_accepted() -> bool:
        answers.append(asked(gateway, record, "again", **members))
        return answers[-1].status_code == 202

    assert eventually(is_accepted), answers[-1].text
    job = answers[-1].json()["jobId"]
    assert has(servers.replica, job)
    assert gateway.called_back(job, patience=PATIENCE)["status"] == "completed"
    assert asked(gateway, record, "again", **members).json()["jobId"] == job
    assert record.executions() == {job: 1}
    assert [json.loads(body)["data"]["jobId"] for _, body in box.received] == [job]


def test_an_end_counts_once_a_replica_has_it(
    gateway: Gateway, servers: Pair, record: Record, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/ends")
    # Handlers that report nothing: what they report would have to be kept before their ends.
    members = {"input": {"record": str(record), "seconds": 1}, "callbackUrl": box.url}
    jobs = [gateway.submit(type="faulty.deaf", **members)["jobId"] for _ in range(4)]
    assert eventually(lambda: len(record.executions()) == len(jobs))
    with servers.replica.paused():
        # The primary has the ends, and nobody is told of them.
        for job in jobs:
            assert gateway.ended(job)["status"] == "completed"
        log = gateway.data / "log" / "delivery.log"
        said = len(log.read_text())
        assert eventually(lambda: "delivery/claim: no replica" in log.read_text()[said:])
        assert box.received == []
    ended = [gateway.called_back(job, patience=PATIENCE) for job in jobs]
    assert {(each["status"], each["attempt"]) for each in ended} == {("completed", 1)}
    assert record.executions() == Counter(jobs)
    heard = Counter(json.loads(body)["data"]["jobId"] for _, body in box.received)
    assert heard == Counter(jobs)


def test_jobs_run_once_while_no_replica_follows_for_longer_than_a_lease(
    gateway: Gateway, servers: Pair, record: Record, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/longer")
    length = {"seconds": 2 * LEASE + 2, "steps": 50}
    jobs = [count(gateway, record, input=length, callbackUrl=box.url) for _ in range(12)]
    # Some wait for a thread.
    assert eventually(lambda: len(record.executions()) == 8)
    with servers.replica.paused():
        # The fault itself takes time: leases run out during it.
        threading.Event().wait(2 * LEASE + 1)
    ended = [gateway.called_back(job, patience=PATIENCE) for job in jobs]
    assert {(each["status"], each["attempt"]) for each in ended} == {("completed", 1)}
    assert record.executions() == Counter(jobs)
    heard = Counter(json.loads(body)["data"]["jobId"] for _, body in box.received)
    assert heard == Counter(jobs)


def test_what_was_promised_outlives_the_primary(
    tmp_path: Path, record: Record, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/outlives")
    with pair(tmp_path / "pair") as servers:
        settings = SETTINGS | {"GATEWAY_STORE_URL": servers.primary.url}
        with running(tmp_path / "before", settings) as gateway, gateway.paused("worker"):
            jobs = [count(gateway, record, callbackUrl=box.url) for _ in range(10)]
            servers.primary.kill()
        servers.promote()
        settings |= {"GATEWAY_STORE_URL": servers.replica.url, "GATEWAY_STORE_ACK": "fsync"}
        with running(tmp_path / "after", settings) as gateway:
            ended = [gateway.called_back(job, patience=PATIENCE) for job in jobs]
    assert {(each["status"], each["attempt"]) for each in ended} == {("completed", 1)}
    assert record.executions() == Counter(jobs)
