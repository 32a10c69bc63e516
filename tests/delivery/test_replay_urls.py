"""Replays to another URL: whose secret, which endpoint, and when it cannot be used."""

from __future__ import annotations

from dataclasses import replace

from config.ids import new_id, partition_of
from delivery.egress import Policy, parse_destination
from delivery.endpoints import open_secrets, register
from delivery.models import Bury
from delivery.sealing import KeyRing
from tests.delivery.replay_side import ALL, OTHER_URL, Side, bury_some, runner_of
from tests.delivery.test_deadletters import bury, walked_ids
from tests.delivery.test_store import (
    POLICY,
    RING,
    message,
    over,
    registration,
)


async def test_they_go_to_another_url_under_its_own_secret(side: Side) -> None:
    dead = await bury_some(side, 9)
    replay = await side.create(to_url=OTHER_URL)
    assert (await side.carry_out(replay)).state == "completed"
    own = registration("other.example", side.deliveries.partitions).id
    endpoint = await side.deliveries.read_endpoint(own)
    assert endpoint is not None
    secrets = open_secrets(endpoint.secrets["v1"], own, RING)
    claimed = await side.claim_all("dp-next")
    assert sorted(each.id for each in claimed) == sorted(dead)
    for each in claimed:
        assert RING.open(each.url, row=each.id).decode() == OTHER_URL
        assert open_secrets(each.secrets["v1"], each.endpoint, RING) == secrets
        assert partition_of(each.endpoint) == partition_of(each.id)
        assert each.endpoint == own or partition_of(own) != partition_of(each.id)
        kept = await side.deliveries.read(each.id)
        assert kept is not None
        assert kept.origin == "https://other.example"
        assert kept.url == each.url
    listed = [each.origin for each in await side.deliveries.list_endpoints("t1")]
    assert sorted(listed) == [
        *(f"https://host-{at}.example" for at in range(3)),
        "https://other.example",
    ]


async def test_there_they_are_signed_as_before(side: Side) -> None:
    destination = parse_destination("https://a.example/hook", POLICY)
    endpoint = register("t1", destination, RING, side.deliveries.partitions, "v1a")
    await side.deliveries.register_endpoint(endpoint)
    signed = replace(message(endpoint), scheme="v1a")
    await side.deliveries.enqueue(signed)
    [claimed] = await side.claim_all("dp-next")
    await side.deliveries.record([over(claimed, Bury(reason="exhausted"))])
    await side.carry_out(await side.create(to_url=OTHER_URL))
    [again] = await side.claim_all("dp-later")
    assert again.scheme == "v1a"
    secret = open_secrets(again.secrets["v1a"], again.endpoint, RING).newest.text
    assert secret.startswith("whsk_")


async def test_a_test_is_no_letter(side: Side) -> None:
    endpoint = registration("a.example", side.deliveries.partitions)
    await side.deliveries.register_endpoint(endpoint)
    sample = replace(message(endpoint), trigger="test")
    await side.deliveries.enqueue(sample)
    [claimed] = await side.claim_all("dp-next")
    await side.deliveries.record([over(claimed, Bury(reason="exhausted"))])
    assert await walked_ids(side.deliveries) == []
    replay = await side.create(named=[sample.id])
    await side.carry_out(replay)
    assert (await side.progress(replay)).skipped == {"unknown": 1}


async def test_one_under_attempt_by_hand_does_not_change_its_url(side: Side) -> None:
    [waiting, held] = await bury(side.deliveries, "a.example", 2)
    await side.deliveries.redeliver(held, "wish")
    await side.claim_all("dp-next")
    replay = await side.create(to_url=OTHER_URL)
    await side.carry_out(replay)
    assert (await side.progress(replay)).skipped == {"attempted": 1}
    assert await side.states([waiting, held]) == {"pending": 1, "dead": 1}


async def test_another_url_that_cannot_be_used_stops_it(side: Side) -> None:
    dead = await bury_some(side, 3)
    strict = Policy()
    runner = runner_of(side.store, side.deliveries, strict)
    replay = await side.create(to_url="http://127.0.0.1/hook")
    side.runner = runner
    ended = await side.carry_out(replay)
    assert (ended.state, ended.reason) == ("stopped", "destination_not_allowed")
    other = KeyRing({"k2": bytes(32)})
    replay_id = new_id("rpl", 0, 0)
    sealed = other.seal(OTHER_URL.encode(), row=replay_id)
    made = await side.replays.create(replay_id, "t1", "delivery", ALL, to_url=sealed)
    assert made is not None
    assert (await side.carry_out(made)).reason == "unreadable"
    assert await side.states(dead) == {"dead": 3}
