"""Delivery's nouns.

A delivery is `pending -> delivered | dead`, and `dead -> pending` by replay. One that has ended may
be given one attempt more by hand, which leaves it as it is unless a dead one is taken: then it is
delivered. `pending` covers waiting for an instant and being attempted: what tells them apart is the
claim. Why a delivery is dead is its reason: `exhausted` (attempts or age used up), `gone` (410),
`destination_not_allowed`, `disabled` (its URL answered 410 before), `poison` (processes died of
it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from delivery.letters import Letter

State = Literal["pending", "delivered", "dead"]
Reason = Literal["exhausted", "gone", "destination_not_allowed", "disabled", "poison"]
Refusal = Literal["redelivery_over", "endpoint_deleted"]
"""Why a delivery cannot be sent again: it was delivered and only what came of it is kept, or nobody
signs for its endpoint any more."""
Trigger = Literal["schedule", "replay", "manual", "test"]

Scheme = Literal["v1", "v1a", "x-signature"]
"""How an attempt is signed; what each makes of it is told in `delivery.signing`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is to be delivered: bytes to a URL, signed for an endpoint, with tags nobody here reads.

    Attributes:
        id: the `webhook-id`, constant across retries and replays; also the delivery's identifier.
        endpoint: identifier of the endpoint.
        tenant: whose it is.
        url: the full URL, sealed for the row `id`.
        url_hash: tells one URL of an endpoint from another.
        headers: custom headers as a JSON object, sealed for the row `id`; empty when there are
            none.
        tags: opaque JSON of the sender's.
        scheme: how it is signed; the endpoint must have the secrets for it.
        trace: what its attempts go on from; see `config.tracing`; empty for none.
        trigger: what leads to its attempts: `schedule`, or `test` for one attempt that is none of
            the dead letters if it fails.
        challenge: what the receiver's answer must say, or it is not delivered; when it does, the
            endpoint is verified. Empty for all but challenges, which are sent before all else.
        body: the bytes to send, rendered once.
    """

    id: str
    endpoint: str
    tenant: str
    url: bytes
    url_hash: str
    headers: bytes = b""
    tags: str = "{}"
    scheme: Scheme = "v1"
    trace: str = ""
    trigger: Literal["schedule", "test"] = "schedule"
    challenge: str = ""
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A delivery held by this process until its lease ends.

    Attributes:
        id: the delivery.
        claim: the fencing token that recording needs.
        number: of this attempt, from 1, over the delivery's whole life.
        trigger: what led to this attempt.
        scheme: how it is signed.
        secrets: the endpoint's, by scheme, each sealed for the endpoint's row.
        trace: what this attempt goes on from; empty for none.
        challenge: what the receiver's answer must say; empty where it may say anything.
        used: attempts of the budget used up before this one.
        step: gaps of the schedule used up before this one.
        born_at: since when its age counts, µs.
        suspect: whether processes died attempting it.
        proven: whether its endpoint answered 2xx lately.
    """

    id: str
    claim: str
    number: int
    trigger: Trigger
    endpoint: str
    tenant: str
    scheme: Scheme = "v1"
    secrets: Mapping[Scheme, bytes]
    trace: str = ""
    challenge: str = ""
    url: bytes
    headers: bytes
    tags: str
    body: bytes
    used: int
    step: int
    born_at: int
    suspect: bool
    proven: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one claim gave.

    Attributes:
        now: the store's time, µs.
        next_at: when something falls due in that partition, µs; None when nothing is known to.
        deliveries: what to attempt.
    """

    now: int
    next_at: int | None
    more: bool
    deliveries: tuple[Claimed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """It arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try again after `delay` µs."""

    delay: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bury:
    """Nothing more is tried by itself."""

    reason: Reason


Verdict = Deliver | Retry | Bury


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from an attempt.

    Attributes:
        verdict: what becomes of the delivery.
        used: attempts of the budget used up now.
        step: gaps of the schedule used up now.
        limit: how the endpoint's limit of concurrent attempts changes.
        breaker: what the attempt says of the endpoint's health.
    """

    verdict: Verdict
    used: int
    step: int
    limit: Literal["grow", "halve", "keep"]
    breaker: Literal["good", "bad", "neutral"]


_FAULTS_OF_OURS = frozenset({"interrupted", "unreadable", "internal_error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """An attempt that is over, ready to be recorded.

    Attributes:
        status: the answer's status code; None without an answer.
        outcome: the word for what came of it.
        took: µs from its beginning to its outcome; None when nothing was sent.
        record: what people will read about it, as JSON.
    """

    id: str
    claim: str
    decision: Decision
    status: int | None
    outcome: str
    took: int | None = None
    record: str

    @property
    def failure(self) -> str | None:
        """What the receiver's failure is called; None when it took it, or nothing is said of it."""
        took_it = isinstance(self.decision.verdict, Deliver)
        return None if took_it or self.outcome in _FAULTS_OF_OURS else self.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery as people see it. Instants are µs.

    Attributes:
        endpoint: which it goes to; for a mirror's, the one that it is like.
        origin: of its endpoint; empty when that was deleted.
        url: sealed for the row `id`; empty when it was delivered and can be sent no more.
        headers: custom headers as a JSON object, sealed for the same row; empty without any, and
            where the URL is.
        is_manual: it has ended, and one attempt more that a person asked for is to come.
        history: the records of the last attempts, oldest first.
    """

    id: str
    endpoint: str
    origin: str
    tenant: str
    state: State
    reason: Reason | None
    created_at: int
    ended_at: int | None
    next_attempt_at: int | None
    attempts: int
    last_status: int | None
    tags: dict[str, Any]
    url: bytes
    headers: bytes = b""
    is_manual: bool = False
    history: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadDelivery:
    """A delivery in a list of dead letters. Instants are µs.

    Attributes:
        letter: what filters look at.
        state: dead, unless it was asked for by name.
        url: sealed for its row; empty when it was delivered and can be sent no more.
        last: the record of its last attempt, where that was asked for.
    """

    letter: Letter
    state: State
    created_at: int
    attempts: int
    last_status: int | None
    url: bytes
    last: dict[str, Any] | None
