"""Which address a request of `http.request` goes to, and on what terms. No I/O.

A name stands for a service in the settings, and is dialled as the operator put it there. A URL is
taken only where the settings allow it, and then under the rules for callback URLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from config.settings import Settings
from delivery.configure import policy_of, proxy_of
from delivery.egress import parse_destination
from delivery.errors import DestinationRefused
from delivery.fetch import Guarded, Reach, Trusted
from gateway.handlers import JobError
from gateway.handlers_.breaker import Rules

MAX_PATH = 8_192

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_SEPARATORS = re.compile(r"[/\\]")
_DECODINGS = 3  # as often as a chain of servers might decode one path


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request goes and what holds there.

    Attributes:
        name: what the circuit breaker calls it: an upstream's name, a URL's origin.
        title: what people call it, at the start of a sentence.
        url: path and query included.
        headers: the operator's; secret.
        methods: those that may be used; None for all.
        timeout: the most that one request may take, in seconds.
        limit: of an answer's body, in bytes.
        rules: of its circuit breaker.
        reach: which addresses are dialled.
    """

    name: str
    title: str
    url: str
    headers: Mapping[str, str]
    methods: frozenset[str] | None
    timeout: float
    limit: int
    rules: Rules
    reach: Reach


def check_upstream(upstream: str, settings: Settings | None) -> None:
    """Return when `upstream` is a name, or a URL that `settings` allow.

    Args:
        upstream: as the client gave it.
        settings: may be None for what `is_url` says is no URL.

    Raises:
        ValueError: it is neither; the text is for the client.
    """
    if not is_url(upstream):
        if not _NAME.fullmatch(upstream):
            raise ValueError("must be the name of an upstream that the settings list")
        return
    if settings is None or not settings.http_request.allow_any_url:
        raise ValueError("must be the name of an upstream; URLs are not allowed here")
    try:
        parse_destination(upstream, policy_of(settings))
    except DestinationRefused as error:
        raise ValueError(error.detail) from None


def is_url(upstream: str) -> bool:
    """Tell whether `upstream` can only be meant as a URL."""
    return ":" in upstream


def check_path(path: str) -> None:
    """Return when `path`, with or without a query, stays below what it is appended to.

    Raises:
        ValueError: it does not, or another server could read it so; the text is for the client.
    """
    if not _PATH.fullmatch(path):
        raise ValueError(
            "must start with / and hold only what a path and query may; percent-encode the rest"
        )
    if path.startswith("//"):
        raise ValueError("must not start with //")
    if _climbs(path.partition("?")[0]):
        raise ValueError("must not have . or .. as a step")


def _climbs(path: str) -> bool:
    """Tell whether a step is `.` or `..` in any reading: encoded, after a backslash, with `;`."""
    for _ in range(_DECODINGS):
        steps = _SEPARATORS.split(path)
        if any(step.partition(";")[0] in {".", ".."} for step in steps):
            return True
        path = unquote(path, "latin-1")
    return False


def find_target(upstream: str, path: str | None, settings: Settings) -> Target:
    """Return where the request goes.

    Raises:
        JobError: the settings know no such upstream, or allow no such URL.
    """
    if is_url(upstream):
        return _by_url(upstream, settings)
    known = settings.upstreams.get(upstream)
    if known is None:
        raise JobError(f"There is no upstream named {upstream!r}.", code="upstream_unknown")
    return Target(
        name=upstream,
        title=f"The upstream {upstream!r}",
        url=known.base_url + (path or ""),
        headers={name: value.get_secret_value() for name, value in known.headers.items()},
        methods=frozenset(known.methods),
        timeout=known.timeout_seconds,
        limit=known.max_answer_bytes,
        rules=Rules(failures=known.breaker_failures, wait=known.breaker_wait_seconds),
        reach=Trusted(),
    )


def _by_url(url: str, settings: Settings) -> Target:
    limits = settings.http_request
    try:
        check_upstream(url, settings)
    except ValueError as error:
        # Taken in under other settings than those of today.
        raise JobError(f"The upstream {error}.", code="destination_not_allowed") from error
    policy = policy_of(settings)
    destination = parse_destination(url, policy)
    return Target(
        name=destination.origin,
        title=destination.origin,
        url=destination.url,
        headers={},
        methods=None,
        timeout=limits.timeout_seconds,
        limit=limits.max_answer_bytes,
        rules=Rules(failures=limits.breaker_failures, wait=limits.breaker_wait_seconds),
        reach=Guarded(policy=policy, proxy=proxy_of(settings)),
    )
