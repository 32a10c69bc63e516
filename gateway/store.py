"""The gateway's transitions, one method each; the scripts in `lua/` demand the states.

Every method may be called again after `StoreUnavailable` with the same arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from config.clock import SECOND, StoreClock
from config.ids import choose_partition, partition_of
from config.store import META_PREFIX, Argument, Call, Store, load_script, partition_prefix
from delivery.endpoints import Registration
from delivery.models import Message
from delivery.store import DeliveryStore, pairs
from gateway.auth import ApiKey
from gateway.models import (
    CallbackState,
    Job,
    Status,
    StoredFile,
    Tombstone,
    View,
    compact,
    decode_fields,
    encode_fields,
    encode_files,
)

_STALE_CLAIM = 10 * SECOND
"""After this long another request may finish what a crashed one began under the same key."""

_SILENCE = 10 * SECOND
"""A worker process that has not been heard of for this long is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyClaim:
    """What came of claiming an idempotency key.

    Attributes:
        state: `claimed`: the caller makes the job `job_id`; `writing`: somebody else is at it;
            `created`: it exists; `conflict`: the key came with another request.
        job_id: the one job of that key.
    """

    state: Literal["claimed", "writing", "created", "conflict"]
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a job ends, as it is written.

    Attributes:
        claim: the claim it is held by.
        by: who ends it; the same caller may say it twice.
        rev: the revision that the callback's body was rendered from.
        status: completed, failed or cancelled.
        completed_at: µs.
        expires_at: µs.
        message: the delivery this end owes, if any.
        attempt_record: what people will read about the last attempt, as JSON.
    """

    claim: str
    by: str
    rev: int
    status: Status
    completed_at: int
    expires_at: int
    message: Message | None
    attempt_record: str
    results: Any = None
    results_file: StoredFile | None = None
    artifacts: Mapping[str, StoredFile] | None = None
    progress: int | None = None
    progress_message: str | None = None
    error: str | None = None
    error_code: str | None = None


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
class Rung:
    """What the relay is to tell the broker of one partition.

    Attributes:
        jobs: to be rung now.
        rung: how many are rung and unclaimed, those included.
        waiting: whether more wait behind them.
        due_in: µs until one is to be rung again or falls due; None when none will be.
    """

    jobs: tuple[str, ...]
    rung: int
    waiting: bool
    due_in: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the store says to a progress report."""

    rev: int
    cancel_requested: bool


Renewal = Literal["held", "cancel_requested", "lost"]
_RENEWALS: tuple[Renewal, ...] = ("lost", "held", "cancel_requested")

Retried = Literal["waiting", "cancel_requested", "lost"]
_RETRIES: tuple[Retried, ...] = ("lost", "waiting", "cancel_requested")


class JobStore:
    """The jobs of all partitions."""

    def __init__(
        self, store: Store, deliveries: DeliveryStore, partitions: int, clock: StoreClock
    ) -> None:
        self._store = store
        self._deliveries = deliveries
        self.partitions = partitions
        self._clock = clock

    # Submitting and reading

    async def submit(self, job: Job, registration: Registration | None) -> View:
        """Keep the job with its place in the outbox; one that exists is returned as it is.

        Raises:
            StoreFull: nothing was written.
        """
        endpoint: tuple[Argument, ...] = ("", "", "", 0)
        if registration is not None:
            initial_limit = self._deliveries.retention.initial_limit
            endpoint = (
                registration.id,
                registration.origin,
                registration.secret,
                initial_limit,
            )
        fields = [part for field in encode_fields(job).items() for part in field]
        reply = await self._run(
            "submit",
            partition_of(job.id),
            job.id,
            job.tenant,
            job.priority,
            "" if job.run_at is None else job.run_at,
            *endpoint,
            *fields,
        )
        return self._view(job.id, reply)

    async def read(self, job_id: str) -> View | Tombstone | None:
        """Return the job, what is left of it, or None when it was never there or is long gone."""
        reply = await self._run("read_job", partition_of(job_id), job_id)
        if reply is None:
            return None
        if isinstance(reply, bytes):
            return _tombstone(job_id, reply)
        return self._view(job_id, reply)

    # Idempotency keys

    async def claim_key(
        self, tenant: str, key: str, *, fingerprint: str, job_id: str, life: int
    ) -> KeyClaim:
        """Claim an idempotency key for a job about to be made under `job_id`; see `KeyClaim`.

        Args:
            tenant: keys are the tenant's own.
            key: as the client sent it, unquoted.
            fingerprint: of the request.
            job_id: the identifier that the job would have.
            life: µs that the key is kept.
        """
        partition, digest = self._key_place(tenant, key)
        state, kept = await self._run(
            "claim_key", partition, tenant, digest, fingerprint, job_id, _STALE_CLAIM, life
        )
        return KeyClaim(
            state=cast('Literal["claimed", "writing", "created", "conflict"]', state.decode()),
            job_id=kept.decode(),
        )

    async def settle_key(self, tenant: str, key: str, job_id: str) -> None:
        """Note that the job of a claimed key is kept."""
        partition, digest = self._key_place(tenant, key)
        await self._run("settle_key", partition, tenant, digest, job_id)

    async def release_key(self, tenant: str, key: str, job_id: str) -> None:
        """Give a claimed key back: the request was refused."""
        partition, digest = self._key_place(tenant, key)
        await self._run("release_key", partition, tenant, digest, job_id)

    def _key_place(self, tenant: str, key: str) -> tuple[int, str]:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return choose_partition(f"{tenant}\0{key}", self.partitions), digest

    # API keys

    async def put_key(self, key: ApiKey) -> None:
        """Keep an API key under its digest."""
        fields = [part for field in key.encode().items() for part in field]
        await self._store.run(self._meta_call("put_key", key.digest, *fields))

    async def find_key(self, digest: str) -> ApiKey | None:
        """Return the API key with this digest, or None."""
        reply = await self._store.run(self._meta_call("find_key", digest))
        kept = dict(zip(reply[::2], reply[1::2], strict=True))
        return ApiKey.decode(kept) if kept else None

    # Working

    async def claim(self, job_id: str, claim: str, *, lease: int) -> View | None:
        """Begin an attempt under `claim` for `lease` µs; None: the job is not to be worked on."""
        reply = await self._run("claim_job", partition_of(job_id), job_id, claim, lease)
        return None if reply is None else self._view(job_id, reply)

    async def progress(
        self, job_id: str, claim: str, percent: int, message: str
    ) -> Progress | None:
        """Note how far the job has come; None when the claim is lost."""
        reply = await self._run("progress", partition_of(job_id), job_id, claim, percent, message)
        if reply is None:
            return None
        now, rev, cancel = reply
        self._clock.heard(now)
        return Progress(rev=rev, cancel_requested=bool(cancel))

    async def renew(
        self, process: str, held: Mapping[int, Sequence[tuple[str, str]]], *, lease: int
    ) -> dict[str, Renewal]:
        """Renew the leases of (job, claim) pairs by partition; the process's heartbeat there."""
        replies = await self._store.run_all(
            [
                self._call(
                    "renew", partition, process, lease, *(part for pair in pairs_ for part in pair)
                )
                for partition, pairs_ in held.items()
            ]
        )
        renewals: dict[str, Renewal] = {}
        for (now, results), pairs_ in zip(replies, held.values(), strict=True):
            self._clock.heard(now)
            for (job_id, _), result in zip(pairs_, results, strict=True):
                renewals[job_id] = _RENEWALS[result]
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
            *owed,
            self._deliveries.retention.dead,
            end.attempt_record,
            end.by,
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

    # Workers and the relay

    async def enlist(self, process: str, threads: int) -> None:
        """Say that a worker process lives, with so many threads; 0 threads: it leaves."""
        self._clock.heard(await self._store.run(self._meta_call("enlist", process, threads)))

    async def live_threads(self) -> int:
        """Return how many threads the live worker processes have together."""
        return cast("int", await self._store.run(self._meta_call("muster", _SILENCE)))

    async def ring(
        self, windows: Mapping[int, int], *, again: int, again_at_most: int, overdue: bool
    ) -> dict[int, Rung]:
        """Choose the jobs to tell the broker of, in one round trip.

        Args:
            windows: how many jobs may be rung and unclaimed, by partition.
            again: µs after which a rung job is rung once more; doubles each time.
            again_at_most: µs that this doubling ends at.
            overdue: whether rung jobs that are overdue may be rung again now.
        """
        replies = await self._store.run_all(
            [
                self._call("ring", partition, window, again, again_at_most, int(overdue))
                for partition, window in windows.items()
            ]
        )
        return {
            partition: Rung(
                jobs=tuple(job.decode() for job in jobs),
                rung=rung,
                waiting=bool(waiting),
                due_in=None if due_in < 0 else due_in,
            )
            for partition, (jobs, rung, waiting, due_in) in zip(windows, replies, strict=True)
        }

    async def sweep(self, *, lease: int, at_most: int) -> tuple[int, list[View]]:
        """Bring back jobs whose lease ran out; return how many, and those to be ended instead."""
        replies = await self._everywhere("sweep", lease, at_most)
        back, to_end = 0, []
        for now, came_back, ended in replies:
            self._clock.heard(now)
            back += came_back
            to_end += [self._view(job_id.decode(), reply) for job_id, reply in ended]
        return back, to_end

    async def expire(
        self, *, tombstone_life: int, after_callback: int, at_most: int
    ) -> tuple[int, list[str]]:
        """Turn ended jobs into tombstones; return how many, and the jobs whose files are to go."""
        replies = await self._everywhere("expire", tombstone_life, after_callback, at_most)
        expired = sum(reply[0] for reply in replies)
        return expired, [job.decode() for reply in replies for job in reply[1]]

    async def forget_files(self, job_id: str) -> None:
        """Note that the files of an expired job are deleted."""
        await self._run("forget_files", partition_of(job_id), job_id)

    def _view(self, job_id: str, reply: list[Any]) -> View:
        now, flat, delivery = reply
        self._clock.heard(now)
        kept = pairs(flat)
        job = decode_fields(job_id, kept)
        state = _callback_state(delivery) if job.callback else None
        return View(job=job, callback=state, now=now)

    def _call(self, name: str, partition: int, *args: Argument) -> Call:
        return Call(load_script("gateway", name), partition_prefix(partition), args)

    def _meta_call(self, name: str, *args: Argument) -> Call:
        return Call(load_script("gateway", name), META_PREFIX, args)

    async def _run(self, name: str, partition: int, *args: Argument) -> Any:
        return await self._store.run(self._call(name, partition, *args))

    async def _everywhere(self, name: str, *args: Argument) -> list[Any]:
        return await self._store.run_all(
            [self._call(name, partition, *args) for partition in range(self.partitions)]
        )


def _callback_state(delivery: Sequence[bytes | None]) -> CallbackState:
    if not delivery or delivery[0] is None:
        return CallbackState()
    state, reason, attempts, last_status, next_at = delivery
    status = "disabled" if reason == b"disabled" else state.decode() if state else "pending"
    return CallbackState(
        status=cast('Literal["pending", "delivered", "dead", "disabled"]', status),
        attempts=int(attempts or 0),
        last_status_code=int(last_status) if last_status else None,
        next_attempt_at=int(next_at) if next_at and state == b"pending" else None,
    )


def _tombstone(job_id: str, kept: bytes) -> Tombstone:
    status, expired_at, tenant = kept.decode().split(" ", 2)
    return Tombstone(
        job_id=job_id, tenant=tenant, status=cast("Status", status), expired_at=int(expired_at)
    )
