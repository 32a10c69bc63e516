"""The admin port: a real server over a real store, asked as probes and scrapers ask."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from config.admin import admin_port
from config.errors import StoreUnavailable
from config.health import STALLED_SECONDS, Health
from config.metrics import Page, StoreNumbers, make_registry, watch_store
from config.ports import AdminPortError, open_listener
from config.scripts import META_PREFIX
from config.sections import AdminSettings
from config.store import Store, connect


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now(self) -> int:
        return int(self.seconds * 1_000_000)

    def monotonic(self) -> float:
        return self.seconds


def settings(port: int, fd: int = -1) -> AdminSettings:
    return AdminSettings(
        host="127.0.0.1", api_port=port, relay_port=port, worker_port=0, delivery_port=0, fd=fd
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(store: Store, clock: Clock) -> Health:
    return Health(store, clock)


@pytest.fixture
async def port(health: Health, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """Open an admin port on a socket that was handed down; yield a client of it."""
    registry = make_registry(store)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        fd = listener.detach()
        async with (
            admin_port(settings(0, fd), "api", health, Page(registry)),
            httpx.AsyncClient(base_url=url, trust_env=False) as client,
        ):
            yield client


async def test_a_process_is_ready_from_its_beginning_to_its_draining(
    port: httpx.AsyncClient, health: Health
) -> None:
    async def ready() -> tuple[int, list[str]]:
        answer = await port.get("/readyz")
        assert answer.headers["cache-control"] == "no-store"
        return answer.status_code, [each["code"] for each in answer.json().get("reasons", [])]

    assert await ready() == (503, ["starting"])
    health.begin()
    assert await ready() == (200, [])
    health.drain()
    assert await ready() == (503, ["draining"])
    assert (await port.get("/livez")).json() == {"status": "alive"}


async def test_what_takes_no_writes_is_not_ready(
    port: httpx.AsyncClient, health: Health, clock: Clock, store: Store
) -> None:
    health.begin()
    assert (await port.get("/readyz")).status_code == 200
    await store.client.replicaof("127.0.0.1", 1)
    try:
        # PING is answered all the same.
        assert await store.client.ping()
        assert (await port.get("/readyz")).status_code == 200, "known for a second"
        clock.seconds += 2
        answer = await port.get("/readyz")
        assert answer.status_code == 503
        [reason] = answer.json()["reasons"]
        assert reason["code"] == "store_unavailable"
        assert "read only replica" in reason["detail"]
    finally:
        await store.client.replicaof("NO", "ONE")
    clock.seconds += 2
    assert (await port.get("/readyz")).status_code == 200


async def test_a_full_store_still_takes_what_drains_it(
    port: httpx.AsyncClient, health: Health, store: Store
) -> None:
    health.begin()
    limit = (await store.client.config_get("maxmemory"))["maxmemory"]
    await store.client.config_set("maxmemory", 1)
    try:
        assert (await port.get("/readyz")).status_code == 200
    finally:
        await store.client.config_set("maxmemory", limit or "0")


async def test_however_many_ask_the_store_is_asked_once(
    port: httpx.AsyncClient, health: Health, clock: Clock, store: Store
) -> None:
    health.begin()
    key = f"{META_PREFIX}probe"
    answers = await asyncio.gather(*(port.get("/readyz") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert await store.client.exists(key)
    await store.client.delete(key)
    await port.get("/readyz")
    assert not await store.client.exists(key)
    clock.seconds += 2
    await port.get("/readyz")
    assert await store.client.exists(key)


async def test_a_loop_that_turns_no_more_is_told(
    port: httpx.AsyncClient, health: Health, clock: Clock, store: Store
) -> None:
    health.beat("claim")
    health.beat("sweep")
    clock.seconds += STALLED_SECONDS + 3 * store.deadline
    health.beat("sweep")
    assert (await port.get("/livez")).status_code == 200
    clock.seconds += 1
    answer = await port.get("/livez")
    assert (answer.status_code, answer.json()) == (503, {"status": "stalled", "loops": ["claim"]})
    health.beat("claim")
    assert (await port.get("/livez")).status_code == 200


async def test_the_page_is_what_prometheus_reads(port: httpx.AsyncClient, health: Health) -> None:
    await port.get("/readyz")
    for accept in ("*/*", "text/plain; version=0.0.4"):
        answer = await port.get("/metrics", headers={"accept": accept})
        assert answer.headers["content-type"].startswith("text/plain")
        found = {family.name: family for family in text_string_to_metric_families(answer.text)}
        calls = found["gateway_store_round_trip_seconds"]
        [count] = [
            sample.value
            for sample in calls.samples
            if sample.name.endswith("_count") and sample.labels["outcome"] == "answered"
        ]
        assert count == 1
        assert "process_resident_memory_bytes" in found
        assert not [name for name in found if name.endswith("_created")]
    wanted = "application/openmetrics-text; version=1.0.0"
    answer = await port.get("/metrics", headers={"accept": wanted})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_nothing_else_is_answered(port: httpx.AsyncClient) -> None:
    assert (await port.get("/")).status_code == 404
    refused = await port.post("/metrics")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    head = await port.head("/livez")
    assert (head.status_code, head.content) == (200, b"")


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(AdminPortError, match=rf"admin\.relay_port: .*port {number}: Address"):
            open_listener(settings(number), "relay")
    assert open_listener(settings(number), "worker") is None


async def test_without_a_port_nothing_is_opened(health: Health) -> None:
    async with admin_port(settings(0), "api", health, Page(CollectorRegistry())):
        assert (await health.reasons())[0].code == "starting"


async def test_numbers_of_the_store_are_read_once_a_second_and_never_old(clock: Clock) -> None:
    asked: list[float] = []
    away = False

    async def read() -> list[GaugeMetricFamily]:
        asked.append(clock.seconds)
        if away:
            raise StoreUnavailable("no answer")
        return [GaugeMetricFamily("gateway_some", "Some.", len(asked))]

    registry = CollectorRegistry()
    numbers = StoreNumbers(registry, read, clock)
    await asyncio.gather(*(numbers.refresh() for _ in range(5)))
    assert len(asked) == 1
    assert registry.get_sample_value("gateway_some") == 1
    assert registry.get_sample_value("gateway_store_up") == 1
    away = True
    clock.seconds += 1
    await numbers.refresh()
    assert registry.get_sample_value("gateway_some") is None
    assert registry.get_sample_value("gateway_store_up") == 0


async def test_calls_are_counted_by_what_came_of_them(store: Store) -> None:
    nobody = connect("unix:///nowhere.sock", max_connections=1, socket_timeout=0.1)
    for each, outcome in ((store, "answered"), (nobody, "unavailable")):
        registry = CollectorRegistry()
        watch_store(registry, each)
        await Health(each, Clock()).reasons()
        for name in ("answered", "unavailable", "full", "failed"):
            count = registry.get_sample_value(
                "gateway_store_round_trip_seconds_count", {"outcome": name}
            )
            assert count == (name == outcome)
    assert [reason.code for reason in await Health(nobody, Clock()).reasons()] == [
        "starting",
        "store_unavailable",
    ]
    await nobody.close()
