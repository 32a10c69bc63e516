"""Configured routes: a job type at an address of its own, its input as the body.

What comes in is made the same request that `POST /v1/jobs` takes; from there on nothing differs but
where faults are found: the input's members are the body's.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args, get_origin

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from config.settings import Settings, default_routes
from gateway.bodies import JSON, Kind, body_kind
from gateway.faults import Fault
from gateway.jobcontext import FileRef
from gateway.jobtypes import DefinitionError, JobType, Registry, UnknownJobType
from gateway.problems import Problem
from gateway.schemas.jobs import SubmitRequest, parse_submit

CALLBACK_URL = "callbackUrl"
"""The one member of the body that is not the input's."""

Form = Literal["file", "text", "json"]
"""What a part of a multipart body stands for: an uploaded file, its own text, or a JSON value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRoute:
    """An address and the job type it is for.

    Attributes:
        path: as the settings name it.
        job_type: what a POST there submits.
        forms: how a part of a multipart body is read, by the member of the input it stands for.
    """

    path: str
    job_type: JobType
    forms: Mapping[str, Form]

    def member(self, part: str, *, is_file: bool) -> str:
        """Return the member that the part of this name stands for.

        A file of another name than a member's is the one file that the input has, if it has one.
        """
        files = [name for name, form in self.forms.items() if form == "file"]
        if is_file and part not in self.forms and len(files) == 1:
            return files[0]
        return part


def job_routes(settings: Settings, registry: Registry) -> tuple[JobRoute, ...]:
    """Return the routes that the settings configure, by path.

    A route of the defaults file whose job type is not on offer is left out.

    Raises:
        DefinitionError: a route cannot be had; the message names it.
    """
    found: list[JobRoute] = []
    for path, name in sorted(settings.routes.items()):
        if not name:
            continue
        try:
            job_type = registry.get(name)
        except UnknownJobType as error:
            if default_routes().get(path) == name:
                continue
            raise DefinitionError(f"routes.{path}: {error}") from error
        forms = _forms(job_type)
        if CALLBACK_URL in forms:
            raise DefinitionError(
                f"routes.{path}: the input of {name} has a member {CALLBACK_URL} of its own"
            )
        found.append(JobRoute(path=path, job_type=job_type, forms=forms))
    return tuple(found)


def submission(route: JobRoute, body: Any) -> SubmitRequest:
    """Return what `body`, decoded JSON, submits at `route`.

    Raises:
        Problem: `invalid_request`.
    """
    if not isinstance(body, dict):
        fault = Fault("", "must be an object")
        raise Problem("invalid_request", "the body must be an object", faults=[fault])
    given = {name: value for name, value in body.items() if name != CALLBACK_URL}
    request: dict[str, Any] = {"type": route.job_type.name, "input": given}
    if CALLBACK_URL in body:
        request[CALLBACK_URL] = body[CALLBACK_URL]
    return parse_submit(request, metadata_limit=0)


def relocated(problem: Problem) -> Problem:
    """Return `problem` with its faults where the client of a route finds them."""
    faults = [
        replace(fault, pointer=fault.pointer.removeprefix("/input")) for fault in problem.faults
    ]
    return Problem(
        problem.code,
        problem.detail,
        faults=faults,
        headers=problem.headers,
        members=problem.members,
    )


def route_body_kind(headers: Headers) -> Kind:
    """Return what the body is; `text/plain`, as `fetch` labels a string, counts as JSON.

    Raises:
        Problem: `unsupported_media_type`.
    """
    label = headers.get("content-type", "")
    media_type, parameters = parse_options_header(label)
    if media_type == b"text/plain":
        charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
        headers = Headers({**headers, "content-type": f"{JSON}; charset={charset}"})
    return body_kind(headers)


def _forms(job_type: JobType) -> dict[str, Form]:
    return {
        field.alias or name: _form(field.annotation)
        for name, field in job_type.input_model.model_fields.items()
    }


def _form(annotation: object) -> Form:
    choices = list(_choices(annotation))
    if FileRef in choices:
        return "file"
    return "text" if str in choices else "json"


def _choices(annotation: object) -> typing.Iterator[object]:
    """Yield what a member of this type may be, `Annotated` and unions taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _choices(get_args(annotation)[0])
    elif origin in {typing.Union, types.UnionType}:
        for choice in get_args(annotation):
            yield from _choices(choice)
    elif origin is Literal:
        yield from {type(value) for value in get_args(annotation)}
    else:
        yield annotation
