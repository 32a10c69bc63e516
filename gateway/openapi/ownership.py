"""What `gateway.api.ownership` answers: a challenge that is sent to an endpoint."""

from __future__ import annotations

from gateway.openapi.deliveries import DELIVERY_ID
from gateway.openapi.endpoints import ENDPOINT_ID
from gateway.openapi.examples import CALLBACK_URL, Examples
from gateway.openapi.operations import (
    Content,
    Example,
    Operation,
)
from gateway.openapi.samples import sending, sent_once
from gateway.ownership import VERIFICATION
from gateway.schemas.endpoints import VerifyRequest

_TEXT = """\
Sends the event `endpoint.verification`, signed as callbacks are, with a random text in
`data.challenge`. A receiver that wants callbacks answers 2xx with `{"challenge": "…"}`, that text,
as JSON of at most 1 KiB; the endpoint is `verified` then. It gets one attempt, whose outcome is at
`Location`, before all that waits for the endpoint.

Some gateways take no job that calls an endpoint which is not verified, or send it few callbacks."""


def operations(examples: Examples) -> tuple[Operation, ...]:
    """Return the operation that sends a challenge."""
    request = Example(summary="To one URL", value={"url": CALLBACK_URL})
    return (
        sending(
            path="/v1/endpoints/{endpointId}/verify",
            name="verifyEndpoint",
            summary="Ask whether callbacks are wanted",
            text=_TEXT,
            body=Content(schema=VerifyRequest, examples={"url": request}),
            sent="It is sent at once, unless the endpoint is paused or its breaker open.",
            delivery=sent_once(examples, DELIVERY_ID, ENDPOINT_ID, VERIFICATION),
        ),
    )
