"""What is sent to make API keys and tenants."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from gateway.auth import TENANT, Scope
from gateway.schemas.body import NULLABLE_INSTANT, Body, instant


def _distinct_scopes(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) != len(scopes):
        raise ValueError("must not name a scope twice")
    return scopes


def _tenant_id(text: str) -> str:
    if TENANT.fullmatch(text) is None:
        raise ValueError("must be 1 to 63 lower-case letters, digits, - or _")
    return text


TenantId = Annotated[str, AfterValidator(_tenant_id)]


class KeyRequest(Body):
    """An API key that is wanted: the body of `POST /v1/admin/keys`."""

    scopes: Annotated[
        list[Scope],
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_distinct_scopes),
    ]
    tenant: Annotated[
        TenantId | None, Field(description="Whose it is; the asking key's tenant otherwise.")
    ] = None
    name: Annotated[
        Annotated[str, Field(max_length=100)] | None, Field(description="For people.")
    ] = None
    expires_at: Annotated[
        int | None,
        BeforeValidator(instant),
        WithJsonSchema(NULLABLE_INSTANT),
        Field(description="From when on it is refused."),
    ] = None


class TenantRequest(Body):
    """A tenant that is wanted: the body of `POST /v1/admin/tenants`."""

    id: TenantId
    name: Annotated[
        Annotated[str, Field(max_length=100)] | None, Field(description="For people.")
    ] = None
