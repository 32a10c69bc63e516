"""What `api_files` answers: files that are uploaded by themselves."""

from __future__ import annotations

from config.clock import SECOND, rfc3339
from gateway.openapi.examples import AT, FILE_ID, Examples
from gateway.openapi.jobs import bytes_answers
from gateway.openapi.models.files import FileDocument
from gateway.openapi.operations import (
    BYTES,
    IF_NONE_MATCH,
    LOCATION,
    RANGE,
    Content,
    Example,
    Operation,
    Parameter,
    json_answer,
    links,
    path_parameter,
)
from gateway.samples import SHA256

TAG = "Files"


def operations(examples: Examples) -> tuple[Operation, ...]:
    """Return the operations on files."""
    name = Parameter(
        name="name",
        where="query",
        text="What the file is called, for people.",
        example="minutes.pdf",
    )
    kept = {
        "fileId": FILE_ID,
        "href": examples.urls.file(FILE_ID),
        "size": 1024,
        "sha256": SHA256,
        "contentType": "application/pdf",
        "expiresAt": rfc3339(AT + 86_400 * SECOND),
    }
    bytes_example = Example(summary="A text", value="Otters came back to the river.")
    return (
        Operation(
            method="post",
            path="/v1/files",
            id="uploadFile",
            tag=TAG,
            summary="Upload a file for jobs to come",
            text="The body is the file. It goes after a day unless a job uses it.",
            scope="submit",
            parameters=(name,),
            body=(
                Content(
                    media_type="application/octet-stream",
                    schema=BYTES,
                    examples={"text": bytes_example},
                ),
            ),
            answers=(
                json_answer(
                    201,
                    "The file is kept.",
                    FileDocument,
                    kept,
                    headers=(LOCATION,),
                    links=links("fileId", "/fileId", "getFile"),
                ),
            ),
            takes_nothing=True,
            problems=(
                "body_too_large",
                "unsupported_media_type",
                "store_full",
                "no_space_left",
                "artifacts_unavailable",
            ),
        ),
        Operation(
            method="get",
            path="/v1/files/{fileId}",
            id="getFile",
            tag=TAG,
            summary="Fetch an uploaded file",
            scope="read",
            parameters=(path_parameter("fileId", "The file.", FILE_ID), RANGE, IF_NONE_MATCH),
            answers=bytes_answers(),
            problems=("not_found", "range_not_satisfiable", "artifacts_unavailable"),
        ),
    )
