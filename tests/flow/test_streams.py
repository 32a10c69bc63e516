"""Following a job through the whole gateway: its stream, its WebSocket, an answer held back."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import httpx
from websockets.sync.client import connect

from gateway.client.stream import Message, StreamParser
from tests.running import API_KEY, Gateway

BEARER = {"Authorization": f"Bearer {API_KEY}"}
SLOW = {"payload": [1, 2], "seconds": 1.5, "steps": 3}


def ticket_of(gateway: Gateway, job_id: str) -> dict[str, Any]:
    made = gateway.client.post(f"/v1/jobs/{job_id}/ticket")
    assert made.status_code == 201, made.text
    ticket: dict[str, Any] = made.json()
    return ticket


def test_a_stream_follows_a_job_to_its_end(gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input=SLOW)
    told: list[tuple[str, dict[str, Any]]] = []
    with gateway.client.stream("GET", job["_links"]["events"]) as answer:
        assert answer.status_code == 200
        parser = StreamParser()
        for piece in answer.iter_raw():
            told += [(each.event, json.loads(each.data)) for each in parser.feed(piece)]
    names = [name for name, _ in told]
    assert names[0] == "snapshot"
    assert names[-1] == "completed"
    assert set(names[1:-1]) == {"progress"}
    progress = [document["progress"] for _, document in told]
    assert progress == sorted(progress)
    assert {33, 66} <= set(progress)
    assert told[-1][1]["results"] == {"payload": [1, 2]}


def test_a_websocket_follows_a_job_to_its_end(gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input=SLOW)
    ticket = ticket_of(gateway, job["jobId"])
    with connect(ticket["websocketUrl"]) as websocket:
        seen = [json.loads(frame) for frame in websocket]
    assert websocket.close_code == 1000
    assert seen[-1]["status"] == "completed"
    assert seen[-1] == gateway.job(job["jobId"])
    assert len(seen) >= 3


def test_the_path_of_the_source_requirement(gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 3})
    url = job["_links"]["websocket"].replace("/v1/jobs/", "/jobs/")
    with connect(url, additional_headers=BEARER) as websocket:
        *_, last = [json.loads(frame) for frame in websocket]
    assert last["results"] == {"payload": 3}


def test_a_submission_that_waits_is_answered_with_its_end(gateway: Gateway) -> None:
    answer = gateway.client.post(
        "/v1/jobs",
        json={"type": "demo.echo", "input": {"payload": 4}},
        headers={"Prefer": "wait=30"},
    )
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.json()["results"] == {"payload": 4}


def test_a_poll_that_waits_is_answered_with_the_end(gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={**SLOW, "fail": "no luck"})
    answer = gateway.client.get(job["statusUrl"], headers={"Prefer": "wait=30"})
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")


def test_streams_go_on_after_the_api_was_replaced(gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 5, "seconds": 4, "steps": 8})
    told: list[Message] = []
    pid = 0
    while not told or told[-1].event != "completed":
        headers = {"Last-Event-ID": told[-1].id or ""} if told else {}
        # A connection that is used again just when it is closed gives an error, which no client
        # makes much of.
        with (
            suppress(httpx.TransportError),
            gateway.client.stream("GET", job["_links"]["events"], headers=headers) as answer,
        ):
            assert answer.status_code == 200
            parser = StreamParser()
            for piece in answer.iter_raw():
                told += parser.feed(piece)
                if told and not pid:
                    pid = gateway.terminate("api")
    assert [each.event for each in told].count("snapshot") == 1
    assert told[0].event == "snapshot"
    numbers = [int(each.id or 0) for each in told]
    assert numbers == sorted(set(numbers))
    assert gateway.wait(gateway.record, lambda record: record["pids"]["api"] != pid, 20)
