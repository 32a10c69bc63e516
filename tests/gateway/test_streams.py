"""Watching jobs by event streams at a real server."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import (
    aclosing,
)
from dataclasses import replace

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from config.clock import SECOND
from config.ids import new_id, partition_of
from config.scripts import partition_prefix
from config.store import Store
from gateway.api.eventstream import event_names, last_event_id
from gateway.models import Job, View
from tests.gateway.jobs import ECHO
from tests.gateway.served import (
    BEARER,
    KEY,
    Serve,
    Served,
    document,
    made_key,
    messages,
    revoke,
    until,
)
from tests.gateway.stream_load import StreamLoad
from tests.processes import resident_bytes


async def test_a_stream_tells_the_state_the_progress_and_the_end(served: Served) -> None:
    job_id = await served.submit()
    told = []
    async for message in messages(served, f"/v1/jobs/{job_id}/events"):
        told.append(message)
        seen = document(message)
        if message.event == "snapshot":
            await served.claim(job_id)
        elif seen["status"] == "processing" and seen["progress"] == 0:
            await served.report(job_id, 40)
        elif seen["status"] == "processing":
            await served.finish(job_id)
    names = [message.event for message in told]
    assert names == ["snapshot", "progress", "progress", "completed"]
    numbers = [int(message.id or 0) for message in told]
    assert numbers == sorted(set(numbers))
    end = document(told[-1])
    assert end["results"] == {"payload": 1}
    status = await served.client.get(f"/v1/jobs/{job_id}", params={"onComplete": "inline"})
    assert end == status.json()


async def test_a_revoked_key_is_told_nothing_more(served: Served) -> None:
    job_id = await served.submit()
    key_id, headers = await made_key(served, "read")
    told = []
    async for message in messages(served, f"/v1/jobs/{job_id}/events", **headers):
        told.append(message.event)
        await revoke(served, key_id, headers)
        await served.finish(job_id)
    assert told == ["snapshot"]


async def test_a_ticket_stays_good_for_a_stream_that_it_opened(served: Served) -> None:
    job_id = await served.submit()
    key_id, headers = await made_key(served, "read")
    made = await served.client.post(f"/v1/jobs/{job_id}/ticket", headers=headers)
    told = []
    async for message in messages(served, made.json()["eventsUrl"].removeprefix(served.url)):
        told.append(message.event)
        if message.event == "snapshot":
            await revoke(served, key_id, headers)
            await served.finish(job_id)
    assert told[-1] == "completed"


async def test_the_head_of_a_stream(served: Served) -> None:
    job_id = await served.submit()
    path = f"/v1/jobs/{job_id}/events"
    async with served.client.stream("GET", path) as answer:
        first = await anext(aiter(answer.aiter_raw()))
    assert first.startswith(b"retry: ")
    head = await served.client.head(path)
    assert head.content == b""
    for each in (answer, head):
        assert each.status_code == 200
        assert each.headers["content-type"] == "text/event-stream"
        assert each.headers["cache-control"] == "no-store"
        assert each.headers["x-accel-buffering"] == "no"
        assert "content-length" not in each.headers


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_the_end_is_told_to_whoever_comes_late_and_then_no_more(
    served: Served, status: str
) -> None:
    job_id = await served.submit()
    view = await served.finish(job_id, status)
    path = f"/v1/jobs/{job_id}/events"
    told = [message async for message in messages(served, path)]
    assert [(each.event, each.id) for each in told] == [
        ("snapshot", None),
        (status, str(view.job.rev)),
    ]
    resumed = [message async for message in messages(served, path, **{"Last-Event-ID": "1"})]
    assert [each.event for each in resumed] == [status]
    for last in (view.job.rev, view.job.rev + 1):
        answer = await served.client.get(path, headers={"Last-Event-ID": str(last)})
        assert (answer.status_code, answer.content) == (204, b"")


async def test_a_stream_that_carried_the_results_counts_as_reading(served: Served) -> None:
    job_id = await served.submit()
    view = await served.finish(job_id)
    await served.client.head(f"/v1/jobs/{job_id}/events")
    unread = await served.services.jobs.read(job_id)
    assert isinstance(unread, View)
    assert unread.job.read_at is None
    async for _ in messages(served, f"/v1/jobs/{job_id}/events"):
        pass
    await served.was_read(job_id)
    assert view.job.read_at is None


async def test_a_stream_is_resumed_after_what_was_seen(served: Served) -> None:
    job_id = await served.submit()
    view = await served.claim(job_id)
    path = f"/v1/jobs/{job_id}/events"
    known = {"Last-Event-ID": str(view.job.rev)}
    async with aclosing(messages(served, path, **known)) as told:  # type: ignore[type-var]
        following = asyncio.ensure_future(anext(told))
        async with aclosing(messages(served, path)) as others:  # type: ignore[type-var]
            assert (await anext(others)).event == "snapshot"
        assert not following.done()
        await served.report(job_id, 10)
        message = await following
    assert (message.event, message.id) == ("progress", str(view.job.rev + 1))
    for odd in ("0", "junk", "-1", "9" * 40, str(view.job.rev + 7)):
        async with aclosing(messages(served, path, **{"Last-Event-ID": odd})) as told:  # type: ignore[type-var]
            assert (await anext(told)).event == ("progress" if odd == "0" else "snapshot")


async def test_lost_connections_to_the_store_lose_nothing(served: Served, store: Store) -> None:
    job_id = await served.submit()
    await served.claim(job_id)
    step = 0
    async for message in messages(served, f"/v1/jobs/{job_id}/events"):
        if message.event == "completed":
            break
        if document(message)["progress"] != step:
            continue
        await store.client.client_kill_filter(_type="pubsub", skipme=True)
        step += 1
        if step < 6:
            await served.report(job_id, step)
        else:
            await served.finish(job_id)
    assert message.event == "completed"


async def test_silence_is_filled_with_comments(serve: Serve) -> None:
    async with serve(GATEWAY_API_HEARTBEAT_SECONDS="0.05") as served:
        job_id = await served.submit()
        seen = b""
        async with served.client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            async for piece in answer.aiter_raw():
                seen += piece
                if seen.count(b"\n: \n\n") >= 2:
                    break


async def test_a_stream_of_a_job_that_is_no_more_ends(served: Served, store: Store) -> None:
    job_id = await served.submit()
    prefix = partition_prefix(partition_of(job_id))
    names = []
    async for message in messages(served, f"/v1/jobs/{job_id}/events"):
        names.append(message.event)
        await store.client.delete(f"{prefix}j:{job_id}")
        await store.client.publish(f"{prefix}watch:{job_id}", "0")
    assert names == ["snapshot"]


async def test_streams_are_refused_as_problems(served: Served) -> None:
    job_id = await served.submit()
    for path, headers, status, code in (
        (f"/v1/jobs/{job_id}/events", {"Authorization": "Bearer wrong-key"}, 401, "unauthorized"),
        (f"/v1/jobs/{new_id('job', 0, 0)}/events", {}, 404, "not_found"),
        ("/v1/jobs/junk/events", {}, 404, "not_found"),
    ):
        answer = await served.client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
    await served.finish(job_id)
    await served.client.delete(f"/v1/jobs/{job_id}")
    answer = await served.client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "9"})
    assert (answer.status_code, answer.json()["code"]) == (410, "job_expired")


async def test_who_leaves_makes_room(serve: Serve) -> None:
    async with serve(GATEWAY_API_MAX_WATCHERS="1") as served:
        job_id = await served.submit()
        path = f"/v1/jobs/{job_id}"
        async with aclosing(messages(served, f"{path}/events")) as told:  # type: ignore[type-var]
            await anext(told)
            for refused in (
                await served.client.get(f"{path}/events"),
                await served.client.get(path, headers={"Prefer": "wait=9"}),
            ):
                assert (refused.status_code, refused.json()["code"]) == (503, "too_many_watchers")
                assert refused.headers["retry-after"] == "5"
            with pytest.raises(InvalidStatus) as denied:
                async with connect(served.socket_url(path), additional_headers=BEARER):
                    pass
            assert denied.value.response.status_code == 503
            kept = await served.client.post("/v1/jobs", json=ECHO, headers={"Prefer": "wait=9"})
            assert kept.status_code == 202
            assert "preference-applied" not in kept.headers

        async def is_held() -> bool:
            try:
                answer = await served.client.get(path, headers={"Prefer": "wait=30"}, timeout=0.5)
            except httpx.ReadTimeout:
                return True
            assert answer.json()["code"] == "too_many_watchers"
            return False

        # The stream has left, and then the poll that gave up.
        await until(is_held)
        await until(is_held)


async def test_stopping_ends_everything_in_order(served: Served) -> None:
    job_id = await served.submit()
    view = await served.services.jobs.read(job_id)
    assert isinstance(view, View)
    path = f"/v1/jobs/{job_id}"
    async with (
        connect(served.socket_url(path), additional_headers=BEARER) as websocket,
        aclosing(messages(served, f"{path}/events")) as told,  # type: ignore[type-var]
    ):
        await websocket.recv()
        assert (await anext(told)).id == str(view.job.rev)
        waiting = asyncio.create_task(served.client.get(path, headers={"Prefer": "wait=30"}))
        # Once another has been answered after it, it waits.
        await served.client.head(path)
        served.process.send_signal(signal.SIGTERM)
        assert [each async for each in told] == []
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        answer = await waiting
        assert (answer.status_code, answer.json()["status"]) == (200, "pending")
    assert await asyncio.to_thread(served.process.wait, 20) == 0


async def test_a_ticket_opens_what_belongs_to_its_job(served: Served) -> None:
    job_id, other = await served.submit(), await served.submit()
    await served.finish(job_id)
    made = await served.client.post(f"/v1/jobs/{job_id}/ticket")
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    ticket = made.json()
    query = f"?ticket={ticket['ticket']}"
    assert ticket["url"] == f"{served.url}/v1/jobs/{job_id}{query}"
    async with httpx.AsyncClient(trust_env=False) as anyone:
        for name in ("url", "resultUrl", "eventsUrl"):
            assert (await anyone.get(ticket[name])).status_code in {200, 303}
        for path in (f"/v1/jobs/{other}/events", f"/v1/jobs/{other}"):
            assert (await anyone.get(served.url + path + query)).status_code == 401
        beget = await anyone.post(f"{served.url}/v1/jobs/{job_id}/ticket{query}")
        assert beget.status_code == 401
    async with connect(ticket["websocketUrl"]) as websocket:
        assert json.loads(await websocket.recv())["jobId"] == job_id
    assert not served.logged(ticket["ticket"])
    links = (await served.client.get(f"/v1/jobs/{other}")).json()["_links"]
    assert links["events"] == f"{served.url}/v1/jobs/{other}/events"
    assert links["websocket"] == served.socket_url(f"/v1/jobs/{other}")


JOB = Job(id="job", tenant="t", type="x", status="processing", rev=7, result_ttl=3600 * SECOND)
DONE = replace(JOB, status="completed", expires_at=10_000 * SECOND)


@pytest.mark.parametrize(
    ("job", "now", "is_first", "names"),
    [
        (JOB, 0, True, [("snapshot", 7)]),
        (JOB, 0, False, [("progress", 7)]),
        (DONE, 0, True, [("snapshot", None), ("completed", 7)]),
        (DONE, 0, False, [("completed", 7)]),
        (DONE, 9_100, False, [("expiring", None), ("completed", 7)]),
        (replace(DONE, read_at=1), 9_100, False, [("completed", 7)]),
        (replace(DONE, status="failed"), 9_100, False, [("failed", 7)]),
    ],
)
def test_events(job: Job, now: int, is_first: bool, names: list[tuple[str, int | None]]) -> None:
    view = View(job=job, callback=None, now=now * SECOND)
    assert event_names(view, is_first=is_first) == names


@pytest.mark.parametrize(
    ("header", "revision"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        ("07", 7),
        ("-7", None),
        ("7 ", None),
        ("٧", None),
        ("9" * 16, None),
    ],
)
def test_last_event_ids(header: str | None, revision: int | None) -> None:
    assert last_event_id(header) == revision


@pytest.mark.parametrize("partitions", [1], ids=["one-partition"], indirect=True)
async def test_five_hundred_streams_cost_little_memory(served: Served) -> None:
    load = StreamLoad(served.url, KEY)
    job_ids = [await served.submit() for _ in range(10)]
    before = resident_bytes(served.process.pid)

    async def work() -> None:
        for job_id in job_ids:
            await served.claim(job_id)
            for percent in range(10, 100, 30):
                await served.report(job_id, percent)
            await served.finish(job_id)

    ended = await load.run(job_ids, clients=500, work=work)
    assert ended == {"completed": 500}
    assert resident_bytes(served.process.pid) - before < 64 * 2**20
