"""Dead letters among jobs, on an operator's terminal: listed, shown, run again."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.clock import StoreClock, SystemClock, rfc3339
from config.settings import SettingsError, load_settings
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION
from delivery.configure import key_ring, policy_of
from delivery.errors import SealError
from gateway.artifacts import ArtifactError, ArtifactStore
from gateway.deadletters import run_again, walk
from gateway.models import Job, View
from gateway.rerun import Rerunner
from gateway.store import JobStore
from scripts.beside import installed
from scripts.letters import FAILED, OK, PARTLY, ScriptError, printable, row, say_end

_WIDTHS = (28, 20, 24, 16, 8, 40)


async def list_jobs(store: Store, partitions: int, *, limit: int, as_json: bool) -> int:
    """Print the failed jobs, oldest first; return the exit code."""
    shown = 0
    more = False
    async for view in walk(_jobs(store, partitions)):
        if shown == limit:
            more = True
            break
        if as_json:
            print(json.dumps(_summary(view.job)))
        else:
            if shown == 0:
                print(row(("JOB", "FAILED", "TYPE", "CODE", "ATTEMPTS", "ERROR"), _WIDTHS))
            print(_listed(view.job))
        shown += 1
    if not as_json:
        say_end(shown, more=more)
    return OK


async def show_job(store: Store, partitions: int, job_id: str, *, as_json: bool) -> int:
    """Print one job with its attempts; return the exit code."""
    found = await _jobs(store, partitions).read(job_id)
    if not isinstance(found, View):
        raise ScriptError(f"there is no job {job_id}")
    job = found.job
    if as_json:
        print(json.dumps({**_summary(job), "history": [dict(each) for each in job.attempts]}))
        return OK
    for name, value in _summary(job).items():
        if value not in (None, {}):
            print(f"{name:11} {printable(str(value))}")
    print(f"\nattempts (the last {len(job.attempts)})")
    for attempt in job.attempts:
        print(f"  {_attempt(attempt)}")
    return OK


async def replay_jobs(
    store: Store, partitions: int, job_ids: list[str] | None, *, data_dir: Path, as_json: bool
) -> int:
    """Run jobs again, all failed ones for None; return the exit code."""
    jobs = _jobs(store, partitions)
    rerunner = _rerunner(jobs, data_dir)
    chosen = [view.job.id async for view in walk(jobs)] if job_ids is None else job_ids
    try:
        done = await run_again(rerunner, chosen)
    except (ArtifactError, SealError) as error:
        raise ScriptError(f"not all were run again: {error}") from error
    if as_json:
        print(json.dumps({"replayed": done.jobs, "skipped": done.skipped}))
    else:
        for old, new in done.jobs.items():
            print(f"{old} runs again as {new}")
        print(f"{len(done.jobs)} replayed")
        for old, reason in done.skipped.items():
            print(f"{old}: {reason}: left alone", file=sys.stderr)
    if not done.skipped:
        return OK
    return PARTLY if done.jobs else FAILED


def _jobs(store: Store, partitions: int) -> JobStore:
    return JobStore(store, partitions, StoreClock(SystemClock()), DEFAULT_RETENTION)


def _rerunner(jobs: JobStore, data_dir: Path) -> Rerunner:
    """Return what runs jobs again, with the keys and the files of the gateway whose store it is."""
    try:
        environ = installed(data_dir) | {"GATEWAY_STORE_PARTITIONS": str(jobs.partitions)}
        settings = load_settings(environ)
        return Rerunner(
            jobs=jobs,
            artifacts=ArtifactStore(settings.artifacts.url),
            ring=key_ring(settings),
            clock=StoreClock(SystemClock()),
            policy=policy_of(settings),
        )
    except (SettingsError, SealError, ArtifactError) as error:
        raise ScriptError(str(error)) from error


def _listed(job: Job) -> str:
    cells = (
        job.id,
        rfc3339(job.completed_at or 0)[:19] + "Z",
        job.type,
        job.error_code or "-",
        f"{job.attempt}/{job.max_attempts}",
        printable(job.error or "-"),
    )
    return row(cells, _WIDTHS)


def _summary(job: Job) -> dict[str, Any]:
    return {
        "jobId": job.id,
        "status": job.status,
        "type": job.type,
        "tenant": job.tenant,
        "createdAt": rfc3339(job.created_at),
        "failedAt": rfc3339(job.completed_at)
        if job.status == "failed" and job.completed_at
        else None,
        "attempts": job.attempt,
        "maxAttempts": job.max_attempts,
        "errorCode": job.error_code,
        "error": job.error,
        "retryOf": job.retry_of,
        "retriedAs": job.retried_as,
        "metadata": dict(job.metadata),
    }


def _attempt(attempt: Mapping[str, Any]) -> str:
    parts = [
        f"{attempt['number']:>3}",
        *(
            printable(str(attempt.get(name, "-")))
            for name in ("startedAt", "endedAt", "worker", "outcome")
        ),
        printable(str(attempt.get("error", ""))),
    ]
    return "  ".join(part for part in parts if part)
