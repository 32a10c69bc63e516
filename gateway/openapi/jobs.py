"""What `api`, `api_control` and `api_artifacts` answer: jobs, their results, their files."""

from __future__ import annotations

from gateway.jobtypes import JobType
from gateway.openapi.examples import JOB_ID, Examples, parts_of, submissions
from gateway.openapi.models.jobs import JobDocument
from gateway.openapi.operations import (
    BYTES,
    ETAG,
    IF_NONE_MATCH,
    LOCATION,
    RANGE,
    RATE_LIMIT,
    RETRY_AFTER,
    Answer,
    Content,
    Example,
    Header,
    Operation,
    Parameter,
    json_answer,
    links,
    path_parameter,
)
from gateway.openapi.streams import APPLIED, PREFER, waited
from gateway.schemas.jobs import SubmitRequest

TAG = "Jobs"

JOB = path_parameter("jobId", "The job.", JOB_ID)
KEY = Parameter(
    name="Idempotency-Key",
    where="header",
    text="The same key and request again answer with the same job, so a request may be repeated.",
    schema={"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~][ -~]*$"},
    example="order-A-1042",
)
REPLAYED = Header(
    name="Idempotent-Replayed",
    text="An earlier request with this Idempotency-Key made the job.",
    always=False,
    schema={"const": "true"},
)
STATUS_LINK = Header(name="Link", text='The status, as `rel="status"` (RFC 8631).')
ON_COMPLETE = Parameter(
    name="onComplete",
    where="query",
    text="What a completed job answers, whatever was asked at submit.",
    schema={"type": "string", "enum": ["redirect", "inline"]},
    example="inline",
)
SUBMIT_PROBLEMS = (
    "malformed_json",
    "malformed_body",
    "invalid_idempotency_key",
    "idempotency_key_required",
    "request_in_progress",
    "job_expired",
    "body_too_large",
    "unsupported_media_type",
    "invalid_request",
    "unknown_member",
    "invalid_input",
    "invalid_callback_url",
    "too_many_endpoints",
    "endpoint_unverified",
    "idempotency_key_reused",
    "rate_limited",
    "too_many_pending",
    "store_full",
    "queue_full",
    "no_space_left",
    "artifacts_unavailable",
)
"""What speaks against a submission, wherever it comes in."""

_READ_PROBLEMS = ("not_found", "job_expired")


def operations(examples: Examples, job_types: tuple[JobType, ...]) -> tuple[Operation, ...]:
    """Return the operations on jobs."""
    return (
        _submit(examples, job_types),
        _status(examples),
        _result(examples),
        _cancel(examples),
        _retry(examples),
        _erase(),
        _artifact(),
    )


def accepted(examples: Examples) -> Answer:
    """Return the answer to a job that is kept."""
    return json_answer(
        202,
        "The job is kept, and will be done whatever crashes.",
        JobDocument,
        examples.pending,
        headers=(LOCATION, RETRY_AFTER, STATUS_LINK, REPLAYED, APPLIED, *RATE_LIMIT),
        links=links(
            "jobId",
            "/jobId",
            "getJob",
            "getResult",
            "cancelJob",
            "retryJob",
            "eraseJob",
            "makeTicket",
            "listDeliveries",
        ),
    )


def _submit(examples: Examples, job_types: tuple[JobType, ...]) -> Operation:
    return Operation(
        method="post",
        path="/v1/jobs",
        id="submitJob",
        tag=TAG,
        summary="Submit a job",
        text="Everything is validated, and the job is kept, before the answer. Its end is told to"
        " `callbackUrl`, if there is one, and can be asked for at the status URL in any case.\n\n"
        "Files go along in a form whose first part, `job`, is the request; the input names them as"
        ' `{"part": "name"}`. Files uploaded before are named as `{"fileId": "…"}`.',
        scope="submit",
        parameters=(KEY, PREFER),
        body=(_request(job_types), *_form(job_types)),
        answers=(waited(examples), accepted(examples)),
        problems=(*SUBMIT_PROBLEMS, "unknown_job_type"),
        calls_back=True,
    )


def _request(job_types: tuple[JobType, ...]) -> Content:
    choices = [
        {"properties": {"type": {"const": kind.name}, "input": kind.input_model}}
        for kind in job_types
    ]
    return Content(
        schema={"allOf": [SubmitRequest], "oneOf": choices}, examples=submissions(job_types)
    )


def _form(job_types: tuple[JobType, ...]) -> tuple[Content, ...]:
    examples = {}
    for kind in job_types:
        parts = parts_of(kind)
        if parts:
            job = {"type": kind.name, "input": dict(kind.example)}
            files = dict.fromkeys(parts.values(), "(the bytes of the file)")
            examples[kind.name] = Example(summary=kind.summary, value={"job": job, **files})
    if not examples:
        examples["document.analyze"] = Example(summary="A form", value={})
    return (
        Content(
            media_type="multipart/form-data",
            schema={
                "type": "object",
                "required": ["job"],
                "properties": {"job": SubmitRequest},
                "additionalProperties": {"type": "string", "format": "binary"},
            },
            examples=examples,
            encoding={"job": {"contentType": "application/json"}},
        ),
    )


def _status(examples: Examples) -> Operation:
    shown = {
        "pending": Example(summary="It waits for a worker", value=examples.pending),
        "processing": Example(summary="It is worked on", value=examples.processing),
        "failed": Example(summary="It failed", value=examples.failed),
        "cancelled": Example(summary="It was cancelled", value=examples.cancelled),
        "inline": Example(summary="It is completed, asked for inline", value=examples.completed),
    }
    return Operation(
        method="get",
        path="/v1/jobs/{jobId}",
        id="getJob",
        tag=TAG,
        summary="Ask how a job stands",
        text="A completed job leads on to its result by 303, with the whole document as the body:"
        " a client that follows gets the same document as one that does not. `onComplete=inline`,"
        " here or at submit, answers 200 instead.",
        scope="read",
        ticket=True,
        parameters=(JOB, ON_COMPLETE, PREFER, IF_NONE_MATCH),
        answers=(
            Answer(
                status=200,
                text="How the job stands. Retry-After until it has ended.",
                content=(Content(schema=JobDocument, examples=shown),),
                headers=(
                    ETAG,
                    APPLIED,
                    *RATE_LIMIT,
                    Header(
                        name="Retry-After",
                        text=RETRY_AFTER.text,
                        schema=RETRY_AFTER.schema,
                        always=False,
                    ),
                ),
            ),
            json_answer(
                303,
                "The job is completed. The Location reads its result without an API key.",
                JobDocument,
                examples.completed,
                headers=(LOCATION,),
            ),
            Answer(status=304, text="Nothing changed since the version in If-None-Match."),
        ),
        problems=(
            *_READ_PROBLEMS,
            "invalid_parameter",
            "too_many_watchers",
            "artifacts_unavailable",
        ),
    )


def _result(examples: Examples) -> Operation:
    return Operation(
        method="get",
        path="/v1/jobs/{jobId}/result",
        id="getResult",
        tag=TAG,
        summary="Fetch the result of a job",
        scope="read",
        ticket=True,
        parameters=(JOB,),
        answers=(json_answer(200, "The job is completed.", JobDocument, examples.completed),),
        problems=(
            *_READ_PROBLEMS,
            "result_not_ready",
            "job_failed",
            "job_cancelled",
            "artifacts_unavailable",
        ),
    )


def _cancel(examples: Examples) -> Operation:
    return Operation(
        method="post",
        path="/v1/jobs/{jobId}/cancel",
        id="cancelJob",
        tag=TAG,
        summary="Cancel a job",
        text="May be repeated. A worker that has begun stops at its next report of progress.",
        scope="submit",
        parameters=(JOB,),
        answers=(
            json_answer(
                200, "The job is cancelled, now or before.", JobDocument, examples.cancelled
            ),
            json_answer(
                202,
                "Its worker is told to stop.",
                JobDocument,
                examples.cancelling,
                headers=(RETRY_AFTER,),
            ),
        ),
        problems=(*_READ_PROBLEMS, "job_not_cancellable"),
    )


def _retry(examples: Examples) -> Operation:
    return Operation(
        method="post",
        path="/v1/jobs/{jobId}/retry",
        id="retryJob",
        tag=TAG,
        summary="Run a job again",
        text="Makes a new job of what a failed or cancelled one was given; one new job, however"
        " often it is asked.",
        scope="submit",
        parameters=(JOB,),
        answers=(
            json_answer(
                202,
                "The new job is kept.",
                JobDocument,
                examples.rerun,
                headers=(LOCATION, RETRY_AFTER, STATUS_LINK),
            ),
        ),
        problems=(
            *_READ_PROBLEMS,
            "job_not_retryable",
            "invalid_callback_url",
            "endpoint_unverified",
            "too_many_pending",
            "store_full",
            "queue_full",
            "no_space_left",
            "artifacts_unavailable",
        ),
    )


def _erase() -> Operation:
    return Operation(
        method="delete",
        path="/v1/jobs/{jobId}",
        id="eraseJob",
        tag=TAG,
        summary="Erase a job",
        text="Its input, results, files and callbacks go for good; its address answers 410.",
        scope="submit",
        parameters=(JOB,),
        answers=(Answer(status=204, text="Nothing is left of it."),),
        problems=(*_READ_PROBLEMS, "job_not_ended"),
    )


def _artifact() -> Operation:
    name = path_parameter("name", "As the results name it.", "report.pdf")
    return Operation(
        method="get",
        path="/v1/jobs/{jobId}/artifacts/{name}",
        id="getArtifact",
        tag=TAG,
        summary="Fetch a file that a job made",
        scope="read",
        ticket=True,
        parameters=(JOB, name, RANGE, IF_NONE_MATCH),
        answers=bytes_answers(),
        problems=(*_READ_PROBLEMS, "range_not_satisfiable", "artifacts_unavailable"),
    )


def bytes_answers() -> tuple[Answer, ...]:
    """Return the answers that carry kept bytes."""
    content = (Content(media_type="*/*", schema=BYTES),)
    at = Header(name="Content-Range", text="Which bytes, of how many.")
    return (
        Answer(status=200, text="The bytes.", content=content, headers=(ETAG,)),
        Answer(status=206, text="One range of them.", content=content, headers=(ETAG, at)),
        Answer(status=304, text="They are those that If-None-Match names."),
    )
