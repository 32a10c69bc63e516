"""Endpoints: a tenant's callback origins, each with a signing secret and a health of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from config.ids import choose_partition, derived_id
from delivery.egress import Destination
from delivery.models import Scheme
from delivery.sealing import KeyRing
from delivery.secrets import Secret, Secrets
from delivery.signing import generate_secret

SECRET_FIELDS: Mapping[Scheme, str] = {name: f"secret:{name}" for name in get_args(Scheme)}
"""The fields of an endpoint's hash that hold its secrets, by scheme."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint as people see it. Instants are µs.

    Attributes:
        origin: scheme, host and port that its URLs share.
        secrets: the signing secrets by scheme, each sealed for the row `id`.
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
    secrets: Mapping[Scheme, bytes]
    paused: bool
    limit: int
    inflight: int
    waiting: int
    consecutive_failures: int
    open_until: int | None
    succeeded_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """An endpoint to be made unless it exists, with the secrets that a scheme needs.

    Attributes:
        secret: a fresh secret for `v1`, sealed for the row `id`; of no use when there is one.
        scheme: how deliveries to it are to be signed.
        scheme_secret: the same for that scheme; empty for `v1`.
    """

    id: str
    tenant: str
    origin: str
    secret: bytes
    scheme: Scheme = "v1"
    scheme_secret: bytes = b""


def register(
    tenant: str,
    destination: Destination,
    ring: KeyRing,
    partitions: int,
    scheme: Scheme = "v1",
) -> Registration:
    """Return the registration of the endpoint that `destination` belongs to for `tenant`.

    The partition follows from the host alone, so that all tenants' endpoints of a host meet there.
    Every endpoint has a secret for `v1`, whatever its deliveries are signed by.
    """
    partition = choose_partition(destination.host, partitions)
    endpoint_id = derived_id("ep", partition, tenant, destination.origin)
    return Registration(
        id=endpoint_id,
        tenant=tenant,
        origin=destination.origin,
        secret=_fresh("v1", endpoint_id, ring),
        scheme=scheme,
        scheme_secret=b"" if scheme == "v1" else _fresh(scheme, endpoint_id, ring),
    )


def _fresh(scheme: Scheme, endpoint_id: str, ring: KeyRing) -> bytes:
    return seal_secrets(Secrets(newest=Secret(text=generate_secret(scheme))), endpoint_id, ring)


def seal_secrets(secrets: Secrets, endpoint_id: str, ring: KeyRing) -> bytes:
    """Return the secrets as the store keeps them for the endpoint."""
    return ring.seal(secrets.encode(), row=endpoint_id)


def open_secrets(sealed: bytes, endpoint_id: str, ring: KeyRing) -> Secrets:
    """Return what `seal_secrets` sealed for the endpoint.

    Raises:
        SealError: of another endpoint, or sealed by a key that is not in the ring.
    """
    return Secrets.decode(ring.open(sealed, row=endpoint_id))


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
        secrets={name: kept[field] for name, field in SECRET_FIELDS.items() if field in kept},
        paused="paused" in kept,
        limit=int(kept["limit"]),
        inflight=inflight,
        waiting=waiting,
        consecutive_failures=int(kept.get("failures", 0)),
        open_until=instant("openUntil"),
        succeeded_at=instant("succeededAt"),
    )
