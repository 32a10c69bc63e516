"""What `api_endpoints` answers: the origins that callbacks go to."""

from __future__ import annotations

from typing import Any

from config.clock import rfc3339
from gateway.openapi.examples import AT, CALLBACK_URL, Examples, identifier
from gateway.openapi.models.endpoints import EndpointDocument, EndpointList
from gateway.openapi.operations import (
    JSON_BODY_PROBLEMS,
    LOCATION,
    Answer,
    Content,
    Example,
    Operation,
    json_answer,
    links,
    path_parameter,
)
from gateway.schemas.endpoints import EndpointChange, EndpointRequest

TAG = "Endpoints"

ENDPOINT_ID = identifier("ep")
ENDPOINT = path_parameter("endpointId", "The endpoint.", ENDPOINT_ID)


def operations(examples: Examples) -> tuple[Operation, ...]:
    """Return the operations on callback endpoints."""
    endpoint = _endpoint(examples)
    follow = links("endpointId", "/id", "getEndpoint", "getEndpointSecret")
    request = Example(summary="A callback URL", value={"url": CALLBACK_URL})
    change = Example(
        summary="Two attempts a second; all URLs enabled again",
        value={"ratePerSecond": 2, "disabledUrls": []},
    )
    changed = {**endpoint, "ratePerSecond": 2.0, "disabledUrls": []}
    paused = {**endpoint, "paused": True, "pausedSince": rfc3339(AT)}
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
            " is registered at its first use, or beforehand by this. Where the gateway asks whether"
            " callbacks are wanted, one that is new is sent the event `endpoint.verification`.",
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
            problems=(
                *JSON_BODY_PROBLEMS,
                "invalid_callback_url",
                "too_many_endpoints",
                "store_full",
            ),
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
        Operation(
            method="patch",
            path="/v1/endpoints/{endpointId}",
            id="changeEndpoint",
            tag=TAG,
            summary="Set its bounds, and which URLs are disabled",
            text="A member that is left out changes nothing. A URL is disabled when its receiver"
            " answers 410, and by its name here; one that `disabledUrls` leaves out is enabled"
            " again. What died meanwhile is not sent by that: replay it.",
            scope="operate",
            parameters=(ENDPOINT,),
            body=(Content(schema=EndpointChange, examples={"change": change}),),
            answers=(json_answer(200, "It is so.", EndpointDocument, changed),),
            problems=(*JSON_BODY_PROBLEMS, "invalid_callback_url", "not_found"),
        ),
        Operation(
            method="delete",
            path="/v1/endpoints/{endpointId}",
            id="deleteEndpoint",
            tag=TAG,
            summary="Forget an endpoint",
            text="Its signing secret goes with it. It is registered again, with a new one, by the"
            " next job that names a URL of this origin. Callbacks that jobs owe it until then are"
            " dead letters.",
            scope="operate",
            parameters=(ENDPOINT,),
            answers=(Answer(status=204, text="It is forgotten."),),
            problems=("not_found", "endpoint_in_use"),
        ),
        Operation(
            method="post",
            path="/v1/endpoints/{endpointId}/pause",
            id="pauseEndpoint",
            tag=TAG,
            summary="Hold its callbacks back",
            text="They wait, however many come, and do not grow older. Attempts under way go on.",
            scope="operate",
            parameters=(ENDPOINT,),
            answers=(json_answer(200, "It is paused.", EndpointDocument, paused),),
            problems=("not_found",),
        ),
        Operation(
            method="post",
            path="/v1/endpoints/{endpointId}/resume",
            id="resumeEndpoint",
            tag=TAG,
            summary="Let its callbacks go again",
            scope="operate",
            parameters=(ENDPOINT,),
            answers=(json_answer(200, "It is not paused.", EndpointDocument, endpoint),),
            problems=("not_found",),
        ),
    )


def _endpoint(examples: Examples) -> dict[str, Any]:
    return {
        "id": ENDPOINT_ID,
        "origin": "https://client.example",
        "createdAt": rfc3339(AT),
        "paused": False,
        "pausedSince": None,
        "limit": 8,
        "maxConcurrency": None,
        "ratePerSecond": None,
        "inflight": 1,
        "waiting": 3,
        "breaker": "closed",
        "consecutiveFailures": 0,
        "openUntil": None,
        "lastFailure": {"at": rfc3339(AT), "outcome": "throttled", "statusCode": 503},
        "succeededAt": rfc3339(AT),
        "verified": True,
        "verifiedAt": rfc3339(AT),
        "disabledUrls": [{"url": CALLBACK_URL, "since": rfc3339(AT), "reason": "gone"}],
        "_links": {"self": examples.urls.endpoint(ENDPOINT_ID)},
    }
