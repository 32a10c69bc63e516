"""What signs callbacks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from delivery.models import Scheme
from gateway.openapi.models.base import Answered, Instant


class RetiringSecret(Answered):
    """A secret that was replaced and signs on for a while."""

    scheme: Scheme
    secret: Annotated[str | None, Field(description="Null for `v1a`, whose keys stay here.")]
    public_key: Annotated[str | None, Field(pattern="^whpk_", description="For `v1a` only.")]
    until: Instant


class SecretDocument(Answered):
    """What a receiver verifies signatures with. What signs by Ed25519 is shown to nobody."""

    secret: Annotated[str, Field(pattern="^whsec_", description="For `v1`.")]
    public_key: Annotated[
        str | None,
        Field(pattern="^whpk_", description="For `v1a`; null until something is signed so."),
    ]
    x_signature_secret: Annotated[
        str | None,
        Field(
            description="For `x-signature`, null until something is signed so: the key is the text"
            " as it is here, in UTF-8."
        ),
    ]
    retiring: Annotated[
        tuple[RetiringSecret, ...],
        Field(description="What was replaced and still signs, newest first for each scheme."),
    ]
