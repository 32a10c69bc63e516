"""What `api_system` and `api_docs` answer: the gateway on itself."""

from __future__ import annotations

from gateway.openapi.models.jobtypes import TypeList
from gateway.openapi.operations import (
    ETAG,
    IF_NONE_MATCH,
    TEXT,
    Answer,
    Content,
    Operation,
    json_answer,
    path_parameter,
)
from gateway.problems import PROBLEMS

TAG = "System"


def operations() -> tuple[Operation, ...]:
    """Return the operations that belong to no object."""
    plain = (Content(media_type="text/plain", schema=TEXT),)
    page = (Content(media_type="text/html", schema=TEXT),)
    return (
        _job_types(),
        Operation(
            method="get",
            path="/problems/{code}",
            id="getProblem",
            tag=TAG,
            summary="Read what a problem means",
            text="The page that a problem's `type` leads to.",
            parameters=(
                path_parameter(
                    "code",
                    "Of the problem.",
                    "invalid_input",
                    {"type": "string", "enum": sorted(PROBLEMS)},
                ),
            ),
            answers=(Answer(status=200, text="The page.", content=page),),
            problems=("not_found",),
        ),
        Operation(
            method="get",
            path="/livez",
            id="getAlive",
            tag=TAG,
            summary="Ask whether the process lives",
            answers=(Answer(status=200, text="It does.", content=plain),),
            problems=("unhealthy",),
        ),
        Operation(
            method="get",
            path="/readyz",
            id="getReady",
            tag=TAG,
            summary="Ask whether the process is ready",
            text="Ready is a process that is neither starting nor stopping and whose durable store"
            " takes writes. How much work waits does not matter.",
            answers=(Answer(status=200, text="It is.", content=plain),),
            problems=("unhealthy",),
        ),
        Operation(
            method="get",
            path="/openapi.json",
            id="getOpenapi",
            tag=TAG,
            summary="Read this document",
            parameters=(IF_NONE_MATCH,),
            answers=(
                Answer(
                    status=200,
                    text="OpenAPI 3.1.",
                    content=(Content(schema={"type": "object"}),),
                    headers=(ETAG,),
                ),
                Answer(status=304, text="It is the version in If-None-Match."),
            ),
        ),
        Operation(
            method="get",
            path="/docs",
            id="getDocs",
            tag=TAG,
            summary="Read this document as a page",
            answers=(Answer(status=200, text="The page.", content=page),),
        ),
        Operation(
            method="get",
            path="/docs/{asset}",
            id="getDocsAsset",
            tag=TAG,
            summary="Fetch what the page is made of",
            parameters=(
                path_parameter(
                    "asset",
                    "A file's name.",
                    "docs.css",
                    {"type": "string", "enum": ["docs.css", "docs.js"]},
                ),
            ),
            answers=(
                Answer(
                    status=200,
                    text="The file.",
                    content=(
                        Content(media_type="text/css", schema=TEXT),
                        Content(media_type="text/javascript", schema=TEXT),
                    ),
                ),
            ),
            problems=("not_found",),
        ),
    )


def _job_types() -> Operation:
    report = {
        "type": "report.build",
        "summary": "Build the yearly report.",
        "input": {"type": "object", "properties": {"year": {"type": "integer"}}},
        "result": {"type": "object", "properties": {"total": {"type": "number"}}},
        "example": {"year": 2026},
        "limits": {
            "timeoutSeconds": 600,
            "queueTimeoutSeconds": None,
            "maxAttempts": 3,
            "isolation": "process",
            "memoryBytes": 1_073_741_824,
        },
    }
    return Operation(
        method="get",
        path="/v1/job-types",
        id="listJobTypes",
        tag=TAG,
        summary="List the job types",
        scope="any",
        answers=(json_answer(200, "What can be submitted.", TypeList, {"items": [report]}),),
    )
