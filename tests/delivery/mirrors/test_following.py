"""Mirrors: what they and the endpoint that they are like know of each other."""

from __future__ import annotations

from collections import Counter

from config.ids import partition_of
from config.scripts import partition_prefix
from config.sections import OperatorSettings
from config.store import Store
from delivery.endpoints import Change, disabled_url, open_secrets
from delivery.letters import Filter
from delivery.mirrors import MirrorNews, refresh_mirrors
from delivery.models import Bury
from delivery.notices import Notices, operator_of
from delivery.replays import Definition
from delivery.rotation import change_secrets
from delivery.secrets import Secrets
from delivery.signing import generate_secret
from tests.delivery.mirrors.conftest import (
    HOST,
    PARTITIONS,
    answer_gone,
    at_mirrors,
    disabled,
    mirror_ids,
    own_id,
    read,
    send_on,
)
from tests.delivery.replay_side import OTHER_URL, Side, bury_some
from tests.delivery.test_store import (
    POLICY,
    RING,
    claim,
    enqueue,
    over,
    registration,
    wanted,
)


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
