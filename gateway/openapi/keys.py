"""What `api_keys` answers: API keys and tenants, for operators."""

from __future__ import annotations

from config.clock import rfc3339
from gateway.openapi.examples import AT, Examples, identifier
from gateway.openapi.models.keys import KeyDocument, KeyList, NewKey, TenantDocument, TenantList
from gateway.openapi.operations import (
    CURSOR,
    JSON_BODY_PROBLEMS,
    LIMIT,
    LOCATION,
    NEXT_LINK,
    Answer,
    Content,
    Example,
    Operation,
    Parameter,
    json_answer,
    links,
    path_parameter,
)
from gateway.schemas.keys import KeyRequest, TenantRequest

TAG = "Administration"

KEY_ID = identifier("key")
_KEYS, _TENANTS = "/v1/admin/keys", "/v1/admin/tenants"


def operations(examples: Examples) -> tuple[Operation, ...]:
    """Return the operations on API keys and tenants."""
    return (*_keys(examples), *_tenants(examples))


def _keys(examples: Examples) -> tuple[Operation, ...]:
    key = {
        "id": KEY_ID,
        "name": "nightly import",
        "tenant": "acme",
        "scopes": ["read", "submit"],
        "createdAt": rfc3339(AT),
        "expiresAt": None,
        "_links": {"self": examples.urls.instance(f"{_KEYS}/{KEY_ID}")},
    }
    made = {**key, "key": "gwk_ThisIsNoKeyButShowsWhatOneLooksLi0f00ba11"}
    wanted = {"scopes": ["submit", "read"], "tenant": "acme", "name": "nightly import"}
    key_id = path_parameter("keyId", "The key's identifier, not the key.", KEY_ID)
    tenant = Parameter(
        name="tenant",
        where="query",
        text="Of this tenant only.",
        schema={"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
        example="acme",
    )
    return (
        Operation(
            method="get",
            path=_KEYS,
            id="listKeys",
            tag=TAG,
            summary="List the API keys",
            scope="admin",
            parameters=(tenant, LIMIT, CURSOR),
            answers=(
                json_answer(
                    200,
                    "One page, oldest first.",
                    KeyList,
                    {"items": [key], "nextCursor": None},
                    headers=(NEXT_LINK,),
                ),
            ),
            problems=("invalid_parameter",),
        ),
        Operation(
            method="post",
            path=_KEYS,
            id="createKey",
            tag=TAG,
            summary="Make an API key",
            text="The answer is the only one that ever shows the key. No scope includes another.",
            scope="admin",
            body=(
                Content(
                    schema=KeyRequest,
                    examples={"key": Example(summary="A key for a client", value=wanted)},
                ),
            ),
            answers=(
                json_answer(
                    201,
                    "The key.",
                    NewKey,
                    made,
                    headers=(LOCATION,),
                    links=links("keyId", "/id", "getKey", "revokeKey"),
                ),
            ),
            problems=(*JSON_BODY_PROBLEMS, "store_full"),
        ),
        Operation(
            method="get",
            path=f"{_KEYS}/{{keyId}}",
            id="getKey",
            tag=TAG,
            summary="Look at an API key",
            scope="admin",
            parameters=(key_id,),
            answers=(json_answer(200, "All but the key itself.", KeyDocument, key),),
            problems=("not_found",),
        ),
        Operation(
            method="delete",
            path=f"{_KEYS}/{{keyId}}",
            id="revokeKey",
            tag=TAG,
            summary="Revoke an API key",
            text="Within a second nothing takes it any more.",
            scope="admin",
            parameters=(key_id,),
            answers=(Answer(status=204, text="It is revoked."),),
            problems=("not_found",),
        ),
    )


def _tenants(examples: Examples) -> tuple[Operation, ...]:
    tenant = {
        "id": "acme",
        "name": "Acme",
        "createdAt": rfc3339(AT),
        "_links": {"keys": f"{examples.urls.instance(_KEYS)}?tenant=acme"},
    }
    wanted = Example(summary="A tenant", value={"id": "acme", "name": "Acme"})
    return (
        Operation(
            method="get",
            path=_TENANTS,
            id="listTenants",
            tag=TAG,
            summary="List the tenants",
            scope="admin",
            parameters=(LIMIT, CURSOR),
            answers=(
                json_answer(
                    200,
                    "One page, oldest first.",
                    TenantList,
                    {"items": [tenant], "nextCursor": None},
                    headers=(NEXT_LINK,),
                ),
            ),
            problems=("invalid_parameter",),
        ),
        Operation(
            method="post",
            path=_TENANTS,
            id="createTenant",
            tag=TAG,
            summary="Make a tenant",
            text="A tenant also comes about with its first key.",
            scope="admin",
            body=(Content(schema=TenantRequest, examples={"tenant": wanted}),),
            answers=(
                json_answer(200, "It existed.", TenantDocument, tenant),
                json_answer(201, "It is made.", TenantDocument, tenant),
            ),
            problems=(*JSON_BODY_PROBLEMS, "store_full"),
        ),
    )
