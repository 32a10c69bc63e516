"""The client, blocking and awaited, against a whole gateway."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from gateway.client import (
    Job,
    JobCancelled,
    JobExpired,
    JobFailed,
    ProblemError,
    Upload,
    WaitTimeout,
)
from tests.gateway.client.conftest import SAMPLE, Both, client_of, files_in
from tests.running import Gateway


async def test_a_job_from_submission_to_its_results(client: Both) -> None:
    job: Job = await client.call(
        "submit", "demo.echo", {"payload": {"é": [1, None]}}, priority="high", metadata={"n": 1}
    )
    assert (job.type, job.priority, job.metadata) == ("demo.echo", "high", {"n": 1})
    ended: Job = await client.call("wait", job, timeout=20)
    assert (ended.id, ended.status, ended.is_ended) == (job.id, "completed", True)
    assert ended.results == {"payload": {"é": [1, None]}}
    assert ended.completed_at is not None
    assert ended.completed_at >= job.created_at
    assert ended.raw["statusUrl"].endswith(job.id)
    assert (await client.call("get", job.id)).results == ended.results
    assert (await client.call("result", job)).results == ended.results


@pytest.mark.parametrize("form", ["path", "bytes", "open file"])
async def test_a_document_goes_in_and_its_report_comes_out(
    client: Both, tmp_path: Path, form: str
) -> None:
    with SAMPLE.open("rb") as opened:
        sources = {"path": SAMPLE, "bytes": Upload(source=SAMPLE.read_bytes(), name="a.pdf")}
        job = await client.call(
            "submit",
            "document.analyze",
            {"document": {"part": "file"}},
            files={"file": sources.get(form, opened)},
        )
    ended = await client.call("wait", job, timeout=60)
    assert ended.results["pages"] == 3
    artifact = ended.results["artifacts"][0]
    place = tmp_path / "report"
    await client.call("download", artifact, place)
    assert hashlib.sha256(place.read_bytes()).hexdigest() == artifact["sha256"]
    kept = io.BytesIO()
    await client.call("download", artifact["href"], kept)
    assert kept.getvalue() == place.read_bytes()
    assert files_in(tmp_path) == {"report": place.read_bytes()}


async def test_an_uploaded_file_is_an_input(client: Both) -> None:
    file = await client.call("upload", SAMPLE)
    assert file.size == SAMPLE.stat().st_size
    assert file.sha256 == hashlib.sha256(SAMPLE.read_bytes()).hexdigest()
    job = await client.call("submit", "document.analyze", {"document": {"fileId": file.id}})
    assert (await client.call("wait", job, timeout=60)).results["pages"] == 3


async def test_a_job_that_fails_says_why(client: Both) -> None:
    job = await client.call("submit", "demo.echo", {"payload": 1, "fail": "No more paper."})
    with pytest.raises(JobFailed, match=r"No more paper\.") as caught:
        await client.call("wait", job, timeout=20)
    assert caught.value.job.error == "No more paper."
    assert caught.value.job.results is None
    again = await client.call("retry", job)
    assert again.retry_of == job.id
    assert (await client.call("retry", job)).id == again.id


async def test_a_job_is_cancelled_and_erased(client: Both) -> None:
    job = await client.call("submit", "demo.echo", {"payload": 1, "seconds": 30})
    await client.call("cancel", job)
    with pytest.raises(JobCancelled):
        await client.call("wait", job, timeout=20)
    await client.call("delete", job)
    await client.call("delete", job)
    with pytest.raises(JobExpired) as caught:
        await client.call("wait", job, timeout=20)
    assert caught.value.members["jobId"] == job.id


async def test_waiting_ends_in_time_and_the_job_goes_on(client: Both) -> None:
    job = await client.call("submit", "demo.echo", {"payload": 1, "seconds": 30})
    with pytest.raises(WaitTimeout) as caught:
        await client.call("wait", job, timeout=0.2)
    assert caught.value.job is not None
    assert not caught.value.job.is_ended
    await client.call("cancel", job)


async def test_events_end_with_the_job(client: Both) -> None:
    job = await client.call("submit", "demo.echo", {"payload": 1, "seconds": 1.2, "steps": 4})
    events = await client.events(job, timeout=20)
    assert events[0].name == "snapshot"
    assert events[-1].name == "completed"
    assert events[-1].job.results == {"payload": 1}
    progress = [event.job.progress for event in events]
    assert progress == sorted(progress)


async def test_a_key_given_twice_is_one_job(client: Both, kind: str) -> None:
    key = f"order-{kind}"
    jobs = [
        await client.call("submit", "demo.echo", {"payload": 1}, idempotency_key=key)
        for _ in range(2)
    ]
    assert jobs[0].id == jobs[1].id
    with pytest.raises(ProblemError) as caught:
        await client.call("submit", "demo.echo", {"payload": 2}, idempotency_key=key)
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")


async def test_a_refusal_names_the_members_at_fault(client: Both) -> None:
    with pytest.raises(ProblemError, match="/input/payload") as caught:
        await client.call("submit", "demo.echo", {})
    assert (caught.value.status, caught.value.code) == (422, "invalid_input")
    assert [each["pointer"] for each in caught.value.errors] == ["/input/payload"]


async def test_a_wrong_key_and_an_unknown_job_are_refused(kind: str, whole: Gateway) -> None:
    url = str(whole.client.base_url)
    async with client_of(kind, url, "gwk_wrong-key") as client:
        with pytest.raises(ProblemError) as caught:
            await client.call("get", "job_unknown")
        assert caught.value.code == "unauthorized"
    async with client_of(kind, url) as client:
        with pytest.raises(ProblemError) as caught:
            await client.call("get", "job_unknown")
        assert caught.value.code == "not_found"
