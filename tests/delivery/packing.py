"""Delivered deliveries in tests that can be sent no more."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from config.scripts import partition_prefix
from delivery.store import DeliveryStore


async def pack(deliveries: DeliveryStore, at_most: int = 1_000) -> bool:
    """Let the time in which they can be sent again be over for all; return whether more is due."""
    store = deliveries._store  # noqa: SLF001
    for partition in range(deliveries.partitions):
        look = f"{partition_prefix(partition)}shelf:look"
        for shelf in await store.client.zrange(look, 0, -1):
            await store.client.zadd(look, {cast("bytes", shelf): 1})
    over = replace(deliveries.retention, redelivery=0)
    looks = await DeliveryStore(store, deliveries.partitions, over).retire(at_most)
    return any(each.more for each in looks.values())
