"""Deliveries to be sent: endpoints registered, messages enqueued, and how many still wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from config.ids import derived_id, random_text
from delivery.configure import delivery_store, key_ring, policy_of
from delivery.egress import parse_destination
from delivery.endpoints import register, url_hash
from delivery.models import Message
from delivery.sealing import KeyRing
from delivery.store import DeliveryStore
from tests.bench.surroundings import Surroundings

_TENANTS = 10
_AT_ONCE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An endpoint and the one URL that is used of it."""

    endpoint: str
    tenant: str
    url: str


@dataclass(slots=True, kw_only=True)
class Backlog:
    """Deliveries in one partition for a set of targets."""

    around: Surroundings
    deliveries: DeliveryStore
    ring: KeyRing
    targets: Sequence[Target]
    run: str
    made: int = 0

    @classmethod
    async def to(
        cls, around: Surroundings, places: Sequence[str], tenants: int = _TENANTS
    ) -> Backlog:
        """Register an endpoint for each place, of so many tenants in turn."""
        settings = around.settings()
        deliveries, ring = delivery_store(settings, around.store), key_ring(settings)
        policy = policy_of(settings)
        targets = []
        for number, place in enumerate(places):
            url = f"http://{place}/hook"
            destination = parse_destination(url, policy)
            tenant = f"tenant-{number % tenants}"
            registration = register(tenant, destination, ring, deliveries.partitions)
            await deliveries.register_endpoint(registration)
            targets.append(Target(endpoint=registration.id, tenant=tenant, url=url))
        return cls(
            around=around, deliveries=deliveries, ring=ring, targets=targets, run=random_text(8)
        )

    async def add(self, count: int, body: bytes, targets: Sequence[Target] = ()) -> None:
        """Enqueue `count` deliveries of `body` to `targets` (all of them) in turn."""
        among = targets or self.targets
        numbers = iter(range(count))

        async def some() -> None:
            for number in numbers:
                await self.add_one(among[number % len(among)], body)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(some())

    async def add_one(self, target: Target, body: bytes) -> None:
        """Enqueue one delivery."""
        self.made += 1
        delivery_id = derived_id("msg", 0, self.run, str(self.made))
        message = Message(
            id=delivery_id,
            endpoint=target.endpoint,
            tenant=target.tenant,
            url=self.ring.seal(target.url.encode(), row=delivery_id),
            url_hash=url_hash(target.url),
            tags='{"jobId":"job_00aaaa000000000000000000"}',
            body=body,
        )
        await self.deliveries.enqueue(message)

    async def waiting(self, targets: Sequence[Target] = ()) -> int:
        """Return how many are to be attempted or recorded yet."""
        counts: list[Any] = []
        async with self.around.store.client.pipeline(transaction=False) as pipe:
            for key in self._queues(targets or self.targets):
                pipe.zcard(key)
            counts = await pipe.execute()
        return sum(map(int, counts))

    def _queues(self, targets: Sequence[Target]) -> Iterator[str]:
        for target in targets:
            for queue in ("live", "replay", "inflight"):
                yield f"gw:{{p00}}:ep:{target.endpoint}:{queue}"

    async def drained(self, patience: float, targets: Sequence[Target] = ()) -> None:
        """Wait until nothing waits.

        Raises:
            BenchError: something still did after `patience` seconds.
        """

        async def nothing_waits() -> bool:
            return await self.waiting(targets) == 0

        await self.around.until(
            nothing_waits, "deliveries still wait", patience=patience, every=0.05
        )


def body_of(size: int, **members: Any) -> bytes:
    """Return a callback's body of about `size` bytes."""
    head = {"type": "job.completed", "timestamp": "2026-01-01T00:00:00.000Z"}
    empty = json.dumps({**head, "data": {**members, "pad": ""}}).encode()
    pad = "x" * max(0, size - len(empty))
    return json.dumps({**head, "data": {**members, "pad": pad}}).encode()
