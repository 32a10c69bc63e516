"""The obvious way to send webhooks: one Dramatiq actor a delivery, which calls `httpx.post`.

The Dramatiq CLI runs this module; where its broker is comes from the environment of the benchmark.
"""

from __future__ import annotations

import dramatiq
import httpx
from dramatiq.brokers.redis import RedisBroker
from redis import Redis

from config.settings import environment

BROKER = "BENCH_BROKER_URL"


def make_broker(client: Redis) -> RedisBroker:
    """Return the broker that the actor's messages go through."""
    return RedisBroker(client=client, namespace="naive")  # type: ignore[no-untyped-call]


_url = environment().get(BROKER, "unix:///nowhere.sock")
broker = make_broker(Redis.from_url(_url))
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=3)
def deliver(url: str, body: str) -> None:
    """POST the body."""
    httpx.post(url, content=body, headers={"content-type": "application/json"})
