"""What `api.secrets` answers: what signs the callbacks to an endpoint."""

from __future__ import annotations

from typing import Any

from config.clock import SECOND, rfc3339
from gateway.openapi.endpoints import ENDPOINT, TAG
from gateway.openapi.examples import AT
from gateway.openapi.models.secrets import SecretDocument
from gateway.openapi.operations import (
    JSON_BODY_PROBLEMS,
    Content,
    Example,
    Header,
    Operation,
    Parameter,
    json_answer,
)
from gateway.schemas.endpoints import RotateRequest

_SECRET = "whsec_bm90IGEgc2VjcmV0LCBvbmx5IHdoYXQgb25lIGxvb2tz"  # noqa: S105
_NEWER = "whsec_bm90IGEgc2VjcmV0IGVpdGhlciwgYnV0IG5ld2VyIQ=="

_KEY = Parameter(
    name="Idempotency-Key",
    where="header",
    text="The same key and request again change nothing, while the secret that they brought still"
    " signs. So a request whose answer was lost may be repeated.",
    schema={"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~][ -~]*$"},
    example="rotation-7",
)
_REPLAYED = Header(
    name="Idempotent-Replayed",
    text="An earlier request with this Idempotency-Key made the change.",
    always=False,
    schema={"const": "true"},
)


def operations() -> tuple[Operation, ...]:
    """Return the operations on endpoints' secrets."""
    return (
        Operation(
            method="get",
            path="/v1/endpoints/{endpointId}/secret",
            id="getEndpointSecret",
            tag=TAG,
            summary="Show the signing secrets",
            text="What its receiver verifies signatures with; reading it is logged.",
            scope="admin",
            parameters=(ENDPOINT,),
            answers=(
                json_answer(
                    200, "What signs now, and what still does.", SecretDocument, _secrets(_SECRET)
                ),
            ),
            problems=("not_found",),
        ),
        Operation(
            method="post",
            path="/v1/endpoints/{endpointId}/rotate",
            id="rotateEndpointSecret",
            tag=TAG,
            summary="Change a signing secret",
            text="The new secret signs from now on, and the old one beside it until its overlap"
            " ends, so that a receiver may change over at any time within. `X-Signature` has room"
            " for one signature: there, attempts take turns, the newest secret first, and a"
            " receiver that knows either of two takes a callback at the first or the second"
            ' attempt. `{"retire": true}` ends the overlap now. At most three old secrets sign on'
            " for each scheme. Changes are logged.",
            scope="admin",
            parameters=(ENDPOINT, _KEY),
            body=(Content(schema=RotateRequest, examples=_examples()),),
            takes_nothing=True,
            answers=(
                json_answer(
                    200,
                    "The secrets as they are from now on.",
                    SecretDocument,
                    _secrets(_NEWER, _SECRET),
                    headers=(_REPLAYED,),
                ),
            ),
            problems=(
                *JSON_BODY_PROBLEMS,
                "not_found",
                "invalid_idempotency_key",
                "idempotency_key_reused",
            ),
        ),
    )


def _examples() -> dict[str, Example]:
    return {
        "random": Example(summary="A random secret for v1", value={}),
        "own": Example(
            summary="One's own, with an hour to change over",
            value={"scheme": "v1", "secret": _NEWER, "overlapSeconds": 3600},
        ),
        "retire": Example(summary="The end of an overlap", value={"retire": True}),
    }


def _secrets(newest: str, *retiring: str) -> dict[str, Any]:
    return {
        "secret": newest,
        "publicKey": None,
        "xSignatureSecret": None,
        "retiring": [
            {
                "scheme": "v1",
                "secret": each,
                "publicKey": None,
                "until": rfc3339(AT + 86_400 * SECOND),
            }
            for each in retiring
        ],
    }
