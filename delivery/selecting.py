"""What a replay comes by: what its filter goes through, or what was named, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from delivery.deadletters import Page
from delivery.letters import Letter, Place
from delivery.replay_steps import BATCH, Candidate
from delivery.replays import Replay


class Lettered(Protocol):
    """A dead letter of any kind, as it is listed."""

    @property
    def letter(self) -> Letter:
        """Return what filters look at."""
        ...


RowT = TypeVar("RowT", bound=Lettered)
RowT_co = TypeVar("RowT_co", bound=Lettered, covariant=True)


class Listed(Protocol[RowT_co]):
    """Lists dead letters."""

    async def __call__(
        self, partition: int, *, tenant: str, after: Place, limit: int
    ) -> tuple[Sequence[RowT_co], Place | None]:
        """Return a partition's dead letters after a place, and the last place looked at."""
        ...


class Named(Protocol[RowT_co]):
    """Lists what a replay named, dead or not."""

    async def __call__(
        self, partition: int, replay_id: str, *, after: str, limit: int
    ) -> Sequence[tuple[str, RowT_co | None]]:
        """Return what comes after one of them; of what is not known, the identifier alone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection(Generic[RowT]):
    """Where a replay finds dead letters of one kind.

    Attributes:
        listed: lists them.
        named: lists those that a replay named.
        why_not: returns why one that was named is left alone; None when nothing speaks against it.
    """

    listed: Listed[RowT]
    named: Named[RowT]
    why_not: Callable[[RowT], str | None]

    async def after(
        self, replay: Replay, partition: int, place: Place, limit: int
    ) -> Page[Candidate]:
        """Return what comes after `place` in `partition`, `limit` of them at the most."""
        wanted = replay.definition.filter
        if wanted is None:
            return await self._named_after(replay, partition, place, limit)
        rows, reached = await self.listed(
            partition,
            tenant=replay.tenant,
            after=max(place, wanted.start),
            # With a filter, many may have to be looked at for one that is meant.
            limit=limit if wanted.means_all else BATCH,
        )
        found = [Candidate(place=row.letter.place, letter=row.letter) for row in rows]
        return Page(rows=found, reached=reached)

    async def _named_after(
        self, replay: Replay, partition: int, place: Place, limit: int
    ) -> Page[Candidate]:
        rows = await self.named(partition, replay.id, after=place[1], limit=limit)
        found = [self._candidate(named, row, replay.tenant) for named, row in rows]
        return Page(rows=found, reached=found[-1].place if len(found) >= limit else None)

    def _candidate(self, named: str, row: RowT | None, tenant: str) -> Candidate:
        place = (0, named)
        if row is None:
            return Candidate(place=place, letter=None, why="unknown")
        is_foreign = row.letter.tenant != tenant
        why = "unknown" if is_foreign else self.why_not(row)
        return Candidate(place=place, letter=row.letter, why=why)
