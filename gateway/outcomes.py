"""What can come of an attempt at a job, and what follows from it. No I/O.

| outcome | what happened |
|---|---|
| Returned | the handler gave its result |
| Raised | it raised, or its result could not be used |
| Stopped | it was told to stop, because cancelling was asked for |
| Interrupted | it was told to stop, because its process stops |
| Abandoned | the claim was lost: somebody else decides now |

| next step | what follows |
|---|---|
| Finish | the job ends |
| Again | it waits for its next attempt |
| HandBack | another process may take it at once |
| Leave | nothing is written |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from delivery.retry import Gaps
from gateway.models import Job, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The handler returned; `results` is JSON."""

    results: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The attempt failed.

    Attributes:
        error: a sentence for the client.
        code: for programs.
        retry: whether another attempt could end differently.
    """

    error: str
    code: str
    retry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The handler stopped because cancelling was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """The handler stopped because its process does; the attempt does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
    """The claim is lost; whatever was done is void."""


AttemptOutcome = Returned | Raised | Stopped | Interrupted | Abandoned


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The job ends.

    Attributes:
        status: how.
        results: of a completed one.
        error: of a failed one, a sentence.
        error_code: of a failed one.
    """

    status: Status
    results: Any = None
    error: str | None = None
    error_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Another attempt, after `delay` µs."""

    delay: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBack:
    """Another process may take it at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Nothing is written."""


NextStep = Finish | Again | HandBack | Leave


def decide(job: Job, outcome: AttemptOutcome, *, gaps: Gaps, rand: float) -> NextStep:
    """Return what follows from an attempt at `job`.

    Args:
        job: as it was claimed: `attempt` counts this one.
        outcome: of the attempt.
        gaps: between attempts.
        rand: a number in [0, 1) that places the wait within its jitter.
    """
    match outcome:
        case Returned(results=results):
            return Finish(status="completed", results=results)
        case Stopped():
            return Finish(status="cancelled")
        case Interrupted():
            return HandBack()
        case Abandoned():
            return Leave()
        case Raised(retry=True) if job.attempt < job.max_attempts:
            return Again(delay=gaps.wait(job.attempt - 1, rand))
        case Raised(error=error, code=code):
            return Finish(status="failed", error=error, error_code=code)
        case _:
            assert_never(outcome)
