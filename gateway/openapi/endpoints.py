"""What `api_endpoints` answers: the origins that callbacks go to."""

from __future__ import annotations

from typing import Any

from config.clock import rfc3339
from gateway.openapi.examples import AT, CALLBACK_URL, Examples, identifier
from gateway.openapi.models import EndpointDocument, EndpointList
from gateway.openapi.operations import (
    JSON_BODY_PROBLEMS,
    LOCATION,
    Content,
    Example,
    Operation,
    json_answer,
    links,
    path_parameter,
)
from gateway.schemas import EndpointRequest

TAG = "Endpoints"

ENDPOINT_ID = identifier("ep")
ENDPOINT = path_parameter("endpointId", "The endpoint.", ENDPOINT_ID)


def operations(examples: Examples) -> tuple[Operation, ...]:
    """Return the operations on callback endpoints."""
    endpoint = _endpoint(examples)
    follow = links("endpointId", "/id", "getEndpoint", "getEndpointSecret")
    request = Example(summary="A callback URL", value={"url": CALLBACK_URL})
    return (
        Operation(
            method="get",
            path="/v1/endpoints",
            id="listEndpoints",
            tag=TAG,
            summary="List the endpoints",
            scope="read",
            answers=(
                json_answer(
                    200,
                    "The tenant's endpoints, oldest first.",
                    EndpointList,
                    {"items": [endpoint]},
                ),
            ),
        ),
        Operation(
            method="post",
            path="/v1/endpoints",
            id="registerEndpoint",
            tag=TAG,
            summary="Register an endpoint",
            text="An endpoint is the origin of callback URLs, with a signing secret of its own. It"
            " is registered at its first use, or beforehand by this.",
            scope="submit",
            body=(Content(schema=EndpointRequest, examples={"url": request}),),
            answers=(
                json_answer(
                    200,
                    "It was registered before.",
                    EndpointDocument,
                    endpoint,
                    headers=(LOCATION,),
                ),
                json_answer(
                    201,
                    "It is registered.",
                    EndpointDocument,
                    endpoint,
                    headers=(LOCATION,),
                    links=follow,
                ),
            ),
            problems=(*JSON_BODY_PROBLEMS, "invalid_callback_url", "store_full"),
        ),
        Operation(
            method="get",
            path="/v1/endpoints/{endpointId}",
            id="getEndpoint",
            tag=TAG,
            summary="Ask how an endpoint does",
            scope="read",
            parameters=(ENDPOINT,),
            answers=(json_answer(200, "The endpoint.", EndpointDocument, endpoint),),
            problems=("not_found",),
        ),
    )


def _endpoint(examples: Examples) -> dict[str, Any]:
    return {
        "id": ENDPOINT_ID,
        "origin": "https://client.example",
        "createdAt": rfc3339(AT),
        "paused": False,
        "limit": 8,
        "inflight": 1,
        "waiting": 3,
        "consecutiveFailures": 0,
        "openUntil": None,
        "succeededAt": rfc3339(AT),
        "_links": {"self": examples.urls.endpoint(ENDPOINT_ID)},
    }
