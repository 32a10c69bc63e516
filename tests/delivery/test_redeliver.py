"""Attempts that a person asks for: one each, and what they may change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from config.clock import SECOND
from config.ids import new_id, partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION
from delivery.models import Bury, Claimed, Decision, Deliver, Delivery, Reason, Retry
from delivery.store import DeliveryStore
from tests.conftest import RunningStores
from tests.delivery.packing import pack
from tests.delivery.replaying import dead_letters, replay
from tests.delivery.test_delivery_machine import DeliveryMachine, Picks, chosen
from tests.delivery.test_store import claim, enqueue, over, wanted

HOUR = 3600 * SECOND
DAY = 86_400
GONE = -2
"""What a key that is not there has to live."""

FAILURES = (Retry(delay=HOUR), Bury(reason="exhausted"), Bury(reason="gone"))


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    """Return the deliveries of an empty store."""
    return DeliveryStore(store, partitions)


async def end(
    deliveries: DeliveryStore, verdict: Deliver | Bury, *, host: str = "a.example"
) -> str:
    """Make a delivery that ended as `verdict` says."""
    [identifier] = await enqueue(deliveries, host)
    [claimed] = await claim(deliveries, wanted(1, process="dp-first"))
    assert await deliveries.record([over(claimed, verdict)]) == []
    return identifier


async def read(deliveries: DeliveryStore, identifier: str) -> Delivery:
    """Return a delivery that must be there."""
    kept = await deliveries.read(identifier)
    assert kept is not None
    return kept


async def lives(store: Store, identifier: str) -> list[int]:
    """Return the seconds that the delivery and its body have to live; -1 for ever."""
    key = f"{partition_prefix(partition_of(identifier))}d:{identifier}"
    return [int(await store.client.ttl(name)) for name in (key, f"{key}:body")]


def set_aside(claimed: Claimed) -> Decision:
    """Return the decision on an attempt that was cut off before anything was sent."""
    return Decision(
        verdict=Retry(delay=0),
        used=claimed.used,
        step=claimed.step,
        limit="keep",
        breaker="neutral",
    )


async def test_a_pending_one_moves_to_now(deliveries: DeliveryStore) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    [first] = await claim(deliveries, wanted(1))
    await deliveries.record([over(first, Retry(delay=HOUR))])
    assert await claim(deliveries, wanted(2)) == []
    assert await deliveries.redeliver(identifier, "wish") == "pending"
    assert not (await read(deliveries, identifier)).is_manual
    [second] = await claim(deliveries, wanted(3))
    assert (second.id, second.number, second.trigger) == (identifier, 2, "schedule")


async def test_one_that_is_being_attempted_is_left_alone(deliveries: DeliveryStore) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    assert await deliveries.redeliver(identifier, "wish") == "pending"
    assert await claim(deliveries, wanted(2)) == []
    assert await deliveries.record([over(claimed, Deliver())]) == []
    assert (await read(deliveries, identifier)).state == "delivered"


@pytest.mark.parametrize("verdict", [Deliver(), *FAILURES])
async def test_a_delivered_one_stays_delivered_whatever_comes_of_it(
    deliveries: DeliveryStore, store: Store, verdict: Deliver | Retry | Bury
) -> None:
    identifier = await end(deliveries, Deliver())
    before = await read(deliveries, identifier)
    kept_for = await lives(store, identifier)
    assert await deliveries.redeliver(identifier, "wish") == "delivered"
    waiting = await read(deliveries, identifier)
    assert (waiting.state, waiting.is_manual) == ("delivered", True)
    assert waiting.next_attempt_at is not None
    assert await lives(store, identifier) == [-1, -1]

    [again] = await claim(deliveries, wanted(1))
    assert (again.id, again.number, again.trigger) == (identifier, 2, "manual")
    assert again.body == b'{"type":"job.completed"}'
    assert await deliveries.record([over(again, verdict)]) == []
    after = await read(deliveries, identifier)
    assert (after.state, after.reason, after.ended_at) == ("delivered", None, before.ended_at)
    assert (after.attempts, after.is_manual, after.next_attempt_at) == (2, False, None)
    assert [each["number"] for each in after.history] == [1, 2]
    for now, then in zip(await lives(store, identifier), kept_for, strict=True):
        assert then - 60 <= now <= then
    assert await claim(deliveries, wanted(2)) == []


@pytest.mark.parametrize("reason", ["exhausted", "gone", "destination_not_allowed"])
@pytest.mark.parametrize("verdict", FAILURES)
async def test_a_dead_one_that_is_not_taken_stays_dead_as_it_was(
    deliveries: DeliveryStore, reason: Reason, verdict: Retry | Bury
) -> None:
    identifier = await end(deliveries, Bury(reason=reason))
    before = await read(deliveries, identifier)
    assert await deliveries.redeliver(identifier, "wish") == "dead"
    [again] = await claim(deliveries, wanted(1))
    assert again.trigger == "manual"
    await deliveries.record([over(again, verdict)])
    after = await read(deliveries, identifier)
    assert (after.state, after.reason, after.ended_at) == ("dead", reason, before.ended_at)
    [listed] = await dead_letters(deliveries, partition_of(identifier))
    assert (listed.letter.place, listed.letter.reason) == ((after.ended_at, identifier), reason)
    assert listed.attempts == 2
    assert await claim(deliveries, wanted(2)) == []


async def test_a_dead_one_that_is_taken_is_delivered(
    deliveries: DeliveryStore, store: Store
) -> None:
    identifier = await end(deliveries, Bury(reason="exhausted"))
    await deliveries.redeliver(identifier, "wish")
    [again] = await claim(deliveries, wanted(1))
    await deliveries.record([over(again, Deliver())])
    after = await read(deliveries, identifier)
    assert (after.state, after.reason, after.is_manual) == ("delivered", None, False)
    assert await dead_letters(deliveries, partition_of(identifier)) == []
    for life in await lives(store, identifier):
        assert 0 < life <= DEFAULT_RETENTION.delivered // SECOND + DAY  # kept a day beyond its time


async def test_the_same_wish_twice_is_one_attempt(deliveries: DeliveryStore) -> None:
    identifier = await end(deliveries, Deliver())
    for _ in range(2):
        await deliveries.redeliver(identifier, "wish")
    [again] = await claim(deliveries, wanted(1))
    await deliveries.record([over(again, Deliver())])
    assert await deliveries.redeliver(identifier, "wish") == "delivered"
    assert await claim(deliveries, wanted(2)) == []
    await deliveries.redeliver(identifier, "another wish")
    assert len(await claim(deliveries, wanted(3))) == 1


async def test_an_attempt_that_was_cut_off_is_made_again(deliveries: DeliveryStore) -> None:
    identifier = await end(deliveries, Deliver())
    await deliveries.redeliver(identifier, "wish")
    [first] = await claim(deliveries, wanted(1))
    await deliveries.record([replace(over(first, Deliver()), decision=set_aside(first))])
    [second] = await claim(deliveries, wanted(2))
    assert (second.number, second.trigger) == (3, "manual")
    await deliveries.record([over(second, Bury(reason="exhausted"))])
    assert (await read(deliveries, identifier)).state == "delivered"


async def test_replaying_one_that_waits_for_a_manual_attempt_is_one_attempt(
    deliveries: DeliveryStore,
) -> None:
    identifier = await end(deliveries, Bury(reason="exhausted"))
    await deliveries.redeliver(identifier, "wish")
    await replay(deliveries, [identifier])
    [again] = await claim(deliveries, wanted(1))
    assert again.trigger == "replay"
    await deliveries.record([over(again, Retry(delay=HOUR))])
    assert (await read(deliveries, identifier)).state == "pending"


async def test_replaying_during_a_manual_attempt_goes_on_from_it(
    deliveries: DeliveryStore,
) -> None:
    identifier = await end(deliveries, Bury(reason="exhausted"))
    await deliveries.redeliver(identifier, "wish")
    [manual] = await claim(deliveries, wanted(1))
    await replay(deliveries, [identifier])
    assert await claim(deliveries, wanted(2)) == []
    await deliveries.record([over(manual, Retry(delay=0))])
    [again] = await claim(deliveries, wanted(3))
    assert (again.id, again.trigger) == (identifier, "replay")


async def test_what_there_is_nothing_of(deliveries: DeliveryStore, store: Store) -> None:
    assert await deliveries.redeliver(new_id("msg", 0, 0), "wish") is None
    identifier = await end(deliveries, Deliver())
    key = f"{partition_prefix(partition_of(identifier))}d:{identifier}:body"
    await store.client.delete(key)
    assert await deliveries.redeliver(identifier, "wish") == "redelivery_over"


class RedeliverMachine(DeliveryMachine):
    """Every transition of deliveries, those by hand among them."""

    def __init__(self) -> None:
        super().__init__()
        self.wishes = 0
        self.taken: set[str] = set()

    @precondition(lambda self: self.messages)
    @rule(numbers=Picks, again=st.booleans())
    def redeliver(self, numbers: list[int], *, again: bool) -> None:
        self.wishes += not again
        for each in chosen(numbers, self.messages):
            before = self.do(self.deliveries.read(each.id))
            assert before is not None
            said = self.do(self.deliveries.redeliver(each.id, str(self.wishes)))
            if before.url:
                assert said == before.state
                self.delivered.discard(each.id)
            else:
                assert said == "redelivery_over"

    @precondition(lambda self: self.messages)
    @rule()
    def pack(self) -> None:
        def read() -> list[Delivery | None]:
            return [self.do(self.deliveries.read(each.id)) for each in self.messages]

        before = read()
        self.do(pack(self.deliveries))
        for was, now in zip(before, read(), strict=True):
            assert was is not None
            is_over = was.state == "delivered" and not was.is_manual
            assert now == (replace(was, url=b"") if is_over else was)

    @invariant()
    def every_delivery_has_its_place(self) -> None:
        self.taken |= self.delivered
        places = self.places()
        for each in self.messages:
            packed, state, claim, manual, is_dead, *lives = self.ask(
                [
                    ("HEXISTS", self.key(each.id, "d", each.id), "packed"),
                    ("HGET", self.key(each.id, "d", each.id), "state"),
                    ("HEXISTS", self.key(each.id, "d", each.id), "claim"),
                    ("HEXISTS", self.key(each.id, "d", each.id), "manual"),
                    ("ZSCORE", self.key(each.id, "dead"), each.id),
                    ("TTL", self.key(each.id, "d", each.id)),
                    ("TTL", self.key(each.id, "d", each.id, "body")),
                ]
            )
            if packed:
                assert lives[1] == GONE, (each.id, lives)
                state = b"delivered"
            where = places.get(each.id, [])
            is_owed = state == b"pending" or bool(manual)
            assert not (state == b"pending" and manual), each.id
            assert len(where) == is_owed, (each.id, state, where)
            assert bool(claim) == (where == ["inflight"]), (each.id, where)
            assert (is_dead is not None) == (state == b"dead"), (each.id, state)
            assert [life == -1 for life in lives] == [is_owed] * 2, (each.id, state, lives)
            assert each.id not in self.taken or state == b"delivered", (each.id, state)


@pytest.mark.timeout(300)  # making a failure small takes a while
def test_deliveries_keep_to_their_states(stores: RunningStores, partitions: int) -> None:
    class Machine(RedeliverMachine):
        url = stores.durable_url

    Machine.partitions = partitions
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
