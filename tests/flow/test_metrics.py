"""A run is scraped on every admin port, and compared with a ledger of what was asked and heard."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pytest_httpserver import HTTPServer
from standardwebhooks import Webhook
from werkzeug import Request, Response

from tests.flow.conftest import FAST
from tests.processes import eventually
from tests.running import Gateway, Inbox, inbox, running

ROLES = ("api", "relay", "worker", "delivery")


class Admin:
    """The admin ports of a running gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._urls: dict[str, str] = gateway.record()["adminUrls"]
        self._client = httpx.Client(trust_env=False, timeout=20)

    def get(self, role: str, path: str) -> httpx.Response:
        return self._client.get(self._urls[role] + path)

    def samples(self, role: str, name: str) -> dict[tuple[str, ...], float]:
        """Return the samples of this name, by the values of their labels in order of names."""
        answer = self.get(role, "/metrics")
        assert answer.status_code == 200, answer.text
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == name
        }

    def risen(self, role: str, name: str) -> dict[tuple[str, ...], float]:
        """Return those of them that are above 0."""
        return {labels: value for labels, value in self.samples(role, name).items() if value}

    def value(self, role: str, name: str) -> float:
        [value] = self.samples(role, name).values()
        return value

    def reasons(self, role: str) -> list[str]:
        """Return why the role is not ready."""
        answer = self.get(role, "/readyz")
        return [each["code"] for each in answer.json().get("reasons", [])]

    def is_cut_off(self, role: str) -> bool:
        return self.reasons(role) == ["store_unavailable"]

    def is_ready(self, role: str) -> bool:
        return self.reasons(role) == []

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def operators() -> Iterator[HTTPServer]:
    """The operator's server, at an origin of its own."""
    with HTTPServer(host="127.0.0.1", port=0) as server:
        yield server


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory, operators: HTTPServer) -> Iterator[Gateway]:
    """A gateway with an operator, and a worker of two processes."""
    settings = FAST | {
        "GATEWAY_STORE_PARTITIONS": "4",
        "GATEWAY_WORKER_PROCESSES": "2",
        "GATEWAY_WORKER_THREADS": "2",
        "GATEWAY_OPERATOR_URL": operators.url_for("/operator"),
        "GATEWAY_HANDLERS_PATH": str(Path(__file__).parent),
        "GATEWAY_JOBS_MODULES": '["gateway.handlers_.echo", "calling_types"]',
    }
    with running(tmp_path_factory.mktemp("metrics") / "data", settings) as started:
        yield started


@pytest.fixture
def admin(gateway: Gateway) -> Iterator[Admin]:
    """Its admin ports, once every role is ready."""
    with closing(Admin(gateway)) as ports:
        for role in ROLES:
            assert eventually(partial(ports.is_ready, role)), (role, ports.reasons(role))
        yield ports


@dataclass(slots=True, kw_only=True)
class Ledger:
    """What was asked of a gateway, and what its receivers got."""

    gateway: Gateway
    box: Inbox
    gone: Inbox
    operator: Inbox
    accepted: int = 0
    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unwanted: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    unheard: str = ""
    cancelled: str = ""

    def call(self, job_type: str) -> str:
        """Submit a job that wants to call what may not be called."""
        self.accepted += 1
        return str(self.gateway.submit(type=job_type, input={})["jobId"])

    def submit(self, callback: str, **given: object) -> str:
        self.accepted += 1
        job = self.gateway.submit(
            type="demo.echo", input={"payload": 1, **given}, callbackUrl=callback
        )
        return str(job["jobId"])

    def write(self) -> None:
        """Submit one of everything, and wait for its end."""
        gateway, box = self.gateway, self.box
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            closed = f"http://127.0.0.1:{reserved.getsockname()[1]}/down"
        self.done = [self.submit(box.url) for _ in range(6)]
        self.failed = [self.submit(box.url, fail="No more paper.") for _ in range(3)]
        self.unheard = self.submit(closed)
        self.unwanted = [self.submit(self.gone.url)]
        gateway.called_back(self.unwanted[0], "dead")
        self.unwanted.append(self.submit(self.gone.url))
        self.denied = [self.call(each) for each in ("calling.here", "calling.apart")]
        self.cancelled = self.submit(box.url, seconds=60, steps=600)
        gateway.wait(
            lambda: gateway.job(self.cancelled), lambda seen: seen["status"] == "processing", 20
        )
        assert gateway.client.post(f"/v1/jobs/{self.cancelled}/cancel").status_code == 202
        for job in (*self.done, *self.failed, self.cancelled):
            gateway.called_back(job)
        for job in self.denied:
            assert gateway.ended(job)["errorCode"] == "destination_not_allowed"
        gateway.called_back(self.unheard, "dead")
        gateway.called_back(self.unwanted[1], "disabled")

    @property
    def ended(self) -> dict[tuple[str, ...], int]:
        """Return how many ended how."""
        return {
            ("completed", "demo.echo"): len(self.done) + len(self.unwanted) + 1,
            ("failed", "demo.echo"): len(self.failed),
            ("cancelled", "demo.echo"): 1,
            ("failed", "calling.here"): 1,
            ("failed", "calling.apart"): 1,
        }

    @property
    def statuses(self) -> Counter[str]:
        """Return the same, whatever their types."""
        found: Counter[str] = Counter()
        for (status, _), number in self.ended.items():
            found[status] += number
        return found

    @property
    def delivered(self) -> int:
        """Return how many callbacks of jobs arrived."""
        return len(self.done) + len(self.failed) + 1


def test_what_is_counted_is_what_happened(
    gateway: Gateway, admin: Admin, httpserver: HTTPServer, operators: HTTPServer
) -> None:
    ledger = Ledger(
        gateway=gateway,
        box=inbox(httpserver, "/ok", 500),
        gone=inbox(httpserver, "/gone", always=410),
        operator=inbox(operators, "/operator"),
    )
    ledger.write()
    assert sum(ledger.ended.values()) == ledger.accepted
    _check_relay(admin, ledger)
    _check_worker(admin, ledger)
    _check_delivery(admin, ledger)
    _check_notices(ledger)
    _check_api(admin, ledger)
    _check_replay(admin, ledger)
    for role in ROLES:
        assert admin.get(role, "/livez").json() == {"status": "alive"}
        assert admin.reasons(role) == []
    # They are for operators only.
    assert gateway.client.get("/metrics").status_code == 404


def _check_api(admin: Admin, ledger: Ledger) -> None:
    client = ledger.gateway.client
    again = {"Idempotency-Key": "once"}
    body = {"type": "demo.echo", "input": {"payload": 1}}
    for _ in range(3):
        assert client.post("/v1/jobs", json=body, headers=again).status_code == 202
    for _ in range(2):
        assert client.post("/v1/jobs", json={"type": "no", "input": {}}).status_code == 422
    assert client.post("/v1/jobs", json=[]).status_code == 422
    assert client.post("/v1/endpoints", json={}).status_code == 422
    accepted = admin.risen("api", "gateway_jobs_accepted_total")
    assert accepted == {
        ("calling.here",): 1,
        ("calling.apart",): 1,
        ("demo.echo",): ledger.accepted - 2 + 1,
    }
    refused = admin.samples("api", "gateway_jobs_refused_total")
    assert (refused.pop(("unknown_job_type",)), sum(refused.values())) == (2, 1)
    answered = admin.samples("api", "gateway_http_responses_total")
    # One was replayed twice, another cancelled.
    assert answered["POST", "202"] == ledger.accepted + 1 + 2 + 1
    assert answered["POST", "422"] == 4


def _check_relay(admin: Admin, ledger: Ledger) -> None:
    name = "gateway_jobs_ended_total"
    assert eventually(lambda: admin.risen("relay", name) == ledger.ended), admin.samples(
        "relay", name
    )
    assert admin.samples("relay", "gateway_jobs") == {
        ("pending",): 0,
        ("processing",): 0,
        **{(status,): number for status, number in ledger.statuses.items()},
    }
    depth = admin.samples("relay", "gateway_job_queue_depth")
    assert depth == {("high",): 0, ("normal",): 0, ("low",): 0}
    assert admin.value("relay", "gateway_job_dead_letters") == ledger.statuses["failed"]
    assert admin.value("relay", "gateway_worker_threads") == 4
    assert admin.value("relay", "gateway_store_up") == 1


def _check_worker(admin: Admin, ledger: Ledger) -> None:
    """Both of its processes together."""
    attempts = admin.risen("worker", "gateway_job_attempt_seconds_count")
    assert attempts == ledger.ended
    assert len(admin.samples("worker", "gateway_worker_turned_timestamp_seconds")) == 2
    denied = admin.samples("worker", "gateway_destinations_denied_total")
    assert denied == {("job",): len(ledger.denied)}


def _check_delivery(admin: Admin, ledger: Ledger) -> None:
    """What receivers saw, and the operator's beside the others."""
    assert eventually(lambda: len(ledger.operator.received) == 3)
    assert len(ledger.box.received) == ledger.delivered + 1
    assert len(ledger.gone.received) == 1
    taken = ledger.delivered + len(ledger.operator.received)
    expected = {
        ("delivered", "2xx"): taken,
        ("rejected", "5xx"): 1,
        ("gone", "4xx"): 1,
        ("connect", "none"): 3,
    }
    name = "gateway_delivery_attempts_total"
    assert eventually(lambda: admin.samples("delivery", name) == expected), admin.samples(
        "delivery", name
    )
    assert admin.value("delivery", "gateway_delivery_end_to_end_seconds_count") == taken
    assert admin.risen("delivery", "gateway_delivery_dead_total") == {
        ("exhausted",): 1,
        ("gone",): 1,
        ("disabled",): 1,
    }
    assert admin.value("delivery", "gateway_delivery_dead_letters") == 3
    assert admin.value("delivery", "gateway_delivery_in_flight") == 0
    assert admin.value("delivery", "gateway_operator_notices") == 0
    assert admin.risen("delivery", "gateway_destinations_denied_total") == {}


def _check_replay(admin: Admin, ledger: Ledger) -> None:
    """Dead letters are sent again to whom takes them, and what is left is purged."""
    sent = ledger.gateway.dead_letters(
        "replay", "--reason", "exhausted", "--to-url", ledger.box.url, "--wait", "20"
    )
    assert sent.returncode == 0, sent.stderr
    purged = ledger.gateway.dead_letters("purge", "--all", "--yes")
    assert purged.returncode == 0, purged.stderr
    rerun = ledger.gateway.dead_letters("replay", "--kind", "job", ledger.failed[0])
    assert rerun.returncode == 0, rerun.stderr
    name, wanted = "gateway_replay_letters_total", {"replayed": 2, "purged": 2, "delivered": 1}
    expected = {(outcome,): float(number) for outcome, number in wanted.items()}
    assert eventually(lambda: admin.risen("delivery", name) == expected), admin.samples(
        "delivery", name
    )
    ended = admin.risen("delivery", "gateway_replays_ended_total")
    assert ended == {("completed",): 3}
    running = admin.samples("delivery", "gateway_replays_running")
    assert running == {("delivery",): 0, ("job",): 0}
    assert admin.value("delivery", "gateway_replay_letters_left") == 0


def _check_notices(ledger: Ledger) -> None:
    """The operator was told of two deaths and of one URL, signed with his endpoint's secret."""
    webhook = Webhook(ledger.gateway.secret(ledger.operator.url))
    told = []
    for headers, body in ledger.operator.received:
        webhook.verify(body, headers)
        event = json.loads(body)
        told.append((event["type"], event["data"]["reason"], event["data"]["tags"]["jobId"]))
    assert sorted(told) == sorted(
        [
            ("endpoint.disabled", "gone", ledger.unwanted[0]),
            ("delivery.exhausted", "gone", ledger.unwanted[0]),
            ("delivery.exhausted", "exhausted", ledger.unheard),
        ]
    )


def test_a_process_that_stops_says_so_while_it_goes_on(
    gateway: Gateway, admin: Admin, httpserver: HTTPServer
) -> None:
    held, may_answer = Event(), Event()

    def hold(_request: Request) -> Response:
        held.set()
        may_answer.wait(20)
        return Response(status=200)

    httpserver.expect_request("/held", method="POST").respond_with_handler(hold)
    url = httpserver.url_for("/held")
    job = gateway.submit(type="demo.echo", input={"payload": 1}, callbackUrl=url)
    assert held.wait(20)
    stopped = gateway.terminate("delivery")
    assert eventually(lambda: admin.reasons("delivery") == ["draining"])
    assert admin.get("delivery", "/livez").status_code == 200
    assert admin.value("delivery", "gateway_delivery_in_flight") == 1
    may_answer.set()
    assert gateway.called_back(job["jobId"])["callback"]["attempts"] == 1
    assert eventually(lambda: gateway.replaced("delivery", stopped))
    assert eventually(partial(admin.is_ready, "delivery"))

    slow = gateway.submit(type="demo.echo", input={"payload": 1, "seconds": 4, "steps": 40})
    gateway.wait(
        lambda: gateway.job(slow["jobId"]), lambda seen: seen["status"] == "processing", 20
    )
    stopped = gateway.terminate("worker")
    assert eventually(lambda: admin.reasons("worker") == ["draining"])
    document = gateway.ended(slow["jobId"])
    assert (document["status"], document["attempt"]) == ("completed", 1)
    assert eventually(lambda: gateway.replaced("worker", stopped))
    assert eventually(partial(admin.is_ready, "worker"))


def test_a_store_that_is_away_makes_all_unready_and_none_dead(
    gateway: Gateway, admin: Admin
) -> None:
    with gateway.paused("store"):
        for role in ROLES:
            assert eventually(partial(admin.is_cut_off, role)), (role, admin.reasons(role))
            assert admin.get(role, "/livez").status_code == 200
        assert gateway.client.get("/readyz").json()["code"] == "unhealthy"
        assert admin.value("relay", "gateway_store_up") == 0
        assert admin.samples("relay", "gateway_jobs") == {}
    for role in ROLES:
        assert eventually(partial(admin.is_ready, role)), (role, admin.reasons(role))


def test_a_worker_whose_admin_port_ends_is_replaced(gateway: Gateway, admin: Admin) -> None:
    worker = gateway.pid("worker")
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    [port] = [
        int(line.split()[0])
        for line in listed.stdout.splitlines()
        if line.split()[1] == str(worker) and "gateway.workeradmin" in line
    ]
    os.kill(port, signal.SIGKILL)
    assert eventually(lambda: gateway.replaced("worker", worker))
    assert eventually(partial(admin.is_ready, "worker"))
