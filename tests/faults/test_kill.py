"""Processes and the store die at the worst moment: the job still ends and the callback arrives."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.faults.faulty_types import MOMENTS
from tests.faults.records import FAULTY, Record
from tests.processes import eventually
from tests.running import Gateway, inbox, running

QUICK = {
    **FAULTY,
    # Leases as short as they may be, so that what a dead process held is missed soon.
    "GATEWAY_JOBS_LEASE_SECONDS": "3",
    "GATEWAY_DELIVERY_DNS_TIMEOUT_SECONDS": "1",
    "GATEWAY_DELIVERY_CONNECT_TIMEOUT_SECONDS": "1",
    "GATEWAY_DELIVERY_TOTAL_TIMEOUT_SECONDS": "2",
    "GATEWAY_DELIVERY_FIRST_BYTE_TIMEOUT_SECONDS": "2",
    "GATEWAY_DELIVERY_LEASE_SECONDS": "12.5",
}
PATIENCE = 60.0


@pytest.fixture(scope="module", params=[1, 4], ids=["one-partition", "four-partitions"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A running gateway with short leases."""
    settings = QUICK | {"GATEWAY_STORE_PARTITIONS": str(request.param)}
    with running(tmp_path_factory.mktemp("faults") / "data", settings) as started:
        yield started


def under_way(gateway: Gateway, job_id: str) -> bool:
    return bool(gateway.job(job_id)["progress"] > 0)


def test_a_job_outlives_its_worker(gateway: Gateway, httpserver: HTTPServer) -> None:
    box = inbox(httpserver, "/worker")
    job = gateway.submit(
        type="demo.echo",
        input={"payload": "again", "seconds": 2, "steps": 20},
        callbackUrl=box.url,
    )
    assert eventually(lambda: under_way(gateway, job["jobId"]))
    gateway.kill("worker")
    document = gateway.called_back(job["jobId"], patience=PATIENCE)
    assert (document["status"], document["attempt"]) == ("completed", 2)
    assert [json.loads(body)["type"] for _, body in box.received] == ["job.completed"]


def test_jobs_outlive_their_worker_at_whatever_step_it_dies(
    gateway: Gateway, httpserver: HTTPServer, tmp_path: Path
) -> None:
    box = inbox(httpserver, "/steps")
    record = Record(tmp_path / "record")
    jobs = [
        gateway.submit(
            type="faulty.stall",
            input={"record": str(record), "moment": moment},
            callbackUrl=box.url,
        )["jobId"]
        for moment in MOMENTS
    ]
    assert eventually(lambda: record.moments() == set(MOMENTS))
    gateway.kill("worker")
    for job in jobs:
        document = gateway.called_back(job, patience=PATIENCE)
        assert (document["status"], document["attempt"]) == ("completed", 2)
        assert document["results"]["attempt"] == 2
        report = document["results"]["report"]["href"]
        assert gateway.client.get(report).text == "attempt 2"
    assert record.executions() == Counter(dict.fromkeys(jobs, 2))
    heard = Counter(json.loads(body)["data"]["jobId"] for _, body in box.received)
    assert heard == Counter(jobs)


def test_a_job_without_attempts_left_is_orphaned(gateway: Gateway, httpserver: HTTPServer) -> None:
    box = inbox(httpserver, "/orphan")
    job = gateway.submit(
        type="demo.echo",
        input={"payload": "once", "seconds": 30, "steps": 300},
        callbackUrl=box.url,
        maxAttempts=1,
    )
    assert eventually(lambda: under_way(gateway, job["jobId"]))
    gateway.kill("worker")
    document = gateway.called_back(job["jobId"], patience=PATIENCE)
    assert (document["status"], document["errorCode"]) == ("failed", "orphaned")
    [(_, body)] = box.received
    assert json.loads(body)["data"]["errorCode"] == "orphaned"


def test_a_callback_outlives_its_delivery_process(gateway: Gateway, httpserver: HTTPServer) -> None:
    asked, go_on = threading.Event(), threading.Event()
    seen: list[str] = []

    def hold(request: Request) -> Response:
        seen.append(request.headers["webhook-id"])
        if not asked.is_set():
            asked.set()
            go_on.wait(PATIENCE)
        return Response(status=200)

    httpserver.expect_request("/held", method="POST").respond_with_handler(hold)
    url = httpserver.url_for("/held")
    job = gateway.submit(type="demo.echo", input={"payload": 1}, callbackUrl=url)
    assert asked.wait(PATIENCE)
    gateway.kill("delivery")
    go_on.set()
    document = gateway.called_back(job["jobId"], patience=PATIENCE)
    assert document["callback"]["attempts"] == 2
    assert len(set(seen)) == 1


def test_a_job_outlives_the_store(gateway: Gateway, httpserver: HTTPServer) -> None:
    box = inbox(httpserver, "/store")
    job = gateway.submit(
        type="demo.echo",
        input={"payload": "kept", "seconds": 3, "steps": 30},
        callbackUrl=box.url,
    )
    assert eventually(lambda: under_way(gateway, job["jobId"]))
    gateway.kill("store")
    # Readiness is tried once a second: it may be from before. What asks the store itself says more.
    where, shown = f"/v1/jobs/{job['jobId']}", {"onComplete": "inline"}
    assert eventually(lambda: gateway.client.get(where, params=shown).status_code == 200)
    assert eventually(lambda: gateway.client.get("/readyz").status_code == 200)
    document = gateway.called_back(job["jobId"], patience=PATIENCE)
    # The worker kept its claim: the job ran once.
    assert (document["status"], document["attempt"]) == ("completed", 1)
    assert document["results"] == {"payload": "kept"}
    assert len(box.received) == 1


def test_a_job_outlives_the_broker(gateway: Gateway, httpserver: HTTPServer) -> None:
    box = inbox(httpserver, "/broker")
    gateway.kill("broker")
    job = gateway.submit(type="demo.echo", input={"payload": 1}, callbackUrl=box.url)
    document = gateway.called_back(job["jobId"], patience=PATIENCE)
    assert document["status"] == "completed"


def test_accepted_jobs_outlive_everything(gateway: Gateway, httpserver: HTTPServer) -> None:
    box = inbox(httpserver, "/everything")
    jobs = [
        gateway.submit(type="demo.echo", input={"payload": number}, callbackUrl=box.url)
        for number in range(20)
    ]
    for role in ("worker", "delivery", "relay", "store", "broker", "api"):
        gateway.kill(role)
    assert eventually(lambda: gateway.client.get("/readyz").status_code == 200)
    for number, job in enumerate(jobs):
        document = gateway.called_back(job["jobId"], patience=PATIENCE)
        assert document["results"] == {"payload": number}
    assert {json.loads(body)["data"]["jobId"] for _, body in box.received} == {
        job["jobId"] for job in jobs
    }
