"""The vocabulary that operations of the OpenAPI document are declared in.

Each module of `gateway.api` has its like here, which declares what it answers; nothing
else knows both. A schema is a pydantic model, or JSON Schema with models anywhere inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from gateway.auth import Scope
from gateway.listing import DEFAULT_LIMIT, MAX_LIMIT

Method = Literal["get", "post", "put", "patch", "delete"]
Schema = type[BaseModel] | Mapping[str, Any]

JSON = "application/json"
BYTES: Mapping[str, Any] = {}
"""The schema of what is no JSON."""

TEXT: Mapping[str, Any] = {"type": "string"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """Something that an address, a query or a header says.

    Attributes:
        name: as it is sent.
        where: what carries it; one of the path is always required.
        text: what it means.
        schema: of its value.
        example: a value of it.
    """

    name: str
    where: Literal["path", "query", "header"]
    text: str
    schema: Mapping[str, Any] = field(default_factory=lambda: TEXT)
    example: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header of an answer.

    Attributes:
        name: of the header.
        text: what it says.
        always: whether every such answer has it.
        schema: of its value.
    """

    name: str
    text: str
    always: bool = True
    schema: Mapping[str, Any] = field(default_factory=lambda: TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A body, and a few words on it."""

    summary: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A body of one media type.

    Attributes:
        schema: of the value in it.
        examples: by name.
        media_type: how it is labelled.
        encoding: how the parts of a form are labelled (OpenAPI's Encoding Objects).
    """

    schema: Schema
    examples: Mapping[str, Example] = field(default_factory=dict)
    media_type: str = JSON
    encoding: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is answered when nothing speaks against it.

    Attributes:
        status: of the answer.
        text: when it comes.
        content: its body, if it has one.
        headers: that belong to it.
        links: operations that go on from it, by name (OpenAPI's Link Objects).
    """

    status: int
    text: str
    content: tuple[Content, ...] = ()
    headers: tuple[Header, ...] = ()
    links: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one address.

    Attributes:
        method: of HTTP; HEAD and OPTIONS go without saying.
        path: with parameters in braces, as the document names them.
        id: unique among operations.
        tag: the group it belongs to.
        summary: a few words.
        text: what it does, in paragraphs.
        scope: what the API key must allow; `any` for any key, None for nobody asked.
        ticket: whether a ticket for the job does as well.
        parameters: besides those of the path that `PATH_PARAMETERS` knows.
        body: what is sent, by media type.
        answers: when nothing speaks against it.
        problems: codes of what may; those that every operation has go without saying.
        calls_back: whether a callback may follow.
        takes_nothing: whether no body at all is taken too, as an empty one.
    """

    method: Method
    path: str
    id: str
    tag: str
    summary: str
    text: str = ""
    scope: Scope | Literal["any"] | None = None
    ticket: bool = False
    parameters: tuple[Parameter, ...] = ()
    body: tuple[Content, ...] = ()
    answers: tuple[Answer, ...]
    problems: tuple[str, ...] = ()
    calls_back: bool = False
    takes_nothing: bool = False


def path_parameter(
    name: str, text: str, example: str, schema: Mapping[str, Any] = TEXT
) -> Parameter:
    """Return a parameter of the path."""
    return Parameter(name=name, where="path", text=text, example=example, schema=schema)


def links(parameter: str, pointer: str, *operations: str) -> dict[str, Any]:
    """Return Link Objects to `operations`, whose `parameter` is at `pointer` in the answer."""
    given = {parameter: f"$response.body#{pointer}"}
    return {name: {"operationId": name, "parameters": given} for name in operations}


def json_answer(
    status: int,
    text: str,
    schema: Schema,
    example: Any,
    *,
    headers: tuple[Header, ...] = (),
    links: Mapping[str, Any] | None = None,
) -> Answer:
    """Return an answer in JSON with one example."""
    content = Content(schema=schema, examples={"example": Example(summary=text, value=example)})
    return Answer(status=status, text=text, content=(content,), headers=headers, links=links or {})


LOCATION = Header(name="Location", text="Address of what was made.", schema={"type": "string"})
RETRY_AFTER = Header(
    name="Retry-After",
    text="Seconds until asking again makes sense.",
    schema={"type": "integer", "minimum": 1},
)
ETAG = Header(name="ETag", text="Names this version, for If-None-Match.")
IF_NONE_MATCH = Parameter(
    name="If-None-Match",
    where="header",
    text="An ETag of an earlier answer: 304 when nothing changed since.",
    example='W/"7"',
)
RANGE = Parameter(
    name="Range",
    where="header",
    text="One range of the bytes (RFC 9110, section 14).",
    example="bytes=0-1023",
)
RATE_LIMIT = (
    Header(
        name="RateLimit-Policy",
        text='What is allowed, such as `"poll";q=60;w=60`; where requests are limited.',
        always=False,
    ),
    Header(
        name="RateLimit",
        text='What is left of it, such as `"poll";r=41;t=12`.',
        always=False,
    ),
)
NEXT_LINK = Header(
    name="Link", text='The next page, as `rel="next"`, unless this is the last.', always=False
)
LIMIT = Parameter(
    name="limit",
    where="query",
    text="How many at the most.",
    schema={"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    example=20,
)
CURSOR = Parameter(name="cursor", where="query", text="`nextCursor` of the page before.")
JSON_BODY_PROBLEMS = (
    "malformed_json",
    "body_too_large",
    "unsupported_media_type",
    "invalid_request",
    "unknown_member",
)
"""What speaks against a body in JSON, whatever it should hold."""
