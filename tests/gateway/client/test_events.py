"""Event streams: taken up where they broke, given up where they say nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.client import Client, NoAnswer, ProblemError
from tests.gateway.client.conftest import QUICK, Both, document, problem
from tests.gateway.client.server import Planned, Scripted, answer, stream


def sse(name: str, number: int, status: str = "processing", **members: Any) -> str:
    data = json.dumps(document(status, progress=number, **members))
    return f"event: {name}\nid: {number}\ndata: {data}\n\n"


async def test_an_event_stream_is_taken_up_where_it_broke(planned: Both, server: Scripted) -> None:
    server.plan(
        stream(": hello\n\nretry: 10\n", sse("snapshot", 1), sse("progress", 2)[:30], breaks=True),
        stream(sse("progress", 2), sse("expiring", 3)),
        problem(503, "store_unavailable"),
        stream(sse("completed", 4, "completed", results=7) + "data: more\n\n"),
    )
    events = await planned.events("job_1", timeout=20)
    assert [event.name for event in events] == ["snapshot", "progress", "expiring", "completed"]
    assert [event.id for event in events] == ["1", "2", "3", "4"]
    assert events[-1].job.results == 7
    asked = [received.headers.get("last-event-id") for received in server.received]
    assert asked == [None, "1", "3", "3"]
    assert {received.headers["accept"] for received in server.received} == {"text/event-stream"}


async def test_a_stream_that_is_over_is_not_asked_again(planned: Both, server: Scripted) -> None:
    server.plan(stream(sse("snapshot", 9, "failed")))
    assert [event.job.status for event in await planned.events("job_1")] == ["failed"]
    server.plan(Planned(status=204))
    assert await planned.events("job_1") == []
    assert len(server.received) == 2


async def test_streams_that_say_nothing_are_given_up(planned: Both, server: Scripted) -> None:
    server.plan(stream(": nothing\n\n"))
    with pytest.raises(NoAnswer):
        await planned.events("job_1", timeout=20)
    assert len(server.received) == QUICK.attempts


async def test_leaving_events_early_lets_go_of_the_stream(server: Scripted) -> None:
    server.plan(stream(sse("snapshot", 1), sse("progress", 2)))
    with Client(server.url, patience=QUICK) as client:
        events = client.events("job_1")
        assert next(events).name == "snapshot"
        events.close()
        assert client._http._transport._pool.connections == []  # type: ignore[attr-defined]  # noqa: SLF001


@pytest.mark.parametrize("status", [404, 406])
async def test_without_a_stream_it_polls(planned: Both, server: Scripted, status: int) -> None:
    etag = {"ETag": 'W/"1"'}
    server.plan(
        problem(status, "not_found"),
        answer(document(), 200, etag),
        Planned(status=304, headers={**etag, "Preference-Applied": "wait=10"}),
        answer(document("completed", results=7)),
    )
    events = await planned.events("job_1", timeout=20)
    assert [event.name for event in events] == ["snapshot", "completed"]
    polls = [received.headers for received in server.received[1:]]
    assert [poll.get("if-none-match") for poll in polls] == [None, 'W/"1"', 'W/"1"']


async def test_a_job_nobody_knows_has_no_events(planned: Both, server: Scripted) -> None:
    server.plan(problem(404, "not_found"))
    with pytest.raises(ProblemError) as caught:
        await planned.events("job_1")
    assert caught.value.code == "not_found"
