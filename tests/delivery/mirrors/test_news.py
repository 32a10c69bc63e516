"""What endpoints and mirrors tell each other: whoever is late, cut off, or faster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store, connect
from delivery.endpoints import Change, Endpoint, Mirror, disabled_url, open_secrets, seal_secrets
from delivery.endpointstore import EndpointStore
from delivery.mirrors import MirrorNews, delete_with_mirrors, make_mirror, refresh_mirrors
from delivery.models import Deliver
from delivery.rewrap import DELIVERY_SEALED, rewrap, tally
from delivery.sealing import KeyRing
from delivery.signing import generate_secret
from delivery.told import AT_ONCE, Told
from tests.conftest import RunningStores
from tests.delivery.mirrors.conftest import (
    HOST,
    KEPT,
    PARTITIONS,
    answer_gone,
    at_mirrors,
    disabled,
    mirror_ids,
    own_id,
    read,
    send_on,
)
from tests.delivery.replay_side import OTHER_URL, Side, side_of
from tests.delivery.test_store import (
    RING,
    enqueue,
    over,
    registration,
)


class Interrupted(EndpointStore):
    """Endpoints, where something else happens before one of the scripts."""

    def __init__(self, store: Store, at: int, step: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(store, PARTITIONS)
        self._left, self._step = at, step

    async def _run(self, name: str, partition: int, *args: str | bytes | int) -> Any:
        await self._count()
        return await super()._run(name, partition, *args)

    async def mirror(self, mirrors: Sequence[Mirror], *, make: bool) -> None:
        await self._count()
        await super().mirror(mirrors, make=make)

    async def _count(self) -> None:
        self._left -= 1
        if self._left == -1:
            await self._step()


@pytest.mark.parametrize("at", range(3))
async def test_a_mirror_that_is_made_meanwhile_knows_a_410(
    store: Store, side: Side, news: MirrorNews, at: int
) -> None:
    own, _ = await side.deliveries.register_endpoint(registration(HOST, PARTITIONS))
    first, second, *_ = (partition_of(each) for each in mirror_ids())
    await make_mirror(side.deliveries, own, second, RING)
    await enqueue(side.deliveries, HOST)
    [claimed] = await side.claim_all("dp-first")

    async def answer_and_carry() -> None:
        await answer_gone(side, claimed)
        await news.move()

    made = await make_mirror(Interrupted(store, at, answer_and_carry), own, first, RING)
    await news.move()
    assert await disabled(side, made) == [(f"https://{HOST}/hook", "gone")]


@pytest.mark.parametrize("at", range(3))
async def test_a_mirror_that_is_made_does_not_outlive_its_endpoint(
    store: Store, side: Side, at: int
) -> None:
    own, _ = await side.deliveries.register_endpoint(registration(HOST, PARTITIONS))

    async def delete() -> None:
        await delete_with_mirrors(side.deliveries, own)

    endpoints = Interrupted(store, at, delete)
    made = await make_mirror(endpoints, own, partition_of(mirror_ids()[0]), RING)
    kept, mirror = [await side.deliveries.read_endpoint(each) for each in (own.id, made)]
    assert mirror is None or kept is not None


@pytest.mark.parametrize("at", range(PARTITIONS))
async def test_an_endpoint_that_is_deleted_does_not_leave_its_mirror(
    store: Store, side: Side, at: int
) -> None:
    own, _ = await side.deliveries.register_endpoint(registration(HOST, PARTITIONS))

    async def make() -> None:
        await make_mirror(side.deliveries, own, partition_of(mirror_ids()[0]), RING)

    assert not await delete_with_mirrors(Interrupted(store, at, make), own)
    kept = await read(side, own.id)
    assert kept.may_have_mirrors
    assert await delete_with_mirrors(side.deliveries, kept)
    left = [await side.deliveries.read_endpoint(each) for each in (own.id, *mirror_ids())]
    assert left == [None] * PARTITIONS


async def test_news_carried_twice_are_carried_once(
    store: Store, side: Side, news: MirrorNews
) -> None:
    await send_on(side)
    first = at_mirrors(await side.claim_all("dp-first"))[0]
    await answer_gone(side, first)
    key = f"{partition_prefix(partition_of(first.endpoint))}mirrors:news"
    [kept] = await store.client.lrange(key, 0, -1)
    await news.move()
    before = [await read(side, each) for each in (own_id(), *mirror_ids())]
    await store.client.rpush(key, kept)
    assert await news.move() == 1
    after = [await read(side, each) for each in (own_id(), *mirror_ids())]
    assert [each.disabled for each in after] == [each.disabled for each in before]
    assert await store.client.exists(key) == 0


Steps = st.lists(
    st.tuples(st.sampled_from(["answer", "say", "show late", "look", "carry"]), st.integers(0, 19)),
    max_size=30,
)


@pytest.mark.timeout(300)  # making a failure small takes a while
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=Steps)
def test_they_know_the_same_in_the_end_whatever_happens_in_which_order(
    stores: RunningStores, steps: list[tuple[str, int]]
) -> None:
    asyncio.run(know_the_same(stores.durable_url, steps))


async def know_the_same(url: str, steps: Sequence[tuple[str, int]]) -> None:
    store = connect(url, max_connections=8, socket_timeout=5)
    try:
        await store.client.flushall()
        side = side_of(store, PARTITIONS)
        news = MirrorNews(store, side.deliveries, RING)
        await send_on(side)
        await enqueue(side.deliveries, HOST, 20)
        held = await side.claim_all("dp-first")
        seen, expected = [await read(side, own_id())], set[str]()
        for step, number in [*steps, ("carry", 0)]:
            match step:
                case "answer" if held:
                    claimed = held.pop(number % len(held))
                    await answer_gone(side, claimed)
                    expected.add(RING.open(claimed.url, row=claimed.id).decode())
                case "say":
                    urls = [[], [OTHER_URL], [f"https://{HOST}/hook"]][number % 3]
                    seen.append(await say(side, urls))
                    expected = set(urls)
                case "show late":
                    await refresh_mirrors(side.deliveries, seen[number % len(seen)], RING)
                case "look":
                    seen.append(await read(side, own_id()))
                case "carry":
                    await asyncio.gather(*(news.move() for _ in range(1 + number % 3)))
        for each in (own_id(), *mirror_ids()):
            assert {known for known, _ in await disabled(side, each)} == expected
    finally:
        await store.close()


async def say(side: Side, urls: Sequence[str]) -> Endpoint:
    """Have an operator say which URLs are disabled, and nobody tell the mirrors."""
    change = Change(disabled=[disabled_url(own_id(), each, RING) for each in urls])
    said = await side.deliveries.change_endpoint(own_id(), change)
    assert said is not None
    return said


async def test_news_that_came_while_others_were_carried_stay(
    store: Store, side: Side, news: MirrorNews
) -> None:
    await send_on(side)
    await side.deliveries.pause_endpoint(own_id())
    told = Told(store, PARTITIONS, "mirrors:news")

    async def carry_slowly(_kept: Sequence[bytes]) -> None:
        # Another process carries the same, and then something else happens.
        await news.move()
        await side.deliveries.resume_endpoint(own_id())

    assert await told.move(carry_slowly) == 1
    assert await news.move() == 1
    assert {(await read(side, each)).paused_since for each in mirror_ids()} == {None}


async def rotate(side: Side) -> None:
    own = await read(side, own_id())
    known = open_secrets(own.secrets["v1"], own.id, RING)
    sealed = seal_secrets(known.rotated(generate_secret(), now=0, overlap=0), own.id, RING)
    await side.deliveries.replace_secrets(own.id, "v1", old=own.secrets["v1"], new=sealed)


async def register_again(side: Side) -> None:
    again = replace(registration(HOST, PARTITIONS), unverified_rate=3.0)
    await side.deliveries.register_endpoint(again)


@pytest.mark.parametrize(
    "change",
    [
        lambda side: side.deliveries.change_endpoint(own_id(), Change(rate=2)),
        lambda side: side.deliveries.change_endpoint(
            own_id(), Change(disabled=[disabled_url(own_id(), OTHER_URL, RING)])
        ),
        lambda side: side.deliveries.pause_endpoint(own_id()),
        rotate,
        register_again,
    ],
    ids=["rate", "disabled", "paused", "secrets", "unverified"],
)
async def test_they_follow_a_change_whose_process_did_not_live_to_tell_them(
    side: Side, news: MirrorNews, change: Callable[[Side], Awaitable[Any]]
) -> None:
    await send_on(side)
    await change(side)
    assert await news.move() == 1
    own = await read(side, own_id())
    for mirror in [await read(side, each) for each in mirror_ids()]:
        assert (mirror.paused_since is None) == (own.paused_since is None)
        assert (mirror.rate, mirror.unverified_rate) == (own.rate, own.unverified_rate)
        assert mirror.disabled == own.disabled
        assert open_secrets(mirror.secrets["v1"], mirror.id, RING) == open_secrets(
            own.secrets["v1"], own.id, RING
        )


async def test_news_of_an_endpoint_that_was_deleted_are_dropped(
    store: Store, side: Side, news: MirrorNews
) -> None:
    key = f"{partition_prefix(0)}mirrors:news"
    await store.client.rpush(key, own_id(), f"{own_id()} hash 1 gone row sealed")
    assert await news.move() == 2
    assert await store.client.exists(key) == 0


@pytest.mark.parametrize(
    "entry",
    [
        b"\xff\xfe",
        b"",
        b"nonsense",
        b"%s hash x",
        b"%s hash x gone row sealed",
        b"%s hash -1 gone row sealed",
        b"%s \xff 1 gone row x",
    ],
)
async def test_news_that_nobody_can_read_hold_up_nothing(
    store: Store, side: Side, news: MirrorNews, entry: bytes
) -> None:
    await send_on(side)
    claimed = at_mirrors(await side.claim_all("dp-first"))
    for at in range(PARTITIONS):
        unread = entry.replace(b"%s", own_id().encode())
        await store.client.rpush(
            f"{partition_prefix(at)}mirrors:news", unread, b"ep_99" + b"0" * 22
        )
    await answer_gone(side, claimed[0])
    assert await news.move() == 3
    assert await news.move() == 0
    assert await disabled(side, own_id()) == [(OTHER_URL, "gone")]


async def test_a_new_endpoint_learns_nothing_that_the_one_before_it_was_told(
    side: Side, news: MirrorNews
) -> None:
    await send_on(side)
    claimed = await side.claim_all("dp-first")
    await answer_gone(side, at_mirrors(claimed)[0])
    await side.deliveries.record([over(each, Deliver()) for each in claimed])
    assert await delete_with_mirrors(side.deliveries, await read(side, own_id()))
    await side.deliveries.register_endpoint(registration(HOST, PARTITIONS))
    assert await news.move() == 1
    assert await disabled(side, own_id()) == []


async def test_what_is_told_is_sealed_under_the_first_key(store: Store, side: Side) -> None:
    await send_on(side)
    await answer_gone(side, at_mirrors(await side.claim_all("dp-first"))[0])
    fresh = KeyRing({"k2": bytes(32), "k1": bytes(32)})
    # While it is told it is in no hash, where it would be found.
    assert (await rewrap(store, fresh, DELIVERY_SEALED)).unreadable == 0
    await MirrorNews(store, side.deliveries, fresh).move()
    assert set((await tally(store, DELIVERY_SEALED))["disabled URLs"]) == {"k2"}


async def test_a_ring_that_opens_nothing_does_not_hold_up_the_rest(
    store: Store, side: Side
) -> None:
    await send_on(side)
    await answer_gone(side, at_mirrors(await side.claim_all("dp-first"))[0])
    blind = MirrorNews(store, side.deliveries, KeyRing({"k2": bytes(32)}))
    await side.deliveries.pause_endpoint(own_id())
    before = {each: (await read(side, each)).secrets for each in mirror_ids()}
    assert await blind.move() == 1
    assert await blind.move() == 0
    assert await disabled(side, own_id()) == [(OTHER_URL, "gone")]
    for each in mirror_ids():
        mirror = await read(side, each)
        assert mirror.paused_since is not None
        assert mirror.secrets == before[each]
        assert await disabled(side, each) == [(OTHER_URL, "gone")]


async def test_news_are_bounded(store: Store, side: Side, news: MirrorNews) -> None:
    await send_on(side)
    first = at_mirrors(await side.claim_all("dp-first"))[0]
    key = f"{partition_prefix(partition_of(first.endpoint))}mirrors:news"
    await store.client.rpush(key, *(own_id() for _ in range(KEPT)))
    await answer_gone(side, first)
    assert await store.client.llen(key) == KEPT
    assert await store.client.lrange(key, -1, -1) != [own_id().encode()]
    for _ in range(KEPT // AT_ONCE):
        assert await news.move() == AT_ONCE
    assert await news.move() == 0
    assert await disabled(side, own_id()) == [(OTHER_URL, "gone")]
