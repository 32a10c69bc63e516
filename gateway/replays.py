"""Replays over HTTP: what a request for one asks for, and the document of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config import ids
from config.clock import rfc3339
from delivery.egress import Destination, Policy
from delivery.letters import Filter
from delivery.replays import Definition, Failure, Progress, Replay
from delivery.sealing import KeyRing
from gateway.auth import Principal
from gateway.deadletters import PREFIXES, make_filter
from gateway.documents import instant, shown_url
from gateway.drafts import destination_of
from gateway.failed import JOB_TAG, TYPE_TAG
from gateway.faults import Fault
from gateway.problems import Problem
from gateway.schemas.replays import LetterFilter, ReplayRequest
from gateway.urls import Urls

_FAULTS_TOLD = 20
FAILURES_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A replay that nothing speaks against.

    Attributes:
        definition: all but how many dead letters there are.
        named: those asked for by name.
        to_url: where they go instead; None for where they went.
    """

    definition: Definition
    named: tuple[str, ...]
    to_url: Destination | None


def wish_of(
    request: ReplayRequest, principal: Principal, *, policy: Policy, partitions: int
) -> Wish:
    """Return what `request` asks for.

    Raises:
        Problem: `invalid_request`, for what cannot be an identifier; `invalid_callback_url`.
    """
    named = tuple(request.ids or ())
    _check_named(named, PREFIXES[request.kind], partitions)
    to_url = None
    if request.to_url is not None:
        to_url = destination_of(request.to_url, policy, "/toUrl")
    return Wish(
        definition=Definition(
            action=request.action,
            filter=None if named else _filter(request.filter),
            named=len(named),
            rate=request.rate,
            most=request.max,
            dry_run=request.dry_run,
            brake=request.stop_at_failure_rate,
            by=principal.key_id,
        ),
        named=named,
        to_url=to_url,
    )


def _check_named(named: tuple[str, ...], prefix: str, partitions: int) -> None:
    faults = [
        Fault(f"/ids/{at}", f"is no identifier such as {prefix}_00…")
        for at, each in enumerate(named)
        if not ids.is_id(prefix, each) or ids.partition_of(each) >= partitions
    ]
    if faults:
        detail = f"{faults[0].pointer} {faults[0].detail}"
        raise Problem("invalid_request", detail, faults=faults[:_FAULTS_TOLD])


def _filter(wanted: LetterFilter | None) -> Filter:
    if wanted is None:
        return Filter()
    return make_filter(
        reason=wanted.reason,
        endpoint=wanted.endpoint,
        job_type=wanted.type,
        job=wanted.job,
        died_after=wanted.died_after,
        died_before=wanted.died_before,
    )


def document(
    replay: Replay,
    progress: Progress,
    *,
    urls: Urls,
    ring: KeyRing,
    hints: Mapping[str, str],
) -> dict[str, Any]:
    """Return the document of a replay.

    Args:
        replay: the replay.
        progress: how far it has come.
        urls: builds the addresses in it.
        ring: opens its other URL.
        hints: what outcomes mean, for people.
    """
    wanted = replay.definition
    url = urls.instance(f"/v1/replays/{replay.id}")
    sealed = replay.to_url
    return {
        "id": replay.id,
        "kind": replay.kind,
        "action": wanted.action,
        "state": replay.state,
        "reason": replay.reason,
        "ids": wanted.named or None,
        "filter": _filter_document(wanted.filter),
        "all": wanted.filter is not None and wanted.filter.means_all,
        "toUrl": shown_url(ring.open(sealed, row=replay.id).decode()) if sealed else None,
        "rate": wanted.rate,
        "max": wanted.most,
        "dryRun": wanted.dry_run,
        "stopAtFailureRate": wanted.brake,
        "createdAt": rfc3339(replay.created_at),
        "createdBy": wanted.by,
        "updatedAt": rfc3339(replay.updated_at),
        "diedBefore": rfc3339(replay.died_before),
        "progress": _progress_document(replay, progress),
        "byReason": dict(progress.reasons),
        "failures": [_failure(each, hints) for each in progress.failures[:FAILURES_SHOWN]],
        "_links": {"self": url, "cancel": f"{url}/cancel", "resume": f"{url}/resume"},
    }


def _filter_document(wanted: Filter | None) -> dict[str, Any] | None:
    if wanted is None or wanted.means_all:
        return None
    return {
        "reason": wanted.reason,
        "endpoint": wanted.endpoint,
        "type": wanted.tags.get(TYPE_TAG),
        "job": wanted.tags.get(JOB_TAG),
        "diedAfter": instant(wanted.died_after),
        "diedBefore": instant(wanted.died_before),
    }


def _progress_document(replay: Replay, progress: Progress) -> dict[str, Any]:
    wanted = replay.definition
    purges = wanted.action == "purge"
    # What comes of jobs that run again is told by those jobs.
    sends = replay.kind == "delivery" and not purges and not wanted.dry_run
    return {
        "total": wanted.total,
        "examined": progress.looked,
        "matched": progress.matched,
        "replayed": 0 if purges else progress.moved,
        "purged": progress.moved if purges else 0,
        "skipped": dict(progress.skipped),
        "attempted": progress.attempted if sends else None,
        "delivered": progress.delivered if sends else None,
        "failed": progress.failed if sends else None,
        "pending": progress.pending if sends else None,
        "dead": progress.dead if sends else None,
    }


def _failure(failure: Failure, hints: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": failure.id,
        "at": rfc3339(failure.at),
        "outcome": failure.outcome,
        "statusCode": failure.status,
        "reason": failure.reason,
        "hint": hints.get(failure.outcome or "") or None,
    }
