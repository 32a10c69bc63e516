"""What `api_routes` answers: job types at addresses of their own."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from typing import Any, cast

from pydantic import BaseModel, Field, create_model

from gateway.jobtypes import InputInvalid
from gateway.openapi.examples import CALLBACK_URL, Examples, input_of
from gateway.openapi.jobs import KEY, SUBMIT_PROBLEMS, accepted
from gateway.openapi.operations import JSON, Content, Example, Operation
from gateway.openapi.streams import PREFER, waited
from gateway.routes import CALLBACK_URL as CALLBACK_MEMBER
from gateway.routes import JobRoute
from gateway.schemas.body import CallbackUrl

TAG = "Routes"


def operations(examples: Examples, routes: tuple[JobRoute, ...]) -> tuple[Operation, ...]:
    """Return one operation for each configured route."""
    return tuple(
        Operation(
            method="post",
            path=route.path,
            id="submit" + "".join(part.title() for part in route.path.split("/") if part),
            tag=TAG,
            summary=f"Submit {route.job_type.name}",
            text=f"{route.job_type.summary}\n\nDoes what `POST /v1/jobs` does. The body is its"
            " input, with `callbackUrl` beside its members; JSON may be labelled `text/plain`, as"
            " `fetch` labels a string. In a form each part is a member: files as they are,"
            " objects and lists as JSON.",
            scope="submit",
            parameters=(KEY, PREFER),
            body=_bodies(route),
            answers=(waited(examples), accepted(examples)),
            problems=SUBMIT_PROBLEMS,
            calls_back=True,
        )
        for route in routes
    )


def _bodies(route: JobRoute) -> tuple[Content, ...]:
    kind = route.job_type
    schema = with_callback(kind.input_model)
    value = {**input_of(kind), CALLBACK_MEMBER: CALLBACK_URL}
    examples = {"example": Example(summary=kind.summary, value=value)}
    json_body = Content(schema=schema, examples=examples)
    text = {"type": "string", "contentMediaType": JSON, "contentSchema": schema}
    spelled = Example(summary="The same, as `fetch` labels a string", value=json.dumps(value))
    text_body = Content(schema=text, media_type="text/plain", examples={"text": spelled})
    return (json_body, text_body, *_form(route))


def _form(route: JobRoute) -> tuple[Content, ...]:
    files = [name for name, form in route.forms.items() if form == "file"]
    members: dict[str, Any] = {name: {"type": "string", "format": "binary"} for name in files} | {
        name: {"type": "string"} | ({} if form == "text" else {"contentMediaType": JSON})
        for name, form in route.forms.items()
        if form != "file"
    }
    members[CALLBACK_MEMBER] = {"type": "string", "format": "uri", "pattern": "^https?://"}
    schema = {"type": "object", "properties": members, "additionalProperties": False}
    return (
        Content(media_type="multipart/form-data", schema=schema, examples=_form_examples(route)),
    )


def _form_examples(route: JobRoute) -> dict[str, Example]:
    value = _with_file(route)
    for member, form in route.forms.items():
        if form == "file" and member in value:
            value[member] = "(the bytes of the file)"
        elif form == "json" and member in value:
            value[member] = json.dumps(value[member])
    return {"example": Example(summary=route.job_type.summary, value=value)}


def _with_file(route: JobRoute) -> dict[str, Any]:
    """Return the type's example, a file in the place of whatever stands for it, if it takes one."""
    kind = route.job_type
    value = dict(kind.example)
    files = [name for name, form in route.forms.items() if form == "file"]
    if not files or not value.keys().isdisjoint(files):
        return value
    for left_out in (None, *value):
        tried = {name: each for name, each in value.items() if name != left_out}
        tried[files[0]] = {"part": files[0]}
        with suppress(InputInvalid):
            kind.parse_input(tried)
            return tried
    return value


@cache
def with_callback(model: type[BaseModel]) -> type[BaseModel]:
    """Return the model of an input with a `callbackUrl` beside its members."""
    field = (CallbackUrl | None, Field(default=None, alias=CALLBACK_MEMBER))
    return create_model(
        f"{model.__name__}AndCallback",
        __base__=model,
        __doc__=model.__doc__,
        callback_url=cast("Any", field),
    )
