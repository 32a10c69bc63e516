"""A worker that dies between the store's commit of an end and hearing of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from tests.faults.records import FAULTY, Record
from tests.processes import eventually
from tests.running import Gateway, inbox, running

PATIENCE = 60.0


@pytest.fixture(scope="module", params=[1, 4], ids=["one-partition", "four-partitions"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A running gateway with short leases."""
    settings = FAULTY | {
        "GATEWAY_JOBS_LEASE_SECONDS": "3",
        "GATEWAY_STORE_PARTITIONS": str(request.param),
    }
    with running(tmp_path_factory.mktemp("unheard") / "data", settings) as started:
        yield started


def end_unheard(gateway: Gateway, record: Record, folder: Path, url: str) -> str:
    """Return a job whose end the store has, and whose worker died before it heard so."""
    for number in range(20):
        go_on = folder / f"go-on-{number}"
        given = {"record": str(record), "until": str(go_on)}
        job = str(gateway.submit(type="faulty.held", input=given, callbackUrl=url)["jobId"])
        assert eventually(partial(record.has, f"{job} 1"))
        with ExitStack() as worker:
            with gateway.paused("store"):
                go_on.touch()
                assert eventually(partial(record.has, f"returns {job}"))
                worker.enter_context(gateway.paused("worker"))
            # Whatever the worker sent before it was stopped is done before this is answered.
            if gateway.job(job)["status"] == "completed":
                gateway.kill("worker")
                return job
        assert gateway.ended(job)["status"] == "completed"
    pytest.fail("the worker was never stopped between sending the end and hearing of it")


def test_an_end_that_its_worker_never_heard_of_is_told_once(
    gateway: Gateway, httpserver: HTTPServer, tmp_path: Path
) -> None:
    box = inbox(httpserver, "/unheard")
    record = Record(tmp_path / "record")
    job = end_unheard(gateway, record, tmp_path, box.url)
    after = gateway.submit(type="demo.echo", input={"payload": 1})["jobId"]
    assert gateway.ended(after, PATIENCE)["status"] == "completed"
    document = gateway.called_back(job, patience=PATIENCE)
    assert (document["status"], document["attempt"]) == ("completed", 1)
    assert record.executions()[job] == 1
    told = [headers["webhook-id"] for headers, body in box.received if job in body.decode()]
    assert len(told) == 1
