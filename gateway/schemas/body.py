"""What every request body has in common, and how its faults are told.

Types are checked strictly: `"5"` is no number. A member that nobody knows is refused, and an
optional one may be null, as the job document writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel

from config.clock import parse_rfc3339
from gateway.faults import Fault, details_of, fault_of
from gateway.problems import Problem

_LAST_INSTANT = parse_rfc3339("9999-12-31T23:59:59.999999Z")
NULLABLE_INSTANT = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}

Text = Annotated[str, Field(min_length=1, max_length=2_048)]

CallbackUrl = Annotated[
    str, WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://"})
]


def instant(value: object) -> int | None:
    """Return a time as µs since the epoch; ValueError for what is none."""
    if value is None:
        return None
    moment = -1
    if isinstance(value, str):
        with suppress(ValueError, OverflowError):
            moment = parse_rfc3339(value)
    if not 0 <= moment <= _LAST_INSTANT:
        raise ValueError("must be a time in RFC 3339 since 1970, such as 2030-01-31T12:00:00Z")
    return moment


NullableInstant = Annotated[int | None, BeforeValidator(instant), WithJsonSchema(NULLABLE_INSTANT)]


class Body(BaseModel):
    """A JSON object that a client sends."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


BodyT = TypeVar("BodyT", bound=BaseModel)


def parse(model: type[BodyT], value: Any) -> BodyT:
    """Return `value`, decoded JSON, as a body of that kind.

    Raises:
        Problem: `unknown_member` or `invalid_request`, with every member at fault.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors, number = details_of(error), error.error_count()
    if not errors:
        raise Problem("invalid_request", f"the body has {number} faults: too many to be listed")
    unknown = [each for each in errors if each["type"] == "extra_forbidden"]
    faults = [fault_of(each) for each in unknown or errors]
    code = "unknown_member" if unknown else "invalid_request"
    raise Problem(code, summary_of(faults, unknown=bool(unknown)), faults=faults)


def summary_of(faults: Sequence[Fault], *, unknown: bool = False) -> str:
    """Return a sentence on what is at fault; `unknown` if it is that nobody knows the members."""
    first = faults[0]
    rest = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    if unknown:
        return f"{first.pointer} is not a member this request can have{rest}"
    return f"{first.pointer or 'the body'} {first.detail}{rest}"
