"""What is sent to callback endpoints: to register, change, rotate, test and verify one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.alias_generators import to_snake

from delivery.endpoints import MAX_DISABLED_URLS
from delivery.errors import SecretError
from delivery.models import Scheme
from delivery.signing import check_secret
from gateway.faults import Fault
from gateway.models import Payload
from gateway.problems import Problem
from gateway.schemas.body import Body, CallbackUrl, parse
from gateway.schemas.jobs import Event, layout_of
from gateway.strict_json import canonical

MAX_OVERLAP_SECONDS = 30 * 86_400
MIN_RATE = 0.001
MAX_RATE = 100_000


class EndpointRequest(Body):
    """A callback URL whose origin is to be known beforehand: the body of `POST /v1/endpoints`."""

    url: CallbackUrl


class SampleRequest(Body):
    """A sample that is to be sent: the body of `POST /v1/endpoints/{id}/test`."""

    url: Annotated[
        CallbackUrl | None,
        Field(description="Where to: a URL of this endpoint's origin; its root otherwise."),
    ] = None
    event: Annotated[Event, Field(description="What it tells.")] = "job.completed"
    signature: Annotated[Scheme, Field(description="As in `callback` of a job.")] = "v1"
    payload: Annotated[Payload | None, Field(description="As in `callback` of a job.")] = None

    @property
    def layout(self) -> Payload:
        """How the body is laid out."""
        return layout_of(self.signature, self.payload)


class VerifyRequest(Body):
    """A challenge that is wanted: the body of `POST /v1/endpoints/{id}/verify`."""

    url: Annotated[
        CallbackUrl | None,
        Field(description="Where to: a URL of this endpoint's origin; its root otherwise."),
    ] = None


class RotateRequest(Body):
    """Another secret that is wanted: the body of `POST /v1/endpoints/{id}/rotate`."""

    scheme: Annotated[Scheme, Field(description="Whose secret.")] = "v1"
    secret: Annotated[
        Annotated[str, Field(min_length=24, max_length=128)] | None,
        Field(
            description="One of your own: `whsec_` and base64 of 24 to 64 bytes; for `v1a` `whsk_`"
            " and base64 of seed and public key; for `x-signature` 24 to 128 printable ASCII"
            " characters. A random one otherwise."
        ),
    ] = None
    overlap_seconds: Annotated[
        Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS)] | None,
        Field(
            description="How long the one it replaces signs on; 0: not at all. Those replaced"
            " earlier sign no longer than that either. A day, unless the operator set another."
        ),
    ] = None
    retire: Annotated[
        bool,
        Field(description="Make no new one: what was replaced earlier signs no more, from now on."),
    ] = False

    def canonical(self) -> bytes:
        """Return the one spelling of what was asked for: members given, names sorted."""
        return canonical(self.model_dump(by_alias=True, exclude_unset=True))


class EndpointChange(Body):
    """What an operator says of an endpoint: the body of `PATCH /v1/endpoints/{id}`.

    A member that is left out changes nothing (as in RFC 7396).
    """

    rate_per_second: Annotated[
        Annotated[float, Field(ge=MIN_RATE, le=MAX_RATE)] | None,
        Field(description="Attempts a second, at most; null for no such bound."),
    ] = None
    max_concurrency: Annotated[
        Annotated[int, Field(ge=1, le=100_000)] | None,
        Field(description="Attempts at once, at most; null for the gateway's own bound."),
    ] = None
    disabled_urls: Annotated[
        list[CallbackUrl],
        Field(
            max_length=MAX_DISABLED_URLS,
            description="The URLs nothing is sent to. One that is left out is enabled again.",
        ),
    ] = []


def parse_rotation(value: Any) -> RotateRequest:
    """Return `value`, decoded JSON, as the wish for another secret.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault; a secret is not
            shown.
    """
    request = parse(RotateRequest, value)
    if request.retire:
        for member in ("secret", "overlapSeconds"):
            if getattr(request, to_snake(member)) is not None:
                fault = Fault(f"/{member}", "means nothing beside retire")
                raise Problem("invalid_request", "retire makes no new secret", faults=[fault])
    if request.secret is not None:
        try:
            check_secret(request.scheme, request.secret)
        except SecretError as error:
            fault = Fault("/secret", str(error))
            raise Problem("invalid_request", str(error), faults=[fault]) from error
    return request
