"""Files that were uploaded by themselves."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.openapi.models.base import Answered, Count, Instant, Url

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="Lower-case hexadecimal.")]


class FileDocument(Answered):
    """A file that was uploaded by itself."""

    file_id: Annotated[str, Field(description='What an input names it by: `{"fileId": "…"}`.')]
    href: Url
    size: Count
    sha256: Sha256
    content_type: str
    expires_at: Annotated[Instant, Field(description="When it goes unless a job uses it.")]
