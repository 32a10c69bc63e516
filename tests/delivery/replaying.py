"""Dead letters in tests: listed, and replayed at once."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from config.clock import StoreClock, SystemClock
from config.ids import new_id, partition_of
from delivery.letters import START
from delivery.metrics import delivery_numbers
from delivery.models import DeadDelivery
from delivery.replay_steps import Batch
from delivery.replay_store import ReplayStore
from delivery.store import DeliveryStore

FAR = 1 << 52
"""An instant after all others, µs."""


def replays_beside(deliveries: DeliveryStore) -> ReplayStore:
    """Return the replays in the store that `deliveries` are in."""
    store = deliveries._store  # noqa: SLF001
    return ReplayStore(store, deliveries.partitions, StoreClock(SystemClock()))


async def replay(deliveries: DeliveryStore, ids: Sequence[str]) -> dict[str, str]:
    """Replay deliveries, whoever's they are; return the state that each was in."""
    replays = replays_beside(deliveries)
    states: dict[str, str] = {}
    for each in dict.fromkeys(ids):
        kept = await deliveries.read(each)
        moved, said = await replays.move(
            new_id("rpl", 0, 0),
            partition_of(each),
            Batch(place=START, to=START, done=True, chosen=(each,), counts={}),
            action="replay",
            tenant="" if kept is None else kept.tenant,
            died_before=FAR,
        )
        assert moved == "done"
        states |= said
    return states


async def numbers_of(deliveries: DeliveryStore) -> dict[str, float]:
    """Return what is counted of replays: names with the values of their labels, what is above 0."""
    registry = CollectorRegistry()
    store = deliveries._store  # noqa: SLF001
    await delivery_numbers(registry, store, deliveries.partitions, SystemClock()).refresh()
    return {
        " ".join((sample.name.removeprefix("gateway_"), *sample.labels.values())): sample.value
        for family in registry.collect()
        for sample in family.samples
        if "_replay" in sample.name and sample.value
    }


async def dead_letters(deliveries: DeliveryStore, partition: int) -> list[DeadDelivery]:
    """Return the dead letters of a partition."""
    found, reached = await deliveries.list_dead(partition, tenant="", after=START, limit=1_000)
    assert reached is None
    return found
