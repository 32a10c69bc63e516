"""Failed jobs as a replay comes by them: run again as new ones, or taken off the list.

To run a job again takes several steps, and may not be forgotten half-way. So a batch is noted as a
plan first; then its jobs are run again, each of which may be repeated; then the replay's place is
moved. Whoever comes by a plan brings it to its end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from delivery.configure import policy_of
from delivery.deadletters import Page
from delivery.letters import Place
from delivery.replay_steps import Batch, Candidate
from delivery.replay_store import ADVANCED, Advanced, ReplayStore
from delivery.replays import Replay
from delivery.selecting import Selection
from gateway.failed import FailedJob, FailedStore
from gateway.models import View
from gateway.problems import Problem
from gateway.rerun import Rerunner
from gateway.services import Services

KIND = "job"


class JobMover:
    """Runs failed jobs again, and purges them."""

    kind = KIND
    batch = 20
    is_tracked = False

    def __init__(self, services: Services) -> None:
        self._failed: FailedStore = services.failed
        self._selection = Selection(
            listed=services.failed.list_failed,
            named=services.failed.list_named,
            why_not=_why_not,
        )
        self._replays: ReplayStore = services.replays
        self._jobs = services.jobs
        self._ownership = services.ownership
        self._limits = services.settings.jobs
        self._rerunner = Rerunner(
            jobs=services.jobs,
            artifacts=services.artifacts,
            ring=services.ring,
            clock=services.clock,
            policy=policy_of(services.settings),
        )

    async def room(self, replay: Replay) -> int:
        """Return how many more jobs may wait, of all tenants and of this one."""
        if replay.definition.action == "purge" or replay.definition.dry_run:
            return self.batch
        waiting, own = await self._jobs.backlog([replay.tenant])
        limits = self._limits
        return min(
            limits.max_pending - waiting, limits.max_pending_per_tenant - own[replay.tenant].pending
        )

    async def select(
        self, replay: Replay, partition: int, place: Place, limit: int
    ) -> Page[Candidate]:
        """Return the failed jobs after `place`, or of those that were named the next ones."""
        return await self._selection.after(replay, partition, place, limit)

    async def move(self, replay: Replay, partition: int, batch: Batch) -> Advanced:
        """Note the batch as a plan and carry it out."""
        if replay.definition.action == "purge":
            return ADVANCED[await self._failed.purge(replay.id, partition, batch)]
        plan = await self._replays.plan(replay.id, partition, batch)
        return "elsewhere" if plan is None else await self.finish(replay, partition, plan)

    async def finish(self, replay: Replay, partition: int, plan: Batch) -> Advanced:
        """Run the jobs of a plan again, and move the replay's place beyond them.

        Raises:
            StoreUnavailable, StoreFull, ArtifactError: the plan stands.
        """
        came_of_it: Counter[str] = Counter(plan.counts)
        for job_id in plan.chosen:
            try:
                await self._require_owner(job_id, replay.tenant)
                # One that runs again already was begun for this very plan, by whoever left it.
                await self._rerunner.run_again(job_id, tenant=replay.tenant)
            except Problem as problem:
                came_of_it[f"skip:{problem.code}"] += 1
            else:
                came_of_it["replayed"] += 1
        moved = replace(plan, counts=dict(came_of_it))
        return await self._replays.advance(replay.id, partition, moved)

    async def _require_owner(self, job_id: str, tenant: str) -> None:
        """Return when whoever the job calls back wants to be.

        Raises:
            Problem: `endpoint_unverified`.
        """
        if self._ownership.mode(tenant) != "refuse":
            return
        found = await self._jobs.read(job_id)
        callback = found.job.callback if isinstance(found, View) else None
        await self._ownership.require(tenant, callback.endpoint if callback else None, "")


def _why_not(row: FailedJob) -> str | None:
    if row.status != "failed":
        return row.status
    if row.retried_as is not None:
        return "retried"
    return "purged" if row.is_purged else None
