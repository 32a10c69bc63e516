"""Waiting for a job: long polls, polls, or its event stream, each as a flow."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from gateway.client.exchange import Exchange, job_path, turns
from gateway.client.models import (
    ENDED,
    Job,
    JobCancelled,
    JobEvent,
    JobFailed,
    NoAnswer,
    ProblemError,
    UnexpectedAnswer,
    WaitTimeout,
)
from gateway.client.steps import Ask, Emit, Flow, NoReply, Pause, Read, Reply
from gateway.client.stream import Message, StreamParser, StreamTooLong

LONGEST_HOLD = 30
"""Seconds that the gateway may hold back an answer (`Prefer: wait`)."""

_NO_STREAM = frozenset({404, 405, 406, 501})
_LONGEST_POLL_PAUSE = 30.0


class Watcher:
    """Waits for jobs of one gateway."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def wait(self, job: Job | str, timeout: float) -> Flow[Job]:
        """Poll until the job has ended; with long polls where the gateway knows them."""
        until = self._exchange.clock() + timeout
        for turn in turns():
            began = self._exchange.clock()
            hold = min(LONGEST_HOLD, int(until - began))
            reply = yield from self._exchange.call(self._poll(job, hold), until=until)
            found = Job.of(reply.json())
            if found.is_ended:
                return _completed(found)
            now = self._exchange.clock()
            if now >= until:
                break
            yield Pause(min(self._until_poll(reply, turn, now - began), until - now))
        raise WaitTimeout(f"the job {found.id} is {found.status} after {timeout:g} s", found)

    def events(self, job: Job | str, timeout: float) -> Flow[None]:
        """`GET /v1/jobs/{jobId}/events`, or polls where the gateway has no event stream."""
        watch = _Watch(job=job, until=self._exchange.clock() + timeout)
        failures = 0
        while True:
            reply = yield from self._open_stream(watch)
            if reply is None:
                yield from self._poll_events(watch)
                return
            if reply.status == 204:
                return
            before = watch.seen
            pause, error = yield from self._follow(watch)
            if watch.is_over or (watch.job_seen is not None and watch.job_seen.is_ended):
                return
            failures = 0 if watch.seen > before else failures + 1
            if failures >= self._exchange.patience.attempts:
                raise NoAnswer("the event stream ends again and again without an event") from error
            pause = self._exchange.backoff(failures + 1) if pause is None else pause
            now = self._exchange.clock()
            if now >= watch.until:
                raise WaitTimeout("the job has not ended in time", watch.job_seen)
            yield Pause(min(pause, self._exchange.patience.longest_pause, watch.until - now))

    def _poll(self, job: Job | str, hold: int, etag: str | None = None) -> Ask:
        headers = {"Prefer": f"wait={hold}"} if hold >= 1 else {}
        if etag is not None:
            headers["If-None-Match"] = etag
        ask = self._exchange.ask("GET", job_path(job), headers)
        return replace(ask, read=ask.read + max(hold, 0))

    def _until_poll(self, reply: Reply, turn: int, held: float) -> float:
        """Return the seconds until the next poll; at least one after the last began.

        Args:
            reply: to the last poll.
            turn: how many there were before it.
            held: seconds that the gateway took to answer it.
        """
        if "wait" in reply.headers.get("preference-applied", ""):
            return max(0.0, 1.0 - held)
        growing = min(1.5**turn, _LONGEST_POLL_PAUSE) * (1 + 0.2 * self._exchange.chance())
        return max(1.0, growing if reply.retry_after is None else reply.retry_after)

    def _open_stream(self, watch: _Watch) -> Flow[Reply | None]:
        """Return the opened stream, or the 204 after the end; None where there are no streams."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if watch.last_id is not None:
            headers["Last-Event-ID"] = watch.last_id
        ask = self._exchange.ask("GET", job_path(watch.job, "/events"), headers)
        left = watch.until - self._exchange.clock()
        ask = replace(ask, read=min(self._exchange.patience.silence, max(1.0, left)), stream=True)
        try:
            reply = yield from self._exchange.call(ask, until=watch.until)
        except ProblemError as error:
            if error.status in _NO_STREAM:
                return None
            raise
        is_stream = reply.headers.get("content-type", "").lower().startswith("text/event-stream")
        return reply if is_stream or reply.status == 204 else None

    def _follow(self, watch: _Watch) -> Flow[tuple[float | None, Exception | None]]:
        """Emit what the stream says; return the pause it asks for and what broke it, at its end."""
        parser = StreamParser()
        while True:
            piece = yield Read()
            if not isinstance(piece, bytes):
                return parser.retry, piece.error if isinstance(piece, NoReply) else None
            try:
                for message in parser.feed(piece):
                    event = watch.take(message)
                    if event is not None:
                        yield Emit(event)
            except StreamTooLong as error:
                raise UnexpectedAnswer("an event is too long") from error
            if watch.is_over:
                return None, None
            if self._exchange.clock() >= watch.until:
                raise WaitTimeout("the job has not ended in time", watch.job_seen)

    def _poll_events(self, watch: _Watch) -> Flow[None]:
        """Emit what polling shows, each version of the document once."""
        etag: str | None = None
        for turn in turns():
            began = self._exchange.clock()
            hold = min(LONGEST_HOLD, int(watch.until - began)) if etag else 0
            reply = yield from self._exchange.call(
                self._poll(watch.job, hold, etag), until=watch.until
            )
            if reply.status != 304:
                etag = reply.headers.get("etag")
                found = Job.of(reply.json())
                event = watch.poll(found)
                if event is not None:
                    yield Emit(event)
                if found.is_ended:
                    return
            now = self._exchange.clock()
            if now >= watch.until:
                raise WaitTimeout("the job has not ended in time", watch.job_seen)
            yield Pause(min(self._until_poll(reply, turn, now - began), watch.until - now))


@dataclass(slots=True, kw_only=True)
class _Watch:
    """How far the events of a job were followed."""

    job: Job | str
    until: float
    last_id: str | None = None
    job_seen: Job | None = None
    seen: int = 0
    is_over: bool = False

    def take(self, message: Message) -> JobEvent | None:
        """Return the event in a message of the stream; None for one that is about no job."""
        self.last_id = message.id if message.id is not None else self.last_id
        try:
            document = json.loads(message.data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(document, dict) or "jobId" not in document:
            return None
        job = Job.of(document)
        self.seen += 1
        self.job_seen = job
        self.is_over = message.event in ENDED
        return JobEvent(name=message.event, job=job, id=message.id)

    def poll(self, job: Job) -> JobEvent | None:
        """Return the event in a polled document; None when it says nothing new."""
        before, self.job_seen = self.job_seen, job
        if before is not None and before.raw == job.raw:
            return None
        self.seen += 1
        name = job.status if job.is_ended else "snapshot" if before is None else "progress"
        return JobEvent(name=name, job=job, id=None)


def _completed(job: Job) -> Job:
    match job.status:
        case "failed":
            raise JobFailed(job)
        case "cancelled":
            raise JobCancelled(job)
        case _:
            return job
