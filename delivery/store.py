"""Delivery's transitions, one method each; the scripts in `lua/` demand the states.

Every method may be called again after `StoreUnavailable` with the same arguments.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from config.ids import partition_of
from config.scripts import Call, pairs
from delivery.bounds import Retired, decode_retired
from delivery.endpoints import SECRET_FIELDS
from delivery.endpointstore import EndpointStore
from delivery.letters import Letter, Place
from delivery.models import (
    Attempted,
    Batch,
    Bury,
    Claimed,
    DeadDelivery,
    Deliver,
    Delivery,
    Message,
    Reason,
    Refusal,
    Retry,
    Scheme,
    State,
    Trigger,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a process has room for.

    Attributes:
        process: its identifier, made at its start.
        sequence: of this batch, rising per partition; the same one gets the same batch again.
        limit: how many deliveries.
        lease: µs until each counts as lost.
        unproven: how many may be for endpoints without a recent success; a tenant gets no more
            than it leaves.
        replays: how many of them may be replayed ones.
        suspect: whether one may be a suspect.
        per_turn: how many an endpoint may be given at once.
        per_endpoint: slots that one endpoint may fill.
        per_tenant: slots that one tenant may fill while others wait.
        endpoints: slots left of `per_endpoint`, for those that fill any.
        tenants: slots left of `per_tenant`, for those that fill any.
        unproven_held: what tenants hold for endpoints without a recent success; where several
            partitions are asked at once, divided among them.
    """

    process: str
    sequence: int
    limit: int
    lease: int
    unproven: int
    replays: int
    suspect: bool
    per_turn: int
    per_endpoint: int
    per_tenant: int
    endpoints: Mapping[str, int]
    tenants: Mapping[str, int]
    unproven_held: Mapping[str, float] = field(default_factory=dict)


class DeliveryStore(EndpointStore):
    """The deliveries of all partitions, and the endpoints they go to."""

    async def enqueue(self, message: Message) -> bool:
        """Make a delivery pending; False when it existed already.

        Raises:
            KeyError: its endpoint is not registered.
        """
        made = await self._run(
            "enqueue_delivery",
            partition_of(message.id),
            message.id,
            message.endpoint,
            message.tenant,
            message.url,
            message.url_hash,
            message.headers,
            message.tags,
            message.body,
            self.retention.dead,
            message.scheme,
            message.trace,
            message.trigger,
            message.challenge,
        )
        if made < 0:
            raise KeyError(message.endpoint)
        return bool(made)

    async def claim(self, wanted: Mapping[int, Wanted]) -> dict[int, Batch]:
        """Claim from several partitions in one round trip; also the process's heartbeat there."""
        replies = await self._store.run_all(
            [self._claim_call(partition, want) for partition, want in wanted.items()]
        )
        return {partition: _batch(reply) for partition, reply in zip(wanted, replies, strict=True)}

    def _claim_call(self, partition: int, want: Wanted) -> Call:
        taken = {
            "endpoints": dict(want.endpoints),
            "tenants": dict(want.tenants),
            "unproven": dict(want.unproven_held),
        }
        return self._call(
            "claim",
            partition,
            want.process,
            want.sequence,
            want.limit,
            want.lease,
            want.unproven,
            int(want.suspect),
            want.per_turn,
            want.per_endpoint,
            want.per_tenant,
            json.dumps(taken),
            self.retention.dead,
            self.retention.host_limit,
            want.replays,
        )

    async def record(self, attempts: Sequence[Attempted]) -> list[str]:
        """Record attempts in one round trip; return those whose claim was lost."""
        groups: dict[int, list[Attempted]] = defaultdict(list)
        for attempt in attempts:
            groups[partition_of(attempt.id)].append(attempt)
        replies = await self._store.run_all(
            [
                self._call(
                    "record",
                    partition,
                    self.retention.delivered,
                    self.retention.dead,
                    self.retention.max_limit,
                    *(argument for each in group for argument in _recorded(each)),
                )
                for partition, group in groups.items()
            ]
        )
        return [
            attempt.id
            for group, reply in zip(groups.values(), replies, strict=True)
            for attempt, result in zip(group, reply, strict=True)
            if result == 0
        ]

    async def redeliver(self, delivery_id: str, token: str) -> State | Refusal | None:
        """Have the delivery sent now; return its state or why it cannot be, None when unknown.

        A pending one that waits is due at once. One that has ended gets one attempt more, with the
        trigger `manual`: a delivered one stays delivered whatever comes of it, a dead one becomes
        delivered if its receiver takes it and else stays dead.

        Args:
            delivery_id: the delivery.
            token: of the wish; the same one again changes nothing.
        """
        said = await self._run("redeliver", partition_of(delivery_id), delivery_id, token)
        return cast("State | Refusal", said.decode()) if said else None

    async def retire(self, at_most: int) -> dict[int, Retired]:
        """Take down what is too old or too much of ended deliveries, pack others; everywhere.

        Args:
            at_most: how many in each partition.
        """
        kept = self.retention
        replies = await self._everywhere(
            "retire",
            at_most,
            kept.ends,
            kept.redelivery,
            *(kept.dead, kept.dead_count, kept.dead_bytes),
            *(kept.delivered, kept.delivered_count, kept.delivered_bytes),
        )
        return dict(enumerate(map(decode_retired, replies)))

    async def read(self, delivery_id: str) -> Delivery | None:
        """Return the delivery with its history, or None when there is none."""
        found = await self._run("read_delivery", partition_of(delivery_id), delivery_id, 0)
        return _delivery(delivery_id, found[0], found[1], found[3]) if found else None

    async def read_body(self, delivery_id: str) -> bytes | None:
        """Return the bytes that are sent, none when they cannot be; None without the delivery."""
        found = await self._run("read_delivery", partition_of(delivery_id), delivery_id, 1)
        return cast("bytes", found[2]) if found else None

    async def list_dead(
        self,
        partition: int,
        *,
        tenant: str,
        after: Place,
        limit: int,
        with_last: bool = False,
    ) -> tuple[list[DeadDelivery], Place | None]:
        """Return a partition's dead letters after a place, and the last place looked at.

        Args:
            partition: where.
            tenant: whose; everybody's for an empty name.
            after: the place.
            limit: at most how many.
            with_last: whether to bring the record of each one's last attempt.

        Returns:
            Them in order; and None for the place when nothing is beyond it.
        """
        rows, died, identifier = await self._run(
            "list_dead", partition, tenant, *after, limit, int(with_last)
        )
        reached = (int(died), identifier.decode()) if died else None
        return [_dead(row) for row in rows], reached

    async def list_named(
        self, partition: int, replay_id: str, *, after: str, limit: int
    ) -> list[tuple[str, DeadDelivery | None]]:
        """Return the deliveries that a replay named, after one of them; those in any state.

        Of those that are not known there is the identifier alone.
        """
        rows = await self._run("list_named", partition, replay_id, after, limit)
        return [(row[0].decode(), _dead(row[1]) if row[1] else None) for row in rows]

    async def count_dead(self, tenant: str) -> int:
        """Return how many dead letters the tenant has."""
        return sum(await self._everywhere("count_dead", tenant))

    async def schemes_of(self, partition: int, delivery_ids: Sequence[str]) -> set[Scheme]:
        """Return by which schemes these deliveries of one partition are to be signed."""
        found = await self._run("read_schemes", partition, *delivery_ids)
        return {cast("Scheme", scheme.decode() or "v1") for scheme in found}


def _recorded(attempt: Attempted) -> Iterator[str | int]:
    decision = attempt.decision
    match decision.verdict:
        case Deliver():
            verb, reason, delay = "delivered", "", 0
        case Retry(delay=delay):
            verb, reason = "retry", ""
        case Bury(reason=reason):
            verb, delay = "dead", 0
    yield from (attempt.id, attempt.claim, verb, reason, delay, decision.used, decision.step)
    yield "" if attempt.status is None else attempt.status
    yield from (decision.limit, decision.breaker, attempt.failure or "", attempt.record)


def _batch(reply: list[Any]) -> Batch:
    now, next_at, rows, endpoints, more = reply
    known = {endpoint: (_secrets(sealed), bool(proven)) for endpoint, proven, *sealed in endpoints}
    return Batch(
        now=now,
        next_at=None if next_at < 0 else next_at,
        more=bool(more),
        deliveries=tuple(_claimed(row, known) for row in rows),
    )


def _secrets(sealed: Sequence[bytes | None]) -> dict[Scheme, bytes]:
    return {scheme: value for scheme, value in zip(SECRET_FIELDS, sealed, strict=True) if value}


def _claimed(
    row: list[Any], endpoints: Mapping[bytes, tuple[Mapping[Scheme, bytes], bool]]
) -> Claimed:
    delivery_id, claim, number, fields, body, suspect = row
    endpoint, tenant, url, headers, tags, trigger, used, step, born_at, *_ = fields
    scheme, trace, challenge = fields[13], fields[14], fields[18]
    secrets, proven = endpoints[endpoint]
    return Claimed(
        id=delivery_id.decode(),
        claim=claim.decode(),
        number=int(number),
        trigger=cast("Trigger", trigger.decode() if trigger else "schedule"),
        endpoint=endpoint.decode(),
        tenant=tenant.decode(),
        scheme=cast("Scheme", scheme.decode() if scheme else "v1"),
        secrets=secrets,
        trace=trace.decode() if trace else "",
        challenge=challenge.decode() if challenge else "",
        url=url,
        headers=headers or b"",
        tags=tags.decode(),
        body=body,
        used=int(used or 0),
        step=int(step or 0),
        born_at=int(born_at),
        suspect=bool(suspect),
        proven=proven,
    )


def _dead(row: list[Any]) -> DeadDelivery:
    delivery_id, fields, origin, last = row
    state, tenant, endpoint, reason, ended_at, tags, created_at, attempts, last_status, url = fields
    return DeadDelivery(
        letter=Letter(
            id=delivery_id.decode(),
            tenant=tenant.decode(),
            reason=(reason or b"").decode(),
            endpoint=endpoint.decode(),
            origin=origin.decode(),
            died_at=int(ended_at or 0),
            tags=json.loads(tags),
        ),
        state=cast("State", state.decode()),
        created_at=int(created_at),
        attempts=int(attempts or 0),
        last_status=int(last_status) if last_status else None,
        url=url or b"",
        last={"number": int(attempts), **json.loads(last)} if last else None,
    )


def _delivery(
    delivery_id: str, flat: Iterable[bytes], origin: bytes, own: bytes | None
) -> Delivery:
    kept = pairs(flat)

    def number(name: str) -> int | None:
        return int(kept[name]) if name in kept else None

    numbered = sorted(int(name[1:]) for name in kept if name[0] == "a" and name[1:].isdigit())
    reason = kept.get("reason")
    return Delivery(
        id=delivery_id,
        endpoint=(own or kept["ep"]).decode(),
        origin=origin.decode(),
        tenant=kept["tenant"].decode(),
        state=cast("State", kept["state"].decode()),
        reason=cast("Reason", reason.decode()) if reason else None,
        created_at=int(kept["createdAt"]),
        ended_at=number("endedAt"),
        next_attempt_at=number("nextAt"),
        attempts=number("n") or 0,
        last_status=number("lastStatus"),
        tags=json.loads(kept["tags"]),
        url=kept.get("url", b""),
        headers=kept.get("headers", b""),
        is_manual="manual" in kept,
        history=tuple({"number": n, **json.loads(kept[f"a{n}"])} for n in numbered),
    )
