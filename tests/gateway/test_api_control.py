"""Cancelling, erasing and running again over HTTP: every status, every answer, on a real store."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from config.clock import SECOND
from config.ids import new_id, partition_of
from config.store import Store, connect
from delivery.store import DeliveryStore
from gateway.app import create_app
from gateway.callbacks import Renderer
from gateway.models import View
from gateway.outcomes import Finish
from gateway.services import Services
from gateway.store import JobStore
from gateway.urls import Urls
from gateway.work import Ended
from tests.gateway.conftest import PUBLIC_URL, FullStore, Gateway, MakeServices
from tests.gateway.jobs import assert_problem, finish, save, submit

CALLBACK = "http://127.0.0.1:9/hook"
Bring = Callable[[Services, str], Awaitable[object]]


async def read(services: Services, job_id: str) -> View:
    """Return the job as the store has it."""
    view = await services.jobs.read(job_id)
    assert isinstance(view, View)
    return view


async def leave(services: Services, job_id: str) -> None:
    """Leave the job pending."""


async def claim(services: Services, job_id: str) -> None:
    """Have the job worked on."""
    assert await services.work.claim(job_id, "claim", lease=30 * SECOND) is not None


async def complete(services: Services, job_id: str) -> None:
    """Have the job completed."""
    await finish(services, job_id, results={"payload": 1})


async def fail(services: Services, job_id: str) -> None:
    """Have the job failed."""
    await finish(services, job_id, "failed", error="It broke.", error_code="handler_error")


async def call_off(services: Services, job_id: str) -> None:
    """Have the job cancelled by its worker."""
    await finish(services, job_id, "cancelled")


async def expire(services: Services, job_id: str) -> None:
    """Make the job its tombstone."""
    await complete(services, job_id)
    await services.jobs.erase(job_id, tombstone_life=60 * SECOND)


@pytest.mark.parametrize(
    ("bring", "cancel", "erase", "retry"),
    [
        (leave, 200, "job_not_ended", "job_not_retryable"),
        (claim, 202, "job_not_ended", "job_not_retryable"),
        (complete, "job_not_cancellable", 204, "job_not_retryable"),
        (fail, "job_not_cancellable", 204, 202),
        (call_off, 200, 204, 202),
        (expire, "job_expired", "job_expired", "job_expired"),
    ],
)
async def test_what_each_status_answers(
    client: httpx.AsyncClient,
    services: Services,
    bring: Bring,
    cancel: int | str,
    erase: int | str,
    retry: int | str,
) -> None:
    for method, path, expected in (
        ("POST", "/cancel", cancel),
        ("DELETE", "", erase),
        ("POST", "/retry", retry),
    ):
        job_id = await submit(client)
        await bring(services, job_id)
        answer = await client.request(method, f"/v1/jobs/{job_id}{path}")
        if isinstance(expected, str):
            assert_problem(answer, expected)
        else:
            assert answer.status_code == expected
            assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/cancel"), ("DELETE", ""), ("POST", "/retry")]
)
@pytest.mark.parametrize("job_id", ["x", "job_99" + "0" * 22, "file_00" + "0" * 22])
async def test_unknown_jobs(
    client: httpx.AsyncClient, services: Services, method: str, path: str, job_id: str
) -> None:
    for each in (job_id, new_id("job", 0, services.clock.now())):
        assert_problem(await client.request(method, f"/v1/jobs/{each}{path}"), "not_found")


# Cancel


async def test_a_job_that_waits_is_cancelled_at_once_and_called_back(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(client, callbackUrl=CALLBACK)
    answer = await client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 200
    job = answer.json()
    assert (job["status"], job["cancelRequested"], job["error"]) == ("cancelled", False, None)
    assert job["completedAt"] is not None
    assert job["callback"]["status"] == "pending"
    owed = await services.deliveries.read((await owed_by(services.store, job_id))[0])
    assert owed is not None
    assert owed.tags == {"jobId": job_id, "event": "job.cancelled", "jobType": "demo.echo"}
    body = await services.deliveries.read_body(owed.id)
    assert body is not None
    event = json.loads(body)
    assert event["data"]["completedAt"] == job["completedAt"]
    assert event["data"]["status"] == "cancelled"
    assert await services.work.claim(job_id, "late", lease=SECOND) is None


async def owed_by(store: Store, job_id: str) -> list[str]:
    """Return the deliveries that the job owes."""
    key = f"gw:{{p{partition_of(job_id):02d}}}:j:{job_id}"
    kept = await store.client.hmget(key, ["delivery", "notice"])
    return [each.decode() for each in kept if isinstance(each, bytes)]


async def test_cancelling_again_changes_nothing(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(client, callbackUrl=CALLBACK)
    first = await client.post(f"/v1/jobs/{job_id}/cancel")
    rev = (await read(services, job_id)).job.rev
    again = await client.post(f"/v1/jobs/{job_id}/cancel")
    assert again.status_code == 200
    assert again.json() == first.json()
    assert (await read(services, job_id)).job.rev == rev


async def test_the_worker_of_a_job_is_asked_once(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(client)
    await claim(services, job_id)
    revs = set()
    for _ in range(2):
        answer = await client.post(f"/v1/jobs/{job_id}/cancel")
        assert answer.status_code == 202
        assert answer.headers["retry-after"] == "1"
        assert (answer.json()["status"], answer.json()["cancelRequested"]) == ("processing", True)
        revs.add((await read(services, job_id)).job.rev)
    assert len(revs) == 1
    [renewal] = (
        await services.work.renew({partition_of(job_id): [(job_id, "claim")]}, lease=SECOND)
    ).values()
    assert renewal == "cancel_requested"


async def test_a_job_that_waits_for_its_next_attempt_is_cancelled_too(
    client: httpx.AsyncClient, services: Services
) -> None:
    job_id = await submit(client)
    await claim(services, job_id)
    await services.work.retry(job_id, "claim", delay=3600 * SECOND, attempt_record="{}")
    job = (await client.post(f"/v1/jobs/{job_id}/cancel")).json()
    assert (job["status"], job["attempt"], job["nextRunAt"]) == ("cancelled", 1, None)
    assert (await services.jobs.backlog([]))[0] == 0


# Erase


async def test_nothing_is_left_of_an_erased_job_but_its_tombstone(
    client: httpx.AsyncClient, services: Services, store: Store, tmp_path: Path
) -> None:
    job_id = await submit(client, callbackUrl=CALLBACK)
    file = await save(services, job_id, "report.pdf", b"%PDF")
    await finish_with_callback(services, job_id, artifacts={"report.pdf": file})
    [delivery] = await owed_by(store, job_id)
    answer = await client.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    for method, path in (("GET", ""), ("GET", "/result"), ("GET", "/artifacts/report.pdf")):
        body = assert_problem(
            await client.request(method, f"/v1/jobs/{job_id}{path}"), "job_expired"
        )
        assert body["jobStatus"] == "completed"
    assert await services.deliveries.read(delivery) is None
    assert not (tmp_path / "artifacts" / "jobs" / job_id).exists()
    prefix = f"gw:{{p{partition_of(job_id):02d}}}:"
    assert await store.client.scard(f"{prefix}doomed") == 0
    assert [key async for key in store.client.scan_iter(f"*{delivery}*")] == []


async def finish_with_callback(services: Services, job_id: str, **more: Any) -> None:
    """End the job with the callback that this owes."""
    renderer = Renderer(urls=Urls(PUBLIC_URL), ring=services.ring)
    view = await services.work.claim(job_id, "claim", lease=30 * SECOND)
    assert view is not None
    end = renderer.end(
        view.job,
        Finish(status="completed", results={}),
        claim="claim",
        by="test",
        at=services.clock.now(),
        **more,
    )
    assert isinstance(await services.work.finish(job_id, end), Ended)


async def test_files_that_cannot_go_at_once_are_left_to_the_relay(
    client: httpx.AsyncClient, services: Services, tmp_path: Path
) -> None:
    job_id = await submit(client)
    file = await save(services, job_id, "report.pdf", b"%PDF")
    await finish(services, job_id, artifacts={"report.pdf": file})
    folder = tmp_path / "artifacts" / "jobs"
    hidden = folder.rename(tmp_path / "elsewhere")
    folder.write_text("in the way")
    assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204
    folder.unlink()
    hidden.rename(folder)
    _, doomed = await services.outbox.expire(tombstone_life=SECOND, after_callback=0, at_most=10)
    assert doomed == [job_id]
    assert (folder / job_id).exists()


# Run again


async def test_a_new_job_of_the_same_input(client: httpx.AsyncClient, services: Services) -> None:
    wanted = {
        "callbackUrl": CALLBACK,
        "callback": {"events": ["job.failed"], "headers": {"X-Order": "7"}},
        "priority": "high",
        "metadata": {"order": 7},
        "maxAttempts": 2,
        "timeoutSeconds": 5,
        "queueTimeoutSeconds": 60,
        "resultTtlSeconds": 600,
        "onComplete": "inline",
    }
    old_id = await submit(client, **wanted)
    await fail(services, old_id)
    answer = await client.post(f"/v1/jobs/{old_id}/retry")
    assert answer.status_code == 202
    told = answer.json()
    assert answer.headers["location"] == told["statusUrl"]
    assert answer.headers["link"] == f'<{told["statusUrl"]}>; rel="status"'
    assert answer.headers["retry-after"] == "1"
    assert (told["status"], told["attempt"], told["progress"]) == ("pending", 0, 0)
    assert (told["retryOf"], told["error"]) == (old_id, None)
    assert told["callback"]["url"] == CALLBACK
    new, old = (await read(services, told["jobId"])).job, (await read(services, old_id)).job
    assert old.retried_as == new.id
    assert (await client.get(f"/v1/jobs/{old_id}")).json()["retriedAs"] == new.id
    assert partition_of(new.id) == partition_of(old_id)
    assert (old.queue_timeout, old.result_ttl) == (60, 600 * SECOND)
    for name in ("type", "input", "priority", "metadata", "max_attempts", "timeout"):
        assert getattr(new, name) == getattr(old, name)
    for name in ("queue_timeout", "result_ttl", "on_complete", "tenant"):
        assert getattr(new, name) == getattr(old, name)
    assert new.callback is not None
    assert (new.callback.events, new.callback.endpoint) == (("job.failed",), old.callback.endpoint)  # type: ignore[union-attr]
    headers = services.ring.open(new.callback.headers, row=f"callback:{new.id}")
    assert json.loads(headers) == {"X-Order": "7"}
    claimed = await services.work.claim(new.id, "again", lease=SECOND)
    assert claimed is not None
    assert claimed.job.attempt == 1


async def test_asked_twice_it_is_one_job(client: httpx.AsyncClient, services: Services) -> None:
    old_id = await submit(client)
    await call_off(services, old_id)
    first, again = [await client.post(f"/v1/jobs/{old_id}/retry") for _ in range(2)]
    assert first.json()["jobId"] == again.json()["jobId"]
    assert (again.status_code, (await services.jobs.backlog([]))[0]) == (202, 1)


async def test_what_a_crash_left_undone_is_done_by_the_next_call(
    client: httpx.AsyncClient, services: Services
) -> None:
    old_id = await submit(client)
    await fail(services, old_id)
    reserved = new_id("job", partition_of(old_id), services.clock.now())
    assert await services.jobs.reserve_retry(old_id, reserved) == ("failed", reserved)
    assert await services.jobs.read(reserved) is None
    answer = await client.post(f"/v1/jobs/{old_id}/retry")
    assert answer.json()["jobId"] == reserved


async def test_a_job_that_was_run_again_and_is_gone_itself(
    client: httpx.AsyncClient, services: Services
) -> None:
    old_id = await submit(client)
    await fail(services, old_id)
    new = (await client.post(f"/v1/jobs/{old_id}/retry")).json()["jobId"]
    await expire(services, new)
    body = assert_problem(await client.post(f"/v1/jobs/{old_id}/retry"), "job_expired")
    assert body["jobId"] == new


async def test_a_job_and_the_one_it_came_from_keep_their_files_apart(
    client: httpx.AsyncClient, services: Services
) -> None:
    request = {"type": "document.analyze", "input": {"document": {"part": "doc"}}}
    parts: list[tuple[str, tuple[str | None, str | bytes, str]]] = [
        ("job", (None, json.dumps(request), "application/json")),
        ("doc", ("x.txt", b"some text", "text/plain")),
    ]
    old_id = (await client.post("/v1/jobs", files=parts)).json()["jobId"]
    await fail(services, old_id)
    new_job = (await client.post(f"/v1/jobs/{old_id}/retry")).json()["jobId"]
    assert (await client.delete(f"/v1/jobs/{old_id}")).status_code == 204
    kept = (await read(services, new_job)).job.files["doc"]
    assert (kept.name, kept.content_type, kept.size) == ("x.txt", "text/plain", 9)
    assert kept.path.startswith(f"jobs/{new_job}/")
    assert await services.artifacts.read(kept.path, 100) == b"some text"


async def test_a_large_input_goes_along(client: httpx.AsyncClient, services: Services) -> None:
    payload = "x" * 40_000
    old_id = await submit(client, input={"payload": payload})
    await fail(services, old_id)
    new_job = (await client.post(f"/v1/jobs/{old_id}/retry")).json()["jobId"]
    file = (await read(services, new_job)).job.input_file
    assert file is not None
    assert file.path == f"jobs/{new_job}/in/input.json"
    assert json.loads(await services.artifacts.read(file.path, file.size)) == {"payload": payload}


async def test_files_that_are_lost_are_no_new_job(
    client: httpx.AsyncClient, services: Services
) -> None:
    old_id = await submit(client, input={"payload": "x" * 40_000})
    await fail(services, old_id)
    await services.artifacts.delete_prefix(f"jobs/{old_id}")
    assert_problem(await client.post(f"/v1/jobs/{old_id}/retry"), "artifacts_unavailable")
    assert (await services.jobs.backlog([]))[0] == 0


async def test_a_callback_that_may_not_be_sent_any_more(
    client: httpx.AsyncClient, services: Services, make_services: MakeServices
) -> None:
    job_id = await submit(client, callbackUrl=CALLBACK)
    await fail(services, job_id)
    stricter = make_services(GATEWAY_DELIVERY_ALLOW_LOOPBACK="false")
    gateway = Gateway(stricter, create_app(stricter))
    async with await gateway.client() as other:
        body = assert_problem(await other.post(f"/v1/jobs/{job_id}/retry"), "invalid_callback_url")
    assert body["errors"][0]["pointer"] == "/callbackUrl"
    assert (await read(services, job_id)).job.retried_as is None


async def test_a_full_store_takes_no_more_but_lets_go(
    client: httpx.AsyncClient, services: Services, full_store: FullStore
) -> None:
    failed, waiting, done = [await submit(client) for _ in range(3)]
    await fail(services, failed)
    await complete(services, done)
    async with full_store():
        assert_problem(await client.post(f"/v1/jobs/{failed}/retry"), "store_full")
        assert (await client.post(f"/v1/jobs/{waiting}/cancel")).status_code == 200
        assert (await client.delete(f"/v1/jobs/{done}")).status_code == 204
    assert (await client.post(f"/v1/jobs/{failed}/retry")).status_code == 202


async def test_a_store_that_is_away(services: Services, gateway: Gateway) -> None:
    away = connect("redis://127.0.0.1:1", max_connections=1, socket_timeout=1)
    deliveries = DeliveryStore(away, services.settings.store.partitions)
    scripts = (away, services.settings.store.partitions, services.clock, deliveries.retention)
    lost = replace(services, jobs=JobStore(*scripts))
    job_id = new_id("job", 0, services.clock.now())
    token = "local-development-key"
    with_key = lost.settings.model_copy(update={"bootstrap_api_key": SecretStr(token)})
    lost = replace(lost, settings=with_key)
    async with Gateway(lost, create_app(lost)).anyone({"Authorization": f"Bearer {token}"}) as who:
        for method, path in (("POST", "/cancel"), ("DELETE", ""), ("POST", "/retry")):
            answer = await who.request(method, f"/v1/jobs/{job_id}{path}")
            assert_problem(answer, "store_unavailable")
    await away.close()
