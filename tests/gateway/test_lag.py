"""How far behind the work is, as the store tells it."""

from __future__ import annotations

import httpx

from config.clock import SECOND
from config.store import Store, partition_prefix
from gateway.services import Services
from tests.gateway.jobs import finish, submit

HOOK = "http://127.0.0.1:9/hook"


async def age(store: Store, services: Services, seconds: int) -> None:
    """Have everything that waits have waited for longer."""
    for partition in range(services.settings.store.partitions):
        prefix = partition_prefix(partition)
        queues = [key async for key in store.client.scan_iter(f"{prefix}ob:normal:*")]
        for key in [*queues, f"{prefix}ready:unproven"]:
            for member in await store.command("ZRANGE", key, 0, -1):
                await store.command("ZINCRBY", key, -seconds * SECOND, member)


async def test_nothing_waits(services: Services) -> None:
    lag = await services.outbox.lag()
    assert (lag.job, lag.callback, lag.senders) == (None, None, 0)


async def test_the_oldest_of_what_waits(
    services: Services, client: httpx.AsyncClient, store: Store
) -> None:
    first = await submit(client, callbackUrl=HOOK)
    await submit(client, runAt="2100-01-01T00:00:00Z")
    await age(store, services, 100)
    second = await submit(client)
    lag = await services.outbox.lag()
    assert lag.job is not None
    assert 100 * SECOND <= lag.job < 200 * SECOND
    assert lag.callback is None

    (await client.post(f"/v1/jobs/{first}/cancel")).raise_for_status()
    await age(store, services, 50)
    lag = await services.outbox.lag()
    assert lag.job is not None
    assert lag.callback is not None
    assert 50 * SECOND <= lag.job < 100 * SECOND
    assert 50 * SECOND <= lag.callback < 100 * SECOND

    await finish(services, second)
    assert (await services.outbox.lag()).job is None


async def test_a_bulk_of_tenants_is_looked_at_in_part(services: Services, store: Store) -> None:
    prefix = partition_prefix(0)
    for number in range(150):
        tenant = f"t{number:03}"
        await store.client.zadd(f"{prefix}ob:low", {tenant: number})
        await store.client.zadd(f"{prefix}ob:low:{tenant}", {"job": 1e15 - number * SECOND})
    now = int((await store.command("TIME"))[0]) * SECOND
    lag = await services.outbox.lag()
    assert lag.job is not None
    assert abs(now - lag.job - (1e15 - 99 * SECOND)) < 10 * SECOND
