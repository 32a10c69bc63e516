"""Challenges: delivered to whoever says them again, and to nobody else; sent before what waits."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from config.store import Store
from delivery.endpoints import Endpoint
from delivery.models import Bury, Deliver
from delivery.store import DeliveryStore
from tests.delivery import test_worker
from tests.delivery.conftest import StartReceiver
from tests.delivery.test_store import claim, enqueue, message, over, registration, wanted
from tests.delivery.test_worker import Process, Watched, endpoint, says

deliveries = test_worker.deliveries
process = test_worker.process

TEXT = "q7Zr0eVd3mXk9WcT5bYh2uJn8aLp4sGf"
RIGHT = json.dumps({"challenge": TEXT})


async def verified(deliveries: DeliveryStore, endpoint_id: str) -> bool:
    """Tell whether the endpoint is verified."""
    found = await deliveries.read_endpoint(endpoint_id)
    assert isinstance(found, Endpoint)
    return found.verified_at is not None


def answer(body: str, status: str = "200 OK", *more: str) -> bytes:
    """Return an answer as it is sent."""
    data = body.encode()
    lines = (f"HTTP/1.1 {status}", f"content-length: {len(data)}", *more, "", "")
    return "\r\n".join(lines).encode() + data


@pytest.mark.parametrize(
    ("sent", "outcome"),
    [
        (answer(RIGHT), "delivered"),
        (answer(RIGHT, "201 Created", "content-type: text/plain"), "delivered"),
        (answer(json.dumps({"ok": True, "challenge": TEXT, "n": 1})), "delivered"),
        (answer(f" \n{RIGHT}\n"), "delivered"),
        (answer("", "204 No Content"), "challenge_unanswered"),
        (answer("OK"), "challenge_unanswered"),
        (answer(TEXT), "challenge_unanswered"),
        (answer(json.dumps(TEXT)), "challenge_unanswered"),
        (answer(json.dumps([RIGHT])), "challenge_unanswered"),
        (answer(json.dumps({"challenge": TEXT.lower()})), "challenge_unanswered"),
        (answer(json.dumps({"challenge": [TEXT]})), "challenge_unanswered"),
        (answer(json.dumps({"data": {"challenge": TEXT}})), "challenge_unanswered"),
        (answer(" " * 2_000 + RIGHT), "challenge_unanswered"),
        (answer("[" * 1_000), "challenge_unanswered"),
        (answer(RIGHT, "302 Found", "location: /"), "rejected"),
        (answer(RIGHT, "404 Not Found"), "rejected"),
        (answer(RIGHT, "500 Oops"), "rejected"),
        (answer(RIGHT, "503 Later"), "throttled"),
        (answer(RIGHT, "410 Gone"), "gone"),
    ],
)
async def test_only_who_says_it_again_is_verified(
    process: Process,
    deliveries: Watched,
    start_receiver: StartReceiver,
    sent: bytes,
    outcome: str,
) -> None:
    receiver = await start_receiver(says(sent))
    to = await endpoint(deliveries, receiver)
    asked = replace(message(to), trigger="test", challenge=TEXT)
    assert await deliveries.enqueue(asked)
    async with process.running(process.worker()):
        await deliveries.until(lambda: len(deliveries.ended) == 1)
    delivery = await deliveries.read(asked.id)
    assert delivery is not None
    assert [each["outcome"] for each in delivery.history] == [outcome]
    is_good = outcome == "delivered"
    assert delivery.state == ("delivered" if is_good else "dead")
    assert await verified(deliveries, to.id) == is_good
    assert len(receiver.requests) == 1


async def test_a_server_that_gives_back_what_it_is_sent_is_not_verified(
    process: Process, deliveries: Watched, start_receiver: StartReceiver
) -> None:
    body = json.dumps({"type": "endpoint.verification", "data": {"challenge": TEXT}})
    receiver = await start_receiver(says(answer(body)))
    to = await endpoint(deliveries, receiver)
    await deliveries.enqueue(
        replace(message(to), trigger="test", challenge=TEXT, body=body.encode())
    )
    async with process.running(process.worker()):
        await deliveries.until(lambda: len(deliveries.ended) == 1)
    assert not await verified(deliveries, to.id)


async def test_other_deliveries_verify_nothing(deliveries: Watched) -> None:
    await enqueue(deliveries, "a.example")
    to = registration("a.example", deliveries.partitions)
    sample = replace(message(to), trigger="test")
    await deliveries.enqueue(sample)
    for claimed in await claim(deliveries, wanted(1)):
        assert await deliveries.record([over(claimed, Deliver())]) == []
    assert not await verified(deliveries, to.id)


async def test_it_goes_before_what_waits(deliveries: Watched) -> None:
    waiting = await enqueue(deliveries, "a.example", 3)
    to = registration("a.example", deliveries.partitions)
    asked = replace(message(to), trigger="test", challenge=TEXT)
    await deliveries.enqueue(asked)
    again = replace(message(to), trigger="test", challenge="another")
    await deliveries.enqueue(again)
    claimed = await claim(deliveries, wanted(1))
    assert [each.id for each in claimed] == [again.id, asked.id, *waiting]
    assert [each.challenge for each in claimed] == ["another", TEXT, "", "", ""]


async def test_it_is_recorded_once_and_stays(deliveries: Watched) -> None:
    to = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(to)
    for verdict, is_verified in ((Bury(reason="exhausted"), False), (Deliver(), True)):
        await deliveries.enqueue(replace(message(to), trigger="test", challenge=TEXT))
        [claimed] = await claim(deliveries, wanted(1 + is_verified))
        for _ in range(2):
            assert await deliveries.record([over(claimed, verdict)]) == []
        assert await verified(deliveries, to.id) == is_verified
    await deliveries.enqueue(replace(message(to), trigger="test", challenge=TEXT))
    [claimed] = await claim(deliveries, wanted(3))
    assert await deliveries.record([over(claimed, Bury(reason="exhausted"))]) == []
    assert await verified(deliveries, to.id)


async def test_sent_again_by_hand_it_may_still_be_answered(
    deliveries: Watched, store: Store
) -> None:
    to = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(to)
    asked = replace(message(to), trigger="test", challenge=TEXT)
    await deliveries.enqueue(asked)
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Bury(reason="exhausted"))])
    assert await deliveries.redeliver(asked.id, "wish") == "dead"
    [claimed] = await claim(deliveries, wanted(2))
    assert (claimed.trigger, claimed.challenge) == ("manual", TEXT)
    await deliveries.record([over(claimed, Deliver())])
    assert await verified(deliveries, to.id)
