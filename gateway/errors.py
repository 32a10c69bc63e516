"""The root of what the gateway raises; each kind stands beside the code that raises it.

GatewayError
    ApiKeyError         `auth`: a key that cannot be one
    ArtifactError       `artifacts`: the artifact storage failed or refused
    BrokerUnavailable   `broker`: the broker did not answer
    FrameError          `frames`: a message between worker and child is too long, or is none
    HandlersError       `handlers`: a job type, its input or its result is not what it has to be
    Problem             `problems`: a request is refused; what the client is told
    StrictJsonError     `strict_json`: a body that is not JSON in one reading only
    WatchersClosed      `watching`: the process stops, so nothing more will be seen of a job
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MAX_FAULTS = 100
"""How many faults of one request are told."""


class GatewayError(Exception):
    """Anything the gateway raises on purpose."""


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
