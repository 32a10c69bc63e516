"""Keeping the job of a draft, at most one for each Idempotency-Key.

What such a key promises rests on the order of steps: claim the key for the job's identifier, write
the job under it unless it exists, settle the key. Each step can be repeated, so a crash after any
of them is repaired by the next request with that key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import assert_never

from config.clock import SECOND, Clock
from config.errors import StoreFull, StoreUnavailable
from config.settings import Settings
from delivery.endpoints import Registration, url_hash
from delivery.errors import TooManyEndpoints
from delivery.sealing import KeyRing
from gateway.artifacts import ArtifactError, ArtifactStore, input_path, job_prefix
from gateway.drafts import Draft, too_many_endpoints
from gateway.faults import Fault
from gateway.files import FileStore
from gateway.idempotency import fingerprint
from gateway.models import Callback, Job, StoredFile, View, callback_row, compact
from gateway.problems import Problem
from gateway.reading import read_job
from gateway.schemas.jobs import CallbackRequest
from gateway.store import JobStore, KeyClaim
from gateway.uploads import check_complete, discard

INPUT_FILE = "input.json"
"""Name of an input that is too large to be kept in the store."""

RETRY_SECONDS = 2
"""When to ask again after the store failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A job that is kept, and whether an earlier request with the same key had it made."""

    view: View
    replayed: bool


class Submitter:
    """Makes jobs of drafts."""

    def __init__(
        self,
        settings: Settings,
        *,
        jobs: JobStore,
        artifacts: ArtifactStore,
        files: FileStore,
        ring: KeyRing,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._artifacts = artifacts
        self._files = files
        self._ring = ring
        self._clock = clock
        self._partitions = settings.store.partitions

    async def submit(
        self,
        draft: Draft,
        files: Mapping[str, StoredFile],
        key: str | None,
        *,
        room: int | None = None,
    ) -> Submitted:
        """Keep the job of `draft`, at most one for each `key`.

        Args:
            draft: what is asked for.
            files: what was uploaded for it, under its identifier; deleted when it is refused.
            key: the Idempotency-Key, or None.
            room: bytes that files uploaded before may have, as the job gets copies; None: any.

        Raises:
            Problem: `invalid_input` when files are missing or not known, `no_space_left` when there
                is no room for copies of them, `request_in_progress`,
                `idempotency_key_reused`, `job_expired`, `too_many_endpoints`, `store_full`, or
                `store_unavailable`, which names the job when it may have been kept.
            ArtifactError: the artifact store failed; nothing was kept.
        """
        try:
            check_complete(draft.parts, files)
            claim = await self._claim(draft, files, key)
            kept = await self._was_kept(draft, claim)
        except Exception:
            await discard(self._artifacts, draft.job_id)
            raise
        if claim.state == "claimed" and not kept:
            owner = draft.job_id
            draft, files = await self._adopt(draft, files, claim.job_id)
            view = await self._keep(draft, files, key, owner, room)
            # The job is kept, so the client hears so. A key left unsettled is claimed for the same
            # identifier by the next request, which then finds the job.
            with suppress(StoreUnavailable):
                await self._settle(draft, key, claim)
            return Submitted(view=view, replayed=False)
        await discard(self._artifacts, draft.job_id)
        match claim.state:
            case "claimed" | "created":
                # What was read counts once this is kept, which comes after it.
                await self._settle(draft, key, claim)
                return Submitted(view=await self._earlier(draft, claim.job_id), replayed=True)
            case "writing":
                detail = "a request with this key is being handled at this moment"
                raise Problem("request_in_progress", detail, retry_after=1)
            case "conflict":
                detail = "this Idempotency-Key stands for another request"
                raise Problem("idempotency_key_reused", detail)
            case _:
                assert_never(claim.state)

    async def _claim(
        self, draft: Draft, files: Mapping[str, StoredFile], key: str | None
    ) -> KeyClaim:
        if key is None:
            return KeyClaim(state="claimed", job_id=draft.job_id)
        return await self._jobs.claim_key(
            draft.tenant,
            key,
            fingerprint=fingerprint(draft.request, files),
            job_id=draft.job_id,
            life=self._key_life(draft),
        )

    async def _was_kept(self, draft: Draft, claim: KeyClaim) -> bool:
        """Tell whether an earlier request kept the job and fell silent before it said so."""
        if claim.state != "claimed" or claim.job_id == draft.job_id:
            return False
        return await self._jobs.read(claim.job_id) is not None

    def _key_life(self, draft: Draft) -> int:
        """Return for how long (µs) the key is kept: as long as the job's tombstone can be there."""
        request = draft.request
        working = (draft.queue_timeout or 0) + draft.timeout * draft.max_attempts
        kept = self._result_ttl(draft) + self._settings.jobs.tombstone_seconds
        start = max(0, (request.run_at or 0) - self._clock.now())
        return start + int((working + kept) * SECOND)

    async def _adopt(
        self, draft: Draft, files: Mapping[str, StoredFile], job_id: str
    ) -> tuple[Draft, Mapping[str, StoredFile]]:
        """Go on under the identifier of an earlier request that claimed the key and fell silent."""
        if job_id == draft.job_id:
            return draft, files
        moved: dict[str, StoredFile] = {}
        for number, (name, file) in enumerate(files.items()):
            path = input_path(job_id, number)
            await self._artifacts.copy(file.path, path)
            moved[name] = replace(file, path=path)
        await discard(self._artifacts, draft.job_id)
        return replace(draft, job_id=job_id), moved

    async def _keep(
        self,
        draft: Draft,
        files: Mapping[str, StoredFile],
        key: str | None,
        owner: str,
        room: int | None,
    ) -> View:
        """Write the job. What is refused leaves nothing behind; what may be kept is left alone."""
        try:
            files = {**files, **await self._take_uploads(draft, len(files), room)}
            job = self._build(draft, files, await self._store_input(draft))
            return await self._write(job, draft.registration)
        except StoreUnavailable as error:
            raise Problem(
                "store_unavailable",
                "the store did not answer; whether the job was kept is not known",
                members={"jobId": draft.job_id},
                retry_after=RETRY_SECONDS,
            ) from error
        except (StoreFull, ArtifactError, Problem):
            # Whoever took the key over in the meantime goes on with this job and its files.
            if await self._release(draft, key, owner):
                await discard(self._artifacts, draft.job_id)
            raise

    async def _take_uploads(
        self, draft: Draft, number: int, room: int | None
    ) -> dict[str, StoredFile]:
        """Copy the files uploaded before that the input names; return them by their identifiers.

        Args:
            draft: what is asked for.
            number: the first that is free among the job's files.
            room: bytes that the copies may have; None: any.

        Raises:
            Problem: `invalid_input`, naming those that are not there; `no_space_left`.
        """
        life = int(self._settings.jobs.file_ttl_seconds * SECOND)
        found = await self._files.use(list(draft.uploads), draft.tenant, life=life)
        faults = [
            Fault(where, f"no file {file_id} is known")
            for file_id, where in draft.uploads.items()
            if file_id not in found
        ]
        if faults:
            raise Problem(
                "invalid_input", "the input names files that are not there", faults=faults
            )
        wanted = sum(uploaded.file.size for uploaded in found.values())
        if room is not None and wanted > room:
            detail = f"a job gets copies of its files, and of yours {room} bytes more may be kept"
            raise Problem("no_space_left", detail)
        taken: dict[str, StoredFile] = {}
        for place, (file_id, uploaded) in enumerate(found.items(), number):
            path = input_path(draft.job_id, place)
            await self._artifacts.copy(uploaded.file.path, path)
            taken[file_id] = replace(uploaded.file, path=path)
        return taken

    async def _store_input(self, draft: Draft) -> StoredFile | None:
        data = compact(draft.request.input).encode()
        if len(data) <= self._settings.jobs.inline_limit_bytes:
            return None
        path = f"{job_prefix(draft.job_id)}/in/{INPUT_FILE}"
        stored = await self._artifacts.put(path, _once(data), limit=len(data))
        return StoredFile(
            path=path,
            name=INPUT_FILE,
            size=stored.size,
            sha256=stored.sha256,
            content_type="application/json",
        )

    def _build(
        self, draft: Draft, files: Mapping[str, StoredFile], input_file: StoredFile | None
    ) -> Job:
        request = draft.request
        return Job(
            id=draft.job_id,
            tenant=draft.tenant,
            type=draft.job_type.name,
            status="pending",
            rev=0,
            priority=request.priority,
            input=None if input_file else request.input,
            input_file=input_file,
            files=files,
            metadata=request.metadata or {},
            callback=self._build_callback(draft),
            on_complete=request.on_complete,
            max_attempts=draft.max_attempts,
            timeout=draft.timeout,
            queue_timeout=draft.queue_timeout,
            result_ttl=int(self._result_ttl(draft) * SECOND),
            run_at=request.run_at,
            trace=draft.trace,
        )

    def _result_ttl(self, draft: Draft) -> float:
        return draft.request.result_ttl_seconds or self._settings.jobs.result_ttl_seconds

    def _build_callback(self, draft: Draft) -> Callback | None:
        if draft.destination is None or draft.registration is None:
            return None
        wanted = draft.request.callback or CallbackRequest()
        row = callback_row(draft.job_id)
        headers = compact(wanted.headers).encode() if wanted.headers else b""
        return Callback(
            endpoint=draft.registration.id,
            url=self._ring.seal(draft.destination.url.encode(), row=row),
            url_hash=url_hash(draft.destination.url),
            events=tuple(wanted.events),
            headers=self._ring.seal(headers, row=row) if headers else b"",
            signature=wanted.signature,
            payload=wanted.layout,
        )

    async def _write(self, job: Job, registration: Registration | None) -> View:
        try:
            return await self._jobs.submit(job, registration)
        except StoreFull:
            # A first try whose reply was lost may have written it while there was still room.
            kept = await self._jobs.read(job.id)
            if isinstance(kept, View):
                return kept
            raise
        except TooManyEndpoints as error:
            raise too_many_endpoints() from error

    async def _settle(self, draft: Draft, key: str | None, claim: KeyClaim) -> None:
        if key is not None and claim.state == "claimed":
            await self._jobs.settle_key(draft.tenant, key, claim.job_id)

    async def _release(self, draft: Draft, key: str | None, owner: str) -> bool:
        """Give the key back as `owner`; tell whether the job was this request's alone."""
        if key is None:
            return True
        try:
            return await self._jobs.release_key(draft.tenant, key, owner)
        except StoreUnavailable:
            # A key that cannot be given back is free again once its claim is stale.
            return False

    async def _earlier(self, draft: Draft, job_id: str) -> View:
        return await read_job(self._jobs, job_id, tenant=draft.tenant, partitions=self._partitions)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
