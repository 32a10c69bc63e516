"""A hundred thousand jobs that wait: the broker hears of no more of them than it can use."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dramatiq.brokers.redis import RedisBroker

from config.clock import SECOND
from config.ids import new_id
from config.settings import load_settings
from config.store import Store
from gateway.broker import QUEUE, make_broker, queue_length
from gateway.callbacks import Renderer
from gateway.models import Job
from gateway.relay import Relay
from gateway.services import Services, open_services
from gateway.urls import Urls
from tests.conftest import RunningStores

JOBS = {1: 100_000, 4: 10_000}
"""By the number of partitions."""

THREADS = 4
WINDOW = 2 * THREADS
AT_ONCE = 500
CLAIMS = 200


@dataclass(slots=True)
class Side:
    """The side of a relay: its services and its broker, without any worker."""

    services: Services
    broker: RedisBroker
    relay: Relay


@pytest.fixture
async def side(
    store: Store, stores: RunningStores, partitions: int, tmp_path: Path
) -> AsyncIterator[Side]:
    settings = load_settings(
        {
            "GATEWAY_PROFILE": "development",
            "GATEWAY_PUBLIC_URL": "https://gateway.example",
            "GATEWAY_STORE_URL": stores.durable_url,
            "GATEWAY_STORE_PARTITIONS": str(partitions),
            "GATEWAY_BROKER_URL": stores.soft_url,
            "GATEWAY_BROKER_NAMESPACE": f"backlog-{partitions}",
            "GATEWAY_ARTIFACTS_URL": f"file://{tmp_path}/artifacts",
            "GATEWAY_SEALING_KEYS": "one:" + base64.b64encode(bytes(32)).decode(),
            "GATEWAY_JOBS_MODULES": '["gateway.handlers_.echo"]',
            "GATEWAY_JOBS_SWEEP_SECONDS": "0.05",
        }
    )
    services = open_services(settings)
    broker = make_broker(settings, [])
    renderer = Renderer(urls=Urls(settings.public_url), ring=services.ring)
    yield Side(services, broker, Relay(services, broker, renderer))
    await services.store.close()
    broker.client.close()


async def submit_all(services: Services, jobs: int) -> None:
    partitions = services.jobs.partitions
    now = services.clock.now()
    made = [
        Job(
            id=new_id("job", number % partitions, now),
            tenant=f"t{number % 3}",
            type="demo.echo",
            status="pending",
            rev=0,
            input={"payload": number},
            timeout=60.0,
            result_ttl=3600 * SECOND,
        )
        for number in range(jobs)
    ]
    for first in range(0, jobs, AT_ONCE):
        await asyncio.gather(
            *(services.jobs.submit(job, None) for job in made[first : first + AT_ONCE])
        )


async def test_a_long_backlog_leaves_the_broker_its_short_queue(side: Side) -> None:
    services, broker = side.services, side.broker
    jobs = JOBS[services.jobs.partitions]
    await submit_all(services, jobs)
    pending, _ = await services.jobs.backlog([])
    assert pending == jobs
    await services.outbox.enlist("wp-1", THREADS)
    relaying = asyncio.create_task(side.relay.run())
    longest = 0
    consumer = await asyncio.to_thread(broker.consume, QUEUE, 1, 1000)
    claimed: set[str] = set()
    try:
        while len(claimed) < CLAIMS:
            message = await asyncio.to_thread(next, consumer)
            longest = max(longest, await asyncio.to_thread(queue_length, broker))
            if message is None:
                continue
            job_id = message.args[0]
            view = await services.work.claim(job_id, f"wp-1:{len(claimed)}", lease=3600 * SECOND)
            if view is not None:
                claimed.add(job_id)
            await asyncio.to_thread(consumer.ack, message)
    finally:
        side.relay.stop()
        await relaying
        await asyncio.to_thread(consumer.close)
    assert longest <= WINDOW
