"""The end of a job rendered with its callback: both say the same, and only what was asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from config.clock import SECOND, rfc3339
from config.ids import derived_id, new_id, partition_of
from delivery.sealing import KeyRing
from gateway.callbacks import EXPIRING, NOTICE, Renderer
from gateway.documents import document
from gateway.models import Callback, CallbackState, Job, StoredFile, View, compact
from gateway.outcomes import Finish
from gateway.urls import Urls

RING = KeyRing({"k1": bytes(32)})
URLS = Urls("https://gateway.example")
RENDERER = Renderer(urls=URLS, ring=RING)
NOW = 1_795_000_000 * SECOND
JOB_ID = new_id("job", 3, NOW)
URL = "https://receiver.example/hook?token=secret"
FILE = StoredFile(path="jobs/x/out/a", name="a.txt", size=1, sha256="00", content_type="text/plain")

COMPLETED = Finish(status="completed", results={"total": 1})
FAILED = Finish(status="failed", error="It failed.", error_code="broken")
CANCELLED = Finish(status="cancelled")


def callback(*events: str, headers: bytes = b"") -> Callback:
    row = f"callback:{JOB_ID}"
    return Callback(
        endpoint="ep_03x",
        url=RING.seal(URL.encode(), row=row),
        url_hash="h",
        events=events,
        headers=RING.seal(headers, row=row) if headers else b"",
    )


def a_job(wanted: Callback | None, **members: Any) -> Job:
    given: dict[str, Any] = {
        "id": JOB_ID,
        "tenant": "t1",
        "type": "demo.echo",
        "status": "processing",
        "rev": 7,
        "callback": wanted,
        "attempt": 1,
        "max_attempts": 3,
        "result_ttl": 8 * 3600 * SECOND,
        "created_at": NOW - 60 * SECOND,
        "updated_at": NOW - 30 * SECOND,
        "progress": 40,
        "message": "Step 2",
    }
    return Job(**(given | members))


def rendered(job: Job, finish: Finish, **members: Any) -> Any:
    return RENDERER.end(job, finish, claim="wp-1:a", by="wp-1:a", at=NOW, **members)


@pytest.mark.parametrize(
    ("events", "finish", "is_owed"),
    [
        (("job.completed",), COMPLETED, True),
        (("job.completed",), FAILED, False),
        (("job.completed", "job.failed"), CANCELLED, False),
        (("job.failed",), FAILED, True),
        (("job.cancelled",), CANCELLED, True),
        ((EXPIRING,), COMPLETED, False),
    ],
)
def test_an_end_owes_what_was_asked_for(
    events: tuple[str, ...], finish: Finish, is_owed: bool
) -> None:
    assert (rendered(a_job(callback(*events)), finish).message is not None) == is_owed


def test_without_a_callback_nothing_is_owed() -> None:
    end = rendered(a_job(None), COMPLETED)
    assert end.message is None
    assert end.notice_at is None


@pytest.mark.parametrize("finish", [COMPLETED, FAILED, CANCELLED])
@pytest.mark.parametrize("members", [{}, {"next_run_at": NOW + SECOND, "status": "pending"}])
def test_the_callback_says_what_the_document_will_say(
    finish: Finish, members: dict[str, Any]
) -> None:
    job = a_job(callback("job.completed", "job.failed", "job.cancelled"), **members)
    end = rendered(job, finish)
    # As the scripts leave it: no attempt is to come, and the revision rose by one.
    kept = replace(
        job,
        status=end.status,
        rev=end.rev + 1,
        results=end.results,
        error=end.error,
        error_code=end.error_code,
        progress=end.progress,
        message=end.progress_message,
        next_run_at=None,
        updated_at=end.completed_at,
        completed_at=end.completed_at,
        expires_at=end.expires_at,
    )
    view = View(job=kept, callback=CallbackState(), now=NOW)
    said = json.loads(end.message.body)
    seen = document(view, urls=URLS, ring=RING)
    for unsaid in ("callback", "estimatedCompletion"):
        del seen[unsaid]
    assert said["type"] == f"job.{finish.status}"
    assert said["data"] == {**seen, "sequence": kept.rev}


def test_flat_members_stand_beside_the_event() -> None:
    standard = a_job(callback("job.completed"))
    flat = a_job(replace(callback("job.completed"), payload="flat", signature="x-signature"))
    said, laid = (rendered(job, COMPLETED).message for job in (standard, flat))
    assert (said.scheme, laid.scheme) == ("v1", "x-signature")
    assert said.id == laid.id
    body = json.loads(said.body)
    data = body.pop("data")
    job_type = data.pop("type")
    assert json.loads(laid.body) == {**body, **data, "jobType": job_type}
    assert (body["type"], job_type) == ("job.completed", "demo.echo")


def test_one_end_is_one_message_however_often_it_is_rendered() -> None:
    job = a_job(callback("job.completed"))
    first, again = rendered(job, COMPLETED), rendered(replace(job, rev=9), COMPLETED)
    expected = derived_id("msg", partition_of(JOB_ID), JOB_ID, "job.completed")
    assert first.message.id == again.message.id == expected
    assert (first.rev, again.rev) == (7, 9)


def test_what_was_sealed_for_the_job_is_sealed_for_the_message() -> None:
    job = a_job(callback("job.completed", headers=b'{"x-key":"secret"}'))
    message = rendered(job, COMPLETED).message
    assert RING.open(message.url, row=message.id).decode() == URL
    assert RING.open(message.headers, row=message.id) == b'{"x-key":"secret"}'
    assert b"token=secret" not in message.body


def test_results_in_a_file_are_named_and_not_carried() -> None:
    job = a_job(callback("job.completed"))
    end = rendered(job, COMPLETED, results_file=FILE)
    data = json.loads(end.message.body)["data"]
    assert (data["results"], data["resultsOmitted"]) == (None, True)
    assert data["resultUrl"].startswith(f"https://gateway.example/v1/jobs/{JOB_ID}/result?ticket=")
    assert end.results is None
    assert end.results_file == FILE


@pytest.mark.parametrize(
    ("finish", "ttl", "before"),
    [
        (COMPLETED, 8 * 3600 * SECOND, NOTICE),
        (COMPLETED, 3600 * SECOND, 900 * SECOND),
        (FAILED, 8 * 3600 * SECOND, None),
        (CANCELLED, 8 * 3600 * SECOND, None),
    ],
)
def test_only_results_are_announced_to_go(finish: Finish, ttl: int, before: int | None) -> None:
    end = rendered(a_job(callback(EXPIRING), result_ttl=ttl), finish)
    assert end.notice_at == (None if before is None else NOW + ttl - before)


def test_a_beginning_is_told_once_and_of_a_job_at_work() -> None:
    begun = a_job(callback("job.started"), rev=3, attempt_at=NOW - SECOND)
    message = RENDERER.beginning(begun)
    assert message is not None
    said = json.loads(message.body)
    assert (said["type"], said["timestamp"]) == ("job.started", rfc3339(NOW - SECOND))
    assert (said["data"]["status"], said["data"]["sequence"]) == ("processing", 3)
    assert message.tags == compact(
        {"jobId": JOB_ID, "event": "job.started", "jobType": "demo.echo"}
    )
    for other in (
        replace(begun, beginning=message.id),
        replace(begun, status="pending"),
        replace(begun, callback=callback("job.completed")),
        replace(begun, callback=None),
    ):
        assert RENDERER.beginning(other) is None


def test_the_sequence_rises_from_event_to_event() -> None:
    wanted = callback("job.started", "job.completed", EXPIRING)
    job = a_job(wanted, rev=3)
    end = rendered(replace(job, rev=4), COMPLETED)
    ended = replace(job, status="completed", rev=5, expires_at=NOW)
    messages = [RENDERER.beginning(job), end.message, RENDERER.notice(ended, at=NOW)]
    numbers = [json.loads(each.body)["data"]["sequence"] for each in messages if each]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 3


def test_a_message_belongs_to_the_trace_of_the_submission() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    wanted = callback("job.completed")
    assert rendered(a_job(wanted, trace=trace), COMPLETED).message.trace == trace
    assert rendered(a_job(wanted), COMPLETED).message.trace == ""


def test_a_notice_is_a_message_of_its_own() -> None:
    job = a_job(callback("job.completed", EXPIRING), status="completed", expires_at=NOW + SECOND)
    notice = RENDERER.notice(job, at=NOW)
    assert notice is not None
    assert notice.id != rendered(job, COMPLETED).message.id
    said = json.loads(notice.body)
    assert (said["type"], said["data"]["sequence"]) == (EXPIRING, job.rev + 1)
    assert RENDERER.notice(a_job(callback("job.completed")), at=NOW) is None
