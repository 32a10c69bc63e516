"""A job that never was, at every stage of its life: for examples, and for what a test sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, assert_never

from config import ids
from config.clock import SECOND
from gateway.jobcontext import artifact_uri
from gateway.models import Callback, Job, StoredFile
from gateway.schemas.jobs import Event

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
KEPT = 86_400 * SECOND
_RESULTS = {
    "pages": 1,
    "words": 15,
    "characters": 78,
    "language": "en",
    "keywords": [{"term": "river", "score": 1.0}],
    "resultUrl": artifact_uri("report.json"),
    "artifacts": [
        {
            "name": "report.json",
            "href": artifact_uri("report.json"),
            "size": 412,
            "sha256": SHA256,
            "contentType": "application/json",
            "expiresAt": None,
        }
    ],
}

SAMPLE_JOB_ID = ids.derived_id("job", 0, "example")


@dataclass(frozen=True)
class Samples:
    """The stages of the sample job.

    Attributes:
        at: when it was submitted, µs.
        callback: what it owes.
        metadata: what its client attached to it.
    """

    at: int
    callback: Callback | None = None
    metadata: Mapping[str, Any] | None = None

    @cached_property
    def pending(self) -> Job:
        """It waits for a worker."""
        return Job(
            id=SAMPLE_JOB_ID,
            tenant="example",
            type="document.analyze",
            status="pending",
            rev=1,
            callback=self.callback,
            max_attempts=3,
            metadata=self.metadata or {},
            created_at=self.at,
            updated_at=self.at,
        )

    @cached_property
    def started(self) -> Job:
        """Its first attempt began."""
        began = self.at + 2 * SECOND
        return replace(
            self.pending,
            status="processing",
            rev=2,
            attempt=1,
            started_at=began,
            attempt_at=began,
            updated_at=began,
        )

    @cached_property
    def processing(self) -> Job:
        """It is worked on."""
        return replace(
            self.started,
            rev=4,
            updated_at=self.at + 7 * SECOND,
            progress=75,
            message="Writing report",
        )

    @cached_property
    def completed(self) -> Job:
        """It is done."""
        report = StoredFile(
            path="", name="report.json", size=412, sha256=SHA256, content_type="application/json"
        )
        return replace(
            self._ended(self.processing, seconds=12),
            status="completed",
            rev=7,
            progress=100,
            message="Done",
            results=_RESULTS,
            artifacts={"report.json": report},
        )

    @cached_property
    def failed(self) -> Job:
        """It failed."""
        return replace(
            self._ended(self.processing, seconds=8),
            status="failed",
            rev=5,
            error="The document is locked with a password.",
            error_code="document_encrypted",
        )

    @cached_property
    def cancelled(self) -> Job:
        """It was cancelled before it began."""
        return replace(self._ended(self.pending, seconds=8), status="cancelled", rev=2)

    def of(self, event: Event) -> Job:
        """Return the job as `event` leaves it."""
        match event:
            case "job.completed" | "job.expiring":
                return self.completed
            case "job.failed":
                return self.failed
            case "job.cancelled":
                return self.cancelled
            case "job.started":
                return self.started
            case _:
                assert_never(event)

    def _ended(self, job: Job, *, seconds: int) -> Job:
        end = self.at + seconds * SECOND
        return replace(job, updated_at=end, completed_at=end, expires_at=end + KEPT)
