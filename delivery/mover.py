"""Dead deliveries as a replay comes by them, and how it moves them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from config.ids import partition_of
from delivery.deadletters import Page
from delivery.egress import Destination, Policy, parse_destination
from delivery.endpoints import register, url_hash
from delivery.letters import Place
from delivery.mirrors import make_mirror
from delivery.models import DeadDelivery, Scheme
from delivery.replay_steps import BATCH, Batch, Candidate
from delivery.replay_store import Advanced, ReplayStore
from delivery.replays import Replay
from delivery.sealing import KeyRing
from delivery.selecting import Selection
from delivery.store import DeliveryStore

KIND = "delivery"


class Mover(Protocol):
    """What a replay is carried out with, for dead letters of one kind.

    Attributes:
        kind: of dead letters.
        batch: how many are moved at a time.
        is_tracked: whether what comes of those that were replayed is counted.
    """

    kind: str
    batch: int
    is_tracked: bool

    async def room(self, replay: Replay) -> int:
        """Return how many more may be moved now."""
        ...

    async def select(
        self, replay: Replay, partition: int, place: Place, limit: int
    ) -> Page[Candidate]:
        """Return what comes after `place` in `partition`, `limit` of them at the most."""
        ...

    async def move(self, replay: Replay, partition: int, batch: Batch) -> Advanced:
        """Move the chosen ones of a batch, and the replay's place beyond it.

        Raises:
            SealError, DestinationRefused: the replay's other URL cannot be used.
        """
        ...

    async def finish(self, replay: Replay, partition: int, plan: Batch) -> Advanced:
        """Bring a batch to its end that somebody planned."""
        ...


class DeliveryMover:
    """Replays and purges deliveries."""

    kind = KIND
    batch = BATCH
    is_tracked = True

    def __init__(
        self, deliveries: DeliveryStore, replays: ReplayStore, *, ring: KeyRing, policy: Policy
    ) -> None:
        self._deliveries = deliveries
        self._replays = replays
        self._ring = ring
        self._policy = policy
        self._selection = Selection(
            listed=deliveries.list_dead, named=deliveries.list_named, why_not=_why_not
        )

    async def room(self, _replay: Replay) -> int:
        """Return a batch: what bounds replays of deliveries is their window."""
        return self.batch

    async def select(
        self, replay: Replay, partition: int, place: Place, limit: int
    ) -> Page[Candidate]:
        """Return the dead letters after `place`, or of those that were named the next ones."""
        return await self._selection.after(replay, partition, place, limit)

    async def move(self, replay: Replay, partition: int, batch: Batch) -> Advanced:
        """Replay or purge them, in the script that moves the place."""
        to, urls = ("", ""), {}
        if replay.to_url and batch.chosen:
            url = self._ring.open(replay.to_url, row=replay.id).decode()
            destination = parse_destination(url, self._policy)
            schemes = await self._deliveries.schemes_of(partition, batch.chosen)
            endpoint = await self._endpoint(replay.tenant, destination, partition, schemes)
            to = (endpoint, url_hash(url))
            urls = {each: self._ring.seal(url.encode(), row=each) for each in batch.chosen}
        moved, _ = await self._replays.move(
            replay.id,
            partition,
            batch,
            action=replay.definition.action,
            tenant=replay.tenant,
            died_before=replay.died_before,
            to=to,
            urls=urls,
        )
        return moved

    async def finish(self, replay: Replay, partition: int, plan: Batch) -> Advanced:
        """Move it; deliveries are never planned, being moved in one step."""
        return await self.move(replay, partition, plan)

    async def _endpoint(
        self, tenant: str, destination: Destination, partition: int, schemes: Iterable[Scheme]
    ) -> str:
        """Return the endpoint of another URL in `partition`, with secrets for these schemes."""
        for scheme in {"v1", *schemes}:
            registration = register(
                tenant, destination, self._ring, self._deliveries.partitions, scheme
            )
            own, _ = await self._deliveries.register_endpoint(registration)
        if partition_of(own.id) == partition:
            return own.id
        return await make_mirror(self._deliveries, own, partition, self._ring)


def _why_not(row: DeadDelivery) -> str | None:
    return None if row.state == "dead" else row.state
