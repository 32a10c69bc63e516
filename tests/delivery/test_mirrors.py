"""Mirrors: what they and the endpoint that they are like know of each other, and share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from math import fsum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.ids import choose_partition, derived_id, partition_of
from config.scripts import partition_prefix
from config.sections import OperatorSettings
from config.store import Store, connect
from delivery.bounds import DEFAULT_RETENTION
from delivery.endpoints import Change, Endpoint, Mirror, disabled_url, open_secrets, seal_secrets
from delivery.endpointstore import EndpointStore
from delivery.letters import Filter
from delivery.mirrors import MirrorNews, delete_with_mirrors, make_mirror, refresh_mirrors
from delivery.models import Bury, Claimed, Deliver
from delivery.notices import Notices, operator_of
from delivery.replays import Definition
from delivery.rewrap import DELIVERY_SEALED, rewrap, tally
from delivery.rotation import change_secrets
from delivery.sealing import KeyRing
from delivery.secrets import Secrets
from delivery.signing import generate_secret
from delivery.store import DeliveryStore
from delivery.told import AT_ONCE, Told
from tests.conftest import RunningStores
from tests.delivery.replay_side import OTHER_URL, Side, bury_some, side_of
from tests.delivery.test_deadletters import bury
from tests.delivery.test_store import (
    POLICY,
    RING,
    claim,
    enqueue,
    message,
    over,
    registration,
    wanted,
)

PARTITIONS = 4
KEPT = 1_000
HOST = "other.example"


@pytest.fixture
def side(store: Store) -> Side:
    """Return deliveries in several partitions, and what replays them."""
    return side_of(store, PARTITIONS)


@pytest.fixture
def news(store: Store, side: Side) -> MirrorNews:
    return MirrorNews(store, side.deliveries, RING)


async def send_on(side: Side) -> list[str]:
    """Replay dead letters of all partitions to the other URL; return their identifiers."""
    dead = [each for host in host_everywhere() for each in await bury(side.deliveries, host, 5)]
    replay = await side.create(to_url=OTHER_URL)
    assert (await side.carry_out(replay)).state == "completed"
    return dead


def host_everywhere() -> list[str]:
    """Return a host of each partition."""
    hosts = {
        choose_partition(host, PARTITIONS): host for host in map("{}.example".format, "abcdefghij")
    }
    return [hosts[at] for at in range(PARTITIONS)]


def own_id() -> str:
    return registration(HOST, PARTITIONS).id


def mirror_ids() -> list[str]:
    own = registration(HOST, PARTITIONS)
    return [
        derived_id("ep", at, own.tenant, own.origin)
        for at in range(PARTITIONS)
        if at != partition_of(own.id)
    ]


async def read(side: Side, endpoint_id: str) -> Endpoint:
    found = await side.deliveries.read_endpoint(endpoint_id)
    assert found is not None
    return found


async def disabled(side: Side, endpoint_id: str) -> list[tuple[str, str]]:
    """Return what an endpoint knows of disabled URLs: each opened, and why."""
    kept = (await read(side, endpoint_id)).disabled
    return [(RING.open(each.url, row=each.row).decode(), each.reason) for each in kept]


def at_mirrors(claimed: Sequence[Claimed]) -> list[Claimed]:
    return [each for each in claimed if each.endpoint != own_id()]


async def answer_gone(side: Side, claimed: Claimed) -> None:
    lost = await side.deliveries.record([replace(over(claimed, Bury(reason="gone")), status=410)])
    assert not lost


async def test_they_follow_its_secrets(side: Side) -> None:
    await bury_some(side, 3)
    await side.carry_out(await side.create(to_url=OTHER_URL))
    fresh = generate_secret()

    def rotate(kept: Secrets | None) -> Secrets:
        assert kept is not None
        return kept.rotated(fresh, now=0, overlap=0)

    await change_secrets(side.deliveries, RING, await read(side, own_id()), "v1", rotate)
    claimed = await side.claim_all("dp-later")
    assert len(claimed) == 3
    for each in claimed:
        assert open_secrets(each.secrets["v1"], each.endpoint, RING).newest.text == fresh


async def test_what_the_endpoint_was_before_undoes_nothing(side: Side) -> None:
    await send_on(side)
    was = await read(side, own_id())
    await side.deliveries.change_endpoint(own_id(), Change(rate=2, max_limit=7))
    paused = await side.deliveries.pause_endpoint(own_id())
    assert paused is not None
    for each in (paused, was):
        await refresh_mirrors(side.deliveries, each, RING)
    for mirror in [await read(side, each) for each in mirror_ids()]:
        assert mirror.paused_since is not None
        assert (mirror.rate, mirror.max_limit) == (2, 1)
    assert at_mirrors(await side.claim_all("dp-later")) == []


# Disabled URLs


async def test_a_url_that_is_disabled_is_so_for_a_new_mirror(side: Side) -> None:
    own = registration(HOST, PARTITIONS)
    await side.deliveries.register_endpoint(own)
    change = Change(disabled=[disabled_url(own.id, OTHER_URL, RING)])
    await side.deliveries.change_endpoint(own.id, change)
    dead = await send_on(side)
    assert await side.claim_all("dp-next") == []
    kept = [await side.deliveries.read(each) for each in dead]
    assert {(each.state, each.reason) for each in kept if each} == {("dead", "disabled")}
    for each in mirror_ids():
        assert await disabled(side, each) == [(OTHER_URL, "operator")]


async def test_a_410_to_a_mirror_disables_the_url_for_all(side: Side, news: MirrorNews) -> None:
    dead = await send_on(side)
    [first, *_] = at_mirrors(await claim(side.deliveries, wanted(1, limit=2, process="dp-first")))
    await answer_gone(side, first)
    assert await disabled(side, own_id()) == []
    assert await news.move() == 1
    for each in (own_id(), *mirror_ids()):
        assert await disabled(side, each) == [(OTHER_URL, "gone")]
    held = {each.id for each in await side.claim_all("dp-next")}
    assert held == set()
    states = Counter([(await read_reason(side, each)) for each in dead])
    assert states["gone"] == 1
    assert states["disabled"] >= PARTITIONS
    assert await news.move() == 0


async def read_reason(side: Side, delivery_id: str) -> str | None:
    kept = await side.deliveries.read(delivery_id)
    assert kept is not None
    return kept.reason


async def test_a_410_to_the_endpoint_disables_the_url_for_its_mirrors(
    side: Side, news: MirrorNews
) -> None:
    await send_on(side)
    claimed = await side.claim_all("dp-first")
    await answer_gone(side, next(each for each in claimed if each.endpoint == own_id()))
    assert await news.move() == 1
    for each in mirror_ids():
        assert await disabled(side, each) == [(OTHER_URL, "gone")]


async def test_an_endpoint_without_mirrors_has_no_news(side: Side, news: MirrorNews) -> None:
    await enqueue(side.deliveries, HOST)
    [claimed] = await side.claim_all("dp-first")
    await answer_gone(side, claimed)
    assert len(await disabled(side, own_id())) == 1
    assert await news.move() == 0


async def test_who_enables_it_enables_it_for_all(side: Side, news: MirrorNews) -> None:
    await send_on(side)
    await answer_gone(side, at_mirrors(await side.claim_all("dp-first"))[0])
    await news.move()
    enabled = await side.deliveries.change_endpoint(own_id(), Change(disabled=[]))
    assert enabled is not None
    await refresh_mirrors(side.deliveries, enabled, RING)
    for each in (own_id(), *mirror_ids()):
        assert await disabled(side, each) == []


async def test_news_from_before_an_operator_spoke_are_none(side: Side, news: MirrorNews) -> None:
    await send_on(side)
    claimed = at_mirrors(await side.claim_all("dp-first"))
    await answer_gone(side, claimed[0])
    await side.deliveries.change_endpoint(own_id(), Change(disabled=[]))
    assert await news.move() == 1
    for each in (own_id(), *mirror_ids()):
        assert await disabled(side, each) == []
    await answer_gone(side, claimed[1])
    await news.move()
    for each in (own_id(), *mirror_ids()):
        assert await disabled(side, each) == [(OTHER_URL, "gone")]


async def test_a_410_after_an_operator_spoke_counts_where_he_was_not_heard_yet(
    side: Side, news: MirrorNews
) -> None:
    await send_on(side)
    [first, *_] = claimed = at_mirrors(await side.claim_all("dp-first"))
    [second, *_] = [each for each in claimed[1:] if each.endpoint == first.endpoint]
    await answer_gone(side, first)
    await news.move()
    await side.deliveries.change_endpoint(own_id(), Change(disabled=[]))
    await answer_gone(side, second)
    await news.move()
    for each in (own_id(), *mirror_ids()):
        assert await disabled(side, each) == [(OTHER_URL, "gone")]


async def test_what_is_not_yet_carried_stays(side: Side, news: MirrorNews) -> None:
    await send_on(side)
    first = at_mirrors(await side.claim_all("dp-first"))[0]
    await answer_gone(side, first)
    paused = await side.deliveries.pause_endpoint(own_id())
    assert paused is not None
    await refresh_mirrors(side.deliveries, paused, RING)
    assert await disabled(side, first.endpoint) == [(OTHER_URL, "gone")]
    await news.move()
    assert await disabled(side, own_id()) == [(OTHER_URL, "gone")]


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


async def test_an_older_word_does_not_undo_a_later_one(side: Side) -> None:
    await send_on(side)
    change = Change(disabled=[disabled_url(own_id(), OTHER_URL, RING)])
    older = await side.deliveries.change_endpoint(own_id(), change)
    later = await side.deliveries.change_endpoint(own_id(), Change(disabled=[]))
    assert older is not None
    assert later is not None
    for each in (later, older):
        await refresh_mirrors(side.deliveries, each, RING)
    for mirror in mirror_ids():
        assert await disabled(side, mirror) == []


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


async def test_a_mirror_has_as_many_disabled_urls_as_any(store: Store, side: Side) -> None:
    await send_on(side)
    own = await read(side, own_id())
    change = Change(
        disabled=[disabled_url(own.id, f"{own.origin}/{each}", RING) for each in range(100)]
    )
    first = at_mirrors(await side.claim_all("dp-first"))[0]
    full = await side.deliveries.change_endpoint(own.id, change)
    assert full is not None
    await answer_gone(side, first)
    await refresh_mirrors(side.deliveries, full, RING)
    for each in mirror_ids():
        key = f"{partition_prefix(partition_of(each))}ep:{each}:gone"
        assert await store.client.hlen(key) == 100


# What people see


async def test_what_died_at_a_mirror_is_found_by_the_endpoint(side: Side) -> None:
    dead = await send_on(side)
    claimed = await side.claim_all("dp-first")
    await side.deliveries.record([over(each, Bury(reason="exhausted")) for each in claimed])
    assert at_mirrors(claimed)
    kept = [await side.deliveries.read(each) for each in dead]
    assert {each.endpoint for each in kept if each} == {own_id()}
    again = await side.carry_out(
        await side.create(Definition(filter=Filter(endpoint=own_id()), dry_run=True))
    )
    assert (await side.progress(again)).matched == len(dead)


async def test_nothing_is_told_of_a_mirror_of_the_operators_endpoint(
    store: Store, side: Side
) -> None:
    operator = operator_of(OperatorSettings(url=OTHER_URL, tenant="t1"), POLICY)
    notices = Notices(store, side.deliveries, operator, RING)
    await notices.begin()
    await send_on(side)
    lists = [f"{partition_prefix(at)}operator:notices" for at in range(PARTITIONS)]
    told = [await store.client.llen(each) for each in lists]
    claimed = await side.claim_all("dp-first")
    await side.deliveries.record([over(each, Bury(reason="exhausted")) for each in claimed])
    assert [await store.client.llen(each) for each in lists] == told


# What they have a part of


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
