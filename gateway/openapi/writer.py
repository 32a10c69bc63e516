"""What is declared, written as OpenAPI 3.1 has it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.openapi.definitions import Definitions, Json, Mode
from gateway.openapi.events import Message
from gateway.openapi.models.problems import ProblemDocument
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


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes what is declared as OpenAPI has it."""

    models: Definitions

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
                each.event: {"{$request.body#/callbackUrl}": {"$ref": path_item(each)}}
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


def path_item(message: Message) -> str:
    """Return the reference to what the document says of a request that the gateway makes."""
    return f"#/components/pathItems/{message.event}"
