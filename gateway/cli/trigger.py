"""`gateway trigger`: one callback to a URL, as the gateway would send it."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, assert_never

import click

from gateway.cli.command import CliError, Command
from gateway.cli.options import Secret, as_json, read_bytes
from gateway.cli.output import FAILED, OK, printable, say, say_json
from gateway.cli.receivers import signed

if TYPE_CHECKING:
    from delivery.outcomes import Exchange, Outcome

_EVENTS = ("job.completed", "job.failed", "job.cancelled", "job.expiring")
_PUBLIC_URL = "https://gateway.example"


@click.command(
    cls=Command,
    examples=(
        "gateway trigger http://127.0.0.1:9000/callbacks",
        """gateway trigger http://127.0.0.1:9000/callbacks --event job.failed \\
    --secret @receiver.secret""",
        "gateway trigger http://127.0.0.1:9000/callbacks --body callback.json --json",
    ),
)
@click.argument("url", metavar="URL", help="What a job would name as its callbackUrl.")
@click.option(
    "--event", type=click.Choice(_EVENTS), default=_EVENTS[0], show_default=True, help="What of."
)
@click.option(
    "--secret",
    type=Secret(),
    envvar="WEBHOOK_SECRET",
    help="whsec_… or whsk_…, or @FILE; WEBHOOK_SECRET, or a fresh one, unless given.",
)
@click.option("--body", metavar="FILE", help="Send this, or - for what comes in, not a sample.")
@as_json
def trigger(url: str, event: str, secret: str | None, body: str | None, as_json: bool) -> int:
    """Send a sample callback to a URL, signed, and say what the gateway would make of the answer.

    Needs no gateway: it is for trying a receiver. Ends with 0 when the receiver took it.
    """
    from delivery.attempt import name_of, status_of
    from delivery.outcomes import Delivered
    from delivery.signing import generate_secret

    used = secret or generate_secret()
    content = _sample(event) if body is None else read_bytes(body)
    headers = signed(content, (used,))
    exchange = asyncio.run(_send(url, headers, content))
    outcome = exchange.outcome
    answer = exchange.answer.decode("utf-8", "replace")
    if as_json:
        say_json(
            {
                "url": url,
                "headers": headers,
                "secret": None if secret else used,
                "outcome": name_of(outcome),
                "statusCode": status_of(outcome),
                "durationMs": exchange.duration // 1_000,
                "answer": answer or None,
            }
        )
    else:
        for name, value in headers.items():
            say(f"{name}: {value}")
        if secret is None:
            say(f"secret: {used}  (fresh; a receiver that checks needs it, or --secret its own)")
        status = status_of(outcome)
        heard = name_of(outcome) if status is None else f"{status} {name_of(outcome)}"
        say(f"{heard} after {exchange.duration // 1_000} ms: {_means(outcome)}")
        if answer:
            say(printable(answer))
    return OK if isinstance(outcome, Delivered) else FAILED


def _sample(event: str) -> bytes:
    from typing import cast

    from gateway.openapi.examples import Examples
    from gateway.schemas import Event
    from gateway.urls import Urls

    sample = Examples(Urls(_PUBLIC_URL)).event(cast("Event", event))
    return json.dumps(sample, ensure_ascii=False, separators=(",", ":")).encode()


async def _send(url: str, signature: dict[str, str], body: bytes) -> Exchange:
    """POST over delivery's own sender, which follows no redirect and reads a bounded answer."""
    from config.clock import SystemClock
    from delivery.configure import user_agent
    from delivery.egress import Policy, parse_destination
    from delivery.errors import DestinationRefused
    from delivery.resolver import AresLookup, PolicyResolver
    from delivery.sender import Sender
    from delivery.transport import AiohttpTransport

    policy = Policy(allow_http=True, allow_loopback=True, ports=None)
    try:
        destination = parse_destination(url, policy)
    except DestinationRefused as error:
        raise CliError(f"the gateway would refuse this URL: {error}") from None
    headers = {
        "content-type": "application/json",
        "user-agent": user_agent(""),
        **signature,
        "gateway-attempt": "1",
        "gateway-trigger": "test",
    }
    async with AsyncExitStack() as stack:
        lookup = AresLookup()
        stack.push_async_callback(lookup.close)
        resolver = PolicyResolver(lookup, policy)
        stack.push_async_callback(resolver.close)
        transport = AiohttpTransport(policy=policy, resolver=resolver, connections=1)
        await stack.enter_async_context(transport)
        return await Sender(transport, SystemClock()).send(destination, headers, body)


def _means(outcome: Outcome) -> str:
    from delivery.outcomes import Delivered, Denied, Gone, Rejected, Throttled, Unreachable

    match outcome:
        case Delivered():
            return "delivered"
        case Throttled():
            return "it would be sent again later, without using up an attempt"
        case Rejected():
            return "it would be sent again: only 2xx says that it was taken"
        case Gone():
            return "it would be given up, and nothing more sent to this URL"
        case Unreachable():
            return "it would be sent again"
        case Denied():
            return "its address is none that the gateway calls"
        case _:
            assert_never(outcome)
