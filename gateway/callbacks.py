"""The seam between jobs and deliveries: a job's end, rendered with the callback that it owes.

The end is rendered as of one revision of the job, and written only if the job is still at that
revision: a callback never says anything else than the document does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from config.clock import SECOND
from config.ids import derived_id, partition_of
from delivery.models import Message
from delivery.sealing import KeyRing
from gateway import tickets
from gateway.documents import event_body
from gateway.models import Job, StoredFile, callback_row, compact
from gateway.outcomes import Finish
from gateway.services import Services
from gateway.urls import Urls
from gateway.work import End

STARTED = "job.started"
EXPIRING = "job.expiring"

NOTICE = 3_600 * SECOND
"""How long before unread results go their owner is told, in µs; at most a quarter of their life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Renders ends.

    Attributes:
        urls: builds the addresses in a callback.
        ring: opens and seals, and derives the key of tickets.
        ticket_grace: µs that a ticket in a callback outlasts the results' planned end, which
            moves on for as long as the callback is not delivered. When the results go, the
            ticket opens nothing.
    """

    urls: Urls
    ring: KeyRing
    ticket_grace: int = 0

    def end(
        self,
        job: Job,
        finish: Finish,
        *,
        claim: str,
        by: str,
        at: int,
        results_file: StoredFile | None = None,
        artifacts: Mapping[str, StoredFile] | None = None,
        attempt_record: str = "{}",
    ) -> End:
        """Return the end of `job`, as it stands at its revision.

        Args:
            job: as read.
            finish: how it ends.
            claim: what it is held by.
            by: who ends it.
            at: when, µs of the store's clock.
            results_file: where the results are kept that are too large to inline.
            artifacts: what the handler saved, by name.
            attempt_record: what people will read about the last attempt.
        """
        ended = replace(
            job,
            status=finish.status,
            next_run_at=None,
            progress=100 if finish.status == "completed" else job.progress,
            results=None if results_file else finish.results,
            results_file=results_file,
            artifacts=artifacts or {},
            error=finish.error,
            error_code=finish.error_code,
            updated_at=at,
            completed_at=at,
            expires_at=at + job.result_ttl,
        )
        return End(
            claim=claim,
            by=by,
            rev=job.rev,
            status=ended.status,
            completed_at=at,
            expires_at=at + job.result_ttl,
            message=self._owed(ended, f"job.{ended.status}", sequence=job.rev + 1, at=at),
            attempt_record=attempt_record,
            results=ended.results,
            results_file=results_file,
            artifacts=artifacts,
            progress=ended.progress,
            error=ended.error,
            error_code=ended.error_code,
            progress_message=ended.message,
            notice_at=self._notice_at(ended),
        )

    def _notice_at(self, job: Job) -> int | None:
        """Return when to tell that the results are about to go, None if nobody asked to be told."""
        if job.callback is None or EXPIRING not in job.callback.events:
            return None
        if job.status != "completed" or job.expires_at is None:
            return None
        return job.expires_at - min(NOTICE, job.result_ttl // 4)

    def notice(self, job: Job, *, at: int) -> Message | None:
        """Return the message that tells that the job's results are about to go."""
        # The end's own was at most the revision that the job has now: this one comes after it.
        return self._owed(job, EXPIRING, sequence=job.rev + 1, at=at)

    def beginning(self, job: Job) -> Message | None:
        """Return the message that tells that the job has begun, if it is owed and not yet noted."""
        if job.status != "processing" or job.beginning is not None:
            return None
        return self._owed(job, STARTED, sequence=job.rev, at=job.attempt_at or job.updated_at)

    def _owed(self, job: Job, event: str, *, sequence: int, at: int) -> Message | None:
        """Return the message that `event` owes, None if nobody asked for it."""
        callback = job.callback
        if callback is None or event not in callback.events:
            return None
        # Derived, so that an end written twice after a fail-over is one message to its receiver.
        message_id = derived_id("msg", partition_of(job.id), job.id, event)
        body = event_body(
            job,
            event=event,
            urls=self.urls,
            sequence=sequence,
            ticket=self._ticket(job),
            at=at,
            payload=callback.payload,
        )
        return Message(
            id=message_id,
            endpoint=callback.endpoint,
            tenant=job.tenant,
            url=self._reseal(callback.url, job.id, message_id),
            url_hash=callback.url_hash,
            headers=self._reseal(callback.headers, job.id, message_id),
            tags=compact({"jobId": job.id, "event": event, "jobType": job.type}),
            scheme=callback.signature,
            trace=job.trace or "",
            body=body,
        )

    def _ticket(self, job: Job) -> str | None:
        """Return what lets the receiver, who has no API key, fetch what the callback names."""
        if job.expires_at is None or not (job.results_file or job.artifacts):
            return None
        return tickets.mint(
            job.id, job.expires_at + self.ticket_grace, self.ring.derive(tickets.PURPOSE)
        )

    def _reseal(self, sealed: bytes, job_id: str, message_id: str) -> bytes:
        if not sealed:
            return b""
        return self.ring.seal(self.ring.open(sealed, row=callback_row(job_id)), row=message_id)


def renderer_of(services: Services) -> Renderer:
    """Return the renderer that the settings ask for."""
    settings = services.settings
    grace = settings.delivery.max_age_seconds + settings.jobs.result_ttl_seconds
    return Renderer(
        urls=Urls(settings.public_url), ring=services.ring, ticket_grace=int(grace * SECOND)
    )
