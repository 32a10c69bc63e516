"""One attempt at one job, as a pipeline: claim, call the handler, decide, write.

Runs in a thread of the worker process. Everything it writes carries its claim, so that an attempt
which was taken for lost and comes back late changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, assert_never

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_random_exponential

from config.clock import rfc3339
from config.errors import StoreFull, StoreUnavailable
from config.ids import random_float
from config.log import about
from delivery.metrics import DENIED
from delivery.models import Message
from gateway.artifacts import job_prefix
from gateway.child import unexpected
from gateway.context import RunningJob, time_is_up
from gateway.jobcontext import JobCancelled, JobError
from gateway.jobtypes import HandlersError
from gateway.leases import Held
from gateway.models import Job, StoredFile, View, compact, writable
from gateway.outcomes import (
    Abandoned,
    Again,
    AttemptOutcome,
    Finish,
    HandBack,
    Interrupted,
    Leave,
    NextStep,
    Raised,
    Returned,
    Stopped,
    decide,
)
from gateway.tracing import begin_attempt, note_outcome
from gateway.work import Changed, Ended, Lost
from gateway.worker import Worker

_log = logging.getLogger("gateway.run")

_PATIENCE = 600.0
"""Seconds that an attempt waits for the store to come back to write what came of it."""

_RENDERINGS = 20
"""How often an end is rendered anew because the job changed meanwhile."""

_ERROR_LENGTH = 1_000


def run_job(job_id: str, worker: Worker) -> None:
    """Make one attempt at the job, if it is to be worked on."""
    if worker.is_stopping:
        return
    with about(job=job_id), worker.leases.suspect_place() as place:
        held = _claim(job_id, worker, suspect=place.is_ours)
        if held is None:
            return
        if not held.job.lost:
            place.give_back()
        with worker.leases.holding(held):
            _tell_beginning(held, worker)
            context = RunningJob(held, worker.services.artifacts, worker.services.clock)
            try:
                outcome = _attempt(held, context, worker)
            finally:
                context.close()
            settle(held, outcome, context.saved, worker)


def _tell_beginning(held: Held, worker: Worker) -> None:
    """Owe the callback that the job has begun, if one was asked for and none was owed before.

    The attempt goes on without it: what cannot be written now, the next attempt owes.
    """
    try:
        if message := worker.renderer.beginning(held.job):
            worker.call(_owe_beginning(held, message, worker))
    except Exception:  # noqa: BLE001
        _log.exception("job.beginning_not_told", extra={"job": held.job.id})


async def _owe_beginning(held: Held, message: Message | None, worker: Worker) -> None:
    """Write what tells of the beginning; rendered anew while the job changes and is held."""
    services, job = worker.services, held.job
    for _ in range(_RENDERINGS):
        if message is None:
            return
        if await services.outbox.notify(job.id, job.rev, message, "beginning"):
            return
        view = await services.jobs.read(job.id)
        if not isinstance(view, View) or view.job.claim != held.claim:
            return
        job = replace(view.job, trace=held.job.trace)
        message = worker.renderer.beginning(job)


def end_overtime(held: Held, worker: Worker) -> None:
    """End the attempt of a handler that ignores its deadline, in its place."""
    error = time_is_up(held.job)
    outcome = Raised(error=error.message, code=error.code, retry=error.retry)
    with about(job=held.job.id):
        settle(held, outcome, {}, worker)


def _claim(job_id: str, worker: Worker, *, suspect: bool) -> Held | None:
    claim = worker.leases.new_claim()
    work = worker.services.work

    async def claiming() -> View | None:
        return await work.claim(job_id, claim, lease=worker.leases.length, suspect=suspect)

    # A claim whose reply was lost is ours all the same: asked again, it says so.
    view = worker.call(_patiently(claiming))
    if view is None:
        return None
    return _hold(view.job, claim, worker)


def _hold(job: Job, claim: str, worker: Worker) -> Held:
    """Return the attempt at `job`; where it has a span, what it leads to goes on from that."""
    deadline = worker.services.clock.monotonic() + job.timeout
    if worker.tracer is None:
        return Held(job, claim, deadline)
    span = begin_attempt(worker.tracer, job)
    return Held(replace(job, trace=span.trace), claim, deadline, span)


def _attempt(held: Held, context: RunningJob, worker: Worker) -> AttemptOutcome:
    """Call the handler; whatever it does becomes an outcome."""
    job = held.job
    try:
        kind = worker.services.registry.get(job.type)
        if kind.isolation == "process":
            results = worker.isolation.run(job, context, deadline=held.deadline, stop=held.stop)
            return Returned(results=results)
        given = kind.parse_input(context.read_input(job.input, job.input_file))
        with nullcontext() if held.span is None else held.span.current():
            results = kind.run(context, given)
        compact(results).encode()
        return Returned(results=results)
    except JobCancelled:
        return _stopped(held)
    except JobError as error:
        return Raised(error=writable(error.message), code=writable(error.code), retry=error.retry)
    except HandlersError as error:
        _log.exception("job.definition", extra={"job": job.id, "type": job.type})
        return Raised(error=str(error), code="handler_error", retry=False)
    except Exception as error:  # noqa: BLE001
        _log.exception("job.handler_raised", extra={"job": job.id, "type": job.type})
        return Raised(error=unexpected(error), code="handler_error", retry=True)


def _stopped(held: Held) -> AttemptOutcome:
    """Return why the handler was told to stop; a lost claim outweighs the rest."""
    if held.is_lost:
        return Abandoned()
    if held.is_cancelled:
        return Stopped()
    if held.is_released:
        return Interrupted()
    return Raised(
        error="The job's handler stopped without being asked to.", code="handler_error", retry=False
    )


def settle(
    held: Held, outcome: AttemptOutcome, saved: Mapping[str, StoredFile], worker: Worker
) -> None:
    """Decide what follows from the attempt, and write it; its span ends with that."""
    with held.span or nullcontext():
        record = _record(held, outcome, worker)
        step = decide(held.job, outcome, gaps=worker.gaps, rand=random_float())
        became = _count(held, outcome, step, worker)
        if held.span is not None:
            note_outcome(held.span, became, outcome)
        results_file = _keep_large(held, step, worker)
        worker.call(_write(held, step, record, saved, results_file, worker))


def _count(held: Held, outcome: AttemptOutcome, step: NextStep, worker: Worker) -> str:
    """Count the attempt, and return what became of it."""
    if isinstance(outcome, Raised) and outcome.code == DENIED:
        worker.services.metrics.denied()
    began = held.deadline - held.job.timeout
    match step:
        case Finish():
            became: str = _honouring_cancel(step, is_cancelled=held.is_cancelled).status
        case Again():
            became = "retried"
        case HandBack():
            became = "released"
        case Leave():
            became = "lost"
        case _:
            assert_never(step)
    seconds = worker.services.clock.monotonic() - began
    worker.services.metrics.attempted(held.job.type, became, seconds)
    return became


async def _write(
    held: Held,
    step: NextStep,
    record: str,
    saved: Mapping[str, StoredFile],
    results_file: StoredFile | None,
    worker: Worker,
) -> None:
    """Write what follows from an attempt; the claim fences off whatever comes too late."""
    if held.is_lost:
        return
    work, job_id = worker.services.work, held.job.id
    match step:
        case Leave():
            return
        case HandBack():
            said = await _patiently(lambda: work.release(job_id, held.claim, attempt_record=record))
            if said == "cancel_requested":
                await _finish(held, Finish(status="cancelled"), record, {}, None, worker)
        case Again(delay=delay):
            said = await _patiently(
                lambda: work.retry(job_id, held.claim, delay=delay, attempt_record=record)
            )
            if said == "cancel_requested":
                await _finish(held, Finish(status="cancelled"), record, {}, None, worker)
        case Finish():
            await _finish(held, step, record, saved, results_file, worker)
        case _:
            assert_never(step)


async def _finish(
    held: Held,
    finish: Finish,
    record: str,
    saved: Mapping[str, StoredFile],
    results_file: StoredFile | None,
    worker: Worker,
) -> None:
    """Write the end, rendered from the job as it is at that very moment.

    What this process knows of the job is nearly always how it is: only when the store says
    otherwise is the end rendered anew, from what the store has.
    """
    held.begin_ending()
    job = replace(
        held.job,
        rev=held.rev,
        progress=held.percent,
        message=held.message,
        cancel_requested=held.is_cancelled,
    )
    for _ in range(_RENDERINGS):
        end = worker.renderer.end(
            replace(job, progress=held.percent, message=held.message),
            _honouring_cancel(finish, is_cancelled=job.cancel_requested),
            claim=held.claim,
            by=held.claim,
            at=worker.services.clock.now(),
            results_file=results_file,
            artifacts=saved if finish.status == "completed" else {},
            attempt_record=record,
        )
        match await _patiently(partial(worker.services.work.finish, held.job.id, end)):
            case Ended():
                return
            case Changed(view=view):
                job = replace(view.job, trace=held.job.trace)
            case Lost():
                _log.warning("job.claim_lost", extra={"job": held.job.id})
                return
    raise RuntimeError(f"{held.job.id} changed {_RENDERINGS} times while its end was rendered")


def _honouring_cancel(finish: Finish, *, is_cancelled: bool) -> Finish:
    """A completed job stays so; one that failed while a cancel was under way is cancelled."""
    if is_cancelled and finish.status == "failed":
        return Finish(status="cancelled")
    return finish


async def _patiently(write: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat `write` until the store answers."""
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


def _keep_large(held: Held, step: NextStep, worker: Worker) -> StoredFile | None:
    """Keep results that are too large to inline as a file, before the script that names it."""
    if not isinstance(step, Finish) or step.results is None:
        return None
    encoded = compact(step.results).encode()
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
        "startedAt": rfc3339(held.job.attempt_at or 0),
        "endedAt": rfc3339(worker.services.clock.now()),
        "worker": worker.leases.process,
        "outcome": type(outcome).__name__.lower(),
    }
    if isinstance(outcome, Raised):
        record |= {"error": writable(outcome.error)[:_ERROR_LENGTH], "errorCode": outcome.code}
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
