"""`gateway trigger`: one callback to a URL, as the gateway would send it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, assert_never, cast

import click

from config.clock import SECOND, SystemClock
from gateway.cli.command import CliError, Command
from gateway.cli.options import Secret, as_json, read_bytes
from gateway.cli.output import FAILED, OK, printable, say, say_json
from gateway.cli.receivers import signed

if TYPE_CHECKING:
    from delivery.models import Scheme
    from delivery.outcomes import Exchange, Outcome
    from gateway.schemas.jobs import Event

_EVENTS = ("job.completed", "job.failed", "job.cancelled", "job.expiring", "job.started")
_PUBLIC_URL = "https://gateway.example"
_LIFE = 12 * SECOND
"""How long ago the sample's job was submitted."""


@click.command(
    cls=Command,
    examples=(
        "gateway trigger http://127.0.0.1:9000/callbacks",
        """gateway trigger http://127.0.0.1:9000/callbacks --event job.failed \\
    --secret @receiver.secret""",
        "gateway trigger http://127.0.0.1:9000/callbacks --signature x-signature",
        "gateway trigger http://127.0.0.1:9000/callbacks --body callback.json --json",
    ),
)
@click.argument("url", metavar="URL", help="What a job would name as its callbackUrl.")
@click.option(
    "--event", type=click.Choice(_EVENTS), default=_EVENTS[0], show_default=True, help="What of."
)
@click.option(
    "--signature",
    type=click.Choice(["v1", "v1a", "x-signature"]),
    default="v1",
    show_default=True,
    help="How it is signed and laid out, as a job's `callback` says it.",
)
@click.option(
    "--secret",
    "secrets",
    type=Secret(),
    multiple=True,
    envvar="WEBHOOK_SECRET",
    help="To sign with, or @FILE; WEBHOOK_SECRET, or a fresh one, unless given.",
)
@click.option("--body", metavar="FILE", help="Send this, or - for what comes in, not a sample.")
@as_json
def trigger(
    url: str, event: str, signature: str, secrets: tuple[str, ...], body: str | None, as_json: bool
) -> int:
    """Send a sample callback to a URL.

    It is signed and sent as the gateway would do it, which it says what it would make of the
    answer. Needs no gateway: it is for trying a receiver. Ends with 0 when the receiver took it.
    """
    from delivery.attempt import name_of, status_of
    from delivery.outcomes import Delivered

    scheme = cast("Scheme", signature)
    fresh = {} if secrets else _fresh(scheme)
    content = _sample(cast("Event", event), scheme) if body is None else read_bytes(body)
    headers = signed(content, secrets or tuple(fresh))
    exchange = asyncio.run(_send(url, headers, content))
    outcome = exchange.outcome
    answer = exchange.answer.decode("utf-8", "replace")
    status = status_of(outcome)
    if as_json:
        say_json(
            {
                "url": url,
                "headers": headers,
                "secrets": list(fresh.values()),
                "outcome": name_of(outcome),
                "statusCode": status,
                "durationMs": exchange.duration // 1_000,
                "answer": answer or None,
            }
        )
    else:
        for name, value in headers.items():
            say(f"{name}: {value}")
        for secret in fresh.values():
            say(f"secret: {secret}  (fresh; what a receiver verifies with, unless --secret is)")
        heard = name_of(outcome) if status is None else f"{status} {name_of(outcome)}"
        say(f"{heard} after {exchange.duration // 1_000} ms: {_means(outcome)}")
        if answer:
            say(printable(answer))
    return OK if isinstance(outcome, Delivered) else FAILED


def _fresh(scheme: Scheme) -> dict[str, str]:
    """Return new secrets to sign with, each with what a receiver verifies with."""
    from delivery.signing import SECRETS_OF, generate_secret, public_key

    made = {each: generate_secret(each) for each in SECRETS_OF[scheme]}
    return {
        secret: public_key(secret) if each == "v1a" else secret for each, secret in made.items()
    }


def _sample(event: Event, scheme: Scheme) -> bytes:
    from gateway.documents import event_body
    from gateway.samples import Samples
    from gateway.schemas.jobs import layout_of
    from gateway.urls import Urls

    job = Samples(at=SystemClock().now() - _LIFE, metadata={"sample": True}).of(event)
    return event_body(
        job,
        event=event,
        urls=Urls(_PUBLIC_URL),
        sequence=job.rev,
        ticket=None,
        at=job.updated_at,
        payload=layout_of(scheme, None),
    )


async def _send(url: str, signature: dict[str, str], body: bytes) -> Exchange:
    """POST over delivery's own sender, which follows no redirect and reads a bounded answer."""
    from delivery.configure import user_agent
    from delivery.egress import Policy, parse_destination
    from delivery.errors import DestinationRefused
    from delivery.resolver import AresLookup, PolicyResolver
    from delivery.sender import Sender
    from delivery.transport import AiohttpTransport, Gate

    policy = Policy(allow_http=True, allow_loopback=True, ports=None)
    try:
        destination = parse_destination(url, policy)
    except DestinationRefused as error:
        raise CliError(f"the gateway would refuse this URL: {error}") from None
    headers = {
        "content-type": "application/json",
        "user-agent": user_agent(None),
        **signature,
        "gateway-attempt": "1",
        "gateway-trigger": "test",
    }
    async with AsyncExitStack() as stack:
        lookup = AresLookup()
        stack.push_async_callback(lookup.close)
        resolver = PolicyResolver(lookup, policy)
        stack.push_async_callback(resolver.close)
        transport = AiohttpTransport(gate=Gate.under(policy, resolver), connections=1)
        await stack.enter_async_context(transport)
        return await Sender(transport, SystemClock()).send(destination, headers, body)


def _means(outcome: Outcome) -> str:
    from delivery.outcomes import (
        Delivered,
        Denied,
        Gone,
        Rejected,
        Throttled,
        Unanswered,
        Unreachable,
    )

    match outcome:
        case Delivered():
            return "delivered"
        case Throttled():
            return "it would be sent again later, without using up an attempt"
        case Rejected() | Unanswered():
            return "it would be sent again: only 2xx says that it was taken"
        case Gone():
            return "it would be given up, and nothing more sent to this URL"
        case Unreachable():
            return "it would be sent again"
        case Denied():
            return "its address is none that the gateway calls"
        case _:
            assert_never(outcome)
