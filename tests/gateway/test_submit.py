"""Accepting a job without HTTP, on a real store that is full, gone, or asked twice at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from config.clock import SECOND
from config.errors import StoreFull
from config.ids import partition_of
from config.store import Store, connect
from gateway.artifacts import ArtifactError
from gateway.auth import SCOPES, Principal
from gateway.drafts import Draft, Drafter
from gateway.idempotency import fingerprint
from gateway.models import StoredFile, View
from gateway.problems import Problem
from gateway.schemas.jobs import parse_submit
from gateway.services import Services
from gateway.store import JobStore
from gateway.submit import Submitted, Submitter
from tests.gateway.conftest import FullStore

ACME = Principal(tenant="acme", scopes=SCOPES, key_id="key_1")
ECHO = {"type": "demo.echo", "input": {"payload": {"hello": "world"}}}
DOCUMENT = {"type": "document.analyze", "input": {"document": {"part": "file"}}}
HOOK = {"callbackUrl": "http://127.0.0.1:9000/hook?token=t"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Drafts and submits for the tenant acme, without HTTP."""

    services: Services
    drafter: Drafter
    submitter: Submitter

    def draft(self, body: dict[str, Any], **more: object) -> Draft:
        """Return the draft of a body."""
        return self.drafter.draft(ACME, parse_submit({**body, **more}, metadata_limit=4096))

    async def submit(
        self, body: dict[str, Any], key: str | None = None, **more: object
    ) -> Submitted:
        """Submit a body without files."""
        return await self.submitter.submit(self.draft(body, **more), {}, key)

    async def upload(self, draft: Draft, content: bytes) -> dict[str, StoredFile]:
        """Store `content` as the part `file` of a draft's job."""

        async def stream() -> AsyncIterator[bytes]:
            yield content

        path = f"jobs/{draft.job_id}/in/0"
        stored = await self.services.artifacts.put(path, stream(), limit=1000)
        return {
            "file": StoredFile(
                path=path,
                name="a.txt",
                size=stored.size,
                sha256=stored.sha256,
                content_type="text/plain",
            )
        }

    async def claim(self, draft: Draft, files: Mapping[str, StoredFile], key: str) -> None:
        """Claim the key for the draft, as a request does that crashes right after."""
        claim = await self.services.jobs.claim_key(
            draft.tenant,
            key,
            fingerprint=fingerprint(draft.request, files),
            job_id=draft.job_id,
            life=60 * SECOND,
        )
        assert claim.state == "claimed"


def desk_of(services: Services) -> Desk:
    """Return a desk on `services`."""
    submitter = Submitter(
        services.settings,
        jobs=services.jobs,
        artifacts=services.artifacts,
        files=services.files,
        ring=services.ring,
        clock=services.clock,
    )
    drafter = Drafter(
        services.settings,
        registry=services.registry,
        ring=services.ring,
        clock=services.clock,
    )
    return Desk(services=services, drafter=drafter, submitter=submitter)


@pytest.fixture
def desk(services: Services) -> Desk:
    """Return a desk on the real store."""
    return desk_of(services)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where the artifacts are."""
    return tmp_path / "artifacts"


def files_in(folder: Path) -> list[str]:
    """Return every file below `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_job_as_it_is_kept(desk: Desk, services: Services) -> None:
    submitted = await desk.submit(
        ECHO,
        **HOOK,
        callback={"headers": {"X-Order": "7"}, "events": ["job.failed"]},
        priority="high",
        timeoutSeconds=5,
        maxAttempts=2,
        resultTtlSeconds=60,
        metadata={"order": 7},
        onComplete="inline",
    )
    assert not submitted.replayed
    view = await services.jobs.read(submitted.view.job.id)
    assert isinstance(view, View)
    assert view.job == submitted.view.job
    job, callback = view.job, view.job.callback
    assert (job.tenant, job.type, job.status, job.priority) == (
        "acme",
        "demo.echo",
        "pending",
        "high",
    )
    assert (job.timeout, job.max_attempts, job.result_ttl) == (5, 2, 60 * SECOND)
    assert (job.input, job.metadata, job.on_complete) == (ECHO["input"], {"order": 7}, "inline")
    assert callback is not None
    row = f"callback:{job.id}"
    assert services.ring.open(callback.url, row=row).decode() == HOOK["callbackUrl"]
    assert json.loads(services.ring.open(callback.headers, row=row)) == {"X-Order": "7"}
    assert callback.events == ("job.failed",)
    assert partition_of(callback.endpoint) == partition_of(job.id)
    endpoint = await services.deliveries.read_endpoint(callback.endpoint)
    assert endpoint is not None
    assert endpoint.origin == "http://127.0.0.1:9000"


async def test_what_the_type_and_the_settings_say_unless_asked(desk: Desk) -> None:
    job = (await desk.submit(ECHO)).view.job
    assert (job.timeout, job.max_attempts, job.result_ttl) == (7200, 3, 86_400 * SECOND)
    assert job.callback is None


async def test_a_large_input_is_kept_as_a_file(
    desk: Desk, services: Services, folder: Path
) -> None:
    payload = {"text": "ü" * 10_000}
    job = (await desk.submit(ECHO, input={"payload": payload})).view.job
    assert job.input is None
    assert job.input_file is not None
    assert files_in(folder) == [f"jobs/{job.id}/in/input.json"]
    data = await services.artifacts.read(job.input_file.path, job.input_file.size)
    assert json.loads(data) == {"payload": payload}


async def test_a_file_that_was_not_uploaded(desk: Desk) -> None:
    with pytest.raises(Problem) as caught:
        await desk.submit(DOCUMENT, "key")
    assert caught.value.code == "invalid_input"
    assert [fault.pointer for fault in caught.value.faults] == ["/input/document"]


async def test_the_same_key_and_request_is_the_same_job(
    desk: Desk, services: Services, folder: Path
) -> None:
    first = desk.draft(DOCUMENT)
    kept = await desk.submitter.submit(first, await desk.upload(first, b"text"), "key")
    again = desk.draft(DOCUMENT)
    replayed = await desk.submitter.submit(again, await desk.upload(again, b"text"), "key")
    assert replayed.replayed
    assert replayed.view.job == kept.view.job
    assert files_in(folder) == [f"jobs/{kept.view.job.id}/in/0"]


@pytest.mark.parametrize("body", [{**ECHO, "priority": "low"}, {**ECHO, "input": {"payload": 2}}])
async def test_the_same_key_for_another_request(desk: Desk, body: dict[str, Any]) -> None:
    await desk.submit(ECHO, "key")
    with pytest.raises(Problem) as caught:
        await desk.submit(body, "key")
    assert caught.value.code == "idempotency_key_reused"


async def test_other_bytes_under_the_same_key(desk: Desk, services: Services, folder: Path) -> None:
    first = desk.draft(DOCUMENT)
    kept = await desk.submitter.submit(first, await desk.upload(first, b"text"), "key")
    other = desk.draft(DOCUMENT)
    with pytest.raises(Problem, match="idempotency_key_reused"):
        await desk.submitter.submit(other, await desk.upload(other, b"other"), "key")
    assert files_in(folder) == [f"jobs/{kept.view.job.id}/in/0"]


async def test_keys_are_the_tenants_own(desk: Desk) -> None:
    mine = await desk.submit(ECHO, "key")
    request = parse_submit({**ECHO, "priority": "low"}, metadata_limit=10)
    other = desk.drafter.draft(replace(ACME, tenant="other"), request)
    theirs = await desk.submitter.submit(other, {}, "key")
    assert not theirs.replayed
    assert theirs.view.job.id != mine.view.job.id


async def test_many_at_once_are_one_job(desk: Desk) -> None:
    results = await asyncio.gather(
        *(desk.submit(ECHO, "key") for _ in range(20)), return_exceptions=True
    )
    kept = [each for each in results if isinstance(each, Submitted)]
    refused = [each for each in results if isinstance(each, Problem)]
    assert len(kept) + len(refused) == 20
    assert {each.view.job.id for each in kept} == {kept[0].view.job.id}
    assert [each.replayed for each in kept].count(False) == 1
    assert {each.code for each in refused} <= {"request_in_progress"}


async def test_a_claim_of_a_crashed_request_is_finished_under_its_identifier(
    desk: Desk, store: Store, folder: Path
) -> None:
    first, second = desk.draft(DOCUMENT), desk.draft(DOCUMENT)
    await desk.claim(first, await desk.upload(first, b"text"), "key")
    await desk.services.artifacts.delete_prefix(f"jobs/{first.job_id}")
    await _make_claims_stale(store)
    submitted = await desk.submitter.submit(second, await desk.upload(second, b"text"), "key")
    job = submitted.view.job
    assert not submitted.replayed
    assert job.id == first.job_id
    assert job.files["file"].path == f"jobs/{job.id}/in/0"
    assert files_in(folder) == [f"jobs/{job.id}/in/0"]


async def test_a_job_whose_request_crashed_before_it_was_answered_is_found(
    desk: Desk, store: Store, folder: Path
) -> None:
    first, second = desk.draft(DOCUMENT), desk.draft(DOCUMENT)
    files = await desk.upload(first, b"text")
    await desk.claim(first, files, "key")
    kept = await desk.submitter.submit(first, files, None)
    await _make_claims_stale(store)
    for draft in (second, desk.draft(DOCUMENT)):
        found = await desk.submitter.submit(draft, await desk.upload(draft, b"text"), "key")
        assert found.replayed
        assert found.view.job == kept.view.job
    assert files_in(folder) == [f"jobs/{first.job_id}/in/0"]


async def test_a_claim_that_is_still_warm_is_waited_for(desk: Desk) -> None:
    await desk.claim(desk.draft(ECHO), {}, "key")
    with pytest.raises(Problem) as caught:
        await desk.submit(ECHO, "key")
    assert caught.value.code == "request_in_progress"
    assert caught.value.headers["Retry-After"] == "1"


async def _make_claims_stale(store: Store) -> None:
    async for entry in store.client.scan_iter("gw:*idem*"):
        assert await store.client.hset(entry, "at", 0) == 0


async def test_a_full_store_keeps_nothing_and_frees_the_key(
    desk: Desk, full_store: FullStore, folder: Path
) -> None:
    body = {**ECHO, "input": {"payload": "x" * 20_000}}
    async with full_store():
        for key in (None, "key"):
            with pytest.raises(StoreFull):
                await desk.submit(body, key)
    assert files_in(folder) == []
    assert not (await desk.submit(body, "key")).replayed


async def test_a_job_that_fails_half_way_frees_its_key(desk: Desk, folder: Path) -> None:
    body = {**ECHO, "input": {"payload": "x" * 20_000}}
    blocked = folder / "jobs"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(ArtifactError):
        await desk.submit(body, "key")
    blocked.unlink()
    assert not (await desk.submit(ECHO, "key")).replayed


async def test_a_store_that_is_gone_is_told_with_the_job_it_may_have_kept(
    services: Services, tmp_path: Path, partitions: int
) -> None:
    gone = connect(f"unix://{tmp_path}/none", max_connections=1, socket_timeout=0.2)
    jobs = JobStore(gone, partitions, services.clock, services.deliveries.retention)
    desk = desk_of(replace(services, jobs=jobs))
    draft = desk.draft(ECHO)
    with pytest.raises(Problem) as caught:
        await desk.submitter.submit(draft, {}, None)
    assert caught.value.code == "store_unavailable"
    assert caught.value.members == {"jobId": draft.job_id}
    assert "Retry-After" in caught.value.headers
