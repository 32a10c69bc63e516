"""The job document has every member, in order, whatever the job's state."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.clock import SECOND
from delivery.sealing import KeyRing
from gateway.documents import (
    document,
    estimated_completion,
    event_body,
    expand,
    retry_after,
    version,
)
from gateway.models import Callback, CallbackState, Job, StoredFile, View
from gateway.urls import Urls

RING = KeyRing({"one": b"k" * 32})
URLS = Urls("https://gateway.example")
JOB_ID = "job_00abcd000000000000000000"
START = 1_800_000_000 * SECOND
AT = "2027-01-15T08:00:00.000Z"

MEMBERS = [
    "jobId",
    "type",
    "status",
    "cancelRequested",
    "progress",
    "message",
    "priority",
    "attempt",
    "maxAttempts",
    "createdAt",
    "runAt",
    "nextRunAt",
    "startedAt",
    "updatedAt",
    "completedAt",
    "estimatedCompletion",
    "expiresAt",
    "results",
    "error",
    "errorCode",
    "metadata",
    "retryOf",
    "retriedAs",
    "callback",
    "statusUrl",
    "_links",
]

REPORT = StoredFile(
    path="jobs/x/out/report.pdf",
    name="report.pdf",
    size=9,
    sha256="ab" * 32,
    content_type="application/pdf",
)
CALLBACK = Callback(
    endpoint="ep_00abcd000000000000000000",
    url=RING.seal(b"https://receiver.example/hook?key=1", row=f"callback:{JOB_ID}"),
    url_hash="0" * 24,
    events=("job.completed",),
)
JOB = Job(
    id=JOB_ID,
    tenant="acme",
    type="document.analyze",
    status="pending",
    rev=3,
    created_at=START,
    updated_at=START,
)
DONE = replace(
    JOB,
    status="completed",
    progress=100,
    completed_at=START,
    expires_at=START + SECOND,
    artifacts={"report.pdf": REPORT},
    results={
        "pages": 2,
        "resultUrl": "artifact:report.pdf",
        "artifacts": [{"name": "report.pdf", "href": "artifact:report.pdf", "expiresAt": None}],
    },
)


def view(job: Job, callback: CallbackState | None = None, now: int = START) -> View:
    """Return `job` as read at `now`."""
    return View(job=job, callback=callback, now=now)


def rendered(job: Job, callback: CallbackState | None = None, **more: Any) -> dict[str, Any]:
    """Return the document of `job`."""
    return document(view(job, callback), urls=URLS, ring=RING, **more)


@pytest.mark.parametrize("job", [JOB, DONE, replace(JOB, callback=CALLBACK)])
def test_members_and_their_order(job: Job) -> None:
    assert list(rendered(job)) == MEMBERS


def test_values() -> None:
    job = replace(JOB, callback=CALLBACK, metadata={"order": 7}, run_at=START + 1_500)
    told = rendered(job, CallbackState(status="dead", attempts=10, last_status_code=500))
    assert told["jobId"] == JOB_ID
    assert told["status"] == "pending"
    assert told["createdAt"] == AT
    assert told["runAt"] == "2027-01-15T08:00:00.001Z"
    assert told["metadata"] == {"order": 7}
    assert told["results"] is None
    assert told["callback"] == {
        "url": "https://receiver.example/hook?***",
        "status": "dead",
        "attempts": 10,
        "lastStatusCode": 500,
        "nextAttemptAt": None,
    }
    assert told["statusUrl"] == f"https://gateway.example/v1/jobs/{JOB_ID}"
    assert told["_links"] == {
        "self": told["statusUrl"],
        "result": told["statusUrl"] + "/result",
        "cancel": told["statusUrl"] + "/cancel",
        "events": told["statusUrl"] + "/events",
        "websocket": f"wss://gateway.example/v1/jobs/{JOB_ID}",
        "deliveries": told["statusUrl"] + "/deliveries",
    }


def test_artifacts_get_their_addresses() -> None:
    results = rendered(DONE)["results"]
    href = f"https://gateway.example/v1/jobs/{JOB_ID}/artifacts/report.pdf"
    assert results["resultUrl"] == href
    assert results["artifacts"] == [
        {"name": "report.pdf", "href": href, "expiresAt": "2027-01-15T08:00:01.000Z"}
    ]


@pytest.mark.parametrize(
    "results",
    [
        {"href": "artifact:other.pdf"},
        {"href": "https://elsewhere.example/", "expiresAt": "never"},
        {"text": "artifact:report.pdf"},
        {"href": ["artifact:report.pdf"]},
        {"href": None, "expiresAt": 5},
        "artifact:report.pdf",
    ],
)
def test_what_is_no_artifact_stays(results: object) -> None:
    assert expand(results, DONE, urls=URLS) == results


def test_results_in_a_file_are_given_by_the_caller() -> None:
    job = replace(DONE, results=None, results_file=replace(REPORT, name="results.json"))
    told = rendered(job, file_results={"resultUrl": "artifact:report.pdf"})
    assert told["results"]["resultUrl"].startswith("https://gateway.example/")


def test_the_body_of_a_callback() -> None:
    body = event_body(
        replace(DONE, callback=CALLBACK),
        event="job.completed",
        urls=URLS,
        sequence=2,
        ticket="1.ff.mac",
        at=START,
    )
    assert b": " not in body
    told = json.loads(body)
    assert list(told) == ["type", "timestamp", "data"]
    assert told["type"] == "job.completed"
    assert told["timestamp"] == AT
    data = told["data"]
    expected = [name for name in MEMBERS if name not in {"callback", "estimatedCompletion"}]
    assert list(data) == [*expected, "sequence"]
    assert data["sequence"] == 2
    assert data["results"]["resultUrl"].endswith("/artifacts/report.pdf?ticket=1.ff.mac")
    assert data["results"]["artifacts"][0]["href"] == data["results"]["resultUrl"]


def test_a_callback_leaves_large_results_to_be_fetched() -> None:
    job = replace(DONE, results=None, results_file=REPORT)
    body = event_body(
        job, event="job.completed", urls=URLS, sequence=1, ticket="1.ff.mac", at=START
    )
    data = json.loads(body)["data"]
    assert data["results"] is None
    assert data["resultsOmitted"] is True
    assert data["resultUrl"] == URLS.result(JOB_ID, "1.ff.mac")


def test_a_body_is_utf8() -> None:
    body = event_body(
        replace(JOB, message="Grüße"), event="x", urls=URLS, sequence=1, ticket=None, at=START
    )
    assert "Grüße".encode() in body


def test_the_version_follows_the_callback_once_the_job_ended() -> None:
    failed = replace(JOB, status="failed", callback=CALLBACK)
    first = version(view(failed, CallbackState()))
    assert version(view(failed, CallbackState(attempts=1))) != first
    assert version(view(failed, CallbackState(status="delivered"))) != first
    assert version(view(replace(failed, rev=4), CallbackState())) != first
    assert version(view(JOB, CallbackState(attempts=1))) == version(view(JOB))


RUNNING = replace(JOB, status="processing", started_at=START)


@pytest.mark.parametrize(
    ("job", "passed", "expected"),
    [
        (replace(RUNNING, progress=25), 10, 40),
        (replace(RUNNING, progress=100), 10, 10),
        (replace(RUNNING, progress=50), 0, 0),
        (RUNNING, 10, None),
        (replace(RUNNING, status="pending", progress=50), 10, None),
        (DONE, 10, None),
    ],
)
def test_estimates_come_from_progress(job: Job, passed: int, expected: int | None) -> None:
    found = estimated_completion(view(job, now=START + passed * SECOND))
    assert found == (None if expected is None else START + expected * SECOND)


@pytest.mark.parametrize(
    ("job", "low", "high"),
    [
        (JOB, 1, 1),
        (RUNNING, 1, 1),
        (replace(RUNNING, progress=50, started_at=START - 10 * SECOND), 8, 12),
        (replace(RUNNING, progress=1, started_at=START - 10 * SECOND), 30, 30),
        (replace(JOB, run_at=START + 20 * SECOND), 16, 24),
        (replace(JOB, run_at=START - 20 * SECOND), 1, 1),
        (replace(JOB, next_run_at=START + 5 * SECOND, run_at=START), 4, 6),
    ],
)
def test_when_to_poll_again(job: Job, low: int, high: int) -> None:
    assert retry_after(view(job), 0.0) == low
    assert retry_after(view(job), 0.999) == high


@given(
    st.integers(0, 100), st.integers(0, 10**12), st.floats(0, 1, exclude_max=True), st.booleans()
)
def test_polls_are_1_to_30_seconds_apart(
    progress: int, passed: int, rand: float, running: bool
) -> None:
    job = replace(RUNNING if running else JOB, progress=progress, run_at=START + 10**9)
    assert 1 <= retry_after(view(job, now=START + passed), rand) <= 30
