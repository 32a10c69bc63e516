"""Endpoints: a tenant's callback origins, each with a signing secret and a health of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from config.ids import choose_partition, derived_id
from delivery.egress import Destination
from delivery.models import Scheme
from delivery.sealing import KeyRing
from delivery.secrets import Secret, Secrets
from delivery.signing import generate_secret

SECRET_FIELDS: Mapping[Scheme, str] = {name: f"secret:{name}" for name in get_args(Scheme)}
"""The fields of an endpoint's hash that hold its secrets, by scheme."""

MAX_DISABLED_URLS = 100
"""How many disabled URLs an endpoint has at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisabledUrl:
    """A URL that an endpoint's deliveries are not sent to.

    Attributes:
        hash: as `url_hash` has it.
        url: sealed for `row`.
        since: µs.
        reason: `gone`: its receiver answered 410; `operator`: a person said so.
    """

    hash: str
    url: bytes
    row: str
    since: int
    reason: Literal["gone", "operator"]

    def entry(self) -> bytes:
        """Return what the store keeps of it, under its hash."""
        return f"{self.since} {self.reason} {self.row} ".encode() + self.url

    @classmethod
    def decode(cls, digest: str, entry: bytes) -> DisabledUrl:
        """Return what `entry` made."""
        since, reason, row, url = entry.split(b" ", 3)
        return cls(
            hash=digest,
            url=url,
            row=row.decode(),
            since=int(since),
            reason=cast('Literal["gone", "operator"]', reason.decode()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How an attempt failed that says something of its receiver.

    Attributes:
        at: µs.
        outcome: as the attempt's record calls it.
        status: the answer's status code, if there was an answer.
    """

    at: int
    outcome: str
    status: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint as people see it. Instants are µs.

    Attributes:
        origin: scheme, host and port that its URLs share.
        secrets: the signing secrets by scheme, each sealed for the row `id`.
        paused_since: since when an operator holds its deliveries back; None when nobody does.
        limit: how many may be attempted at once; adapts to its answers.
        max_limit: what an operator lets it grow to; None leaves it to the settings.
        rate: attempts a second that an operator allows; None leaves it to the limit.
        inflight: how many are being attempted.
        waiting: how many wait.
        breaker: `open`: it failed so often in a row that it gets one attempt at a time.
        consecutive_failures: what the breaker counts.
        open_until: when the open breaker lets the next one through.
        last_failure: None when there was none.
        succeeded_at: when it last answered 2xx.
        verified_at: when it last answered a challenge; None while it has not.
        unverified_rate: attempts a second that it gets until then; None for any number.
        disabled: URLs that nothing is sent to.
        disabled_at: when an operator last said which those are; 0 if never.
        mirror_of: of a mirror the endpoint that it is like, else None; see `delivery.mirrors`.
        may_have_mirrors: whether it was mirrored.
        read_at: when it was as it is here.
    """

    id: str
    tenant: str
    origin: str
    created_at: int
    secrets: Mapping[Scheme, bytes]
    paused_since: int | None
    limit: int
    max_limit: int | None
    rate: float | None
    inflight: int
    waiting: int
    breaker: Literal["closed", "open"]
    consecutive_failures: int
    open_until: int | None
    last_failure: Failure | None
    succeeded_at: int | None
    verified_at: int | None
    unverified_rate: float | None
    disabled: tuple[DisabledUrl, ...]
    disabled_at: int
    mirror_of: str | None
    may_have_mirrors: bool
    read_at: int = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """An endpoint away from its host's partition; see `delivery.mirrors`.

    Attributes:
        own: what it is like: the endpoint in its host's partition.
        part: of that one's rate.
        others: in how many partitions there may be mirrors.
        secrets: that one's, sealed for the row `id`; none where the mirror keeps those it has.
    """

    id: str
    own: Endpoint
    part: float
    others: int
    secrets: Mapping[Scheme, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unset:
    """What is not given stays as it is."""


UNSET = Unset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an operator says of an endpoint; None takes a bound of its own away.

    Attributes:
        rate: attempts a second.
        max_limit: the most that may be attempted at once.
        disabled: the URLs that are to be disabled, and no others; `disabled_url` names one.
    """

    rate: float | Unset | None = UNSET
    max_limit: int | Unset | None = UNSET
    disabled: Sequence[tuple[str, str, bytes]] | Unset = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """An endpoint to be made unless it exists, with the secrets that a scheme needs.

    Attributes:
        secret: a fresh secret for `v1`, sealed for the row `id`; of no use when there is one.
        scheme: how deliveries to it are to be signed.
        scheme_secret: the same for that scheme; empty for `v1`.
        unverified_rate: attempts a second until it is verified; 0 for any number, None to leave
            that as it is.
    """

    id: str
    tenant: str
    origin: str
    secret: bytes
    scheme: Scheme = "v1"
    scheme_secret: bytes = b""
    unverified_rate: float | None = None

    @property
    def hold(self) -> str:
        """`unverified_rate` as scripts have it."""
        return "" if self.unverified_rate is None else f"{self.unverified_rate:g}"


def register(
    tenant: str,
    destination: Destination,
    ring: KeyRing,
    partitions: int,
    scheme: Scheme = "v1",
    unverified_rate: float | None = None,
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
        unverified_rate=unverified_rate,
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


def disabled_url(endpoint_id: str, url: str, ring: KeyRing) -> tuple[str, str, bytes]:
    """Return what names `url` in a `Change`: its hash, the row it is sealed for, and it sealed."""
    digest = url_hash(url)
    # A row of its own: an endpoint's is that of its secrets, which must not open as a URL.
    row = f"url:{endpoint_id}:{digest}"
    return digest, row, ring.seal(url.encode(), row=row)


def decode_endpoint(
    endpoint_id: str,
    kept: Mapping[str, bytes],
    *,
    inflight: int,
    waiting: int,
    breaker_open: bool,
    disabled: Mapping[str, bytes],
    read_at: int,
) -> Endpoint:
    """Return the endpoint that the hash fields `kept` and the entries `disabled` describe."""

    def number(name: str) -> int | None:
        return int(kept[name]) if name in kept else None

    urls = (DisabledUrl.decode(digest, entry) for digest, entry in disabled.items())
    own = kept.get("mirrorOf")
    return Endpoint(
        id=endpoint_id,
        tenant=kept["tenant"].decode(),
        origin=kept["origin"].decode(),
        created_at=int(kept["createdAt"]),
        secrets={scheme: kept[name] for scheme, name in SECRET_FIELDS.items() if name in kept},
        paused_since=number("paused"),
        limit=int(kept["limit"]),
        max_limit=number("maxLimit"),
        rate=float(kept["rate"]) if "rate" in kept else None,
        inflight=inflight,
        waiting=waiting,
        breaker="open" if breaker_open else "closed",
        consecutive_failures=int(kept.get("failures", 0)),
        open_until=number("openUntil"),
        last_failure=_failure(kept["failure"]) if "failure" in kept else None,
        succeeded_at=number("succeededAt"),
        verified_at=number("verifiedAt"),
        unverified_rate=float(kept["unverified"]) if "unverified" in kept else None,
        disabled=tuple(sorted(urls, key=lambda each: (each.since, each.row))),
        disabled_at=int(kept.get("urlsAt", 0)),
        mirror_of=own.decode() if own else None,
        may_have_mirrors=own is None and "part" in kept,
        read_at=read_at,
    )


def _failure(packed: bytes) -> Failure:
    at, status, outcome = packed.decode().split(" ", 2)
    return Failure(at=int(at), outcome=outcome, status=None if status == "-" else int(status))
