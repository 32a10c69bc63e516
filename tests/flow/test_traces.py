"""One trace from the submission through the handler to the callback, at a collector."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    server_attributes,
    url_attributes,
)
from pytest_httpserver import HTTPServer

from config.ids import random_bytes
from tests.collector import Collector, Seen, collecting
from tests.flow.conftest import FAST
from tests.processes import eventually
from tests.running import Gateway, inbox, running

SECRET = "a-secret-of-the-receiver"
TYPES = {"GATEWAY_JOBS_MODULES": '["gateway.handlers_.echo", "tests.flow.traced_types"]'}
CONVENTIONS = {
    value
    for module in (error_attributes, http_attributes, messaging_attributes, server_attributes)
    for value in vars(module).values()
    if isinstance(value, str)
} | {url_attributes.URL_PATH, url_attributes.URL_SCHEME}
"""The names that OpenTelemetry's semantic conventions have for what is told here."""

NOTHING_LISTENS = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Where the gateway sends its spans."""
    with collecting() as opened:
        yield opened


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Gateway]:
    """A gateway that records traces, whatever proxy its environment names."""
    settings = {
        **FAST,
        **TYPES,
        "GATEWAY_TRACING_ENDPOINT": collector.url,
        "GATEWAY_TRACING_SERVICE_NAME": "acme",
        "HTTP_PROXY": NOTHING_LISTENS,
        "http_proxy": NOTHING_LISTENS,
        "NO_PROXY": "",
        "no_proxy": "",
    }
    with running(tmp_path_factory.mktemp("traces") / "data", settings) as started:
        yield started


class Client:
    """A client that is in a trace of its own."""

    def __init__(self, gateway: Gateway, flags: str = "01") -> None:
        self.gateway = gateway
        self.trace = random_bytes(16).hex()
        self.span = random_bytes(8).hex()
        self.flags = flags

    def submit(self, **members: Any) -> str:
        """Submit a job, and return it."""
        response = self.gateway.client.post(
            "/v1/jobs",
            json=members,
            headers={
                "traceparent": f"00-{self.trace}-{self.span}-{self.flags}",
                "tracestate": "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE",
            },
        )
        assert response.status_code == 202, response.text
        return str(response.json()["jobId"])


def told(span: Seen | tuple[str, str], flags: str = "01") -> str:
    """Return the `traceparent` of what goes on from a span."""
    trace, span_id = (span.trace, span.id) if isinstance(span, Seen) else span
    return f"00-{trace}-{span_id}-{flags}"


def by_kind(spans: list[Seen]) -> dict[str, list[Seen]]:
    return {
        kind: [span for span in spans if span.kind == kind]
        for kind in ("SERVER", "PRODUCER", "CONSUMER", "CLIENT")
    }


def test_one_trace_from_submission_to_callback(
    traced: Gateway, collector: Collector, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/traced", 503)
    client = Client(traced)
    url = f"{box.url}?token={SECRET}"
    job_id = client.submit(
        type="demo.echo",
        input={"payload": SECRET},
        callbackUrl=url,
        callback={"headers": {"X-Token": SECRET}, "events": ["job.started", "job.completed"]},
    )
    traced.called_back(job_id)
    assert eventually(lambda: len(box.received) == 3)

    spans = by_kind(collector.of(client.trace, 6))
    [server], [producer], [consumer] = spans["SERVER"], spans["PRODUCER"], spans["CONSUMER"]
    webhooks = spans["CLIENT"]
    assert (server.parent, producer.parent) == (client.span, server.id)
    assert consumer.parent == producer.id
    assert {span.parent for span in webhooks} == {consumer.id}
    assert {span.state for span in collector.of(client.trace, 6)} == {
        "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
    }
    assert [span.service for span in (server, producer, consumer)] == [
        "acme-api",
        "acme-api",
        "acme-worker",
    ]

    assert server.name == "POST /v1/jobs"
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/jobs",
        "url.path": "/v1/jobs",
        "url.scheme": "http",
        "http.response.status_code": 202,
    }
    assert producer.name == "enqueue demo.echo"
    assert producer.attributes["gateway.job.id"] == job_id
    assert consumer.name == "job demo.echo"
    assert consumer.attributes == {
        "messaging.system": "gateway",
        "messaging.destination.name": "demo.echo",
        "messaging.operation.type": "process",
        "messaging.operation.name": "job",
        "messaging.message.id": job_id,
        "gateway.job.id": job_id,
        "gateway.job.type": "demo.echo",
        "gateway.job.attempt": 1,
        "gateway.job.max_attempts": 3,
        "gateway.job.outcome": "completed",
        "gateway.tenant": "default",
    }
    assert not any(span.failed for span in (server, producer, consumer))

    # A receiver goes on from the very attempt that it is sent.
    assert {headers["traceparent"] for headers, _ in box.received} == set(map(told, webhooks))
    assert {headers["tracestate"] for headers, _ in box.received} == {
        "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
    }
    for span in webhooks:
        assert (span.name, span.service) == ("webhook", "acme-delivery")
        assert span.attributes["server.address"] == httpserver.host
        assert span.attributes["server.port"] == httpserver.port
    [refused] = [span for span in webhooks if span.failed]
    assert refused.attributes["http.response.status_code"] == 503
    assert refused.attributes["error.type"] == "503"
    assert refused.attributes["gateway.delivery.outcome"] == "throttled"
    [again] = [span for span in webhooks if "http.request.resend_count" in span.attributes]
    assert again.attributes["gateway.delivery.id"] == refused.attributes["gateway.delivery.id"]
    assert again.attributes["gateway.delivery.attempt"] == 2
    assert again.attributes["http.response.status_code"] == 200

    ours = {span.id for span in collector.of(client.trace, 6)}
    names = {name for span in collector.spans if span.id in ours for name in span.attributes}
    assert {name for name in names if not name.startswith("gateway.")} <= CONVENTIONS
    assert not any(SECRET.encode() in body for body in collector.bodies)
    assert not any(b"/traced" in body for body in collector.bodies)


@pytest.mark.parametrize("name", ["traced.thread", "traced.async", "traced.process"])
@pytest.mark.parametrize("flags", ["01", "00"])
def test_a_handler_sees_where_it_stands(
    traced: Gateway, collector: Collector, name: str, flags: str
) -> None:
    client = Client(traced, flags)
    results = traced.ended(client.submit(type=name, input={}))["results"]
    seen = results["headers"]
    assert seen["tracestate"] == "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
    version, trace, span, said = seen["traceparent"].split("-")
    assert (version, trace, said) == ("00", client.trace, flags)
    if flags == "01":
        [consumer] = by_kind(collector.of(client.trace, 3))["CONSUMER"]
        assert span == consumer.id


def test_every_attempt_is_a_span(traced: Gateway, collector: Collector) -> None:
    client = Client(traced)
    job_id = client.submit(type="traced.failing", input={"failures": 2})
    assert traced.ended(job_id)["status"] == "completed"
    spans = by_kind(collector.of(client.trace, 5))
    [producer] = spans["PRODUCER"]
    attempts = spans["CONSUMER"]
    assert {span.parent for span in attempts} == {producer.id}
    assert [
        (
            span.attributes["gateway.job.attempt"],
            span.attributes["gateway.job.outcome"],
            span.attributes.get("error.type"),
            span.why,
        )
        for span in attempts
    ] == [
        (1, "retried", "not_ready", "It is not ready."),
        (2, "retried", "not_ready", "It is not ready."),
        (3, "completed", None, ""),
    ]
    assert [span.failed for span in attempts] == [True, True, False]


def test_what_is_sent_or_run_again_stays_in_its_trace(
    traced: Gateway, collector: Collector, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/away", always=500)
    client = Client(traced)
    job_id = client.submit(
        type="traced.failing",
        input={"failures": 3},
        maxAttempts=1,
        callbackUrl=box.url,
    )
    traced.called_back(job_id, "dead")
    box.always = 200
    sent = traced.dead_letters("replay", str(delivery_of(traced, job_id)), "--wait", "20")
    assert sent.returncode == 0, sent.stderr
    again = traced.client.post(f"/v1/jobs/{job_id}/retry")
    assert again.status_code == 202, again.text
    traced.called_back(again.json()["jobId"])

    spans = by_kind(collector.of(client.trace, 9))
    [producer] = spans["PRODUCER"]
    first, second = spans["CONSUMER"]
    assert (first.parent, second.parent) == (producer.id, producer.id)
    assert second.attributes["gateway.job.id"] == again.json()["jobId"]
    assert [
        (span.parent, span.attributes["gateway.delivery.trigger"], span.failed)
        for span in spans["CLIENT"]
    ] == [
        *[(first.id, "schedule", True)] * 3,
        (first.id, "replay", False),
        (second.id, "schedule", False),
    ]


def delivery_of(gateway: Gateway, job_id: str) -> object:
    listed = gateway.client.get(f"/v1/jobs/{job_id}/deliveries")
    assert listed.status_code == 200, listed.text
    [delivery] = listed.json()["items"]
    return delivery["id"]


def test_who_does_not_want_to_be_recorded_is_not(
    traced: Gateway, collector: Collector, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/unsampled")
    client = Client(traced, "00")
    traced.called_back(client.submit(type="demo.echo", input={"payload": 1}, callbackUrl=box.url))
    [(headers, _)] = box.received
    version, trace, span, flags = headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", client.trace, "00")
    assert span != client.span
    # Sent by the same processes in the same order: what was to come would be there.
    later = Client(traced)
    traced.called_back(later.submit(type="demo.echo", input={"payload": 1}, callbackUrl=box.url))
    collector.of(later.trace, 4)
    assert client.trace not in {span.trace for span in collector.spans}


def test_a_trace_begins_where_no_client_began_one(
    traced: Gateway, collector: Collector, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/untraced")
    job = traced.submit(type="demo.echo", input={"payload": 1}, callbackUrl=box.url)
    traced.called_back(job["jobId"])
    spans = by_kind(collector.about(job["jobId"], 4))
    [server], [webhook] = spans["SERVER"], spans["CLIENT"]
    assert server.parent == ""
    [(headers, _)] = box.received
    # Its identifier is random, which a flag says.
    assert headers["traceparent"] in {told(webhook, "01"), told(webhook, "03")}
    assert "tracestate" not in headers


def test_a_refusal_is_recorded_too(traced: Gateway, collector: Collector) -> None:
    trace = random_bytes(16).hex()
    parent = told((trace, random_bytes(8).hex()))
    refused = traced.client.post(
        "/v1/jobs", json={"type": "no.such.type"}, headers={"traceparent": parent}
    )
    [server] = collector.of(trace, 1)
    assert server.attributes["http.response.status_code"] == refused.status_code == 422
    # The client's error, not the server's.
    assert not server.failed


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else is given."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def work(gateway: Gateway, httpserver: HTTPServer, path: str) -> None:
    box = inbox(httpserver, path)
    jobs = [
        gateway.submit(type=name, input={}, callbackUrl=box.url)["jobId"]
        for name in ("traced.thread", "traced.process")
        for _ in range(20)
    ]
    for job_id in jobs:
        assert gateway.called_back(job_id)["status"] == "completed"


def troubles(data: Path) -> list[str]:
    """Return whose logs tell of troubles with the collector, a name for each line."""
    return [
        log.stem
        for log in sorted((data / "log").glob("*.log"))
        for line in log.read_text().splitlines()
        if "tracing.trouble" in line
    ]


def test_work_goes_on_without_the_collector(
    tmp_path: Path, httpserver: HTTPServer, closed_port: int
) -> None:
    settings = {
        **FAST,
        **TYPES,
        "GATEWAY_TRACING_ENDPOINT": f"http://127.0.0.1:{closed_port}",
    }
    data = tmp_path / "data"
    with running(data, settings) as gateway:
        work(gateway, httpserver, "/dead-collector")
        assert eventually(lambda: len(troubles(data)) >= 3)
    # Of each process one line, and no other; each stopped in order all the same.
    assert troubles(data) == ["api", "delivery", "worker"]


def test_work_goes_on_beside_a_collector_that_hangs(tmp_path: Path, httpserver: HTTPServer) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:
        port = deaf.getsockname()[1]
        settings = {**FAST, **TYPES, "GATEWAY_TRACING_ENDPOINT": f"http://127.0.0.1:{port}"}
        with running(tmp_path / "data", settings) as gateway:
            work(gateway, httpserver, "/deaf-collector")


def test_an_attempt_that_hears_of_no_limit_is_told_of_too(
    tmp_path: Path, collector: Collector
) -> None:
    settings = {
        **FAST,
        **TYPES,
        "GATEWAY_TRACING_ENDPOINT": collector.url,
        "GATEWAY_WORKER_GRACE_SECONDS": "0",
    }
    with running(tmp_path / "data", settings) as gateway:
        client = Client(gateway)
        job = gateway.ended(client.submit(type="traced.deaf", input={}))
        assert (job["status"], job["errorCode"]) == ("failed", "timeout")
        [attempt] = by_kind(collector.of(client.trace, 3))["CONSUMER"]
    assert attempt.attributes["gateway.job.outcome"] == "failed"
    assert attempt.attributes["error.type"] == "timeout"
    assert attempt.why == job["error"]


def test_without_a_collector_a_handler_sees_no_trace(
    tmp_path: Path, httpserver: HTTPServer
) -> None:
    with running(tmp_path / "data", {**FAST, **TYPES}) as gateway:
        for name in ("traced.thread", "traced.process"):
            job = gateway.ended(Client(gateway).submit(type=name, input={}))
            assert job["results"] == {"headers": {}}
