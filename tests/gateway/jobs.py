"""What tests of the API do to jobs again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx

from config.clock import SECOND
from gateway.models import Status, StoredFile, View
from gateway.problems import PROBLEMS
from gateway.services import Services
from gateway.work import End, Ended
from tests.gateway.conftest import PUBLIC_URL

ECHO: dict[str, Any] = {"type": "demo.echo", "input": {"payload": 1}}
REPORT = b"%PDF-1.7 " + bytes(range(256))


async def submit(client: httpx.AsyncClient, **more: object) -> str:
    """Submit a job and return its identifier."""
    answer = await client.post("/v1/jobs", json={**ECHO, **more})
    assert answer.status_code == 202
    job_id: str = answer.json()["jobId"]
    return job_id


async def finish(
    services: Services, job_id: str, status: Status = "completed", **more: Any
) -> View:
    """Claim the job and end it, as a worker does."""
    view = await services.work.claim(job_id, "claim", lease=30 * SECOND)
    assert view is not None
    end = End(
        claim="claim",
        by="test",
        rev=view.job.rev,
        status=status,
        completed_at=view.now,
        expires_at=view.now + 3600 * SECOND,
        message=None,
        attempt_record="{}",
        **more,
    )
    ended = await services.work.finish(job_id, end)
    assert isinstance(ended, Ended)
    return ended.view


async def save(services: Services, job_id: str, name: str, data: bytes) -> StoredFile:
    """Keep `data` as an artifact of the job."""

    async def stream() -> AsyncIterator[bytes]:
        yield data

    path = f"jobs/{job_id}/out/{name}"
    stored = await services.artifacts.put(path, stream(), limit=1 << 20)
    return StoredFile(
        path=path,
        name=name,
        size=stored.size,
        sha256=stored.sha256,
        content_type="application/pdf",
    )


def assert_problem(answer: httpx.Response, code: str) -> dict[str, Any]:
    """Check that `answer` is the problem `code` in every respect, and return its members."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code
    assert answer.status_code == body["status"] == PROBLEMS[code].status
    assert body["type"] == f"{PUBLIC_URL}/problems/{code}"
    assert body["title"] == PROBLEMS[code].title
    assert body["detail"]
    assert body["instance"].startswith(PUBLIC_URL)
    assert "ticket=" not in body["instance"]
    return body


async def finish_report(client: httpx.AsyncClient, services: Services) -> str:
    """Finish a job whose result is `REPORT`; return the URL of that."""
    job_id = await submit(client)
    file = await save(services, job_id, "report.pdf", REPORT)
    results = {"resultUrl": "artifact:report.pdf"}
    await finish(services, job_id, results=results, artifacts={"report.pdf": file})
    answer = await client.get(f"/v1/jobs/{job_id}/result")
    url: str = answer.json()["results"]["resultUrl"]
    return url
