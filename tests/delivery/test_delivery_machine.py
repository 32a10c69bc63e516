"""The transitions of deliveries in any order and any of them twice: what must hold after each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from config.clock import SECOND
from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import connect
from delivery.bounds import DEFAULT_RETENTION
from delivery.endpoints import Change, Registration, disabled_url
from delivery.models import Attempted, Bury, Claimed, Deliver, Message, Retry
from delivery.store import DeliveryStore, Wanted
from tests.conftest import RunningStores
from tests.delivery.replaying import replay
from tests.delivery.test_store import RING, claim_all, message, over, registration, wanted

HOUR = 3600 * SECOND
PATHS = ("/a", "/b")
QUEUES = ("live", "replay", "inflight", "suspects")
AGES_AGO = 1
"""A score in the past of every instant: what waits for it is due."""

ENDPOINTS = (
    ("a.example", "t0"),
    ("b.example", "t1"),
    ("c.example", "t0"),
    ("a.example", "t1"),
    ("a.example", "t2"),
)
"""Hosts and tenants: three tenants share a host."""

PROCESSES = ("dp-a", "dp-b")
HOST_LIMIT = 4
PACKED_OVERHEAD = 256
"""Bytes that a packed delivery counts for beside its value."""

RETENTION = replace(DEFAULT_RETENTION, initial_limit=3, max_limit=5, host_limit=HOST_LIMIT)
VERDICTS: tuple[Deliver | Retry | Bury, ...] = (
    Deliver(),
    Retry(delay=0),
    Retry(delay=HOUR),
    Bury(reason="exhausted"),
    Bury(reason="gone"),
)
ROUNDS = 200
"""In how many claims a handful of deliveries must have ended, whatever happened to them before."""

T = TypeVar("T")
Key = tuple[str, str]
"""A delivery and the claim it was given out under."""

Picks = st.lists(st.integers(0, 10_000), min_size=1, max_size=4)
Slots = st.just(6) | st.integers(0, 6)
Left = st.just(6) | st.integers(-1, 3)
Processes = st.sampled_from(PROCESSES)
Verdicts = st.sampled_from(VERDICTS)


def chosen(numbers: Sequence[int], among: Sequence[T]) -> list[T]:
    """Return the members that `numbers` stand for, each once."""
    return [among[at] for at in sorted({number % len(among) for number in numbers})]


class DeliveryMachine(RuleBasedStateMachine):
    """Every transition, chosen at random, on a few deliveries to a few endpoints."""

    url = ""
    partitions = 1

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = connect(self.url, max_connections=4, socket_timeout=5)
        self.deliveries = DeliveryStore(self.store, self.partitions, RETENTION)
        self.endpoints = [
            registration(host, self.partitions, tenant=tenant) for host, tenant in ENDPOINTS
        ]
        self.paused: set[str] = set()
        self.messages: list[Message] = []
        self.sequences = dict.fromkeys(PROCESSES, 0)
        self.is_lost = dict.fromkeys(PROCESSES, False)
        self.held: dict[Key, Claimed] = {}
        self.lapsed: set[Key] = set()
        self.delivered: set[str] = set()
        self.do(self.store.client.flushall())
        for endpoint in self.endpoints:
            self.do(self.deliveries.register_endpoint(endpoint))

    def teardown(self) -> None:
        try:
            self.everything_ends()
        finally:
            self.do(self.store.close())
            self.loop.close()

    def do(self, step: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await step

        return self.loop.run_until_complete(awaited())

    def ask(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        """Run commands in one round trip."""
        pipeline = self.store.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return self.do(pipeline.execute())

    def prefixes(self) -> Iterator[str]:
        return map(partition_prefix, range(self.partitions))

    def key(self, identifier: str, *parts: str) -> str:
        """Return a key of the partition that `identifier` belongs to."""
        return partition_prefix(partition_of(identifier)) + ":".join(parts)

    # What happens

    @rule(numbers=Picks, path=st.sampled_from(PATHS))
    def enqueue(self, numbers: list[int], path: str) -> None:
        for number in numbers:
            made = message(self.endpoints[number % len(self.endpoints)], path)
            self.messages.append(made)
            assert self.do(self.deliveries.enqueue(made))

    @precondition(lambda self: self.messages)
    @rule(numbers=Picks)
    def enqueue_again(self, numbers: list[int]) -> None:
        for each in chosen(numbers, self.messages):
            assert not self.do(self.deliveries.enqueue(each))

    @rule(
        process=Processes,
        limit=Slots,
        unproven=Slots,
        replays=Slots,
        suspect=st.booleans(),
        endpoint=Left,
        tenant=Left,
        held=Slots,
        is_lost=st.integers(0, 3).map(lambda number: number == 0),
    )
    def claim(
        self,
        *,
        process: str,
        limit: int,
        unproven: int,
        replays: int,
        suspect: bool,
        endpoint: int,
        tenant: int,
        held: int,
        is_lost: bool,
    ) -> None:
        want = replace(
            wanted(0, limit=limit, process=process),
            unproven=min(limit, unproven),
            replays=min(limit, replays),
            suspect=suspect,
            per_turn=2,
            endpoints={self.endpoints[0].id: endpoint},
            tenants={"t0": tenant},
            unproven_held={"t0": held},
        )
        self.claimed(want, is_lost=is_lost)

    def claimed(self, want: Wanted, *, is_lost: bool = False) -> list[Key]:
        """Claim; a process whose reply was lost asks for the same batch again."""
        again = self.is_lost[want.process]
        self.sequences[want.process] += not again
        self.is_lost[want.process] = is_lost
        want = replace(want, sequence=self.sequences[want.process])
        keys: list[Key] = []
        for batch in self.do(claim_all(self.deliveries, want)).values():
            if not again:
                self.keeps_to_its_limits(want, batch.deliveries)
            if not is_lost:
                self.hold(batch.deliveries)
                keys += [(each.id, each.claim) for each in batch.deliveries]
        return keys

    @rule(process=Processes, verdict=Verdicts)
    def attempt(self, process: str, verdict: Deliver | Retry | Bury) -> None:
        """Claim all that can be claimed, and record it at once."""
        self.end(self.claimed(wanted(0, limit=40, process=process)), verdict)

    @rule(process=Processes, times=st.integers(1, 6))
    def die(self, process: str, times: int) -> None:
        """Claim all that can be claimed, and never be heard of again."""
        for _ in range(times):
            self.claimed(wanted(0, limit=40, process=process))
            self.leases_end(with_processes=True)

    def keeps_to_its_limits(self, want: Wanted, batch: Sequence[Claimed]) -> None:
        suspects = [each for each in batch if each.suspect]
        assert len(batch) <= want.limit
        assert len(suspects) <= want.suspect
        new = [each for each in batch if not each.proven and not each.suspect]
        assert len(new) <= want.unproven
        for tenant, number in Counter(each.tenant for each in new).items():
            held = want.unproven_held.get(tenant, 0)
            # What it has then is no more than what it left; but for one that has but one.
            assert held + number <= max(want.unproven - number, held == 0)
        assert sum(each.trigger == "replay" and not each.suspect for each in batch) <= want.replays
        assert self.paused.isdisjoint(each.endpoint for each in batch)
        mine = [each for each in batch if each.endpoint == self.endpoints[0].id]
        left = max(0, want.endpoints.get(self.endpoints[0].id, want.per_endpoint))
        assert sum(not each.suspect for each in mine) <= left

    def hold(self, batch: Sequence[Claimed]) -> None:
        for each in batch:
            others = {claim for id_, claim in self.held.keys() - self.lapsed if id_ == each.id}
            assert others <= {each.claim}
            assert each.id not in self.delivered
            self.held[each.id, each.claim] = each
            self.lapsed.discard((each.id, each.claim))

    # Without a precondition: what is held depends on the time that passes at a rate, and which
    # rules may be drawn must depend on what was drawn alone.
    @rule(
        numbers=Picks,
        verdict=Verdicts,
        limit=st.sampled_from(["grow", "halve", "keep"]),
        breaker=st.sampled_from(["good", "bad", "neutral"]),
        twice=st.booleans(),
    )
    def record(
        self,
        numbers: list[int],
        verdict: Deliver | Retry | Bury,
        limit: str,
        breaker: str,
        twice: bool,
    ) -> None:
        keys = chosen(numbers, sorted(self.held)) if self.held else []
        self.end(keys, verdict, limit=limit, breaker=breaker, twice=twice)

    def end(
        self,
        keys: Sequence[Key],
        verdict: Deliver | Retry | Bury,
        *,
        limit: str = "keep",
        breaker: str = "neutral",
        twice: bool = False,
    ) -> None:
        ended = [over(self.held.pop(key), verdict, limit=limit, breaker=breaker) for key in keys]
        stale = self.recorded(ended)
        # Of one delivery there may be an attempt that is lost and one that is not.
        lost = {id_ for id_, _ in self.lapsed.intersection(keys)}
        assert set(stale) <= lost
        if twice:
            assert self.recorded(ended) == stale

    def recorded(self, ended: list[Attempted]) -> list[str]:
        stale = self.do(self.deliveries.record(ended))
        self.delivered |= {
            each.id
            for each in ended
            if isinstance(each.decision.verdict, Deliver) and each.id not in stale
        }
        return stale

    @precondition(lambda self: self.messages)
    @rule(numbers=Picks)
    def replay(self, numbers: list[int]) -> None:
        ids = [each.id for each in chosen(numbers, self.messages)]
        before = self.do(replay(self.deliveries, ids))
        after = self.do(replay(self.deliveries, ids))
        assert after == {id_: "pending" if was == "dead" else was for id_, was in before.items()}

    # What operators do

    @rule(numbers=Picks, pause=st.booleans(), twice=st.booleans())
    def pause_or_resume(self, numbers: list[int], *, pause: bool, twice: bool) -> None:
        change = self.deliveries.pause_endpoint if pause else self.deliveries.resume_endpoint
        for each in chosen(numbers, self.endpoints):
            first = self.do(change(each.id))
            again = self.do(change(each.id)) if twice else first
            assert first is not None
            assert again is not None
            assert again.paused_since == first.paused_since
            assert (first.paused_since is not None) == pause
            (self.paused.add if pause else self.paused.discard)(each.id)

    @rule(
        numbers=Picks,
        rate=st.sampled_from([None, 0.001, 3.0, 1_000.0]),
        most=st.sampled_from([None, 1, 3]),
        paths=st.sets(st.sampled_from(PATHS)),
    )
    def change(
        self, numbers: list[int], rate: float | None, most: int | None, paths: set[str]
    ) -> None:
        for each in chosen(numbers, self.endpoints):
            urls = [disabled_url(each.id, f"{each.origin}{path}", RING) for path in paths]
            wish = Change(rate=rate, max_limit=most, disabled=urls)
            for _ in range(2):
                changed = self.do(self.deliveries.change_endpoint(each.id, wish))
                assert changed is not None
                assert (changed.rate, changed.max_limit) == (rate, most)
                assert most is None or changed.limit <= most
                assert len(changed.disabled) == len(paths)

    @rule(numbers=Picks)
    def delete(self, numbers: list[int]) -> None:
        """Delete endpoints that nothing waits for; they are known again from their next use on."""
        places = self.queues()
        for each in chosen(numbers, self.endpoints):
            in_use = any(places[each.id].values())
            assert self.do(self.deliveries.delete_endpoint(each.id)) == (not in_use)
            if in_use:
                continue
            assert self.do(self.deliveries.read_endpoint(each.id)) is None
            self.paused.discard(each.id)
            assert self.do(self.deliveries.register_endpoint(each))[1]

    # What time does

    @rule(with_processes=st.booleans())
    def leases_end(self, *, with_processes: bool) -> None:
        """End every lease, of processes that live on or, `with_processes`, do not."""
        found = self.ask(
            [
                ("ZRANGE", self.key(each.id, "ep", each.id, "inflight"), 0, -1)
                for each in self.endpoints
            ]
        )
        commands: list[tuple[str | int, ...]] = []
        for endpoint, members in zip(self.endpoints, found, strict=True):
            inflight = self.key(endpoint.id, "ep", endpoint.id, "inflight")
            commands += [("ZADD", inflight, AGES_AGO, member) for member in members]
            commands.append(("ZADD", self.key(endpoint.id, "agenda"), "XX", AGES_AGO, endpoint.id))
        for prefix in self.prefixes():
            commands += [("DEL", f"{prefix}batch:{process}") for process in PROCESSES]
            if with_processes:
                commands.append(("DEL", f"{prefix}procs"))
        self.ask(commands)
        self.lapsed |= self.held.keys()
        self.is_lost = dict.fromkeys(PROCESSES, False)

    @rule()
    def waits_end(self) -> None:
        """Make everything due that waits: retries, open breakers."""
        waiting = [
            self.key(each.id, "ep", each.id, queue)
            for each in self.endpoints
            for queue in ("live", "replay")
        ]
        found = self.ask([("ZRANGE", queue, 0, -1) for queue in waiting])
        commands: list[tuple[str | int, ...]] = [
            ("ZADD", queue, AGES_AGO, member)
            for queue, members in zip(waiting, found, strict=True)
            for member in members
        ]
        for each in self.endpoints:
            commands.append(("HDEL", self.key(each.id, "ep", each.id), "openUntil", "tat"))
            commands.append(("ZADD", self.key(each.id, "agenda"), "XX", AGES_AGO, each.id))
        self.ask(commands)

    @rule()
    def nobody_sweeps_for_a_while(self) -> None:
        self.ask([("SET", f"{prefix}swept:deliveries", AGES_AGO) for prefix in self.prefixes()])

    @rule()
    def the_quiet_is_over(self) -> None:
        self.ask([("DEL", f"{prefix}quiet:deliveries") for prefix in self.prefixes()])

    # What must hold

    @invariant()
    def every_delivery_has_its_place(self) -> None:
        places = self.places()
        for each in self.messages:
            state, claim, is_dead, *lives = self.ask(
                [
                    ("HGET", self.key(each.id, "d", each.id), "state"),
                    ("HEXISTS", self.key(each.id, "d", each.id), "claim"),
                    ("ZSCORE", self.key(each.id, "dead"), each.id),
                    ("TTL", self.key(each.id, "d", each.id)),
                    ("TTL", self.key(each.id, "d", each.id, "body")),
                ]
            )
            where = places.get(each.id, [])
            is_pending = state == b"pending"
            assert len(where) == is_pending, (each.id, state, where)
            assert bool(claim) == (where == ["inflight"]), (each.id, where)
            assert (is_dead is not None) == (state == b"dead"), (each.id, state)
            assert [life == -1 for life in lives] == [is_pending] * 2, (each.id, state, lives)
            assert each.id not in self.delivered or state == b"delivered", (each.id, state)

    @invariant()
    def every_endpoint_has_its_place(self) -> None:
        queues = self.queues()
        for each in self.endpoints:
            host = self.host(each)
            *ready, agenda, blocked, listed = (
                score is not None
                for score in self.ask(
                    [
                        ("ZSCORE", self.key(each.id, place), each.id)
                        for place in (
                            *("ready:proven", f"ready:unproven:{each.tenant}", "ready:replay"),
                            *("agenda", f"{host}:blocked", "suspects"),
                        )
                    ]
                )
            )
            own = queues[each.id]
            waits = bool(own["live"] + own["replay"]) and each.id not in self.paused
            assert sum(ready) <= 1, (each.id, ready)
            # What has nothing but replays to do now is also in the agenda for what comes later.
            assert not (any(ready[:2]) and agenda), (each.id, own, ready)
            assert (any(ready) or agenda) == (waits or own["inflight"] > 0), (each.id, own, ready)
            assert not any(ready[2:]) or own["replay"], (each.id, own, ready)
            assert not blocked or (waits and agenda and not any(ready)), (each.id, own, ready)
            assert listed == (own["suspects"] > 0), (each.id, own)

    @invariant()
    def tenants_have_a_turn_while_they_wait_for_one(self) -> None:
        for each in self.endpoints:
            turns = self.key(each.id, "ready:unproven")
            turn, waiting = self.ask(
                [("ZSCORE", turns, each.tenant), ("ZCARD", f"{turns}:{each.tenant}")]
            )
            assert (turn is not None) == (waiting > 0), each

    @invariant()
    def hosts_are_not_asked_too_much(self) -> None:
        queues = self.queues()
        under_way: dict[str, dict[bytes, int]] = {}
        for each in self.endpoints:
            counts = under_way.setdefault(self.key(each.id, self.host(each)), {})
            if queues[each.id]["inflight"]:
                counts[each.id.encode()] = queues[each.id]["inflight"]
        for key, counts in under_way.items():
            assert sum(counts.values()) <= HOST_LIMIT
            flat, blocked = self.ask([("HGETALL", key), ("ZCARD", f"{key}:blocked")])
            noted = {name: int(count) for name, count in flat.items()}
            assert (noted.pop(b"limit", None) is not None) == (blocked > 0)
            assert noted == counts

    @invariant()
    def shelves_hold_what_has_ended(self) -> None:
        """Every count agrees with the deliveries that it counts."""
        for tenant in sorted({each.tenant for each in self.endpoints}):
            for prefix in self.prefixes():
                for kind in ("dead", "delivered"):
                    self.shelf_adds_up(prefix, f"{kind}:{tenant}")
        for each in self.messages:
            state, shelved = self.ask(
                [("HGET", self.key(each.id, "d", each.id), name) for name in ("state", "shelved")]
            )
            assert (shelved is None) == (state in {None, b"pending"}), (each.id, state)

    def shelf_adds_up(self, prefix: str, shelf: str) -> None:
        kind, _, tenant = shelf.partition(":")
        members, total, packed_until = self.ask(
            [
                ("ZRANGE", f"{prefix}shelf:{shelf}", 0, -1, "WITHSCORES"),
                ("HGET", f"{prefix}shelf:bytes", shelf),
                ("HGET", f"{prefix}shelf:packed", shelf),
            ]
        )
        counted = 0
        for member, score in zip(members[::2], members[1::2], strict=True):
            identifier, record, body = member.decode().rsplit(":", 2)
            counted += int(record) + int(body)
            kept, packed, length = self.ask(
                [
                    ("HMGET", self.key(identifier, "d", identifier), "state", "tenant", "shelved"),
                    ("HSTRLEN", self.key(identifier, "d", identifier), "packed"),
                    ("STRLEN", self.key(identifier, "d", identifier, "body")),
                ]
            )
            assert length == int(body)
            if float(score) > float(packed_until or 0):
                named = f"{kind}:{record}:{body}"
                assert kept == [kind.encode(), tenant.encode(), named.encode()]
            else:
                assert (kept, PACKED_OVERHEAD + packed) == ([None] * 3, int(record))
        assert counted == int(total or 0)

    def host(self, endpoint: Registration) -> str:
        return f"host:{endpoint.origin.removeprefix('https://')}"

    def queues(self) -> dict[str, dict[str, int]]:
        """Return how many of each endpoint wait or are attempted, by where."""
        keys = [(each.id, queue) for each in self.endpoints for queue in QUEUES]
        found = self.ask([("ZCARD", self.key(each, "ep", each, queue)) for each, queue in keys])
        queues: dict[str, dict[str, int]] = {}
        for (each, queue), number in zip(keys, found, strict=True):
            queues.setdefault(each, {})[queue] = number
        return queues

    def places(self) -> dict[str, list[str]]:
        """Return where each delivery waits or is attempted; nowhere, when it has ended."""
        sets = [
            (queue, self.key(each.id, "ep", each.id, queue))
            for each in self.endpoints
            for queue in QUEUES
        ]
        found = self.ask([("ZRANGE", key, 0, -1) for _, key in sets])
        places: dict[str, list[str]] = {}
        for (name, _), members in zip(sets, found, strict=True):
            for member in members:
                places.setdefault(member.decode(), []).append(name)
        return places

    def everything_ends(self) -> None:
        """Whatever happened, each delivery is given out again and can end."""
        for each in self.endpoints:
            self.do(self.deliveries.resume_endpoint(each.id))
            self.do(self.deliveries.change_endpoint(each.id, Change(rate=None)))
        self.the_quiet_is_over()
        self.leases_end(with_processes=False)
        for number in range(ROUNDS):
            if not self.places():
                return
            self.waits_end()
            self.the_quiet_is_over()
            want = wanted(1, limit=20, process=f"dp-{number}")
            batches = self.do(claim_all(self.deliveries, want)).values()
            got = [each for batch in batches for each in batch.deliveries]
            self.do(self.deliveries.record([over(each, Deliver(), breaker="good") for each in got]))
        pytest.fail(f"never given out: {self.places()}")


MOST = {"dead": 3, "delivered": 2}
"""What may stay of a tenant in a partition, by kind."""


class BoundedMachine(DeliveryMachine):
    """The same, with so little room for what has ended that most of it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.taken_down: set[str] = set()

    @rule(
        at_most=st.sampled_from([1, 2, 100]),
        small=st.booleans(),
        window=st.sampled_from([0, HOUR]),
    )
    def retire(self, at_most: int, *, small: bool, window: int) -> None:
        bounds = replace(
            RETENTION,
            dead_count=MOST["dead"],
            delivered_count=MOST["delivered"],
            dead_bytes=2_000 if small else 2**30,
            redelivery=window,
        )
        before = self.states()
        retired = self.do(DeliveryStore(self.store, self.partitions, bounds).retire(at_most))
        after = self.states()
        gone = before.keys() - after.keys()
        assert {before[each] for each in gone} <= {"dead", "delivered"}
        assert {each: before[each] for each in after} == after
        assert sum(sum(each.dropped.values()) for each in retired.values()) == len(gone)
        self.taken_down |= gone
        self.messages = [each for each in self.messages if each.id not in gone]
        self.delivered -= gone

    def states(self) -> dict[str, str]:
        """Return the states of deliveries that there are."""
        found = [self.do(self.deliveries.read(each.id)) for each in self.messages]
        return {each.id: each.state for each in found if each is not None}

    @invariant()
    def every_delivery_has_its_place(self) -> None:
        """As ever, but that delivered ones may be packed."""
        places = self.places()
        for each in self.messages:
            packed, state, claim, is_dead, life, body = self.ask(
                [
                    ("HEXISTS", self.key(each.id, "d", each.id), "packed"),
                    ("HGET", self.key(each.id, "d", each.id), "state"),
                    ("HEXISTS", self.key(each.id, "d", each.id), "claim"),
                    ("ZSCORE", self.key(each.id, "dead"), each.id),
                    ("TTL", self.key(each.id, "d", each.id)),
                    ("TTL", self.key(each.id, "d", each.id, "body")),
                ]
            )
            where = places.get(each.id, [])
            assert len(where) == (state == b"pending"), (each.id, state, where)
            assert bool(claim) == (where == ["inflight"]), (each.id, where)
            assert (is_dead is not None) == (state == b"dead"), (each.id, state)
            assert (life == -1) == (state == b"pending"), (each.id, state, life)
            assert (state is None) == packed, (each.id, state)
            assert body == -2 if packed else body in {life, life - 1}, (each.id, state, body)
        assert self.taken_down.isdisjoint(places)

    def everything_ends(self) -> None:
        """At the end there is no more than there may be, and counts are those of what there is."""
        super().everything_ends()
        bounds = replace(RETENTION, dead_count=MOST["dead"], delivered_count=MOST["delivered"])
        while any(
            each.more
            for each in self.do(
                DeliveryStore(self.store, self.partitions, bounds).retire(2)
            ).values()
        ):
            pass
        self.messages = []
        for prefix in self.prefixes():
            for tenant in ("t0", "t1", "t2"):
                for kind, most in MOST.items():
                    [number] = self.ask([("ZCARD", f"{prefix}shelf:{kind}:{tenant}")])
                    assert number <= most
                    self.shelf_adds_up(prefix, f"{kind}:{tenant}")


@pytest.mark.timeout(300)  # making a failure small takes a while
@pytest.mark.parametrize("machine", [DeliveryMachine, BoundedMachine])
def test_deliveries_keep_to_their_states(
    stores: RunningStores, partitions: int, machine: type[DeliveryMachine]
) -> None:
    class Machine(machine):  # type: ignore[valid-type,misc]
        url = stores.durable_url

    Machine.partitions = partitions
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
