"""What was delivered and can be sent no more is one value, and is shown as it was before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from config.clock import SECOND
from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.models import Bury, Claimed, Deliver, Delivery, Retry
from delivery.store import DeliveryStore
from tests.delivery.packing import pack
from tests.delivery.replaying import replay
from tests.delivery.test_delivery_machine import PACKED_OVERHEAD
from tests.delivery.test_store import claim, enqueue, message, over, registration, wanted

DAY = 86_400 * SECOND
TAKEN = Deliver()


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    """Return the deliveries of an empty store."""
    return DeliveryStore(store, partitions)


async def read(deliveries: DeliveryStore, identifier: str) -> Delivery:
    """Return a delivery that must be there."""
    kept = await deliveries.read(identifier)
    assert kept is not None
    return kept


async def attempt(
    deliveries: DeliveryStore,
    sequence: int,
    verdict: Deliver | Retry | Bury = TAKEN,
    record: str = '{"outcome":"delivered"}',
) -> Claimed:
    """Make the one attempt that is due."""
    [claimed] = await claim(deliveries, wanted(sequence))
    assert await deliveries.record([replace(over(claimed, verdict), record=record)]) == []
    return claimed


async def delivered(deliveries: DeliveryStore, number: int = 1) -> list[str]:
    """Make deliveries of one tenant that were delivered."""
    ids = await enqueue(deliveries, "a.example", number)
    for each in await claim(deliveries, wanted(1, limit=number)):
        await deliveries.record([over(each, Deliver())])
    return ids


def key(identifier: str, *parts: str) -> str:
    return partition_prefix(partition_of(identifier)) + ":".join(parts)


async def hash_of(store: Store, name: str) -> dict[bytes, bytes]:
    return cast("dict[bytes, bytes]", await store.client.hgetall(name))


async def shelved(store: Store, identifier: str) -> list[tuple[str, float]]:
    """Return the members of its tenant's shelf, and since when they are there."""
    name = key(identifier, "shelf", "delivered", "t1")
    found = cast("list[Any]", await store.client.zrange(name, 0, -1, withscores=True))
    return [(member.decode(), float(since)) for member, since in found]


async def told_bytes(store: Store, identifier: str) -> tuple[int, int]:
    """Return the bytes that its tenant's shelf is said to hold, and those of its members."""
    said = (await hash_of(store, key(identifier, "shelf:bytes"))).get(b"delivered:t1", b"0")
    listed = [member.split(":")[1:] for member, _ in await shelved(store, identifier)]
    return int(said), sum(int(size) for sizes in listed for size in sizes)


RECORDS = {
    "nothing": ["{}"],
    "what attempts say": [
        (
            '{"at":"2030-01-31T12:00:00.000Z","trigger":"schedule","outcome":"rejected",'
            '"statusCode":500,"durationMs":250,"connectMs":0,"firstByteMs":249,"nextInMs":5000,'
            '"answer":"no \\"such\\" thing, \u00fcber / \\u0000","answerTruncated":true}'
        ),
        '{"at":"2030-01-31T12:00:05.000Z","trigger":"schedule","outcome":"delivered"}',
    ],
    "one that was lost": ['{"outcome":"lost","claim":"dp-1:1:1"}', '{"outcome":"delivered"}'],
    "what a later release says": ['{"outcome":"delivered","hops":[1,{}],"x":null,"y":false}'],
    "large answers": [json.dumps({"answer": "\u20ac" * 340, "answerTruncated": True})] * 3,
    "more than are kept": [json.dumps({"durationMs": number}) for number in range(25)],
}


@pytest.mark.parametrize("records", RECORDS.values(), ids=RECORDS.keys())
async def test_it_is_shown_as_before_but_for_what_sending_needs(
    store: Store, deliveries: DeliveryStore, records: Sequence[str]
) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    for number, record in enumerate(records[:-1], 1):
        await attempt(deliveries, number, Retry(delay=0), record)
    await attempt(deliveries, len(records), Deliver(), records[-1])
    before = await read(deliveries, identifier)
    assert before.url
    assert [each["number"] for each in before.history] == [
        number for number in range(1, len(records) + 1) if number > len(records) - 20
    ]
    lives = await store.client.pttl(key(identifier, "d", identifier))

    assert not await pack(deliveries)
    assert await read(deliveries, identifier) == replace(before, url=b"", headers=b"")
    assert (await hash_of(store, key(identifier, "d", identifier))).keys() == {b"packed"}
    assert await store.client.exists(key(identifier, "d", identifier, "body")) == 0
    assert 0 < lives - await store.client.pttl(key(identifier, "d", identifier)) < 60_000


async def test_custom_headers_go(deliveries: DeliveryStore, partitions: int) -> None:
    endpoint = registration("a.example", partitions)
    await deliveries.register_endpoint(endpoint)
    sent = replace(message(endpoint), headers=b"sealed", scheme="v1a", trace="00-1-2-01")
    await deliveries.enqueue(sent)
    await attempt(deliveries, 1)
    before = await read(deliveries, sent.id)
    assert before.headers == b"sealed"
    await pack(deliveries)
    assert await read(deliveries, sent.id) == replace(before, url=b"", headers=b"")


async def test_bytes_are_counted_at_once_and_all_come_back(
    store: Store, deliveries: DeliveryStore
) -> None:
    ids = await delivered(deliveries, 5)
    whole, listed = await told_bytes(store, ids[0])
    assert whole == listed
    assert await pack(deliveries, at_most=2)
    partly, listed = await told_bytes(store, ids[0])
    assert partly == listed
    while await pack(deliveries, at_most=2):
        pass
    packed, listed = await told_bytes(store, ids[0])
    assert packed == listed
    assert packed < partly < whole
    assert packed < whole * 2 / 3
    for each in ids:
        value = (await hash_of(store, key(each, "d", each)))[b"packed"]
        assert await store.client.zscore(
            key(each, "shelf", "delivered", "t1"), f"{each}:{PACKED_OVERHEAD + len(value)}:0"
        )
    none = replace(deliveries.retention, delivered_count=0, ends=0)
    looks = await DeliveryStore(store, deliveries.partitions, none).retire(100)
    assert sum(looks[partition_of(ids[0])].dropped.values()) == 0
    await pack(DeliveryStore(store, deliveries.partitions, none))
    assert await told_bytes(store, ids[0]) == (0, 0)
    assert [each async for each in store.client.scan_iter("*shelf*")] == []
    assert await deliveries.read(ids[0]) is None


async def test_order_and_age_stay(store: Store, deliveries: DeliveryStore) -> None:
    ids = await delivered(deliveries, 4)

    async def order() -> list[tuple[str, float]]:
        return [(each.split(":")[0], since) for each, since in await shelved(store, ids[0])]

    before = await order()
    await pack(deliveries)
    assert await order() == before
    two = replace(deliveries.retention, delivered_count=2)
    await pack(DeliveryStore(store, deliveries.partitions, two))
    left = {each for each in ids if await deliveries.read(each) is not None}
    assert left == {each for each, _ in before[2:]}


async def test_a_second_time_there_is_nothing_to_do(
    store: Store, deliveries: DeliveryStore
) -> None:
    [identifier] = await delivered(deliveries)
    await pack(deliveries)
    kept = await hash_of(store, key(identifier, "d", identifier))
    counted = await told_bytes(store, identifier)
    # Even where how far it has come is lost.
    await store.client.delete(key(identifier, "shelf:packed"))
    await pack(deliveries)
    assert await hash_of(store, key(identifier, "d", identifier)) == kept
    assert await told_bytes(store, identifier) == counted


async def test_one_whose_keys_ran_out_of_time_leaves_its_shelf(
    store: Store, deliveries: DeliveryStore
) -> None:
    first, second = await delivered(deliveries, 2)
    await store.client.delete(key(first, "d", first), key(first, "d", first, "body"))
    await pack(deliveries)
    [(member, _)] = await shelved(store, first)
    assert member.startswith(second)
    said, listed = await told_bytes(store, first)
    assert said == listed


async def test_it_is_not_sent_again(deliveries: DeliveryStore) -> None:
    packed, whole = await delivered(deliveries, 2)
    assert await deliveries.redeliver(whole, "wish") == "delivered"
    await pack(deliveries)
    assert await deliveries.redeliver(packed, "wish") == "redelivery_over"
    assert (await read(deliveries, packed)).next_attempt_at is None
    # What a person asked for before is done, and only then is that one packed.
    assert (await read(deliveries, whole)).is_manual
    again = await attempt(deliveries, 2)
    assert (again.id, again.trigger, bool(again.body)) == (whole, "manual", True)
    before = await read(deliveries, whole)
    await pack(deliveries)
    assert await read(deliveries, whole) == replace(before, url=b"")
    assert await claim(deliveries, wanted(3)) == []


async def test_nothing_to_a_deleted_endpoint_is_sent_again(deliveries: DeliveryStore) -> None:
    [identifier] = await delivered(deliveries)
    endpoint = registration("a.example", deliveries.partitions)
    assert await deliveries.delete_endpoint(endpoint.id)
    assert await deliveries.redeliver(identifier, "wish") == "endpoint_deleted"
    await pack(deliveries)
    assert (await read(deliveries, identifier)).origin == ""


async def test_an_attempt_that_comes_late_changes_nothing(
    store: Store, deliveries: DeliveryStore
) -> None:
    await enqueue(deliveries, "a.example")
    claimed = await attempt(deliveries, 1)
    await pack(deliveries)
    before = await read(deliveries, claimed.id)
    assert await deliveries.record([over(claimed, Bury(reason="gone"))]) == [claimed.id]
    assert await read(deliveries, claimed.id) == before
    assert not await deliveries.enqueue(
        replace(message(registration("a.example", deliveries.partitions)), id=claimed.id)
    )


async def test_a_dead_letter_stays_whole(deliveries: DeliveryStore) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    await attempt(deliveries, 1, Bury(reason="exhausted"))
    before = await read(deliveries, identifier)
    await pack(deliveries)
    assert await read(deliveries, identifier) == before
    assert await deliveries.redeliver(identifier, "wish") == "dead"
    await attempt(deliveries, 2)
    await pack(deliveries)
    after = await read(deliveries, identifier)
    assert (after.state, after.reason, after.attempts, after.url) == ("delivered", None, 2, b"")


async def test_a_test_that_failed_is_packed_as_it_is(deliveries: DeliveryStore) -> None:
    endpoint = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(endpoint)
    sent = replace(message(endpoint), trigger="test")
    await deliveries.enqueue(sent)
    await attempt(deliveries, 1, Bury(reason="exhausted"))
    await pack(deliveries)
    found = await read(deliveries, sent.id)
    assert (found.state, found.reason, found.url) == ("dead", "exhausted", b"")
    assert await replay(deliveries, [sent.id]) == {sent.id: "unknown"}


async def test_a_replay_that_names_it_leaves_it_alone(deliveries: DeliveryStore) -> None:
    [identifier] = await delivered(deliveries)
    await pack(deliveries)
    assert await replay(deliveries, [identifier]) == {identifier: "delivered"}
    assert await deliveries.schemes_of(partition_of(identifier), [identifier]) == {"v1"}


async def test_how_it_ended_is_remembered_when_it_goes_early(
    store: Store, deliveries: DeliveryStore
) -> None:
    [identifier] = await delivered(deliveries)
    name = key(identifier, "d", identifier)
    await store.client.hincrby(name, "createdAt", -DAY)
    ended = (await read(deliveries, identifier)).ended_at
    await pack(deliveries)
    none = replace(deliveries.retention, delivered_count=0)
    await pack(DeliveryStore(store, deliveries.partitions, none))
    assert await deliveries.read(identifier) is None
    assert await store.client.get(f"{name}:end") == f"delivered {ended}".encode()
