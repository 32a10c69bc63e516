"""Running a failed or cancelled job again: a new job, made of what the old one was given.

The identifier of the new job is settled first, in the old one; then its files are copied and it is
written unless it exists. Each step can be repeated, so a crash after any of them is repaired by the
next call, and however often it is called there is one new job.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from config import ids
from config.clock import Clock
from config.errors import StoreFull
from delivery.egress import Policy
from delivery.endpoints import Registration, register
from delivery.errors import TooManyEndpoints
from delivery.sealing import KeyRing
from gateway.artifacts import ArtifactNotFound, ArtifactStore, job_prefix
from gateway.drafts import destination_of, too_many_endpoints
from gateway.models import Callback, Job, StoredFile, View, callback_row
from gateway.problems import Problem
from gateway.reading import read_job
from gateway.store import JobStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """The job that is given what another one was given.

    Attributes:
        view: the new job.
        is_new: whether this call made it.
    """

    view: View
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerunner:
    """Runs jobs again.

    Attributes:
        jobs: the jobs.
        artifacts: keeps their files.
        ring: opens and seals their callbacks.
        clock: the store's time.
        policy: where callbacks may go now.
    """

    jobs: JobStore
    artifacts: ArtifactStore
    ring: KeyRing
    clock: Clock
    policy: Policy

    async def run_again(self, job_id: str, *, tenant: str | None) -> Rerun:
        """Return the job that runs `job_id` again, made now unless it was before.

        Args:
            job_id: the job that ended.
            tenant: whose job it must be; None for any.

        Raises:
            Problem: `not_found` or `job_expired`, of either job; `job_not_retryable`;
                `invalid_callback_url` or `too_many_endpoints`, when its callback may not be sent
                any more.
            StoreFull: nothing was written but the identifier of the new job.
            StoreUnavailable, ArtifactError: the next call goes on where this one stopped.
        """
        old = (await self._read(job_id, tenant)).job
        registration = self._register(old)
        new_id = await self._reserve(old, tenant)
        if await self.jobs.read(new_id) is not None:
            # Another caller's: what was read counts once this is kept, which comes after it.
            await self._reserve(old, tenant)
            return Rerun(view=await self._read(new_id, old.tenant), is_new=False)
        job = self._renew(old, new_id, registration)
        await self._copy_files(old, job)
        return Rerun(view=await self._write(job, registration), is_new=True)

    async def _read(self, job_id: str, tenant: str | None) -> View:
        return await read_job(self.jobs, job_id, tenant=tenant, partitions=self.jobs.partitions)

    def _register(self, old: Job) -> Registration | None:
        if old.callback is None:
            return None
        url = self.ring.open(old.callback.url, row=callback_row(old.id)).decode()
        destination = destination_of(url, self.policy, "/callbackUrl")
        scheme = old.callback.signature
        return register(old.tenant, destination, self.ring, self.jobs.partitions, scheme)

    async def _reserve(self, old: Job, tenant: str | None) -> str:
        """Return the identifier of the new job: beside the old one, so the callback's partition."""
        fresh = ids.new_id("job", ids.partition_of(old.id), self.clock.now())
        reserved = await self.jobs.reserve_retry(old.id, fresh)
        if reserved is None:
            await self._read(old.id, tenant)  # expired meanwhile, which this tells
            raise Problem("not_found", "no job of this identifier is known")
        status, new_id = reserved
        if not new_id:
            raise Problem("job_not_retryable", f"the job is {status}")
        return new_id

    def _renew(self, old: Job, new_id: str, registration: Registration | None) -> Job:
        """Return the job as if it was submitted now, under `new_id`."""
        return Job(
            id=new_id,
            tenant=old.tenant,
            type=old.type,
            status="pending",
            rev=0,
            priority=old.priority,
            input=old.input,
            input_file=_moved(old.input_file, old.id, new_id) if old.input_file else None,
            files={name: _moved(file, old.id, new_id) for name, file in old.files.items()},
            metadata=old.metadata,
            callback=self._renew_callback(old, new_id, registration),
            on_complete=old.on_complete,
            max_attempts=old.max_attempts,
            timeout=old.timeout,
            queue_timeout=old.queue_timeout,
            result_ttl=old.result_ttl,
            retry_of=old.id,
            trace=old.trace,
        )

    def _renew_callback(
        self, old: Job, new_id: str, registration: Registration | None
    ) -> Callback | None:
        if old.callback is None or registration is None:
            return None
        return replace(
            old.callback,
            endpoint=registration.id,
            url=self._reseal(old.callback.url, old.id, new_id),
            headers=self._reseal(old.callback.headers, old.id, new_id),
        )

    def _reseal(self, sealed: bytes, old_id: str, new_id: str) -> bytes:
        if not sealed:
            return b""
        return self.ring.seal(
            self.ring.open(sealed, row=callback_row(old_id)), row=callback_row(new_id)
        )

    async def _copy_files(self, old: Job, new: Job) -> None:
        """Copy what the job was given, so that either job may go before the other."""
        pairs = [(file.path, new.files[name].path) for name, file in old.files.items()]
        if old.input_file and new.input_file:
            pairs.append((old.input_file.path, new.input_file.path))
        for source, target in pairs:
            try:
                await self.artifacts.copy(source, target)
            except ArtifactNotFound:
                await self._read(old.id, old.tenant)  # erased meanwhile, which this tells
                raise

    async def _write(self, job: Job, registration: Registration | None) -> View:
        try:
            return await self.jobs.submit(job, registration)
        except StoreFull:
            # A first try whose reply was lost, or another caller, may have written it. The files
            # stay where they are even if not: they may be in use by another caller at this moment.
            kept = await self.jobs.read(job.id)
            if isinstance(kept, View):
                return kept
            raise
        except TooManyEndpoints as error:
            raise too_many_endpoints() from error


def _moved(file: StoredFile, old_id: str, new_id: str) -> StoredFile:
    return replace(file, path=job_prefix(new_id) + file.path.removeprefix(job_prefix(old_id)))
