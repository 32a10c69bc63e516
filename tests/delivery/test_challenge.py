"""Challenges: delivered to whoever says them again, and to nobody else; sent before what waits."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.endpoints import Change, Endpoint
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


async def held(deliveries: DeliveryStore, rate: float | None) -> list[str]:
    """Owe three callbacks to an endpoint that is held to a rate; return them."""
    to = replace(registration("a.example", deliveries.partitions), unverified_rate=rate)
    await deliveries.register_endpoint(to)
    return await enqueue(deliveries, "a.example", 3)


async def given(deliveries: DeliveryStore, sequence: int) -> list[str]:
    """Return what a process is given."""
    return [each.id for each in await claim(deliveries, wanted(sequence))]


async def test_until_it_is_verified_an_endpoint_gets_few(deliveries: Watched) -> None:
    waiting = await held(deliveries, 0.001)
    assert await given(deliveries, 1) == waiting[:1]
    assert await given(deliveries, 2) == []


@pytest.mark.parametrize("rate", [0, None])
async def test_who_is_not_held_gets_all(deliveries: Watched, rate: float | None) -> None:
    waiting = await held(deliveries, rate)
    assert await given(deliveries, 1) == waiting


async def test_the_challenge_is_what_it_gets_and_opens_it(deliveries: Watched) -> None:
    waiting = await held(deliveries, 0.001)
    to = registration("a.example", deliveries.partitions)
    asked = replace(message(to), trigger="test", challenge=TEXT)
    await deliveries.enqueue(asked)
    [claimed] = await claim(deliveries, wanted(1))
    assert claimed.id == asked.id
    assert await given(deliveries, 2) == []
    assert await deliveries.record([over(claimed, Deliver())]) == []
    assert await given(deliveries, 3) == waiting
    # Whoever uses it later holds it no more.
    again = await held(deliveries, 0.001)
    assert await given(deliveries, 4) == again


async def test_a_hold_is_what_is_wanted_now(deliveries: Watched) -> None:
    waiting = await held(deliveries, 0.001)
    assert await given(deliveries, 1) == waiting[:1]
    to = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(to)
    assert await given(deliveries, 2) == []
    await deliveries.register_endpoint(replace(to, unverified_rate=0))
    assert await given(deliveries, 3) == waiting[1:]


async def test_an_operators_rate_lifts_no_hold(deliveries: Watched) -> None:
    waiting = await held(deliveries, 0.001)
    to = registration("a.example", deliveries.partitions)
    await deliveries.change_endpoint(to.id, Change(rate=1_000.0))
    assert await given(deliveries, 1) == waiting[:1]
    assert await given(deliveries, 2) == []
    await deliveries.change_endpoint(to.id, Change(rate=None))
    assert await given(deliveries, 3) == waiting[1:2]


async def test_an_answer_for_an_endpoint_that_is_gone_makes_none(
    deliveries: Watched, store: Store
) -> None:
    to = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(to)
    await deliveries.enqueue(replace(message(to), trigger="test", challenge=TEXT))
    [claimed] = await claim(deliveries, wanted(1))
    name = f"{partition_prefix(partition_of(to.id))}ep:{to.id}"
    await store.client.delete(name)
    await deliveries.record([over(claimed, Deliver())])
    assert await store.client.exists(name) == 0
