"""What `api_replays` answers: dead letters sent again, run again or purged together."""

from __future__ import annotations

from typing import Any

from config.clock import SECOND
from delivery.letters import Filter
from delivery.replays import Definition, Failure, Progress, Replay
from delivery.sealing import KeyRing
from gateway.api.deliveries import HINTS
from gateway.openapi.deliveries import DELIVERY_ID
from gateway.openapi.examples import AT, Examples, identifier
from gateway.openapi.models.replays import ReplayDocument, ReplayList
from gateway.openapi.operations import (
    JSON_BODY_PROBLEMS,
    LIMIT,
    LOCATION,
    Content,
    Example,
    Operation,
    json_answer,
    links,
    path_parameter,
)
from gateway.replays import document
from gateway.schemas.replays import ReplayRequest

TAG = "Replays"

REPLAY_ID = identifier("rpl")
_REPLAY = path_parameter("replayId", "The replay.", REPLAY_ID)
_REQUESTS = {
    "some": Example(summary="These two", value={"ids": [DELIVERY_ID, identifier("msg", "two")]}),
    "filter": Example(
        summary="Those of one endpoint, gently, unless it still fails",
        value={
            "filter": {"endpoint": "https://client.example", "reason": "exhausted"},
            "rate": 50,
            "stopAtFailureRate": 0.2,
        },
    ),
    "elsewhere": Example(
        summary="All of them, to another URL",
        value={"all": True, "toUrl": "https://new.client.example/webhooks"},
    ),
    "dry": Example(
        summary="How many jobs it would be", value={"kind": "job", "all": True, "dryRun": True}
    ),
    "purge": Example(
        summary="Forget those of a receiver that is no more",
        value={"action": "purge", "filter": {"reason": "gone"}},
    ),
}


def operations(examples: Examples) -> tuple[Operation, ...]:
    """Return the operations on replays."""
    replay = _replay(examples)
    follow = links("replayId", "/id", "getReplay", "cancelReplay", "resumeReplay")
    return (
        Operation(
            method="get",
            path="/v1/replays",
            id="listReplays",
            tag=TAG,
            summary="List replays",
            text="Newest first. They are kept for 30 days after their end.",
            scope="read",
            parameters=(LIMIT,),
            answers=(json_answer(200, "The newest ones.", ReplayList, {"items": [replay]}),),
            problems=("invalid_parameter",),
        ),
        Operation(
            method="post",
            path="/v1/replays",
            id="createReplay",
            tag=TAG,
            summary="Replay or purge dead letters",
            text="What it is about is settled now: `ids`, what matches `filter`, or `all`; what"
            " dies later is no part of it. Deliveries are sent again under the same `webhook-id`,"
            " with their attempts begun anew, behind live traffic; jobs are run again as new ones."
            " With `dryRun` they are counted only.",
            scope="operate",
            body=(Content(schema=ReplayRequest, examples=_REQUESTS),),
            answers=(
                json_answer(
                    202,
                    "It begins.",
                    ReplayDocument,
                    replay,
                    headers=(LOCATION,),
                    links=follow,
                ),
            ),
            problems=(
                *JSON_BODY_PROBLEMS,
                "invalid_callback_url",
                "too_many_endpoints",
                "endpoint_unverified",
                "too_many_replays",
            ),
        ),
        Operation(
            method="get",
            path="/v1/replays/{replayId}",
            id="getReplay",
            tag=TAG,
            summary="Ask how far a replay has come",
            scope="read",
            parameters=(_REPLAY,),
            answers=(json_answer(200, "The replay.", ReplayDocument, replay),),
            problems=("not_found",),
        ),
        Operation(
            method="post",
            path="/v1/replays/{replayId}/cancel",
            id="cancelReplay",
            tag=TAG,
            summary="Cancel a replay",
            text="It moves no more; what it moved already is sent. It can be resumed.",
            scope="operate",
            parameters=(_REPLAY,),
            answers=(
                json_answer(
                    200, "It is cancelled.", ReplayDocument, {**replay, "state": "cancelled"}
                ),
            ),
            problems=("not_found", "replay_not_running"),
        ),
        Operation(
            method="post",
            path="/v1/replays/{replayId}/resume",
            id="resumeReplay",
            tag=TAG,
            summary="Resume a replay",
            text="One that was cancelled or stopped goes on from where it was; its brake begins to"
            " count anew.",
            scope="operate",
            parameters=(_REPLAY,),
            answers=(
                json_answer(
                    202, "It goes on.", ReplayDocument, replay, headers=(LOCATION,), links=follow
                ),
            ),
            problems=("not_found", "replay_completed"),
        ),
    )


def _replay(examples: Examples) -> dict[str, Any]:
    replay = Replay(
        id=REPLAY_ID,
        tenant="example",
        kind="delivery",
        definition=Definition(
            filter=Filter(endpoint="https://client.example", reason="exhausted"),
            rate=50.0,
            brake=0.2,
            total=500,
            by=identifier("key"),
        ),
        to_url=b"",
        state="running",
        reason=None,
        created_at=AT,
        updated_at=AT + 4 * SECOND,
        died_before=AT,
        base=(0, 0),
    )
    progress = Progress(
        looked=201,
        matched=200,
        moved=200,
        attempted=180,
        delivered=179,
        dead=0,
        erased=0,
        skipped={},
        reasons={"exhausted": 200},
        failures=(
            Failure(id=DELIVERY_ID, at=AT + SECOND, outcome="timeout", status=None, reason=None),
        ),
    )
    ring = KeyRing({"example": bytes(32)})
    return document(replay, progress, urls=examples.urls, ring=ring, hints=HINTS)
