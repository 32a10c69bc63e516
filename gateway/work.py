"""Jobs as workers have to do with them: claimed, renewed, and ended or given back.

One method a transition; the scripts in `lua/` demand the states. Every write carries the claim, so
that it may come late or twice. Every method may be called again after `StoreUnavailable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from config.ids import partition_of
from config.scripts import Argument
from delivery.models import Message
from gateway.models import Status, StoredFile, View, compact, encode_files, total_size
from gateway.transitions import Transitions


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a job ends, as it is written.

    Attributes:
        claim: the claim it is held by; empty for a job that waits.
        by: who ends it; the same caller may say it twice.
        rev: the revision that the callback's body was rendered from.
        status: completed, failed or cancelled.
        completed_at: µs.
        expires_at: µs.
        message: the delivery this end owes, if any.
        attempt_record: what people will read about the last attempt, as JSON.
        notice_at: when to tell that the results are about to go, µs; None: not to be told.
    """

    claim: str
    by: str
    rev: int
    status: Status
    completed_at: int
    expires_at: int
    message: Message | None
    attempt_record: str = "{}"
    notice_at: int | None = None
    results: Any = None
    results_file: StoredFile | None = None
    artifacts: Mapping[str, StoredFile] | None = None
    progress: int | None = None
    progress_message: str | None = None
    error: str | None = None
    error_code: str | None = None

    @property
    def made(self) -> int:
        """How many bytes kept outside the store it names."""
        return total_size(self.artifacts or {}) + (
            self.results_file.size if self.results_file else 0
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end is written."""

    view: View


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The job changed since; render again from `view`."""

    view: View


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The claim is lost: nothing was written."""


EndResult = Ended | Changed | Lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How far a job has come.

    Attributes:
        job_id: the job.
        claim: what it is held by.
        percent: 0 to 100.
        message: a few words for people.
    """

    job_id: str
    claim: str
    percent: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the store says to a progress report."""

    rev: int
    cancel_requested: bool


Renewal = Literal["held", "cancel_requested", "lost"]
_RENEWALS: tuple[Renewal, ...] = ("lost", "held", "cancel_requested")

Retried = Literal["waiting", "cancel_requested", "lost"]
_RETRIES: tuple[Retried, ...] = ("lost", "waiting", "cancel_requested")


class WorkStore(Transitions):
    """The jobs of all partitions, for those who work on them."""

    async def claim(
        self, job_id: str, claim: str, *, lease: int, suspect: bool = True
    ) -> View | None:
        """Begin an attempt under `claim` for `lease` µs; None: the job is not to be worked on.

        Args:
            job_id: the job.
            claim: the fencing token.
            lease: µs until the job counts as lost unless renewed.
            suspect: whether a job that processes died of may be taken.
        """
        reply = await self._run(
            "claim_job", partition_of(job_id), job_id, claim, lease, int(suspect)
        )
        return None if reply is None else self._view(job_id, reply)

    async def progress(self, reports: Sequence[Report]) -> list[Progress | None]:
        """Note how far jobs have come, in one round trip; None for those whose claim is lost."""
        replies = await self._store.run_all(
            [
                self._call(
                    "progress",
                    partition_of(report.job_id),
                    report.job_id,
                    report.claim,
                    report.percent,
                    report.message,
                )
                for report in reports
            ]
        )
        return [self._said(reply) for reply in replies]

    def _said(self, reply: list[int] | None) -> Progress | None:
        if reply is None:
            return None
        now, rev, cancel = reply
        self._clock.heard(now)
        return Progress(rev=rev, cancel_requested=bool(cancel))

    async def renew(
        self, held: Mapping[int, Sequence[tuple[str, str]]], *, lease: int
    ) -> dict[str, Renewal]:
        """Renew the leases of (job, claim) pairs, given by partition, in one round trip."""
        replies = await self._store.run_all(
            [
                self._call("renew", partition, lease, *(part for pair in pairs_ for part in pair))
                for partition, pairs_ in held.items()
            ]
        )
        renewals: dict[str, Renewal] = {}
        for (now, results), pairs_ in zip(replies, held.values(), strict=True):
            self._clock.heard(now)
            for (_, claim), result in zip(pairs_, results, strict=True):
                renewals[claim] = _RENEWALS[result]
        return renewals

    async def finish(self, job_id: str, end: End) -> EndResult:
        """Write the job's end together with the delivery it owes."""
        result, reply = await self._run("finish", partition_of(job_id), *self._end(job_id, end))
        match result:
            case 1:
                return Ended(view=self._view(job_id, reply))
            case 2:
                return Changed(view=self._view(job_id, reply))
            case _:
                return Lost()

    def _end(self, job_id: str, end: End) -> list[Argument]:
        message = end.message
        owed: tuple[Argument, ...] = ("", "", "", "", "")
        if message is not None:
            owed = (message.id, message.url, message.headers, message.tags, message.body)
        fields: dict[str, Argument | None] = {
            "results": None if end.results is None or end.results_file else compact(end.results),
            "resultsFile": compact(end.results_file.encode()) if end.results_file else None,
            "artifacts": encode_files(end.artifacts) if end.artifacts else None,
            "made": end.made or None,
            "progress": end.progress,
            "message": end.progress_message,
            "error": end.error,
            "errorCode": end.error_code,
        }
        return [
            job_id,
            end.claim,
            end.rev,
            end.status,
            end.completed_at,
            end.expires_at,
            "" if end.notice_at is None else end.notice_at,
            *owed,
            self._retention.dead,
            end.attempt_record,
            end.by,
            message.trace if message else "",
            *(
                part
                for name, value in fields.items()
                if value is not None
                for part in (name, value)
            ),
        ]

    async def retry(self, job_id: str, claim: str, *, delay: int, attempt_record: str) -> Retried:
        """Give the job back to be attempted again after `delay` µs."""
        result: int = await self._run(
            "retry", partition_of(job_id), job_id, claim, delay, attempt_record
        )
        return _RETRIES[result]

    async def release(self, job_id: str, claim: str, *, attempt_record: str) -> Retried:
        """Give the job back, to be attempted again at once; the attempt does not count."""
        result: int = await self._run(
            "release", partition_of(job_id), job_id, claim, attempt_record
        )
        return _RETRIES[result]
