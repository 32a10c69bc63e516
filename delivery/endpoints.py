"""Endpoints: a tenant's callback origins, each with a signing secret and a health of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from config.ids import choose_partition, derived_id
from delivery.egress import Destination
from delivery.sealing import KeyRing
from delivery.signing import generate_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint as people see it. Instants are µs.

    Attributes:
        origin: scheme, host and port that its URLs share.
        secrets: the signing secrets in force, newest first, sealed for the row `id`.
        paused: whether an operator holds its deliveries back.
        limit: how many may be attempted at once; adapts to its answers.
        inflight: how many are being attempted.
        waiting: how many wait.
        consecutive_failures: what the breaker counts.
        open_until: until when the breaker lets nothing through.
        succeeded_at: when it last answered 2xx.
    """

    id: str
    tenant: str
    origin: str
    created_at: int
    secrets: tuple[bytes, ...]
    paused: bool
    limit: int
    inflight: int
    waiting: int
    consecutive_failures: int
    open_until: int | None
    succeeded_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """An endpoint to be made unless it exists.

    Attributes:
        secret: a fresh signing secret, sealed for the row `id`; of no use when the endpoint exists.
    """

    id: str
    tenant: str
    origin: str
    secret: bytes


def register(tenant: str, destination: Destination, ring: KeyRing, partitions: int) -> Registration:
    """Return the registration of the endpoint that `destination` belongs to for `tenant`.

    The partition follows from the host alone, so that all tenants' endpoints of a host meet there.
    """
    partition = choose_partition(destination.host, partitions)
    endpoint_id = derived_id("ep", partition, tenant, destination.origin)
    return Registration(
        id=endpoint_id,
        tenant=tenant,
        origin=destination.origin,
        secret=ring.seal(generate_secret().encode(), row=endpoint_id),
    )


def url_hash(url: str) -> str:
    """Return 24 hexadecimal digits that stand for `url` where it must not be read."""
    return hashlib.sha256(url.encode()).hexdigest()[:24]


def decode_endpoint(
    endpoint_id: str, kept: Mapping[str, bytes], *, inflight: int, waiting: int
) -> Endpoint:
    """Return the endpoint that the hash fields `kept` describe."""

    def instant(name: str) -> int | None:
        return int(kept[name]) if name in kept else None

    return Endpoint(
        id=endpoint_id,
        tenant=kept["tenant"].decode(),
        origin=kept["origin"].decode(),
        created_at=int(kept["createdAt"]),
        secrets=(kept["secret"],),
        paused="paused" in kept,
        limit=int(kept["limit"]),
        inflight=inflight,
        waiting=waiting,
        consecutive_failures=int(kept.get("failures", 0)),
        open_until=instant("openUntil"),
        succeeded_at=instant("succeededAt"),
    )
