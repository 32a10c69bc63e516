"""What `api_deliveries` answers: the callbacks that jobs owe, attempt by attempt."""

from __future__ import annotations

from typing import Any

from config.clock import SECOND, rfc3339
from gateway.api.deliveries import attempt_document
from gateway.openapi.examples import AT, CALLBACK_URL, JOB_ID, Examples, identifier
from gateway.openapi.models.deliveries import DeliveryDocument, DeliveryList
from gateway.openapi.operations import Operation, json_answer, links, path_parameter

TAG = "Deliveries"

DELIVERY_ID = identifier("msg")
_DELIVERY = path_parameter("deliveryId", "The delivery.", DELIVERY_ID)


def operations(examples: Examples) -> tuple[Operation, ...]:
    """Return the operations on deliveries."""
    delivery = _delivery(examples)
    return (
        Operation(
            method="get",
            path="/v1/jobs/{jobId}/deliveries",
            id="listDeliveries",
            tag=TAG,
            summary="List the callbacks of a job",
            scope="read",
            parameters=(path_parameter("jobId", "The job.", JOB_ID),),
            answers=(
                json_answer(
                    200,
                    "Its end's first.",
                    DeliveryList,
                    {"items": [delivery]},
                    links=links("deliveryId", "/items/0/id", "getDelivery", "redeliver"),
                ),
            ),
            problems=("not_found", "job_expired"),
        ),
        Operation(
            method="get",
            path="/v1/deliveries/{deliveryId}",
            id="getDelivery",
            tag=TAG,
            summary="Ask how a callback stands",
            text="What the receiver answered is shown to keys with the scope `operate` only.",
            scope="read",
            parameters=(_DELIVERY,),
            answers=(
                json_answer(
                    200, "How it stands, and its last attempts.", DeliveryDocument, delivery
                ),
            ),
            problems=("not_found",),
        ),
        Operation(
            method="post",
            path="/v1/deliveries/{deliveryId}/redeliver",
            id="redeliver",
            tag=TAG,
            summary="Send a callback once more",
            text="A pending one is sent now; a dead or delivered one gets one more attempt, under"
            " the same `webhook-id`. A delivered one can be sent again for a day, or as long as the"
            " gateway's settings say.",
            scope="operate",
            parameters=(_DELIVERY,),
            answers=(
                json_answer(
                    202, "It is sent as soon as its endpoint allows.", DeliveryDocument, delivery
                ),
            ),
            problems=("not_found", "redelivery_over", "endpoint_deleted"),
        ),
    )


def _delivery(examples: Examples) -> dict[str, Any]:
    endpoint = identifier("ep")
    url = examples.urls.instance(f"/v1/deliveries/{DELIVERY_ID}")
    attempt = {
        "number": 1,
        "at": rfc3339(AT + 12 * SECOND),
        "durationMs": 84,
        "trigger": "schedule",
        "outcome": "rejected",
        "statusCode": 500,
        "nextInMs": 5_000,
        "answer": "out of order",
    }
    return {
        "id": DELIVERY_ID,
        "event": "job.completed",
        "jobId": JOB_ID,
        "jobType": "document.analyze",
        "endpointId": endpoint,
        "url": CALLBACK_URL,
        "headers": {"x-order": "***"},
        "state": "pending",
        "reason": None,
        "createdAt": rfc3339(AT + 12 * SECOND),
        "endedAt": None,
        "nextAttemptAt": rfc3339(AT + 17 * SECOND),
        "lastStatusCode": 500,
        "attemptCount": 1,
        "attempts": [attempt_document(attempt, with_answer=True)],
        "_links": {
            "self": url,
            "redeliver": f"{url}/redeliver",
            "endpoint": examples.urls.endpoint(endpoint),
            "job": examples.urls.job(JOB_ID),
        },
    }
