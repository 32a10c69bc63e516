"""Processes that are told to stop under load, and threads that cannot be stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.faults.records import FAULTY, Record, await_workers, count
from tests.processes import eventually, is_alive
from tests.running import API_KEY, Gateway, descendants, inbox, running

SETTINGS = {
    **FAULTY,
    # What is handed back must not wait for a lease to run out: these outlast every test.
    "GATEWAY_JOBS_LEASE_SECONDS": "300",
    "GATEWAY_DELIVERY_LEASE_SECONDS": "300",
    "GATEWAY_DELIVERY_TOTAL_TIMEOUT_SECONDS": "120",
    "GATEWAY_DELIVERY_FIRST_BYTE_TIMEOUT_SECONDS": "120",
    "GATEWAY_WORKER_PROCESSES": "2",
    "GATEWAY_WORKER_THREADS": "2",
    "GATEWAY_WORKER_GRACE_SECONDS": "1",
}
PATIENCE = 40.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose leases do not run out while anybody looks."""
    with running(tmp_path_factory.mktemp("worker") / "data", SETTINGS) as started:
        await_workers(started, 2)
        yield started


def test_a_thread_that_ignores_its_deadline_ends_its_attempt_and_its_process(
    gateway: Gateway, record: Record, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/deaf")
    job = gateway.submit(
        type="faulty.deaf",
        input={"record": str(record), "seconds": 60},
        timeoutSeconds=1,
        maxAttempts=1,
        callbackUrl=box.url,
    )["jobId"]
    others = [count(gateway, record, input={"seconds": 0.2}) for _ in range(20)]
    assert eventually(lambda: record.executions()[job] == 1)
    worker = gateway.pid("worker")
    document = gateway.called_back(job, patience=PATIENCE)
    assert (document["status"], document["errorCode"]) == ("failed", "timeout")
    assert eventually(lambda: gateway.replaced("worker", worker))
    others += [count(gateway, record) for _ in range(4)]
    assert {gateway.ended(other, PATIENCE)["attempt"] for other in others} == {1}
    assert record.executions()[job] == 1
    assert gateway.job(job)["attempt"] == 1
    assert [json.loads(body)["data"]["errorCode"] for _, body in box.received] == ["timeout"]


def test_a_worker_without_its_consumer_is_replaced(gateway: Gateway, record: Record) -> None:
    before = gateway.pid("worker")
    dying = gateway.submit(type="faulty.kill_consumer", input={"record": str(record.path)})
    assert gateway.ended(dying["jobId"])["status"] == "completed"
    assert eventually(lambda: gateway.replaced("worker", before))
    job = gateway.submit(type="faulty.count", input={"record": str(record.path)})
    assert gateway.ended(job["jobId"])["status"] == "completed"


def test_a_worker_that_stops_hands_its_jobs_back_at_once(gateway: Gateway, record: Record) -> None:
    length = {"seconds": 2, "steps": 40}
    # The only attempt they have: one that is handed back must not use it up.
    held = [count(gateway, record, input=length, maxAttempts=1) for _ in range(3)]
    deaf = gateway.submit(
        type="faulty.deaf", input={"record": str(record), "seconds": 4}, maxAttempts=1
    )["jobId"]
    waiting = [count(gateway, record, maxAttempts=1) for _ in range(20)]
    assert eventually(lambda: {*held, deaf} <= record.executions().keys())
    worker = gateway.terminate("worker")
    ended = [gateway.ended(job, PATIENCE) for job in (*held, deaf, *waiting)]
    assert {(each["status"], each["attempt"]) for each in ended} == {("completed", 1)}
    assert gateway.replaced("worker", worker)
    executions = record.executions()
    assert [executions[job] for job in (*held, deaf)] == [2, 2, 2, 2]
    assert {executions[job] for job in waiting} == {1}


def test_a_worker_that_stops_lets_short_jobs_end(gateway: Gateway, record: Record) -> None:
    jobs = [count(gateway, record, input={"seconds": 0.2}) for _ in range(4)]
    assert eventually(lambda: len(record.executions()) == 4)
    worker = gateway.pid("worker")
    gateway.terminate("worker")
    assert {gateway.ended(job, PATIENCE)["attempt"] for job in jobs} == {1}
    assert record.executions() == Counter(jobs)
    assert eventually(lambda: gateway.replaced("worker", worker))


class Clients:
    """Clients that submit without a pause, each on a connection that it keeps."""

    def __init__(self, gateway: Gateway, record: Record) -> None:
        self._url = gateway.record()["apiUrl"]
        self._record = record
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._submit, args=(number,)) for number in range(4)
        ]
        self.accepted: list[str] = []
        self.refused: list[int] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Submit inside the block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(PATIENCE)

    def _submit(self, client: int) -> None:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=PATIENCE) as connection:
            number = 0
            while not self._over.is_set():
                number += 1
                self._submit_one(connection, f"{self._record.path}-{client}-{number}")

    def _submit_one(self, connection: httpx.Client, key: str) -> None:
        members = {"type": "faulty.count", "input": {"record": str(self._record)}}
        while True:
            try:
                answer = connection.post("/v1/jobs", json=members, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                # The connection closed before an answer came: ask again, under the same key.
                continue
            if answer.status_code in {202, 200}:
                self.accepted.append(answer.json()["jobId"])
            else:
                self.refused.append(answer.status_code)
            return


@pytest.mark.parametrize("role", ["relay", "api"])
def test_no_accepted_job_is_lost_when_a_process_stops(
    gateway: Gateway, record: Record, role: str
) -> None:
    clients = Clients(gateway, record)
    with clients.at_work():
        assert eventually(lambda: len(clients.accepted) > 20)
        stopped = gateway.terminate(role)
        assert eventually(lambda: gateway.replaced(role, stopped))
        seen = len(clients.accepted)
        assert eventually(lambda: len(clients.accepted) > seen + 20)
    assert clients.refused == []
    assert {gateway.ended(job, PATIENCE)["status"] for job in clients.accepted} == {"completed"}
    # One key made one job, however often it was sent.
    assert record.executions() == Counter(clients.accepted)


def test_connections_that_are_kept_end_in_order_when_the_api_stops(gateway: Gateway) -> None:
    address = urlsplit(gateway.record()["apiUrl"])
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 0), timeout=PATIENCE) as kept:
        kept.sendall(f"GET /livez HTTP/1.1\r\nhost: {address.netloc}\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"alive\n"):
            answer += kept.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
        gateway.terminate("api")
        # An end of the stream, not a reset.
        assert kept.recv(65536) == b""


@dataclass(slots=True)
class HeldUp:
    """A receiver whose first answer waits until it is told to go on."""

    url: str
    seen: list[str] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    def take(self, request: Request) -> Response:
        """Answer all but the first at once."""
        self.seen.append(request.headers["webhook-id"])
        if len(self.seen) == 1:
            self.go_on.wait(PATIENCE)
        return Response(status=200)


@pytest.fixture
def held_up() -> Iterator[HeldUp]:
    """A receiver that answers others while it holds up one."""
    with HTTPServer(threaded=True) as server:
        receiver = HeldUp(server.url_for("/held"))
        server.expect_request("/held", method="POST").respond_with_handler(receiver.take)
        try:
            yield receiver
        finally:
            receiver.go_on.set()


def test_a_delivery_process_that_stops_lets_its_attempt_end(
    gateway: Gateway, held_up: HeldUp
) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 1}, callbackUrl=held_up.url)["jobId"]
    assert eventually(lambda: len(held_up.seen) == 1)
    stopped = gateway.terminate("delivery")
    held_up.go_on.set()
    document = gateway.called_back(job, patience=PATIENCE)
    assert document["callback"]["attempts"] == 1
    assert eventually(lambda: gateway.replaced("delivery", stopped))
    assert len(held_up.seen) == 1


def test_a_delivery_process_that_stops_hands_back_what_does_not_end(
    gateway: Gateway, held_up: HeldUp
) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 1}, callbackUrl=held_up.url)["jobId"]
    assert eventually(lambda: len(held_up.seen) == 1)
    gateway.terminate("delivery")
    assert gateway.called_back(job, patience=PATIENCE)["callback"]["status"] == "delivered"
    assert not held_up.go_on.is_set()
    assert len(held_up.seen) == 2
    assert len(set(held_up.seen)) == 1


def test_workers_leave_with_the_process_that_forked_them(gateway: Gateway) -> None:
    # It may have been started anew a moment ago.
    assert eventually(lambda: len(descendants(gateway.pid("worker"))) >= 2)
    worker = gateway.pid("worker")
    forked = descendants(worker)
    assert len(forked) >= 2
    os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: gateway.replaced("worker", worker))
    assert eventually(lambda: not any(map(is_alive, forked)))
    await_workers(gateway, 2)
