"""Dead letters across all partitions: walked through in order, looked at, replayed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import TypeVar

from config.ids import is_id, partition_of
from delivery.models import Delivery
from delivery.store import DeliveryStore

PAGE = 200
"""How many are read from a partition, or replayed, in one script."""

Place = tuple[int, str]
"""Where a dead letter stands in the order: when it died, µs, and its identifier."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What became of deliveries that were to be replayed.

    Attributes:
        pending: replayed now.
        skipped: those that were not dead, with the state they are in.
        unknown: those there is nothing of.
    """

    pending: tuple[str, ...]
    skipped: dict[str, str]
    unknown: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether all of them were replayed."""
        return not (self.skipped or self.unknown)


async def walk(
    deliveries: DeliveryStore, *, died_before: int | None = None
) -> AsyncIterator[Delivery]:
    """Yield every dead letter, oldest first; in bounded memory however many there are.

    Args:
        deliveries: where they are.
        died_before: µs; fixes the selection, so that what dies during the walk is not part of it.
    """

    async def read(partition: int, after: Place) -> list[Delivery]:
        return await deliveries.list_dead(partition, after=after, limit=PAGE)

    async for row in walk_merged(read, deliveries.partitions, _place):
        if died_before is not None and _place(row)[0] >= died_before:
            return
        yield row


async def walk_merged(
    read: Callable[[int, Place], Awaitable[list[Row]]],
    partitions: int,
    place_of: Callable[[Row], Place],
) -> AsyncIterator[Row]:
    """Yield the rows of all partitions in the order of their places.

    Args:
        read: returns the rows of a partition after a place, in order; `PAGE` of them unless there
            are no more.
        partitions: how many there are.
        place_of: where a row stands.
    """
    places = dict.fromkeys(range(partitions), (0, ""))
    while places:
        pages = {partition: await read(partition, place) for partition, place in places.items()}
        # Beyond the last row of a full page there may be more that belongs in between: stop at the
        # earliest such row.
        full = [page[-1] for page in pages.values() if len(page) == PAGE]
        horizon = min((place_of(row) for row in full), default=None)
        for row in merge(*pages.values(), key=place_of):
            place = place_of(row)
            if horizon is not None and place > horizon:
                break
            places[partition_of(place[1])] = place
            yield row
        if horizon is None:
            return


def _place(row: Delivery) -> Place:
    return row.ended_at or 0, row.id


async def replay(deliveries: DeliveryStore, ids: Sequence[str]) -> Replayed:
    """Make the dead ones among `ids` pending again, behind live traffic."""
    states: dict[str, str | None] = {each: None for each in ids if not is_id("msg", each)}
    known = iter([each for each in dict.fromkeys(ids) if is_id("msg", each)])
    while page := list(islice(known, PAGE)):
        states |= await deliveries.replay(page)
    return Replayed(
        pending=tuple(each for each, state in states.items() if state == "dead"),
        skipped={each: state for each, state in states.items() if state not in {None, "dead"}},
        unknown=tuple(each for each, state in states.items() if state is None),
    )
