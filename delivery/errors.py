"""What can go wrong in delivery, under one root.

    DeliveryError
    ├── SealError              a sealed value cannot be opened, or a key ring cannot be read
    ├── SecretError            a signing secret is missing or malformed
    ├── RotationContended      secrets were changed by others too often to be changed
    ├── DestinationRefused     a URL that no policy of ours accepts; told to the client at submit
    ├── HeaderRefused          a custom header that may not be sent; told to the client at submit
    ├── DestinationDenied      an address that may not be dialled; found when connecting
    ├── TooManyEndpoints       a tenant has as many endpoints as it may; told to the client
    ├── TransportFailed        `delivery.engine`: no complete answer came
    └── AnswerTooLarge, SinkFailed   `delivery.fetch`: what was fetched could not be kept

What a receiver does is not an error: it is an `Outcome` (see `delivery.outcomes`).
"""

from __future__ import annotations

from typing import Literal

RefusalCode = Literal[
    "url_too_long",
    "malformed_url",
    "scheme_not_allowed",
    "userinfo_not_allowed",
    "host_not_allowed",
    "port_not_allowed",
]
"""Why a URL was refused, as coarsely as a client may know it."""


class DeliveryError(Exception):
    """The root of every error that delivery raises on purpose."""


class SealError(DeliveryError):
    """A sealed value was changed, moved to another row, or sealed by a key that is not here."""


class SecretError(DeliveryError):
    """There is no signing secret, or it is not in the form of its scheme (`delivery.signing`)."""


class RotationContended(DeliveryError):
    """Others changed an endpoint's secrets again and again meanwhile; nothing was changed."""


class DestinationRefused(DeliveryError):
    """A URL was refused at submit, before any look-up.

    Attributes:
        code: coarse and enumerated, for programs.
        detail: a sentence for the client; it never holds a resolved address.
    """

    def __init__(self, code: RefusalCode, detail: str) -> None:
        super().__init__(detail)
        self.code: RefusalCode = code
        self.detail = detail


class HeaderRefused(DeliveryError):
    """The custom header `name` may not be sent; `detail` is a sentence for the client.

    The detail never repeats the header's value, which may be a credential.
    """

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail


class TooManyEndpoints(DeliveryError):
    """The tenant has as many endpoints as it may: nothing was kept."""


class DestinationDenied(DeliveryError):
    """An address may not be dialled. The message is fixed: no resolved address leaves here."""

    def __init__(self) -> None:
        super().__init__("the destination's address is not allowed")
