"""What signs the callbacks to an endpoint, over HTTP: shown, and changed without a gap."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config.clock import SECOND, rfc3339
from delivery.endpoints import Endpoint, open_secrets
from delivery.errors import RotationContended
from delivery.models import Scheme
from delivery.rotation import Change, change_secrets
from delivery.secrets import Secret, Secrets
from delivery.signing import generate_secret, public_key
from gateway.access import Access
from gateway.audit import Action
from gateway.auth import Principal
from gateway.bodies import read_optional_json
from gateway.idempotency import parse_key
from gateway.problems import Problem
from gateway.reading import read_endpoint, unknown_endpoint
from gateway.resource import json_response, resource
from gateway.schemas.endpoints import RotateRequest, parse_rotation
from gateway.services import Services

_NO_STORE = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A request with an Idempotency-Key, as it is kept with the secret that it brought.

    Attributes:
        key: stands for the key.
        request: stands for what was asked for with it.
    """

    key: str
    request: str

    @classmethod
    def of(cls, key: str, request: RotateRequest) -> Wish:
        """Return the wish that `request` is under `key`."""
        return cls(key=_short(key.encode()), request=_short(request.canonical()))

    def __str__(self) -> str:
        """Return what is kept of it."""
        return f"{self.key}.{self.request}"

    def was_fulfilled(self, secrets: Secrets) -> bool:
        """Tell whether one of `secrets` came by it.

        Raises:
            Problem: `idempotency_key_reused`: one came by the same key and another request.
        """
        for each in (secrets.newest, *secrets.retired):
            key, _, request = each.wish.partition(".")
            if key == self.key and request != self.request:
                raise Problem(
                    "idempotency_key_reused", "this Idempotency-Key stands for another rotation"
                )
            if key == self.key:
                return True
        return False


class SecretsApi:
    """The addresses of an endpoint's secrets."""

    def __init__(self, services: Services, access: Access) -> None:
        self._services = services
        self._access = access
        self._ring = services.ring

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource("/v1/endpoints/{endpoint_id}/secret", GET=self.show),
            resource("/v1/endpoints/{endpoint_id}/rotate", POST=self.rotate),
        ]

    async def show(self, request: Request) -> Response:
        """`GET /v1/endpoints/{id}/secret`: what its receiver verifies signatures with."""
        principal = await self._access.principal(request, "admin")
        endpoint = await self._find(request, principal)
        document = self._document(endpoint)
        await self._services.audit.record(request, principal, "endpoint.secret_read", endpoint.id)
        return json_response(document, 200, _NO_STORE)

    async def rotate(self, request: Request) -> Response:
        """`POST /v1/endpoints/{id}/rotate`: 200 with the secrets as they are from now on."""
        principal = await self._access.principal(request, "admin")
        key = parse_key(request.headers.getlist("idempotency-key"), required=False)
        limits = self._services.settings.api
        wanted = parse_rotation(await read_optional_json(request, limits))
        endpoint = await self._find(request, principal)
        action: Action = "endpoint.secret_retire" if wanted.retire else "endpoint.secret_rotate"
        await self._services.audit.record(
            request, principal, action, endpoint.id, scheme=wanted.scheme
        )
        wish = Wish.of(key, wanted) if key else None
        if wanted.retire:
            changed, replayed = await self._retire(endpoint, wanted.scheme), False
        else:
            changed, replayed = await self._replace(endpoint, wanted, wish)
        if changed is None:
            raise unknown_endpoint()
        headers = {**_NO_STORE, "Idempotent-Replayed": "true"} if replayed else _NO_STORE
        return json_response(self._document(changed), 200, headers)

    async def _retire(self, endpoint: Endpoint, scheme: Scheme) -> Endpoint | None:
        def settle(known: Secrets | None) -> Secrets | None:
            return known and known.settled()

        return await self._change(endpoint, scheme, settle)

    async def _replace(
        self, endpoint: Endpoint, wanted: RotateRequest, wish: Wish | None
    ) -> tuple[Endpoint | None, bool]:
        """Return the endpoint with its new secret, and whether an earlier request brought it."""
        text = wanted.secret or generate_secret(wanted.scheme)
        usual = self._services.settings.delivery.secret_overlap_seconds
        seconds = usual if wanted.overlap_seconds is None else wanted.overlap_seconds
        overlap, now = int(seconds * SECOND), self._services.clock.now()
        replayed = False

        def rotated(known: Secrets | None) -> Secrets:
            nonlocal replayed
            mark = str(wish) if wish else ""
            if known is None:
                return Secrets(newest=Secret(text=text, wish=mark))
            replayed = wish is not None and wish.was_fulfilled(known)
            if replayed:
                return known
            return known.rotated(text, now=now, overlap=overlap, wish=mark)

        return await self._change(endpoint, wanted.scheme, rotated), replayed

    async def _change(self, endpoint: Endpoint, scheme: Scheme, change: Change) -> Endpoint | None:
        try:
            return await change_secrets(
                self._services.deliveries, self._ring, endpoint, scheme, change
            )
        except RotationContended as error:
            detail = "others are changing these secrets at this moment"
            raise Problem("overloaded", detail, retry_after=1) from error

    async def _find(self, request: Request, principal: Principal) -> Endpoint:
        endpoint_id = request.path_params["endpoint_id"]
        return await read_endpoint(self._services.deliveries, endpoint_id, tenant=principal.tenant)

    def _document(self, endpoint: Endpoint) -> dict[str, Any]:
        secrets = {
            scheme: open_secrets(sealed, endpoint.id, self._ring)
            for scheme, sealed in endpoint.secrets.items()
        }
        return secrets_document(secrets, now=self._services.clock.now())


def secrets_document(secrets: Mapping[Scheme, Secrets], *, now: int) -> dict[str, Any]:
    """Return what a receiver has to know at `now` (µs); what signs by Ed25519 is never in it."""

    def newest(scheme: Scheme) -> str | None:
        return secrets[scheme].newest.text if scheme in secrets else None

    pair = newest("v1a")
    return {
        "secret": newest("v1"),
        "publicKey": pair and public_key(pair),
        "xSignatureSecret": newest("x-signature"),
        "retiring": [
            {
                "scheme": scheme,
                "secret": None if scheme == "v1a" else each.text,
                "publicKey": public_key(each.text) if scheme == "v1a" else None,
                "until": rfc3339(each.until or now),
            }
            for scheme, known in secrets.items()
            for each in known.retiring(now)
        ],
    }


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
