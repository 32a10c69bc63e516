"""What the bodies have in common: their base, and the kinds of members."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339 in UTC with milliseconds."""

Url = Annotated[str, WithJsonSchema({"type": "string", "format": "uri"})]

Count = Annotated[int, Field(ge=0)]


class Answered(BaseModel):
    """Base of what is answered: members in camelCase, all of them always there."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, strict=True)
