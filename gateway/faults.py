"""What is wrong with a request, member by member, in words for the client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MAX_FAULTS = 100
"""How many faults of one request are told."""

_WORDS: Mapping[str, str] = {
    "missing": "is required",
    "extra_forbidden": "is not a member of this object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be an array",
    "tuple_type": "must be an array",
}
"""What JSON calls it, where pydantic names the types of Python; by kinds of its errors."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One member of a request that is at fault.

    Attributes:
        pointer: JSON pointer (RFC 6901) to the member, such as `/input/document`.
        detail: a sentence for the client.
    """

    pointer: str
    detail: str


def details_of(error: ValidationError) -> list[ErrorDetails]:
    """Return what pydantic found at fault, without the rejected values, which may be secrets.

    Nothing when that is more than `MAX_FAULTS`: a short request could have a million faults, and
    the answer would be many times as long.
    """
    if error.error_count() > MAX_FAULTS:
        return []
    return error.errors(include_url=False, include_context=False, include_input=False)


def fault_of(detail: ErrorDetails) -> Fault:
    """Return a fault that pydantic found."""
    said = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return Fault(pointer(detail["loc"]), _WORDS.get(detail["type"], said))


def pointer(path: Iterable[str | int]) -> str:
    """Return the JSON pointer that leads along `path` (RFC 6901)."""
    return "".join(map(step, path))


def step(into: str | int) -> str:
    """Return the step of a JSON pointer into a member or an item (RFC 6901, section 3)."""
    return "/" + str(into).replace("~", "~0").replace("/", "~1")
