"""A receiver of callbacks with FastAPI.

    WEBHOOK_SECRET=whsec_… uvicorn fastapi_receiver:app --port 9000

Needs fastapi, uvicorn and the file gateway/receiving.py. Callbacks come to /callbacks.
"""
# ruff: noqa: TID251, T201 - a receiver has surroundings of its own

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from gateway.receiving import Event, VerificationFailed, verify

# Several, with spaces between, while one takes the place of another.
SECRETS = os.environ["WEBHOOK_SECRET"].split()
RETIRED = {"/callbacks/retired"}
MAX_BODY = 1_048_576
REMEMBERED = 10_000

# One process, until it ends. In earnest: `SET id 1 NX EX 2592000` in Redis, or a table with a
# unique column, written in the same transaction as what the event changes.
seen: dict[str, None] = {}
work: asyncio.Queue[Event] = asyncio.Queue(maxsize=1_000)


async def do_the_work() -> None:
    """Act on events. In earnest they are in a queue or a table that outlives this process."""
    while True:
        event = await work.get()
        print("took", event.type, event.data.get("jobId"), event.id, flush=True)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Work while requests are served."""
    worker = asyncio.create_task(do_the_work())
    yield
    worker.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/callbacks")
@app.post("/callbacks/retired")
async def receive(request: Request) -> Response:
    """Take in one callback."""
    # The bytes as they came: JSON that was parsed and written again has another signature.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return Response(status_code=413)
    try:
        event = verify(bytes(body), request.headers, SECRETS)
    except VerificationFailed as error:
        print("refused:", error, flush=True)
        return Response(status_code=401)
    if request.url.path in RETIRED:
        # Nothing is sent to this URL again.
        return Response(status_code=410)
    if event.challenge is not None:
        # Callbacks are wanted here.
        return JSONResponse({"challenge": event.challenge})
    return take(event)


def take(event: Event) -> Response:
    """Leave the event to the worker, unless it came before."""
    if event.id in seen:
        return Response(status_code=204)
    if work.full():
        return Response(status_code=503, headers={"Retry-After": "30"})
    seen[event.id] = None
    if len(seen) > REMEMBERED:
        del seen[next(iter(seen))]
    work.put_nowait(event)
    return Response(status_code=204)
