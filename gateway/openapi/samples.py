"""What `api.samples` answers: a sample that is sent to an endpoint."""

from __future__ import annotations

from typing import Any

from config.clock import rfc3339
from gateway.openapi.deliveries import DELIVERY_ID
from gateway.openapi.endpoints import ENDPOINT, ENDPOINT_ID, TAG
from gateway.openapi.examples import AT, CALLBACK_URL, Examples
from gateway.openapi.models.deliveries import DeliveryDocument
from gateway.openapi.operations import (
    JSON_BODY_PROBLEMS,
    LOCATION,
    Content,
    Example,
    Operation,
    json_answer,
    links,
)
from gateway.schemas.endpoints import SampleRequest


def operations(examples: Examples) -> tuple[Operation, ...]:
    """Return the operation that sends a sample."""
    request = Example(
        summary="To one URL, signed in both ways",
        value={"url": CALLBACK_URL, "event": "job.failed", "signature": "x-signature"},
    )
    return (
        sending(
            path="/v1/endpoints/{endpointId}/test",
            name="testEndpoint",
            summary="Send a sample",
            text="The sample is of a job that never was, rendered and signed as all callbacks are,"
            " with the header `gateway-trigger: test` and the metadata `sample`. It gets one"
            " attempt, whose outcome is at `Location`; if it fails it is no dead letter.",
            body=Content(schema=SampleRequest, examples={"url": request}),
            sent="It is sent as soon as its endpoint allows.",
            delivery=sent_once(examples, DELIVERY_ID, ENDPOINT_ID, "job.failed"),
        ),
    )


def sending(
    *, path: str, name: str, summary: str, text: str, body: Content, sent: str, delivery: Any
) -> Operation:
    """Return an operation that has something sent to an endpoint, once."""
    answer = json_answer(
        202,
        sent,
        DeliveryDocument,
        delivery,
        headers=(LOCATION,),
        links=links("deliveryId", "/id", "getDelivery"),
    )
    return Operation(
        method="post",
        path=path,
        id=name,
        tag=TAG,
        summary=summary,
        text=text,
        scope="operate",
        parameters=(ENDPOINT,),
        body=(body,),
        takes_nothing=True,
        answers=(answer,),
        problems=(*JSON_BODY_PROBLEMS, "not_found", "invalid_callback_url"),
    )


def sent_once(examples: Examples, delivery_id: str, endpoint_id: str, event: str) -> dict[str, Any]:
    """Return a delivery that somebody asked for, before its one attempt."""
    url = examples.urls.delivery(delivery_id)
    return {
        "id": delivery_id,
        "event": event,
        "jobId": None,
        "jobType": None,
        "endpointId": endpoint_id,
        "url": CALLBACK_URL,
        "headers": {},
        "state": "pending",
        "reason": None,
        "createdAt": rfc3339(AT),
        "endedAt": None,
        "nextAttemptAt": rfc3339(AT),
        "lastStatusCode": None,
        "attemptCount": 0,
        "attempts": [],
        "_links": {
            "self": url,
            "redeliver": f"{url}/redeliver",
            "endpoint": examples.urls.endpoint(endpoint_id),
            "job": None,
        },
    }
