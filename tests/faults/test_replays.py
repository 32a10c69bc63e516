"""Replays while processes and the store die: nothing is doubled by them, and nothing is missed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.faults.test_kill import PATIENCE, QUICK
from tests.running import Gateway, running

LETTERS = 40
_NUMBERS = count()


@pytest.fixture(scope="module", params=[1, 4], ids=["one-partition", "four-partitions"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A running gateway with short leases, and callbacks that get one attempt."""
    settings = QUICK | {
        "GATEWAY_STORE_PARTITIONS": str(request.param),
        "GATEWAY_DELIVERY_GAPS_SECONDS": "[0]",
    }
    with running(tmp_path_factory.mktemp("replays") / "data", settings) as started:
        yield started


class Receiver:
    """Answers with an error until it is mended; counts what it took."""

    def __init__(self, server: HTTPServer) -> None:
        self.is_mended = False
        self.took: Counter[str] = Counter()
        self.path = f"/replays/{next(_NUMBERS)}"
        self.url = server.url_for(self.path)
        pattern = re.compile(f"{self.path}/.*")
        server.expect_request(pattern).respond_with_handler(self.take)

    def take(self, request: Request) -> Response:
        if not self.is_mended:
            return Response(status=500)
        self.took[request.headers["webhook-id"]] += 1
        return Response(status=200)


def bury(gateway: Gateway, url: str) -> set[str]:
    """Let callbacks die; return the deliveries."""
    jobs = [
        gateway.submit(type="demo.echo", input={"payload": number}, callbackUrl=f"{url}/{number}")[
            "jobId"
        ]
        for number in range(LETTERS)
    ]
    for job_id in jobs:
        gateway.called_back(job_id, "dead", patience=PATIENCE)
    found = [gateway.client.get(f"/v1/jobs/{job}/deliveries").json()["items"] for job in jobs]
    return {items[0]["id"] for items in found}


def create(gateway: Gateway, **asked: Any) -> str:
    made = gateway.client.post("/v1/replays", json=asked)
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def until(gateway: Gateway, replay_id: str, **counts: int) -> dict[str, Any]:
    """Return the replay once each of these counts is as large."""
    return gateway.wait(
        lambda: look(gateway, replay_id),
        lambda replay: all(
            replay.get("progress", {}).get(name, 0) >= each for name, each in counts.items()
        ),
        PATIENCE,
    )


def look(gateway: Gateway, replay_id: str) -> dict[str, Any]:
    """Return the replay, or what is said while it cannot be read."""
    try:
        found: dict[str, Any] = gateway.client.get(f"/v1/replays/{replay_id}").json()
    except httpx.TransportError as error:  # the api has just been killed
        return {"error": str(error)}
    return found


@pytest.mark.parametrize("victims", [("delivery",), ("store",), ("delivery", "store", "api")])
def test_a_replay_outlives_what_runs_it(
    gateway: Gateway, httpserver: HTTPServer, victims: tuple[str, ...]
) -> None:
    receiver = Receiver(httpserver)
    dead = bury(gateway, receiver.url)
    receiver.is_mended = True
    replay_id = create(gateway, ids=sorted(dead), rate=20)
    for victim in victims:
        before = until(gateway, replay_id, replayed=1)["progress"]["replayed"]
        assert before < LETTERS
        gateway.kill(victim)
    done = until(gateway, replay_id, replayed=LETTERS, delivered=LETTERS)
    assert done["state"] in {"running", "completed"}
    counts = done["progress"]
    assert (counts["matched"], counts["replayed"], counts["skipped"]) == (LETTERS, LETTERS, {})
    assert (counts["pending"], counts["failed"], counts["dead"]) == (0, 0, 0)
    assert receiver.took.keys() == dead
    for delivery_id in dead:
        found = gateway.client.get(f"/v1/deliveries/{delivery_id}").json()
        assert found["state"] == "delivered"
        # Moved once: an attempt that died with its process is the only one that may be doubled.
        lost = sum(each["outcome"] == "lost" for each in found["attempts"])
        assert found["attemptCount"] == 2 + lost
        assert receiver.took[delivery_id] <= 1 + lost


def test_jobs_run_again_once_although_the_relay_dies(gateway: Gateway) -> None:
    failing = {"payload": 1, "fail": "No more paper."}
    jobs = [
        gateway.submit(type="demo.echo", input=failing, maxAttempts=1)["jobId"]
        for _ in range(LETTERS)
    ]
    for job_id in jobs:
        gateway.ended(job_id, patience=PATIENCE)
    replay_id = create(gateway, kind="job", ids=jobs, rate=20)
    for _ in range(2):
        until(gateway, replay_id, replayed=1)
        gateway.kill("relay")
    done = until(gateway, replay_id, replayed=LETTERS)
    assert (done["progress"]["matched"], done["progress"]["skipped"]) == (LETTERS, {})
    again = {gateway.job(job_id)["retriedAs"] for job_id in jobs}
    assert len(again) == LETTERS
    for job_id in again:
        assert gateway.ended(job_id, patience=PATIENCE)["retryOf"] in jobs


def test_a_brake_holds_back_what_a_receiver_does_not_take(
    gateway: Gateway, httpserver: HTTPServer
) -> None:
    receiver = Receiver(httpserver)
    dead = bury(gateway, receiver.url)
    replay_id = create(gateway, ids=sorted(dead), rate=40, stopAtFailureRate=0.5)
    stopped = gateway.wait(
        lambda: gateway.client.get(f"/v1/replays/{replay_id}").json(),
        lambda replay: replay["state"] != "running",
        PATIENCE,
    )
    assert (stopped["state"], stopped["reason"]) == ("stopped", "failure_rate")
    assert 20 <= stopped["progress"]["replayed"] < LETTERS
    assert stopped["failures"][0]["statusCode"] == 500
    assert stopped["failures"][0]["hint"]
    receiver.is_mended = True
    assert gateway.client.post(f"/v1/replays/{replay_id}/resume").status_code == 202
    rest = create(gateway, filter={"endpoint": receiver.url.removesuffix(receiver.path)})
    until(gateway, rest, delivered=1)
    gateway.wait(lambda: dict(receiver.took), lambda took: took.keys() == dead, PATIENCE)
    assert set(receiver.took.values()) == {1}
