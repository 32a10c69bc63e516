"""What the addresses of a job answer as it goes on, ends and expires."""

from __future__ import annotations

import json

import httpx
import pytest

from config.clock import SECOND
from config.ids import new_id
from gateway.services import Services
from gateway.work import End
from tests.gateway.conftest import PUBLIC_URL, Gateway
from tests.gateway.jobs import assert_problem, finish, save, submit


async def test_status_of_a_pending_job(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    answer = await client.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["vary"] == "Authorization, Prefer, Origin"
    assert answer.json()["status"] == "pending"


async def test_a_version_that_is_known_is_not_sent_again(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(client)
    url = f"/v1/jobs/{job_id}"
    etag = (await client.get(url)).headers["etag"]
    assert etag.startswith('W/"')
    for value in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        answer = await client.get(url, headers={"If-None-Match": value})
        assert answer.status_code == 304
        assert answer.content == b""
        assert answer.headers["etag"] == etag
    await services.work.claim(job_id, "claim", lease=30 * SECOND)
    answer = await client.get(url, headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer.json()["status"] == "processing"


async def test_a_completed_job_leads_to_its_result(
    gateway: Gateway, client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(client)
    await finish(services, job_id, results={"payload": 1})
    answer = await client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": "*"})
    assert answer.status_code == 303
    assert answer.json()["results"] == {"payload": 1}
    location = answer.headers["location"]
    assert location.startswith(f"{PUBLIC_URL}/v1/jobs/{job_id}/result?ticket=")
    for name in ("etag", "retry-after", "ratelimit"):
        assert name not in answer.headers
    async with gateway.anyone() as anyone:
        followed = await anyone.get(location)
        assert followed.status_code == 200
        assert followed.json() == answer.json()
        ticket = location.partition("?ticket=")[2]
        by_ticket = await anyone.get(f"/v1/jobs/{job_id}?ticket={ticket}")
        assert by_ticket.headers["location"] == location


@pytest.mark.parametrize(
    ("asked", "query", "status"),
    [
        ("inline", "", 200),
        ("inline", "?onComplete=redirect", 303),
        ("redirect", "", 303),
        ("redirect", "?onComplete=inline", 200),
    ],
)
async def test_where_the_result_is_read(
    client: httpx.AsyncClient, services: Services, asked: str, query: str, status: int
) -> None:
    job_id = await submit(client, onComplete=asked)
    await finish(services, job_id, results={"payload": 1})
    answer = await client.get(f"/v1/jobs/{job_id}{query}")
    assert answer.status_code == status
    assert answer.json()["results"] == {"payload": 1}


async def test_a_query_that_cannot_be_used(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    assert_problem(await client.get(f"/v1/jobs/{job_id}?onComplete=push"), "invalid_parameter")


async def test_a_failed_job_tells_why(client: httpx.AsyncClient, services: Services) -> None:
    job_id = await submit(client)
    await finish(services, job_id, "failed", error="It broke.", error_code="handler_error")
    answer = await client.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200
    assert "retry-after" not in answer.headers
    job = answer.json()
    assert (job["status"], job["error"], job["errorCode"]) == (
        "failed",
        "It broke.",
        "handler_error",
    )


@pytest.mark.parametrize("job_id", ["x", "job_", "job_99" + "0" * 22, "ep_00" + "0" * 22, "%00"])
async def test_unknown_jobs(client: httpx.AsyncClient, job_id: str) -> None:
    assert_problem(await client.get(f"/v1/jobs/{job_id}"), "not_found")


async def test_a_well_formed_identifier_of_no_job(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id = new_id("job", 0, services.clock.now())
    assert_problem(await client.get(f"/v1/jobs/{job_id}"), "not_found")


async def test_an_expired_job_is_gone(client: httpx.AsyncClient, services: Services) -> None:
    job_id = await submit(client)
    view = await services.work.claim(job_id, "claim", lease=30 * SECOND)
    assert view is not None
    end = End(
        claim="claim",
        by="test",
        rev=view.job.rev,
        status="completed",
        completed_at=view.now,
        expires_at=view.now - 1,
        message=None,
        attempt_record="{}",
    )
    await services.work.finish(job_id, end)
    await services.outbox.expire(tombstone_life=60 * SECOND, after_callback=0, at_most=10)
    for path in ("", "/result", "/artifacts/x"):
        body = assert_problem(await client.get(f"/v1/jobs/{job_id}{path}"), "job_expired")
        assert body["jobId"] == job_id
        assert body["jobStatus"] == "completed"
        assert body["expiredAt"].endswith("Z")


async def test_results_that_are_not_there(client: httpx.AsyncClient, services: Services) -> None:
    pending, failed, cancelled = [await submit(client) for _ in range(3)]
    answer = await client.get(f"/v1/jobs/{pending}/result")
    assert_problem(answer, "result_not_ready")
    assert answer.headers["retry-after"] == "1"
    await finish(services, failed, "failed", error="It broke.")
    body = assert_problem(await client.get(f"/v1/jobs/{failed}/result"), "job_failed")
    assert body["detail"] == "It broke."
    await finish(services, cancelled, "cancelled")
    assert_problem(await client.get(f"/v1/jobs/{cancelled}/result"), "job_cancelled")


async def test_large_results_are_read_back(client: httpx.AsyncClient, services: Services) -> None:
    job_id = await submit(client)
    results = {"text": "ü" * 20_000}
    file = await save(services, job_id, "results.json", json.dumps(results).encode())
    await finish(services, job_id, results_file=file)
    answer = await client.get(f"/v1/jobs/{job_id}/result")
    assert answer.json()["results"] == results
    assert answer.headers["cache-control"] == "private, no-cache"
