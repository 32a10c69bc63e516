"""Deliveries over HTTP: how the callbacks of a job stand, what came of each attempt, one more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config import ids
from config.clock import MILLISECOND, parse_rfc3339, rfc3339
from delivery.models import Delivery, Refusal
from delivery.sealing import KeyRing
from gateway.access import Access
from gateway.auth import Principal
from gateway.documents import instant, shown_url
from gateway.problems import Problem
from gateway.reading import read_job
from gateway.resource import json_response, resource
from gateway.services import Services
from gateway.urls import Urls

_NO_STORE = {"Cache-Control": "no-store"}
_HIDDEN = "***"

_REFUSALS: Mapping[Refusal, str] = {
    "redelivery_over": "the delivery was delivered and is not kept whole any longer",
    "endpoint_deleted": "the delivery's endpoint was deleted",
}

HINTS: Mapping[str, str] = {
    "delivered": "The receiver took it.",
    "throttled": "The receiver asks for patience, or a server in front of it is overloaded. This is"
    " tried again, and does not count against the number of attempts.",
    "rejected": "The receiver answered with an error. Its own log says why.",
    "challenge_unanswered": "The receiver took the challenge and did not say it again. Answer 2xx"
    ' with {"challenge": "…"}, the same text that came in data.challenge.',
    "gone": "The receiver answered 410: it wants no more. This URL is not used again until it is"
    " enabled.",
    "dns": "The host's name could not be looked up. Check its spelling and its DNS records.",
    "connect": "No connection could be made. Check that the server runs, and that its firewall lets"
    " the gateway in.",
    "tls": "The TLS handshake failed. Check that the certificate is valid for this host, not"
    " expired, and sent with its whole chain.",
    "timeout": "The receiver did not answer in time. Answer within seconds, and do the work after.",
    "reset": "The connection was closed before the answer was complete.",
    "malformed": "What came back is not an HTTP/1.1 answer.",
    "destination_not_allowed": "The host's address is none the gateway may send to. Nothing was"
    " sent.",
    "lost": "The gateway's process ended during the attempt. Whether the receiver got it is not"
    " known.",
    "interrupted": "The gateway was stopped before the attempt was over. It is made again.",
    "unreadable": "The gateway cannot open the secrets of this callback: a sealing key is missing."
    " Its operator has to mend that.",
    "internal_error": "A fault of the gateway. Its operator's log has the details.",
}
"""What an outcome means and what to do about it, for people."""

_STATUS_HINTS: Mapping[int, str] = {
    400: "The receiver could not read the request. Check how it reads the body.",
    401: "The receiver refused the signature or asks for credentials. Check its webhook secret, and"
    " that it verifies the raw bytes of the body.",
    403: "The receiver refused the request. Check its webhook secret, and any firewall or"
    " bot filter before it.",
    404: "There is nothing at this path. Check the callback URL.",
    405: "The receiver does not take POST at this path. Check the callback URL.",
    413: "The body is larger than the receiver takes.",
    415: "The receiver does not take application/json.",
}


def hint_of(outcome: str, status: int | None) -> str:
    """Return what came of an attempt in plain words.

    Args:
        outcome: as the record of the attempt names it.
        status: the status code of the answer, if there was one.
    """
    if outcome == "rejected" and status is not None:
        if 300 <= status <= 399:
            return "Redirects are not followed. Register the address that this one leads to."
        return _STATUS_HINTS.get(status, HINTS["rejected"])
    return HINTS.get(outcome, "")


class DeliveriesApi:
    """The addresses of deliveries."""

    def __init__(self, services: Services, access: Access, urls: Urls) -> None:
        self._services = services
        self._access = access
        self._urls = urls
        self._partitions = services.settings.store.partitions

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource("/v1/jobs/{job_id}/deliveries", GET=self.of_job),
            resource("/v1/deliveries/{delivery_id}", GET=self.show),
            resource("/v1/deliveries/{delivery_id}/redeliver", POST=self.redeliver),
        ]

    async def of_job(self, request: Request) -> Response:
        """`GET /v1/jobs/{jobId}/deliveries`: the callbacks that the job owed, its end's first."""
        principal = await self._access.principal(request, "read")
        job_id = request.path_params["job_id"]
        services = self._services
        await read_job(services.jobs, job_id, tenant=principal.tenant, partitions=self._partitions)
        owed = await services.jobs.deliveries_of(job_id)
        found = [await services.deliveries.read(each) for each in owed]
        items = [self._document(each, principal) for each in found if each is not None]
        return json_response({"items": items}, 200, _NO_STORE)

    async def show(self, request: Request) -> Response:
        """`GET /v1/deliveries/{id}`: how it stands, and its last twenty attempts."""
        principal = await self._access.principal(request, "read")
        delivery = await self._find(request, principal)
        return json_response(self._document(delivery, principal), 200, _NO_STORE)

    async def redeliver(self, request: Request) -> Response:
        """`POST /v1/deliveries/{id}/redeliver`: 202; it is sent as soon as its endpoint allows."""
        principal = await self._access.principal(request, "operate")
        delivery = await self._find(request, principal)
        await self._services.audit.record(
            request, principal, "delivery.redeliver", delivery.id, state=delivery.state
        )
        match await self._services.deliveries.redeliver(delivery.id, ids.random_text(16)):
            case None:
                raise _unknown()
            case "redelivery_over" | "endpoint_deleted" as refusal:
                raise Problem(refusal, _REFUSALS[refusal])
            case "pending" | "delivered" | "dead":
                pass
        delivery = await self._find(request, principal)
        return json_response(self._document(delivery, principal), 202, _NO_STORE)

    async def _find(self, request: Request, principal: Principal) -> Delivery:
        delivery_id = request.path_params["delivery_id"]
        delivery = None
        if ids.is_id("msg", delivery_id) and ids.partition_of(delivery_id) < self._partitions:
            delivery = await self._services.deliveries.read(delivery_id)
        if delivery is None or delivery.tenant != principal.tenant:
            raise _unknown()
        return delivery

    def _document(self, delivery: Delivery, principal: Principal) -> dict[str, Any]:
        return delivery_document(
            delivery,
            ring=self._services.ring,
            urls=self._urls,
            with_answers="operate" in principal.scopes,
        )


def delivery_document(
    delivery: Delivery, *, ring: KeyRing, urls: Urls, with_answers: bool
) -> dict[str, Any]:
    """Return a delivery as people see it.

    Args:
        delivery: as the store has it.
        ring: opens its URL and its headers.
        urls: builds the addresses in it.
        with_answers: whether the reader may see what the receiver said.

    Raises:
        SealError: no key of the ring opens them.
    """
    sealed = delivery.headers
    headers = json.loads(ring.open(sealed, row=delivery.id)) if sealed else {}
    job_id = delivery.tags.get("jobId")
    url = urls.delivery(delivery.id)
    return {
        "id": delivery.id,
        "event": delivery.tags.get("event"),
        "jobId": job_id,
        "jobType": delivery.tags.get("jobType"),
        "endpointId": delivery.endpoint,
        "url": _url(delivery, ring),
        "headers": dict.fromkeys(headers, _HIDDEN),
        "state": delivery.state,
        "reason": delivery.reason,
        "createdAt": rfc3339(delivery.created_at),
        "endedAt": instant(delivery.ended_at),
        "nextAttemptAt": instant(delivery.next_attempt_at),
        "lastStatusCode": delivery.last_status,
        "attemptCount": delivery.attempts,
        "attempts": [attempt_document(each, with_answer=with_answers) for each in delivery.history],
        "_links": {
            "self": url,
            "redeliver": f"{url}/redeliver",
            "endpoint": urls.endpoint(delivery.endpoint),
            "job": urls.job(job_id) if isinstance(job_id, str) else None,
        },
    }


def _url(delivery: Delivery, ring: KeyRing) -> str | None:
    """Return where it goes, or went; None when not even the origin is known any longer."""
    if delivery.url:
        return shown_url(ring.open(delivery.url, row=delivery.id).decode())
    return f"{delivery.origin}/{_HIDDEN}" if delivery.origin else None


def attempt_document(record: Mapping[str, Any], *, with_answer: bool) -> dict[str, Any]:
    """Return one attempt as people see it.

    Args:
        record: what delivery keeps of it.
        with_answer: whether the reader may see what the receiver said.
    """
    status = record.get("statusCode")
    outcome = record.get("outcome", "")
    document = {
        "number": record["number"],
        "at": record.get("at"),
        "durationMs": record.get("durationMs"),
        "trigger": record.get("trigger"),
        "outcome": outcome,
        "statusCode": status,
        "nextAttemptAt": _next_attempt(record),
        "hint": hint_of(outcome, status),
    }
    if with_answer:
        document["answer"] = record.get("answer")
        document["answerTruncated"] = bool(record.get("answerTruncated"))
    return document


def _next_attempt(record: Mapping[str, Any]) -> str | None:
    """Return when the attempt after this one was to be, None where none followed from it."""
    if record.get("trigger") in {"manual", "test"}:
        # It is one attempt, whatever the schedule would say.
        return None
    if "nextInMs" not in record or "at" not in record:
        return None
    passed = record.get("durationMs", 0) + record["nextInMs"]
    return rfc3339(parse_rfc3339(record["at"]) + passed * MILLISECOND)


def _unknown() -> Problem:
    return Problem("not_found", "no delivery of this identifier is known")
