"""Dead callbacks of real jobs, and the replays of them, run without waiting."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx

from config.ids import new_id
from config.scripts import partition_prefix
from delivery.configure import policy_of
from delivery.models import Bury, Reason
from delivery.mover import DeliveryMover
from delivery.runner import ReplayRunner
from gateway.services import Services
from tests.delivery.test_store import claim, over, wanted
from tests.gateway.jobs import submit

RECORD = {
    "at": "2030-01-31T12:00:00.000Z",
    "trigger": "schedule",
    "outcome": "rejected",
    "statusCode": 401,
    "answer": "no such signature",
}


async def bury(
    client: httpx.AsyncClient,
    services: Services,
    url: str = "http://127.0.0.1:9/hook?key=1",
    reason: Reason = "exhausted",
) -> tuple[str, str]:
    """Make a job whose callback is dead; return it and the delivery."""
    job_id = await submit(client, callbackUrl=url)
    assert (await client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
    [claimed] = await claim(services.deliveries, wanted(1, process=new_id("dp", 0, 0)))
    ended = replace(over(claimed, Bury(reason=reason)), record=json.dumps(RECORD), status=401)
    assert await services.deliveries.record([ended]) == []
    return job_id, claimed.id


async def run_replays(services: Services) -> None:
    """Run all replays of deliveries, as a delivery process does but without waiting."""
    mover = DeliveryMover(
        services.deliveries,
        services.replays,
        ring=services.ring,
        policy=policy_of(services.settings),
    )
    runner = ReplayRunner(
        store=services.store, replays=services.replays, mover=mover, clock=services.clock
    )
    store = services.store.client
    for _ in range(20):
        for partition in range(services.replays.partitions):
            index = f"{partition_prefix(partition)}replaying:delivery"
            due: dict[Any, float] = dict.fromkeys(await store.zrange(index, 0, -1), 1)
            if due:
                await store.zadd(index, due, xx=True)
            for each in due:
                name = each.decode()
                await store.hdel(f"{partition_prefix(partition)}rp:{name}", "pacedAt")
        await runner.round()
