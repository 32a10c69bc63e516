"""The Dramatiq broker, built in this one place.

Dramatiq is the doorbell: a message says that a job may be worked on, and nothing else. Whatever the
broker loses, doubles or delays, the durable store decides; so none of Dramatiq's retries, delays,
results or time limits is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis
from dramatiq import Message, Middleware
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from config.settings import Settings
from gateway.errors import GatewayError

QUEUE = "jobs"
ACTOR = "run"

_MAINTENANCE_CHANCE = 20_000
"""Of a million commands: at a poll of 20 ms a worker tidies up about once a second."""

_HEARTBEAT_MS = 30_000
"""Milliseconds without a sign after which a worker's messages go back to the queue."""


class BrokerUnavailable(GatewayError):
    """The broker did not answer; jobs that were not told of are told of again."""


def make_broker(settings: Settings, middleware: list[Middleware]) -> RedisBroker:
    """Return a broker over the soft store with exactly this middleware."""
    client = redis.Redis.from_url(
        settings.broker.url,
        socket_timeout=settings.store.socket_timeout_seconds,
        socket_connect_timeout=settings.store.socket_timeout_seconds,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), retries=1),
        protocol=2,
    )
    return RedisBroker(  # type: ignore[no-untyped-call]
        client=client,
        middleware=middleware,
        namespace=settings.broker.namespace,
        maintenance_chance=_MAINTENANCE_CHANCE,
        heartbeat_timeout=_HEARTBEAT_MS,
    )


def queue_length(broker: RedisBroker) -> int:
    """Return how many messages wait that no worker has fetched.

    Raises:
        BrokerUnavailable: no answer.
    """
    try:
        return cast("int", broker.client.llen(f"{broker.namespace}:{QUEUE}"))
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable(str(error)) from error


def ring(broker: RedisBroker, jobs: Sequence[str]) -> None:
    """Tell the broker that `jobs` may be worked on.

    Raises:
        BrokerUnavailable: some of them were not told of.
    """
    try:
        for job_id in jobs:
            broker.enqueue(
                Message(queue_name=QUEUE, actor_name=ACTOR, args=(job_id,), kwargs={}, options={})
            )
    except (redis.RedisError, OSError, ConnectionClosed) as error:
        raise BrokerUnavailable(str(error)) from error
