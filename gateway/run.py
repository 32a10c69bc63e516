"""One attempt at one job, as a pipeline: claim, call the handler, decide, write.

Runs in a thread of the worker process. Everything it writes carries its claim, so that an attempt
which was taken for lost and comes back late changes nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, assert_never, cast

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_random_exponential

from config.clock import rfc3339
from config.ids import random_float
from config.store import StoreFull, StoreUnavailable
from gateway.artifacts import job_prefix
from gateway.context import RunningJob
from gateway.handlers import HandlersError, JobCancelled, JobError
from gateway.leases import Held
from gateway.models import StoredFile, View, compact
from gateway.outcomes import (
    Abandoned,
    Again,
    AttemptOutcome,
    Finish,
    Leave,
    Raised,
    Returned,
    Stopped,
    decide,
)
from gateway.store import Changed, End, Ended, Lost, Retried
from gateway.worker import Worker

_log = logging.getLogger("gateway.run")

_PATIENCE = 600.0
"""Seconds that an attempt waits for the store to come back to write what came of it."""

_RENDERINGS = 20
"""How often an end is rendered anew because the job changed meanwhile."""

_MAX_INPUT = 64 * 1024**2
_ERROR_LENGTH = 1_000


def run_job(job_id: str, worker: Worker) -> None:
    """Make one attempt at the job, if it is to be worked on."""
    held = _claim(job_id, worker)
    if held is None:
        return
    with worker.leases.holding(held):
        context = RunningJob(held, worker)
        try:
            outcome = _attempt(held, context, worker)
        finally:
            context.close()
        _settle(held, outcome, context, worker)


def _claim(job_id: str, worker: Worker) -> Held | None:
    claim = worker.leases.new_claim()
    jobs = worker.services.jobs
    view = worker.call(jobs.claim(job_id, claim, lease=worker.leases.length))
    return None if view is None else Held(view.job, claim)


def _attempt(held: Held, context: RunningJob, worker: Worker) -> AttemptOutcome:
    """Call the handler; whatever it does becomes an outcome."""
    job = held.job
    try:
        kind = worker.services.registry.get(job.type)
        given = kind.parse_input(_input(held, worker))
        result = kind.function(context, given)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        results = kind.dump_result(result)
        compact(results).encode()
        return Returned(results=results)
    except JobCancelled:
        return Stopped() if held.is_cancelled and not held.is_lost else Abandoned()
    except JobError as error:
        return Raised(error=error.message, code=error.code, retry=error.retry)
    except HandlersError as error:
        _log.exception("job.definition", extra={"job": job.id, "type": job.type})
        return Raised(error=str(error), code="handler_error", retry=False)
    except Exception as error:  # noqa: BLE001
        _log.exception("job.handler_raised", extra={"job": job.id, "type": job.type})
        return Raised(error=_sentence(error), code="handler_error", retry=True)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _input(held: Held, worker: Worker) -> Any:
    kept = held.job.input_file
    if kept is None:
        return held.job.input
    return worker.read_json(kept, limit=_MAX_INPUT)


def _sentence(error: Exception) -> str:
    # The exception's kind and no more: its text may hold what the client must not see.
    return f"The job's handler failed unexpectedly ({type(error).__name__})."


def _settle(held: Held, outcome: AttemptOutcome, context: RunningJob, worker: Worker) -> None:
    record = _record(held, outcome, worker)
    step = decide(
        held.job,
        outcome,
        gaps=worker.services.settings.jobs.retry_gaps_seconds,
        rand=random_float(),
    )
    match step:
        case Leave():
            return
        case Again(delay=delay):
            if _give_back(held, delay, record, worker) == "cancel_requested":
                _finish(held, Finish(status="cancelled"), context, record, worker)
        case Finish():
            _finish(held, step, context, record, worker)
        case _:
            assert_never(step)


def _give_back(held: Held, delay: int, record: str, worker: Worker) -> Retried:
    def write() -> Awaitable[Retried]:
        jobs = worker.services.jobs
        return jobs.retry(held.job.id, held.claim, delay=delay, attempt_record=record)

    return cast("Retried", worker.call(_patiently(write)))


def _finish(held: Held, finish: Finish, context: RunningJob, record: str, worker: Worker) -> None:
    """Write the end, rendered from the job as it is at that very moment."""
    results_file = _keep_large(held, finish, worker)
    artifacts = context.saved if finish.status == "completed" else {}
    view = worker.call(_read(held, worker))
    for _ in range(_RENDERINGS):
        if view is None:
            return
        end = worker.renderer.end(
            view.job,
            _honouring_cancel(view, finish),
            claim=held.claim,
            by=held.claim,
            at=worker.services.clock.now(),
            results_file=results_file,
            artifacts=artifacts,
            attempt_record=record,
        )
        match worker.call(_patiently(_writing(held, end, worker))):
            case Ended():
                return
            case Changed(view=changed):
                view = changed
            case Lost():
                _log.warning("job.claim_lost", extra={"job": held.job.id})
                return
    raise RuntimeError(f"{held.job.id} changed {_RENDERINGS} times while its end was rendered")


def _honouring_cancel(view: View, finish: Finish) -> Finish:
    """A completed job stays so; one that failed while a cancel was under way is cancelled."""
    if view.job.cancel_requested and finish.status == "failed":
        return Finish(status="cancelled")
    return finish


def _writing(held: Held, end: End, worker: Worker) -> Callable[[], Awaitable[Any]]:
    return lambda: worker.services.jobs.finish(held.job.id, end)


async def _read(held: Held, worker: Worker) -> View | None:
    view = await _patiently(lambda: worker.services.jobs.read(held.job.id))
    return view if isinstance(view, View) else None


async def _patiently(write: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat `write` until the store answers; the claim fences off what comes too late."""
    patience = AsyncRetrying(
        stop=stop_after_delay(_PATIENCE),
        wait=wait_random_exponential(multiplier=0.05, max=2),
        retry=retry_if_exception_type((StoreUnavailable, StoreFull)),
        reraise=True,
    )
    async for attempt in patience:
        with attempt:
            return await write()
    raise AssertionError("tenacity reraises")


def _keep_large(held: Held, finish: Finish, worker: Worker) -> StoredFile | None:
    """Keep results that are too large to inline as a file, before the script that names it."""
    if finish.results is None:
        return None
    encoded = compact(finish.results).encode()
    if len(encoded) <= worker.services.settings.jobs.inline_limit_bytes:
        return None
    path = f"{job_prefix(held.job.id)}/results.json"
    stored = worker.services.artifacts.save(path, encoded, limit=len(encoded))
    return StoredFile(
        path=path,
        name="results.json",
        size=stored.size,
        sha256=stored.sha256,
        content_type="application/json",
    )


def _record(held: Held, outcome: AttemptOutcome, worker: Worker) -> str:
    record = {
        "endedAt": rfc3339(worker.services.clock.now()),
        "worker": worker.leases.process,
        "outcome": type(outcome).__name__.lower(),
    }
    if isinstance(outcome, Raised):
        record |= {"error": outcome.error[:_ERROR_LENGTH], "errorCode": outcome.code}
    _log.info(
        "job.attempt",
        extra={
            "job": held.job.id,
            "type": held.job.type,
            "tenant": held.job.tenant,
            "attempt": held.job.attempt,
            **record,
        },
    )
    return compact(record)
