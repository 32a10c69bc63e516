"""Cancelling: a job that waits ends at once, with the callback this owes; one at work is told to.

Which of the two it is, the store decides: whatever happens to the job between two steps is seen in
the next one's reply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from config.clock import Clock
from gateway.callbacks import Renderer
from gateway.models import View
from gateway.outcomes import Finish
from gateway.store import JobStore
from gateway.work import Changed, Ended, Lost, WorkStore

_ROUNDS = 20
"""How often a job may change under a cancel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelling:
    """What came of a cancel.

    Attributes:
        state: `cancelled`: now or before; `requested`: its worker was told; `ended`: too late.
        view: the job as this leaves it.
    """

    state: Literal["cancelled", "requested", "ended"]
    view: View


@dataclass(frozen=True, slots=True, kw_only=True)
class Canceller:
    """Cancels jobs.

    Attributes:
        jobs: the jobs, for clients.
        work: the same, to end one that nobody works on.
        renderer: renders its end.
        clock: the store's time.
    """

    jobs: JobStore
    work: WorkStore
    renderer: Renderer
    clock: Clock

    async def cancel(self, job_id: str) -> Cancelling | None:
        """Cancel the job, or ask its worker to; None when there is no such job. Idempotent.

        Raises:
            StoreUnavailable: whether it was cancelled is unknown; asking again is safe.
        """
        for _ in range(_ROUNDS):
            asked = await self.jobs.cancel(job_id)
            if asked is None:
                return None
            status, view = asked
            match status:
                case "processing":
                    return Cancelling(state="requested", view=view)
                case "cancelled":
                    return Cancelling(state="cancelled", view=view)
                case "completed" | "failed":
                    return Cancelling(state="ended", view=view)
                case "pending":
                    ended = await self._end(view)
                    if ended is not None:
                        return Cancelling(state="cancelled", view=ended)
                case _:
                    assert_never(status)
        raise RuntimeError(f"{job_id} changed {_ROUNDS} times while it was cancelled")

    async def _end(self, view: View) -> View | None:
        """End a job that waits; None when it is no longer as it was read."""
        end = self.renderer.end(
            view.job, Finish(status="cancelled"), claim="", by="cancel", at=self.clock.now()
        )
        match await self.work.finish(view.job.id, end):
            case Ended(view=ended):
                return ended
            case Changed() | Lost():
                return None
