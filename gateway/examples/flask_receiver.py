"""A receiver of callbacks with Flask.

    WEBHOOK_SECRET=whsec_… flask --app flask_receiver run --port 9000

Needs flask and the file gateway/receiving.py. Callbacks come to /callbacks.
"""
# ruff: noqa: TID251, T201 - a receiver has surroundings of its own

import os
import queue
import threading

from flask import Flask, Response, jsonify, request

from gateway.receiving import Event, VerificationFailed, verify

# Several, with spaces between, while one takes the place of another.
SECRETS = os.environ["WEBHOOK_SECRET"].split()
RETIRED = {"/callbacks/retired"}
REMEMBERED = 10_000

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 1_048_576

# One process, until it ends. In earnest: `SET id 1 NX EX 2592000` in Redis, or a table with a
# unique column, written in the same transaction as what the event changes.
seen: dict[str, None] = {}
work: queue.Queue[Event] = queue.Queue(maxsize=1_000)
lock = threading.Lock()


@app.post("/callbacks")
@app.post("/callbacks/retired")
def receive() -> Response:
    """Take in one callback."""
    # The bytes as they came: JSON that was parsed and written again has another signature.
    body = request.get_data(cache=False)
    try:
        event = verify(body, dict(request.headers), SECRETS)
    except VerificationFailed as error:
        print("refused:", error, flush=True)
        return Response(status=401)
    if request.path in RETIRED:
        # Nothing is sent to this URL again.
        return Response(status=410)
    if event.challenge is not None:
        # Callbacks are wanted here.
        return jsonify(challenge=event.challenge)
    return take(event)


def take(event: Event) -> Response:
    """Leave the event to the worker, unless it came before."""
    with lock:
        if event.id in seen:
            return Response(status=204)
        try:
            work.put_nowait(event)
        except queue.Full:
            return Response(status=503, headers={"Retry-After": "30"})
        seen[event.id] = None
        if len(seen) > REMEMBERED:
            del seen[next(iter(seen))]
    return Response(status=204)


def do_the_work() -> None:
    """Act on events. In earnest they are in a queue or a table that outlives this process."""
    while True:
        event = work.get()
        print("took", event.type, event.data.get("jobId"), event.id, flush=True)


threading.Thread(target=do_the_work, daemon=True).start()
