"""Dead letters of all partitions: in one order, page by page or one after another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Generic, TypeVar

from config.ids import partition_of
from delivery.letters import START, Place
from delivery.models import DeadDelivery
from delivery.store import DeliveryStore

PAGE = 200
"""How many are read from a partition in one script."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Row]):
    """What a partition has after a place.

    Attributes:
        rows: in order.
        reached: the last place that was looked at; None when nothing is beyond it.
    """

    rows: Sequence[Row]
    reached: Place | None


Read = Callable[[int, Place], Awaitable[Page[Row]]]
"""Returns a page of a partition after a place."""


def read_dead(
    deliveries: DeliveryStore, tenant: str, *, with_last: bool = False
) -> Read[DeadDelivery]:
    """Return what reads pages of the tenant's dead letters; of everybody's for an empty name."""

    async def read(partition: int, after: Place) -> Page[DeadDelivery]:
        rows, reached = await deliveries.list_dead(
            partition, tenant=tenant, after=after, limit=PAGE, with_last=with_last
        )
        return Page(rows=rows, reached=reached)

    return read


async def walk(
    read: Read[Row],
    partitions: int,
    place_of: Callable[[Row], Place],
    *,
    after: Place = START,
) -> AsyncIterator[Row]:
    """Yield the rows of all partitions in the order of their places, in bounded memory.

    Args:
        read: reads pages of one partition.
        partitions: how many there are.
        place_of: where a row stands; its identifier names its partition.
        after: go on after this place.
    """
    places = dict.fromkeys(range(partitions), after)
    while places:
        pages = {partition: await read(partition, place) for partition, place in places.items()}
        # Beyond what a partition has looked at there may be more that belongs in between: stop at
        # the earliest such place.
        reached = {at: page.reached for at, page in pages.items() if page.reached is not None}
        horizon = min(reached.values(), default=None)
        for row in merge(*(page.rows for page in pages.values()), key=place_of):
            place = place_of(row)
            if horizon is not None and place > horizon:
                break
            places[partition_of(place[1])] = place
            yield row
        if horizon is None:
            return
        # A page without rows leads on too.
        for partition, place in reached.items():
            if place == horizon:
                places[partition] = place
