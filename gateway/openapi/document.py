"""The OpenAPI 3.1 document, made of what the modules beside this one declare.

One schema for one thing: requests from the models that judge them, answers from `models`,
inputs and results from the job types. The document is the same for everyone and for ever in one
process, so it is made once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

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
from gateway.openapi.events import Message, challenge, messages, notices
from gateway.openapi.examples import Examples
from gateway.openapi.models import ProblemDocument
from gateway.openapi.operations import (
    RATE_LIMIT,
    Answer,
    Content,
    Example,
    Header,
    Operation,
    Parameter,
)
from gateway.problems import MEDIA_TYPE, PROBLEMS
from gateway.routes import JobRoute
from gateway.urls import Urls

Mode = Literal["validation", "serialization"]
Json = dict[str, Any]

_ANY_TIME = ("malformed_request", "head_too_large", "internal_error", "overloaded")
_WITH_KEY = ("unauthorized", "store_unavailable")
_RETRY_LATER = frozenset(
    {
        "result_not_ready",
        "request_in_progress",
        "rate_limited",
        "overloaded",
        "too_many_pending",
        "unhealthy",
        "too_many_replays",
        "store_unavailable",
        "store_full",
        "queue_full",
        "too_many_watchers",
        "artifacts_unavailable",
    }
)

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
    models = _Models([*_models_of(declared, webhooks), *results])  # type: ignore[list-item]
    writer = _Writer(models)
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
        "webhooks": {each.event: {"$ref": _message(each)} for each in webhooks},
        "components": {
            "schemas": models.schemas,
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


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles that only say a member's name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Tell that no title is wanted."""
        return False


class _Models:
    """The schemas of models, each under one name in the whole document."""

    def __init__(self, wanted: Iterable[tuple[type[BaseModel], Mode]]) -> None:
        self._refs, made = models_json_schema(
            list(dict.fromkeys(wanted)),
            by_alias=True,
            ref_template="#/components/schemas/{model}",
            schema_generator=_Untitled,
        )
        self.schemas: Json = made.get("$defs", {})
        for schema in self.schemas.values():
            schema.pop("title", None)

    def resolved(self, schema: Any, mode: Mode) -> Any:
        """Return `schema` with every model in it made a reference."""
        match schema:
            case type():
                return self._refs[schema, mode]
            case Mapping():
                return {key: self.resolved(value, mode) for key, value in schema.items()}
            case list() | tuple():
                return [self.resolved(value, mode) for value in schema]
            case _:
                return schema


def _models_of(
    declared: Iterable[Operation], told: Iterable[Message]
) -> Iterator[tuple[type[BaseModel], Mode]]:
    yield ProblemDocument, "serialization"
    for operation in declared:
        for content in operation.body:
            yield from _models_in(content.schema, "validation")
        for answer in operation.answers:
            for content in answer.content:
                yield from _models_in(content.schema, "serialization")
    for message in told:
        yield from _models_in(message.body.schema, "serialization")
        if message.answer is not None:
            yield from _models_in(message.answer.schema, "serialization")


def _models_in(schema: Any, mode: Mode) -> Iterator[tuple[type[BaseModel], Mode]]:
    match schema:
        case type():
            yield schema, mode
        case Mapping():
            for value in schema.values():
                yield from _models_in(value, mode)
        case list() | tuple():
            for value in schema:
                yield from _models_in(value, mode)


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes what is declared as OpenAPI has it."""

    models: _Models

    def operation(self, operation: Operation, told: tuple[Message, ...]) -> Json:
        """Return an Operation Object."""
        written: Json = {
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": operation.summary,
            "security": _security(operation),
        }
        if operation.text:
            written["description"] = operation.text
        if operation.parameters:
            written["parameters"] = [_parameter(each) for each in operation.parameters]
        if operation.body:
            written["requestBody"] = {
                "required": not operation.takes_nothing,
                "content": self.contents(operation.body, "validation"),
            }
        written["responses"] = {
            **{str(each.status): self.answer(each) for each in operation.answers},
            **self.problems(operation),
        }
        if operation.calls_back:
            written["callbacks"] = {
                each.event: {"{$request.body#/callbackUrl}": {"$ref": _message(each)}}
                for each in told
            }
        return written

    def message(self, message: Message) -> Json:
        """Return the Operation Object of a request that the gateway makes."""
        headers = [
            *({**_parameter(each), "required": True} for each in message.headers),
            *map(_parameter, message.more_headers),
        ]
        return {
            "operationId": "on" + "".join(part.title() for part in message.event.split(".")),
            "summary": message.summary,
            "parameters": headers,
            "requestBody": {
                "required": True,
                "content": self.contents((message.body,), "serialization"),
            },
            "responses": {
                "2XX": {
                    "description": "It is delivered.",
                    **(
                        {"content": self.contents((message.answer,), "serialization")}
                        if message.answer
                        else {}
                    ),
                },
                "410": {"description": "This URL is called no more."},
                "default": {"description": "It is tried again later, up to a limit."},
            },
        }

    def answer(self, answer: Answer) -> Json:
        """Return a Response Object."""
        written: Json = {"description": answer.text}
        if answer.headers:
            written["headers"] = {each.name: _header(each) for each in answer.headers}
        if answer.content:
            written["content"] = self.contents(answer.content, "serialization")
        if answer.links:
            written["links"] = dict(answer.links)
        return written

    def contents(self, contents: Iterable[Content], mode: Mode) -> Json:
        """Return a map of Media Type Objects."""
        return {each.media_type: self.content(each, mode) for each in contents}

    def content(self, content: Content, mode: Mode) -> Json:
        """Return a Media Type Object."""
        written: Json = {"schema": self.models.resolved(content.schema, mode)}
        if content.examples:
            written["examples"] = {
                name: _example(example) for name, example in content.examples.items()
            }
        if content.encoding:
            written["encoding"] = dict(content.encoding)
        return written

    def problems(self, operation: Operation) -> Json:
        """Return a Response Object for each status that a problem of the operation has."""
        by_status: dict[int, list[str]] = defaultdict(list)
        for code in sorted({*operation.problems, *_implied(operation)}):
            by_status[PROBLEMS[code].status].append(code)
        return {
            str(status): self.refusal(status, by_status[status]) for status in sorted(by_status)
        }

    def refusal(self, status: int, codes: list[str]) -> Json:
        """Return the Response Object of the problems with one status."""
        schema = {
            "allOf": [ProblemDocument],
            "properties": {"status": {"const": status}, "code": {"enum": codes}},
        }
        written: Json = {
            "description": " ".join(f"{PROBLEMS[code].title}." for code in codes),
            "content": {
                MEDIA_TYPE: {
                    "schema": self.models.resolved(schema, "serialization"),
                    "examples": {
                        code: {"$ref": f"#/components/examples/problem.{code}"} for code in codes
                    },
                }
            },
        }
        headers = list(_refusal_headers(status, codes))
        if headers:
            written["headers"] = {each.name: _header(each) for each in headers}
        return written


def _implied(operation: Operation) -> Iterator[str]:
    yield from _ANY_TIME
    if operation.scope is not None:
        yield from _WITH_KEY
        if operation.scope != "any":
            yield "insufficient_scope"


def _refusal_headers(status: int, codes: list[str]) -> Iterator[Header]:
    if status == 401:
        yield Header(name="WWW-Authenticate", text="What is needed: a bearer API key.")
    later = _RETRY_LATER.intersection(codes)
    if later:
        yield Header(
            name="Retry-After",
            text="Seconds until asking again makes sense.",
            always=later == set(codes),
            schema={"type": "integer", "minimum": 1},
        )
    if "rate_limited" in codes:
        yield from RATE_LIMIT
    if status == 416:
        yield Header(name="Content-Range", text="How many bytes there are.")


def _security(operation: Operation) -> list[Json]:
    if operation.scope is None:
        return []
    scopes = [] if operation.scope == "any" else [operation.scope]
    return [{"apiKey": scopes}, *([{"ticket": []}] if operation.ticket else [])]


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.text,
        "required": parameter.where == "path",
        "schema": dict(parameter.schema),
        **({} if parameter.example is None else {"example": parameter.example}),
    }


def _header(header: Header) -> Json:
    return {
        "description": header.text,
        "required": header.always,
        "schema": dict(header.schema),
    }


def _example(example: Example) -> Json:
    return {"summary": example.summary, "value": example.value}


def _message(message: Message) -> str:
    return f"#/components/pathItems/{message.event}"
