"""What the store is bounded by: how many endpoints, and how much of what has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from config.clock import SECOND

Kind = Literal["dead", "delivered"]
"""Of ended deliveries. A test that failed is kept with what was delivered: it is no dead letter."""

Cause = Literal["age", "count", "bytes"]
"""The bound for which one was taken down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What the store is bounded by. Counts and bytes are of one tenant in one partition.

    What is wide here is narrower in the settings.

    Attributes:
        delivered, dead: µs that ended deliveries are kept.
        delivered_count, dead_count: how many of them, the newest.
        delivered_bytes, dead_bytes: bytes of records and bodies together.
        redelivery: µs for which a delivered one can be sent again; then it is packed.
        ends: µs for which the end of one that left early is remembered.
        initial_limit, max_limit: where an endpoint's limit starts, and the most it may grow to.
        host_limit: attempts at once to one host, whichever tenants' endpoints they are for.
        max_endpoints: endpoints of a tenant.
    """

    delivered: int
    dead: int
    delivered_count: int = 1_000_000
    delivered_bytes: int = 2**30
    dead_count: int = 1_000_000
    dead_bytes: int = 2**30
    redelivery: int = 86_400 * SECOND
    ends: int = 86_400 * SECOND
    initial_limit: int = 8
    max_limit: int = 64
    host_limit: int = 100_000
    max_endpoints: int = 10_000


DEFAULT_RETENTION = Retention(delivered=3 * 86_400 * SECOND, dead=30 * 86_400 * SECOND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A bound of which most is used.

    Attributes:
        name: which one.
    """

    kind: Kind
    tenant: str
    name: Cause
    used: int
    allowed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """What one look at ended deliveries came to.

    Attributes:
        more: whether there is more to do at once.
        dropped: how many were taken down, by kind and cause.
        near: bounds of which at least 80 % were used before.
    """

    more: bool
    dropped: Mapping[tuple[Kind, Cause], int]
    near: tuple[Bound, ...]


def decode_retired(reply: list[Any]) -> Retired:
    """Return what the script `retire` replies with."""
    more, counts, near = reply
    dropped = zip(counts[::3], counts[1::3], counts[2::3], strict=True)
    return Retired(
        more=bool(more),
        dropped={
            (cast("Kind", kind.decode()), cast("Cause", cause.decode())): count
            for kind, cause, count in dropped
        },
        near=tuple(
            Bound(
                kind=cast("Kind", kind.decode()),
                tenant=tenant.decode(),
                name=cast("Cause", name.decode()),
                used=int(used),
                allowed=int(allowed),
            )
            for kind, tenant, name, used, allowed in near
        ),
    )
