"""What the client hands out: jobs, their events, files, and what can go wrong.

    GatewayClientError
    ├── ProblemError         the gateway refused (RFC 9457), after the repeats that make sense
    │   └── JobExpired       the job has expired or was erased
    ├── NoAnswer             no answer came, after the repeats that make sense
    ├── UnexpectedAnswer     an answer that no gateway gives, or that leads elsewhere
    ├── DownloadFailed       the bytes are not those that were announced
    ├── WaitTimeout          the job had not ended in time; it goes on
    ├── JobFailed            the job failed
    └── JobCancelled         the job was cancelled

Like the rest of the client it needs Python and httpx, and nothing else of this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

ENDED = frozenset({"completed", "failed", "cancelled"})
"""The statuses that stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job document.

    Attributes:
        id, type, priority, attempt, max_attempts, metadata, retry_of, retried_as: as submitted and
            as it went.
        status: `pending`, `processing`, `completed`, `failed` or `cancelled`.
        progress: percent.
        message: what it does at the moment.
        results: of a completed job, where the document carries them.
        error: a sentence for people, of a job that failed or was cancelled.
        error_code: the same for programs; an open set.
        callback: how the callback does; None without one.
        raw: the document as it came, with whatever else it holds.
    """

    id: str
    type: str
    status: str
    cancel_requested: bool
    progress: float
    message: str | None
    priority: str
    attempt: int
    max_attempts: int
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime | None
    completed_at: datetime | None
    estimated_completion: datetime | None
    expires_at: datetime | None
    results: Any
    error: str | None
    error_code: str | None
    metadata: Mapping[str, Any]
    retry_of: str | None
    retried_as: str | None
    callback: Mapping[str, Any] | None
    raw: Mapping[str, Any]

    @property
    def is_ended(self) -> bool:
        """Whether it completed, failed or was cancelled."""
        return self.status in ENDED

    @classmethod
    def of(cls, document: Any) -> Self:
        """Return what a decoded job document says.

        Raises:
            UnexpectedAnswer: it is none.
        """
        try:
            return cls._read(document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer(f"this is no job document: {error!r}") from error

    @classmethod
    def _read(cls, document: Mapping[str, Any]) -> Self:
        for name in ("jobId", "type", "status"):
            if not isinstance(document[name], str):
                raise TypeError(f"{name} is no string")
        return cls(
            id=document["jobId"],
            type=document["type"],
            status=document["status"],
            cancel_requested=document.get("cancelRequested", False),
            progress=document.get("progress", 0),
            message=document.get("message"),
            priority=document.get("priority", "normal"),
            attempt=document.get("attempt", 0),
            max_attempts=document.get("maxAttempts", 1),
            created_at=datetime.fromisoformat(document["createdAt"]),
            started_at=_instant(document.get("startedAt")),
            updated_at=_instant(document.get("updatedAt")),
            completed_at=_instant(document.get("completedAt")),
            estimated_completion=_instant(document.get("estimatedCompletion")),
            expires_at=_instant(document.get("expiresAt")),
            results=document.get("results"),
            error=document.get("error"),
            error_code=document.get("errorCode"),
            metadata=document.get("metadata") or {},
            retry_of=document.get("retryOf"),
            retried_as=document.get("retriedAs"),
            callback=document.get("callback"),
            raw=document,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        name: `snapshot`, `progress`, `expiring`, `completed`, `failed` or `cancelled`.
        job: the job as the event left it.
        id: the job's revision, if known.
    """

    name: str
    job: Job
    id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some jobs of a list, newest first, and where the next ones begin; None after the last."""

    items: tuple[Job, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An uploaded file; `{"fileId": file.id}` names it in an input."""

    id: str
    href: str
    size: int
    sha256: str
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, document: Any) -> Self:
        """Return what the decoded answer to an upload says.

        Raises:
            UnexpectedAnswer: it is none.
        """
        match document:
            case {"fileId": str(id_), "href": str(href), "size": int(size), "sha256": str(sha256)}:
                return cls(id=id_, href=href, size=size, sha256=sha256, raw=document)
            case _:
                raise UnexpectedAnswer("this is not the description of a file")


class GatewayClientError(Exception):
    """Anything the client raises on purpose."""


class ProblemError(GatewayClientError):
    """The gateway refused a request.

    Attributes:
        code: for programs, such as `invalid_input`; `http_502` and the like where the answer was
            not the gateway's own.
        status: of HTTP.
        detail: a sentence for people.
        errors: `{"pointer": …, "detail": …}` for each member at fault.
        retry_after: seconds until asking again makes sense, if it said so.
        members: the whole problem document.
    """

    def __init__(
        self,
        code: str,
        status: int,
        detail: str,
        *,
        errors: tuple[Mapping[str, Any], ...] = (),
        retry_after: float | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        faults = "".join(f"; {each.get('pointer')} {each.get('detail')}" for each in errors)
        super().__init__(f"{status} {code}: {detail}{faults}")
        self.code = code
        self.status = status
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after
        self.members = dict(members or {})


class JobExpired(ProblemError):
    """The job's results were kept for the agreed time, or the job was erased."""


class NoAnswer(GatewayClientError):
    """The gateway could not be reached, or did not answer in time; the cause is httpx's."""


class UnexpectedAnswer(GatewayClientError):
    """An answer that no gateway gives, such as a redirect to another origin."""


class DownloadFailed(GatewayClientError):
    """The bytes that came are not those that were announced."""


class WaitTimeout(GatewayClientError):
    """The job had not ended in time; it goes on.

    Attributes:
        job: how it stood last; None where nothing is known.
    """

    def __init__(self, detail: str, job: Job | None = None) -> None:
        super().__init__(detail)
        self.job = job


class JobFailed(GatewayClientError):
    """The job ended without results: `job.error` says why, `job.error_code` to programs."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"the job {job.id} {job.status}: {job.error} ({job.error_code})")
        self.job = job


class JobCancelled(GatewayClientError):
    """The job was cancelled."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"the job {job.id} was cancelled")
        self.job = job


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
