"""Failed jobs as dead letters: listed, counted, and taken off the list.

Every method may be called again after `StoreUnavailable` with the same arguments.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from delivery.letters import Letter, Place
from delivery.replay_steps import Batch
from gateway.models import Status
from gateway.transitions import Transitions

TYPE_TAG, JOB_TAG = "jobType", "jobId"
"""The tags that tell of a delivery, and of a failed job, which job it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedJob:
    """A job in a list of dead letters. Instants are µs.

    Attributes:
        letter: what filters look at; its reason is the error's code.
        status: failed, unless it was asked for by name.
        error: a sentence for people.
        retried_as: the job that runs it again.
        is_purged: whether it was taken off the list.
    """

    letter: Letter
    status: Status
    error: str | None
    created_at: int
    attempt: int
    max_attempts: int
    retried_as: str | None
    is_purged: bool


class FailedStore(Transitions):
    """The failed jobs of all partitions."""

    async def list_failed(
        self, partition: int, *, tenant: str, after: Place, limit: int
    ) -> tuple[list[FailedJob], Place | None]:
        """Return a partition's failed jobs after a place that were not run again.

        Returns:
            Them in order, and the last place looked at; None when nothing is beyond it.
        """
        rows, failed, job_id = await self._run("list_failed", partition, tenant, *after, limit)
        reached = (int(failed), job_id.decode()) if failed else None
        return [_failed(row) for row in rows], reached

    async def list_named(
        self, partition: int, replay_id: str, *, after: str, limit: int
    ) -> list[tuple[str, FailedJob | None]]:
        """Return the jobs that a replay named, after one of them; those in any state.

        Of those that are not known there is the identifier alone.
        """
        rows = await self._run("list_named_jobs", partition, replay_id, after, limit)
        return [(row[0].decode(), _failed(row[1]) if row[1] else None) for row in rows]

    async def count_failed(self, tenant: str) -> int:
        """Return how many dead letters the tenant has among its jobs."""
        return sum(await self._everywhere("count_failed", tenant))

    async def purge(self, replay_id: str, partition: int, batch: Batch) -> int:
        """Take the jobs of a batch off the list, and move the replay's place beyond it.

        Returns:
            1 done, 2 done before, 0 the replay is elsewhere.
        """
        return cast(
            "int",
            await self._run(
                "purge_failed",
                partition,
                replay_id,
                *batch.place,
                *batch.to,
                int(batch.done),
                json.dumps(batch.counts),
                *batch.chosen,
            ),
        )


def _failed(row: list[Any]) -> FailedJob:
    job_id, fields, origin = row
    texts = [None if each is None else each.decode() for each in fields]
    status, tenant, kind, code, error, failed_at, created_at, attempt, most, *rest = texts
    endpoint, retried_as, purged_at = rest
    identifier = job_id.decode()
    return FailedJob(
        letter=Letter(
            id=identifier,
            tenant=tenant or "",
            reason=code or "",
            endpoint=endpoint or "",
            origin=origin.decode(),
            died_at=int(failed_at or 0),
            tags={TYPE_TAG: kind, JOB_TAG: identifier},
        ),
        status=cast("Status", status),
        error=error,
        created_at=int(created_at or 0),
        attempt=int(attempt or 0),
        max_attempts=int(most or 0),
        retried_as=retried_as,
        is_purged=purged_at is not None,
    )
