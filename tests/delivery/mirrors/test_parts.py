"""What mirrors have a part of: a host's slots, a rate, a limit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import fsum

import pytest

from config.ids import derived_id, partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION
from delivery.endpoints import Change
from delivery.mirrors import MirrorNews, make_mirror, refresh_mirrors
from delivery.models import Deliver
from delivery.store import DeliveryStore
from tests.delivery.mirrors.conftest import (
    HOST,
    PARTITIONS,
    at_mirrors,
    host_everywhere,
    mirror_ids,
    read,
    send_on,
)
from tests.delivery.replay_side import OTHER_URL, Side, side_of
from tests.delivery.test_deadletters import bury
from tests.delivery.test_store import (
    RING,
    enqueue,
    message,
    over,
    registration,
)


async def test_the_receiver_that_answers_its_challenge_is_verified_for_its_mirrors(
    side: Side, news: MirrorNews
) -> None:
    own = replace(registration(HOST, PARTITIONS), unverified_rate=2.0)
    await side.deliveries.register_endpoint(own)
    await send_on(side)
    assert {(await read(side, each)).unverified_rate for each in mirror_ids()} == {2.0}
    asked = replace(message(own), trigger="test", challenge="c" * 32)
    await side.deliveries.enqueue(asked)
    claimed = await side.claim_all("dp-first")
    [answered] = [each for each in claimed if each.id == asked.id]
    await side.deliveries.record([over(answered, Deliver())])
    assert (await read(side, own.id)).verified_at is not None
    assert await news.move() == 1
    assert {(await read(side, each)).unverified_rate for each in mirror_ids()} == {None}


@pytest.mark.parametrize("host_limit", [4, 8, 31, 64, 300])
async def test_a_host_is_asked_no_more_than_its_limit(store: Store, host_limit: int) -> None:
    wide = replace(DEFAULT_RETENTION, initial_limit=2_000, max_limit=2_000, host_limit=host_limit)
    side = side_of(store, PARTITIONS)
    side.deliveries.retention = wide
    for host in host_everywhere():
        await bury(side.deliveries, host, host_limit)
    await side.carry_out(await side.create(to_url=OTHER_URL))
    # Another tenant's endpoint of the same host, which is not mirrored.
    await enqueue(side.deliveries, HOST, host_limit * 2, tenant="t2")
    held = await side.claim_all("dp-first")
    assert host_limit * 3 // 4 <= len(held) <= host_limit
    assert {partition_of(each.endpoint) for each in held} == set(range(PARTITIONS))
    assert await side.claim_all("dp-second") == []
    await side.deliveries.record([over(each, Deliver()) for each in held])
    again = await side.claim_all("dp-third")
    assert host_limit * 3 // 4 <= len(again) <= host_limit


@pytest.mark.parametrize("most", [4, 5, 16, 48])
@pytest.mark.parametrize("first", ["bounded", "lent"])
async def test_an_endpoint_is_asked_no_more_than_an_operator_says(
    side: Side, most: int, first: str
) -> None:
    own = registration(HOST, PARTITIONS)
    await side.deliveries.register_endpoint(own)

    async def bound() -> None:
        bounded = await side.deliveries.change_endpoint(own.id, Change(max_limit=most))
        assert bounded is not None
        await refresh_mirrors(side.deliveries, bounded, RING)

    if first == "bounded":
        await bound()
    for host in host_everywhere():
        await bury(side.deliveries, host, 20)
    await side.carry_out(await side.create(to_url=OTHER_URL))
    if first == "lent":
        await bound()
    await enqueue(side.deliveries, HOST, 120)
    for number in range(3):
        held = await side.claim_all(f"dp-{number}")
        assert most * 3 // 4 <= len(held) <= most
        await side.deliveries.record([over(each, Deliver(), limit="grow") for each in held])


async def test_an_endpoint_that_is_deleted_gives_its_hosts_slots_back(store: Store) -> None:
    side = side_of(store, PARTITIONS)
    side.deliveries.retention = replace(side.deliveries.retention, host_limit=8)
    own = registration(HOST, PARTITIONS)
    made, _ = await side.deliveries.register_endpoint(own)
    elsewhere = (partition_of(own.id) + 1) % PARTITIONS
    mirror = await make_mirror(side.deliveries, made, elsewhere, RING)
    await enqueue(side.deliveries, HOST, 20, tenant="t2")
    held = await side.claim_all("dp-first")
    assert len(held) == 8 - 3
    for each in (mirror, own.id):
        assert await side.deliveries.delete_endpoint(each)
    await side.deliveries.record([over(each, Deliver()) for each in held])
    assert len(await side.claim_all("dp-second")) == 8
    prefix = partition_prefix(elsewhere)
    assert await store.client.exists(f"{prefix}host:{HOST}") == 0


@pytest.mark.parametrize("slow", [Change(rate=0.001), Change()], ids=["rate", "unverified"])
async def test_a_mirror_waits_no_longer_for_a_rate_that_is_lifted(side: Side, slow: Change) -> None:
    unverified = 0.001 if slow == Change() else None
    own = replace(registration(HOST, PARTITIONS), unverified_rate=unverified)
    await side.deliveries.register_endpoint(own)
    await side.deliveries.change_endpoint(own.id, slow)
    await send_on(side)
    assert len(at_mirrors(await side.claim_all("dp-first"))) == PARTITIONS - 1
    await side.deliveries.register_endpoint(replace(own, unverified_rate=0))
    lifted = await side.deliveries.change_endpoint(own.id, Change(rate=1_000))
    assert lifted is not None
    await refresh_mirrors(side.deliveries, lifted, RING)
    assert len(at_mirrors(await side.claim_all("dp-second"))) == (PARTITIONS - 1) * 4


@pytest.mark.parametrize("rate", [0.001, 1 / 3, 7, 123_456.789])
@pytest.mark.parametrize("partitions", [2, 4, 100])
async def test_a_rate_is_divided_exactly(store: Store, partitions: int, rate: float) -> None:
    deliveries = DeliveryStore(store, partitions)
    own, _ = await deliveries.register_endpoint(registration(HOST, partitions))
    await deliveries.change_endpoint(own.id, Change(rate=rate))
    for at in range(partitions):
        if at != partition_of(own.id):
            await make_mirror(deliveries, own, at, RING)
    kept = [
        await store.client.hmget(f"{partition_prefix(at)}ep:{each}", "rate", "part")
        for at in range(partitions)
        for each in [derived_id("ep", at, own.tenant, own.origin)]
    ]
    assert {float(each or 0) for each, _ in kept} == {rate}
    assert fsum(float(part or 0) for _, part in kept) == pytest.approx(1, rel=1e-12)


async def test_what_an_operator_allows_is_divided(side: Side) -> None:
    own = registration(HOST, PARTITIONS)
    await side.deliveries.register_endpoint(own)
    await side.deliveries.change_endpoint(own.id, Change(rate=48))
    await send_on(side)
    await enqueue(side.deliveries, HOST, 100)
    claimed = Counter(each.endpoint for each in await side.claim_all("dp-first"))
    # As many as may come at once: what a second allows.
    assert claimed == {own.id: 42, **dict.fromkeys(mirror_ids(), 2)}
    changed = await side.deliveries.change_endpoint(own.id, Change(max_limit=48))
    assert changed is not None
    await refresh_mirrors(side.deliveries, changed, RING)
    assert {(await read(side, each)).max_limit for each in mirror_ids()} == {2}
    kept = await read(side, own.id)
    assert (kept.rate, kept.max_limit) == (48, 48)
