"""One request of the client until its answer: where it goes, who sees the key, what is repeated.

Credentials go to the origin of the base URL and nowhere else: an address in a document that is the
gateway's own is asked at the base URL, and a redirect is followed within the origin only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

from gateway.client.files import Body
from gateway.client.models import Job, UnexpectedAnswer, WaitTimeout
from gateway.client.steps import Ask, Flow, NoReply, Pause, Reply, failure_of, problem_of

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 3
_BUSY = frozenset({429, 502, 503, 504})
_ID = re.compile(r"[\w-]{1,100}", re.ASCII)
_OWN_PATH = re.compile(r"/v1/(?:jobs|files)/[^?#]+(?:\?[^#]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to try. Seconds, where it is not a count.

    Attributes:
        attempts: requests that one call makes of one before it gives up.
        total: that these may take together, pauses included.
        first_pause: doubles from attempt to attempt, and is spread by chance.
        longest_pause: at most; what Retry-After asks for may be longer.
        connect: to reach the gateway.
        read: between two pieces of an answer, and for the whole of one that is no download.
        silence: until an event stream that says nothing counts as broken; the gateway sends a
            comment every 15.
    """

    attempts: int = 5
    total: float = 60.0
    first_pause: float = 0.5
    longest_pause: float = 20.0
    connect: float = 5.0
    read: float = 30.0
    silence: float = 45.0


class Exchange:
    """Asks one gateway.

    Args:
        base_url: of the gateway, without `/v1`.
        api_key: sent to that origin only; None to send none.
        patience: how long to try.
        clock: seconds on a clock that never goes back.
        chance: a number in [0, 1), to spread pauses with.

    Raises:
        ValueError: the base URL is none.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        patience: Patience,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
            raise ValueError(f"this is no base URL: {base_url}")
        self.patience = patience
        self.clock = clock
        self.chance = chance
        self._base = base_url.rstrip("/")
        self._authorization = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Ask:
        """Return the request for a path of the gateway's."""
        described = {} if body is None else {"Content-Type": body.content_type}
        return Ask(
            method=method,
            url=self._base + path,
            headers={
                "Accept": "application/json, application/problem+json",
                **self._authorization,
                **described,
                **(headers or {}),
            },
            read=self.patience.read,
            body=body,
        )

    def ask_for(self, href: str, headers: Mapping[str, str]) -> Ask:
        """Return the request for an address in a document, its body streamed."""
        url = urljoin(self._base + "/", href)
        own = _OWN_PATH.search(url)
        if own is not None:
            return replace(self.ask("GET", own[0], headers), stream=True)
        if origin_of(url) == origin_of(self._base):
            headers = {**self._authorization, **headers}
        return Ask(method="GET", url=url, headers=headers, read=self.patience.read, stream=True)

    def call(self, ask: Ask, *, until: float | None = None, once: bool = False) -> Flow[Reply]:
        """Return the answer to `ask`, repeated while that makes sense.

        Args:
            ask: what may be sent twice without harm, unless `once`.
            until: when the caller has no more use for an answer; None for no such time.
            once: whether it is sent once, whatever comes of it.

        Raises:
            ProblemError: the gateway refused.
            NoAnswer: there was none.
            UnexpectedAnswer: a redirect led out of the origin, or in circles.
            WaitTimeout: `until` would have passed.
        """
        deadline = self.clock() + self.patience.total
        for attempt in turns(1):
            reply = yield from self._send(ask)
            pause = self._pause_before_repeat(reply, attempt)
            if pause is None or once:
                break
            then = self.clock() + pause
            if until is not None and then > until:
                raise WaitTimeout("no answer in time") from failure_of(reply)
            if attempt >= self.patience.attempts or then > deadline:
                break
            yield Pause(pause)
        if isinstance(reply, NoReply):
            raise failure_of(reply) from reply.error
        if reply.status >= 400:
            raise problem_of(reply)
        return reply

    def _send(self, ask: Ask) -> Flow[Reply | NoReply]:
        """Return what is at the end of the redirects."""
        for _ in range(1 + _MAX_REDIRECTS):
            reply: Reply | NoReply = yield ask
            if isinstance(reply, NoReply) or reply.status not in _REDIRECTS:
                return reply
            if reply.status == 303 and reply.is_json:
                # The gateway's own: what it leads to is in it.
                return reply
            location = urljoin(ask.url, reply.headers.get("location", ""))
            if ask.method != "GET" or origin_of(location) != origin_of(ask.url):
                raise UnexpectedAnswer(
                    f"{ask.method} {shown(ask.url)} redirects to {shown(location)}; if that is"
                    " where the gateway is, make it the base URL"
                )
            ask = replace(ask, url=location)
        raise UnexpectedAnswer(f"{shown(ask.url)} is at the end of too many redirects")

    def _pause_before_repeat(self, reply: Reply | NoReply, attempt: int) -> float | None:
        """Return the seconds until the same request makes sense again; None if never."""
        match reply:
            case NoReply(repeatable=repeatable):
                return self.backoff(attempt) if repeatable else None
            case Reply(status=status) if status in _BUSY or _in_progress(reply):
                hint = (reply.retry_after or 0) * (1 + 0.1 * self.chance())
                return max(self.backoff(attempt), hint)
            case _:
                return None

    def backoff(self, attempt: int) -> float:
        """Return the seconds to wait after the `attempt`-th failure, counted from 1."""
        growing = self.patience.first_pause * 2.0 ** min(attempt - 1, 30)
        return min(growing, self.patience.longest_pause) * (0.5 + 0.5 * self.chance())


def _in_progress(reply: Reply) -> bool:
    """Whether an earlier request with the same Idempotency-Key is being handled."""
    return reply.status == 409 and problem_of(reply).code == "request_in_progress"


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise UnexpectedAnswer("an address has a port that is none") from error
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}.get(parts.scheme)


def shown(url: str) -> str:
    """Return `url` without its query, which may hold a ticket."""
    return url.partition("?")[0]


def turns(first: int = 0) -> range:
    """Return more turns than any bound in time or number lets happen."""
    return range(first, 2**63)


def job_id(job: Job | str) -> str:
    """Return the identifier of a job that is given so or itself; ValueError where it is none."""
    identifier = job if isinstance(job, str) else job.id
    if _ID.fullmatch(identifier) is None:
        raise ValueError(f"this is no job's identifier: {identifier!r}")
    return identifier


def job_path(job: Job | str, rest: str = "") -> str:
    """Return the path of a job, or of what is under it."""
    return f"/v1/jobs/{job_id(job)}{rest}"
