"""A receiver of callbacks with Django, all in one file.

    WEBHOOK_SECRET=whsec_… python django_receiver.py runserver --noreload 9000

Needs django and the file gateway/receiving.py. Callbacks come to /callbacks.
"""
# ruff: noqa: TID251, T201 - a receiver has surroundings of its own

import os
import queue
import sys
import threading

from django.conf import settings  # type: ignore[import-untyped]
from django.core.exceptions import RequestDataTooBig  # type: ignore[import-untyped]
from django.core.management import execute_from_command_line  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse, JsonResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from django.views.decorators.csrf import csrf_exempt  # type: ignore[import-untyped]
from django.views.decorators.http import require_POST  # type: ignore[import-untyped]

from gateway.receiving import Event, VerificationFailed, verify

# Several, with spaces between, while one takes the place of another.
SECRETS = os.environ["WEBHOOK_SECRET"].split()
RETIRED = {"/callbacks/retired"}
REMEMBERED = 10_000

settings.configure(
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    DATA_UPLOAD_MAX_MEMORY_SIZE=1_048_576,
)

# One process, until it ends. In earnest: a model whose field has `unique=True`, created in the same
# transaction as what the event changes, or `SET id 1 NX EX 2592000` in Redis.
seen: dict[str, None] = {}
work: queue.Queue[Event] = queue.Queue(maxsize=1_000)
lock = threading.Lock()


@csrf_exempt  # type: ignore[untyped-decorator]
@require_POST  # type: ignore[untyped-decorator]
def receive(request: HttpRequest) -> HttpResponse:
    """Take in one callback."""
    try:
        # The bytes as they came: JSON that was parsed and written again has another signature.
        event = verify(request.body, request.headers, SECRETS)
    except RequestDataTooBig:
        return HttpResponse(status=413)
    except VerificationFailed as error:
        print("refused:", error, flush=True)
        return HttpResponse(status=401)
    if request.path in RETIRED:
        # Nothing is sent to this URL again.
        return HttpResponse(status=410)
    if event.challenge is not None:
        # Callbacks are wanted here.
        return JsonResponse({"challenge": event.challenge})
    return take(event)


def take(event: Event) -> HttpResponse:
    """Leave the event to the worker, unless it came before."""
    with lock:
        if event.id in seen:
            return HttpResponse(status=204)
        try:
            work.put_nowait(event)
        except queue.Full:
            return HttpResponse(status=503, headers={"Retry-After": "30"})
        seen[event.id] = None
        if len(seen) > REMEMBERED:
            del seen[next(iter(seen))]
    return HttpResponse(status=204)


def do_the_work() -> None:
    """Act on events. In earnest they are in a queue or a table that outlives this process."""
    while True:
        event = work.get()
        print("took", event.type, event.data.get("jobId"), event.id, flush=True)


urlpatterns = [path("callbacks", receive), path("callbacks/retired", receive)]

if __name__ == "__main__":
    threading.Thread(target=do_the_work, daemon=True).start()
    execute_from_command_line(sys.argv)
