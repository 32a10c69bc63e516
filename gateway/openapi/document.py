"""The OpenAPI 3.1 document, made of what the modules beside this one declare.

One schema for one thing: requests from the models that judge them, answers from `models`,
inputs and results from the job types. The document is the same for everyone and for ever in one
process, so it is made once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from gateway.jobtypes import JobType
from gateway.openapi import (
    audit,
    deadletters,
    deliveries,
    endpoints,
    files,
    jobs,
    keys,
    lists,
    ownership,
    replays,
    routes,
    samples,
    secrets,
    streams,
    system,
)
from gateway.openapi.definitions import Definitions, Json, models_of
from gateway.openapi.events import challenge, messages, notices
from gateway.openapi.examples import Examples
from gateway.openapi.operations import (
    Operation,
)
from gateway.openapi.writer import Writer, path_item
from gateway.problems import PROBLEMS
from gateway.routes import JobRoute
from gateway.urls import Urls

_INTRODUCTION = """\
Slow work by Asynchronous Request-Reply: submit a job and get 202 at once; hear of its end by a
signed callback, by polling, or by watching.

Times are RFC 3339 in UTC. Addresses in answers are absolute. Members that nobody knows are refused
in requests; answers may get new ones. Refusals are `application/problem+json` (RFC 9457) with a
`code` for programs. HEAD works wherever GET does, and OPTIONS needs no credentials."""

_TAGS: Mapping[str, str] = {
    jobs.TAG: "Submit work, ask how it stands, fetch what came of it.",
    streams.TAG: "Follow a job without polling.",
    routes.TAG: "Job types at addresses of their own.",
    files.TAG: "Inputs that are uploaded ahead.",
    endpoints.TAG: "Where callbacks go, and what signs them.",
    deliveries.TAG: "How callbacks went, attempt by attempt.",
    keys.TAG: "API keys, tenants, and who did what; for operators.",
    deadletters.TAG: "What was not delivered and which jobs failed, and why.",
    replays.TAG: "Dead letters, tried again.",
    system.TAG: "The gateway on itself.",
}


def operations(
    examples: Examples, job_types: tuple[JobType, ...], paths: tuple[JobRoute, ...]
) -> tuple[Operation, ...]:
    """Return every operation of the API."""
    return (
        *jobs.operations(examples, job_types),
        *lists.operations(examples, jobs.TAG),
        *streams.operations(examples),
        *routes.operations(examples, paths),
        *files.operations(examples),
        *endpoints.operations(examples),
        *secrets.operations(),
        *samples.operations(examples),
        *ownership.operations(examples),
        *deliveries.operations(examples),
        *deadletters.operations(examples),
        *replays.operations(examples),
        *keys.operations(examples),
        *audit.operations(),
        *system.operations(),
    )


def openapi(
    urls: Urls, job_types: tuple[JobType, ...], routes: tuple[JobRoute, ...], version: str
) -> Json:
    """Return the document.

    Args:
        urls: builds the addresses in examples; its base is the one server.
        job_types: on offer.
        routes: configured.
        version: of the gateway.
    """
    examples = Examples(urls)
    declared = operations(examples, job_types, routes)
    told = messages(examples)
    webhooks = (*told, challenge(), *notices(examples))
    results = [(kind.result_model, "serialization") for kind in job_types]
    definitions = Definitions([*models_of(declared, webhooks), *results])  # type: ignore[list-item]
    writer = Writer(definitions)
    paths: dict[str, Json] = defaultdict(dict)
    for operation in declared:
        paths[operation.path][operation.method] = writer.operation(operation, told)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Asynchronous Request-Reply gateway",
            "version": version,
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": urls.base}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": dict(paths),
        "webhooks": {each.event: {"$ref": path_item(each)} for each in webhooks},
        "components": {
            "schemas": definitions.schemas,
            "securitySchemes": _SECURITY_SCHEMES,
            "pathItems": {each.event: {"post": writer.message(each)} for each in webhooks},
            "examples": {
                f"problem.{code}": {"summary": kind.title, "value": examples.problem(code)}
                for code, kind in PROBLEMS.items()
            },
        },
    }


_SECURITY_SCHEMES: Mapping[str, Json] = {
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key with scopes among `submit`, `read`, `operate` and `admin`.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "Read access to one job, for whoever cannot send an API key. It comes with"
        " redirects and callbacks, or from `POST /v1/jobs/{jobId}/ticket`.",
    },
}
