"""The scheduler and the transitions of deliveries, against a real store."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import count

import pytest

from config.clock import SECOND
from config.ids import derived_id, new_id, partition_of
from config.store import Store
from delivery.egress import Policy, parse_destination
from delivery.endpoints import Registration, register, url_hash
from delivery.models import Attempted, Batch, Bury, Claimed, Decision, Deliver, Message, Retry
from delivery.sealing import KeyRing
from delivery.store import DeliveryStore, Wanted
from tests.delivery.replaying import dead_letters, replay

RING = KeyRing({"k1": bytes(32)})
POLICY = Policy(allow_http=True, allow_loopback=True, ports=None)
_NUMBERS = count()


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    return DeliveryStore(store, partitions)


def registration(host: str, partitions: int, tenant: str = "t1") -> Registration:
    destination = parse_destination(f"https://{host}/hook", POLICY)
    return register(tenant, destination, RING, partitions)


def message(endpoint: Registration, path: str = "/hook") -> Message:
    url = f"{endpoint.origin}{path}"
    identifier = derived_id("msg", partition_of(endpoint.id), str(next(_NUMBERS)))
    return Message(
        id=identifier,
        endpoint=endpoint.id,
        tenant=endpoint.tenant,
        url=RING.seal(url.encode(), row=identifier),
        url_hash=url_hash(url),
        tags='{"jobId":"job_1"}',
        body=b'{"type":"job.completed"}',
    )


async def enqueue(
    deliveries: DeliveryStore, host: str, number: int = 1, tenant: str = "t1"
) -> list[str]:
    endpoint = registration(host, deliveries.partitions, tenant)
    await deliveries.register_endpoint(endpoint)
    messages = [message(endpoint) for _ in range(number)]
    for each in messages:
        assert await deliveries.enqueue(each)
    return [each.id for each in messages]


def wanted(sequence: int, limit: int = 10, process: str = "dp-1") -> Wanted:
    """Return a wish that no share bounds: one tenant may have half of what the unproven may."""
    return Wanted(
        process=process,
        sequence=sequence,
        limit=limit,
        lease=30 * SECOND,
        unproven=2 * limit,
        replays=limit,
        suspect=True,
        per_turn=8,
        per_endpoint=max(limit, 1),
        per_tenant=max(limit, 1),
        endpoints={},
        tenants={},
    )


async def claim(deliveries: DeliveryStore, want: Wanted) -> list[Claimed]:
    batches = await claim_all(deliveries, want)
    return [delivery for batch in batches.values() for delivery in batch.deliveries]


async def claim_all(deliveries: DeliveryStore, want: Wanted) -> dict[int, Batch]:
    return await deliveries.claim(dict.fromkeys(range(deliveries.partitions), want))


def over(
    claimed: Claimed,
    verdict: Deliver | Retry | Bury,
    *,
    limit: str = "keep",
    breaker: str = "neutral",
) -> Attempted:
    return Attempted(
        id=claimed.id,
        claim=claimed.claim,
        decision=Decision(
            verdict=verdict,
            used=claimed.used + 1,
            step=claimed.step + 1,
            limit=limit,  # type: ignore[arg-type]
            breaker=breaker,  # type: ignore[arg-type]
        ),
        status=200,
        outcome=type(verdict).__name__.lower(),
        record=json.dumps({"outcome": type(verdict).__name__.lower()}),
    )


async def test_a_delivery_goes_from_pending_to_delivered(deliveries: DeliveryStore) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    assert (claimed.id, claimed.number, claimed.trigger) == (identifier, 1, "schedule")
    assert claimed.body == b'{"type":"job.completed"}'
    assert RING.open(claimed.secrets["v1"], row=claimed.endpoint).startswith(b"whsec_")
    assert await claim(deliveries, wanted(2)) == []

    assert await deliveries.record([over(claimed, Deliver())]) == []
    kept = await deliveries.read(identifier)
    assert kept is not None
    assert (kept.state, kept.attempts, kept.last_status) == ("delivered", 1, 200)
    assert kept.history == ({"number": 1, "outcome": "deliver"},)
    assert await claim(deliveries, wanted(3)) == []


async def test_enqueueing_twice_makes_one_delivery(deliveries: DeliveryStore) -> None:
    endpoint = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(endpoint)
    once = message(endpoint)
    assert await deliveries.enqueue(once)
    assert not await deliveries.enqueue(replace(once, body=b"other"))
    [claimed] = await claim(deliveries, wanted(1))
    assert claimed.body == once.body


async def test_an_unknown_endpoint_is_an_error(deliveries: DeliveryStore) -> None:
    with pytest.raises(KeyError):
        await deliveries.enqueue(message(registration("a.example", deliveries.partitions)))


async def test_registering_again_keeps_the_first_secret(deliveries: DeliveryStore) -> None:
    first, made = await deliveries.register_endpoint(
        registration("a.example", deliveries.partitions)
    )
    again, made_again = await deliveries.register_endpoint(
        registration("a.example", deliveries.partitions)
    )
    assert (made, made_again) == (True, False)
    assert first.secrets == again.secrets
    assert await deliveries.list_endpoints("t1") == [again]
    assert await deliveries.list_endpoints("t2") == []
    assert await deliveries.read_endpoint(first.id) == again
    assert await deliveries.read_endpoint(new_id("ep", 0, 0)) is None


async def test_the_same_sequence_gets_the_same_batch(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example", 5)
    first = await claim(deliveries, wanted(1, limit=3))
    again = await claim(deliveries, wanted(1, limit=3))
    assert len(first) == 3
    assert again == first
    assert len(await claim(deliveries, wanted(2))) == 2


async def test_a_result_recorded_twice_counts_once(deliveries: DeliveryStore) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    result = over(claimed, Retry(delay=60 * SECOND))
    assert await deliveries.record([result]) == []
    before = await deliveries.read(identifier)
    assert await deliveries.record([result]) == []
    assert await deliveries.read(identifier) == before


async def test_a_result_under_a_foreign_claim_changes_nothing(deliveries: DeliveryStore) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    before = await deliveries.read(identifier)
    stale = over(replace(claimed, claim="dp-2:1:1"), Deliver())
    assert await deliveries.record([stale]) == [identifier]
    assert await deliveries.read(identifier) == before


async def test_a_retry_is_due_after_its_delay(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Retry(delay=3600 * SECOND))])
    batches = await claim_all(deliveries, wanted(2))
    assert all(not batch.deliveries for batch in batches.values())
    batch = batches[partition_of(claimed.id)]
    assert batch.next_at is not None
    assert 3590 * SECOND < batch.next_at - batch.now <= 3600 * SECOND


async def test_a_retry_without_delay_is_due_at_once(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example")
    [first] = await claim(deliveries, wanted(1))
    await deliveries.record([over(first, Retry(delay=0))])
    [second] = await claim(deliveries, wanted(2))
    assert (second.id, second.number, second.used, second.step) == (first.id, 2, 1, 1)


async def test_a_dead_letter_is_listed_and_replayed_with_its_history(
    deliveries: DeliveryStore,
) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Bury(reason="exhausted"))])
    partition = partition_of(identifier)
    [dead] = await dead_letters(deliveries, partition)
    assert (dead.letter.id, dead.state, dead.letter.reason) == (identifier, "dead", "exhausted")
    assert dead.letter.origin == "https://a.example"
    assert await deliveries.read_body(identifier) == claimed.body

    assert await replay(deliveries, [identifier]) == {identifier: "dead"}
    assert await replay(deliveries, [identifier]) == {identifier: "pending"}
    assert await dead_letters(deliveries, partition) == []
    [again] = await claim(deliveries, wanted(2))
    assert (again.id, again.trigger, again.number, again.used) == (identifier, "replay", 2, 0)
    await deliveries.record([over(again, Deliver())])
    kept = await deliveries.read(identifier)
    assert kept is not None
    assert [attempt["number"] for attempt in kept.history] == [1, 2]
    assert kept.state == "delivered"


async def test_replays_wait_behind_live_traffic(deliveries: DeliveryStore) -> None:
    [old] = await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Bury(reason="exhausted"))])
    await replay(deliveries, [old])
    [new] = await enqueue(deliveries, "a.example")
    assert [each.id for each in await claim(deliveries, wanted(2, limit=1))] == [new]
    assert [each.id for each in await claim(deliveries, wanted(3, limit=1))] == [old]


async def test_replaying_the_unknown_says_so(deliveries: DeliveryStore) -> None:
    unknown = derived_id("msg", 0, "nothing")
    assert await replay(deliveries, [unknown]) == {unknown: "unknown"}


async def test_gone_disables_the_exact_url_and_not_its_origin(deliveries: DeliveryStore) -> None:
    endpoint = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(endpoint)
    first, later, other = message(endpoint), message(endpoint), message(endpoint, "/other")
    for each in (first, later):
        await deliveries.enqueue(each)
    [claimed] = await claim(deliveries, wanted(1, limit=1))
    await deliveries.record([over(claimed, Bury(reason="gone"))])
    await deliveries.enqueue(other)
    assert [each.id for each in await claim(deliveries, wanted(2))] == [other.id]
    buried = await deliveries.read(later.id)
    assert buried is not None
    assert (buried.state, buried.reason) == ("dead", "disabled")
    at_once = message(endpoint)
    await deliveries.enqueue(at_once)
    refused = await deliveries.read(at_once.id)
    assert refused is not None
    assert refused.reason == "disabled"


async def test_endpoints_take_turns(deliveries: DeliveryStore) -> None:
    """A long backlog of one endpoint does not hold up the others."""
    await enqueue(deliveries, "busy.example", 200)
    for number in range(20):
        await enqueue(deliveries, f"quiet-{number}.example")
    claimed: list[Claimed] = []
    for sequence in range(1, 8):
        claimed += await claim(deliveries, wanted(sequence, limit=8))
    served = Counter(each.endpoint for each in claimed)
    assert len(served) == 21


async def test_a_full_endpoint_waits_for_its_leases(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example", 20)
    first = await claim(deliveries, wanted(1, limit=100))
    assert len(first) == deliveries.retention.initial_limit
    assert await claim(deliveries, wanted(2, limit=100)) == []
    await deliveries.record([over(first[0], Deliver(), limit="grow", breaker="good")])
    assert len(await claim(deliveries, wanted(3, limit=100))) == 2


async def test_the_limit_halves_and_recovers(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example", 20)
    first = await claim(deliveries, wanted(1, limit=100))
    retry = Retry(delay=3600 * SECOND)
    await deliveries.record([over(each, retry, limit="halve") for each in first])
    endpoint = await deliveries.read_endpoint(first[0].endpoint)
    assert endpoint is not None
    assert endpoint.limit == deliveries.retention.initial_limit // 2


async def test_the_breaker_opens_and_a_good_answer_closes_it(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example", 20)
    first = await claim(deliveries, wanted(1, limit=100))
    bad = [over(each, Retry(delay=0), breaker="bad") for each in first[:5]]
    await deliveries.record(bad)
    endpoint = await deliveries.read_endpoint(first[0].endpoint)
    assert endpoint is not None
    assert endpoint.open_until is not None
    assert endpoint.consecutive_failures == 5
    assert await claim(deliveries, wanted(2, limit=100)) == []
    await deliveries.record([over(first[5], Deliver(), breaker="good")])
    healed = await deliveries.read_endpoint(first[0].endpoint)
    assert healed is not None
    assert (healed.open_until, healed.consecutive_failures) == (None, 0)
    assert await claim(deliveries, wanted(3, limit=100)) != []


async def test_a_tenant_at_its_share_waits_while_others_do(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example", 8, tenant="bulk")
    await enqueue(deliveries, "b.example", 8, tenant="small")
    shares = {"tenants": {"bulk": 0}, "per_tenant": 2}
    claimed = await claim(deliveries, replace(wanted(1, limit=2), **shares))  # type: ignore[arg-type]
    if deliveries.partitions == 1:
        assert {each.tenant for each in claimed} == {"small"}
    rest = await claim(deliveries, replace(wanted(2, limit=100), **shares))  # type: ignore[arg-type]
    assert "bulk" in {each.tenant for each in [*claimed, *rest]}


async def test_an_endpoint_at_its_share_gets_nothing(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example", 8)
    endpoint = registration("a.example", deliveries.partitions)
    want = replace(wanted(1), endpoints={endpoint.id: 0})
    assert await claim(deliveries, want) == []
    assert len(await claim(deliveries, wanted(2))) > 0


async def test_unproven_endpoints_get_no_more_than_their_slots(deliveries: DeliveryStore) -> None:
    for number in range(10):
        for tenant in ("t1", "t2", "t3"):
            await enqueue(deliveries, f"new-{number}.example", 4, tenant=tenant)
    claimed = await claim(deliveries, replace(wanted(1, limit=40), unproven=3))
    per_partition = Counter(partition_of(each.id) for each in claimed)
    assert max(per_partition.values()) == 3
    assert not any(each.proven for each in claimed)


async def lapse(store: Store, deliveries: DeliveryStore) -> None:
    """End every lease, as time would."""
    for partition in range(deliveries.partitions):
        prefix = f"gw:{{p{partition:02d}}}:"
        async for key in store.client.scan_iter(f"{prefix}ep:*:inflight"):
            members: list[bytes] = await store.client.zrange(key, 0, -1)  # type: ignore[assignment]
            for member in members:
                await store.client.zadd(key, {member: 1})
            endpoint = key.decode().split(":")[-2]
            await store.client.zadd(f"{prefix}agenda", {endpoint: 1})


async def test_a_lapsed_lease_gives_the_delivery_back(
    store: Store, deliveries: DeliveryStore
) -> None:
    await enqueue(deliveries, "a.example")
    [first] = await claim(deliveries, wanted(1))
    await lapse(store, deliveries)
    [second] = await claim(deliveries, wanted(1, process="dp-2"))
    assert (second.id, second.number, second.suspect) == (first.id, 2, False)
    assert await deliveries.record([over(first, Deliver())]) == [first.id]
    assert await deliveries.record([over(second, Deliver())]) == []


async def test_a_delivery_that_kills_processes_is_suspected_and_buried(
    store: Store, deliveries: DeliveryStore
) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    suspected = []
    for attempt in range(1, 6):
        process = f"dp-{attempt}"
        [claimed] = await claim(deliveries, wanted(1, process=process))
        suspected.append(claimed.suspect)
        for partition in range(deliveries.partitions):
            await store.client.zrem(f"gw:{{p{partition:02d}}}:procs", process)
        await lapse(store, deliveries)
    assert await claim(deliveries, wanted(1, process="dp-9")) == []
    kept = await deliveries.read(identifier)
    assert kept is not None
    assert (kept.state, kept.reason) == ("dead", "poison")
    assert suspected == [False, False, True, True, True]


async def test_no_lease_is_taken_for_lost_after_a_time_without_sweeps(
    store: Store, deliveries: DeliveryStore
) -> None:
    await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    await lapse(store, deliveries)
    for partition in range(deliveries.partitions):
        await store.client.set(f"gw:{{p{partition:02d}}}:swept:deliveries", 1)
    assert await claim(deliveries, wanted(2)) == []
    assert await deliveries.record([over(claimed, Deliver())]) == []


async def test_a_sleeper_is_woken_by_what_is_due_earlier(
    store: Store, deliveries: DeliveryStore
) -> None:
    await claim(deliveries, wanted(1))
    channels = [f"gw:{{p{at:02d}}}:wake:delivery" for at in range(deliveries.partitions)]
    async with store.subscription(*channels) as messages:
        heard = aiter(messages)
        assert {await anext(heard) for _ in channels} == set(channels)
        [identifier] = await enqueue(deliveries, "a.example")
        assert await anext(heard) == channels[partition_of(identifier)]


async def test_two_hundred_full_endpoints_do_not_starve_a_healthy_one(
    deliveries: DeliveryStore,
) -> None:
    for number in range(200):
        await enqueue(deliveries, f"full-{number}.example", 9)
    sequence = 1
    while await claim(deliveries, wanted(sequence, limit=100)):
        sequence += 1
    [healthy] = await enqueue(deliveries, "healthy.example")
    assert [each.id for each in await claim(deliveries, wanted(sequence + 1))] == [healthy]
