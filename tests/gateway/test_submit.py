"""Accepting a job without HTTP, on a real store that is full, gone, or asked twice at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.clock import SECOND
from config.ids import partition_of
from config.store import Store, StoreFull, connect
from delivery.store import DeliveryStore
from gateway.auth import SCOPES, Principal
from gateway.models import StoredFile, View
from gateway.problems import Problem
from gateway.schemas import parse_submit
from gateway.services import Services
from gateway.store import JobStore
from gateway.submit import Draft, Submitted, Submitter
from tests.gateway.conftest import FullStore

ACME = Principal(tenant="acme", scopes=SCOPES, key_id="key_1")
ECHO = {"type": "demo.echo", "input": {"payload": {"hello": "world"}}}
DOCUMENT = {"type": "document.analyze", "input": {"document": {"part": "file"}}}
HOOK = {"callbackUrl": "http://127.0.0.1:9000/hook?token=t"}


def submitter_of(services: Services, jobs: JobStore | None = None) -> Submitter:
    """Return a submitter on `services`."""
    return Submitter(
        services.settings,
        jobs=jobs or services.jobs,
        artifacts=services.artifacts,
        registry=services.registry,
        ring=services.ring,
        clock=services.clock,
    )


@pytest.fixture
def submitter(services: Services) -> Submitter:
    """Return a submitter on the real store."""
    return submitter_of(services)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where the artifacts are."""
    return tmp_path / "artifacts"


def files_in(folder: Path) -> list[str]:
    """Return every file below `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def draft(submitter: Submitter, body: dict[str, Any], **more: object) -> Draft:
    """Return what `prepare` makes of a body."""
    request = parse_submit({**body, **more}, metadata_limit=4096)
    return submitter.prepare(ACME, request)


async def submit(
    submitter: Submitter, body: dict[str, Any], key: str | None = None, **more: object
) -> Submitted:
    """Submit a body without files."""
    return await submitter.submit(draft(submitter, body, **more), {}, key)


async def upload(services: Services, drafted: Draft, content: bytes) -> dict[str, StoredFile]:
    """Store `content` as the part `file` of a draft's job."""

    async def stream() -> AsyncIterator[bytes]:
        yield content

    path = f"jobs/{drafted.job_id}/in/0"
    stored = await services.artifacts.put(path, stream(), limit=1000)
    return {
        "file": StoredFile(
            path=path,
            name="a.txt",
            size=stored.size,
            sha256=stored.sha256,
            content_type="text/plain",
        )
    }


async def test_a_job_as_it_is_kept(submitter: Submitter, services: Services) -> None:
    submitted = await submit(
        submitter,
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


async def test_what_the_type_and_the_settings_say_unless_asked(submitter: Submitter) -> None:
    job = (await submit(submitter, ECHO)).view.job
    assert (job.timeout, job.max_attempts, job.result_ttl) == (7200, 3, 86_400 * SECOND)
    assert job.callback is None


@pytest.mark.parametrize(
    ("body", "code", "where"),
    [
        ({**ECHO, "type": "demo.nothing"}, "unknown_job_type", "/type"),
        ({**ECHO, "input": {}}, "invalid_input", "/input/payload"),
        ({**ECHO, "input": {"payload": 1, "x": 2}}, "invalid_input", "/input/x"),
        ({**ECHO, "callbackUrl": "ftp://h.example/"}, "invalid_callback_url", "/callbackUrl"),
        ({**ECHO, "callbackUrl": "http://10.0.0.1/"}, "invalid_callback_url", "/callbackUrl"),
        (
            {**ECHO, **HOOK, "callback": {"headers": {"Host": "h"}}},
            "invalid_request",
            "/callback/headers/Host",
        ),
        (
            {**ECHO, **HOOK, "callback": {"headers": {"X-A": "a\r\nb"}}},
            "invalid_request",
            "/callback/headers/X-A",
        ),
    ],
)
def test_refused_before_anything_is_touched(
    submitter: Submitter, body: dict[str, Any], code: str, where: str
) -> None:
    with pytest.raises(Problem) as caught:
        draft(submitter, body)
    assert caught.value.code == code
    assert [fault.pointer for fault in caught.value.faults] == [where]


def test_a_key_that_may_not_submit(submitter: Submitter) -> None:
    reader = replace(ACME, scopes=frozenset({"read"}))
    with pytest.raises(Problem, match="insufficient_scope"):
        submitter.prepare(reader, parse_submit(ECHO, metadata_limit=10))


async def test_a_large_input_is_kept_as_a_file(
    submitter: Submitter, services: Services, folder: Path
) -> None:
    payload = {"text": "ü" * 10_000}
    job = (await submit(submitter, ECHO, input={"payload": payload})).view.job
    assert job.input is None
    assert job.input_file is not None
    assert files_in(folder) == [f"jobs/{job.id}/in/input.json"]
    data = await services.artifacts.read(job.input_file.path, job.input_file.size)
    assert json.loads(data) == {"payload": payload}


async def test_a_file_that_was_not_uploaded(submitter: Submitter) -> None:
    with pytest.raises(Problem) as caught:
        await submit(submitter, DOCUMENT, "key")
    assert caught.value.code == "invalid_input"
    assert caught.value.faults[0].pointer == "/input/document/part" or (
        caught.value.faults[0].pointer == "/input/document"
    )


async def test_the_same_key_and_request_is_the_same_job(
    submitter: Submitter, services: Services, folder: Path
) -> None:
    first = draft(submitter, DOCUMENT)
    kept = await submitter.submit(first, await upload(services, first, b"text"), "key")
    again = draft(submitter, DOCUMENT)
    replayed = await submitter.submit(again, await upload(services, again, b"text"), "key")
    assert replayed.replayed
    assert replayed.view.job == kept.view.job
    assert files_in(folder) == [f"jobs/{kept.view.job.id}/in/0"]


@pytest.mark.parametrize("body", [{**ECHO, "priority": "low"}, {**ECHO, "input": {"payload": 2}}])
async def test_the_same_key_for_another_request(submitter: Submitter, body: dict[str, Any]) -> None:
    await submit(submitter, ECHO, "key")
    with pytest.raises(Problem) as caught:
        await submit(submitter, body, "key")
    assert caught.value.code == "idempotency_key_reused"


async def test_other_bytes_under_the_same_key(
    submitter: Submitter, services: Services, folder: Path
) -> None:
    first = draft(submitter, DOCUMENT)
    kept = await submitter.submit(first, await upload(services, first, b"text"), "key")
    other = draft(submitter, DOCUMENT)
    with pytest.raises(Problem, match="idempotency_key_reused"):
        await submitter.submit(other, await upload(services, other, b"other"), "key")
    assert files_in(folder) == [f"jobs/{kept.view.job.id}/in/0"]


async def test_keys_are_the_tenants_own(submitter: Submitter) -> None:
    mine = await submit(submitter, ECHO, "key")
    request = parse_submit({**ECHO, "priority": "low"}, metadata_limit=10)
    other = submitter.prepare(replace(ACME, tenant="other"), request)
    theirs = await submitter.submit(other, {}, "key")
    assert not theirs.replayed
    assert theirs.view.job.id != mine.view.job.id


async def test_many_at_once_are_one_job(submitter: Submitter) -> None:
    results = await asyncio.gather(
        *(submit(submitter, ECHO, "key") for _ in range(20)), return_exceptions=True
    )
    kept = [each for each in results if isinstance(each, Submitted)]
    refused = [each for each in results if isinstance(each, Problem)]
    assert len(kept) + len(refused) == 20
    assert {each.view.job.id for each in kept} == {kept[0].view.job.id}
    assert [each.replayed for each in kept].count(False) == 1
    assert {each.code for each in refused} <= {"request_in_progress"}


async def test_a_claim_of_a_crashed_request_is_finished_under_its_identifier(
    submitter: Submitter, services: Services, store: Store, folder: Path
) -> None:
    first, second = draft(submitter, DOCUMENT), draft(submitter, DOCUMENT)
    claimed = await submitter._claim(first, await upload(services, first, b"text"), "key")  # noqa: SLF001
    await services.artifacts.delete_prefix(f"jobs/{first.job_id}")
    await _make_claims_stale(store)
    files = await upload(services, second, b"text")
    submitted = await submitter.submit(second, files, "key")
    job = submitted.view.job
    assert job.id == claimed.job_id == first.job_id
    assert files_in(folder) == [f"jobs/{job.id}/in/0"]
    assert job.files["file"].path == f"jobs/{job.id}/in/0"


async def test_a_claim_that_is_still_warm_is_waited_for(submitter: Submitter) -> None:
    await submitter._claim(draft(submitter, ECHO), {}, "key")  # noqa: SLF001
    with pytest.raises(Problem) as caught:
        await submit(submitter, ECHO, "key")
    assert caught.value.code == "request_in_progress"
    assert caught.value.headers["Retry-After"] == "1"


async def _make_claims_stale(store: Store) -> None:
    async for entry in store.client.scan_iter("gw:*idem*"):
        assert await store.client.hset(entry, "at", 0) == 0


async def test_a_full_store_keeps_nothing_and_frees_the_key(
    submitter: Submitter, full_store: FullStore, folder: Path
) -> None:
    body = {**ECHO, "input": {"payload": "x" * 20_000}}
    async with full_store():
        for key in (None, "key"):
            with pytest.raises(StoreFull):
                await submit(submitter, body, key)
    assert files_in(folder) == []
    assert not (await submit(submitter, body, "key")).replayed


async def test_a_refused_job_frees_the_key_it_had_claimed(
    submitter: Submitter, full_store: FullStore
) -> None:
    drafted = draft(submitter, ECHO)
    await submitter._claim(drafted, {}, "key")  # noqa: SLF001
    async with full_store():
        with pytest.raises(StoreFull):
            await submitter._keep(drafted, {}, "key")  # noqa: SLF001
    other = await submit(submitter, {**ECHO, "priority": "low"}, "key")
    assert not other.replayed


async def test_a_store_that_is_gone_is_told_with_the_job_it_may_have_kept(
    services: Services, tmp_path: Path, partitions: int
) -> None:
    gone = connect(f"unix://{tmp_path}/none", max_connections=1, socket_timeout=0.2)
    jobs = JobStore(gone, DeliveryStore(gone, partitions), partitions, services.clock)
    submitter = submitter_of(services, jobs)
    drafted = draft(submitter, ECHO)
    with pytest.raises(Problem) as caught:
        await submitter.submit(drafted, {}, None)
    assert caught.value.code == "store_unavailable"
    assert caught.value.members == {"jobId": drafted.job_id}
    assert "Retry-After" in caught.value.headers
