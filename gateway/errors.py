"""What the gateway raises.

GatewayError: the root.
    SubmitRefused: a job that must not be accepted; carries the problem's code and the members at fault.
    JobGone: the job expired; carries what its tombstone kept.
    ClaimLost: another claim holds the job now, so what this one has to say no longer counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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


class SubmitRefused(GatewayError):
    """The request was understood and cannot be accepted; nothing was kept.

    Attributes:
        status: the HTTP status that says so.
        code: the problem's code, such as `invalid_input`.
        detail: a sentence for the client.
        faults: the members at fault.
    """

    def __init__(self, status: int, code: str, detail: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.faults = tuple(faults)


class ClaimLost(GatewayError):
    """The job is no longer held under this claim: whatever its holder writes is void."""
