"""Jobs as clients have to do with them: submitted, read, cancelled, run again, erased.

One method a transition; the scripts in `lua/` demand the states. Every method may be called again
after `StoreUnavailable` with the same arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from config.clock import SECOND
from config.ids import choose_partition, partition_of
from config.scripts import Argument
from delivery.endpoints import Registration
from delivery.errors import TooManyEndpoints
from gateway.listing import SCAN, Part, Query
from gateway.models import Job, Status, Tombstone, View, encode_fields
from gateway.transitions import Transitions

_STALE_CLAIM = 10 * SECOND
"""After this long another request may finish what a crashed one began under the same key."""

_TOO_MANY_ENDPOINTS = -1


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
class Load:
    """What one tenant has the gateway keep.

    Attributes:
        pending: jobs that wait.
        kept: bytes outside the store.
    """

    pending: int
    kept: int


class JobStore(Transitions):
    """The jobs of all partitions."""

    async def submit(self, job: Job, registration: Registration | None) -> View:
        """Keep the job with its place in the outbox; one that exists is returned as it is.

        Raises:
            StoreFull: nothing was written.
            TooManyEndpoints: nor was it; the callback's endpoint would be one too many.
        """
        endpoint: tuple[Argument, ...] = ("", "", "", 0, "", "", 0, "")
        if registration is not None:
            initial_limit = self._retention.initial_limit
            endpoint = (
                registration.id,
                registration.origin,
                registration.secret,
                initial_limit,
                registration.scheme,
                registration.scheme_secret,
                self._retention.max_endpoints,
                registration.hold,
            )
        fields = [part for field in encode_fields(job).items() for part in field]
        reply = await self._run(
            "submit",
            partition_of(job.id),
            job.id,
            job.tenant,
            job.priority,
            "" if job.run_at is None else job.run_at,
            "" if job.queue_timeout is None else int(job.queue_timeout * SECOND),
            *endpoint,
            *fields,
        )
        if reply == _TOO_MANY_ENDPOINTS:
            raise TooManyEndpoints(job.tenant)
        return self._view(job.id, reply)

    async def read(self, job_id: str) -> View | Tombstone | None:
        """Return the job, what is left of it, or None when it was never there or is long gone."""
        reply = await self._run("read_job", partition_of(job_id), job_id)
        if reply is None:
            return None
        if isinstance(reply, bytes):
            return _tombstone(job_id, reply)
        return self._view(job_id, reply)

    async def cancel(self, job_id: str) -> tuple[Status, View] | None:
        """Ask for the job to be cancelled; return the status it is in, None when unknown.

        One that is `processing` is marked and its worker told. One that is `pending` stays so: the
        caller ends it, with the callback that this owes.
        """
        reply = await self._run("cancel", partition_of(job_id), job_id)
        if reply is None:
            return None
        status, view = reply
        return cast("Status", status.decode()), self._view(job_id, view)

    async def reserve_retry(self, job_id: str, new_id: str) -> tuple[Status, str] | None:
        """Settle under which identifier the job is run again: the first that was asked for.

        Returns:
            The status it is in and that identifier, which is empty unless it failed or was
            cancelled; None when the job is unknown.
        """
        reply = await self._run("reserve_retry", partition_of(job_id), job_id, new_id)
        if reply is None:
            return None
        status, kept = reply
        return cast("Status", status.decode()), kept.decode()

    async def erase(self, job_id: str, *, tombstone_life: int) -> Status | None:
        """Make an ended job its tombstone, and forget the callbacks it owes.

        Returns:
            The status it was in; nothing changed unless that is terminal. None when unknown.
        """
        reply = await self._run("erase", partition_of(job_id), job_id, tombstone_life)
        return None if reply is None else cast("Status", reply.decode())

    async def mark_read(self, job_id: str) -> None:
        """Note that the job's results were read."""
        await self._run("mark_read", partition_of(job_id), job_id)

    async def list_jobs(self, tenant: str, query: Query) -> list[Part]:
        """Return what each partition has of a page of the tenant's jobs.

        Their inputs, results and attempts are left out.
        """
        newest, after = query.place or (None, "")
        before = query.created_before
        if before is not None and (newest is None or before <= newest):
            newest, after = before - 1, ""
        replies = await self._everywhere(
            "list_jobs",
            tenant,
            query.status or "",
            query.type or "",
            "-inf" if query.created_after is None else query.created_after,
            "+inf" if newest is None else newest,
            after,
            query.limit,
            SCAN,
        )
        return [self._part(*reply) for reply in replies]

    def _part(self, rows: list[Any], made_at: bytes | None, job_id: bytes | None) -> Part:
        return Part(
            rows=[self._view(row[0].decode(), row[1]) for row in rows],
            reached=(int(made_at), job_id.decode()) if made_at and job_id else None,
        )

    async def backlog(self, tenants: Sequence[str]) -> tuple[int, dict[str, Load]]:
        """Return how many jobs are pending of all tenants, and what each of `tenants` has."""
        replies = await self._everywhere("backlog", *tenants)
        own = {
            tenant: Load(
                pending=sum(reply[1][at] for reply in replies),
                kept=sum(int(reply[2][at]) for reply in replies),
            )
            for at, tenant in enumerate(tenants)
        }
        return sum(reply[0] for reply in replies), own

    async def deliveries_of(self, job_id: str) -> list[str]:
        """Return the deliveries that the job owed, that of its end first."""
        reply = await self._run("job_deliveries", partition_of(job_id), job_id)
        return [each.decode() for each in reply if each is not None]

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

    async def release_key(self, tenant: str, key: str, job_id: str) -> bool:
        """Give a claimed key back: the request was refused.

        Returns:
            Whether it was the caller's to give; if not, another request goes on with the job.
        """
        partition, digest = self._key_place(tenant, key)
        return bool(await self._run("release_key", partition, tenant, digest, job_id))

    def _key_place(self, tenant: str, key: str) -> tuple[int, str]:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return choose_partition(f"{tenant}\0{key}", self.partitions), digest


def _tombstone(job_id: str, kept: bytes) -> Tombstone:
    status, expired_at, tenant = kept.decode().split(" ", 2)
    return Tombstone(
        job_id=job_id, tenant=tenant, status=cast("Status", status), expired_at=int(expired_at)
    )
