"""The story of one attempt: unseal, sign, send, decide, and say what happened.

`attempt` never raises for anything a receiver, a URL or a sealed value can be: the story always
ends in something to record. Only cancellation passes through.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from config.clock import SECOND, StoreClock, rfc3339
from config.ids import random_bytes, random_float
from config.tracing import SPAN_SIZE, continue_trace, trace_headers
from delivery.decide import decide
from delivery.egress import Destination, Policy, parse_destination
from delivery.endpoints import open_secrets
from delivery.errors import DestinationRefused, SealError, SecretError
from delivery.models import Attempted, Bury, Claimed, Decision, Deliver, Retry, Scheme
from delivery.outcomes import (
    Delivered,
    Denied,
    Exchange,
    Gone,
    Outcome,
    Rejected,
    Throttled,
    Unanswered,
    Unreachable,
)
from delivery.retry import Schedule
from delivery.sealing import KeyRing
from delivery.secrets import Secrets
from delivery.signing import SECRETS_OF, signature_headers

if TYPE_CHECKING:
    from config.spans import Span, Tracer

_log = logging.getLogger("delivery.attempt")

_UNOPENED_WAIT = 60 * SECOND
"""How long a delivery waits whose secrets this process cannot open: an operator's fault."""


_REFUSED = 400
"""From here on a status is an error."""


class Sends(Protocol):
    """What sends one POST and returns what came of it, whatever the receiver does."""

    async def send(
        self, destination: Destination, headers: dict[str, str], body: bytes
    ) -> Exchange:
        """Send `body` and return the exchange."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What every attempt of a process goes by; `tracer`, if there is one, records each."""

    policy: Policy
    schedule: Schedule
    ring: KeyRing
    user_agent: str
    tracer: Tracer | None = None


async def attempt(claimed: Claimed, *, sender: Sends, rules: Rules, clock: StoreClock) -> Attempted:
    """Make one attempt and return what is to be recorded."""
    if rules.tracer is None:
        return await _attempt(claimed, sender, rules, clock, None)
    with _begin_span(rules.tracer, claimed) as span:
        made = await _attempt(claimed, sender, rules, clock, span)
        _note_outcome(span, made)
        return made


async def _attempt(
    claimed: Claimed, sender: Sends, rules: Rules, clock: StoreClock, span: Span | None
) -> Attempted:
    started = clock.now()
    try:
        destination = _destination(_open_url(claimed, rules.ring), rules.policy)
        if span is not None:
            span.note({"server.address": destination.host, "server.port": destination.port})
        headers = _headers(claimed, rules, started, span.trace if span else _go_on(claimed.trace))
    except DestinationRefused:
        return _settle(claimed, _unsent(Denied()), rules, started, clock.now())
    except (SealError, SecretError) as error:
        return _held_back(claimed, started, str(error))
    exchange = await sender.send(destination, headers, claimed.body)
    if claimed.challenge:
        exchange = _challenged(exchange, claimed.challenge)
    return _settle(claimed, exchange, rules, started, clock.now())


def interrupted(claimed: Claimed, now: int) -> Attempted:
    """Return the record of an attempt that a shutdown cut off: due again, nothing used up."""
    return _aside(claimed, now, "interrupted", delay=0)


def faulted(claimed: Claimed, now: int, rules: Rules) -> Attempted:
    """Return the record of an attempt that failed by a fault of ours: a failure like any other."""
    used, step = claimed.used + 1, claimed.step + 1
    over = used >= rules.schedule.attempts or claimed.trigger == "test"
    wait = 0 if over else rules.schedule.wait(step, random_float())
    return Attempted(
        id=claimed.id,
        claim=claimed.claim,
        decision=Decision(
            verdict=Bury(reason="exhausted") if over else Retry(delay=wait),
            used=used,
            step=step,
            limit="keep",
            breaker="neutral",
        ),
        status=None,
        outcome="internal_error",
        record=_encode(
            {"at": rfc3339(now), "trigger": claimed.trigger, "outcome": "internal_error"}
        ),
    )


@lru_cache(maxsize=1_024)
def _destination(url: str, policy: Policy) -> Destination:
    """Read a URL once: most of an endpoint's deliveries go to the same one."""
    return parse_destination(url, policy)


def _open_url(claimed: Claimed, ring: KeyRing) -> str:
    return ring.open(claimed.url, row=claimed.id).decode()


def _begin_span(tracer: Tracer, claimed: Claimed) -> Span:
    """Begin the span of an attempt. Neither a URL nor a header is told: both may hold secrets."""
    attributes = {
        "http.request.method": "POST",
        "http.request.resend_count": claimed.number - 1 or None,
        "gateway.tenant": claimed.tenant,
        "gateway.endpoint.id": claimed.endpoint,
        "gateway.delivery.id": claimed.id,
        "gateway.delivery.attempt": claimed.number,
        "gateway.delivery.trigger": claimed.trigger,
    }
    return tracer.begin("webhook", "client", claimed.trace, attributes)


def _note_outcome(span: Span, made: Attempted) -> None:
    span.note({"http.response.status_code": made.status, "gateway.delivery.outcome": made.outcome})
    if made.outcome != "delivered":
        is_refused = made.status is not None and made.status >= _REFUSED
        span.fail(str(made.status) if is_refused else made.outcome)


def _headers(claimed: Claimed, rules: Rules, now: int, trace: str) -> dict[str, str]:
    timestamp = now // SECOND
    custom: dict[str, str] = (
        json.loads(rules.ring.open(claimed.headers, row=claimed.id)) if claimed.headers else {}
    )
    return {
        **custom,
        "content-type": "application/json",
        "user-agent": rules.user_agent,
        "webhook-id": claimed.id,
        "webhook-timestamp": str(timestamp),
        **signature_headers(
            claimed.scheme,
            _secrets_in_force(claimed, rules.ring, now),
            message_id=claimed.id,
            timestamp=timestamp,
            number=claimed.number,
            body=claimed.body,
        ),
        "gateway-attempt": str(claimed.number),
        "gateway-trigger": claimed.trigger,
        **trace_headers(trace),
    }


def _go_on(trace: str) -> str:
    """Return what a receiver is told of a trace that is recorded elsewhere, if anywhere."""
    return continue_trace(trace, random_bytes(SPAN_SIZE)) if trace else ""


def _secrets_in_force(claimed: Claimed, ring: KeyRing, now: int) -> dict[Scheme, tuple[str, ...]]:
    return {
        scheme: _opened(claimed.secrets[scheme], claimed.endpoint, ring).in_force(now)
        for scheme in SECRETS_OF[claimed.scheme]
        if scheme in claimed.secrets
    }


@lru_cache(maxsize=4_096)
def _opened(sealed: bytes, endpoint: str, ring: KeyRing) -> Secrets:
    """Open an endpoint's secrets once: they seldom change, and every attempt needs them."""
    return open_secrets(sealed, endpoint, ring)


def _challenged(exchange: Exchange, challenge: str) -> Exchange:
    """Return what came of a challenge: it is delivered to whoever says it again."""
    match exchange.outcome:
        case Delivered(status=status) if not _says(exchange.answer, challenge):
            return replace(exchange, outcome=Unanswered(status=status))
        case _:
            return exchange


def _says(answer: bytes, challenge: str) -> bool:
    """Tell whether an answer is a JSON object whose `challenge` is this one.

    A server that gives back whatever it is sent says it elsewhere: inside of `data`.
    """
    try:
        said: object = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("challenge") == challenge


def _unsent(outcome: Outcome) -> Exchange:
    return Exchange(
        outcome=outcome,
        answer=b"",
        answer_truncated=False,
        duration=0,
        connect=None,
        first_byte=None,
    )


def _settle(
    claimed: Claimed, exchange: Exchange, rules: Rules, started: int, now: int
) -> Attempted:
    decision = decide(
        claimed, exchange.outcome, schedule=rules.schedule, now=now, rand=random_float()
    )
    status, outcome = status_of(exchange.outcome), name_of(exchange.outcome)
    record = {
        "at": rfc3339(started),
        "trigger": claimed.trigger,
        "outcome": outcome,
        "statusCode": status,
        "durationMs": exchange.duration // 1_000,
        "connectMs": _milliseconds(exchange.connect),
        "firstByteMs": _milliseconds(exchange.first_byte),
        "nextInMs": _milliseconds(_delay(decision)),
        "answer": exchange.answer.decode("utf-8", "replace") or None,
        "answerTruncated": exchange.answer_truncated or None,
    }
    _report(claimed, decision, record)
    return Attempted(
        id=claimed.id,
        claim=claimed.claim,
        decision=decision,
        status=status,
        outcome=outcome,
        took=None if isinstance(exchange.outcome, Denied) else exchange.duration,
        record=_encode(record),
    )


def _held_back(claimed: Claimed, now: int, why: str) -> Attempted:
    _log.error(
        "delivery.unreadable", extra={"delivery": claimed.id, "tenant": claimed.tenant, "why": why}
    )
    return _aside(claimed, now, "unreadable", delay=_UNOPENED_WAIT)


def _aside(claimed: Claimed, now: int, outcome: str, *, delay: int) -> Attempted:
    record = {"at": rfc3339(now), "trigger": claimed.trigger, "outcome": outcome}
    return Attempted(
        id=claimed.id,
        claim=claimed.claim,
        decision=Decision(
            verdict=Retry(delay=delay),
            used=claimed.used,
            step=claimed.step,
            limit="keep",
            breaker="neutral",
        ),
        status=None,
        outcome=outcome,
        record=_encode(record),
    )


def name_of(outcome: Outcome) -> str:
    """Return the word that stands for `outcome` in records, logs and metrics."""
    name: str
    match outcome:
        case Delivered():
            name = "delivered"
        case Throttled():
            name = "throttled"
        case Rejected():
            name = "rejected"
        case Unanswered():
            name = "challenge_unanswered"
        case Gone():
            name = "gone"
        case Unreachable(code=code):
            name = code
        case Denied():
            name = "destination_not_allowed"
        case _:
            assert_never(outcome)
    return name


def status_of(outcome: Outcome) -> int | None:
    """Return the status code of the answer, None where there was none."""
    match outcome:
        case Delivered(status=status) | Throttled(status=status):
            return status
        case Rejected(status=status) | Unanswered(status=status) | Gone(status=status):
            return status
        case Unreachable() | Denied():
            return None
        case _:
            assert_never(outcome)


def _delay(decision: Decision) -> int | None:
    match decision.verdict:
        case Retry(delay=delay):
            return delay
        case Deliver() | Bury():
            return None
        case _:
            assert_never(decision.verdict)


def _milliseconds(us: int | None) -> int | None:
    return None if us is None else us // 1_000


_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _encode(record: dict[str, Any]) -> str:
    return _COMPACT.encode({name: value for name, value in record.items() if value is not None})


def _report(claimed: Claimed, decision: Decision, record: dict[str, Any]) -> None:
    if not _log.isEnabledFor(logging.INFO):
        return
    facts = {name: value for name, value in record.items() if name != "answer"}
    _log.info(
        "delivery.attempt",
        extra={
            "delivery": claimed.id,
            "endpoint": claimed.endpoint,
            "tenant": claimed.tenant,
            "attempt": claimed.number,
            "verdict": type(decision.verdict).__name__.lower(),
            **facts,
        },
    )
