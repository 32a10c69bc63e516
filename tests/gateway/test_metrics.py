"""What the gateway counts is what happened to its jobs."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from config.clock import SECOND, SystemClock
from config.ids import partition_of
from config.scripts import partition_prefix
from config.settings import environment
from config.store import Store
from gateway.metrics import JobMetrics, job_numbers
from gateway.services import Services
from tests.conftest import RunningStores
from tests.gateway.conftest import SEALING, FullStore, Gateway
from tests.gateway.jobs import ECHO, finish, submit
from tests.running import ROOT

LEASE = 30 * SECOND


class Numbers:
    """The numbers in the store, read whenever one is asked for."""

    def __init__(self, store: Store, partitions: int) -> None:
        self._store = store
        self._partitions = partitions

    async def value(self, name: str, **labels: str) -> float | None:
        registry = CollectorRegistry()
        await job_numbers(registry, self._store, self._partitions, SystemClock()).refresh()
        return registry.get_sample_value(f"gateway_{name}", labels)


@pytest.fixture
def numbers(store: Store, partitions: int) -> Numbers:
    return Numbers(store, partitions)


async def ring(services: Services, window: int = 100) -> list[str]:
    """Tell the broker of what may be rung; return what that is."""
    partitions = services.outbox.partitions
    rung = await services.outbox.ring(
        dict.fromkeys(range(partitions), window), again=SECOND, again_at_most=SECOND, overdue=False
    )
    return [job for each in rung.values() for job in each.jobs]


async def age(store: Store, job_id: str, priority: str, seconds: int) -> None:
    """Let a job that waits in the outbox have come earlier."""
    key = f"{partition_prefix(partition_of(job_id))}ob:{priority}:acme"
    await store.client.zincrby(key, -seconds * SECOND, job_id)


async def test_the_queue_is_counted_by_priority_rung_or_not(
    client: httpx.AsyncClient, services: Services, store: Store, numbers: Numbers
) -> None:
    for priority in ("high", "normal", "low"):
        assert await numbers.value("job_queue_depth", priority=priority) == 0
        assert await numbers.value("job_queue_oldest_age_seconds", priority=priority) == 0
    normal = [await submit(client) for _ in range(3)]
    [low] = [await submit(client, priority="low")]
    await age(store, normal[1], "normal", 60)
    for is_rung in (False, True):
        assert await numbers.value("job_queue_depth", priority="normal") == 3
        assert await numbers.value("job_queue_depth", priority="low") == 1
        assert await numbers.value("job_queue_depth", priority="high") == 0
        oldest = await numbers.value("job_queue_oldest_age_seconds", priority="normal")
        assert oldest is not None
        assert 60 <= oldest < 80
        assert await numbers.value("jobs_rung") == 4 * is_rung
        assert await numbers.value("jobs", status="pending") == 4
        if not is_rung:
            assert sorted(await ring(services)) == sorted([*normal, low])
    await services.work.claim(normal[1], "claim", lease=LEASE)
    assert await numbers.value("job_queue_depth", priority="normal") == 2
    oldest = await numbers.value("job_queue_oldest_age_seconds", priority="normal")
    assert oldest is not None
    assert oldest < 20
    assert await numbers.value("jobs", status="processing") == 1


async def test_a_job_that_waits_for_an_instant_is_late_after_it_only(
    client: httpx.AsyncClient, services: Services, store: Store, numbers: Numbers
) -> None:
    job_id = await submit(client, runAt="2099-01-01T00:00:00Z")
    assert await numbers.value("job_due_lag_seconds") == 0
    assert await numbers.value("job_queue_depth", priority="normal") == 0
    key = f"{partition_prefix(partition_of(job_id))}later"
    await store.client.zadd(key, {job_id: services.clock.now() - 30 * SECOND})
    late = await numbers.value("job_due_lag_seconds")
    assert late is not None
    assert 30 <= late < 50
    await ring(services)
    assert await numbers.value("job_due_lag_seconds") == 0


async def test_ends_are_counted_once_by_type_and_status(
    client: httpx.AsyncClient, services: Services, numbers: Numbers
) -> None:
    for status in ("completed", "completed", "failed"):
        await finish(services, await submit(client), status)
    cancelled = await submit(client)
    for _ in range(2):
        assert (await client.post(f"/v1/jobs/{cancelled}/cancel")).status_code == 200
    for status, number in (("completed", 2), ("failed", 1), ("cancelled", 1)):
        assert await numbers.value("jobs_ended_total", type="demo.echo", status=status) == number
        assert await numbers.value("jobs", status=status) == number
    assert await numbers.value("job_dead_letters") == 1
    failed = await client.get("/v1/jobs", params={"status": "failed"})
    erased = failed.json()["items"][0]["jobId"]
    assert (await client.delete(f"/v1/jobs/{erased}")).status_code == 204
    assert await numbers.value("job_dead_letters") == 0
    assert await numbers.value("jobs_ended_total", type="demo.echo", status="failed") == 1


async def test_each_lapse_of_a_lease_is_counted_once(
    client: httpx.AsyncClient, services: Services, numbers: Numbers
) -> None:
    jobs = [await submit(client, maxAttempts=attempts) for attempts in (1, 2)]
    for job_id in jobs:
        assert await services.work.claim(job_id, f"gone:{job_id}", lease=1)
    for _ in range(2):
        # One is pending again; the other is offered to be ended until somebody does.
        await services.outbox.sweep([], lease=LEASE, at_most=10)
        assert await numbers.value("job_leases_lost_total") == 2


async def test_submissions_are_counted_as_they_were_answered(
    gateway: Gateway, client: httpx.AsyncClient, full_store: FullStore
) -> None:
    registry = gateway.services.metrics.registry

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"gateway_{name}", labels)

    job_id = await submit(client)
    key = {"Idempotency-Key": "k"}
    for _ in range(3):
        assert (await client.post("/v1/jobs", json=ECHO, headers=key)).status_code == 202
    assert value("jobs_accepted_total", type="demo.echo") == 2
    await finish(gateway.services, job_id, "failed")
    for _ in range(2):
        assert (await client.post(f"/v1/jobs/{job_id}/retry")).status_code == 202
    assert value("jobs_accepted_total", type="demo.echo") == 3
    refusals: list[tuple[str, dict[str, Any]]] = [
        ("unknown_member", {"json": {**ECHO, "no": 1}}),
        ("malformed_json", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        ("unsupported_media_type", {"content": b"{", "headers": {"Content-Type": "text/x"}}),
    ]
    for code, request in refusals:
        answer = await client.post("/v1/jobs", **request)
        assert answer.json()["code"] == code
        assert value("jobs_refused_total", code=code) == 1
    async with full_store():
        await client.post("/v1/jobs", json=ECHO)
    assert value("jobs_refused_total", code="store_full") == 1
    async with gateway.anyone() as stranger:
        await stranger.post("/api/documents", json={})
        await stranger.get("/v1/jobs")
    assert value("jobs_refused_total", code="unauthorized") == 1
    assert value("jobs_accepted_total", type="demo.echo") == 3
    assert value("http_responses_total", method="GET", status="401") == 1
    await client.request("PROPFIND", "/v1/jobs")
    assert value("http_responses_total", method="other", status="405") == 1


def test_attempts_are_timed_by_what_became_of_the_job() -> None:
    registry = CollectorRegistry()
    metrics = JobMetrics(registry)
    metrics.attempted("demo.echo", "completed", 0.2)
    metrics.attempted("demo.echo", "completed", -0.1)
    metrics.attempted("demo.echo", "retried", 90.0)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"gateway_job_attempt_seconds_{name}", labels)

    done = {"type": "demo.echo", "outcome": "completed"}
    assert value("count", **done) == 2
    assert value("sum", **done) == pytest.approx(0.2)
    assert value("bucket", **done, le="0.25") == 2
    assert value("bucket", type="demo.echo", outcome="retried", le="60.0") == 0
    assert value("bucket", type="demo.echo", outcome="retried", le="300.0") == 1


@pytest.mark.parametrize(
    ("role", "module"),
    [("api", "gateway"), ("relay", "gateway"), ("worker", "gateway"), ("delivery", "delivery")],
)
def test_a_role_whose_admin_port_is_taken_does_not_start(
    role: str, module: str, stores: RunningStores, tmp_path: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-P", "-m", module, *([role] if module == "gateway" else [])],
            env=environment()
            | {
                "PYTHONPATH": str(ROOT),
                "GATEWAY_PROFILE": "development",
                "GATEWAY_STORE_URL": stores.durable_url,
                "GATEWAY_BROKER_URL": stores.soft_url,
                "GATEWAY_ARTIFACTS_URL": f"file://{tmp_path}/artifacts",
                "GATEWAY_SEALING_KEYS": SEALING,
                f"GATEWAY_ADMIN_{role.upper()}_PORT": str(port),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 1
    assert f"{role}: admin.{role}_port: cannot listen on 127.0.0.1, port {port}:" in ended.stderr
    assert "Traceback" not in ended.stderr
